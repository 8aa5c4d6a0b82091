//! The gRPC door: `inference.GRPCInferenceService`, `grpc.health.v1` and reflection.
//!
//! `service` answers the calls, `convert` and `contents` turn messages into tensors and
//! back, `health` says whether the gateway is ready, `wire` puts what tonic refuses before
//! a handler runs into the contract's codes. The connections are the plane server's.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};
use tower_service::Service;

use super::{
    DoorOptions,
    data_plane::DataPlane,
    http::{
        answer,
        server::{self, PlaneBody, is_grpc},
    },
};
use crate::{
    fault::ErrorCode,
    proto::{DESCRIPTORS, inference::grpc_inference_service_server::GrpcInferenceServiceServer},
};

mod contents;
mod convert;
mod health;
mod service;
mod wire;
#[cfg(test)]
mod wire_tests;

/// The services that this plane really serves; the descriptors know of more.
const SERVICES: [&str; 4] = [
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// See [`super::serve_grpc`].
pub(super) async fn serve<D: DataPlane>(
    listener: TcpListener,
    gateway: Arc<D>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    let routes = routes(&gateway, &options, &shutdown);
    let limit = options.max_body_bytes;
    let handler = move |request| answer_call(routes.clone(), Arc::clone(&gateway), limit, request);
    server::serve("grpc", listener, handler, shutdown).await;
}

async fn answer_call<D: DataPlane>(
    mut routes: Routes,
    gateway: Arc<D>,
    limit: usize,
    request: Request<Incoming>,
) -> Response<PlaneBody> {
    if !is_grpc(request.headers()) {
        let message = "this port speaks gRPC: send application/grpc over HTTP/2, or use the HTTP port";
        return answer::error(ErrorCode::BadRequest, message);
    }
    let call = wire::Call::of(request.uri().path());
    // Routes are always ready: nothing in them waits for capacity.
    let response = match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    wire::in_our_words(call, response, limit, gateway.as_ref()).map(Either::Right)
}

fn routes<D: DataPlane>(gateway: &Arc<D>, options: &DoorOptions, shutdown: &CancellationToken) -> Routes {
    let inference = GrpcInferenceServiceServer::new(service::Inference::new(Arc::clone(gateway)))
        .max_decoding_message_size(options.max_body_bytes)
        .accept_compressed(CompressionEncoding::Gzip);
    let reflection = || {
        let known = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
            .include_reflection_service(false);
        SERVICES.into_iter().fold(known, tonic_reflection::server::Builder::with_service_name)
    };
    let compiled_in = "the descriptors were checked when they were compiled in";
    Routes::new(inference)
        .add_service(health::server(Arc::clone(gateway), shutdown.clone()))
        .add_service(reflection().build_v1().expect(compiled_in))
        .add_service(reflection().build_v1alpha().expect(compiled_in))
        .prepare()
}
