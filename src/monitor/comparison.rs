//! The rows that another version answered, in the bins of the one that it is compared with.

use std::{ops::Range, time::Duration};

use super::{
    Series,
    counts::{Counting, Counts},
    saved::{Part, SavedCounts},
    settings::MonitorSettings,
};
use crate::domain::Version;

/// A canary beside the stable version whose monitor this belongs to.
#[derive(Debug)]
pub(super) struct Comparison {
    version: Version,
    counts: Counts,
    /// The rows of the stable version before the first one of the canary: another time of day is no difference of versions.
    before: Vec<u64>,
}

impl Comparison {
    /// Begins, when the stable version has counted the rows `before`.
    pub(super) fn new(version: Version, before: Vec<u64>, settings: &MonitorSettings) -> Self {
        let counts = Counts::new(before.len(), &settings.windows, settings.sub_windows);
        Self { version, counts, before }
    }

    /// Goes on from what was saved of a comparison; `None` when that is of other cells or windows than these, or
    /// contradicts the rows that the stable version has counted until `now`.
    pub(super) fn restored(
        version: Version,
        (before, counts): (Vec<u64>, SavedCounts),
        totals: &[u64],
        settings: &MonitorSettings,
        now: Duration,
    ) -> Option<Self> {
        let is_earlier =
            before.len() == totals.len() && before.iter().zip(totals).all(|(before, total)| before <= total);
        let comparison = is_earlier.then(|| Self::new(version, before, settings))?;
        comparison.counts.restore(counts, now).then_some(comparison)
    }

    pub(super) fn is_of(&self, version: Version) -> bool {
        self.version == version
    }

    /// Begins to count rows of the other version of the time `now`.
    pub(super) fn begin(&self, now: Duration) -> Counting<'_> {
        self.counts.begin(now)
    }

    /// Rows of the other version in the last `window`, see [`Counts::within_and_runs`].
    pub(super) fn within_and_runs(
        &self,
        window: Duration,
        now: Duration,
        firsts: impl Iterator<Item = usize>,
    ) -> (Vec<u64>, Vec<u64>) {
        self.counts.within_and_runs(window, now, firsts)
    }

    /// Rows of cells of the other version by sub-window, see [`Counts::over_time`].
    pub(super) fn over_time(&self, cells: Range<usize>, window: Duration, now: Duration) -> Vec<Series> {
        self.counts.over_time(cells, window, now)
    }

    /// Of the rows of the stable version in a window, those since the first one of the other; `totals` are all that it has
    /// counted.
    pub(super) fn meanwhile(&self, mut own: Vec<u64>, totals: &[u64]) -> Vec<u64> {
        for ((own, total), before) in own.iter_mut().zip(totals).zip(&self.before) {
            *own = total.saturating_sub(*before).min(*own);
        }
        own
    }

    /// All that is needed to go on later.
    pub(super) fn save(&self) -> [(Part, SavedCounts); 2] {
        let before = SavedCounts { totals: self.before.clone(), rings: Vec::new() };
        [(Part::BeforeCanary(self.version), before), (Part::Canary(self.version), self.counts.save())]
    }
}
