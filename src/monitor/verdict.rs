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
//!
//! Both laws are those of independent rows. Where they say *real*, and how the rows came over time is known, the same is
//! asked of as many rows as these are worth, see [`dependence`].

mod dependence;
mod power;
mod rare_bins;
mod share;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{sync::OnceLock, time::Duration};

use dependence::DesignEffect;
pub use dependence::Series;
pub(super) use power::judged_psi;
#[cfg(test)]
pub(super) use power::normal_bins;
pub use power::{SmallestShift, smallest_shift};
pub use rare_bins::{RareBinVerdict, RareFloors};
pub use share::{ShareSample, ShareVerdict};

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
    /// With fewer rows in the window there is no verdict.
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

/// The tests of one feature at one look: its distribution, its rare bins, and the shares of values that are missing, not
/// finite or unseen, and out of range, and whether there is one value only (a category is not out of range).
const TESTS_PER_FEATURE: usize = 6;

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
    /// So many rows are worth one independent row; all else here is of the rows divided by it. `None` where it was not
    /// needed, as not even independent rows would be an alarm, or is not known.
    pub design_effect: Option<f64>,
}

/// Rows by bin, and how they came over time.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    pub bins: &'a [u64],
    /// Is asked only where it matters: rows by bin of the window's sub-windows, of those before it, and of shorter windows'.
    pub over_time: &'a dyn Fn() -> Vec<Series>,
}

impl<'a> Sample<'a> {
    /// Rows that are taken as independent of each other.
    #[must_use]
    pub fn independent(bins: &'a [u64]) -> Self {
        Self { bins, over_time: &Vec::new }
    }
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

/// A verdict without its interval, and the effective rows by bin that it is over.
struct Finding {
    state: DriftState,
    corrected: Option<f64>,
    threshold: f64,
    pooled: (Vec<f64>, Vec<f64>),
    design_effect: Option<f64>,
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

    /// The verdict on live rows by bin against the reference's, all independent, at one of the looks that come
    /// every `look`; `previous` is the state that the look before left.
    #[must_use]
    pub fn judge(&self, reference: &[u64], live: &[u64], look: Duration, previous: DriftState) -> Verdict {
        self.judge_samples(Sample::independent(reference), Sample::independent(live), look, previous)
    }

    /// The same of rows that may depend on one another.
    #[must_use]
    pub fn judge_samples(
        &self,
        reference: Sample<'_>,
        live: Sample<'_>,
        look: Duration,
        previous: DriftState,
    ) -> Verdict {
        let Finding { state, corrected, threshold, pooled, design_effect } =
            self.find([reference, live], look, previous);
        let interval = corrected.and_then(|_| measures::psi_interval(&pooled.0, &pooled.1, CONFIDENCE));
        Verdict { state, corrected, threshold, interval, alpha: self.alpha(look), design_effect }
    }

    fn find(&self, [reference, live]: [Sample<'_>; 2], look: Duration, previous: DriftState) -> Finding {
        let bins = [reference.bins, live.bins];
        let found = self.find_effective(bins, [DesignEffect::NONE; 2], look, previous);
        if !found.state.is_alarm() {
            return found;
        }
        let pooling = Pooling::new(reference.bins, live.bins.iter().sum::<u64>().max(1) as f64);
        let shares = bins.map(|bins| measures::smoothed(&measures::numbers(&pooling.of(bins))));
        let scores: Vec<_> = shares[1].iter().zip(&shares[0]).map(|(q, p)| (q / p).ln()).collect();
        let effect = |sample: Sample<'_>| {
            let series: Vec<Series> = (sample.over_time)()
                .into_iter()
                .map(|series| series.iter().map(|bins| pooling.of(bins)).collect())
                .collect();
            DesignEffect::estimate(&series, &scores)
        };
        let effects = [reference, live].map(effect);
        if effects == [None, None] {
            return found;
        }
        let known = effects.map(|effect| effect.unwrap_or(DesignEffect::NONE));
        let found = self.find_effective(bins, known, look, previous);
        Finding { design_effect: effects[1].map(|effect| effect.value), ..found }
    }

