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
    /// Orthonormal, each with a weight by feature.
    vectors: Vec<Vec<f64>>,
    /// Whether the vectors span what the components leave of a row, or what they keep: what takes fewer vectors.
    span_the_rest: bool,
}

impl Projector {
    pub(in crate::monitor) fn new(from: &PrincipalComponents) -> Self {
        let span_the_rest = 2 * from.components.len() > from.mean.len();
        Self {
            mean: from.mean.clone(),
            scale: from.std.iter().map(|std| 1.0 / std).collect(),
            vectors: if span_the_rest { complement(&from.components) } else { from.components.clone() },
            span_the_rest,
        }
    }

    /// Hands the error of each row to `each`, as [`PrincipalComponents::error`] has it, by Pythagoras: `√(Σ (uᵢ·z)²)` where
    /// the `u` span the rest, else `√(|z|² − Σ (vᵢ·z)²)`, as what is kept of a row and what is left are at right angles.
    ///
    /// `values` has those of the first feature in `rows` rows, then those of the next; they are standardised in place. `rows`
    /// is a multiple of [`LANES`]. The error of a row does not depend on the rows beside it.
    pub(in crate::monitor) fn each_error(&self, values: &mut [f64], rows: usize, mut each: impl FnMut(usize, f64)) {
        for ((column, mean), scale) in values.chunks_exact_mut(rows.max(1)).zip(&self.mean).zip(&self.scale) {
            for value in column {
                // What is missing is taken to be the mean.
                *value = if value.is_finite() { (*value - mean) * scale } else { 0.0 };
            }
        }
        for first in (0..rows).step_by(LANES) {
            let lanes = || values.chunks_exact(rows).filter_map(|column| column[first..].first_chunk::<LANES>());
            let mut sums = [0.0; LANES];
            for vector in &self.vectors {
                let mut along = [0.0; LANES];
                for (weight, standard) in vector.iter().zip(lanes()) {
                    along.iter_mut().zip(standard).for_each(|(sum, value)| *sum += weight * value);
                }
                sums.iter_mut().zip(along).for_each(|(sum, along)| *sum += along * along);
            }
            let mut all = [0.0; LANES];
            for standard in lanes() {
                all.iter_mut().zip(standard).for_each(|(sum, value)| *sum += value * value);
            }
            for (lane, (sum, all)) in sums.into_iter().zip(all).enumerate() {
                let rest = if self.span_the_rest { sum } else { all - sum };
                each(first + lane, if rest > ROUNDING * all { rest.sqrt() } else { 0.0 });
            }
        }
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
            let mut values: Vec<_> = (0..features).flat_map(|at| rows.iter().map(move |row| row[at])).collect();
            let mut seen = 0;
            projector.each_error(&mut values, rows.len(), |at, fast| {
                assert_eq!(at, seen);
                seen += 1;
                let defined = components.error(&rows[at], &mut vec![]);
                assert!((fast - defined).abs() < 1e-9, "{fast} for {defined}");
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
            let mut values: Vec<_> = (0..3).flat_map(|at| rows.iter().map(move |row| row[at])).collect();
            projector.each_error(&mut values, 8, |_, error| assert!(error == 0.0, "{error}"));
        }
    }

    #[test]
    fn components_of_all_space_leave_nothing() {
        let axes = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        assert_eq!(complement(&axes), Vec::<Vec<f64>>::new());
        assert_eq!(complement(&axes[..1]), [vec![0.0, 1.0]]);
    }
}
