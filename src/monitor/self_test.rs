//! The monitor's test of itself: what it says of rows that are drawn from the reference, and of such that have shifted.
//!
//! Rows are drawn from the profile, value by value ([`rows`], [`values`]), and counted by a monitor of the same profile that
//! is the test's own, at a time that is made up ([`replay`]): by the code that counts live rows, in windows that slide
//! over them, under looks like any. Features are drawn independently, and those that are derived of a row
//! (a norm, a length, what several inputs have in common) as the numbers that they are: a profile does not
//! say which rows they came of.
//!
//! Promised false alarms are too rare to be met by drawing, so the same windows are
//! also judged by a test that chance passes once in a hundred, without floors: that it does so no more often shows that the law
//! behind the promise holds for these features. A shift moves all values up as if they were those of a normal
//! variable whose mean moves by so many standard deviations; ordered categories likewise.

mod law;
mod replay;
mod rows;
#[cfg(test)]
mod tests;
mod values;

use std::time::Duration;

use law::Law;
use replay::{Replay, Stage};

use super::{
    DriftState, FeatureKind, MonitorSettings,
    feature::MonitoredFeature,
    profile::Distribution,
    simulation::Random,
    verdict::{Judge, Tests, Thresholds},
};
use crate::domain::{ModelName, Signature, Version};

/// How often chance passes the test that is easy enough to be met by drawing.
pub const CHANCE_ALPHA: f64 = 0.01;

/// The probabilities that a smallest shift is found with.
const POWERS: [f64; 2] = [0.5, 0.8];

/// What a test may cost: one to two seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Values drawn and counted.
    pub(super) values: u64,
    /// Verdicts on a feature.
    pub(super) verdicts: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self { values: 20_000_000, verdicts: 40_000 }
    }
}

/// More windows than this say nothing more.
const MOST_DRAWS: u64 = 100;
/// With fewer windows than this it is better to draw fewer rows.
const LEAST_DRAWS: u64 = 20;
/// Features that are replayed at once: bounds the memory.
const GROUP: usize = 128;

/// What the monitor of a version says of rows drawn from its profile.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    pub model: ModelName,
    pub version: Version,
    pub window: Duration,
    /// Rows in the window now.
    pub live_rows: u64,
    /// Rows of each window drawn: those in the window now, but at least as many as a verdict needs, and no more than there
    /// is time for.
    pub rows: u64,
    /// Looks at each feature without a shift, at windows that slide by a part of their rows.
    pub looks: u64,
    /// Windows drawn of each feature with each shift.
    pub draws: u64,
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
    /// Values that were counted in another bin than they were drawn from, or not at all; 0 unless the monitor is broken, or
    /// the profile contradicts itself.
    pub miscounted: u64,
    /// Looks without a shift that found the state `warning`.
    pub false_warnings: u64,
    /// Looks without a shift that found the state `drift`.
    pub false_drifts: u64,
    /// The share of looks without a shift at which a test with [`CHANCE_ALPHA`] and no floor finds drift.
    pub chance_rate: f64,
    /// By probability; empty where no shift is ever found, such as of a constant feature, or of one with too few values for
    /// a verdict.
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

/// Draws, counts and judges.
pub(super) struct Tester<'a> {
    features: &'a [MonitoredFeature],
    judge: &'a Judge,
    easy: Judge,
    stage: Stage<'a>,
    work: Work,
}

/// How much is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    rows: u64,
    draws: u64,
}

impl Size {
    /// As many rows as there are and at least the least, and as many windows of them as there is time for; where that is
    /// too few, more windows of fewer rows.
    fn new(work: Work, features: u64, steps: u64, [live_rows, least_rows]: [u64; 2]) -> Self {
        let (features, shifts) = (features.max(1), POWERS.len() as u64);
        // Without a shift two verdicts at a look, with each shift one, and one on the empty window before.
        let most = (work.verdicts / (features * (2 * steps + 2 * shifts))).clamp(1, MOST_DRAWS);
        let (wanted, values) = (live_rows.max(least_rows), work.values / ((1 + shifts) * features));
        let draws = (values / wanted.max(1)).clamp(LEAST_DRAWS.min(most), most);
        let rows = wanted.min((values / draws).max(least_rows));
        Self { rows: rows.next_multiple_of(steps), draws }
    }
}

impl<'a> Tester<'a> {
    pub(super) fn new(
        features: &'a [MonitoredFeature],
        judge: &'a Judge,
        (signature, settings): (&'a Signature, &'a MonitorSettings),
        window: Duration,
        work: Work,
    ) -> Self {
        let most_bins = features.iter().map(|feature| feature.labels.len()).max().unwrap_or(0);
        // With false alarms allowed all the time, the test is as easy as it ever is.
        let thresholds = settings.thresholds;
        let easy = Thresholds { warning: 0.0, drift: 0.0, false_alarm_interval: Duration::from_nanos(1), ..thresholds };
        let easy = Judge::new(easy, Tests { features: 1, horizons: 1 }, most_bins);
        let tests = Tests { features: features.len(), horizons: settings.windows.len() };
        let stage = Stage { signature, settings, window: window.max(Duration::from_millis(1)), tests };
        Self { features, judge, easy, stage, work }
    }

