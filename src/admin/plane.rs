//! The admin plane: REST and gRPC on one port, told apart by the content type.

use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_service::Service;

use super::{AdminService, RestDoor, grpc};
use crate::protocol::http::server::{self, PlaneBody, is_grpc};

/// Serves the admin plane until `shutdown` is cancelled.
pub async fn serve_admin(listener: TcpListener, service: AdminService, shutdown: CancellationToken) {
    let rest = RestDoor::new(service.clone());
    let routes = grpc::routes(service);
    let handler = move |request| answer(rest.clone(), routes.clone(), request);
    server::serve("admin", listener, handler, shutdown).await;
}

async fn answer(rest: RestDoor, mut routes: Routes, request: Request<Incoming>) -> Response<PlaneBody> {
    if !is_grpc(request.headers()) {
        return rest.handle(request).await.map(Either::Left);
    }
    match routes.call(request).await {
        Ok(response) => response.map(Either::Right),
        Err(never) => match never {},
    }
}
