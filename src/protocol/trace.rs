//! The span of a request: one for both doors, continuing the caller's W3C trace.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    domain::{InferReply, Protocol},
    fault::ErrorCode,
};

/// The span of an inference request. When nobody listens this is one check of a static.
///
/// `version`, `request_id` and `code` are recorded when they are known: by [`record_reply`]
/// and [`record_failure`].
pub(super) fn request_span(protocol: Protocol, headers: &HeaderMap, model: &str) -> Span {
    let span = tracing::info_span!(
        "infer",
        otel.kind = "server",
        otel.status_code = Empty,
        protocol = protocol.as_str(),
        model,
        version = Empty,
        request_id = Empty,
        code = Empty,
    );
    if !span.is_disabled() && headers.contains_key("traceparent") {
        let caller = TraceContextPropagator::new().extract(&Headers(headers));
        // Fails when no exporter is configured: then there is no trace to continue.
        let _ = span.set_parent(caller);
    }
    span
}

/// Records what answered the request.
pub(super) fn record_reply(span: &Span, reply: &InferReply) {
    if span.is_disabled() {
        return;
    }
    span.record("version", reply.version.get());
    span.record("request_id", reply.id.as_str());
    span.record("code", "ok");
}

/// Records why the request has no reply. Only a fault on our side marks the span as failed.
pub(super) fn record_failure(span: &Span, code: ErrorCode) {
    span.record("code", code.label());
    if code.http().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{TraceContextExt, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())])
    }

    fn trace_of(headers: &HeaderMap) -> String {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        tracing::subscriber::with_default(subscriber, || {
            let span = request_span(Protocol::Http, headers, "fraud");
            span.context().span().span_context().trace_id().to_string()
        })
    }

    #[test]
    fn request_span_with_a_caller_continues_its_trace() {
        assert_eq!(trace_of(&headers(CALLER)), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn request_span_with_a_broken_or_no_caller_starts_a_trace() {
        for headers in [HeaderMap::new(), headers("00-zz"), headers("")] {
            let trace = trace_of(&headers);
            assert_ne!(trace, "0af7651916cd43dd8448eb211c80319c");
            assert_ne!(trace, "0".repeat(32));
        }
    }

    #[test]
    fn request_span_without_a_listener_is_disabled() {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
            assert!(request_span(Protocol::Grpc, &headers(CALLER), "fraud").is_disabled());
        });
    }
}
