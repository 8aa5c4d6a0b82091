//! Data quality: shares of rows that a profile says should not grow, and values that stand still.

use std::time::Duration;

use super::{
    DriftState,
    histogram::Layout,
    verdict::{Judge, Series, ShareSample, ShareVerdict},
};

/// What is looked at, in the order of [`Quality::checks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// NaN, or an empty string.
    Missing,
    /// Infinite.
    Nonfinite,
    /// A category that the reference lacks; any value where the reference has none at all.
    Unseen,
    /// Below or above the reference's range.
    OutOfRange,
    /// One value only, where the reference has several.
    Constant,
}

impl Check {
    pub const ALL: [Self; 5] = [Self::Missing, Self::Nonfinite, Self::Unseen, Self::OutOfRange, Self::Constant];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Nonfinite => "nonfinite",
            Self::Unseen => "unseen",
            Self::OutOfRange => "out_of_range",
            Self::Constant => "constant",
        }
    }
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    pub check: Check,
    pub state: DriftState,
    /// The share of all the reference's rows. Of `constant`: of its most frequent value.
    pub reference: f64,
    /// The share of all live rows; 0 without rows. Of `constant`: of the reference's most frequent value.
    pub live: f64,
    /// The live share at which the state is `drift`.
    pub threshold: f64,
    /// So many of the live rows are worth one independent row; `None` where it was not needed or is not known.
    pub design_effect: Option<f64>,
}

/// The outcome of all checks that mean something for a feature.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quality {
    pub checks: Vec<Checked>,
}

impl Quality {
    /// The worst outcome.
    #[must_use]
    pub fn state(&self) -> DriftState {
        self.checks.iter().map(|checked| checked.state).max().unwrap_or(DriftState::Ok)
    }

    /// The outcome of one check, if it means something for the feature.
    #[must_use]
    pub fn of(&self, check: Check) -> Option<Checked> {
        self.checks.iter().copied().find(|checked| checked.check == check)
    }
}

/// Rows of a feature, by bin as the labels have them, and by the finest cells of values.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a> {
    pub(super) bins: &'a [u64],
    pub(super) finest: &'a [u64],
    /// Whether all values are one and the same if they are in one of the finest cells; `None` where that is not known.
    pub(super) is_one_value: Option<bool>,
    /// By bin and sub-window; is asked only where an alarm depends on it.
    pub(super) over_time: &'a dyn Fn() -> Vec<Series>,
}

impl Sides<'_> {
    /// The rows of some bins, and the others, by sub-window.
    fn over_time_of(self, hits: &[usize]) -> Vec<Series> {
        let split = |bins: &Vec<u64>| {
            let found = hits.iter().map(|bin| bins[*bin]).sum::<u64>();
            vec![found, bins.iter().sum::<u64>() - found]
        };
        (self.over_time)().iter().map(|series| series.iter().map(split).collect()).collect()
    }
}

/// Checks live rows against the reference's, at one of the looks that come every `look`; `previous` are the states that
/// the look before left, in the order of [`Check::ALL`].
pub(super) fn check(
    judge: &Judge,
    layout: Layout,
    reference: Sides<'_>,
    live: Sides<'_>,
    look: Duration,
    previous: [DriftState; Check::ALL.len()],
) -> Quality {
    let rows = [reference.bins, live.bins].map(|bins| bins.iter().sum::<u64>());
    let share = |hits: u64, rows: u64| if rows == 0 { 0.0 } else { hits as f64 / rows as f64 };
    let of_cells = |check: Check, cells: &[usize]| {
        let hits = [reference.bins, live.bins].map(|bins| cells.iter().map(|cell| bins[*cell]).sum::<u64>());
        let verdict = judge.judge_share_samples(
            ShareSample { rows: [hits[0], rows[0]], over_time: &|| reference.over_time_of(cells) },
            ShareSample { rows: [hits[1], rows[1]], over_time: &|| live.over_time_of(cells) },
            look,
            previous[check as usize],
        );
        let ShareVerdict { state, threshold, design_effect, .. } = verdict;
        let (usual, live) = (share(hits[0], rows[0]), share(hits[1], rows[1]));
        Checked { check, state, reference: usual, live, threshold: usual + threshold, design_effect }
    };
    let mut checks = vec![of_cells(Check::Missing, &[layout.missing()])];
    match layout {
        Layout::Numeric { bins } if layout.fold(reference.bins).iter().all(|rows| *rows == 0) => {
            // There is no range to be in or out of: any value is new.
            checks.push(of_cells(Check::Nonfinite, &[bins + 3]));
            checks.push(of_cells(Check::Unseen, &(0..bins + 2).collect::<Vec<_>>()));
        }
        Layout::Numeric { bins } => {
            checks.push(of_cells(Check::Nonfinite, &[bins + 3]));
            checks.push(of_cells(Check::OutOfRange, &[bins, bins + 1]));
        }
        Layout::Categorical { .. } => checks.push(of_cells(Check::Unseen, &[layout.outside()])),
    }
    let with_value = [reference, live].map(|side| layout.fold(side.bins).iter().sum());
    let previous = previous[Check::Constant as usize];
    checks.extend(constant(judge, [reference, live], with_value, look, previous));
    Quality { checks }
}

