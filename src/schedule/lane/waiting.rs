//! How a job comes to wait, and what keeps a place: only jobs whose callers still want an answer.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Backlog, Controller, Core, Executed, Job, LaneError, Work};
use crate::domain::Tensor;

type Reply = Result<Executed, LaneError>;

/// What waits, in three measures.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Counted once a job is in the inbox, so that whoever sees one finds it. Below zero for the moment in
    /// which a job was taken before it was counted.
    jobs: AtomicIsize,
    pub(super) rows: AtomicUsize,
    bytes: AtomicUsize,
    /// Set when a caller went away from a job that waits: there may be something to drop.
    has_dead: AtomicBool,
}

impl Waiting {
    pub(super) fn jobs(&self) -> usize {
        usize::try_from(self.jobs.load(SeqCst)).unwrap_or(0)
    }

    /// Gives back the place of a job that waits no more.
    pub(super) fn leave(&self, job: &Job) {
        self.jobs.fetch_sub(1, SeqCst);
        self.rows.fetch_sub(job.rows, SeqCst);
        self.bytes.fetch_sub(job.bytes, SeqCst);
    }
}

/// The answer to come. Dropped before it came, it says that its job is dead.
pub(super) struct Answer<'a> {
    receiver: oneshot::Receiver<Reply>,
    waiting: &'a Waiting,
    pub(super) is_over: bool,
}

impl Deref for Answer<'_> {
    type Target = oneshot::Receiver<Reply>;

    fn deref(&self) -> &Self::Target {
        &self.receiver
    }
}

impl DerefMut for Answer<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.receiver
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.receiver.close();
            self.waiting.has_dead.store(true, SeqCst);
        }
    }
}

impl Core {
    /// Whether a request would be queued now. On the thread of a request.
    ///
    /// # Errors
    /// [`LaneError::Full`] when not.
    pub(in crate::schedule) fn accepts(self: &Arc<Self>, rows: usize, bytes: usize) -> Result<(), LaneError> {
        let mut answer = self.accepts_as_is(rows, bytes);
        // Nobody is refused for the sake of what could run here and now.
        while answer.is_err() && self.run_here() {
            answer = self.has_room(rows, bytes);
        }
        answer
    }

    fn accepts_as_is(&self, rows: usize, bytes: usize) -> Result<(), LaneError> {
        match self.has_room(rows, bytes) {
            // Nobody is refused for the sake of what nobody waits for.
            Err(_) if self.drop_abandoned() => self.has_room(rows, bytes),
            answer => answer,
        }
    }

    fn has_room(&self, rows: usize, bytes: usize) -> Result<(), LaneError> {
        let (jobs, waiting_bytes) = (self.waiting.jobs(), self.waiting.bytes.load(SeqCst));
        let wait = self.expected_wait(rows);
        // One request is always taken, however large: it is within the limit on bodies.
        let is_too_much = jobs > 0 && waiting_bytes.saturating_add(bytes) > self.settings.max_queue_bytes;
        let is_late = jobs > 0 && (wait > self.settings.max_wait || self.is_beyond_target(rows));
        if jobs >= self.settings.max_queue || is_too_much || is_late {
            return Err(LaneError::Full { retry_after: wait });
        }
        Ok(())
    }

    /// Whether what is queued now would take longer than the target latency, if there is one.
    fn is_beyond_target(&self, rows: usize) -> bool {
        let is_beyond = |controller: &Controller| self.waiting.rows.load(SeqCst) + rows > controller.room();
        self.controller.as_ref().is_some_and(is_beyond)
    }

    /// The wait of a request that is queued now, by the measured cost of what is before it.
    fn expected_wait(&self, rows: usize) -> Duration {
        let waiting = self.waiting.rows.load(SeqCst) + rows;
        let per_row = self.plan.per_row(self.wanted_rows());
        per_row.saturating_mul(u32::try_from(waiting / self.instances).unwrap_or(u32::MAX))
    }

    /// Takes the jobs out whose callers went away since this was last done. False when there were none.
    fn drop_abandoned(&self) -> bool {
        if !self.waiting.has_dead.swap(false, SeqCst) {
            return false;
        }
        let dead = self.backlog().take_dead(Instant::now());
        let is_any = !dead.is_empty();
        self.drop_dead(dead);
        is_any
    }

    pub(super) fn drop_dead(&self, dead: Vec<Job>) {
        for job in dead {
            self.waiting.leave(&job);
            // Expired, or nobody listens.
            let _ = job.reply.send(Err(LaneError::DeadlineExceeded));
        }
    }

    /// All that waits, in its order.
    pub(super) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(job) = self.inbox.pop() {
            backlog.push(job);
        }
        backlog
    }

    pub(super) fn queue(
        self: &Arc<Self>,
        work: Work,
        rows: usize,
        now: Instant,
        is_taken: Option<Arc<AtomicBool>>,
    ) -> Result<Answer<'_>, LaneError> {
        let bytes = work.inputs.iter().map(Tensor::byte_size).sum();
        let is_background = work.is_background;
        if is_background { self.accepts_as_is(rows, bytes) } else { self.accepts(rows, bytes) }?;
        let (reply, receiver) = oneshot::channel();
        let job = Job {
            is_joinable: work.inputs.len() == self.required_inputs,
            inputs: work.inputs,
            outputs: work.outputs,
            rows,
            bytes,
            priority: work.priority.unwrap_or(self.settings.default_priority),
            queued_at: now,
            deadline: work.deadline,
            is_taken,
            reply,
        };
        self.waiting.bytes.fetch_add(bytes, SeqCst);
        let waiting_rows = self.waiting.rows.fetch_add(rows, SeqCst) + rows;
        self.inbox.push(job);
        self.waiting.jobs.fetch_add(1, SeqCst);
        let is_full = waiting_rows >= self.max_rows();
        if is_full {
            self.is_full.notify_one();
        }
        if is_background && self.has_next() && self.claim() {
            self.pool.list(Arc::clone(self));
        } else if is_full && !is_background {
            self.run_here();
        } else {
            self.dispatch_next();
        }
        Ok(Answer { receiver, waiting: &self.waiting, is_over: false })
    }
}
