//! The verdict on a feature: is its distance from the reference real, and large enough to matter?
//!
//! Both must hold. *Real*: it must be rarer than a probability `alpha` where nothing drifts. There
//! `PSI / (1/n + 1/M)` and the likelihood ratio both follow χ² with `B−1` degrees of freedom (see
//! [`measures::psi_bias`], [`measures::likelihood_ratio`]), and both must exceed that law's quantile:
//! far in the tail a bin that happens to be nearly empty carries the PSI alone over it, a hundred times as often as
//! `alpha` says at 1e-7. *Large enough*: the PSI less its mean under no drift must reach a floor, by default 0.02
//! (`warning`) and 0.03 (`drift`). The customary 0.1 and 0.2 stand for certainty too, which is had otherwise here; they
//! miss real shifts (of all but one feature of the regression data, PSI 0.037 to 0.13), where clean chunks of
//! 5,000 rows reach 0.004. With few rows the first demand is the harder one, with many the second.
//!
//! `alpha` is not set but follows from how often a false alarm may come, see [`Judge::alpha`].

mod power;
mod share;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{sync::OnceLock, time::Duration};

pub(super) use power::judged_psi;
#[cfg(test)]
pub(super) use power::normal_bins;
pub use power::{SmallestShift, smallest_shift};
pub use share::ShareVerdict;

use super::{DriftState, measures};

/// What it takes to raise an alarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The corrected PSI that is a `warning`.
    pub warning: f64,
    /// The corrected PSI that is `drift`.
    pub drift: f64,
    /// The increase of a share (of missing, unseen or out-of-range values) that is a `warning`.
    pub share_warning: f64,
    /// The increase of a share that is `drift`.
    pub share_drift: f64,
    /// With fewer rows in the window there is no verdict but `ok`.
    pub min_rows: u64,
    /// The mean time between false alarms of a model, all features and windows together, is at
    /// least this.
    pub false_alarm_interval: Duration,
    /// A state ends when the distance falls under this part of the threshold that began it.
    pub clear_ratio: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            warning: 0.02,
            drift: 0.03,
            share_warning: 0.01,
            share_drift: 0.015,
            min_rows: 200,
            false_alarm_interval: Duration::from_hours(30 * 24),
            clear_ratio: 0.7,
        }
    }
}

/// What a model is looked at for: the budget of false alarms is shared out among all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tests {
    pub features: usize,
    /// The windows, of different lengths, that each feature is judged over.
    pub horizons: usize,
}

/// The tests of one feature at one look: its distribution, and the shares of values that are
/// missing, not finite or unseen, and out of range.
const TESTS_PER_FEATURE: usize = 4;

/// Bins whose expected live rows are fewer are pooled for the verdict: below five the χ² law no
/// longer holds (Cochran, 1954).
const LEAST_EXPECTED: f64 = 5.0;

/// A test is never easier than this, however short the interval between false alarms may be.
const MOST_ALPHA: f64 = 0.01;

/// The probability that the interval of a [`Verdict`] holds the true PSI.
const CONFIDENCE: f64 = 0.95;

/// Looks every 1, 2, 4 … seconds, up to twelve days.
const LOOK_CLASSES: u32 = 21;

/// The verdict on the distribution of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    pub state: DriftState,
    /// The PSI over the pooled bins, less its mean under no drift, not below 0; `None` without rows.
    pub corrected: Option<f64>,
    /// The `corrected` at which a new state is `drift`, at this number of rows (or at the fewest
    /// rows that get a verdict, when there are fewer).
    pub threshold: f64,
    /// Holds the true PSI over the pooled bins with probability 0.95; `None` without rows, or with one bin.
    pub interval: Option<(f64, f64)>,
    /// The probability of a false alarm at this look.
    pub alpha: f64,
}

/// Judges the features of a model by the same thresholds.
#[derive(Debug)]
pub struct Judge {
    thresholds: Thresholds,
    tests: Tests,
    most_bins: usize,
    /// χ² quantiles by class of look and degrees of freedom, computed when first needed.
    criticals: Box<[OnceLock<f64>]>,
}

/// A verdict without its interval, and the bins that it is over.
struct Finding {
    state: DriftState,
    corrected: Option<f64>,
    threshold: f64,
    pooled: (Vec<u64>, Vec<u64>),
}

impl Judge {
    /// A judge of features with at most `most_bins` bins.
    #[must_use]
    pub fn new(thresholds: Thresholds, tests: Tests, most_bins: usize) -> Self {
        let criticals = (0..LOOK_CLASSES as usize * most_bins).map(|_| OnceLock::new()).collect();
        Self { thresholds, tests, most_bins, criticals }
    }

    /// The probability of a false alarm of one test at one look, where there is a look every
    /// `look` (the time by which the window slides; at least a second).
    ///
    /// By the union bound: `interval / look` looks of so many tests, each with probability `alpha`, raise at
    /// most one false alarm per interval on average, however they depend on one another.
    /// That is the average over what the reference may be; an unlucky one has more, and the floors are for it.
    /// Looks are taken to be as often as the next power of two of seconds, at most twice as often.
    #[must_use]
    pub fn alpha(&self, look: Duration) -> f64 {
        let look = f64::from(1_u32 << look_class(look));
        let tests = (self.tests.features * self.tests.horizons * TESTS_PER_FEATURE).max(1);
        (look / (self.thresholds.false_alarm_interval.as_secs_f64() * tests as f64)).min(MOST_ALPHA)
    }

