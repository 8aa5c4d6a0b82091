//! What an operator asks a rollout to do.

use std::time::Duration;

use crate::{
    domain::{Percent, Version},
    fault::{ErrorCode, Fault},
};

/// What becomes of a rollout while the canary's answers have drifted from its reference profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDrift {
    /// It does not advance.
    #[default]
    Hold,
    RollBack,
    Ignore,
}

impl OnDrift {
    pub const ALL: [Self; 3] = [Self::Hold, Self::RollBack, Self::Ignore];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::RollBack => "roll_back",
            Self::Ignore => "ignore",
        }
    }
}

/// The plain limits beside the evidence, and how large a difference must be to matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// The canary's failures among its requests of a step, from 0 to 1, above which it is rolled back.
    pub max_error_rate: f64,
    /// The canary's 99th percentile over the stable version's, above which it is rolled back.
    pub max_p99_ratio: f64,
    /// A latency that is longer by less is never held against the canary.
    pub latency_tolerance: Duration,
    /// A difference of predicted classes or scores (total variation distance, 0 to 1) up to which it
    /// is not held against the canary, however sure.
    pub output_tolerance: f64,
    pub on_drift: OnDrift,
}

/// How a version is to be rolled out.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub version: Version,
    /// The canary's shares, ascending, the last one 100 %.
    pub steps: Vec<Percent>,
    /// How long each step lasts at least.
    pub interval: Duration,
    /// The probability that a version which does not differ from stable is rolled back by the evidence,
    /// at most, over the whole rollout.
    pub alpha: f64,
    /// Requests that must have been compared on each arm before a step is left. 0: time alone ends a step; the last one
    /// below 100 % still needs as many as tell a version half of whose answers differ.
    pub min_requests: u64,
    pub limits: Limits,
}

/// Everything that is wrong with a plan. Fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct PlanError(pub Vec<String>);

impl Fault for PlanError {
    fn code(&self) -> ErrorCode {
        ErrorCode::BadRequest
    }
}

/// More steps than this help nobody.
pub const MAX_STEPS: usize = 100;

impl Plan {
    /// Whether a rollout may be started with it: beside [`Plan::check`], that stable answers something in the first step. Of plans of
    /// older programs, which go on, that is not asked.
    ///
    /// # Errors
    /// All that is wrong with the plan.
    pub fn check_start(&self) -> Result<(), PlanError> {
        self.check()?;
        if self.steps.first().is_some_and(|first| first.get() < 100.0) {
            return Ok(());
        }
        let version = self.version;
        Err(PlanError(vec![format!(
            "'steps' are [100]: stable would answer nothing, so that version {version} could be compared with nothing. Put a step below \
             100 first, such as [50, 100], or promote it without a rollout: tidegate promote MODEL {version}"
        )]))
    }

    /// # Errors
    /// All that is wrong with the plan.
    pub fn check(&self) -> Result<(), PlanError> {
        let mut faults = Vec::new();
        let mut check = |good: bool, words: String| {
            if !good {
                faults.push(words);
            }
        };
        let steps: Vec<f64> = self.steps.iter().map(|step| step.get()).collect();
        let ascends = steps.windows(2).all(|pair| pair[0] < pair[1]) && steps.first().is_none_or(|first| *first > 0.0);
        let shown = if steps.len() <= MAX_STEPS { format!("{steps:?}") } else { steps.len().to_string() };
        check(
            ascends && steps.last() == Some(&100.0) && steps.len() <= MAX_STEPS,
            format!(
                "'steps' are {shown}: use at most {MAX_STEPS} percentages above 0 that ascend to 100, such as [1, 5, 25, 50, 100]"
            ),
        );
        check(!self.interval.is_zero(), "'interval' must be more than 0s".into());
        let alpha = self.alpha;
        check(
            (1e-9..=0.5).contains(&alpha),
            format!("'alpha' is {alpha}: use a probability from 1e-9 to 0.5, such as 0.01"),
        );
        let Limits { max_error_rate, max_p99_ratio, output_tolerance, .. } = self.limits;
        check(
            (0.0..=1.0).contains(&max_error_rate),
            format!("'max_error_rate' is {max_error_rate}: use a share from 0 to 1"),
        );
        check(
            max_p99_ratio.is_finite() && max_p99_ratio >= 1.0,
            format!("'max_p99_ratio' is {max_p99_ratio}: use a number from 1"),
        );
        check(
            (0.0..=1.0).contains(&output_tolerance),
            format!("'output_tolerance' is {output_tolerance}: use a distance from 0 to 1"),
        );
        if faults.is_empty() { Ok(()) } else { Err(PlanError(faults)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::rollout) fn plan(steps: &[f64]) -> Plan {
        Plan {
            version: Version::new(4).unwrap(),
            steps: steps.iter().map(|step| Percent::new(*step).unwrap()).collect(),
            interval: Duration::from_mins(10),
            alpha: 0.01,
            min_requests: 100,
            limits: Limits {
                max_error_rate: 0.1,
                max_p99_ratio: 2.0,
                latency_tolerance: Duration::from_millis(2),
                output_tolerance: 0.1,
                on_drift: OnDrift::Hold,
            },
        }
    }

    #[test]
    fn steps_must_ascend_to_the_whole() {
        for good in [&[100.0][..], &[1.0, 5.0, 25.0, 50.0, 100.0], &[0.1, 100.0]] {
            assert_eq!(plan(good).check(), Ok(()), "{good:?}");
        }
        for bad in [&[][..], &[50.0], &[0.0, 100.0], &[5.0, 1.0, 100.0], &[5.0, 5.0, 100.0]] {
            assert!(plan(bad).check().unwrap_err().to_string().contains("'steps'"), "{bad:?}");
        }
    }

    #[test]
    fn rollout_without_a_stable_arm_is_not_started() {
        let words = plan(&[100.0]).check_start().unwrap_err().to_string();
        assert!(words.contains("compared with nothing") && words.contains("[50, 100]"), "{words}");
        assert_eq!(plan(&[99.9, 100.0]).check_start(), Ok(()));
        assert!(plan(&[50.0]).check_start().is_err());
    }

    #[test]
    fn all_faults_of_a_plan_are_told() {
        let good = plan(&[100.0]);
        let limits = Limits { max_error_rate: 1.5, max_p99_ratio: f64::NAN, output_tolerance: -1.0, ..good.limits };
        let bad = Plan { interval: Duration::ZERO, alpha: 0.0, limits, ..good };
        let words = bad.check().unwrap_err().to_string();
        for key in ["interval", "alpha", "max_error_rate", "max_p99_ratio", "output_tolerance"] {
            assert!(words.contains(key), "{words}");
        }
    }
}
