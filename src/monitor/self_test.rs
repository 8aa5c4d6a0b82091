//! The monitor's test of itself: what it says of rows that are drawn from the reference, and of such that have shifted.
//!
//! Windows are drawn feature by feature from the finest counts of the profile, as many rows as are in the window now, and
//! judged as live ones are. Promised false alarms are too rare to be met by drawing, so the same windows are
//! also judged by a test that chance passes once in a hundred, without floors: that it does so no more often shows that the law
//! behind the promise holds for these features. A shift moves all values up as if they were those of a normal
//! variable whose mean moves by so many standard deviations; ordered categories likewise.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{
    DriftState, FeatureKind,
    feature::{MonitoredFeature, Standing},
    histogram::Layout,
    measures::{normal_quantile, normal_tail},
    profile::Distribution,
    simulation::Random,
    verdict::{Judge, Tests, Thresholds, judged_psi},
};
use crate::domain::{ModelName, Version};

/// How often chance passes the test that is easy enough to be met by drawing.
pub const CHANCE_ALPHA: f64 = 0.01;

/// The probabilities that a smallest shift is found with.
const POWERS: [f64; 2] = [0.5, 0.8];

/// Judgements in all: less than a second of work.
const WORK: usize = 16_000;
/// Judgements of a feature for each window drawn: two without a shift, one for each power.
const JUDGEMENTS: usize = 2 + POWERS.len();
/// More windows than this say nothing more.
const MOST_DRAWS: usize = 500;

/// What the monitor of a version says of rows drawn from its profile.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    pub model: ModelName,
    pub version: Version,
    pub window: Duration,
    /// Rows of each window drawn: those in the window now, and at least as many as a verdict needs.
    pub rows: u64,
    /// Windows drawn of each feature without a shift, and as many with each shift.
    pub draws: usize,
    /// The promised probability of a false alarm of one test at one look.
    pub alpha: f64,
    pub features: Vec<FeatureSelfTest>,
}

/// What the monitor says of rows drawn from the profile of a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureSelfTest {
    pub tensor: String,
    pub feature: String,
    pub kind: FeatureKind,
    /// Windows without a shift whose state is `warning`.
    pub false_warnings: usize,
    /// Windows without a shift whose state is `drift`.
    pub false_drifts: usize,
    /// The share of windows without a shift that a test with [`CHANCE_ALPHA`] and no floor takes for drift.
    pub chance_rate: f64,
    /// By probability; empty where no shift is ever found, such as of a constant feature.
    pub shifts: Vec<FoundShift>,
}

/// The smallest shift that is found with a given probability at these rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundShift {
    /// The probability that its state is `drift` at one look, by computation.
    pub power: f64,
    /// Its true PSI.
    pub psi: f64,
    /// As a shift of a normal feature's mean, in standard deviations; `None` for categories.
    pub sigma: Option<f64>,
    /// The share of windows drawn with this shift whose state is `drift`.
    pub found: f64,
}

/// Draws and judges.
pub(super) struct Tester<'a> {
    features: &'a [MonitoredFeature],
    judge: &'a Judge,
    easy: Judge,
    min_rows: u64,
    look: Duration,
    draws: usize,
}

impl<'a> Tester<'a> {
    pub(super) fn new(
        features: &'a [MonitoredFeature],
        judge: &'a Judge,
        thresholds: Thresholds,
        look: Duration,
    ) -> Self {
        let most_bins = features.iter().map(|feature| feature.labels.len()).max().unwrap_or(0);
        // With false alarms allowed all the time, the test is as easy as it ever is.
        let easy = Thresholds { warning: 0.0, drift: 0.0, false_alarm_interval: Duration::from_nanos(1), ..thresholds };
        let easy = Judge::new(easy, Tests { features: 1, horizons: 1 }, most_bins);
        let draws = (WORK / (JUDGEMENTS * features.len().max(1))).clamp(1, MOST_DRAWS);
        Self { features, judge, easy, min_rows: thresholds.min_rows.max(1), look, draws }
    }

    pub(super) fn test(&self, (model, version): (&ModelName, Version), window: Duration, rows: u64) -> SelfTest {
        let rows = rows.max(self.min_rows);
        let of_feature = |(at, feature): (u64, &MonitoredFeature)| self.test_feature(feature, rows, at);
        SelfTest {
            model: model.clone(),
            version,
            window,
            rows,
            draws: self.draws,
            alpha: self.judge.alpha(self.look),
            features: (0..).zip(self.features).map(of_feature).collect(),
        }
    }

