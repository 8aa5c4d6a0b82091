//! The verdict on rare bins: has the share of one of them changed by a large factor?
//!
//! A class that is predicted twice as often as it was adds `p·ln 2` to the PSI, which is under the floor where `p` is 4 % or
//! less; so a PSI that is large enough to matter says nothing of rare bins. Each of them has a test of its own here. As
//! elsewhere two things must hold. *Real*: Fisher's exact test (1922), of the reference's rows in the bin and of the live ones,
//! in both directions, at `alpha` divided by twice the number of rare bins (the union bound), so that the reference's
//! own sampling error counts: of a bin with forty reference rows, twice as many may be chance. *Large*: the share is
//! 1.5 times (`warning`) or 1.75 times (`drift`) what it was, or that part of it. A rare value of an input must also have changed by
//! half a point of share, as inputs have many of them, and few matter; of a class that a model predicts, each row does.
//!
//! Rows that depend on one another are worth fewer, as elsewhere (see [`super::dependence`]).

use std::{cell::LazyCell, time::Duration};

use super::{DesignEffect, Judge, Sample, Series, share::effective_tail, strict};
use crate::monitor::DriftState;

/// Bins with a larger share of the reference are not rare: of these the PSI sees a doubling.
const MOST_SHARE: f64 = 0.05;

/// What change of a rare bin is large.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RareFloors {
    /// The factor from which a change, up or down, is a `warning`.
    pub warning: f64,
    /// The factor from which it is `drift`.
    pub drift: f64,
    /// The least change of the share.
    pub least_change: f64,
}

impl RareFloors {
    /// Of what a model answers.
    pub const OF_OUTPUT: Self = Self { warning: 1.5, drift: 1.75, least_change: 0.0 };
    /// Of what it is asked.
    pub const OF_INPUT: Self = Self { least_change: 0.005, ..Self::OF_OUTPUT };
}

/// The verdict on all rare bins of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RareBinVerdict {
    pub state: DriftState,
    /// The bin that is the reason of an alarm: of several the most certain one.
    pub bin: Option<usize>,
    /// Its share of the reference's rows.
    pub reference: f64,
    /// Its share of the live rows.
    pub live: f64,
    /// As in [`super::Verdict`].
    pub design_effect: Option<f64>,
}

/// Rows of a bin, and all rows.
type Rows = [u64; 2];

impl Judge {
    /// The verdict on the rare ones of these bins, at one of the looks that come every `look`; `previous` is the state that
    /// the look before left.
    #[must_use]
    pub fn judge_rare_bins(
        &self,
        reference: Sample<'_>,
        live: Sample<'_>,
        floors: RareFloors,
        look: Duration,
        previous: DriftState,
    ) -> RareBinVerdict {
        let [reference_rows, live_rows] = [reference, live].map(|sample| sample.bins.iter().sum::<u64>());
        let none = |state| RareBinVerdict { state, bin: None, reference: 0.0, live: 0.0, design_effect: None };
        if reference_rows == 0 {
            // There is nothing to differ from, however many rows there are.
            return none(DriftState::Ok);
        }
        if !self.has_rows_enough(live_rows, previous) {
            return none(DriftState::TooFewRows);
        }
        let most = MOST_SHARE * reference_rows as f64;
        let is_rare = |bin: &usize| (reference.bins[*bin] as f64) < most;
        let rare: Vec<_> = (0..reference.bins.len()).filter(is_rare).collect();
        let alpha = self.alpha(look) / (2 * rare.len()).max(1) as f64;
        let series = [reference, live].map(|sample| LazyCell::new(move || (sample.over_time)()));
        let mut found = (none(DriftState::Ok), (f64::INFINITY, 0.0));
        for bin in rare {
            let rows = [[reference.bins[bin], reference_rows], [live.bins[bin], live_rows]];
            let judged = |effects| self.rare_bin(rows, floors, (alpha, effects), previous);
            let (mut state, mut tail) = judged([DesignEffect::NONE; 2]);
            let [reference, live] = rows.map(|[hits, rows]| hits as f64 / rows as f64);
            let change = (live - reference).abs();
            let mut design_effect = None;
            if state.is_alarm() {
                // Of two bins any score says the same.
                let effects = [0, 1].map(|side| DesignEffect::estimate(&of_bin(&series[side], bin), &[1.0, 0.0]));
                if effects != [None, None] {
                    (state, tail) = judged(effects.map(|effect| effect.unwrap_or(DesignEffect::NONE)));
                    design_effect = effects[1].map(|effect| effect.value);
                }
            }
            // Of two that are too unlikely for a number, the larger change.
            let is_more_certain = |(known, largest): (f64, f64)| tail < known || (tail <= known && change > largest);
            if state.is_alarm() && (state > found.0.state || state == found.0.state && is_more_certain(found.1)) {
                found = (RareBinVerdict { state, bin: Some(bin), reference, live, design_effect }, (tail, change));
            }
        }
        found.0
    }

