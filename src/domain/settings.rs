//! How a version is served: what its configuration settles before it is loaded.

use std::time::Duration;

use super::Priority;

/// The settings of one version's queue and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingSettings {
    /// Requests that may wait; more are refused.
    pub max_queue: usize,
    /// Bytes of inputs that may wait; more are refused.
    pub max_queue_bytes: usize,
    /// A request that would have to wait longer than this, by the measured rate, is refused.
    pub max_wait: Duration,
    /// Runs at the same time, at least 1. All share one copy of the weights.
    pub instances: usize,
    /// A run that is expected to take no longer happens on the thread of the request.
    pub inline_limit: Duration,
    /// The priority of requests that give none.
    pub default_priority: Priority,
    /// The time that a request may take when it gives none; `None`: as long as it takes.
    pub default_timeout: Option<Duration>,
    pub batching: Batching,
}

/// Whether requests that wait are run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batching {
    /// Each request runs alone.
    Off,
    On(BatchLimits),
}

/// How large a batch may become, and how long it may wait for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows per run, at least 2. A request with more rows runs alone.
    pub max_rows: usize,
    /// How long a request may wait for others to join it; zero: whatever waits when a run can
    /// begin runs, without any added delay.
    pub max_delay: Duration,
    /// Choose rows and delay, within the two above, so that 99 % of requests take no longer.
    pub target_p99: Option<Duration>,
}
