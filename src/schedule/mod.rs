//! When and where a version runs.
//!
//! A [`Lane`] is the only way to a model. It is bounded: what cannot run soon is refused at once
//! ([`LaneError::Full`]), with the time after which trying again makes sense; what expires or is
//! abandoned while it waits is dropped before it runs, and keeps no place from anybody.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `lane` | the three ways of a request: in place, gathered, on the pool; and a run aside of them |
//! | `queue` | the order of what waits, and what runs together |
//! | `batch` | requests joined for one run, outputs split again |
//! | `cost` | what runs cost, measured |
//! | `plan` | where runs happen and how many rows they have, by what they cost |
//! | `target` | batch size and delay chosen for a target latency |
//! | `trial` | a model tried out before it serves |
//! | `agreement` | whether an answer is the same alone and among others |
//! | `claims` | a model of who forms the next batch, checked in every order of steps (tests only) |
//! | `pool` | the threads of costly runs, shared fairly; where models are dropped |

mod agreement;
mod batch;
#[doc(hidden)]
pub mod bench_support;
#[cfg(test)]
mod claims;
mod cost;
mod lane;
mod plan;
mod pool;
mod queue;
mod target;
mod trial;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::lane::Core;
pub use self::{
    pool::Pool,
    trial::{Known, Sample, Stopwatch, Trial, run_once, seen_outputs, thread_time, wall_time},
};
use crate::{
    domain::{Places, Priority, ServingSettings, Tensor},
    engine::{EngineError, Model},
    fault::{ErrorCode, Fault},
    independence::Verdict,
};

/// A request for a lane.
#[derive(Debug)]
pub struct Work {
    pub inputs: Arc<[Tensor]>,
    /// Places of the wanted outputs in the model's signature.
    pub outputs: Places,
    /// `None`: the model's default.
    pub priority: Option<Priority>,
    /// Work that has not begun by then is dropped.
    pub deadline: Option<Instant>,
    /// Nobody waits for the answer: never run on the thread of a request.
    pub is_background: bool,
}

impl Work {
    /// The rows of the request: of its first input.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.inputs.first().map_or(1, |input| input.shape().rows())
    }
}

/// What a lane answers with.
#[derive(Debug, Default)]
pub struct Executed {
    pub outputs: Arc<[Tensor]>,
    /// From the request's arrival at the lane until its run began.
    pub queue: Duration,
    /// The gathering of the run's inputs.
    pub input: Duration,
    /// The run of the model.
    pub inference: Duration,
    /// The splitting of the run's outputs.
    pub output: Duration,
    /// Rows of the whole run.
    pub run_rows: usize,
    /// True for one of the requests that ran together: the one that stands for the run.
    pub is_first_of_run: bool,
}

/// Why a lane gave no outputs.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("too many requests are waiting for this model: try again later")]
    Full {
        /// How long what waits will take, by the measured cost of runs.
        retry_after: Duration,
    },
    #[error("the deadline passed before the model could run")]
    DeadlineExceeded,
    #[error("the model version is being unloaded: try again")]
    Closed,
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Fault for LaneError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Full { .. } => ErrorCode::Overloaded,
            Self::DeadlineExceeded => ErrorCode::DeadlineExceeded,
            Self::Closed => ErrorCode::Unavailable,
            Self::Engine(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Engine(error) => error.message(),
            own => own.to_string(),
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            // Whole seconds are all that the header can say.
            Self::Full { retry_after } => {
                Some(u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).saturating_add(1).min(60))
            }
            other => other.code().retry_after(),
        }
    }
}

/// Where runs of a version happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On the thread of the request: they are cheap.
    Request,
    /// On a thread of the pool.
    Pool,
}

impl Placement {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Pool => "pool",
        }
    }
}

/// A lane at one moment, for operators.
#[derive(Debug, Clone)]
pub struct LaneStatus {
    pub placement: Placement,
    /// What a run of one row takes now; zero when none was measured.
    pub run: Duration,
    /// What a row takes in the best batch.
    pub per_row: Duration,
    /// Rows that may run together; 1 when requests run alone.
    pub max_batch_rows: usize,
    /// How long a batch waits for more.
    pub max_delay: Duration,
    /// Runs that may happen at the same time.
    pub instances: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Why requests run alone; `None` when they are joined.
    pub alone: Option<String>,
    /// A joined run has shown that requests must run alone, against what was found before.
    pub is_merging_stopped: bool,
    /// What the model's graph says of its rows.
    pub verdict: Arc<Verdict>,
}

/// The way to a model. When the last handle is gone the model is dropped, on a thread that
/// serves nobody.
#[derive(Debug)]
pub struct Lane {
    core: Arc<Core>,
}

impl Lane {
    /// A lane for `model`, as `trial` found it. `retired` is called once the model is dropped.
    #[must_use]
    pub fn new(
        model: Box<dyn Model>,
        settings: Arc<ServingSettings>,
        trial: Trial,
        pool: Pool,
        retired: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self { core: Arc::new(Core::new(model, settings, trial, pool, retired)) }
    }

    /// Runs a request, now or when its turn comes. Dropping the future takes the request out of
    /// the queue.
    ///
    /// # Errors
    /// At once when the queue is full; later when the deadline passed or the model failed.
    pub async fn execute(&self, work: Work) -> Result<Executed, LaneError> {
        self.core.execute(work).await
    }

    /// Runs `work` on this thread, past the queue: for work that nobody waits for, on a thread that is
    /// not the requests'. `None` when that would take a run from a request.
    #[must_use]
    pub fn run_aside(&self, work: &Work) -> Option<Result<Executed, LaneError>> {
        self.core.run_aside(work)
    }

    /// Whether a request of `bytes` would be queued now.
    ///
    /// # Errors
    /// [`LaneError::Full`] when not.
    pub fn accepts(&self, bytes: usize) -> Result<(), LaneError> {
        self.core.accepts(1, bytes)
    }

    /// `teller` hears, once, why requests are not joined any more. On the thread of a run: it must not wait.
    pub fn tell_stop_to(&self, teller: impl Fn(&str) + Send + Sync + 'static) {
        self.core.tell_stop_to(teller);
    }

    #[must_use]
    pub fn status(&self) -> LaneStatus {
        self.core.status()
    }
}

#[cfg(test)]
mod tests;
