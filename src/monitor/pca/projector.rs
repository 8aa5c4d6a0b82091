//! The reconstruction error, fast: what is counted of every row.

use super::PrincipalComponents;

/// Rows that are computed side by side: as many as fill the registers of any processor.
pub(in crate::monitor) const LANES: usize = 8;

/// The share of a row's square that is no more than what rounding leaves. Its root would be a distribution of its own.
const ROUNDING: f64 = 1e-12;

/// What the error of a row is computed by.
#[derive(Debug)]
pub(in crate::monitor) struct Projector {
    mean: Vec<f64>,
    /// What a unit of the feature is in standard deviations.
    scale: Vec<f64>,
    /// Orthonormal, two by two, with their weights by feature.
    pairs: Vec<Vec<[f64; 2]>>,
    /// The last one of an odd number.
    single: Vec<[f64; 1]>,
    /// Whether the vectors span what the components leave of a row, or what they keep: what takes fewer vectors.
    span_the_rest: bool,
}

impl Projector {
    pub(in crate::monitor) fn new(from: &PrincipalComponents) -> Self {
        let span_the_rest = 2 * from.components.len() > from.mean.len();
        let vectors = if span_the_rest { complement(&from.components) } else { from.components.clone() };
        let (pairs, single) = vectors.as_chunks();
        let together =
            |[one, other]: &[Vec<f64>; 2]| one.iter().zip(other).map(|(one, other)| [*one, *other]).collect();
        Self {
            mean: from.mean.clone(),
            scale: from.std.iter().map(|std| 1.0 / std).collect(),
            pairs: pairs.iter().map(together).collect(),
            single: single.iter().flatten().map(|weight| [*weight]).collect(),
            span_the_rest,
        }
    }

    /// Hands the errors of [`LANES`] rows at a time to `each`, with the number of the first, as
    /// [`PrincipalComponents::error`] has them, by Pythagoras: `√(Σ (uᵢ·z)²)` where the `u` span the rest, else
    /// `√(|z|² − Σ (vᵢ·z)²)`, as what is kept of a row and what is left are at right angles.
    ///
    /// `values` has those of the first feature in `rows` rows, then those of the next. `rows` is a multiple of [`LANES`].
    /// The error of a row does not depend on the rows beside it.
    pub(in crate::monitor) fn each_error(
        &self,
        values: &[f64],
        rows: usize,
        mut each: impl FnMut(usize, [f64; LANES]),
    ) {
        let mut standard = vec![[0.0; LANES]; self.mean.len()];
        for first in (0..rows).step_by(LANES) {
            let lanes = values.chunks_exact(rows).filter_map(|column| column[first..].first_chunk::<LANES>());
            for ((standard, values), (mean, scale)) in
                standard.iter_mut().zip(lanes).zip(self.mean.iter().zip(&self.scale))
            {
                for (standard, value) in standard.iter_mut().zip(values) {
                    // What is missing is taken to be the mean.
                    let by_reference = (value - mean) * scale;
                    *standard = if value.abs() <= f64::MAX { by_reference } else { 0.0 };
                }
            }
            let mut sums = [0.0; LANES];
            self.pairs.iter().for_each(|pair| add_squares(&mut sums, pair, &standard));
            add_squares(&mut sums, &self.single, &standard);
            let mut all = [0.0; LANES];
            for standard in &standard {
                all.iter_mut().zip(standard).for_each(|(sum, value)| *sum += value * value);
            }
            if !self.span_the_rest {
                sums.iter_mut().zip(&all).for_each(|(sum, all)| *sum = all - *sum);
            }
            for (sum, all) in sums.iter_mut().zip(all) {
                *sum = if *sum > ROUNDING * all { sum.sqrt() } else { 0.0 };
            }
            each(first, sums);
        }
    }
}

