//! The verdict on a share that should not grow: of missing, unseen or out-of-range values.
//!
//! *Real* is decided by the exact test of Fisher (1922): of all hits in reference and window
//! together, were so many of the window's by chance? It needs no least count, so a value that the
//! reference never had is judged like any other. *Large enough* is an increase by at least
//! a floor in points of share (on call, one row in a hundred is what matters, and not that it never
//! was before), and by at least a tenth of the share that the reference has: where half
//! of the rows miss a value, a hundredth more or less is the week's weather.
//!
//! Hits that come in clusters are worth fewer, as rows of a distribution are (see [`super::dependence`]): both numbers of
//! the test are divided by the design effect of the hits.

use std::time::Duration;

use statrs::function::gamma::ln_gamma;

use super::{DesignEffect, Judge, Series, Thresholds};
use crate::monitor::DriftState;

/// The least increase as a part of the reference's share.
const LEAST_RELATIVE_INCREASE: f64 = 0.1;

/// The verdict on a share of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareVerdict {
    pub state: DriftState,
    /// The live share less the reference's; `None` without rows of either.
    pub increase: Option<f64>,
    /// The `increase` at which a new state is `drift`, at this number of rows (or at the fewest
    /// rows that get a verdict, when there are fewer).
    pub threshold: f64,
    /// The probability of a false alarm at this look.
    pub alpha: f64,
    /// As in [`super::Verdict`].
    pub design_effect: Option<f64>,
}

/// A share of rows, and how they came over time.
#[derive(Clone, Copy)]
pub struct ShareSample<'a> {
    /// Rows that are hits, and all rows.
    pub rows: [u64; 2],
    /// Hits and other rows by sub-window; is asked only where it matters.
    pub over_time: &'a dyn Fn() -> Vec<Series>,
}

impl Judge {
    /// The verdict on the share of rows that are hits, at one of the looks that come every
    /// `look`; `previous` is the state that the look before left. Only an increase is an alarm.
    #[must_use]
    pub fn judge_share(
        &self,
        reference: [u64; 2],
        live: [u64; 2],
        look: Duration,
        previous: DriftState,
    ) -> ShareVerdict {
        self.judge_effective_share([reference, live], [DesignEffect::NONE; 2], look, previous)
    }

    /// The same of rows that may depend on one another.
    #[must_use]
    pub fn judge_share_samples(
        &self,
        reference: ShareSample<'_>,
        live: ShareSample<'_>,
        look: Duration,
        previous: DriftState,
    ) -> ShareVerdict {
        let rows = [reference.rows, live.rows];
        let found = self.judge_share(rows[0], rows[1], look, previous);
        if !found.state.is_alarm() {
            return found;
        }
        // Of two bins any score says the same.
        let effects = [reference, live].map(|sample| DesignEffect::estimate(&(sample.over_time)(), &[1.0, 0.0]));
        if effects == [None, None] {
            return found;
        }
        let known = effects.map(|effect| effect.unwrap_or(DesignEffect::NONE));
        let found = self.judge_effective_share(rows, known, look, previous);
        ShareVerdict { design_effect: effects[1].map(|effect| effect.value), ..found }
    }

    fn judge_effective_share(
        &self,
        [[reference_hits, reference_rows], [live_hits, live_rows]]: [[u64; 2]; 2],
        effects: [DesignEffect; 2],
        look: Duration,
        previous: DriftState,
    ) -> ShareVerdict {
        let Thresholds { share_warning, share_drift, min_rows, .. } = self.thresholds;
        let alpha = self.alpha(look);
        let state = DriftState::TooFewRows;
        let none = |threshold| ShareVerdict { state, increase: None, threshold, alpha, design_effect: None };
        if reference_rows == 0 {
            return none(share_drift);
        }
        let judged_rows = live_rows.max(min_rows).max(1);
        let usual = reference_hits as f64 / reference_rows as f64;
        let increase = |hits: u64, rows: u64| hits as f64 / rows as f64 - usual;
        let floors = [share_warning, share_drift].map(|floor| usual + floor.max(LEAST_RELATIVE_INCREASE * usual));
        let [warning_hits, drift_hits] = floors.map(|share| hits_of(share, judged_rows));
        let strict = self.alpha_of(effects, 1, look);
        let warning_hits =
            least_significant([reference_hits, reference_rows], judged_rows, warning_hits, strict, effects);
        let thresholds = [warning_hits, drift_hits.max(warning_hits)].map(|hits| increase(hits, judged_rows));
        if live_rows == 0 {
            return none(thresholds[1]);
        }
        let found = increase(live_hits, live_rows);
        let state = self.state(found, thresholds, live_rows, previous);
        ShareVerdict { state, increase: Some(found), threshold: thresholds[1], alpha, design_effect: None }
    }
}

/// The least number of hits that is at least `share` of `rows`; more than there are where that is impossible.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the rows")]
fn hits_of(share: f64, rows: u64) -> u64 {
    if share > 1.0 { rows + 1 } else { (share * rows as f64).ceil() as u64 }
}

