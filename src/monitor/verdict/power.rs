//! How small a drift the judge still finds.

use std::time::Duration;

use super::{Judge, Pooling, Thresholds};
use crate::monitor::{
    DriftState,
    measures::{self, chi_square_critical, noncentrality, normal_quantile, normal_tail},
};

/// The smallest drift that is found with a given probability at one look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmallestShift {
    /// As the true PSI.
    pub psi: f64,
    /// As the shift of the mean of a normal feature, in its standard deviations, that has this PSI
    /// over as many quantile bins.
    pub sigma: f64,
}

/// The smallest drift of a feature with `bins` bins that is found with probability `power`, at so
/// many rows, by a test with this `alpha` and `floor` of the corrected PSI.
///
/// Where something drifts, `PSI / (1/n + 1/M)` follows noncentral χ² with the true PSI in the
/// same unit as noncentrality (Patnaik, 1949); an approximation that is good for small drifts.
#[must_use]
pub fn smallest_shift(
    bins: usize,
    reference_rows: u64,
    live_rows: u64,
    alpha: f64,
    floor: f64,
    power: f64,
) -> SmallestShift {
    let freedom = bins.saturating_sub(1).max(1);
    let scale = 1.0 / reference_rows as f64 + 1.0 / live_rows as f64;
    // The half row in each bin draws the likelihood ratio, which must be as large too, towards none.
    let drawn = 1.0 + 0.5 * bins as f64 / live_rows as f64;
    let needed = (drawn * chi_square_critical(alpha, freedom)).max(floor / scale + freedom as f64);
    let psi = noncentrality(needed, freedom, power) * scale;
    SmallestShift { psi, sigma: normal_shift(freedom + 1, psi) }
}

impl Judge {
    /// The smallest drift that this judge calls `state` with probability `power` at one of the
    /// looks that come every `look`.
    #[must_use]
    pub fn smallest_shift(
        &self,
        bins: usize,
        [reference_rows, live_rows]: [u64; 2],
        look: Duration,
        state: DriftState,
        power: f64,
    ) -> SmallestShift {
        let Thresholds { warning, drift, .. } = self.thresholds;
        let floor = match state {
            DriftState::TooFewRows | DriftState::Ok => 0.0,
            DriftState::Warning => warning,
            DriftState::Drift => drift,
        };
        smallest_shift(bins, reference_rows, live_rows, self.alpha(look), floor, power)
    }
}

/// The true PSI of live rows that have these shares, over the bins that a verdict on `rows` of them is over, and how many
/// bins that are.
pub(in crate::monitor) fn judged_psi(reference: &[u64], shares: &[f64], rows: u64) -> (f64, usize) {
    // So many rows that chance and the half rows of smoothing are nothing.
    const MANY: f64 = 1e12;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares are from 0 to 1")]
    let live: Vec<_> = shares.iter().map(|share| (share * MANY) as u64).collect();
    let pooling = Pooling::new(reference, rows as f64);
    let (reference, live) = (pooling.of(reference), pooling.of(&live));
    (measures::psi(&reference, &live), reference.len())
}

/// The shift of the mean, in σ, that gives a normal feature this PSI over quantile bins.
fn normal_shift(bins: usize, psi: f64) -> f64 {
    let (mut low, mut high) = (0.0, 8.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if normal_psi(bins, middle) < psi { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

fn normal_psi(bins: usize, shift: f64) -> f64 {
    let p = 1.0 / bins as f64;
    // A bin of no share at all (far out, beyond the last digit) is left out.
    normal_bins(bins, shift).into_iter().filter(|q| *q > 0.0).map(|q| (q - p) * (q / p).ln()).sum()
}

/// The shares of a normal feature in the quantile bins of its reference, once its mean has moved by `shift` σ.
pub(in crate::monitor) fn normal_bins(bins: usize, shift: f64) -> Vec<f64> {
    let above = |edge: usize| match edge {
        0 => 1.0,
        edge if edge == bins => 0.0,
        edge => normal_tail(normal_quantile(edge as f64 / bins as f64) - shift),
    };
    (0..bins).map(|bin| above(bin) - above(bin + 1)).collect()
}
