//! `[rollout]`: what a progressive rollout does where its operator says nothing else.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// `[rollout]`: the defaults of progressive rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// The canary's shares in percent, ascending to 100.
    pub steps: Vec<f64>,
    /// How long each step lasts at least.
    pub interval: Span,
    /// The probability, at most, that a version which does not differ is rolled back by the evidence.
    pub alpha: f64,
    /// Requests that must have been compared on each arm before a step is left.
    pub min_requests: u64,
    /// The share of the canary's requests that may fail, from 0 to 1.
    pub max_error_rate: f64,
    /// The canary's 99th percentile of latency over stable's, at most.
    pub max_p99_ratio: f64,
    /// A latency that is longer by less is never held against the canary.
    pub latency_tolerance: Span,
    /// How far predicted classes or scores may differ (total variation distance, 0 to 1).
    pub output_tolerance: f64,
    /// While the canary's answers have drifted from its profile.
    pub on_drift: DriftAction,
    /// How often rollouts are looked at.
    pub look_interval: Span,
}

/// What becomes of a rollout while the canary's answers have drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftAction {
    /// It does not advance.
    #[default]
    Hold,
    RollBack,
    Ignore,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            steps: vec![1.0, 5.0, 25.0, 50.0, 100.0],
            interval: Span(Duration::from_mins(10)),
            alpha: 0.01,
            min_requests: 200,
            max_error_rate: 0.1,
            max_p99_ratio: 2.0,
            latency_tolerance: Span(Duration::from_millis(2)),
            output_tolerance: 0.1,
            on_drift: DriftAction::Hold,
            look_interval: Span(Duration::from_secs(1)),
        }
    }
}

impl RolloutConfig {
    pub(super) fn check(&self, check: &mut impl FnMut(bool, &str)) {
        let steps = &self.steps;
        let ascend = steps.windows(2).all(|pair| pair[0] < pair[1]) && steps.first().is_some_and(|first| *first > 0.0);
        check(ascend && steps.last() == Some(&100.0), "rollout.steps must be percentages above 0 that ascend to 100");
        check(steps.first().is_none_or(|first| *first < 100.0), "rollout.steps must begin below 100: put 50 before it");
        check(!self.interval.0.is_zero(), "rollout.interval must be more than 0s");
        check((1e-9..=0.5).contains(&self.alpha), "rollout.alpha must be from 1e-9 to 0.5");
        check((0.0..=1.0).contains(&self.max_error_rate), "rollout.max_error_rate must be from 0 to 1");
        check(self.max_p99_ratio >= 1.0, "rollout.max_p99_ratio must be at least 1");
        check((0.0..=1.0).contains(&self.output_tolerance), "rollout.output_tolerance must be from 0 to 1");
        check(!self.look_interval.0.is_zero(), "rollout.look_interval must be more than 0s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_values_are_told() {
        let bad = RolloutConfig {
            steps: vec![5.0, 50.0],
            interval: Span(Duration::ZERO),
            alpha: 0.0,
            max_error_rate: 2.0,
            max_p99_ratio: f64::NAN,
            output_tolerance: -1.0,
            look_interval: Span(Duration::ZERO),
            ..RolloutConfig::default()
        };
        let faults = |config: &RolloutConfig| {
            let mut faults = Vec::new();
            config.check(&mut |good, words: &str| faults.extend((!good).then(|| words.to_owned())));
            faults
        };
        assert_eq!(faults(&bad).len(), 7, "{:?}", faults(&bad));
        let blind = RolloutConfig { steps: vec![100.0], ..RolloutConfig::default() };
        assert_eq!(faults(&blind), ["rollout.steps must begin below 100: put 50 before it"]);
        assert!(faults(&RolloutConfig::default()).is_empty());
    }
}
