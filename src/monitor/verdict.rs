//! The verdict on a feature: is its distance from the reference real, and large enough to matter?
//!
//! Both must hold. *Real*: where nothing drifts, `PSI / (1/n + 1/M)` follows χ² with `B−1` degrees
//! of freedom (see [`measures::psi_bias`]), so the PSI must exceed that law's quantile at
//! the false-alarm probability `alpha`. *Large enough*: the PSI less its mean under no drift must
//! reach a floor, by default 0.1 (`warning`, the customary "moderate") and 0.15 (`drift`; the customary 0.2 would
//! miss a real shift in one category of the car-loan data, PSI 0.196). With few rows the first
//! demand is the harder one, with many the second.

use std::sync::OnceLock;

use super::{DriftState, measures};

/// What it takes to raise an alarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Probability of a false alarm for one feature at one look. The default 1e-6 is about one
    /// false alarm in 35 days for 20 features that are looked at once a minute.
    pub alpha: f64,
    /// The corrected PSI that is a `warning`.
    pub warning: f64,
    /// The corrected PSI that is `drift`.
    pub drift: f64,
    /// With fewer rows in the window there is no verdict but `ok`.
    pub min_rows: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { alpha: 1e-6, warning: 0.1, drift: 0.15, min_rows: 200 }
    }
}

/// Bins whose expected live rows are fewer are pooled for the verdict: below five the χ² law no
/// longer holds (Cochran, 1954).
const LEAST_EXPECTED: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    pub(super) state: DriftState,
    /// The PSI over the pooled bins, less its mean under no drift, not below 0; `None` without rows.
    pub(super) corrected: Option<f64>,
    /// The `corrected` at which the state is `drift`, at this number of rows (or at the fewest
    /// rows that get a verdict, when there are fewer).
    pub(super) threshold: f64,
}

/// Judges features by the same thresholds.
#[derive(Debug)]
pub(super) struct Judge {
    thresholds: Thresholds,
    /// χ² quantiles at `alpha` by degrees of freedom, computed when first needed.
    criticals: Box<[OnceLock<f64>]>,
}

impl Judge {
    /// A judge of features with at most `most_bins` bins.
    pub(super) fn new(thresholds: Thresholds, most_bins: usize) -> Self {
        Self { thresholds, criticals: (0..most_bins).map(|_| OnceLock::new()).collect() }
    }

    /// The verdict on live rows by bin against the reference's.
    pub(super) fn judge(&self, reference: &[u64], live: &[u64]) -> Verdict {
        let Thresholds { warning, drift, min_rows, .. } = self.thresholds;
        let (reference_rows, live_rows) = (reference.iter().sum::<u64>(), live.iter().sum::<u64>());
        if reference_rows == 0 {
            return Verdict { state: DriftState::Ok, corrected: None, threshold: drift };
        }
        let judged_rows = live_rows.max(min_rows).max(1);
        let (pooled_reference, pooled_live) = pool(reference, live, judged_rows);
        let freedom = pooled_reference.len() - 1;
        let bias = |rows: u64| measures::psi_bias(freedom, reference_rows, rows);
        let scale = 1.0 / judged_rows as f64 + 1.0 / reference_rows as f64;
        // The quantile is above the mean of the law, so this is positive.
        let significant = self.critical(freedom) * scale - bias(judged_rows);
        let threshold = drift.max(significant);
        if live_rows == 0 {
            return Verdict { state: DriftState::Ok, corrected: None, threshold };
        }
        let corrected = (measures::psi(&pooled_reference, &pooled_live) - bias(live_rows)).max(0.0);
        let state = if live_rows < min_rows || corrected < warning.max(significant) {
            DriftState::Ok
        } else if corrected < threshold {
            DriftState::Warning
        } else {
            DriftState::Drift
        };
        Verdict { state, corrected: Some(corrected), threshold }
    }

    fn critical(&self, freedom: usize) -> f64 {
        let compute = || measures::chi_square_critical(self.thresholds.alpha, freedom);
        self.criticals.get(freedom).map_or_else(compute, |cached| *cached.get_or_init(compute))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(reference: &[u64], live: &[u64]) -> Verdict {
        Judge::new(Thresholds::default(), reference.len()).judge(reference, live)
    }

    #[test]
    fn few_rows_are_never_an_alarm() {
        let verdict = judge(&[5000, 5000], &[0, 199]);
        assert_eq!(verdict.state, DriftState::Ok);
        assert!(verdict.corrected.unwrap() > 1.0);
        assert_eq!(judge(&[5000, 5000], &[0, 200]).state, DriftState::Drift);
    }

    #[test]
    fn no_rows_have_a_threshold_and_no_distance() {
        let verdict = judge(&[5000, 5000], &[0, 0]);
        assert_eq!((verdict.state, verdict.corrected), (DriftState::Ok, None));
        assert!(verdict.threshold >= 0.15 && verdict.threshold.is_finite());
        assert_eq!(judge(&[0, 0], &[10, 10]).state, DriftState::Ok);
    }

    #[test]
    fn threshold_is_the_noise_at_few_rows_and_the_floor_at_many() {
        let reference = [1000; 10];
        let judge = Judge::new(Thresholds { warning: 0.05, drift: 0.1, ..Thresholds::default() }, 10);
        let threshold = |rows: u64| judge.judge(&reference, &[rows / 10; 10]).threshold;
        let few = threshold(200);
        // χ²(9) exceeds 44.8 with probability 1e-6.
        assert!((few - (44.8 - 9.0) * (1.0 / 200.0 + 1.0 / 10_000.0)).abs() < 1e-3, "{few}");
        assert!((threshold(10_000) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn size_of_a_certain_drift_decides_between_warning_and_drift() {
        let state = |first: u64| judge(&[50_000, 50_000], &[first, 100_000 - first]).state;
        assert_eq!(
            [state(50_000), state(40_000), state(34_000), state(20_000)].map(DriftState::as_number),
            [0, 0, 1, 2]
        );
    }

    #[test]
    fn many_rare_categories_at_few_rows_are_no_alarm() {
        // Half of the rows in one category, the rest spread over 99: as likely live as in the reference.
        let mut reference = vec![500_u64; 100];
        reference[0] = 49_500;
        let live: Vec<u64> = (0..100).map(|bin| if bin == 0 { 101 } else { 1 }).collect();
        let verdict = judge(&reference, &live);
        assert_eq!(verdict.state, DriftState::Ok);
        assert!(verdict.corrected.unwrap() < 0.05, "{verdict:?}");
    }

    #[test]
    fn rare_bins_are_pooled_into_one() {
        assert_eq!(pool(&[900, 10, 90, 0], &[80, 5, 9, 6], 100), (vec![900, 90, 10], vec![80, 9, 11]));
        assert_eq!(pool(&[50, 50], &[1, 9], 10), (vec![50, 50], vec![1, 9]));
    }
}
