//! The reconstruction error, fast: what is counted of every row.

use super::PrincipalComponents;

/// Components in the order that a processor likes: by feature, the weights of all components beside each other.
#[derive(Debug)]
pub(in crate::monitor) struct Projector {
    mean: Vec<f64>,
    /// What a unit of the feature is in standard deviations.
    scale: Vec<f64>,
    weights: Vec<f64>,
    components: usize,
}

impl Projector {
    pub(in crate::monitor) fn new(from: &PrincipalComponents) -> Self {
        let weights =
            (0..from.mean.len()).flat_map(|feature| from.components.iter().map(move |weights| weights[feature]));
        Self {
            mean: from.mean.clone(),
            scale: from.std.iter().map(|std| 1.0 / std).collect(),
            weights: weights.collect(),
            components: from.components.len(),
        }
    }

    /// The error of [`PrincipalComponents::error`], by Pythagoras: what the components keep of a row and what they
    /// leave of it are at right angles, so `√(|z|² − Σ (vᵢ·z)²)`.
    pub(in crate::monitor) fn error(&self, row: &[f64], scratch: &mut Vec<f64>) -> f64 {
        scratch.clear();
        scratch.resize(self.components, 0.0);
        let mut all = 0.0;
        let features = row.iter().zip(&self.mean).zip(&self.scale);
        for (((&value, mean), scale), weights) in features.zip(self.weights.chunks_exact(self.components.max(1))) {
            // What is missing is taken to be the mean.
            let standard = if value.is_finite() { (value - mean) * scale } else { 0.0 };
            all += standard * standard;
            scratch.iter_mut().zip(weights).for_each(|(along, weight)| *along += weight * standard);
        }
        let kept: f64 = scratch.iter().map(|along| along * along).sum();
        (all - kept).max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::pca::{ComponentFeature, Moments};

    #[test]
    fn projector_agrees_with_the_definition() {
        let mut state = 7_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut row = || {
            let common = number();
            (0..7).map(|feature| common * f64::from(feature) + number()).collect::<Vec<_>>()
        };
        let mut moments = Moments::new(7);
        (0..500).for_each(|_| moments.add(&row()));
        let features = (0..7).map(|column| ComponentFeature { tensor: "x".into(), column }).collect();
        let components = moments.principal_components(features).unwrap();
        let projector = Projector::new(&components);
        for at in 0..200 {
            let mut values = row();
            if at % 5 == 0 {
                values[3] = f64::NAN;
            }
            let (fast, defined) = (projector.error(&values, &mut vec![]), components.error(&values, &mut vec![]));
            assert!((fast - defined).abs() < 1e-9, "{fast} for {defined}");
        }
    }
}