    pub(super) fn test(&self, (model, version): (&ModelName, Version), live_rows: u64) -> SelfTest {
        let laws: Vec<_> = self.features.iter().map(Law::new).collect();
        let size = self.size(&laws, live_rows);
        let groups = (1..).zip(laws.chunks(GROUP));
        let Size { rows, draws } = size;
        SelfTest {
            model: model.clone(),
            version,
            window: self.stage.window,
            live_rows,
            rows,
            looks: draws * self.stage.steps(),
            draws,
            alpha: self.judge.alpha(self.look_interval()),
            features: groups.flat_map(|(seed, laws)| self.test_group(laws, size, seed)).collect(),
        }
    }

    fn size(&self, laws: &[Law<'_>], live_rows: u64) -> Size {
        let least = laws.iter().filter_map(|law| law.least_rows(self.min_rows())).max();
        let least = least.unwrap_or(0).max(self.min_rows());
        Size::new(self.work, laws.len() as u64, self.stage.steps(), [live_rows, least])
    }

    fn test_group(&self, laws: &[Law<'_>], size: Size, seed: u64) -> Vec<FeatureSelfTest> {
        let mut replay = Replay::new(laws, self.stage, Random::new(seed));
        let mut tests = self.without_shift(&mut replay, laws, size);
        for power in POWERS {
            self.with_shift(&mut replay, laws, size, power, &mut tests);
        }
        for (test, miscounted) in tests.iter_mut().zip(replay.miscounted()) {
            test.miscounted = miscounted;
        }
        tests
    }

    /// What looks find while rows of the reference go by.
    fn without_shift(&self, replay: &mut Replay, laws: &[Law<'_>], Size { rows, draws }: Size) -> Vec<FeatureSelfTest> {
        let steps = replay.steps();
        let looks = draws * steps;
        let test = |law: &Law<'_>| FeatureSelfTest {
            tensor: law.feature.profile.tensor.clone(),
            feature: law.feature.profile.feature.clone(),
            kind: law.feature.profile.kind(),
            miscounted: 0,
            false_warnings: 0,
            false_drifts: 0,
            chance_rate: 0.0,
            shifts: Vec::new(),
        };
        let mut tests: Vec<_> = laws.iter().map(test).collect();
        let mut by_chance = vec![0_u64; laws.len()];
        // The window is filled first.
        (1..steps).for_each(|_| replay.count(rows / steps));
        for _ in 0..looks {
            replay.count(rows / steps);
            let Some(seen) = replay.look() else { continue };
            for (test, judged) in tests.iter_mut().zip(&seen.features) {
                match judged.state {
                    DriftState::TooFewRows | DriftState::Ok => {}
                    DriftState::Warning => test.false_warnings += 1,
                    DriftState::Drift => test.false_drifts += 1,
                }
            }
            for (by_chance, state) in by_chance.iter_mut().zip(replay.states_by(&self.easy)) {
                *by_chance += u64::from(state.is_alarm());
            }
        }
        for (test, by_chance) in tests.iter_mut().zip(by_chance) {
            test.chance_rate = by_chance as f64 / looks.max(1) as f64;
        }
        tests
    }

    /// How often windows are found whose features have moved by the smallest shift that is found with this probability.
    fn with_shift(
        &self,
        replay: &mut Replay,
        laws: &[Law<'_>],
        Size { rows, draws }: Size,
        power: f64,
        tests: &mut [FeatureSelfTest],
    ) {
        let shifts: Vec<_> = laws.iter().map(|law| self.smallest(law, rows, power)).collect();
        if shifts.iter().all(Option::is_none) {
            return;
        }
        let sigma = |shift: &Option<(f64, f64)>| shift.map_or(0.0, |(_, sigma)| sigma);
        let shares: Vec<_> = laws.iter().zip(&shifts).map(|(law, shift)| law.shifted(sigma(shift))).collect();
        replay.shift(laws, &shares);
        let (steps, mut found) = (replay.steps(), vec![0_u64; laws.len()]);
        for _ in 0..draws {
            replay.pass();
            (0..steps).for_each(|_| replay.count(rows / steps));
            let Some(seen) = replay.look() else { continue };
            for (found, judged) in found.iter_mut().zip(&seen.features) {
                *found += u64::from(judged.distribution == DriftState::Drift);
            }
        }
        for (((test, law), shift), found) in tests.iter_mut().zip(laws).zip(shifts).zip(found) {
            let is_number = matches!(law.feature.profile.distribution, Distribution::Numeric { .. });
            test.shifts.extend(shift.map(|(psi, sigma)| FoundShift {
                power,
                psi,
                sigma: is_number.then_some(sigma),
                found: found as f64 / draws as f64,
            }));
        }
    }

    /// The smallest shift that is found with this probability: its true PSI, and by how much it moves a normal variable.
    fn smallest(&self, law: &Law<'_>, rows: u64, power: f64) -> Option<(f64, f64)> {
        let (mean, deviation) = law.values(rows);
        if mean - 3.0 * deviation < self.min_rows() as f64 {
            // There would be no verdict on many of the windows, whatever they hold.
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the rows")]
        let values = mean.round() as u64;
        let (_, bins) = law.psi(0.0, values);
        if bins < 2 {
            return None;
        }
        let reference_rows = law.reference.iter().sum();
        let look = self.look_interval();
        let psi = self.judge.smallest_shift(bins, [reference_rows, values], look, DriftState::Drift, power).psi;
        Some((psi, law.shift_of(psi, values)?))
    }

    fn min_rows(&self) -> u64 {
        self.stage.settings.thresholds.min_rows.max(1)
    }

    fn look_interval(&self) -> Duration {
        self.stage.settings.look_interval(self.stage.window)
    }
}