/// Whether all live rows that have a value have the same, and that is rarer than `alpha` by chance: `pⁿ`, where `p` is the
/// share of the value (or of the finest cell that it is in, which is more) in the reference, half a row added. `None` for a
/// reference that is constant itself.
fn constant(
    judge: &Judge,
    sides: [Sides<'_>; 2],
    [reference_rows, rows]: [u64; 2],
    look: Duration,
    previous: DriftState,
) -> Option<Checked> {
    let (alpha, is_one, [reference, live]) = (judge.alpha(look), sides[1].is_one_value?, sides.map(|side| side.finest));
    let most = reference.iter().copied().max().filter(|most| *most < reference_rows)?;
    let standing = live.iter().position(|filled| *filled > 0 && *filled == rows).filter(|_| is_one);
    let chance = |at: usize| {
        let share = (reference[at] as f64 + 0.5) / (reference_rows as f64 + 1.0);
        rows as f64 * share.ln()
    };
    let is_rare = standing.is_some_and(|at| chance(at) < alpha.ln());
    let usual = reference.iter().position(|rows| *rows == most)?;
    Some(Checked {
        check: Check::Constant,
        state: match is_rare {
            _ if !judge.has_rows_enough(rows, previous) => DriftState::TooFewRows,
            true => DriftState::Drift,
            false => DriftState::Ok,
        },
        reference: most as f64 / reference_rows as f64,
        live: if rows == 0 { 0.0 } else { live[usual] as f64 / rows as f64 },
        threshold: 1.0,
        design_effect: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{Tests, Thresholds};

    const OK: [DriftState; 5] = [DriftState::Ok; 5];
    const LOOK: Duration = Duration::from_secs(5);

    fn checked(layout: Layout, reference: &[u64], live: &[u64]) -> Vec<(Check, DriftState)> {
        checked_of(layout, reference, live, true)
    }

    /// `is_one`: whether live values in one bin are one and the same.
    fn checked_of(layout: Layout, reference: &[u64], live: &[u64], is_one: bool) -> Vec<(Check, DriftState)> {
        let judge = Judge::new(Thresholds::default(), Tests { features: 1, horizons: 1 }, 10);
        let values = |rows: &[u64]| match layout {
            Layout::Numeric { bins } => rows[..bins].to_vec(),
            Layout::Categorical { categories, .. } => rows[..categories].to_vec(),
        };
        let (of_reference, of_live) = (values(reference), values(live));
        let quality = check(
            &judge,
            layout,
            Sides { bins: reference, finest: &of_reference, is_one_value: None, over_time: &Vec::new },
            Sides { bins: live, finest: &of_live, is_one_value: Some(is_one), over_time: &Vec::new },
            LOOK,
            OK,
        );
        quality.checks.iter().filter(|one| one.state.is_alarm()).map(|one| (one.check, one.state)).collect()
    }

    #[test]
    fn shares_that_grow_are_found_each_by_its_name() {
        let numeric = Layout::Numeric { bins: 2 };
        // Bins, below, above, missing, non-finite.
        let reference = [4500, 4500, 0, 0, 1000, 0];
        assert_eq!(checked(numeric, &reference, &[450, 450, 0, 0, 100, 0]), []);
        assert_eq!(checked(numeric, &reference, &[390, 390, 0, 0, 220, 0]), [(Check::Missing, DriftState::Drift)]);
        assert_eq!(checked(numeric, &reference, &[430, 430, 20, 20, 100, 0]), [(Check::OutOfRange, DriftState::Drift)]);
        assert_eq!(checked(numeric, &reference, &[430, 430, 0, 0, 100, 40]), [(Check::Nonfinite, DriftState::Drift)]);
        let categorical = Layout::Categorical { categories: 2, pooled: 0 };
        assert_eq!(checked(categorical, &[5000, 5000, 0, 0], &[490, 490, 20, 0]), [(Check::Unseen, DriftState::Drift)]);
        let with_other = Layout::Categorical { categories: 2, pooled: 1 };
        let unseen = [(Check::Unseen, DriftState::Drift)];
        assert_eq!(checked(with_other, &[4500, 4500, 1000, 0, 0], &[440, 440, 100, 20, 0]), unseen);
        assert_eq!(checked(with_other, &[4500, 4500, 1000, 0, 0], &[430, 430, 140, 0, 0]), []);
        assert_eq!(checked(categorical, &[5000, 5000, 0, 0], &[0, 0, 0, 0]), []);
    }

    #[test]
    fn value_that_stands_still_is_found_unless_it_nearly_did_before() {
        let categorical = Layout::Categorical { categories: 2, pooled: 0 };
        let constant = [(Check::Constant, DriftState::Drift)];
        assert_eq!(checked(categorical, &[5000, 5000, 0, 0], &[200, 0, 0, 0]), constant);
        assert_eq!(checked(categorical, &[5000, 5000, 0, 0], &[5, 0, 0, 0]), []);
        for live in [[4, 0, 0, 0], [199, 0, 0, 0]] {
            assert_eq!(checked(categorical, &[5000, 5000, 0, 0], &live), [], "fewer rows than a verdict takes");
        }
        assert_eq!(checked(categorical, &[9990, 10, 0, 0], &[1000, 0, 0, 0]), []);
        assert_eq!(checked(categorical, &[9000, 0, 0, 0], &[1000, 0, 0, 0]), []);
        // Different numbers may be in one bin.
        let numeric = Layout::Numeric { bins: 2 };
        assert_eq!(checked_of(numeric, &[5000, 5000, 0, 0, 0, 0], &[300, 0, 0, 0, 0, 0], true), constant);
        assert_eq!(checked_of(numeric, &[5000, 5000, 0, 0, 0, 0], &[300, 0, 0, 0, 0, 0], false), []);
        // `other` is no value, and beside it the rows of one category are not all.
        let with_other = Layout::Categorical { categories: 2, pooled: 1 };
        let reference = [3000, 3000, 4000, 0, 0];
        assert_eq!(checked(with_other, &reference, &[200, 0, 0, 0, 0]), constant);
        for live in [[0, 0, 200, 0, 0], [200, 0, 300, 0, 0]] {
            assert_eq!(checked(with_other, &reference, &live), []);
        }
    }

    #[test]
    fn any_value_is_new_where_the_reference_has_none() {
        let unseen = [(Check::Unseen, DriftState::Drift)];
        let numeric = Layout::Numeric { bins: 1 };
        let reference = [0, 0, 0, 10_000, 0];
        assert_eq!(checked(numeric, &reference, &[0, 0, 0, 500, 0]), []);
        assert_eq!(checked(numeric, &reference, &[4, 3, 3, 490, 0]), unseen);
        assert_eq!(checked(numeric, &reference, &[0, 0, 4, 496, 0]), [], "less than a point");
        let categorical = Layout::Categorical { categories: 0, pooled: 0 };
        assert_eq!(checked(categorical, &[0, 10_000], &[10, 490]), unseen);
    }
}