/// The least number of hits from `hits` on, of so many live rows, that chance reaches with
/// probability `alpha` at most; more than there are when none is.
fn least_significant(
    [reference_hits, reference_rows]: [u64; 2],
    live_rows: u64,
    hits: u64,
    alpha: f64,
    [of_reference, of_live]: [DesignEffect; 2],
) -> u64 {
    let (reference, effects) = ([reference_hits, reference_rows], [of_reference, of_live]);
    let is_rare = |hits: u64| effective_tail(reference, [hits, live_rows], effects) <= alpha;
    if hits > live_rows || is_rare(hits) {
        return hits;
    }
    if !is_rare(live_rows) {
        return live_rows + 1;
    }
    let (mut common, mut rare) = (hits, live_rows);
    while rare - common > 1 {
        let middle = common.midpoint(rare);
        if is_rare(middle) { rare = middle } else { common = middle }
    }
    rare
}

/// The [`increase_tail`] of rows that are worth as many as their design effects leave.
pub(super) fn effective_tail(
    [usual_hits, usual_rows]: [u64; 2],
    [grown_hits, grown_rows]: [u64; 2],
    [of_usual, of_grown]: [DesignEffect; 2],
) -> f64 {
    // Effective rows are rounded so that the share has grown less.
    let (ceil, floor) = (f64::ceil as fn(f64) -> f64, f64::floor as fn(f64) -> f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the rows")]
    let worth = |rows: u64, effect: DesignEffect, round: fn(f64) -> f64| round(rows as f64 / effect.value) as u64;
    let usual_rows = worth(usual_rows, of_usual, floor).max(1);
    let usual = [worth(usual_hits, of_usual, ceil).min(usual_rows), usual_rows];
    increase_tail(usual, [worth(grown_hits, of_grown, floor), worth(grown_rows, of_grown, ceil)])
}

/// The probability that at least so many of all hits are live by chance (Fisher's exact test);
/// 1 where the share did not increase.
fn increase_tail([reference_hits, reference_rows]: [u64; 2], [live_hits, live_rows]: [u64; 2]) -> f64 {
    let (rows, hits) = (reference_rows as f64 + live_rows as f64, reference_hits as f64 + live_hits as f64);
    let drawn = live_rows as f64;
    let mut at = live_hits as f64;
    if at <= drawn * hits / rows {
        return 1.0;
    }
    let choose = |all: f64, some: f64| ln_gamma(all + 1.0) - ln_gamma(some + 1.0) - ln_gamma(all - some + 1.0);
    let mut term = (choose(hits, at) + choose(rows - hits, drawn - at) - choose(rows, drawn)).exp();
    let mut tail = 0.0;
    // Above the mean each term is smaller than the one before.
    while term > tail * 1e-16 {
        tail += term;
        term *= (hits - at) * (drawn - at) / ((at + 1.0) * (rows - hits - drawn + at + 1.0));
        at += 1.0;
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [DesignEffect; 2] = [DesignEffect::NONE; 2];

    #[test]
    fn tail_is_that_of_fishers_test() {
        // The lady tasting tea: 3 or 4 of 4 cups right by chance.
        assert!((increase_tail([1, 4], [3, 4]) - 17.0 / 70.0).abs() < 1e-12);
        assert!((increase_tail([0, 4], [4, 4]) - 1.0 / 70.0).abs() < 1e-12);
        // (n/(n+M))^c, without replacement.
        let tail = increase_tail([0, 9000], [3, 1000]);
        let exact = (1000.0 * 999.0 * 998.0) / (10_000.0 * 9999.0 * 9998.0);
        assert!((tail / exact - 1.0).abs() < 1e-9, "{tail} for {exact}");
        assert!(increase_tail([100, 1000], [10, 100]) > 0.999);
    }

    /// Every outcome of two samples of one law: the test never says "rare" more often than `alpha`.
    #[test]
    fn share_that_did_not_grow_is_called_rare_no_more_often_than_alpha() {
        let law = |rows: u64, p: f64| -> Vec<(u64, f64)> {
            let ln = |n: u64| ln_gamma(n as f64 + 1.0);
            let log = |c: u64| ln(rows) - ln(c) - ln(rows - c) + c as f64 * p.ln() + (rows - c) as f64 * (-p).ln_1p();
            (0..=rows).map(|c| (c, log(c).exp())).filter(|(_, share)| *share > 1e-12).collect()
        };
        for p in [1e-4, 1e-3, 1e-2, 0.1] {
            for alpha in [1e-2, 1e-4, 1e-6] {
                let mut rate = 0.0;
                for (r, reference_share) in law(2000, p) {
                    let least = least_significant([r, 2000], 300, 1, alpha, NONE);
                    rate += law(300, p)
                        .iter()
                        .filter(|(c, _)| *c >= least)
                        .map(|(_, live)| live * reference_share)
                        .sum::<f64>();
                }
                println!("share {p}, alpha {alpha}: {:.3} times alpha", rate / alpha);
                assert!(rate <= alpha, "share {p}: {rate} for {alpha}");
            }
        }
    }

    #[test]
    fn least_significant_hits_are_rare_and_one_less_is_not() {
        for (reference, rows) in [([0, 10_000], 200), ([10, 10_000], 1000), ([1000, 10_000], 500)] {
            let least = least_significant(reference, rows, 1, 1e-7, NONE);
            assert!(increase_tail(reference, [least, rows]) <= 1e-7);
            assert!(increase_tail(reference, [least - 1, rows]) > 1e-7);
        }
        // Where all rows are hits as ever, no number of them is rare.
        assert_eq!(least_significant([50, 50], 10, 3, 1e-7, NONE), 11);
        assert_eq!(least_significant([50, 50], 10, 10, 1e-7, NONE), 11);
        assert_eq!(least_significant([9, 10], 200, 198, 1e-7, NONE), 201);
        assert_eq!(hits_of(1.1, 10), 11);
    }
}
