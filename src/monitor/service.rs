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

use super::VersionMonitor;
use crate::domain::{Elements, Tensor};

/// The time since the start of the program.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Observations that may wait to be counted.
const MAX_WAITING: usize = 16_384;
/// Bytes of tensors that may wait to be counted.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The tensors of an answered request, and who counts them.
#[derive(Debug, Clone)]
pub struct Observation {
    pub monitor: Arc<VersionMonitor>,
    pub inputs: Arc<[Tensor]>,
    pub outputs: Arc<[Tensor]>,
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
}

enum Message {
    Observation(Observation, usize),
    /// Answered when everything before it is counted.
    Barrier(SyncSender<()>),
    Stop,
}

impl Monitor {
    /// Starts the thread. `clock` tells it when it counts what.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(clock: Clock) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let shared = Arc::new(Shared::default());
        let handle = MonitorHandle { sender, shared: Arc::clone(&shared) };
        let thread =
            std::thread::Builder::new().name("monitor".into()).spawn(move || run(&receiver, &shared, &clock))?;
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

fn run(receiver: &Receiver<Message>, shared: &Shared, clock: &Clock) {
    // Asleep until the first message; then naps, for as long as each nap ends with something to do.
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            if !take(message, shared, clock) {
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
fn take(message: Message, shared: &Shared, clock: &Clock) -> bool {
    match message {
        Message::Observation(observation, bytes) => {
            let Observation { monitor, inputs, outputs } = observation;
            // The counters are atomics and the windows recover, so nothing is left half-made.
            let counted = catch_unwind(AssertUnwindSafe(|| monitor.count(&inputs, &outputs, clock())));
            drop((monitor, inputs, outputs));
            shared.release(bytes);
            if counted.is_err() {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the drift monitor failed to count a request");
            }
        }
        // Whoever asked may have given up.
        Message::Barrier(done) => drop(done.send(())),
        Message::Stop => return false,
    }
    true
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
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::{
        domain::{DataType, Dim, Shape, Signature, TensorSpec},
        monitor::{MonitorSettings, ProfileBuilder},
    };

    fn tensors(rows: usize) -> Arc<[Tensor]> {
        let shape = Shape::new(vec![i64::try_from(rows).unwrap()]).unwrap();
        let bytes: Vec<u8> = (0..rows).flat_map(|row| (row as f32).to_le_bytes()).collect();
        Arc::from([Tensor::plain("x", DataType::Fp32, shape, bytes.into()).unwrap()])
    }

    fn observation(rows: usize) -> Observation {
        let mut builder = ProfileBuilder::default();
        builder.add(&tensors(100), &[]);
        let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![Dim::Any], optional: false };
        let signature = Signature { inputs: vec![spec], outputs: vec![] };
        let settings = MonitorSettings::default();
        let monitor = VersionMonitor::new(builder.finish().profile, &signature, &settings).unwrap();
        Observation { monitor: Arc::new(monitor), inputs: tensors(rows), outputs: Arc::from([]) }
    }

    fn rows_counted(monitor: &VersionMonitor) -> u64 {
        monitor.features()[0].counter.totals().sum()
    }

    /// A monitor whose clock stands, and with it the thread, until the sender is used or dropped.
    fn held() -> (Monitor, mpsc::Sender<()>) {
        let (go, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let clock = move || {
            let _ = wait.lock().unwrap().recv();
            Duration::ZERO
        };
        (Monitor::start(Arc::new(clock)).unwrap(), go)
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn settled_monitor_has_counted_every_row_offered() {
        let monitor = Monitor::start(Arc::new(|| Duration::ZERO)).unwrap();
        let observation = observation(10);
        let offerers: Vec<_> = (0..4)
            .map(|_| {
                let (handle, observation) = (monitor.handle(), observation.clone());
                std::thread::spawn(move || (0..100).for_each(|_| handle.offer(observation.clone())))
            })
            .collect();
        for offerer in offerers {
            offerer.join().unwrap();
        }
        assert!(monitor.handle().settle(LONG));
        assert_eq!((rows_counted(&observation.monitor), monitor.handle().dropped()), (4000, 0));
    }

    #[test]
    fn observations_beyond_the_channel_are_dropped_and_counted() {
        let (monitor, go) = held();
        let (handle, observation) = (monitor.handle(), observation(1));
        // One may be with the thread already.
        let offered = MAX_WAITING + 11;
        (0..offered).for_each(|_| handle.offer(observation.clone()));
        assert!((10..=11).contains(&handle.dropped()), "{}", handle.dropped());
        assert!(!handle.settle(Duration::from_millis(5)));
        drop(go);
        assert!(handle.settle(LONG));
        assert_eq!(rows_counted(&observation.monitor) + handle.dropped(), offered as u64);
    }

    #[test]
    fn observations_beyond_the_memory_are_dropped_but_a_large_one_alone_is_not() {
        let (monitor, go) = held();
        let (handle, large) = (monitor.handle(), observation(MAX_WAITING_BYTES / 4 + 1));
        handle.offer(large.clone());
        handle.offer(observation(1));
        assert_eq!(handle.dropped(), 1);
        drop(go);
        assert!(handle.settle(LONG));
        assert_eq!(rows_counted(&large.monitor), (MAX_WAITING_BYTES / 4 + 1) as u64);
        assert_eq!(handle.shared.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn panic_while_counting_drops_one_observation_and_goes_on() {
        let times = AtomicU64::new(0);
        let clock = move || {
            assert_ne!(times.fetch_add(1, Ordering::Relaxed), 0, "the first reading fails, for the test");
            Duration::ZERO
        };
        let monitor = Monitor::start(Arc::new(clock)).unwrap();
        let (handle, observation) = (monitor.handle(), observation(5));
        (0..3).for_each(|_| handle.offer(observation.clone()));
        assert!(handle.settle(LONG));
        assert_eq!((handle.dropped(), rows_counted(&observation.monitor)), (1, 10));
    }

    #[test]
    fn shutdown_counts_what_waits_and_drops_what_follows() {
        let monitor = Monitor::start(Arc::new(|| Duration::ZERO)).unwrap();
        let (handle, observation) = (monitor.handle(), observation(1));
        (0..1000).for_each(|_| handle.offer(observation.clone()));
        monitor.shutdown();
        assert_eq!(rows_counted(&observation.monitor), 1000);
        handle.offer(observation);
        assert_eq!(handle.dropped(), 1);
        assert!(!handle.settle(LONG));
    }

    #[test]
    fn thread_ends_when_the_last_handle_is_dropped() {
        let monitor = Monitor::start(Arc::new(|| Duration::ZERO)).unwrap();
        let Monitor { handle, thread } = monitor;
        drop(handle);
        thread.join().unwrap();
    }
}
