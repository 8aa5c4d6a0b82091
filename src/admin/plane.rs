//! The admin plane: REST and gRPC on one port, told apart by the content type.

use http::{
    HeaderMap, Request, Response,
    header::{HOST, ORIGIN},
};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower_service::Service;

use super::{AdminService, RestDoor, grpc};
use crate::{
    fault::ErrorCode,
    protocol::{
        Listeners,
        http::{
            answer,
            server::{self, Peer, PlaneBody, is_grpc},
        },
    },
};

/// Serves the admin plane until `shutdown` is cancelled.
pub async fn serve_admin(listeners: Listeners, service: AdminService, shutdown: CancellationToken) {
    let rest = RestDoor::new(service.clone());
    let routes = grpc::routes(service);
    let handler = move |mut request: Request<Incoming>, peer: Peer| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        answer(rest.clone(), routes.clone(), request)
    };
    server::serve("admin", listeners, handler, shutdown).await;
}

async fn answer(rest: RestDoor, mut routes: Routes, request: Request<Incoming>) -> Response<PlaneBody> {
    if is_cross_site(request.headers()) {
        let message = "requests made by web pages of other sites are refused";
        return answer::error(ErrorCode::PermissionDenied, message);
    }
    if !is_grpc(request.headers()) {
        return rest.handle(request).await;
    }
    match routes.call(request).await {
        Ok(response) => response.map(Either::Right),
        Err(never) => match never {},
    }
}

/// A page of another site, open in an operator's browser, must not be able to roll back a model:
/// browsers name the page's origin on every such request, other clients send none.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    from.is_none() || from != own
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_pages_of_the_plane_itself_may_ask() {
        let headers = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("localhost:8003"));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            headers
        };
        assert!(!is_cross_site(&headers(None)));
        assert!(!is_cross_site(&headers(Some("http://localhost:8003"))));
        for foreign in ["http://evil.example", "null", "http://localhost:8000"] {
            assert!(is_cross_site(&headers(Some(foreign))), "{foreign}");
        }
    }
}
