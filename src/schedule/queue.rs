//! What waits for a version, and which of it runs together next. Pure: time is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::oneshot;

use super::{Executed, LaneError, batch};
use crate::domain::{Places, Priority, Tensor};

/// A request that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) inputs: Arc<[Tensor]>,
    /// Places of the outputs in the model's signature.
    pub(super) outputs: Places,
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// It gives the inputs that the model must have, and no others.
    pub(super) is_joinable: bool,
    pub(super) priority: Priority,
    pub(super) queued_at: Instant,
    pub(super) deadline: Option<Instant>,
    /// Set once the job is taken to be run: from then on its deadline is not looked at. `None` without a deadline.
    pub(super) is_taken: Option<Arc<AtomicBool>>,
    pub(super) reply: oneshot::Sender<Result<Executed, LaneError>>,
}

/// The jobs of one version in the order in which they will run: by priority, then by arrival.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    levels: BTreeMap<Priority, VecDeque<Job>>,
}

/// What was taken out of the backlog.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Jobs that run together; empty when nothing waits.
    pub(super) batch: Vec<Job>,
    /// Jobs of whose answer nobody has any use: their deadline passed, or their caller went away.
    pub(super) dropped: Vec<Job>,
}

impl Job {
    /// True when nobody has any use of its answer.
    fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

impl Backlog {
    pub(super) fn push(&mut self, job: Job) {
        self.levels.entry(job.priority).or_default().push_back(job);
    }

    /// When the job arrived that would run next.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.levels.values().filter_map(|level| level.front()).map(|job| job.queued_at).min()
    }

    /// Takes the next job, and those that can run with it: of the same shape but for the first
    /// dimension, wanting the same outputs, together at most `max_rows` rows. Jobs that do not fit
    /// keep their place.
    pub(super) fn take(&mut self, now: Instant, max_rows: usize) -> Taken {
        let mut taken = Taken::default();
        let mut rows = 0;
        for level in self.levels.values_mut() {
            let mut kept = VecDeque::new();
            while let Some(job) = level.pop_front() {
                if job.is_dead(now) {
                    taken.dropped.push(job);
                } else if taken.batch.is_empty() || (rows + job.rows <= max_rows && batch::fits(&taken.batch[0], &job))
                {
                    rows += job.rows;
                    if let Some(is_taken) = &job.is_taken {
                        is_taken.store(true, Ordering::Relaxed);
                    }
                    taken.batch.push(job);
                } else {
                    kept.push_back(job);
                }
                if rows >= max_rows {
                    break;
                }
            }
            kept.append(level);
            *level = kept;
            if rows >= max_rows {
                break;
            }
        }
        self.levels.retain(|_, level| !level.is_empty());
        taken
    }

    /// Takes the jobs out of whose answer nobody has any use. The others keep their order.
    pub(super) fn take_dead(&mut self, now: Instant) -> Vec<Job> {
        let mut dead = Vec::new();
        for level in self.levels.values_mut() {
            let (gone, kept) = std::mem::take(level).into_iter().partition::<Vec<_>, _>(|job| job.is_dead(now));
            dead.extend(gone);
            *level = kept.into();
        }
        self.levels.retain(|_, level| !level.is_empty());
        dead
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::domain::{DataType, Shape};

    type Answer = oneshot::Receiver<Result<Executed, LaneError>>;

    fn job(name: &str, rows: usize, width: i64, priority: u64, at: Instant) -> (Job, Answer) {
        let shape = Shape::new(vec![i64::try_from(rows).unwrap(), width]).unwrap();
        let bytes = Bytes::from(vec![0; shape.elements()]);
        let tensor = Tensor::plain(name, DataType::Uint8, shape, bytes).unwrap();
        let (reply, answer) = oneshot::channel();
        let job = Job {
            inputs: Arc::from([tensor]),
            outputs: Places::from_slice(&[0]),
            rows,
            bytes: 0,
            is_joinable: true,
            priority: Priority::from_wire(priority).unwrap(),
            queued_at: at,
            deadline: None,
            is_taken: Some(Arc::default()),
            reply,
        };
        (job, answer)
    }

    fn widths(taken: &Taken) -> Vec<(usize, i64)> {
        taken.batch.iter().map(|job| (job.rows, job.inputs[0].shape().dimensions()[1])).collect()
    }

    #[test]
    fn jobs_of_one_shape_run_together_up_to_the_limit_and_others_keep_their_place() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let mut answers = Vec::new();
        for (rows, width) in [(1, 3), (2, 3), (1, 5), (4, 3), (1, 3), (1, 5)] {
            let (job, answer) = job("x", rows, width, 10, now);
            backlog.push(job);
            answers.push(answer);
        }
        assert_eq!(widths(&backlog.take(now, 4)), [(1, 3), (2, 3), (1, 3)]);
        assert_eq!(widths(&backlog.take(now, 4)), [(1, 5), (1, 5)]);
        assert_eq!(widths(&backlog.take(now, 4)), [(4, 3)]);
        assert!(backlog.take(now, 4).batch.is_empty() && backlog.oldest().is_none());
    }

    #[test]
    fn larger_job_than_a_batch_runs_alone() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let (large, _large) = job("x", 9, 3, 10, now);
        let (small, _small) = job("x", 1, 3, 10, now);
        backlog.push(large);
        backlog.push(small);
        assert_eq!(widths(&backlog.take(now, 4)), [(9, 3)]);
        assert_eq!(widths(&backlog.take(now, 4)), [(1, 3)]);
    }

    #[test]
    fn more_urgent_jobs_run_first() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let mut answers = Vec::new();
        for (rows, priority) in [(1, 10), (2, 1), (3, 10), (4, 1)] {
            let (job, answer) = job("x", rows, 3, priority, now);
            backlog.push(job);
            answers.push(answer);
        }
        let order: Vec<_> = (0..4).map(|_| widths(&backlog.take(now, 1))[0].0).collect();
        assert_eq!(order, [2, 4, 1, 3]);
    }

    #[test]
    fn expired_and_abandoned_jobs_are_not_run() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let (mut expired, _expired) = job("x", 1, 3, 10, now);
        expired.deadline = Some(now);
        let (abandoned, _) = job("x", 2, 3, 10, now);
        let (mut live, _live) = job("x", 3, 3, 10, now);
        live.deadline = Some(now + Duration::from_nanos(1));
        for job in [expired, abandoned, live] {
            backlog.push(job);
        }
        let taken = backlog.take(now, 64);
        assert_eq!((widths(&taken), taken.dropped.len()), (vec![(3, 3)], 2));
    }

    #[test]
    fn job_that_gives_an_input_of_the_models_defaults_runs_alone() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let mut answers = Vec::new();
        for is_joinable in [true, false, true, false] {
            let (mut job, answer) = job("x", 1, 3, 10, now);
            job.is_joinable = is_joinable;
            backlog.push(job);
            answers.push(answer);
        }
        let batches: Vec<usize> = (0..4).map(|_| backlog.take(now, 64).batch.len()).collect();
        assert_eq!(batches, [2, 1, 1, 0]);
    }

    #[test]
    fn jobs_that_name_inputs_or_outputs_otherwise_do_not_run_together() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let (first, _first) = job("x", 1, 3, 10, now);
        let (renamed, _renamed) = job("y", 1, 3, 10, now);
        let (mut other, _other) = job("x", 1, 3, 10, now);
        other.outputs = Places::from_slice(&[1]);
        for job in [first, renamed, other] {
            backlog.push(job);
        }
        for _ in 0..3 {
            assert_eq!(backlog.take(now, 64).batch.len(), 1);
        }
    }
}
