//! Where requests leave their rows for the thread that counts.
//!
//! A thread of requests has a shard of its own, nearly always: it takes the shard's lock without waiting, and another
//! shard when it does not get it. The thread that counts holds a lock only to take all that is there.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::Thread,
};

use super::{
    Observation,
    row_batch::{Origin, RowBatch, is_small},
};
use crate::domain::Tensor;

/// Requests that may wait in a shard, of those whose tensors are shared.
pub(super) const MAX_SHARED: usize = 4096;
/// Bytes of shared tensors that may wait in all shards.
pub(super) const MAX_SHARED_BYTES: usize = 64 << 20;
/// Bytes of rows that may wait in a shard.
pub(super) const MAX_BATCHED_BYTES: usize = 2 << 20;
/// Batches of a shard. Rows that are like none of so many are not put together.
const MAX_BATCHES: usize = 32;

/// The shards.
#[derive(Debug)]
pub(super) struct Intake {
    shards: Box<[Shard]>,
    shared_bytes: AtomicUsize,
    dropped: AtomicU64,
    /// The thread that counts waits until it is woken.
    is_asleep: AtomicBool,
    counter: OnceLock<Thread>,
}

/// Apart from its neighbours in the processor's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Waiting>);

/// What waits in a shard.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) batches: Vec<RowBatch>,
    /// In `batches`.
    bytes: usize,
    pub(super) shared: Vec<Shared>,
    is_closed: bool,
}

/// A request whose tensors are kept as they are.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) origin: Origin,
    pub(super) inputs: Arc<[Tensor]>,
    pub(super) outputs: Arc<[Tensor]>,
    bytes: usize,
}

impl Intake {
    /// For so many threads of requests.
    pub(super) fn new(threads: usize) -> Self {
        Self {
            // One that is taken by the thread that counts must leave another.
            shards: (0..threads.max(2)).map(|_| Shard::default()).collect(),
            shared_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            counter: OnceLock::new(),
        }
    }

    /// The thread that counts, to be woken.
    pub(super) fn counted_by(&self, thread: Thread) {
        // There is one such thread.
        let _ = self.counter.set(thread);
    }

    /// Leaves the rows of a request. Never waits: what there is no room for is dropped and counted.
    pub(super) fn offer(&self, mut observation: Observation<'_>) {
        if !observation.parameters.is_empty() && !observation.watch.wants_parameters() {
            observation.parameters = &[];
        }
        let is_taken = self.free_shard().is_some_and(|mut shard| self.put(&mut shard, observation));
        if !is_taken {
            self.drop_requests(1);
        } else if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    fn free_shard(&self) -> Option<MutexGuard<'_, Waiting>> {
        let (later, first) = self.shards.split_at(place_of_this_thread() % self.shards.len());
        first.iter().chain(later).find_map(|shard| match shard.0.try_lock() {
            Ok(waiting) => Some(waiting),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// False: there is no room.
    fn put(&self, waiting: &mut Waiting, observation: Observation<'_>) -> bool {
        if waiting.is_closed {
            return false;
        }
        if let Some((rows, bytes)) = is_small(observation)
            && let Some(batch) = batch_for(&mut waiting.batches, observation)
        {
            let fits = waiting.bytes + bytes <= MAX_BATCHED_BYTES;
            if fits {
                waiting.bytes += bytes;
                batch.add(observation, rows);
            }
            return fits;
        }
        let bytes = weight(observation);
        let before = self.shared_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is too large for any room is let into an empty one.
        let fits = before == 0 || before.saturating_add(bytes) <= MAX_SHARED_BYTES;
        if !fits || waiting.shared.len() >= MAX_SHARED {
            self.shared_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        let (inputs, outputs) = (Arc::clone(observation.inputs), Arc::clone(observation.outputs));
        waiting.shared.push(Shared { origin: Origin::of(observation), inputs, outputs, bytes });
        true
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Takes all that waits in a shard, and leaves `batches` there for the next rows.
    pub(super) fn take(&self, shard: usize, batches: Vec<RowBatch>) -> Waiting {
        let mut waiting = self.lock(shard);
        let is_closed = waiting.is_closed;
        mem::replace(&mut *waiting, Waiting { batches, is_closed, ..Waiting::default() })
    }

    /// From now on all that is offered is dropped.
    pub(super) fn close(&self) {
        (0..self.shards()).for_each(|shard| self.lock(shard).is_closed = true);
    }

    /// What was shared is no longer kept.
    pub(super) fn release(&self, shared: Shared) {
        let bytes = shared.bytes;
        drop(shared);
        self.shared_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The next offer is to wake the thread that counts. Whoever calls this must look into all shards once more: what was
    /// offered before woke nobody. What is offered after that look sees this, by the lock of its shard.
    pub(super) fn go_to_sleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
    }

    pub(super) fn wake_up(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Ends a wait of the thread that counts.
    pub(super) fn wake(&self) {
        if let Some(counter) = self.counter.get() {
            counter.unpark();
        }
    }

    pub(super) fn drop_requests(&self, requests: u64) {
        self.dropped.fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Waiting> {
        // A panic leaves no request half put there but the one that it was about.
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The batch that the rows of a request belong to; `None` when there are too many others.
fn batch_for<'a>(batches: &'a mut Vec<RowBatch>, observation: Observation<'_>) -> Option<&'a mut RowBatch> {
    let at = match batches.iter().position(|batch| batch.is_like(observation)) {
        Some(at) => at,
        None if batches.len() < MAX_BATCHES => {
            batches.push(RowBatch::like(observation));
            batches.len() - 1
        }
        None => return None,
    };
    batches.get_mut(at)
}

/// Threads are numbered as they come.
fn place_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static PLACE: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    // A thread that ends has none any more.
    PLACE.try_with(|place| *place).unwrap_or(0)
}

/// The memory that an observation keeps alive, about.
fn weight(observation: Observation<'_>) -> usize {
    let tensors = observation.inputs.iter().chain(&**observation.outputs);
    tensors.map(|tensor| size_of::<Tensor>() + tensor.byte_size()).sum()
}
