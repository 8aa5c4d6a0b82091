//! Logs and traces: one `tracing` subscriber, with an OTLP exporter when an endpoint is configured.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Metadata, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::LevelFilter,
    layer::{Context, Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use super::levels::LogControl;
use crate::config::{LogFormat, TelemetryConfig};

/// Why logging or tracing could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.log: '{filter}' is not a log filter: {reason}")]
    Filter { filter: String, reason: String },
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("logging is started already")]
    Started,
}

/// Keeps the exporter alive; [`TracingGuard::flush`] sends what it still holds.
#[derive(Debug, Default)]
pub struct TracingGuard {
    provider: Option<SdkTracerProvider>,
    logs: LogControl,
}

impl TracingGuard {
    /// Shows and changes what is logged.
    #[must_use]
    pub fn logs(&self) -> LogControl {
        self.logs.clone()
    }

    /// Sends the spans not sent yet. Blocks for at most the exporter's time limit.
    pub fn flush(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

/// Starts logging to stderr, and tracing when an endpoint is configured. Call once, inside a
/// tokio runtime.
///
/// # Errors
/// When the filter is wrong, the exporter cannot be built, or logging has started already.
pub fn init(config: &TelemetryConfig) -> Result<TracingGuard, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| TelemetryError::Filter { filter: config.log.clone(), reason: error.to_string() })?;
    let (logs, filter) = LogControl::new(filter);
    let is_text = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if is_text {
        lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    let provider = exporter(config)?;
    let lines = tracing_subscriber::registry().with(lines.with_filter(EventsOnly(filter)));
    let started = match &provider {
        // A layer that is absent by `Option` would still ask for every span.
        None => lines.try_init(),
        Some(provider) => {
            let tracer = provider.tracer("tidegate");
            // Spans are exported whatever the log filter says: it is about lines.
            lines.with(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own_spans())).try_init()
        }
    };
    started.map_err(|_| TelemetryError::Started)?;
    Ok(TracingGuard { provider, logs })
}

/// Lines carry their own fields: without an exporter no span is made at all. Said once for each
/// place in the code, not asked at each request, which is why this is no closure.
struct EventsOnly<F>(F);

impl<S, F: Filter<S>> Filter<S> for EventsOnly<F> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        metadata.is_event() && self.0.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() { self.0.callsite_enabled(metadata) } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }
}

/// Spans of the gateway itself: those of the exporter's own connection would never end.
fn own_spans() -> EnvFilter {
    EnvFilter::new("off,tidegate=info")
}

fn exporter(config: &TelemetryConfig) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    if config.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(&config.otlp_endpoint).build()?;
    let resource = Resource::builder().with_service_name(config.service_name.clone()).build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.trace_ratio)));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}
