//! Finds the bin of a number: by a table of where the edges lie, and few comparisons.

/// Parts of the range that the table tells apart, nearly.
const PARTS: usize = 256;
/// Places of the table: more than there are parts, so that any number of so many bits is one.
const PLACES: usize = 2 * PARTS;
/// Edges of a part that are compared with a value one by one; of more, some are left out.
const FEW: usize = 4;
/// What a number from 0 to [`PARTS`] is added to for its whole part to stand in the lowest bits.
const WHOLE: f64 = (1_u64 << (f64::MANTISSA_DIGITS - 1)) as f64;

/// The edges between bins over a range, ready to be looked up.
#[derive(Debug)]
pub(super) struct Edges {
    /// Ascending, with as many that are no number behind them as a search may look at.
    inner: Box<[f64]>,
    bins: usize,
    min: f64,
    max: f64,
    /// Parts of the range for each unit of the value; 0 where that is no finite number.
    scale: f64,
    /// By part of the range: how many edges lie in the parts before it.
    before: Box<[u16; PLACES]>,
    /// The most edges in a part.
    most: usize,
}

impl Edges {
    /// `edges` ascend, and are fewer than 65,536.
    pub(super) fn new(edges: &[f64], min: f64, max: f64) -> Self {
        let scale = Some(PARTS as f64 / (max - min)).filter(|scale| scale.is_finite()).unwrap_or(0.0);
        let (bins, inner, before) = (edges.len() + 1, Box::default(), Box::new([0; PLACES]));
        let mut found = Self { inner, bins, min, max, scale, before, most: 0 };
        let parts: Vec<_> = edges.iter().map(|edge| found.part_of(edge.clamp(min, max))).collect();
        let count = |part: usize| parts.iter().filter(|of_edge| **of_edge < part).count();
        found.most = (0..PLACES).map(|part| count(part + 1) - count(part)).max().unwrap_or(0);
        let behind = (FEW + 1).max((found.most + 1).next_power_of_two());
        found.inner = edges.iter().copied().chain(std::iter::repeat_n(f64::NAN, behind)).collect();
        found.before.iter_mut().enumerate().for_each(|(part, before)| {
            *before = u16::try_from(count(part)).unwrap_or(u16::MAX);
        });
        found
    }

    /// The cell of a number: its bin, after the bins `below`, `above`, `missing`, `nonfinite`. A value equal to an edge
    /// belongs to the upper bin.
    pub(super) fn cell_of(&self, value: f64) -> usize {
        let mut cell = [0];
        self.cells_of(&[value], &mut cell);
        cell[0] as usize
    }

