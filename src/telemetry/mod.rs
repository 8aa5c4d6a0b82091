//! What the gateway tells of itself: metric families, logs, traces.

mod families;
mod levels;
mod logs;
mod metrics;

pub use self::{
    families::{Sample, counter_family, gauge_family},
    levels::{LogControl, LogLevels},
    logs::{TelemetryError, TracingGuard, init},
    metrics::Metrics,
};
