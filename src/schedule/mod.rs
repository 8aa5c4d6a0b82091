//! One bounded queue and one worker thread per model version.
//!
//! A [`Lane`] is the only way to a model: the worker thread owns it, so nothing else can run
//! it, and drops it when the last handle of the lane is gone, never on a request's thread.
//! A full queue is an answer ([`LaneError::Full`]), not a wait. Work whose caller has gone is
//! skipped.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::Tensor,
    engine::{EngineError, Model},
    fault::{ErrorCode, Fault},
};

/// What a lane answers with.
#[derive(Debug, Default)]
pub struct Executed {
    pub outputs: Vec<Tensor>,
    /// From the hand-over to the queue until its run began.
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
    Full,
    #[error("the model version is being unloaded: try again")]
    Closed,
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Fault for LaneError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Full => ErrorCode::Overloaded,
            Self::Closed => ErrorCode::Unavailable,
            Self::Engine(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Full | Self::Closed => self.to_string(),
            Self::Engine(error) => error.message(),
        }
    }
}

struct Job {
    inputs: Arc<[Tensor]>,
    outputs: Vec<String>,
    queued_at: Instant,
    reply: oneshot::Sender<Result<Executed, LaneError>>,
}

/// The queue of a model version. Dropping the last one ends the worker and the model.
#[derive(Debug)]
pub struct Lane {
    jobs: mpsc::Sender<Job>,
}

/// A submitted request: its answer is on the way.
#[derive(Debug)]
pub struct Pending {
    reply: oneshot::Receiver<Result<Executed, LaneError>>,
}

impl Lane {
    /// Starts a worker that owns `model`. At most `queue` requests wait; `retired` is called on
    /// the worker once the model is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        name: &str,
        model: Box<dyn Model>,
        queue: usize,
        retired: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(queue);
        // Linux shows 15 bytes of a thread's name.
        thread::Builder::new().name(format!("run {name}")).spawn(move || {
            work(model, waiting);
            retired();
        })?;
        Ok(Self { jobs })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// At once, when the queue is full or the lane has ended.
    pub fn submit(&self, inputs: Arc<[Tensor]>, outputs: Vec<String>) -> Result<Pending, LaneError> {
        let (reply, receiver) = oneshot::channel();
        let job = Job { inputs, outputs, queued_at: Instant::now(), reply };
        self.jobs.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => LaneError::Full,
            mpsc::error::TrySendError::Closed(_) => LaneError::Closed,
        })?;
        Ok(Pending { reply: receiver })
    }
}

impl Pending {
    /// # Errors
    /// When the model failed, or the lane ended before it ran.
    pub async fn wait(self) -> Result<Executed, LaneError> {
        self.reply.await.unwrap_or(Err(LaneError::Closed))
    }
}

fn work(mut model: Box<dyn Model>, mut waiting: mpsc::Receiver<Job>) {
    while let Some(job) = waiting.blocking_recv() {
        if job.reply.is_closed() {
            continue;
        }
        let answer = run(model.as_mut(), &job);
        // The caller may have gone meanwhile: its answer is then of no use to anybody.
        let _ = job.reply.send(answer);
    }
}

fn run(model: &mut dyn Model, job: &Job) -> Result<Executed, LaneError> {
    let started = Instant::now();
    let queue = started.duration_since(job.queued_at);
    // A panic is a bug, but it must cost one request, not the version.
    let outputs = catch_unwind(AssertUnwindSafe(|| model.run(&job.inputs, &job.outputs)))
        .unwrap_or_else(|_| Err(EngineError::Failed("the engine panicked".into())))?;
    let run_rows = job.inputs.first().map_or(1, |input| input.shape().rows());
    Ok(Executed {
        outputs,
        queue,
        inference: started.elapsed(),
        run_rows,
        is_first_of_run: true,
        ..Executed::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use super::*;
    use crate::domain::Signature;

    /// Runs when told to, and can panic.
    struct Scripted {
        signature: Arc<Signature>,
        started: std_mpsc::Sender<()>,
        go: std_mpsc::Receiver<bool>,
    }

    impl Model for Scripted {
        fn signature(&self) -> &Arc<Signature> {
            &self.signature
        }

        fn run(&mut self, _: &[Tensor], _: &[String]) -> Result<Vec<Tensor>, EngineError> {
            self.started.send(()).unwrap();
            if self.go.recv().unwrap() { Ok(vec![]) } else { panic!("as told") }
        }
    }

    struct Rig {
        lane: Lane,
        started: std_mpsc::Receiver<()>,
        go: std_mpsc::Sender<bool>,
        retired: std_mpsc::Receiver<()>,
    }

    fn rig(queue: usize) -> Rig {
        let (started_sender, started) = std_mpsc::channel();
        let (go, go_receiver) = std_mpsc::channel();
        let (retired_sender, retired) = std_mpsc::channel();
        let signature = Arc::new(Signature { inputs: vec![], outputs: vec![] });
        let model = Scripted { signature, started: started_sender, go: go_receiver };
        let lane = Lane::start("m", Box::new(model), queue, move || retired_sender.send(()).unwrap()).unwrap();
        Rig { lane, started, go, retired }
    }

    fn submit(lane: &Lane) -> Result<Pending, LaneError> {
        lane.submit(Arc::from([]), vec![])
    }

    #[tokio::test]
    async fn full_queue_refuses_at_once() {
        let rig = rig(1);
        let running = submit(&rig.lane).unwrap();
        rig.started.recv().unwrap();
        let waiting = submit(&rig.lane).unwrap();
        assert!(matches!(submit(&rig.lane), Err(LaneError::Full)));
        rig.go.send(true).unwrap();
        rig.go.send(true).unwrap();
        running.wait().await.unwrap();
        waiting.wait().await.unwrap();
    }

    #[tokio::test]
    async fn abandoned_work_is_skipped() {
        let rig = rig(8);
        let running = submit(&rig.lane).unwrap();
        rig.started.recv().unwrap();
        drop(submit(&rig.lane).unwrap());
        let last = submit(&rig.lane).unwrap();
        rig.go.send(true).unwrap();
        rig.go.send(true).unwrap();
        running.wait().await.unwrap();
        last.wait().await.unwrap();
        assert_eq!(rig.started.try_iter().count(), 1, "only the last one ran after the first");
    }

    #[tokio::test]
    async fn panic_costs_one_request_and_not_the_lane() {
        let rig = rig(8);
        let first = submit(&rig.lane).unwrap();
        let second = submit(&rig.lane).unwrap();
        rig.go.send(false).unwrap();
        rig.go.send(true).unwrap();
        assert_eq!(first.wait().await.unwrap_err().code(), ErrorCode::Internal);
        second.wait().await.unwrap();
    }

    #[tokio::test]
    async fn dropped_lane_finishes_its_work_then_retires() {
        let rig = rig(8);
        let pending = submit(&rig.lane).unwrap();
        drop(rig.lane);
        assert!(rig.retired.try_recv().is_err());
        rig.go.send(true).unwrap();
        pending.wait().await.unwrap();
        rig.retired.recv().unwrap();
    }
}
