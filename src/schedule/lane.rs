//! The lane of a version: what its requests wait in, and how its runs begin.
//!
//! A request takes one of three ways:
//!
//! 1. **In place.** Its run is expected to be cheap, nothing waits and an instance is free: the
//!    model runs on the thread of the request, with no hand-over at all.
//! 2. **Gathered.** Runs are cheap, but requests come so close together that it pays to join them: it waits,
//!    and a small task (the *collector*) runs all that came meanwhile as one batch, once the runtime has polled all
//!    that was ready. No time is added: its turn comes when nobody else on that thread has anything to do before it.
//!    Where thousands are ready that would be late: the request that makes a batch full runs it itself.
//! 3. **On the pool.** Runs are costly: a thread of the pool takes the next batch when it is free.
//!
//! Jobs go through a queue without locks (`inbox`); whoever forms the next batch moves them to the
//! ordered backlog. Exactly one party at a time is responsible for that (`is_claimed`): a collector
//! or a listing of the pool. A claim is given up *after* the inbox was emptied, and the number of
//! waiting jobs is looked at after that, so no job is left behind. Who runs a full batch needs no claim: batches are
//! taken in one piece, and whoever holds the claim then finds less to do.

mod aside;
mod merging;
mod waiting;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crossbeam_queue::SegQueue;
use tokio::sync::Notify;

use self::{merging::Merging, waiting::Waiting};
use super::{
    Executed, LaneError, LaneStatus, Placement, Pool, Trial, Work, batch,
    plan::Plan,
    queue::{Backlog, Job},
    target::Controller,
};
use crate::{
    domain::{BatchLimits, Batching, ServingSettings, Tensor},
    engine::{EngineError, Model},
    independence::Verdict,
};

/// Requests that arrive within this time of the one before, or of the last run, are worth gathering.
const CLOSE: Duration = Duration::from_micros(60);
/// Before a run of this length it is looked whether others are there, whenever the last ones were: the look costs a tenth.
const LONG: Duration = Duration::from_micros(30);
/// Why requests run alone that could be joined.
const NO_FASTER: &str = "larger batches are no faster per row";
/// A run on the pool counts as at most so many usual ones: a lane that something held up is not made to wait for others as well.
const MOST_USED: u64 = 32;

/// The parts of a lane that requests, collectors and the pool share.
pub(super) struct Core {
    /// Taken out once, when the lane retires.
    model: Option<Box<dyn Model>>,
    retired: Option<Box<dyn FnOnce() + Send + Sync>>,
    settings: Arc<ServingSettings>,
    instances: usize,
    /// `None` when requests are never joined.
    limits: Option<BatchLimits>,
    controller: Option<Controller>,
    merging: Merging,
    /// The inputs that a request must give. With more of them, those of a default of the model's, it is never joined: what
    /// they mean to the rows was not looked at.
    required_inputs: usize,
    /// Why requests run alone, as the trial found.
    alone: Option<String>,
    plan: Plan,
    verdict: Arc<Verdict>,
    pool: Pool,
    inbox: SegQueue<Job>,
    backlog: Mutex<Backlog>,
    waiting: Waiting,
    running: AtomicUsize,
    is_claimed: AtomicBool,
    /// Told when a batch is full before its delay is over.
    is_full: Notify,
    started: Instant,
    /// When a run ended or a request came last, in nanoseconds since `started`.
    last_active: AtomicU64,
    /// The time used on the pool.
    pub(super) used: UsedTime,
}

/// Virtual time of a lane on the pool, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct UsedTime {
    total: AtomicU64,
    /// What a run usually adds.
    usual: AtomicU64,
}

