//! How far a version has learnt its profile, as JSON.

use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::timestamp;
use crate::monitor::{LearningProgress, window_label};

/// What a version has of the profile that it learns from its own rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Learning {
    /// Rows that were learnt from.
    pub rows: u64,
    /// Rows that it takes at least.
    pub min_rows: u64,
    /// Rows that are lacking yet.
    pub rows_left: u64,
    /// When the first row came: RFC 3339, UTC. Null before it.
    pub since: Option<String>,
    /// How long it takes at least, from the first row on: a duration such as `1d`.
    pub length: String,
    /// When it ends at the earliest: RFC 3339, UTC. Null before the first row.
    pub earliest_end: Option<String>,
    /// Until then; the whole length before the first row.
    pub seconds_left: f64,
    /// No more rows are learnt from: they are as many as there is room for.
    pub full: bool,
}

impl From<&LearningProgress> for Learning {
    fn from(progress: &LearningProgress) -> Self {
        /// Far behind all that the format can say, which moves it to its end.
        const FAR: Duration = Duration::from_secs(1 << 40);
        let at = |since_epoch: Duration| timestamp(SystemTime::UNIX_EPOCH + since_epoch.min(FAR));
        Self {
            rows: progress.rows,
            min_rows: progress.min_rows,
            rows_left: progress.rows_left(),
            since: progress.since.map(at),
            length: window_label(progress.length),
            earliest_end: progress.earliest_end().map(at),
            seconds_left: progress.time_left.as_secs_f64(),
            full: progress.is_full,
        }
    }
}
