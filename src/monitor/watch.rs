//! What watches the rows of a version: its monitor, or what learns its profile first.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use arc_swap::ArcSwapOption;

use super::{
    Answered, Built, ColumnNames, Contract, MAX_COLUMNS, MonitorSettings, Profile, ProfileBuilder, VersionMonitor,
    Violation, columns::columns_of,
};
use crate::domain::{Elements, Signature, Tensor};

/// The watch over a version. It may begin without a monitor, and get one later.
#[derive(Debug, Default)]
pub struct Watch {
    monitor: ArcSwapOption<VersionMonitor>,
    learning: Mutex<Option<Learning>>,
    is_learner: bool,
}

/// Rows more than these are not learnt from: the first ones are.
const MOST_ROWS: usize = 500_000;
/// Nor are rows beyond so many bytes of memory, about.
const MOST_BYTES: usize = 256 << 20;

/// A profile to be, of the version's own rows.
pub struct Learning {
    builder: ProfileBuilder,
    rows: usize,
    /// What its rows keep in memory, about.
    bytes: usize,
    /// No more rows are learnt from.
    is_full: bool,
    length: Duration,
    /// When it ends; `None` before the first row.
    ends: Option<Duration>,
    signature: Arc<Signature>,
    settings: MonitorSettings,
    /// What becomes of the profile.
    keep: Box<dyn FnOnce(&Profile) + Send>,
}

impl Learning {
    /// Learns from the rows of `length`, from the first on. `keep` is told the profile, on a thread of its own.
    #[must_use]
    pub fn new(
        length: Duration,
        names: ColumnNames,
        signature: Arc<Signature>,
        settings: MonitorSettings,
        keep: impl FnOnce(&Profile) + Send + 'static,
    ) -> Self {
        let (builder, keep) = (ProfileBuilder::new(names), Box::new(keep));
        Self { builder, rows: 0, bytes: 0, is_full: false, length, ends: None, signature, settings, keep }
    }

    fn add(&mut self, answered: Answered<'_>, now: Duration) {
        self.ends.get_or_insert(now + self.length);
        let rows = answered.inputs.first().map_or(1, |input| input.shape().rows());
        let bytes: usize = answered.inputs.iter().chain(answered.outputs).map(kept_bytes).sum();
        if self.is_full || self.rows + rows > MOST_ROWS || self.bytes + bytes > MOST_BYTES {
            self.is_full = true;
            return;
        }
        self.builder.add(answered.inputs, answered.outputs);
        (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
    }

    fn has_ended(&self, now: Duration) -> bool {
        let least = usize::try_from(self.settings.thresholds.min_rows).unwrap_or(usize::MAX);
        self.ends.is_some_and(|ends| ends <= now) && (self.rows >= least.max(1) || self.is_full && self.rows > 0)
    }

    /// The monitor that compares with what was learnt.
    fn finish(self) -> Option<VersionMonitor> {
        let Self { builder, signature, settings, keep, .. } = self;
        let Built { profile, .. } = builder.finish();
        keep(&profile);
        let monitor = VersionMonitor::new(profile, &signature, &settings);
        monitor.inspect_err(|error| tracing::error!(%error, "the learnt profile is of no use")).ok()
    }
}

/// What the rows of a tensor keep in memory, about: of a text itself, of a column a number a row, of a wide row a few.
fn kept_bytes(tensor: &Tensor) -> usize {
    match tensor.elements() {
        Elements::Plain { .. } => {
            tensor.shape().rows() * columns_of(tensor.shape()).min(MAX_COLUMNS) * size_of::<f64>()
        }
        Elements::Text(texts) => texts.iter().map(|text| text.len() + size_of_val(text)).sum(),
    }
}

impl fmt::Debug for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learning").field("rows", &self.rows).field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Watch {
    /// By a monitor from the start; with `None` the version is not watched.
    #[must_use]
    pub fn with(monitor: Option<Arc<VersionMonitor>>) -> Self {
        Self { monitor: ArcSwapOption::new(monitor), ..Self::default() }
    }

    /// By a monitor once its profile is learnt.
    #[must_use]
    pub fn learning(learning: Learning) -> Self {
        Self { learning: Mutex::new(Some(learning)), is_learner: true, ..Self::default() }
    }

    /// The monitor, if there is one by now.
    #[must_use]
    pub fn monitor(&self) -> Option<Arc<VersionMonitor>> {
        self.monitor.load_full()
    }

    /// What the contract of the version says of a request; `None` where it says nothing, or is off.
    #[must_use]
    pub fn violation(&self, inputs: &[Tensor]) -> Option<(Contract, Violation)> {
        // Not `load_full`, whose count all threads of requests would share.
        let monitor = self.monitor.load();
        let monitor = monitor.as_ref().filter(|monitor| monitor.contract() != Contract::Off)?;
        Some((monitor.contract(), monitor.violation(inputs)?))
    }

    /// Whether rows are of any interest.
    #[must_use]
    pub fn wants_rows(&self) -> bool {
        self.is_learner || self.monitor.load().is_some()
    }

    /// Whether rows are told apart by parameters of their requests.
    pub(super) fn wants_parameters(&self) -> bool {
        self.monitor.load().as_ref().is_some_and(|monitor| monitor.has_parameter_segments())
    }

    /// Counts rows, or learns from them. Called by the thread that counts.
    pub(super) fn count(self: &Arc<Self>, answered: Answered<'_>, now: Duration) {
        if let Some(monitor) = &*self.monitor.load() {
            return monitor.count(answered, now);
        }
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        if learning.as_ref().is_some_and(|learning| learning.has_ended(now))
            && let Some(ended) = learning.take()
        {
            self.finish(ended);
        } else if let Some(learning) = &mut *learning {
            learning.add(answered, now);
        }
    }

    /// Makes the profile elsewhere: sorting takes longer than rows may wait.
    fn finish(self: &Arc<Self>, ended: Learning) {
        let watch = Arc::clone(self);
        let made = thread::Builder::new().name("profile".into()).spawn(move || {
            watch.monitor.store(ended.finish().map(Arc::new));
        });
        if let Err(error) = made {
            tracing::error!(%error, "no thread to make the learnt profile on: the version is not monitored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Shape;

    fn text(bytes: usize) -> Tensor {
        Tensor::text("s", Shape::new(vec![1]).unwrap(), vec![vec![b'a'; bytes].into()]).unwrap()
    }

    #[test]
    fn learning_ends_with_its_time_however_large_the_rows_are() {
        let length = Duration::from_secs(60);
        let signature = Arc::new(Signature { inputs: Vec::new(), outputs: Vec::new() });
        let settings = MonitorSettings::default();
        let mut learning = Learning::new(length, ColumnNames::default(), signature, settings, |_| {});
        let large = [text(MOST_BYTES / 3)];
        for second in 0..10 {
            learning.add(Answered::new(&large, &[]), Duration::from_secs(second));
        }
        assert_eq!(learning.rows, 2);
        learning.add(Answered::new(&[text(1)], &[]), Duration::from_secs(10));
        assert_eq!(learning.rows, 2, "the first rows are learnt from, not those that happen to be small");
        assert!(!learning.has_ended(Duration::from_secs(59)));
        assert!(learning.has_ended(length));
    }
}