    /// The verdict on live rows by bin against the reference's, at one of the looks that come
    /// every `look`; `previous` is the state that the look before left.
    #[must_use]
    pub fn judge(&self, reference: &[u64], live: &[u64], look: Duration, previous: DriftState) -> Verdict {
        let Finding { state, corrected, threshold, pooled } = self.find(reference, live, look, previous);
        let interval = corrected.and_then(|_| measures::psi_interval(&pooled.0, &pooled.1, CONFIDENCE));
        Verdict { state, corrected, threshold, interval, alpha: self.alpha(look) }
    }

    fn find(&self, reference: &[u64], live: &[u64], look: Duration, previous: DriftState) -> Finding {
        let Thresholds { warning, drift, min_rows, .. } = self.thresholds;
        let (reference_rows, live_rows) = (reference.iter().sum::<u64>(), live.iter().sum::<u64>());
        if reference_rows == 0 {
            let pooled = Default::default();
            return Finding { state: DriftState::Ok, corrected: None, threshold: drift, pooled };
        }
        let judged_rows = live_rows.max(min_rows).max(1);
        let pooled = pool(reference, live, judged_rows);
        let freedom = pooled.0.len() - 1;
        let bias = |rows: u64| measures::psi_bias(freedom, reference_rows, rows);
        let scale = |rows: u64| 1.0 / rows as f64 + 1.0 / reference_rows as f64;
        let psi = if live_rows > 0 { measures::psi(&pooled.0, &pooled.1) } else { 0.0 };
        let strictness = if psi > 0.0 {
            // Where the likelihood ratio is the smaller of the two, so many times the PSI is needed.
            (psi / scale(live_rows) / measures::likelihood_ratio(&pooled.0, &pooled.1)).max(1.0)
        } else {
            1.0
        };
        let critical = self.critical(freedom, look);
        // The quantile is above the mean of the law, so this is positive (0 for one bin).
        let significant = critical * strictness * scale(judged_rows) - bias(judged_rows);
        let threshold = drift.max(significant);
        if live_rows == 0 {
            return Finding { state: DriftState::Ok, corrected: None, threshold, pooled };
        }
        let corrected = (psi - bias(live_rows)).max(0.0);
        // One bin has all rows whatever happens: without this a floor of 0 would be reached.
        let state = match freedom {
            0 => DriftState::Ok,
            _ => self.state(corrected, [warning.max(significant), threshold], live_rows, previous),
        };
        Finding { state, corrected: Some(corrected), threshold, pooled }
    }

    /// The state of a distance whose thresholds are these, with hysteresis: a state that has
    /// begun ends only well under the threshold (or the rows) that it took.
    fn state(&self, distance: f64, [warning, drift]: [f64; 2], live_rows: u64, previous: DriftState) -> DriftState {
        let Thresholds { min_rows, clear_ratio, .. } = self.thresholds;
        let eased = |state: DriftState| if previous >= state { clear_ratio } else { 1.0 };
        if (live_rows as f64) < eased(DriftState::Warning) * min_rows as f64 {
            DriftState::Ok
        } else if distance >= eased(DriftState::Drift) * drift {
            DriftState::Drift
        } else if distance >= eased(DriftState::Warning) * warning {
            DriftState::Warning
        } else {
            DriftState::Ok
        }
    }

    fn critical(&self, freedom: usize, look: Duration) -> f64 {
        let compute = || measures::chi_square_critical(self.alpha(look), freedom);
        let cached = self.criticals.get(look_class(look) as usize * self.most_bins + freedom);
        cached.filter(|_| freedom < self.most_bins).map_or_else(compute, |cached| *cached.get_or_init(compute))
    }
}

/// The power of two of seconds that is at most `look`.
fn look_class(look: Duration) -> u32 {
    look.as_secs().max(1).ilog2().min(LOOK_CLASSES - 1)
}

/// The rows by bin, with all bins put into one that would hold too few of `live_rows` if nothing drifted.
fn pool(reference: &[u64], live: &[u64], live_rows: u64) -> (Vec<u64>, Vec<u64>) {
    let reference_rows = reference.iter().sum::<u64>() as f64;
    let least = LEAST_EXPECTED * reference_rows / live_rows as f64;
    let (mut kept_reference, mut kept_live) = (Vec::with_capacity(reference.len()), Vec::with_capacity(live.len()));
    let mut rare = None;
    for (&r, &c) in reference.iter().zip(live) {
        if r as f64 >= least {
            kept_reference.push(r);
            kept_live.push(c);
        } else {
            let (rare_reference, rare_live) = rare.get_or_insert((0, 0));
            *rare_reference += r;
            *rare_live += c;
        }
    }
    if let Some((r, c)) = rare {
        kept_reference.push(r);
        kept_live.push(c);
    }
    (kept_reference, kept_live)
}