    /// What there is to say of reference and live rows that are worth as many as their design effects leave.
    fn find_effective(
        &self,
        [reference, live]: [&[u64]; 2],
        [of_reference, of_live]: [DesignEffect; 2],
        look: Duration,
        previous: DriftState,
    ) -> Finding {
        let Thresholds { warning, drift, min_rows, .. } = self.thresholds;
        let (all_reference, live_rows) = (reference.iter().sum::<u64>(), live.iter().sum::<u64>());
        if all_reference == 0 {
            // There is nothing to differ from, however many rows there are.
            let (state, pooled) = (DriftState::Ok, Default::default());
            return Finding { state, corrected: None, threshold: drift, pooled, design_effect: None };
        }
        let reference_rows = all_reference as f64 / of_reference.value;
        let judged_rows = live_rows.max(min_rows).max(1) as f64;
        // Bins are not pooled the more for rows that depend: the half row in each makes the tests cautious enough.
        let pooling = Pooling::new(reference, judged_rows);
        let judged_rows = judged_rows / of_live.value;
        let effective = |bins: &[u64], effect: DesignEffect| -> Vec<f64> {
            pooling.of(bins).into_iter().map(|rows| rows as f64 / effect.value).collect()
        };
        let pooled = (effective(reference, of_reference), effective(live, of_live));
        let freedom = pooled.0.len() - 1;
        let bias = |rows: f64| measures::psi_bias(freedom, reference_rows, rows);
        let scale = |rows: f64| 1.0 / rows + 1.0 / reference_rows;
        let effective_rows = live_rows as f64 / of_live.value;
        let psi = if live_rows > 0 { measures::psi_of_numbers(&pooled.0, &pooled.1) } else { 0.0 };
        let strictness = if psi > 0.0 {
            // Where the likelihood ratio is the smaller of the two, so many times the PSI is needed.
            (psi / scale(effective_rows) / measures::likelihood_ratio(&pooled.0, &pooled.1)).max(1.0)
        } else {
            1.0
        };
        let critical = match self.alpha_of([of_reference, of_live], freedom, look) {
            alpha if alpha < self.alpha(look) => measures::chi_square_critical(alpha, freedom),
            _ => self.critical(freedom, look),
        };
        // The quantile is above the mean of the law, so this is positive (0 for one bin).
        let significant = critical * strictness * scale(judged_rows) - bias(judged_rows);
        let threshold = drift.max(significant);
        if live_rows == 0 {
            return Finding { state: DriftState::TooFewRows, corrected: None, threshold, pooled, design_effect: None };
        }
        let corrected = (psi - bias(effective_rows)).max(0.0);
        // One bin has all rows whatever happens: without this a floor of 0 would be reached.
        let thresholds = if freedom > 0 { [warning.max(significant), threshold] } else { [f64::INFINITY; 2] };
        let state = self.state(corrected, thresholds, live_rows, previous);
        Finding { state, corrected: Some(corrected), threshold, pooled, design_effect: None }
    }

    /// The `alpha` of a test by χ² of so many degrees of freedom that makes up for estimated design effects.
    fn alpha_of(&self, effects: [DesignEffect; 2], freedom: usize, look: Duration) -> f64 {
        strict(self.alpha(look), effects, freedom)
    }

    /// Whether so many rows get a verdict, after the state that the look before left.
    pub(super) fn has_rows_enough(&self, rows: u64, previous: DriftState) -> bool {
        let Thresholds { min_rows, clear_ratio, .. } = self.thresholds;
        let eased = if previous.is_alarm() { clear_ratio } else { 1.0 };
        rows > 0 && rows as f64 >= eased * min_rows as f64
    }

    /// The rows that it takes.
    pub(super) fn min_rows(&self) -> u64 {
        self.thresholds.min_rows.max(1)
    }

    /// The state of a distance whose thresholds are these, with hysteresis: a state that has
    /// begun ends only well under the threshold (or the rows) that it took.
    fn state(&self, distance: f64, [warning, drift]: [f64; 2], live_rows: u64, previous: DriftState) -> DriftState {
        let eased = |state: DriftState| if previous >= state { self.thresholds.clear_ratio } else { 1.0 };
        if !self.has_rows_enough(live_rows, previous) {
            DriftState::TooFewRows
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

/// The `alpha` of a test by χ² of so many degrees of freedom that makes up for estimated design effects.
fn strict(alpha: f64, effects: [DesignEffect; 2], freedom: usize) -> f64 {
    let spread_freedom = effects.iter().fold(f64::INFINITY, |least, effect| least.min(effect.freedom));
    if spread_freedom.is_finite() { measures::alpha_of_estimated_spread(alpha, freedom, spread_freedom) } else { alpha }
}

/// The power of two of seconds that is at most `look`.
fn look_class(look: Duration) -> u32 {
    look.as_secs().max(1).ilog2().min(LOOK_CLASSES - 1)
}

/// Puts all bins into one that would hold too few of the live rows if nothing drifted. It is the last.
struct Pooling {
    /// By bin.
    is_rare: Vec<bool>,
}

impl Pooling {
    fn new(reference: &[u64], live_rows: f64) -> Self {
        let least = LEAST_EXPECTED * reference.iter().sum::<u64>() as f64 / live_rows;
        Self { is_rare: reference.iter().map(|rows| (*rows as f64) < least).collect() }
    }

    fn of(&self, bins: &[u64]) -> Vec<u64> {
        let (mut pooled, mut rare) = (Vec::with_capacity(bins.len()), None);
        for (rows, is_rare) in bins.iter().zip(&self.is_rare) {
            if *is_rare {
                *rare.get_or_insert(0) += rows;
            } else {
                pooled.push(*rows);
            }
        }
        pooled.extend(rare);
        pooled
    }
}