    /// The state of one bin, and the probability that chance changes its share as much; 1 where that is too little.
    fn rare_bin(
        &self,
        [reference, live]: [Rows; 2],
        floors: RareFloors,
        (alpha, effects): (f64, [DesignEffect; 2]),
        previous: DriftState,
    ) -> (DriftState, f64) {
        // Half a row more, so that none is a share too.
        let [usual, now] = [reference, live].map(|[hits, rows]| (hits as f64 + 0.5) / (rows as f64 + 1.0));
        let (factor, change) = ((now / usual).max(usual / now), (now - usual).abs());
        // A logarithm and a difference are distances, and the exponent of a tail goes with the square of one.
        let clear_ratio = |state: DriftState| if previous >= state { self.thresholds.clear_ratio } else { 1.0 };
        let is_large = |state: DriftState, floor: f64| {
            let eased = clear_ratio(state);
            factor >= floor.powf(eased) && change >= eased * floors.least_change
        };
        if !is_large(DriftState::Warning, floors.warning) {
            return (DriftState::Ok, 1.0);
        }
        let [of_reference, of_live] = effects;
        let tail = if now > usual {
            effective_tail(reference, live, effects)
        } else {
            effective_tail(live, reference, [of_live, of_reference])
        };
        let is_real = |state: DriftState| tail <= strict(alpha, effects, 1).powf(clear_ratio(state).powi(2));
        if is_large(DriftState::Drift, floors.drift) && is_real(DriftState::Drift) {
            (DriftState::Drift, tail)
        } else if is_real(DriftState::Warning) {
            (DriftState::Warning, tail)
        } else {
            (DriftState::Ok, tail)
        }
    }
}

