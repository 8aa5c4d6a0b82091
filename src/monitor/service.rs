//! The monitor's own thread: takes what was answered, and counts it.
//!
//! Requests hand over their tensors (shared, not copied) and go on. What the thread cannot keep up with is
//! dropped, and the drop is counted: the monitor never slows a request down.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Answered, Watch, lot::Lot};
use crate::domain::{Elements, Tensor, Version};

/// The time since some moment that is the same for all runs of the program; it never goes back within a run.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Observations that may wait to be counted.
const MAX_WAITING: usize = 16_384;
/// Bytes of tensors that may wait to be counted.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The tensors of an answered request, and who counts them.
#[derive(Debug, Clone)]
pub struct Observation {
    /// What watches the version that answered.
    pub watch: Arc<Watch>,
    /// What watches the stable version, where a canary answered: it counts what it is compared with.
    pub stable: Option<Arc<Watch>>,
    /// The version that answered.
    pub version: Version,
    pub inputs: Arc<[Tensor]>,
    pub outputs: Arc<[Tensor]>,
    /// Parameters of the request that rows are told apart by.
    pub parameters: Vec<(Arc<str>, String)>,
}

#[cfg(test)]
impl Observation {
    /// Of the stable version, with no outputs.
    pub(super) fn of(monitor: Arc<super::VersionMonitor>, inputs: Arc<[Tensor]>) -> Self {
        // No version is 0.
        let version = Version::new(1).expect("not 0");
        let (watch, outputs) = (Arc::new(Watch::with(Some(monitor))), Arc::from([]));
        Self { watch, stable: None, version, inputs, outputs, parameters: Vec::new() }
    }
}

/// The thread that counts. It ends when it is shut down, or when the last handle is gone.
#[derive(Debug)]
pub struct Monitor {
    handle: MonitorHandle,
    thread: JoinHandle<()>,
}

/// Offers observations to the monitor. Cheap to clone.
#[derive(Clone)]
pub struct MonitorHandle {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
    left_out_rows: AtomicU64,
}

enum Message {
    Observation(Observation, usize),
    /// Answered when everything before it is counted.
    Barrier(SyncSender<()>),
    Stop,
}

impl Monitor {
    /// Starts the thread. `clock` tells it when it counts what. Of more than `max_rows_per_second` rows (0: no bound) only
    /// as many are counted, drawn by lot.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(clock: Clock, max_rows_per_second: u64) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let shared = Arc::new(Shared::default());
        let handle = MonitorHandle { sender, shared: Arc::clone(&shared) };
        let mut worker = Worker { shared, clock, lot: Lot::new(max_rows_per_second) };
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(move || worker.run(&receiver))?;
        Ok(Self { handle, thread })
    }

    #[must_use]
    pub fn handle(&self) -> MonitorHandle {
        self.handle.clone()
    }

    /// Counts what is waiting and ends the thread. What is offered later is dropped.
    pub fn shutdown(self) {
        // A full channel drains, so this waits but does not block for ever. An error means that the
        // thread has ended already.
        let _ = self.handle.sender.send(Message::Stop);
        let _ = self.thread.join();
    }
}

impl MonitorHandle {
    /// Hands over an observation. Never waits: what does not fit is dropped and counted.
    pub fn offer(&self, observation: Observation) {
        let bytes = weight(&observation);
        let before = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is too large for any room is let into an empty one.
        let fits = before == 0 || before.saturating_add(bytes) <= MAX_WAITING_BYTES;
        if !fits || self.sender.try_send(Message::Observation(observation, bytes)).is_err() {
            self.shared.release(bytes);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything offered before is counted, at most `timeout`; true when it is.
    ///
    /// Blocks the thread: not to be called by one that serves requests.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        /// How long to wait for room in a full channel before looking again.
        const PAUSE: Duration = Duration::from_millis(1);
        let begun = Instant::now();
        let left = || timeout.saturating_sub(begun.elapsed());
        let (done, settled) = sync_channel(1);
        let mut barrier = Message::Barrier(done);
        loop {
            match self.sender.try_send(barrier) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if left().is_zero() => return false,
                Err(TrySendError::Full(again)) => barrier = again,
            }
            std::thread::sleep(PAUSE);
        }
        settled.recv_timeout(left()).is_ok()
    }

    /// Rows that were not counted since the start: the budget of rows for a second was used up, and they were not drawn.
    #[must_use]
    pub fn left_out_rows(&self) -> u64 {
        self.shared.left_out_rows.load(Ordering::Relaxed)
    }

    /// Observations that were not counted since the start: there was no room, or counting failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for MonitorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorHandle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Shared {
    fn release(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// How long the thread looks away while there is traffic: to be woken for every request would cost
/// the requests more than the counting costs this thread.
const NAP: Duration = Duration::from_millis(2);

struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    lot: Lot,
}

impl Worker {
    fn run(&mut self, receiver: &Receiver<Message>) {
        // Asleep until the first message; then naps, for as long as each nap ends with something to do.
        while let Ok(first) = receiver.recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                if !self.take(message) {
                    return;
                }
                next = receiver.try_recv().ok().or_else(|| {
                    std::thread::sleep(NAP);
                    receiver.try_recv().ok()
                });
            }
        }
    }

    /// Does what a message says; false when it says to stop.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Observation(observation, bytes) => {
                // The counters are atomics and the windows recover, so nothing is left half-made.
                let counted = catch_unwind(AssertUnwindSafe(|| {
                    let now = (self.clock)();
                    let rows = observation.inputs.first().map_or(1, |input| input.shape().rows());
                    let chosen = self.lot.draw(rows, now);
                    if let Some(chosen) = &chosen {
                        let left_out = chosen.iter().filter(|chosen| !**chosen).count() as u64;
                        self.shared.left_out_rows.fetch_add(left_out, Ordering::Relaxed);
                    }
                    count(&observation, chosen.as_deref(), now);
                }));
                drop(observation);
                self.shared.release(bytes);
                if counted.is_err() {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("the drift monitor failed to count a request");
                }
            }
            // Whoever asked may have given up.
            Message::Barrier(done) => drop(done.send(())),
            Message::Stop => return false,
        }
        true
    }
}

fn count(observation: &Observation, chosen: Option<&[bool]>, now: Duration) {
    let Observation { watch, stable, version, inputs, outputs, parameters } = observation;
    let answered = Answered { inputs, outputs, parameters, chosen };
    watch.count(answered, now);
    if let Some(stable) = stable.as_ref().and_then(|stable| stable.monitor()) {
        stable.count_other(*version, answered, now);
    }
}

/// The memory that an observation keeps alive, about.
fn weight(observation: &Observation) -> usize {
    observation.inputs.iter().chain(&*observation.outputs).map(tensor_weight).sum()
}

fn tensor_weight(tensor: &Tensor) -> usize {
    let elements = match tensor.elements() {
        Elements::Plain { bytes, .. } => bytes.len(),
        Elements::Text(elements) => elements.iter().map(|element| element.len() + size_of_val(element)).sum(),
    };
    size_of::<Tensor>() + elements
}

#[cfg(test)]
mod tests;