impl UsedTime {
    pub(super) fn add(&self, time: Duration) {
        let (time, usual) = (u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), self.usual.load(SeqCst));
        let used = if usual == 0 { time } else { time.min(usual.saturating_mul(MOST_USED)) };
        self.usual.store(if usual == 0 { used } else { usual - usual / 8 + used / 8 }, SeqCst);
        self.total.fetch_add(used, SeqCst);
    }

    /// At least `floor` from now on; the value.
    pub(super) fn raise_to(&self, floor: u64) -> u64 {
        self.total.fetch_max(floor, SeqCst).max(floor)
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// An instance of the model that is running; free again when dropped.
struct Instance<'a>(&'a AtomicUsize);

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Core {
    pub(super) fn new(
        model: Box<dyn Model>,
        settings: Arc<ServingSettings>,
        trial: Trial,
        pool: Pool,
        retired: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        let instances = if model.is_concurrent() { settings.instances.max(1) } else { 1 };
        let limits = match &settings.batching {
            Batching::On(limits) if trial.useful_rows > 1 || trial.can_join => Some(limits.clone()),
            _ => None,
        };
        let controller = limits
            .as_ref()
            .and_then(|limits| limits.target_p99.map(|target| Controller::new(target, limits, &trial.costs)));
        let rigour = trial.rigour();
        let required_inputs = model.signature().inputs.iter().filter(|spec| !spec.optional).count();
        let max_rows = limits.as_ref().map_or(1, |limits| limits.max_rows);
        let plan = Plan::new(trial.costs, settings.inline_limit, max_rows, trial.useful_rows);
        Self {
            model: Some(model),
            retired: Some(Box::new(retired)),
            settings,
            instances,
            limits,
            controller,
            merging: Merging::new(trial.widths, rigour),
            required_inputs,
            alone: trial.alone,
            plan,
            verdict: trial.verdict,
            pool,
            inbox: SegQueue::new(),
            backlog: Mutex::default(),
            waiting: Waiting::default(),
            running: AtomicUsize::new(0),
            is_claimed: AtomicBool::new(false),
            is_full: Notify::new(),
            started: Instant::now(),
            last_active: AtomicU64::new(0),
            used: UsedTime::default(),
        }
    }

    /// Runs a request, now or when its turn comes.
    pub(super) async fn execute(self: &Arc<Self>, work: Work) -> Result<Executed, LaneError> {
        let now = Instant::now();
        let rows = work.rows();
        if work.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(LaneError::DeadlineExceeded);
        }
        if !work.is_background
            && self.waiting.jobs() == 0
            && self.plan.is_cheap_for(rows)
            && !self.should_gather(now, rows)
            && let Some(instance) = self.free_instance()
        {
            let executed = self.run_alone(&work.inputs, &work.outputs, rows, now);
            drop(instance);
            self.dispatch_next();
            return executed;
        }
        let deadline = work.deadline.map(|deadline| (deadline, Arc::new(AtomicBool::new(false))));
        let is_taken = deadline.as_ref().map(|(_, is_taken)| Arc::clone(is_taken));
        let mut answer = self.queue(work, rows, now, is_taken)?;
        let answered = match deadline {
            None => (&mut *answer).await,
            Some((deadline, is_taken)) => match tokio::time::timeout_at(deadline.into(), &mut *answer).await {
                Ok(answered) => answered,
                // What has begun is finished: most often it is about to be answered.
                Err(_) if is_taken.load(SeqCst) => (&mut *answer).await,
                Err(_) => return Err(LaneError::DeadlineExceeded),
            },
        };
        answer.is_over = true;
        let executed = answered.unwrap_or(Err(LaneError::Closed));
        if let (Some(controller), Ok(executed)) = (&self.controller, &executed) {
            let now = Instant::now();
            controller.observe(now, executed.queue + executed.inference, self.plan.costs());
        }
        executed
    }

    pub(super) fn tell_stop_to(&self, teller: impl Fn(&str) + Send + Sync + 'static) {
        self.merging.tell_stop_to(Box::new(teller));
    }

    pub(super) fn status(&self) -> LaneStatus {
        let useful_rows = self.plan.useful_rows();
        let alone = match &self.alone {
            _ if useful_rows > 1 => None,
            None if self.limits.is_some() => Some(NO_FASTER.to_owned()),
            reason => reason.clone(),
        };
        LaneStatus {
            placement: if self.plan.is_cheap() { Placement::Request } else { Placement::Pool },
            run: self.plan.costs().expected(1),
            per_row: self.plan.per_row(self.wanted_rows()),
            max_batch_rows: self.batch_limits().map_or(1, |_| useful_rows),
            max_delay: self.delay(),
            instances: self.instances,
            waiting: self.waiting.jobs(),
            alone: self.merging.why_stopped().map(str::to_owned).or(alone),
            is_merging_stopped: self.merging.is_stopped(),
            verdict: Arc::clone(&self.verdict),
        }
    }

    fn model(&self) -> &dyn Model {
        self.model.as_deref().expect("the model is taken out only when the lane is dropped")
    }

    fn batch_limits(&self) -> Option<&BatchLimits> {
        self.limits.as_ref().filter(|_| !self.merging.is_stopped())
    }

    /// The rows that the next batch may have.
    fn max_rows(&self) -> usize {
        self.batch_limits().map_or(1, |_| self.plan.most_rows(self.wanted_rows()))
    }

    /// The rows that the target latency allows, if there is one; 1 where requests are not joined.
    fn wanted_rows(&self) -> usize {
        self.batch_limits().map_or(1, |_| self.controller.as_ref().map_or(usize::MAX, Controller::rows))
    }

    /// How long the first request of a batch waits for others.
    fn delay(&self) -> Duration {
        if self.plan.useful_rows() == 1 {
            return Duration::ZERO;
        }
        match (&self.controller, self.batch_limits()) {
            (Some(controller), Some(_)) => controller.delay(),
            (None, Some(limits)) => limits.max_delay,
            (_, None) => Duration::ZERO,
        }
    }

    /// True when others are likely to arrive before a run would be over.
    fn should_gather(&self, now: Instant, rows: usize) -> bool {
        if self.batch_limits().is_none() || rows >= self.plan.most_rows(usize::MAX) {
            return false;
        }
        if !self.delay().is_zero() || self.plan.costs().expected(rows) >= LONG {
            return true;
        }
        let since_start = self.since_start(now);
        let before = self.last_active.swap(since_start, SeqCst);
        since_start.saturating_sub(before) < u64::try_from(CLOSE.as_nanos()).unwrap_or(u64::MAX)
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    fn free_instance(&self) -> Option<Instance<'_>> {
        let next = |running| (running < self.instances).then_some(running + 1);
        self.running.fetch_update(SeqCst, SeqCst, next).ok().map(|_| Instance(&self.running))
    }

    /// Becomes responsible for the next batch; false when somebody is already.
    fn claim(&self) -> bool {
        !self.is_claimed.swap(true, SeqCst)
    }

    /// If something waits, an instance is free and nobody is responsible yet, sees to it that the
    /// next batch is run.
    fn dispatch_next(self: &Arc<Self>) {
        if self.has_next() && self.claim() {
            self.dispatch_claimed();
        }
    }

    fn has_next(&self) -> bool {
        self.waiting.jobs() > 0 && self.running.load(SeqCst) < self.instances
    }

    fn dispatch_claimed(self: &Arc<Self>) {
        if self.plan.is_cheap() || !self.delay().is_zero() {
            self.pool.requests().spawn(Arc::clone(self).collect());
        } else {
            self.pool.list(Arc::clone(self));
        }
    }

    /// The collector: lets others join, then runs what waits.
    async fn collect(self: Arc<Self>) {
        loop {
            // Comes back when everything that was ready has been polled, new input included.
            tokio::task::yield_now().await;
            self.wait_for_more().await;
            if !self.plan.is_cheap() {
                return self.pool.list(self.clone());
            }
            if !self.run_claimed() {
                return;
            }
        }
    }

    /// Until the oldest job has waited for the delay, or the batch is full.
    async fn wait_for_more(&self) {
        let delay = self.delay();
        if delay.is_zero() {
            return;
        }
        let oldest = self.backlog().oldest();
        let Some(until) = oldest.and_then(|oldest| oldest.checked_add(delay)) else { return };
        let over = tokio::time::sleep_until(until.into());
        tokio::pin!(over);
        while self.waiting.rows.load(SeqCst) < self.max_rows() {
            tokio::select! {
                () = &mut over => return,
                () = self.is_full.notified() => {}
            }
        }
    }

    /// Runs the next batch, for the party that holds the claim. Returns true when it holds the
    /// claim again: there is more to run.
    pub(super) fn run_claimed(self: &Arc<Self>) -> bool {
        let Some(instance) = self.free_instance() else {
            self.is_claimed.store(false, SeqCst);
            // A run that ended just before saw the claim, and left what waits to us.
            return self.has_next() && self.claim();
        };
        // Before the claim is given up: who gets it next must not count what is gone.
        let batch = self.take_batch();
        self.is_claimed.store(false, SeqCst);
        // More may run beside this batch, where instances allow.
        self.dispatch_next();
        self.run_batch(batch);
        drop(instance);
        self.has_next() && self.claim()
    }

    /// Runs a batch on the thread of this request. False when nothing waits, runs are costly or no instance is free.
    ///
    /// Who makes a batch full does so: a crowd of requests that are all ready would otherwise fill the queue, and be refused,
    /// before the turn of the collector comes. And who would be refused.
    fn run_here(self: &Arc<Self>) -> bool {
        let instance = if self.waiting.jobs() > 0 && self.plan.is_cheap() { self.free_instance() } else { None };
        let is_run = instance.is_some_and(|instance| {
            let batch = self.take_batch();
            let is_any = !batch.is_empty();
            self.run_batch(batch);
            drop(instance);
            is_any
        });
        // A party with the claim may have found no instance meanwhile, and have left what waits to us.
        self.dispatch_next();
        is_run
    }

    /// Takes the jobs of the next batch out of what waits, and what is dead before them.
    fn take_batch(&self) -> Vec<Job> {
        let max_rows = self.rows_of_next_batch();
        let taken = self.backlog().take(Instant::now(), max_rows);
        taken.batch.iter().for_each(|job| self.waiting.leave(job));
        self.drop_dead(taken.dropped);
        taken.batch
    }

    fn rows_of_next_batch(&self) -> usize {
        self.batch_limits().map_or(1, |_| self.plan.rows_of_next_run(self.wanted_rows()))
    }

    fn run_batch(&self, mut jobs: Vec<Job>) {
        // Requests that were taken while another run ended the joining run alone too.
        if jobs.len() > 1 && !self.merging.is_stopped() {
            jobs = match self.run_together(jobs) {
                Ok(()) => return,
                // One of them is at fault, or the model is: alone, each gets its own answer.
                Err(jobs) => jobs,
            };
        }
        for job in jobs {
            let answer = self.run_alone(&job.inputs, &job.outputs, job.rows, job.queued_at);
            // The caller may have gone meanwhile: its answer is then of no use to anybody.
            let _ = job.reply.send(answer);
        }
    }

    fn run_alone(
        &self,
        inputs: &[Tensor],
        outputs: &[usize],
        rows: usize,
        queued_at: Instant,
    ) -> Result<Executed, LaneError> {
        let started = Instant::now();
        let outputs = self.call(inputs, outputs)?;
        let ran = self.ended(rows, started);
        Ok(Executed {
            outputs: outputs.into(),
            queue: started.saturating_duration_since(queued_at),
            inference: ran - started,
            run_rows: rows,
            is_first_of_run: true,
            ..Executed::default()
        })
    }

    fn ended(&self, rows: usize, started: Instant) -> Instant {
        let ended = Instant::now();
        self.plan.record(rows, ended - started);
        self.last_active.store(self.since_start(ended), SeqCst);
        ended
    }

    /// A panic is a bug, but it must cost one request, not the version.
    fn call(&self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        catch_unwind(AssertUnwindSafe(|| self.model().run(inputs, outputs)))
            .unwrap_or_else(|_| Err(EngineError::Failed("the engine panicked".into())))
    }
}

impl Drop for Core {
    /// Whoever lets go last, a request's thread among them, only hands the model over.
    fn drop(&mut self) {
        let (model, retired) = (self.model.take(), self.retired.take());
        self.pool.retire(move || {
            drop(model);
            if let Some(retired) = retired {
                retired();
            }
        });
    }
}
