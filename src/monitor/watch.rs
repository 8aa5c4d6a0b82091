//! What watches the rows of a version: its monitor, or what learns its profile first, or what waits for one.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwapOption;

use super::{Answered, Contract, Learning, LearningProgress, VersionMonitor, Violation, learning};
use crate::domain::Tensor;

/// The watch over a version. It may begin without a monitor, and get one later.
#[derive(Debug, Default)]
pub struct Watch {
    monitor: ArcSwapOption<VersionMonitor>,
    learning: Mutex<Option<Learning>>,
    is_learner: bool,
    /// What came of the learning; set while it is locked.
    learnt: Mutex<Option<Learnt>>,
    awaited: Option<Awaited>,
}

/// What came of a learning that has all its rows.
#[derive(Debug, Clone, Copy)]
enum Learnt {
    /// The monitor is being made or there.
    Made(LearningProgress),
    Failed,
}

/// Why a version has no monitor though it has learnt, or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// Rows, time, or a moment in which the monitor is made.
    Learning(LearningProgress),
    /// What was learnt is no profile of any use; the log says why.
    Failed,
}

/// Makes the monitor of a version, where it can be made by now.
pub type MakeMonitor = Box<dyn Fn() -> Option<VersionMonitor> + Send + Sync>;

/// A monitor that is made once the version has answered a row: what it is compared with is what was live until then.
struct Awaited {
    make: MakeMonitor,
    has_row: AtomicBool,
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").field("has_row", &self.has_row).finish_non_exhaustive()
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

    /// By a monitor that `make` gives at one of the looks after the first row.
    #[must_use]
    pub fn awaiting(make: MakeMonitor) -> Self {
        Self { awaited: Some(Awaited { make, has_row: AtomicBool::new(false) }), ..Self::default() }
    }

    /// Makes the monitor that is waited for, if there is a row to be compared and it can be made. To be called now and then,
    /// by one thread.
    pub fn look_for_monitor(&self) {
        let awaited = self.awaited.as_ref().filter(|awaited| awaited.has_row.load(Ordering::Relaxed));
        if let Some(awaited) = awaited.filter(|_| self.monitor.load().is_none()) {
            self.monitor.store((awaited.make)().map(Arc::new));
        }
    }

    /// The longest window that the version's rows are compared over, or will be; `None` where that is not known.
    #[must_use]
    pub fn longest_window(&self) -> Option<Duration> {
        match self.monitor() {
            Some(monitor) => monitor.window_lengths().iter().max().copied(),
            None => self.lock().as_ref().and_then(Learning::longest_window),
        }
    }

    /// Whether there is no monitor yet, and one is waited for.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.awaited.is_some() && self.monitor.load().is_none()
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
        let waits = |awaited: &Awaited| !awaited.has_row.load(Ordering::Relaxed);
        self.is_learner || self.monitor.load().is_some() || self.awaited.as_ref().is_some_and(waits)
    }

    /// Whether rows are told apart by parameters of their requests.
    pub(super) fn wants_parameters(&self) -> bool {
        self.monitor.load().as_ref().is_some_and(|monitor| monitor.has_parameter_segments())
    }

    /// What a version lacks that learns its profile; `None` when it does not, and of no meaning when there is a monitor.
    #[must_use]
    pub fn lacking(&self, now: Duration) -> Option<Lacking> {
        let learning = self.lock();
        if let Some(learning) = &*learning {
            return Some(Lacking::Learning(learning.progress(now)));
        }
        Some(match (*self.learnt())? {
            Learnt::Made(progress) => Lacking::Learning(progress),
            Learnt::Failed => Lacking::Failed,
        })
    }

    /// How far the profile is learnt; `None` when there is one, or none will be.
    #[must_use]
    pub fn learning_progress(&self, now: Duration) -> Option<LearningProgress> {
        match self.lacking(now)? {
            Lacking::Learning(progress) if self.monitor.load().is_none() => Some(progress),
            _ => None,
        }
    }

    /// Goes on learning, with the settings of another learning; false when that is of another model or other columns, or
    /// nothing is learnt.
    #[must_use]
    pub fn goes_on_learning(&self, other: &Learning) -> bool {
        self.lock().as_mut().is_some_and(|learning| learning.adopt_settings(other))
    }

    /// Learns no more, and saves nothing of it.
    pub fn stop_learning(&self) {
        self.lock().take();
    }

    /// Saves the rows that were learnt from since the last time.
    ///
    /// # Errors
    /// Those of the file system; the rows are saved the next time.
    pub fn save_learning(&self) -> io::Result<()> {
        learning::save(&self.learning)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Learning>> {
        self.learning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learnt(&self) -> MutexGuard<'_, Option<Learnt>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts rows, or learns from them. Called by the thread that counts.
    pub(super) fn count(self: &Arc<Self>, answered: Answered<'_>, now: Duration) {
        if let Some(monitor) = &*self.monitor.load() {
            return monitor.count(answered, now);
        }
        if let Some(awaited) = &self.awaited {
            awaited.has_row.store(true, Ordering::Relaxed);
            return;
        }
        let mut learning = self.lock();
        if learning.as_ref().is_some_and(|learning| learning.has_ended(now))
            && let Some(ended) = learning.take()
        {
            *self.learnt() = Some(Learnt::Made(ended.progress(now)));
            self.finish(ended);
        } else if let Some(learning) = &mut *learning {
            learning.add(answered, now);
        }
    }

    /// Makes the profile elsewhere: sorting takes longer than rows may wait.
    fn finish(self: &Arc<Self>, ended: Learning) {
        let watch = Arc::clone(self);
        let made = thread::Builder::new().name("profile".into()).spawn(move || match ended.finish() {
            Some(monitor) => watch.monitor.store(Some(Arc::new(monitor))),
            None => *watch.learnt() = Some(Learnt::Failed),
        });
        if let Err(error) = made {
            tracing::error!(%error, "no thread to make the learnt profile on: the version is not monitored");
            *self.learnt() = Some(Learnt::Failed);
        }
    }
}