/// Adds the squares of how far rows go along some vectors, `weights` by feature: as many vectors as registers have room
/// for, as the rows are read for all of them once.
#[inline]
fn add_squares<const VECTORS: usize>(sums: &mut [f64; LANES], weights: &[[f64; VECTORS]], rows: &[[f64; LANES]]) {
    let mut along = [[0.0; LANES]; VECTORS];
    for (weights, values) in weights.iter().zip(rows) {
        for (along, weight) in along.iter_mut().zip(weights) {
            along.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    for along in along {
        sums.iter_mut().zip(along).for_each(|(sum, along)| *sum += along * along);
    }
}

/// Orthonormal vectors at right angles to these, and with them of all space: what these leave of the axes, by
/// Gram and Schmidt, the longest first.
fn complement(vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dimensions = vectors.first().map_or(0, Vec::len);
    let unit = |at: usize| (0..dimensions).map(|other| f64::from(u8::from(at == other))).collect::<Vec<_>>();
    let mut axes: Vec<_> = (0..dimensions).map(unit).collect();
    // Twice, as once leaves what rounding left.
    for vector in vectors.iter().chain(vectors) {
        for axis in &mut axes {
            take_out(axis, vector);
        }
    }
    let mut found: Vec<Vec<f64>> = Vec::new();
    while found.len() + vectors.len() < dimensions {
        let longest = axes.iter().max_by(|left, right| product(left, left).total_cmp(&product(right, right)));
        let Some(mut next) = longest.cloned() else { break };
        for known in vectors.iter().chain(&found) {
            take_out(&mut next, known);
        }
        let length = product(&next, &next).sqrt();
        for weight in &mut next {
            *weight /= length;
        }
        for axis in &mut axes {
            take_out(axis, &next);
        }
        found.push(next);
    }
    found
}

fn product(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// What is at right angles to a vector of length 1.
fn take_out(from: &mut [f64], vector: &[f64]) {
    let along = product(from, vector);
    from.iter_mut().zip(vector).for_each(|(value, weight)| *value -= along * weight);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::pca::{ComponentFeature, Moments};

    /// Numbers from 0 to 1, always the same.
    fn numbers() -> impl FnMut() -> f64 {
        let mut state = 7_u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Components of rows whose features have `common` of what they are in common, and some rows.
    fn rows(features: usize, common: f64) -> (PrincipalComponents, Vec<Vec<f64>>) {
        let mut number = numbers();
        let mut row = || {
            let shared = number();
            (0..features).map(|feature| common * shared * feature as f64 + number()).collect::<Vec<_>>()
        };
        let mut moments = Moments::new(features);
        (0..500).for_each(|_| moments.add(&row()));
        let places = (0..features).map(|column| ComponentFeature { tensor: "x".into(), column }).collect();
        (moments.principal_components(places).unwrap(), (0..200).map(|_| row()).collect())
    }

    #[test]
    fn projector_agrees_with_the_definition() {
        for (features, common, span_the_rest) in [(7, 1.0, false), (7, 0.0, true), (40, 0.0, true)] {
            let (components, mut rows) = rows(features, common);
            let projector = Projector::new(&components);
            assert_eq!(projector.span_the_rest, span_the_rest, "{features} {common}");
            rows.iter_mut().step_by(5).for_each(|row| row[1] = f64::NAN);
            let values: Vec<_> = (0..features).flat_map(|at| rows.iter().map(move |row| row[at])).collect();
            let mut seen = 0;
            projector.each_error(&values, rows.len(), |first, errors| {
                assert_eq!(first, seen);
                for (row, fast) in rows[first..].iter().zip(errors) {
                    let defined = components.error(row, &mut vec![]);
                    assert!((fast - defined).abs() < 1e-9, "{fast} for {defined}");
                    seen += 1;
                }
            });
            assert_eq!(seen, 200);
        }
    }

    #[test]
    fn rows_that_the_components_keep_wholly_have_no_error_at_all() {
        for span_the_rest in [false, true] {
            let mut number = numbers();
            let mut row = || {
                let (one, other) = (number(), number());
                if span_the_rest { [one, other, 7.0] } else { [one, 2.0 * one, -3.0 * one] }
            };
            let mut moments = Moments::new(3);
            (0..500).for_each(|_| moments.add(&row()));
            let places = (0..3).map(|column| ComponentFeature { tensor: "x".into(), column }).collect();
            let projector = Projector::new(&moments.principal_components(places).unwrap());
            assert_eq!(projector.span_the_rest, span_the_rest);
            let rows: Vec<_> = (0..8).map(|_| row()).collect();
            let values: Vec<_> = (0..3).flat_map(|at| rows.iter().map(move |row| row[at])).collect();
            projector.each_error(&values, 8, |_, errors| {
                assert!(errors.iter().all(|error| *error == 0.0), "{errors:?}");
            });
        }
    }

    #[test]
    fn components_of_all_space_leave_nothing() {
        let axes = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        assert_eq!(complement(&axes), Vec::<Vec<f64>>::new());
        assert_eq!(complement(&axes[..1]), [vec![0.0, 1.0]]);
    }
}
