//! The gRPC door: `inference.GRPCInferenceService`, `grpc.health.v1` and reflection.
//!
//! `service` answers the calls, `stream` those with many requests; `terms` reads the metadata,
//! `convert` and `contents` turn messages into tensors and back, `extensions` are Triton's
//! questions beside inference, `health` says whether the gateway is ready, `counted` counts what tonic reads,
//! `wire` puts what tonic refuses before a handler runs into the contract's codes. The connections are the plane
//! server's.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};
use tower_service::Service;

use self::counted::Counted;
use super::{
    DoorOptions,
    data_plane::DataPlane,
    http::{
        Listeners, answer,
        server::{self, ConnectionLimits, PlaneBody, is_grpc},
    },
};
use crate::{
    fault::ErrorCode,
    proto::{DESCRIPTORS, inference::grpc_inference_service_server::GrpcInferenceServiceServer},
};

mod contents;
mod convert;
mod counted;
mod encode;
#[cfg(test)]
mod extension_tests;
mod extensions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod health;
mod service;
mod stream;
#[cfg(test)]
mod stream_tests;
mod terms;
mod unary;
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

/// How a call's messages are compressed, and how the client takes them.
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// See [`super::serve_grpc`].
pub(super) async fn serve<D: DataPlane>(
    listeners: Listeners,
    gateway: Arc<D>,
    options: DoorOptions,
    shutdown: CancellationToken,
) {
    let limit = options.max_body_bytes;
    let connections = ConnectionLimits { max_age: options.max_age, ..ConnectionLimits::default() };
    let service = service::Inference::new(gateway, options, shutdown.clone());
    let routes = routes(&service, limit, &shutdown);
    let service = Arc::new(service);
    let handler = move |request, _| answer_call(routes.clone(), Arc::clone(&service), limit, request);
    server::serve_within("grpc", listeners, handler, connections, shutdown).await;
}

async fn answer_call<D: DataPlane>(
    mut routes: Routes,
    service: Arc<service::Inference<D>>,
    limit: usize,
    mut request: Request<Incoming>,
) -> Response<PlaneBody> {
    if !is_grpc(request.headers()) {
        let message = "this port speaks gRPC: send application/grpc over HTTP/2, or use the HTTP port";
        return answer::error(ErrorCode::BadRequest, message);
    }
    let call = wire::Call::of(request.uri().path());
    let is_plain = !is_compressed(request.headers());
    if call == wire::Call::Infer && is_plain {
        return unary::answer(&service, service.options(), request).await;
    }
    if call.carries_tensors() && is_plain {
        // gRPC's C core, under most clients, always offers to take compressed answers. For
        // tensors that costs more than it saves, so who wants it shows it by compressing.
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let DoorOptions { budget, body_timeout, .. } = service.options();
    let may_rest = wire::has_many_messages(request.uri().path());
    let request = request.map(|body| Counted::new(body, budget, *body_timeout, may_rest));
    // Routes are always ready: nothing in them waits for capacity.
    let response = match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    wire::in_our_words(call, response, limit, service.gateway()).map(Either::Right)
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(&ENCODING).is_some_and(|encoding| encoding != "identity")
}

fn routes<D: DataPlane>(service: &service::Inference<D>, limit: usize, shutdown: &CancellationToken) -> Routes {
    let inference = GrpcInferenceServiceServer::new(service.clone())
        .max_decoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate);
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
        .add_service(health::server(service.shared_gateway(), shutdown.clone()))
        .add_service(reflection().build_v1().expect(compiled_in))
        .add_service(reflection().build_v1alpha().expect(compiled_in))
        .prepare()
}
