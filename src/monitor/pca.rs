//! Whether features still go together: the reconstruction error of principal components.
//!
//! Features may each keep their distribution and yet no longer belong together. The components
//! that carry most of the reference's variance describe how they go together; a row that does not is far
//! from what the components alone would make of it. The error is one more number of a row, and drifts
//! up or down like any other. It equals that of `NannyML`'s multivariate detector where a category
//! stands for how many rows of the reference have it; any number will do.

mod eigen;
mod projector;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use projector::{LANES, Projector};

/// More features than this have no components: the work of a row grows with their square.
pub const MAX_COMPONENT_FEATURES: usize = 256;

/// The part of the variance that the components must carry.
const KEPT_VARIANCE: f64 = 0.65;

/// How far from orthonormal the components of a profile may be.
const TOLERANCE: f64 = 1e-6;

/// Means and covariances of numeric features, row by row or merged from parts.
///
/// Values that are not finite are missing: they stand at the mean, and count for neither mean nor
/// covariance. Without them the result is exact (Welford, 1962; Chan and others, 1983).
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    rows: u64,
    /// Values that are not missing, by feature.
    counts: Vec<u64>,
    means: Vec<f64>,
    /// Sums of products of deviations: the lower triangle, row by row.
    products: Vec<f64>,
    /// The deviations of the row or part that is being added.
    deviations: Vec<f64>,
}

impl Moments {
    #[must_use]
    pub fn new(features: usize) -> Self {
        Self {
            rows: 0,
            counts: vec![0; features],
            means: vec![0.0; features],
            products: vec![0.0; features * (features + 1) / 2],
            deviations: vec![0.0; features],
        }
    }

    /// Adds a row of as many values as there are features.
    pub fn add(&mut self, row: &[f64]) {
        self.rows += 1;
        let features = self.counts.iter_mut().zip(&mut self.means).zip(&mut self.deviations);
        for (((count, mean), deviation), &value) in features.zip(row) {
            if !value.is_finite() {
                *deviation = 0.0;
                continue;
            }
            let (before, after) = (*count as f64, *count as f64 + 1.0);
            let difference = value - *mean;
            *mean += difference / after;
            *deviation = difference * (before / after).sqrt();
            *count += 1;
        }
        self.add_products();
    }

    /// Adds the rows of another accumulator of the same features.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for feature in 0..self.counts.len().min(other.counts.len()) {
            let (own, others) = (self.counts[feature] as f64, other.counts[feature] as f64);
            let both = (own + others).max(1.0);
            let difference = other.means[feature] - self.means[feature];
            self.means[feature] += difference * others / both;
            self.deviations[feature] = difference * (own * others / both).sqrt();
            self.counts[feature] += other.counts[feature];
        }
        self.add_products();
        self.products.iter_mut().zip(&other.products).for_each(|(sum, other)| *sum += other);
    }

    /// The components of these features (the columns of input tensors, in the order of a row)
    /// that carry at least 65 % of the variance of the standardised features.
    ///
    /// `None` for fewer than two features, for more than [`MAX_COMPONENT_FEATURES`], where no
    /// feature varies, and for values too large to be squared.
    #[must_use]
    pub fn principal_components(&self, features: Vec<ComponentFeature>) -> Option<PrincipalComponents> {
        let count = self.counts.len();
        if features.len() != count || !(2..=MAX_COMPONENT_FEATURES).contains(&count) {
            return None;
        }
        let product = |i: usize, j: usize| self.products[i.max(j) * (i.max(j) + 1) / 2 + i.min(j)];
        // A constant feature has no unit of its own.
        let spread = |i: usize| Some(product(i, i)).filter(|square| *square > 0.0).map_or(1.0, f64::sqrt);
        let correlations: Vec<f64> = (0..count * count)
            .map(|at| (at / count, at % count))
            .map(|(i, j)| product(i, j) / (spread(i) * spread(j)))
            .collect();
        if !correlations.iter().chain(&self.means).all(|number| number.is_finite()) {
            return None;
        }
        let components = leading(eigen::decompose(correlations, count));
        let scale = (self.rows as f64).sqrt();
        let std = (0..count).map(|i| if product(i, i) > 0.0 { spread(i) / scale } else { 1.0 }).collect();
        let components = PrincipalComponents { features, mean: self.means.clone(), std, components };
        (!components.components.is_empty()).then_some(components)
    }

    fn add_products(&mut self) {
        let mut products = self.products.iter_mut();
        for (at, own) in self.deviations.iter().enumerate() {
            for (other, sum) in self.deviations[..=at].iter().zip(&mut products) {
                *sum += own * other;
            }
        }
    }
}

