//! The monitor's own thread: takes what was answered, and counts it.
//!
//! Requests leave their rows in the [`Intake`] and go on. What the thread cannot keep up with is
//! dropped, and the drop is counted: the monitor never slows a request down.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    Answered, Watch,
    intake::{Intake, Waiting},
    lot::Lot,
    row_batch::{Origin, RowBatch},
};
use crate::domain::{Tensor, Version};

/// The time since the Unix epoch, as of the start of the program: it never goes back within a run.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The tensors of an answered request, and who counts them.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// What watches the version that answered.
    pub watch: &'a Arc<Watch>,
    /// What watches the stable version, where a canary answered: it counts what it is compared with.
    pub stable: Option<&'a Arc<Watch>>,
    /// The version that answered.
    pub version: Version,
    pub inputs: &'a Arc<[Tensor]>,
    pub outputs: &'a Arc<[Tensor]>,
    /// Parameters of the request that rows are told apart by.
    pub parameters: &'a [(Arc<str>, String)],
}

/// The thread that counts. It ends when it is shut down, or when the last handle is gone.
#[derive(Debug)]
pub struct Monitor {
    handle: MonitorHandle,
    thread: JoinHandle<()>,
}

/// Offers observations to the monitor. Cheap to clone.
#[derive(Clone)]
pub struct MonitorHandle(Arc<Ending>);

/// Ends the thread with the last handle.
struct Ending(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    intake: Intake,
    left_out_rows: AtomicU64,
    must_stop: AtomicBool,
    /// Are answered when everything offered before is counted; `None` once the thread has ended.
    barriers: Mutex<Option<Vec<SyncSender<()>>>>,
}

impl Monitor {
    /// Starts the thread. `clock` tells it when it counts what. Of more than `max_rows_per_second` rows (0: no bound) only
    /// as many are counted, drawn by lot.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(clock: Clock, max_rows_per_second: u64) -> std::io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            intake: Intake::new(threads),
            left_out_rows: AtomicU64::new(0),
            must_stop: AtomicBool::new(false),
            barriers: Mutex::new(Some(Vec::new())),
        });
        let spare = (0..shared.intake.shards()).map(|_| Vec::new()).collect();
        let mut worker = Worker { shared: Arc::clone(&shared), clock, lot: Lot::new(max_rows_per_second), spare };
        let thread = thread::Builder::new().name("monitor".into()).spawn(move || worker.run())?;
        shared.intake.counted_by(thread.thread().clone());
        Ok(Self { handle: MonitorHandle(Arc::new(Ending(shared))), thread })
    }

    #[must_use]
    pub fn handle(&self) -> MonitorHandle {
        self.handle.clone()
    }

    /// Counts what is waiting and ends the thread. What is offered later is dropped.
    pub fn shutdown(self) {
        self.handle.0.0.stop();
        // An error means that the thread panicked, which it has told of.
        let _ = self.thread.join();
    }
}

impl MonitorHandle {
    /// Hands over an observation. Never waits: what does not fit is dropped and counted.
    pub fn offer(&self, observation: Observation<'_>) {
        self.0.0.intake.offer(observation);
    }

    /// Waits until everything offered before is counted, at most `timeout`; true when it is.
    ///
    /// Blocks the thread: not to be called by one that serves requests.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        let (done, settled) = sync_channel(1);
        let Some(()) = self.0.0.barriers().as_mut().map(|barriers| barriers.push(done)) else { return false };
        self.0.0.intake.wake();
        settled.recv_timeout(timeout).is_ok()
    }

    /// Rows that were not counted since the start: the budget of rows for a second was used up, and they were not drawn.
    #[must_use]
    pub fn left_out_rows(&self) -> u64 {
        self.0.0.left_out_rows.load(Ordering::Relaxed)
    }

    /// Observations that were not counted since the start: there was no room, or counting failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.0.intake.dropped()
    }
}

impl fmt::Debug for MonitorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorHandle").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Shared {
    fn stop(&self) {
        self.must_stop.store(true, Ordering::Release);
        self.intake.wake();
    }

    fn barriers(&self) -> MutexGuard<'_, Option<Vec<SyncSender<()>>>> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the thread looks away while there is traffic: to be woken for every request would cost
/// the requests more than the counting costs this thread, and rows are counted the faster the more there are.
const NAP: Duration = Duration::from_millis(10);

struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    lot: Lot,
    /// By shard, batches to be filled while others are counted.
    spare: Vec<Vec<RowBatch>>,
}

impl Worker {
    /// Naps for as long as each nap ends with something to do, then sleeps until there is.
    fn run(&mut self) {
        while !self.shared.must_stop.load(Ordering::Acquire) {
            if self.round() {
                thread::park_timeout(NAP);
                continue;
            }
            // Batches without rows keep monitors of versions alive that may be gone by tomorrow.
            self.spare.iter_mut().for_each(Vec::clear);
            self.shared.intake.go_to_sleep();
            if !self.round() && !self.shared.must_stop.load(Ordering::Acquire) {
                thread::park();
            }
            self.shared.intake.wake_up();
        }
    }

    /// Counts all that was offered before; false when that was nothing.
    fn round(&mut self) -> bool {
        let barriers = self.shared.barriers().as_mut().map(std::mem::take).unwrap_or_default();
        let mut has_counted = !barriers.is_empty();
        for shard in 0..self.spare.len() {
            let waiting = self.shared.intake.take(shard, std::mem::take(&mut self.spare[shard]));
            has_counted |= self.count_all(shard, waiting);
        }
        for barrier in barriers {
            // Whoever asked may have given up.
            let _ = barrier.send(());
        }
        has_counted
    }

    fn count_all(&mut self, shard: usize, waiting: Waiting) -> bool {
        let Waiting { batches, shared, .. } = waiting;
        let mut has_counted = !shared.is_empty();
        for one in shared {
            let answered = Answered { parameters: &one.origin.parameters, ..Answered::new(&one.inputs, &one.outputs) };
            self.count(&one.origin, answered, 1);
            self.shared.intake.release(one);
        }
        for mut batch in batches.into_iter().filter(|batch| batch.rows() > 0) {
            has_counted = true;
            let requests = batch.requests();
            batch.drain(|origin, answered| self.count(origin, answered, requests));
            self.spare[shard].push(batch);
        }
        has_counted
    }

    /// Counts rows that came with so many requests.
    fn count(&mut self, origin: &Origin, answered: Answered<'_>, requests: u64) {
        // The counters are atomics and the windows recover, so nothing is left half-made.
        let counted = catch_unwind(AssertUnwindSafe(|| {
            let now = (self.clock)();
            let rows = answered.inputs.first().map_or(1, |input| input.shape().rows());
            let chosen = self.lot.draw(rows, now);
            if let Some(chosen) = &chosen {
                let left_out = chosen.iter().filter(|chosen| !**chosen).count() as u64;
                self.shared.left_out_rows.fetch_add(left_out, Ordering::Relaxed);
            }
            let answered = Answered { chosen: chosen.as_deref(), ..answered };
            origin.watch.count(answered, now);
            if let Some(stable) = origin.stable.as_ref().and_then(|stable| stable.monitor()) {
                stable.count_canary(origin.version, answered, now);
            }
        }));
        if counted.is_err() {
            self.shared.intake.drop_requests(requests);
            tracing::error!(requests, "the drift monitor failed to count rows");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.intake.close();
        self.round();
        *self.shared.barriers() = None;
    }
}

#[cfg(test)]
pub(super) mod tests;
