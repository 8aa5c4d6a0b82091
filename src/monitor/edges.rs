//! Finds the bin of a number: by a table of where the edges lie, and few comparisons.

/// Parts of the range that the table tells apart, nearly.
const PARTS: usize = 256;
/// Places of the table: more than there are parts, so that any number of so many bits is one.
const PLACES: usize = 2 * PARTS;
/// What a number from 0 to [`PARTS`] is added to for its whole part to stand in the lowest bits.
const WHOLE: f64 = (1_u64 << (f64::MANTISSA_DIGITS - 1)) as f64;

/// The edges between bins over a range, ready to be looked up.
#[derive(Debug)]
pub(super) struct Edges {
    /// Ascending, with as many infinite ones behind them as a search may look at.
    inner: Box<[f64]>,
    bins: usize,
    min: f64,
    max: f64,
    /// Parts of the range for each unit of the value; 0 where that is no finite number.
    scale: f64,
    /// By part of the range: how many edges lie in the parts before it.
    before: Box<[u16; PLACES]>,
    /// The steps of a search among the edges of any part are `1 << (steps - 1)`, and so on down to 1.
    steps: u32,
}

impl Edges {
    /// `edges` ascend, and are fewer than 65,536.
    pub(super) fn new(edges: &[f64], min: f64, max: f64) -> Self {
        let scale = Some(PARTS as f64 / (max - min)).filter(|scale| scale.is_finite()).unwrap_or(0.0);
        let (bins, inner, before) = (edges.len() + 1, Box::default(), Box::new([0; PLACES]));
        let mut found = Self { inner, bins, min, max, scale, before, steps: 0 };
        let parts: Vec<_> = edges.iter().map(|edge| found.part_of(edge.clamp(min, max))).collect();
        let count = |part: usize| parts.iter().filter(|of_edge| **of_edge < part).count();
        let most = (0..PLACES).map(|part| count(part + 1) - count(part)).max().unwrap_or(0);
        found.steps = usize::BITS - most.leading_zeros();
        found.inner = edges.iter().copied().chain(std::iter::repeat_n(f64::INFINITY, 1 << found.steps)).collect();
        found.before.iter_mut().enumerate().for_each(|(part, before)| {
            *before = u16::try_from(count(part)).unwrap_or(u16::MAX);
        });
        found
    }

    /// The cell of a number: its bin, after the bins `below`, `above`, `missing`, `nonfinite`. A value equal to an edge
    /// belongs to the upper bin.
    #[inline]
    pub(super) fn cell_of(&self, value: f64) -> usize {
        let bins = self.bins;
        if value >= self.min && value <= self.max {
            return self.bin_of(value);
        }
        if value.is_nan() {
            bins + 2
        } else if value.is_infinite() {
            bins + 3
        } else {
            bins + usize::from(value > self.max)
        }
    }

    /// The number of edges at or under a value within the range.
    #[inline]
    fn bin_of(&self, value: f64) -> usize {
        // A larger value is never in an earlier part, so edges of earlier parts are under it, and those of later ones
        // above. A search that does not know where its part ends is as good, and its branches are always the same: what
        // they would otherwise depend on, no branch predictor knows.
        let mut bin = usize::from(self.before[self.part_of(value)]);
        for bit in (0..self.steps).rev() {
            bin += usize::from(self.inner[bin + (1 << bit) - 1] <= value) << bit;
        }
        bin
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

    proptest! {
        /// `numpy.searchsorted(edges, value, side="right")`, whatever the range and wherever the edges are dense.
        #[test]
        fn bin_is_the_number_of_edges_at_or_under_the_value(
            mut edges in prop::collection::vec(prop_oneof![-1e3..1e3_f64, -1e-9..1e-9_f64, prop::num::f64::NORMAL], 0..300),
            others in prop::collection::vec(prop::num::f64::ANY, 0..50),
        ) {
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            let (min, max) = (edges.first().map_or(-1.0, |edge| edge.next_down()), edges.last().map_or(1.0, |edge| edge.next_up()));
            let found = Edges::new(&edges, min, max);
            let near = edges.iter().flat_map(|edge| [edge.next_down(), *edge, edge.next_up()]);
            for value in near.chain(others).chain([min, max]) {
                if (min..=max).contains(&value) {
                    prop_assert_eq!(found.cell_of(value), edges.iter().filter(|edge| **edge <= value).count());
                } else {
                    prop_assert!(found.cell_of(value) > edges.len());
                }
            }
        }
    }

    #[test]
    fn range_of_one_value_has_its_bins() {
        let edges = Edges::new(&[5.0, 5.0_f64.next_up()], 5.0, 5.0);
        assert_eq!([4.0, 5.0, 6.0].map(|value| edges.cell_of(value)), [3, 1, 4]);
    }
}