/// Rows of a bin, and the others, by sub-window.
fn of_bin(series: &[Series], bin: usize) -> Vec<Series> {
    let split = |bins: &Vec<u64>| vec![bins[bin], bins.iter().sum::<u64>() - bins[bin]];
    series.iter().map(|series| series.iter().map(split).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{Tests, Thresholds};

    const LOOK: Duration = Duration::from_secs(4);

    fn judged(reference: &[u64], live: &[u64], floors: RareFloors, previous: DriftState) -> RareBinVerdict {
        let judge = Judge::new(Thresholds::default(), Tests { features: 11, horizons: 3 }, reference.len());
        judge.judge_rare_bins(Sample::independent(reference), Sample::independent(live), floors, LOOK, previous)
    }

    fn state(reference: &[u64], live: &[u64]) -> (DriftState, Option<usize>) {
        let verdict = judged(reference, live, RareFloors::OF_OUTPUT, DriftState::Ok);
        (verdict.state, verdict.bin)
    }

    #[test]
    fn class_that_is_predicted_twice_as_often_is_found_where_the_psi_is_too_small() {
        let reference = [99_800, 200];
        assert_eq!(state(&reference, &[99_800, 200]), (DriftState::Ok, None));
        assert_eq!(state(&reference, &[99_600, 400]), (DriftState::Drift, Some(1)));
        assert_eq!(state(&reference, &[99_000, 1000]), (DriftState::Drift, Some(1)));
        assert_eq!(state(&reference, &[99_660, 340]), (DriftState::Warning, Some(1)));
        assert_eq!(state(&reference, &[99_720, 280]), (DriftState::Ok, None), "too small a change");
        let psi = crate::monitor::measures::psi(&reference, &[99_000, 1000]);
        assert!(psi < Thresholds::default().warning, "{psi}");
    }

    #[test]
    fn class_that_is_predicted_no_more_is_found_too() {
        assert_eq!(state(&[99_800, 200], &[100_000, 0]), (DriftState::Drift, Some(1)));
        assert_eq!(state(&[99_800, 200], &[99_920, 80]), (DriftState::Drift, Some(1)));
        assert_eq!(state(&[99_800, 200], &[2000, 0]), (DriftState::Ok, None), "four were expected");
    }

    #[test]
    fn what_the_reference_has_few_rows_of_is_not_certain() {
        // Of 10,000 reference rows twenty are of the class: 0.4 % of 100,000 may be chance, 1 % is not.
        assert_eq!(state(&[9980, 20], &[99_600, 400]), (DriftState::Ok, None));
        assert_eq!(state(&[9980, 20], &[99_000, 1000]), (DriftState::Drift, Some(1)));
        // A class that the reference never had.
        assert_eq!(state(&[50_000, 0], &[99_990, 10]), (DriftState::Ok, None));
        assert_eq!(state(&[50_000, 0], &[99_900, 100]), (DriftState::Drift, Some(1)));
    }

    #[test]
    fn rare_value_of_an_input_must_change_by_half_a_point_too() {
        let of =
            |live: u64| judged(&[99_800, 200], &[100_000 - live, live], RareFloors::OF_INPUT, DriftState::Ok).state;
        assert_eq!([of(400), of(690), of(710)], [DriftState::Ok, DriftState::Ok, DriftState::Drift]);
    }

    #[test]
    fn bins_that_are_not_rare_and_few_rows_have_no_say() {
        assert_eq!(state(&[90_000, 10_000], &[60_000, 40_000]), (DriftState::Ok, None));
        assert_eq!(state(&[9980, 20], &[99, 100]), (DriftState::TooFewRows, None));
        assert_eq!(state(&[9980, 20], &[100, 100]), (DriftState::Drift, Some(1)));
        assert_eq!(state(&[0, 0], &[500, 500]), (DriftState::Ok, None));
    }

    #[test]
    fn most_certain_of_the_worst_is_named() {
        let verdict =
            judged(&[97_000, 1000, 1000, 1000], &[88_000, 1700, 4000, 6300], RareFloors::OF_OUTPUT, DriftState::Ok);
        assert_eq!((verdict.state, verdict.bin), (DriftState::Drift, Some(3)));
        assert!((verdict.reference - 0.01).abs() < 1e-12 && (verdict.live - 0.063).abs() < 1e-12);
    }

    #[test]
    fn alarm_ends_well_under_what_began_it() {
        let of = |live: u64, previous| {
            judged(&[998_000, 2000], &[1_000_000 - live, live], RareFloors::OF_OUTPUT, previous).state
        };
        // 1.75^0.7 is 1.48, 1.5^0.7 is 1.33.
        assert_eq!(
            [4000, 3000, 2900, 2700, 2600].map(|live| of(live, DriftState::Drift)),
            [DriftState::Drift, DriftState::Drift, DriftState::Warning, DriftState::Warning, DriftState::Ok,]
        );
        assert_eq!(of(3300, DriftState::Ok), DriftState::Warning);
    }

    #[test]
    fn rows_that_come_in_clusters_are_worth_fewer() {
        // In every twentieth of 60 sub-windows a batch of 130 alike rows of the class, otherwise none.
        let burst = |at: u64| if at.is_multiple_of(20) { vec![1535, 130] } else { vec![1665, 0] };
        let series: Series = (0..60).map(burst).collect();
        let over_time = || vec![series.clone()];
        let judge = Judge::new(Thresholds::default(), Tests { features: 11, horizons: 3 }, 2);
        let (reference, live) = ([99_800, 200], [99_510, 390]);
        let verdict = |live: Sample<'_>| {
            let reference = Sample::independent(&reference);
            judge.judge_rare_bins(reference, live, RareFloors::OF_OUTPUT, LOOK, DriftState::Ok).state
        };
        assert_eq!(verdict(Sample::independent(&live)), DriftState::Drift);
        assert_eq!(verdict(Sample { bins: &live, over_time: &over_time }), DriftState::Ok);
    }
}
