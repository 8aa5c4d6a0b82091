//! What the gateway tells of itself: metric families, logs, traces.

/// Awaits a future within a span. Where nobody listens that is to await it where it was made: to wrap it would
/// move it, which costs a small request more than its own work here and there.
macro_rules! in_span {
    ($span:expr, $future:expr) => {
        if $span.is_disabled() { $future.await } else { tracing::Instrument::instrument($future, $span.clone()).await }
    };
}
pub(crate) use in_span;

mod families;
mod levels;
mod limit;
mod logs;
mod metrics;

pub use self::{
    families::{Sample, counter_family, gauge_family},
    levels::{LogControl, LogLevels},
    limit::LogLimit,
    logs::{TelemetryError, TracingGuard, init},
    metrics::Metrics,
};
