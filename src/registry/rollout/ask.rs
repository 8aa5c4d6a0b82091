//! What an operator asks of a rollout, and what the configuration says where they say nothing.

use std::time::Duration;

use crate::{
    config::{DriftAction, RolloutConfig},
    domain::{Percent, Version},
    rollout::{Limits, MAX_STEPS, OnDrift, Plan, PlanError},
};

/// A rollout to be started; `None`: as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutAsk {
    pub version: Version,
    pub steps: Option<Vec<Percent>>,
    pub interval: Option<Duration>,
    pub alpha: Option<f64>,
    pub min_requests: Option<u64>,
    pub max_error_rate: Option<f64>,
    pub max_p99_ratio: Option<f64>,
    pub latency_tolerance: Option<Duration>,
    pub output_tolerance: Option<f64>,
    pub on_drift: Option<OnDrift>,
}

impl RolloutAsk {
    /// A rollout of this version, all else as configured.
    #[must_use]
    pub fn of(version: Version) -> Self {
        Self {
            version,
            steps: None,
            interval: None,
            alpha: None,
            min_requests: None,
            max_error_rate: None,
            max_p99_ratio: None,
            latency_tolerance: None,
            output_tolerance: None,
            on_drift: None,
        }
    }

    /// What is asked, in a few words, such as `version 4, steps 1 5 100`: all of it, so that the same words under an
    /// idempotency key are the same rollout.
    pub(super) fn asked(&self) -> String {
        let steps = self.steps.as_ref().map(|steps| {
            // More are refused, and the audit log need not hold them all.
            let shown: Vec<_> = steps.iter().take(MAX_STEPS + 1).map(|step| step.get().to_string()).collect();
            shown.join(" ")
        });
        let duration = |duration: Duration| humantime::format_duration(duration).to_string();
        let number = |number: Option<f64>| number.map(|number| number.to_string());
        let given = [
            ("steps", steps),
            ("interval", self.interval.map(duration)),
            ("alpha", number(self.alpha)),
            ("min_requests", self.min_requests.map(|requests| requests.to_string())),
            ("max_error_rate", number(self.max_error_rate)),
            ("max_p99_ratio", number(self.max_p99_ratio)),
            ("latency_tolerance", self.latency_tolerance.map(duration)),
            ("output_tolerance", number(self.output_tolerance)),
            ("on_drift", self.on_drift.map(|on_drift| on_drift.as_str().to_owned())),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some(format!(", {name} {}", value?)));
        std::iter::once(format!("version {}", self.version)).chain(given).collect()
    }

    pub(super) fn plan(self, config: &RolloutConfig) -> Result<Plan, PlanError> {
        let configured = || config.steps.iter().map(|step| Percent::new(*step)).collect::<Result<_, _>>();
        let steps = self.steps.map_or_else(configured, Ok).map_err(|error| PlanError(vec![error.to_string()]))?;
        let on_drift = match config.on_drift {
            DriftAction::Hold => OnDrift::Hold,
            DriftAction::RollBack => OnDrift::RollBack,
            DriftAction::Ignore => OnDrift::Ignore,
        };
        Ok(Plan {
            version: self.version,
            steps,
            interval: self.interval.unwrap_or(config.interval.0),
            alpha: self.alpha.unwrap_or(config.alpha),
            min_requests: self.min_requests.unwrap_or(config.min_requests),
            limits: Limits {
                max_error_rate: self.max_error_rate.unwrap_or(config.max_error_rate),
                max_p99_ratio: self.max_p99_ratio.unwrap_or(config.max_p99_ratio),
                latency_tolerance: self.latency_tolerance.unwrap_or(config.latency_tolerance.0),
                output_tolerance: self.output_tolerance.unwrap_or(config.output_tolerance),
                on_drift: self.on_drift.unwrap_or(on_drift),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_defaults_make_a_plan() {
        let plan = RolloutAsk::of(Version::new(4).unwrap()).plan(&RolloutConfig::default()).unwrap();
        assert_eq!(plan.check(), Ok(()));
        assert_eq!(plan.steps.iter().map(|step| step.get()).collect::<Vec<_>>(), [1.0, 5.0, 25.0, 50.0, 100.0]);
        assert_eq!((plan.interval, plan.alpha, plan.limits.on_drift), (Duration::from_mins(10), 0.01, OnDrift::Hold));
    }

    #[test]
    fn what_is_asked_is_said_in_full() {
        let ask = RolloutAsk::of(Version::new(4).unwrap());
        assert_eq!(ask.asked(), "version 4");
        let steps = [2.5, 100.0].map(|step| Percent::new(step).unwrap()).to_vec();
        let interval = Some(Duration::from_secs(90));
        let ask = RolloutAsk { steps: Some(steps), interval, on_drift: Some(OnDrift::RollBack), ..ask };
        assert_eq!(ask.asked(), "version 4, steps 2.5 100, interval 1m 30s, on_drift roll_back");
    }

    #[test]
    fn what_is_asked_wins() {
        let ask = RolloutAsk {
            alpha: Some(0.05),
            on_drift: Some(OnDrift::Ignore),
            ..RolloutAsk::of(Version::new(4).unwrap())
        };
        let plan = ask.plan(&RolloutConfig::default()).unwrap();
        assert_eq!((plan.alpha, plan.limits.on_drift), (0.05, OnDrift::Ignore));
    }
}
