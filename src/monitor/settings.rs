//! What an operator may set of the monitor.

use std::{path::PathBuf, time::Duration};

use super::verdict::Thresholds;
use crate::domain::Labels;

/// What an operator may set.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorSettings {
    /// The windows that metrics are given for; the longest bounds those that can be asked for.
    pub windows: Vec<Duration>,
    /// The parts that each window slides by.
    pub sub_windows: usize,
    pub thresholds: Thresholds,
    /// Features and request parameters by whose values rows are counted apart too.
    pub segments: Vec<String>,
    /// Values of each of them that are told apart; the others are counted as `other`.
    pub max_segments: usize,
    pub contract: Contract,
    pub baseline: Baseline,
    /// The names of the classes of outputs.
    pub labels: Labels,
    /// Where counts and learnt profiles are kept; `None`: nowhere.
    pub directory: Option<PathBuf>,
}

/// What happens to a request with values that the profile has never seen the like of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contract {
    #[default]
    Off,
    /// It is answered, and the answer says so.
    Flag,
    /// It is refused.
    Reject,
}

/// What a version without a profile is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Baseline {
    /// Nothing.
    #[default]
    Profile,
    /// What was live on the stable version when it was loaded, or once that is rows enough.
    Stable,
    /// Its own rows of so long, from the first on.
    Learn(Duration),
}

impl Default for MonitorSettings {
    fn default() -> Self {
        let windows = vec![Duration::from_mins(5), Duration::from_hours(1), Duration::from_hours(24)];
        Self {
            windows,
            sub_windows: 60,
            thresholds: Thresholds::default(),
            segments: Vec::new(),
            max_segments: 20,
            contract: Contract::Off,
            baseline: Baseline::Profile,
            labels: Labels::default(),
            directory: None,
        }
    }
}

impl MonitorSettings {
    /// How often a window is looked at: when it slides, and at most once a second.
    pub(super) fn look_interval(&self, window: Duration) -> Duration {
        let parts = u32::try_from(self.sub_windows).unwrap_or(u32::MAX).max(1);
        (window / parts).max(Duration::from_secs(1))
    }
}
