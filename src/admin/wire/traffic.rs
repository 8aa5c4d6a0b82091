//! A version's requests by outcome, as the admin API shows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::observe;

/// Requests by outcome since the process started, and in the last minutes. Copies that a shadow ran are not in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    pub requests: u64,
    /// Failed through the gateway's fault or the model's: internal, unavailable, overloaded, deadline exceeded.
    pub errors: u64,
    /// Refused as wrong, such as with 400.
    pub refusals: u64,
    /// Given up by their callers.
    pub cancelled: u64,
    /// Absent until the version has served for a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<RecentTraffic>,
}

/// The requests of the last five minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecentTraffic {
    /// How long ago it begins: five minutes, or less after a start.
    pub window_seconds: f64,
    pub requests: u64,
    pub errors: u64,
    pub refusals: u64,
    pub requests_per_second: f64,
    /// Median latency, interpolated within a bucket of `tidegate_request_duration_seconds`; absent without requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
}

/// Requests that failed before they reached a version: malformed, too large, or with no version ready.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Unrouted {
    pub errors: u64,
    pub refusals: u64,
}

impl Unrouted {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl From<observe::Counts> for Unrouted {
    fn from(counts: observe::Counts) -> Self {
        Self { errors: counts.errors, refusals: counts.refusals }
    }
}

impl From<&observe::TrafficReport> for Traffic {
    fn from(report: &observe::TrafficReport) -> Self {
        let total = &report.total;
        Self {
            requests: total.requests(),
            errors: total.errors,
            refusals: total.refusals,
            cancelled: total.cancelled,
            recent: report.recent.as_ref().map(RecentTraffic::from),
        }
    }
}

impl From<&observe::Recent> for RecentTraffic {
    fn from(recent: &observe::Recent) -> Self {
        Self {
            window_seconds: recent.window.as_secs_f64(),
            requests: recent.counts.requests(),
            errors: recent.counts.errors,
            refusals: recent.counts.refusals,
            requests_per_second: recent.rate,
            p50_seconds: recent.p50.map(|time| time.as_secs_f64()),
            p99_seconds: recent.p99.map(|time| time.as_secs_f64()),
        }
    }
}
