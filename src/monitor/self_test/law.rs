//! The law that the rows of a feature are drawn from: the finest counts of its profile, as they are and shifted.

use crate::monitor::{
    feature::MonitoredFeature,
    histogram::Layout,
    measures::{normal_quantile, normal_tail},
    profile::Distribution,
    verdict::judged_psi,
};

/// What the rows of a feature are drawn from.
pub(super) struct Law<'a> {
    pub(super) feature: &'a MonitoredFeature,
    /// The reference's rows of the bins that are judged.
    pub(super) reference: Vec<u64>,
    /// The reference's shares of the finest cells of values, in their order.
    pub(super) shares: Vec<f64>,
    /// A normal variable stays under these with the probabilities that values stay under the cells' upper ends.
    ends: Vec<f64>,
    /// The shares of all rows that lack a value, and that are not finite.
    pub(super) missing: f64,
    pub(super) nonfinite: f64,
}

impl<'a> Law<'a> {
    pub(super) fn new(feature: &'a MonitoredFeature) -> Self {
        let profile = &feature.profile;
        let layout = feature.classifier.layout();
        let mut reference = layout.fold(&feature.reference);
        // The reference's pooled rare categories are a bin; an empty one is judged apart.
        if matches!(layout, Layout::Categorical { .. }) && reference.last() == Some(&0) {
            reference.pop();
        }
        let cells = match &profile.distribution {
            Distribution::Numeric { fine: Some(fine), .. } => fine.counts.clone(),
            Distribution::Numeric { counts, .. } => counts.clone(),
            Distribution::Categorical { .. } => reference.clone(),
        };
        let all = cells.iter().sum::<u64>().max(1) as f64;
        let shares: Vec<f64> = cells.iter().map(|rows| *rows as f64 / all).collect();
        let under = shares.iter().scan(0.0, |under, share| {
            *under = f64::min(*under + share, 1.0);
            Some(normal_quantile(*under))
        });
        let mut ends: Vec<f64> = under.collect();
        // Rounding may leave the last a hair under 1.
        if let Some(last) = ends.last_mut() {
            *last = f64::INFINITY;
        }
        let of_all = |rows: u64| rows as f64 / profile.rows.max(1) as f64;
        let (missing, nonfinite) = (of_all(profile.missing), of_all(profile.nonfinite));
        Self { feature, reference, shares, ends, missing, nonfinite }
    }

    /// How many of so many rows have a value, on average, and by how much that varies.
    pub(super) fn values(&self, rows: u64) -> (f64, f64) {
        let share = 1.0 - self.missing - self.nonfinite;
        (rows as f64 * share, (rows as f64 * share * (1.0 - share)).sqrt())
    }

    /// The fewest rows that have `values` values nearly always; `None` where most rows lack one.
    pub(super) fn least_rows(&self, values: u64) -> Option<u64> {
        let share = 1.0 - self.missing - self.nonfinite;
        // Of so many rows the values, less three times their deviation, are as many as are asked for.
        let root = 3.0 * (1.0 - share).sqrt();
        let rows = f64::midpoint(root, (root * root + 4.0 * values as f64).sqrt()).powi(2) / share;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "twice the values, and a few")]
        (share >= 0.5).then_some((rows - 1e-6).ceil() as u64)
    }

    /// The shares of all that a row may have, given those of the values: the cells, missing, and not finite where that is
    /// a number.
    pub(super) fn weights(&self, shares: &[f64]) -> Vec<f64> {
        let present = 1.0 - self.missing - self.nonfinite;
        let mut weights: Vec<f64> = shares.iter().map(|share| share * present).collect();
        match self.feature.classifier.layout() {
            Layout::Numeric { .. } => weights.extend([self.missing, self.nonfinite]),
            layout @ Layout::Categorical { .. } => {
                weights.resize(layout.outside() + 1, 0.0);
                weights.push(self.missing);
            }
        }
        weights
    }

    /// The shares of the cells once all values have moved up by `sigma`.
    pub(super) fn shifted(&self, sigma: f64) -> Vec<f64> {
        let mut above = 1.0;
        let share = |end: &f64| {
            let next = normal_tail(end - sigma);
            let share = f64::max(above - next, 0.0);
            above = next;
            share
        };
        self.ends.iter().map(share).collect()
    }

    /// The true PSI of such a shift, and how many bins it is over at so many values.
    pub(super) fn psi(&self, sigma: f64, values: u64) -> (f64, usize) {
        let shares = self.shifted(sigma);
        let mut by_bin = vec![0.0; self.reference.len()];
        for (cell, share) in shares.into_iter().enumerate() {
            by_bin[self.feature.classifier.bin_of_cell(cell)] += share;
        }
        let grouping = self.feature.classifier.layout().grouping(&self.reference, values);
        judged_psi(&grouping.of(&self.reference), &grouping.of(&by_bin), values)
    }

    /// The shift whose true PSI is `psi`; `None` when even the largest has less.
    pub(super) fn shift_of(&self, psi: f64, values: u64) -> Option<f64> {
        let (mut low, mut high) = (0.0, 8.0);
        if self.psi(high, values).0 < psi {
            return None;
        }
        for _ in 0..30 {
            let middle = f64::midpoint(low, high);
            if self.psi(middle, values).0 < psi { low = middle } else { high = middle }
        }
        Some(f64::midpoint(low, high))
    }
}
