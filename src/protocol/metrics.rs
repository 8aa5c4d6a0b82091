//! The metrics plane: `GET /metrics` for Prometheus, `/livez` and `/readyz` for Kubernetes.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use prometheus::{Encoder, ProtobufEncoder, TextEncoder, proto::MetricFamily};
use tokio_util::sync::CancellationToken;

use super::http::{
    Listeners, answer,
    server::{self, PlaneBody},
};
use crate::{fault::ErrorCode, gateway::Gateway, telemetry::Metrics};

/// What the metrics plane says of any other path.
pub(crate) const METRICS_PATHS: &str = "there is /metrics, /livez and /readyz";

/// What the metrics plane answers from.
#[derive(Clone)]
pub struct MetricsDoor {
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
    notes: Notes,
}

/// What should be known though the gateway is ready.
pub(super) type Notes = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl MetricsDoor {
    /// `runtime` is the version of ONNX Runtime, for `tidegate_build_info`.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, metrics: Arc<Metrics>, runtime: &str, notes: Notes) -> Self {
        metrics.set_build_info(env!("CARGO_PKG_VERSION"), runtime);
        Self { gateway, metrics, notes }
    }

    fn ready(&self) -> String {
        (self.notes)().map_or_else(|| "ready\n".to_owned(), |note| format!("ready\n{note}\n"))
    }

    async fn answer(self, request: Request<Incoming>) -> Response<PlaneBody> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = answer::error(ErrorCode::MethodNotAllowed, "use GET");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.scrape(request.headers()).await,
            "/livez" => text("ok\n".into()),
            "/readyz" => match self.gateway.unready() {
                None => text(self.ready()),
                Some(why) => answer::error(ErrorCode::Unavailable, &format!("not ready: {why}")),
            },
            _ => answer::error(ErrorCode::NotFound, METRICS_PATHS),
        }
    }

    async fn scrape(&self, headers: &HeaderMap) -> Response<PlaneBody> {
        let wants_protobuf = headers.get_all(ACCEPT).iter().any(is_protobuf);
        // Gathering waits shortly for the monitor, so that what was answered is counted.
        let metrics = Arc::clone(&self.metrics);
        let Ok(families) = tokio::task::spawn_blocking(move || metrics.gather()).await else {
            return answer::error(ErrorCode::Internal, "the metrics could not be gathered");
        };
        let encoded = if wants_protobuf {
            encode(&ProtobufEncoder::new(), &families)
        } else {
            encode(&TextEncoder::new(), &families)
        };
        encoded.unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics could not be encoded");
            answer::error(ErrorCode::Internal, "the metrics could not be encoded")
        })
    }
}

fn encode(encoder: &impl Encoder, families: &[MetricFamily]) -> prometheus::Result<Response<PlaneBody>> {
    let mut body = Vec::new();
    encoder.encode(families, &mut body)?;
    let kind = HeaderValue::from_str(encoder.format_type()).unwrap_or(HeaderValue::from_static("text/plain"));
    Ok(with_type(kind, body.into()))
}

/// Prometheus asks for its own message first when it prefers protobuf.
fn is_protobuf(accept: &HeaderValue) -> bool {
    accept.to_str().is_ok_and(|accept| accept.trim_start().starts_with("application/vnd.google.protobuf"))
}

fn text(body: String) -> Response<PlaneBody> {
    with_type(HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from(body))
}

fn with_type(kind: HeaderValue, body: Bytes) -> Response<PlaneBody> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Serves the metrics plane until `shutdown` is cancelled.
pub async fn serve_metrics(listeners: Listeners, door: MetricsDoor, shutdown: CancellationToken) {
    server::serve("metrics", listeners, move |request, _| door.clone().answer(request), shutdown).await;
}