    fn test_feature(&self, feature: &MonitoredFeature, rows: u64, seed: u64) -> FeatureSelfTest {
        let source = Source::new(feature, rows, self.min_rows);
        let mut random = Random::new(seed + 1);
        let (mut warnings, mut drifts, mut by_chance) = (0, 0, 0);
        for _ in 0..self.draws {
            let window = source.draw(&source.shares, &mut random);
            match self.judged(&source, &window, self.judge).0 {
                DriftState::Ok => {}
                DriftState::Warning => warnings += 1,
                DriftState::Drift => drifts += 1,
            }
            by_chance += usize::from(self.judged(&source, &window, &self.easy).1 != DriftState::Ok);
        }
        FeatureSelfTest {
            tensor: feature.profile.tensor.clone(),
            feature: feature.profile.feature.clone(),
            kind: feature.profile.kind(),
            false_warnings: warnings,
            false_drifts: drifts,
            chance_rate: by_chance as f64 / self.draws as f64,
            shifts: POWERS.iter().filter_map(|power| self.smallest(&source, *power, &mut random)).collect(),
        }
    }

    /// The state of a window drawn, and that of its distribution alone.
    fn judged(&self, source: &Source<'_>, cells: &[u64], judge: &Judge) -> (DriftState, DriftState) {
        let reference = source.feature.reference();
        let live = source.feature.rows(cells);
        let report = source.feature.judge(&reference, &live, judge, self.look, Standing::default());
        (report.state, report.distribution)
    }

    fn smallest(&self, source: &Source<'_>, power: f64, random: &mut Random) -> Option<FoundShift> {
        let (_, bins) = source.psi(0.0);
        if bins < 2 {
            return None;
        }
        let reference_rows = source.reference.iter().sum();
        let rows = [reference_rows, source.values];
        let psi = self.judge.smallest_shift(bins, rows, self.look, DriftState::Drift, power).psi;
        let sigma = source.shift_of(psi)?;
        let shares = source.shifted(sigma);
        let is_found = |_: &usize| {
            let window = source.draw(&shares, random);
            self.judged(source, &window, self.judge).1 == DriftState::Drift
        };
        let found = (0..self.draws).filter(is_found).count() as f64 / self.draws as f64;
        let is_number = matches!(source.feature.profile.distribution, Distribution::Numeric { .. });
        Some(FoundShift { power, psi, sigma: is_number.then_some(sigma), found })
    }
}

/// What the windows of a feature are drawn from.
struct Source<'a> {
    feature: &'a MonitoredFeature,
    /// The reference's rows of the bins that are judged.
    reference: Vec<u64>,
    /// The reference's shares of the finest cells of values, in their order.
    shares: Vec<f64>,
    /// A normal variable stays under these with the probabilities that values stay under the cells' upper ends.
    ends: Vec<f64>,
    /// Rows of each window that have a value, that lack one, and that are not finite.
    values: u64,
    rows: u64,
    missing: f64,
    nonfinite: f64,
}

impl<'a> Source<'a> {
    fn new(feature: &'a MonitoredFeature, rows: u64, min_rows: u64) -> Self {
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
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the rows")]
        let values = ((rows as f64 * (1.0 - missing - nonfinite)).round() as u64).max(min_rows);
        Self { feature, reference, shares, ends, values, rows, missing, nonfinite }
    }

    /// The shares of the cells once all values have moved up by `sigma`.
    fn shifted(&self, sigma: f64) -> Vec<f64> {
        let mut above = 1.0;
        let share = |end: &f64| {
            let next = normal_tail(end - sigma);
            let share = f64::max(above - next, 0.0);
            above = next;
            share
        };
        self.ends.iter().map(share).collect()
    }

    /// The true PSI of such a shift, and how many bins it is over.
    fn psi(&self, sigma: f64) -> (f64, usize) {
        let shares = self.shifted(sigma);
        let mut by_bin = vec![0.0; self.reference.len()];
        for (cell, share) in shares.into_iter().enumerate() {
            by_bin[self.feature.classifier.bin_of_cell(cell)] += share;
        }
        judged_psi(&self.reference, &by_bin, self.values)
    }

    /// The shift whose true PSI is `psi`; `None` when even the largest has less.
    fn shift_of(&self, psi: f64) -> Option<f64> {
        let (mut low, mut high) = (0.0, 8.0);
        if self.psi(high).0 < psi {
            return None;
        }
        for _ in 0..30 {
            let middle = f64::midpoint(low, high);
            if self.psi(middle).0 < psi { low = middle } else { high = middle }
        }
        Some(f64::midpoint(low, high))
    }

    /// A window, by cell of all features; those of others are empty.
    fn draw(&self, shares: &[f64], random: &mut Random) -> Vec<u64> {
        let own = &self.feature.cells;
        let mut cells = vec![0; own.end];
        let drawn = random.multinomial(self.values, shares);
        cells[own.start..own.start + drawn.len()].copy_from_slice(&drawn);
        // The last cells: missing of a category; missing and not finite of a number.
        let missing = random.binomial(self.rows, self.missing);
        match self.feature.classifier.layout() {
            Layout::Categorical { .. } => cells[own.end - 1] = missing,
            Layout::Numeric { .. } => {
                cells[own.end - 2] = missing;
                cells[own.end - 1] = random.binomial(self.rows, self.nonfinite);
            }
        }
        cells
    }
}
