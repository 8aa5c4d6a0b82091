//! What the gateway tells of itself: metric families, logs, traces.

mod families;
mod logs;
mod metrics;

pub use self::{
    families::{Sample, gauge_family},
    logs::{TelemetryError, TracingGuard, init},
    metrics::Metrics,
};
