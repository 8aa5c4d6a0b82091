//! The threads that costly runs happen on, shared fairly between versions; and the thread on
//! which retired models are dropped.
//!
//! Fairness is start-time fair queueing: of the versions that have work waiting, the one that has
//! used the threads least runs next. A busy version cannot starve another, whose next run waits for
//! at most the runs that are going on.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Instant,
};

use tokio::runtime::Handle;

use super::lane::Core;

/// Threads for runs. Cheap to clone; the threads end with the last clone.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
    /// Dropped before `shared` goes: tells the threads.
    _stop: Arc<Stop>,
    /// Where requests run, and so where cheap runs do.
    requests: Handle,
    retire: mpsc::Sender<Retirement>,
}

type Retirement = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Versions with work waiting, by the time that they have used and the order of arrival.
    ready: BTreeMap<(u64, u64), Arc<Core>>,
    arrivals: u64,
    /// The used time of the version that ran last: who comes after a rest starts from here.
    floor: u64,
    is_stopping: bool,
}

#[derive(Debug)]
struct Stop(Arc<Shared>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.lock().is_stopping = true;
        self.0.work.notify_all();
    }
}

impl Pool {
    /// Starts `threads` threads for runs, and one for retirements. `requests` is the runtime that
    /// requests are answered on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: usize, requests: Handle) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), work: Condvar::new() });
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("run {number}")).spawn(move || shared.work())?;
        }
        let (retire, retirements) = mpsc::channel::<Retirement>();
        thread::Builder::new().name("retire".into()).spawn(move || retirements.into_iter().for_each(|last| last()))?;
        Ok(Self { _stop: Arc::new(Stop(Arc::clone(&shared))), shared, requests, retire })
    }

    /// The runtime that requests are answered on.
    pub(super) fn requests(&self) -> &Handle {
        &self.requests
    }

    /// Has a thread run the next batch of `lane`, whose claim goes over to that thread.
    pub(super) fn list(&self, lane: Arc<Core>) {
        self.shared.list(lane);
        self.shared.work.notify_one();
    }

    /// Does what is last done to a model, on a thread that serves nobody.
    pub(super) fn retire(&self, last: impl FnOnce() + Send + 'static) {
        // The thread ends only with the last pool; then the process is ending too.
        let _ = self.retire.send(Box::new(last));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, lane: Arc<Core>) {
        let mut state = self.lock();
        let arrival = state.arrivals;
        state.arrivals += 1;
        // Time not used while there was no work is not saved up.
        let used = lane.used.raise_to(state.floor);
        state.ready.insert((used, arrival), lane);
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(((used, _), lane)) = state.ready.pop_first() {
                state.floor = state.floor.max(used);
                drop(state);
                let started = Instant::now();
                let is_claimed = lane.run_claimed();
                lane.used.add(started.elapsed());
                if is_claimed {
                    self.list(lane);
                }
                state = self.lock();
            } else if state.is_stopping {
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
