//! A monitor of its own, for rows that are drawn, at a time that is made up.

use std::{sync::Arc, time::Duration};

use super::{law::Law, rows::Rows};
use crate::{
    domain::{Labels, Signature},
    monitor::{
        Answered, DriftState, MonitorSettings, Profile, VersionMonitor,
        histogram::Layout,
        looks::Seen,
        profile::FeatureProfile,
        simulation::Random,
        verdict::{Judge, Tests},
    },
};

/// Rows that are counted at once, as if of one request.
const BLOCK: u64 = 4096;
/// A window slides over the rows in so many steps.
const STEPS: u64 = 4;

/// What a replay is of, and how it is judged.
#[derive(Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) signature: &'a Signature,
    pub(super) settings: &'a MonitorSettings,
    pub(super) window: Duration,
    /// What the budget of false alarms is shared out among.
    pub(super) tests: Tests,
}

impl Stage<'_> {
    /// The steps in which a window slides over its rows: whole sub-windows, and not more often than it is looked at.
    pub(super) fn steps(self) -> u64 {
        let (look, parts) = (self.settings.look_interval(self.window), self.settings.sub_windows.max(1) as u64);
        let fits = |steps: u64| parts.is_multiple_of(steps) && self.step(steps) >= look;
        (1..=STEPS).rev().find(|steps| fits(*steps)).unwrap_or(1)
    }

    fn step(self, steps: u64) -> Duration {
        self.window / u32::try_from(steps).unwrap_or(u32::MAX)
    }
}

/// Counts drawn rows in a monitor that nobody else sees, and looks at them.
pub(super) struct Replay {
    monitor: VersionMonitor,
    rows: Rows,
    window: Duration,
    step: Duration,
    steps: u64,
    now: Duration,
}

impl Replay {
    /// Of rows that are drawn from these laws.
    pub(super) fn new(laws: &[Law<'_>], stage: Stage<'_>, random: Random) -> Self {
        Self::judging(laws, stage, random, |_| {})
    }

    /// The same, with profiles to compare with that are changed first.
    pub(super) fn judging(
        laws: &[Law<'_>],
        stage: Stage<'_>,
        random: Random,
        change: impl Fn(&mut [FeatureProfile]),
    ) -> Self {
        let (rows, mut features, signature) = Rows::new(laws, stage.signature, random);
        change(&mut features);
        let profile = Profile { format: Profile::FORMAT, rows: 0, learnt_from: None, features, components: None };
        let settings = MonitorSettings {
            windows: vec![stage.window],
            segments: Vec::new(),
            labels: Labels::default(),
            directory: None,
            ..stage.settings.clone()
        };
        let monitor = VersionMonitor::with_tests(profile, &signature, &settings, stage.tests)
            .expect("the features are those of a monitor, and the tensors were made for them");
        let steps = stage.steps();
        // Some time after the beginning, as ever.
        Self { monitor, rows, window: stage.window, step: stage.step(steps), steps, now: stage.window }
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Draws rows with these shares of cells from now on, feature by feature.
    pub(super) fn shift(&mut self, laws: &[Law<'_>], shares: &[Vec<f64>]) {
        self.rows.shift(laws, shares);
    }

    /// Counts so many rows one step later.
    pub(super) fn count(&mut self, rows: u64) {
        self.now += self.step;
        let mut left = rows;
        while left > 0 {
            let block = left.min(BLOCK);
            let (inputs, outputs) = self.rows.draw(usize::try_from(block).unwrap_or(usize::MAX));
            self.monitor.count(Answered::new(&inputs, &outputs), self.now);
            left -= block;
        }
    }

    /// What a look finds now.
    pub(super) fn look(&self) -> Option<Arc<Seen>> {
        drop(self.monitor.look(self.now));
        self.monitor.latest().first().cloned()
    }

    /// What another judge says of the distributions of the window now, feature by feature.
    pub(super) fn states_by<'a>(&'a self, judge: &'a Judge) -> impl Iterator<Item = DriftState> + 'a {
        self.monitor.distributions_by(judge, self.window, self.now)
    }

    /// By feature, the rows that were counted in other cells than they were drawn from, or not at all.
    pub(super) fn miscounted(&self) -> Vec<u64> {
        let (totals, features) = (self.monitor.totals(), self.monitor.features());
        let mut miscounted = vec![0; features.len()];
        for (place, drawn) in self.rows.drawn() {
            let counted = &totals[features[place].cells.clone()];
            let expected = match features[place].classifier.layout() {
                // No value is drawn that is below or above.
                Layout::Numeric { .. } => {
                    let (values, others) = drawn.split_at(drawn.len().saturating_sub(2));
                    [values, &[0, 0], others].concat()
                }
                Layout::Categorical { .. } => drawn.to_vec(),
            };
            let lacking = expected.iter().zip(counted).map(|(expected, counted)| expected.saturating_sub(*counted));
            let beyond = expected.iter().zip(counted).map(|(expected, counted)| counted.saturating_sub(*expected));
            miscounted[place] = lacking.sum::<u64>().max(beyond.sum());
        }
        miscounted
    }

    /// Lets the rows leave the window, and with them what was found of them.
    pub(super) fn pass(&mut self) {
        self.now += self.window * 2;
        drop(self.monitor.look(self.now));
    }
}