    /// The cells of numbers, in `room`.
    pub(super) fn cells_in<'room>(&self, numbers: &[f64], room: &'room mut Vec<u32>) -> &'room [u32] {
        room.resize(numbers.len(), 0);
        self.cells_of(numbers, room);
        room
    }

    /// The cells of numbers, see [`Edges::cell_of`].
    #[expect(clippy::cast_possible_truncation, reason = "cells are fewer than 65,541")]
    pub(super) fn cells_of(&self, values: &[f64], cells: &mut [u32]) {
        let mut places = cells.iter_mut();
        self.each_cell(values, |cell| {
            if let Some(place) = places.next() {
                *place = cell as u32;
            }
        });
    }

    /// Tells `each` the cell of every number, see [`Edges::cell_of`].
    #[inline]
    pub(super) fn each_cell(&self, values: &[f64], each: impl FnMut(usize)) {
        // Edges of earlier parts are under a value, and those of later ones above, as a larger value is never in an earlier
        // part. A search that does not know where its part ends is as good, and its branches are always the same: what they
        // would otherwise depend on, no branch predictor knows.
        match self.most {
            0 | 1 => self.compare_with::<1>(values, each),
            2 => self.compare_with::<2>(values, each),
            3 => self.compare_with::<3>(values, each),
            FEW => self.compare_with::<FEW>(values, each),
            most => {
                let steps = usize::BITS - most.leading_zeros();
                self.find(values, each, |before, value| {
                    (0..steps)
                        .rev()
                        .fold(before, |bin, bit| bin + (usize::from(self.inner[bin + (1 << bit) - 1] <= value) << bit))
                });
            }
        }
    }

    /// Where no part has more than `MOST` edges.
    #[inline]
    fn compare_with<const MOST: usize>(&self, values: &[f64], each: impl FnMut(usize)) {
        self.find(values, each, |before, value| {
            let near = &self.inner[before..before + MOST];
            near.iter().fold(before, |bin, edge| bin + usize::from(*edge <= value))
        });
    }

    /// Tells `each` the cells of values, of which `bin_of` tells the bin of those in the range, given the edges in the parts
    /// before.
    #[inline]
    fn find(&self, values: &[f64], mut each: impl FnMut(usize), bin_of: impl Fn(usize, f64) -> usize) {
        let (min, max) = (self.min, self.max);
        for value in values.iter().copied() {
            let bin = bin_of(usize::from(self.before[self.part_of(value)]), value);
            each(if value >= min && value <= max { bin } else { self.outside(value) });
        }
    }

    /// The cell of a number that is in no bin.
    #[cold]
    fn outside(&self, value: f64) -> usize {
        let bins = self.bins;
        if value.is_nan() {
            bins + 2
        } else if value.is_infinite() {
            bins + 3
        } else {
            bins + usize::from(value > self.max)
        }
    }

    /// Never falls when a value within the range grows. What an addition rounds to is found in fewer steps than what a
    /// cast cuts off.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a number under PLACES")]
    fn part_of(&self, value: f64) -> usize {
        let bits = ((value - self.min) * self.scale + WHOLE).to_bits();
        // No difference that is a number, as of a range wider than all numbers: 0 too.
        (bits & (PLACES as u64 - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Edges as dense as any number is, and few or many of a width: as many in a part of the range as are compared one by one,
    /// and more.
    fn edges() -> impl Strategy<Value = Vec<f64>> {
        let anywhere = prop_oneof![-1e3..1e3_f64, -1e-9..1e-9_f64, prop::num::f64::NORMAL];
        let near = prop::collection::vec(0.0..1.0_f64, 0..300);
        prop_oneof![prop::collection::vec(anywhere, 0..300), near]
    }

    proptest! {
        /// `numpy.searchsorted(edges, value, side="right")`, whatever the range and wherever the edges are dense.
        #[test]
        fn bin_is_the_number_of_edges_at_or_under_the_value(
            mut edges in edges(),
            others in prop::collection::vec(prop_oneof![prop::num::f64::ANY, 0.0..1.0_f64], 0..50),
        ) {
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            let (min, max) = (edges.first().map_or(-1.0, |edge| edge.next_down()), edges.last().map_or(1.0, |edge| edge.next_up()));
            let found = Edges::new(&edges, min, max);
            let near = edges.iter().flat_map(|edge| [edge.next_down(), *edge, edge.next_up()]);
            let special = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE / 2.0, f64::MAX];
            let values: Vec<_> = near.chain(others).chain([min, max, min.next_down(), max.next_up()]).chain(special).collect();
            let mut cells = vec![0; values.len()];
            found.cells_of(&values, &mut cells);
            for (value, cell) in values.into_iter().zip(cells) {
                let expected = match value {
                    _ if (min..=max).contains(&value) => edges.iter().filter(|edge| **edge <= value).count(),
                    _ if value.is_nan() => edges.len() + 3,
                    _ if value.is_infinite() => edges.len() + 4,
                    _ => edges.len() + 1 + usize::from(value > max),
                };
                prop_assert_eq!((cell as usize, found.cell_of(value)), (expected, expected), "{}", value);
            }
        }
    }

    #[test]
    fn search_is_the_same_with_any_number_of_edges_in_a_part() {
        for most in 0..12 {
            // All in the first of the parts, and one at the end.
            let edges: Vec<_> = (0..most).map(|at| f64::from(at) / 1e4).chain([100.0]).collect();
            let found = Edges::new(&edges, 0.0, 100.0);
            assert_eq!(found.most, usize::try_from(most).unwrap().max(1));
            for value in edges.iter().flat_map(|edge| [edge.next_down().max(0.0), *edge, edge + 5e-5]) {
                let expected = edges.iter().filter(|edge| **edge <= value).count();
                assert_eq!(found.cell_of(value.min(100.0)), expected, "{most} {value}");
            }
        }
    }

    #[test]
    fn range_of_one_value_has_its_bins() {
        let edges = Edges::new(&[5.0, 5.0_f64.next_up()], 5.0, 5.0);
        assert_eq!([4.0, 5.0, 6.0].map(|value| edges.cell_of(value)), [3, 1, 4]);
    }
}
