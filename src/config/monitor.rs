//! `[monitor]`: the drift monitor.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    pub enabled: bool,
    /// The sliding windows that live rows are compared over.
    pub windows: Vec<Span>,
    /// Corrected PSI from which a feature is in state `warning`.
    pub warning: f64,
    /// Corrected PSI from which a feature is in state `drift`.
    pub drift: f64,
    /// Increase of the share of missing, non-finite, unseen or out-of-range values that is a `warning`.
    pub share_warning: f64,
    /// Increase of such a share that is `drift`.
    pub share_drift: f64,
    /// A state ends when the distance falls under this part of what began it.
    pub clear_ratio: f64,
    /// Rows in the window below which no verdict is given.
    pub min_rows: u64,
    /// The mean time between false alarms of a model, all its features and windows together, is at least this.
    pub false_alarm_interval: Span,
    /// Input features and request parameters by whose values rows are counted apart too.
    pub segments: Vec<String>,
    /// Values of each of them that are told apart, for each version; the others are counted as `other`.
    pub max_segments: usize,
    /// Rows counted or learnt from in a second, over all models: of more, as many are drawn by lot. 0: all are counted.
    pub max_rows_per_second: u64,
    /// Features that metrics are exported of, by name; empty: all. Others are monitored all the same.
    pub export: Vec<String>,
    /// Time series of features that are exported, at most; the features after that are not.
    pub max_series: usize,
    /// How often counts are saved, so that windows go on after a restart.
    pub save_interval: Span,
    /// Where a version without a `profile.json` gets what its live rows are compared with.
    pub baseline: Baseline,
    /// What happens to a request with values that the profile has never seen.
    pub contract: Contract,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        let minutes = |minutes: u64| Span(Duration::from_secs(60 * minutes));
        Self {
            enabled: true,
            windows: vec![minutes(5), minutes(60), minutes(24 * 60)],
            warning: 0.02,
            drift: 0.03,
            share_warning: 0.01,
            share_drift: 0.015,
            clear_ratio: 0.7,
            min_rows: 200,
            false_alarm_interval: minutes(30 * 24 * 60),
            segments: Vec::new(),
            max_segments: 20,
            max_rows_per_second: 0,
            export: Vec::new(),
            max_series: 20_000,
            save_interval: minutes(1),
            baseline: Baseline::Profile,
            contract: Contract::Off,
        }
    }
}

/// What a version without a profile is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Nothing: it is not monitored.
    Profile,
    /// What the stable version saw in the longest window, when the version was first loaded, or once that is rows enough.
    Stable,
    /// Its own rows, from the first on for so long.
    Learn(Span),
}

/// What happens to a request with values that the profile of the version has never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// Nothing.
    #[default]
    Off,
    /// It is answered, counted, and the answer says so in the parameter `contract_violation`.
    Flag,
    /// It is refused.
    Reject,
}

/// What is wrong with windows, of the gateway or of a model.
pub(super) fn fault_of_windows(windows: &[Span]) -> Option<String> {
    let twice = || windows.iter().enumerate().find(|(at, window)| windows[..*at].contains(window));
    if windows.is_empty() {
        Some("monitor.windows must have at least one window".into())
    } else if windows.iter().any(|window| window.0.is_zero()) {
        Some("monitor.windows must be more than 0s each".into())
    } else {
        twice().map(|(_, window)| format!("monitor.windows has {window} twice"))
    }
}

impl MonitorConfig {
    pub(super) fn faults(&self, check: &mut impl FnMut(bool, &str)) {
        let windows = fault_of_windows(&self.windows);
        check(windows.is_none(), &windows.unwrap_or_default());
        check(self.warning > 0.0, "monitor.warning must be more than 0");
        let Self { warning, drift, share_warning, share_drift, .. } = self;
        check(drift >= warning, &format!("monitor.drift ({drift}) must be at least monitor.warning ({warning})"));
        check((0.0..=1.0).contains(share_warning), "monitor.share_warning must be from 0 to 1");
        let order =
            format!("monitor.share_drift ({share_drift}) must be at least monitor.share_warning ({share_warning})");
        check(share_drift >= share_warning, &order);
        check(self.clear_ratio > 0.0 && self.clear_ratio <= 1.0, "monitor.clear_ratio must be above 0 and at most 1");
        check(!self.false_alarm_interval.0.is_zero(), "monitor.false_alarm_interval must be more than 0s");
        check(!self.save_interval.0.is_zero(), "monitor.save_interval must be more than 0s");
        if let Baseline::Learn(span) = self.baseline {
            check(!span.0.is_zero(), "monitor.baseline.learn must be more than 0s");
        }
    }
}