/// The first vectors, until they carry enough of the variance.
fn leading(eigen: Vec<eigen::Pair>) -> Vec<Vec<f64>> {
    let all: f64 = eigen.iter().map(|pair| pair.value.max(0.0)).sum();
    let mut carried = 0.0;
    let is_needed = |pair: &eigen::Pair| {
        let is_needed = carried < KEPT_VARIANCE * all;
        carried += pair.value.max(0.0);
        is_needed
    };
    eigen.into_iter().take_while(is_needed).map(|pair| pair.vector).collect()
}

/// A column of an input tensor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentFeature {
    pub tensor: String,
    pub column: usize,
}

/// How the numeric features of the reference go together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrincipalComponents {
    pub features: Vec<ComponentFeature>,
    /// By feature, as `std`.
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
    /// Orthonormal, the one with the most variance first; each with a weight by feature.
    pub components: Vec<Vec<f64>>,
}

impl PrincipalComponents {
    /// The reconstruction error of a row, a value by feature: how far its standardised values are
    /// from their projection on the components (Euclidean). Missing values (not finite) stand at the mean.
    ///
    /// `scratch` is for one thread to use again and again: nothing is allocated once it has grown.
    #[must_use]
    pub fn error(&self, row: &[f64], scratch: &mut Vec<f64>) -> f64 {
        scratch.clear();
        scratch.extend(
            row.iter().zip(&self.mean).zip(&self.std).map(
                |((&value, mean), std)| {
                    if value.is_finite() { (value - mean) / std } else { 0.0 }
                },
            ),
        );
        for component in &self.components {
            let along: f64 = component.iter().zip(&*scratch).map(|(weight, value)| weight * value).sum();
            component.iter().zip(&mut *scratch).for_each(|(weight, value)| *value -= along * weight);
        }
        scratch.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    /// What contradicts itself, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let (features, mut faults) = (self.features.len(), Vec::new());
        if !(2..=MAX_COMPONENT_FEATURES).contains(&features) {
            faults.push(format!("they have {features} features, possible are 2 to {MAX_COMPONENT_FEATURES}"));
        }
        if self.features.iter().collect::<BTreeSet<_>>().len() != features {
            faults.push("a feature is listed twice".into());
        }
        if self.mean.len() != features || self.std.len() != features {
            let (mean, std) = (self.mean.len(), self.std.len());
            faults.push(format!("they have {mean} means and {std} standard deviations for {features} features"));
        }
        if !(1..=features).contains(&self.components.len())
            || self.components.iter().any(|component| component.len() != features)
        {
            faults.push(format!("there must be 1 to {features} components of {features} weights each"));
        }
        let mut numbers = self.mean.iter().chain(&self.std).chain(self.components.iter().flatten());
        if !numbers.all(|number| number.is_finite()) || self.std.iter().any(|std| *std <= 0.0) {
            faults.push("their numbers are not all finite, with standard deviations over 0".into());
        }
        // Only where the sizes are right: this is the work of their square.
        if faults.is_empty() && !self.are_orthonormal() {
            faults.push("the components are not orthonormal".into());
        }
        faults.into_iter().map(|fault| format!("principal components: {fault}")).collect()
    }

    fn are_orthonormal(&self) -> bool {
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        self.components.iter().enumerate().all(|(at, component)| {
            (product(component, component) - 1.0).abs() < TOLERANCE
                && self.components[..at].iter().all(|other| product(component, other).abs() < TOLERANCE)
        })
    }
}
