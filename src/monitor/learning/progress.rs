//! How far a profile is learnt.

use std::{fmt, time::Duration};

use super::Learning;
use crate::monitor::window_label;

/// What a version has of the profile that it learns from its own rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearningProgress {
    /// Rows that were learnt from.
    pub rows: u64,
    /// Rows that it takes at least.
    pub min_rows: u64,
    /// No more rows are learnt from: they are as many as there is room for, and enough.
    pub is_full: bool,
    /// When the first row came, since the Unix epoch; `None`: none has come yet.
    pub since: Option<Duration>,
    /// How long it takes at least, from the first row on.
    pub length: Duration,
    /// What is left of that.
    pub time_left: Duration,
}

impl LearningProgress {
    /// Rows that are lacking yet.
    #[must_use]
    pub fn rows_left(&self) -> u64 {
        if self.is_full { 0 } else { self.min_rows.saturating_sub(self.rows) }
    }

    /// When it ends at the earliest, since the Unix epoch; `None` before the first row.
    #[must_use]
    pub fn earliest_end(&self) -> Option<Duration> {
        Some(self.since?.saturating_add(self.length))
    }

    /// All rows and all of the time are there: it ends when the next row comes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.since.is_some() && self.time_left.is_zero() && self.rows_left() == 0
    }
}

impl fmt::Display for LearningProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, min_rows, length, time_left, .. } = self;
        write!(f, "{rows} of at least {min_rows} rows, ")?;
        let left = humantime::format_duration(Duration::from_secs(time_left.as_secs()));
        match (self.since, self.rows_left()) {
            (None, _) => write!(f, "and {} from the first one on", window_label(*length)),
            (_, 0) if time_left.is_zero() => f.write_str("ends with the next one"),
            (_, 0) => write!(f, "{left} left"),
            (_, rows_left) if time_left.is_zero() => write!(f, "{rows_left} rows left"),
            (_, rows_left) => write!(f, "{left} and {rows_left} rows left"),
        }
    }
}

impl Learning {
    /// How far it is at the time `now`.
    pub(in crate::monitor) fn progress(&self, now: Duration) -> LearningProgress {
        let (length, since) = (self.options.length, self.began);
        LearningProgress {
            rows: self.rows as u64,
            // Of nothing no profile is made.
            min_rows: self.options.settings.thresholds.min_rows.max(1),
            is_full: self.is_full && self.rows > 0,
            since,
            length,
            time_left: since.map_or(length, |began| began.saturating_add(length).saturating_sub(now)),
        }
    }
}
