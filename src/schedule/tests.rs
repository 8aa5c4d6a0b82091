//! Lanes with models that do as they are told.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::*;
use crate::{
    domain::{BatchLimits, Batching, DataType, Dim, Places, Shape, Signature, TensorSpec},
    independence::{BatchAxis, Proof, Reason},
};

/// Gives back its input, after `cost`; notes the rows of each run. A row of 255 is refused, one of
/// 254 panics.
struct Echo {
    signature: Arc<Signature>,
    cost: Duration,
    runs: Arc<Mutex<Vec<usize>>>,
    at_once: AtomicUsize,
    most_at_once: Arc<AtomicUsize>,
    /// When given, each run says that it began and waits for a word.
    gate: Option<(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>)>,
    is_concurrent: bool,
}

impl Model for Echo {
    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn is_concurrent(&self) -> bool {
        self.is_concurrent
    }

    fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        self.runs.lock().unwrap().push(inputs[0].shape().rows());
        if let Some((began, go)) = &self.gate {
            began.send(()).unwrap();
            go.lock().unwrap().recv().unwrap();
        }
        if !self.cost.is_zero() {
            thread::sleep(self.cost);
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let raw = inputs[0].to_raw();
        assert!(!raw.contains(&254), "as told");
        if raw.contains(&255) { Err(EngineError::Refused("255".into())) } else { Ok(inputs.to_vec()) }
    }
}

fn signature() -> Arc<Signature> {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: DataType::Uint8,
        shape: vec![Dim::Any, Dim::Fixed(1)],
        optional: false,
    };
    Arc::new(Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] })
}

fn settings() -> ServingSettings {
    ServingSettings {
        max_queue: 1024,
        max_queue_bytes: 1 << 20,
        max_wait: Duration::from_mins(1),
        instances: 1,
        inline_limit: Duration::from_micros(250),
        default_priority: Priority::from_wire(10).unwrap(),
        default_timeout: None,
        batching: Batching::On(BatchLimits { max_rows: 8, max_delay: Duration::ZERO, target_p99: None }),
    }
}

fn trial(cost: Duration, useful_rows: usize) -> Trial {
    let verdict = Arc::new(Verdict::Independent(Proof::default()));
    let trial = Trial { useful_rows, verdict, alone: None, ..Trial::none() };
    trial.costs.record(1, cost);
    trial
}

struct Rig {
    lane: Arc<Lane>,
    runs: Arc<Mutex<Vec<usize>>>,
    most_at_once: Arc<AtomicUsize>,
    began: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
    retired: mpsc::Receiver<String>,
}

/// A lane with `cost` expected of each run; `is_gated` runs begin and end when told.
fn rig(cost: Duration, settings: ServingSettings, is_gated: bool) -> Rig {
    rig_on(&Pool::start(2, Handle::current()).unwrap(), cost, settings, is_gated, true)
}

fn rig_on(pool: &Pool, cost: Duration, settings: ServingSettings, is_gated: bool, is_concurrent: bool) -> Rig {
    let (began_sender, began) = mpsc::channel();
    let (go, go_receiver) = mpsc::channel();
    let (retired_sender, retired) = mpsc::channel();
    let (runs, most_at_once) = (Arc::default(), Arc::default());
    let model = Echo {
        signature: signature(),
        cost: if is_gated { Duration::ZERO } else { cost },
        runs: Arc::clone(&runs),
        at_once: AtomicUsize::new(0),
        most_at_once: Arc::clone(&most_at_once),
        gate: is_gated.then(|| (began_sender, Mutex::new(go_receiver))),
        is_concurrent,
    };
    let retired_sender = Mutex::new(retired_sender);
    let lane = Lane::new(Box::new(model), Arc::new(settings), trial(cost, 8), pool.clone(), move || {
        let name = thread::current().name().unwrap_or_default().to_owned();
        retired_sender.lock().unwrap().send(name).unwrap();
    });
    Rig { lane: Arc::new(lane), runs, most_at_once, began, go, retired }
}

fn work(rows: &[u8]) -> Work {
    let shape = Shape::new(vec![i64::try_from(rows.len()).unwrap(), 1]).unwrap();
    let tensor = Tensor::plain("x", DataType::Uint8, shape, Bytes::copy_from_slice(rows)).unwrap();
    Work {
        inputs: Arc::from([tensor]),
        outputs: Places::from_slice(&[0]),
        priority: None,
        deadline: None,
        is_background: false,
    }
}

fn submit(lane: &Arc<Lane>, work: Work) -> tokio::task::JoinHandle<Result<Executed, LaneError>> {
    let lane = Arc::clone(lane);
    tokio::spawn(async move { lane.execute(work).await })
}

fn answer(executed: &Executed) -> Bytes {
    executed.outputs[0].to_raw()
}

/// Lets tasks run until `done`.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not come to pass");
}

const CHEAP: Duration = Duration::from_micros(5);
const COSTLY: Duration = Duration::from_millis(10);

#[tokio::test]
async fn cheap_run_happens_on_the_thread_of_the_request() {
    // However long the machine takes for the run that is measured here, it counts as cheap.
    let settings = ServingSettings { inline_limit: Duration::from_mins(1), ..settings() };
    let rig = rig(CHEAP, settings, false);
    tokio::time::sleep(Duration::from_millis(5)).await;
    // A future that is ready when first polled was handed to nobody.
    let executed = futures_now(rig.lane.execute(work(&[7]))).unwrap().unwrap();
    assert_eq!((&answer(&executed)[..], executed.run_rows), (&[7][..], 1));
    assert_eq!(rig.lane.status().placement, Placement::Request);
}

/// The output of a future that is ready at once.
fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn requests_that_wait_run_together_and_get_their_own_rows() {
    let rig = rig(COSTLY, settings(), true);
    let first = submit(&rig.lane, work(&[1]));
    until(|| rig.began.try_recv().is_ok()).await;
    let (second, third) = (submit(&rig.lane, work(&[2, 3])), submit(&rig.lane, work(&[4])));
    until(|| rig.lane.status().waiting == 2).await;
    rig.go.send(()).unwrap();
    rig.go.send(()).unwrap();
    let (first, second, third) = (first.await.unwrap(), second.await.unwrap(), third.await.unwrap());
    assert_eq!(*rig.runs.lock().unwrap(), [1, 3]);
    let (second, third) = (second.unwrap(), third.unwrap());
    assert_eq!(
        (&answer(&first.unwrap())[..], &answer(&second)[..], &answer(&third)[..]),
        (&[1][..], &[2, 3][..], &[4][..])
    );
    assert_eq!((second.run_rows, second.is_first_of_run, third.is_first_of_run), (3, true, false));
}

#[tokio::test]
async fn refused_request_does_not_hurt_its_neighbours() {
    let rig = rig(COSTLY, settings(), true);
    let first = submit(&rig.lane, work(&[1]));
    until(|| rig.began.try_recv().is_ok()).await;
    let all: Vec<_> = [2, 255, 254, 3].map(|row| submit(&rig.lane, work(&[row]))).into();
    until(|| rig.lane.status().waiting == 4).await;
    for _ in 0..6 {
        rig.go.send(()).unwrap();
    }
    first.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for one in all {
        answers.push(one.await.unwrap().map_err(|error| error.code()).map(|executed| answer(&executed)));
    }
    let (bad, bug) = (Err(ErrorCode::BadRequest), Err(ErrorCode::Internal));
    assert_eq!(answers, [Ok(Bytes::from_static(&[2])), bad, bug, Ok(Bytes::from_static(&[3]))]);
}

#[tokio::test]
async fn full_queue_refuses_at_once_and_says_when_to_come_back() {
    let rig = rig(Duration::from_secs(2), ServingSettings { max_queue: 1, ..settings() }, true);
    let running = submit(&rig.lane, work(&[1]));
    until(|| rig.began.try_recv().is_ok()).await;
    let waiting = submit(&rig.lane, work(&[2]));
    until(|| rig.lane.status().waiting == 1).await;
    let refused = rig.lane.execute(work(&[3])).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry_after()), (ErrorCode::Overloaded, Some(5)));
    rig.go.send(()).unwrap();
    rig.go.send(()).unwrap();
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn bytes_and_the_expected_wait_are_bounded_too() {
    let limits = [
        ServingSettings { max_queue_bytes: 3, ..settings() },
        ServingSettings { max_wait: Duration::from_millis(25), ..settings() },
    ];
    for limits in limits {
        let rig = rig(COSTLY, limits, true);
        let running = submit(&rig.lane, work(&[1]));
        until(|| rig.began.try_recv().is_ok()).await;
        let waiting = submit(&rig.lane, work(&[2, 3]));
        until(|| rig.lane.status().waiting == 1).await;
        assert_eq!(rig.lane.execute(work(&[4, 5])).await.unwrap_err().code(), ErrorCode::Overloaded);
        rig.go.send(()).unwrap();
        rig.go.send(()).unwrap();
        running.await.unwrap().unwrap();
        waiting.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn abandoned_and_expired_work_is_not_run() {
    let rig = rig(COSTLY, settings(), true);
    let running = submit(&rig.lane, work(&[1]));
    until(|| rig.began.try_recv().is_ok()).await;
    let abandoned = submit(&rig.lane, work(&[2]));
    let soon = Instant::now() + Duration::from_millis(20);
    let expired = submit(&rig.lane, Work { deadline: Some(soon), ..work(&[3]) });
    until(|| rig.lane.status().waiting == 2).await;
    abandoned.abort();
    assert_eq!(expired.await.unwrap().unwrap_err().code(), ErrorCode::DeadlineExceeded);
    rig.go.send(()).unwrap();
    running.await.unwrap().unwrap();
    until(|| rig.lane.status().waiting == 0).await;
    assert_eq!(*rig.runs.lock().unwrap(), [1]);
    let late = Work { deadline: Some(Instant::now()), ..work(&[4]) };
    assert_eq!(rig.lane.execute(late).await.unwrap_err().code(), ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn abandoned_and_expired_work_keeps_no_place() {
    let limits = [
        ServingSettings { max_queue: 2, ..settings() },
        ServingSettings { max_queue_bytes: 5, ..settings() },
        ServingSettings { max_wait: Duration::from_millis(55), ..settings() },
    ];
    for limits in limits {
        let rig = rig(COSTLY, limits, true);
        let running = submit(&rig.lane, work(&[1]));
        until(|| rig.began.try_recv().is_ok()).await;
        let soon = Instant::now() + Duration::from_millis(20);
        let expired = submit(&rig.lane, Work { deadline: Some(soon), ..work(&[2, 3]) });
        let abandoned = submit(&rig.lane, work(&[4, 5]));
        until(|| rig.lane.status().waiting == 2).await;
        assert_eq!(rig.lane.execute(work(&[6, 7])).await.unwrap_err().code(), ErrorCode::Overloaded);
        expired.await.unwrap().unwrap_err();
        abandoned.abort();
        abandoned.await.unwrap_err();
        rig.lane.accepts(2).unwrap();
        let live = submit(&rig.lane, work(&[8, 9]));
        until(|| rig.lane.status().waiting == 1).await;
        rig.go.send(()).unwrap();
        rig.go.send(()).unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(&answer(&live.await.unwrap().unwrap())[..], [8, 9]);
    }
}

#[tokio::test]
async fn run_that_has_begun_is_answered_after_its_deadline() {
    let rig = rig(COSTLY, settings(), true);
    let soon = Instant::now() + Duration::from_millis(30);
    let running = submit(&rig.lane, Work { deadline: Some(soon), ..work(&[1]) });
    until(|| rig.began.try_recv().is_ok()).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    rig.go.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn batch_waits_for_its_delay_but_no_longer_than_until_it_is_full() {
    let limits = BatchLimits { max_rows: 4, max_delay: Duration::from_secs(600), target_p99: None };
    let rig = rig(CHEAP, ServingSettings { batching: Batching::On(limits), ..settings() }, false);
    let all: Vec<_> = (0..4).map(|row| submit(&rig.lane, work(&[row]))).collect();
    for (row, one) in all.into_iter().enumerate() {
        assert_eq!(&answer(&one.await.unwrap().unwrap())[..], [u8::try_from(row).unwrap()]);
    }
    assert_eq!(*rig.runs.lock().unwrap(), [4]);
}

#[tokio::test]
async fn lone_request_waits_for_the_delay_and_runs() {
    let limits = BatchLimits { max_rows: 4, max_delay: Duration::from_millis(20), target_p99: None };
    let rig = rig(CHEAP, ServingSettings { batching: Batching::On(limits), ..settings() }, false);
    let executed = rig.lane.execute(work(&[1])).await.unwrap();
    assert!(executed.queue >= Duration::from_millis(20), "{:?}", executed.queue);
}

#[tokio::test]
async fn dropped_lane_finishes_its_work_and_drops_the_model_elsewhere() {
    let rig = rig(COSTLY, settings(), true);
    let running = submit(&rig.lane, work(&[1]));
    until(|| rig.began.try_recv().is_ok()).await;
    drop(rig.lane);
    assert!(rig.retired.try_recv().is_err());
    rig.go.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(rig.retired.recv().unwrap(), "retire");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_bound_the_runs_at_once_and_one_is_enough_for_models_that_want_it() {
    for (instances, is_concurrent, most) in [(2, true, 2), (4, false, 1)] {
        let pool = Pool::start(4, Handle::current()).unwrap();
        let limits = ServingSettings { instances, batching: Batching::Off, ..settings() };
        let rig = rig_on(&pool, Duration::from_millis(2), limits, false, is_concurrent);
        let all: Vec<_> = (0..40).map(|row| submit(&rig.lane, work(&[row]))).collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
        assert_eq!(rig.most_at_once.load(Ordering::SeqCst), most);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn busy_version_does_not_starve_another() {
    let pool = Pool::start(1, Handle::current()).unwrap();
    let alone = || ServingSettings { batching: Batching::Off, ..settings() };
    let busy = rig_on(&pool, Duration::from_millis(5), alone(), false, true);
    let calm = rig_on(&pool, Duration::from_millis(5), alone(), false, true);
    let flood: Vec<_> = (0..100).map(|row| submit(&busy.lane, work(&[row]))).collect();
    until(|| busy.lane.status().waiting > 50).await;
    for row in 0..5 {
        calm.lane.execute(work(&[row])).await.unwrap();
    }
    // Each of the five waited for a run or two of the other, not for the hundred before it.
    let before = busy.runs.lock().unwrap().len();
    assert!(before < 60, "{before}");
    for one in flood {
        one.await.unwrap().unwrap();
    }
}

/// Every request is answered, with its own rows, whichever way it went: a lost wake-up would hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_lost_or_mixed_up_under_load() {
    for (cost, instances) in [(CHEAP, 1), (CHEAP, 3), (Duration::from_micros(300), 2)] {
        let rig = rig(cost, ServingSettings { instances, ..settings() }, false);
        let clients: Vec<_> = (0..32_u8)
            .map(|client| {
                let lane = Arc::clone(&rig.lane);
                tokio::spawn(async move {
                    for round in 0..200_u8 {
                        let rows = [client, round];
                        if round % 50 == 3 {
                            // Goes away before it is answered.
                            drop(futures_now(lane.execute(work(&rows))));
                            continue;
                        }
                        let executed = lane.execute(work(&rows)).await.unwrap();
                        assert_eq!(&answer(&executed)[..], rows);
                    }
                })
            })
            .collect();
        for client in clients {
            tokio::time::timeout(Duration::from_secs(60), client).await.unwrap().unwrap();
        }
        until(|| rig.lane.status().waiting == 0).await;
    }
}

/// A trial on a busy machine may find that larger batches are no faster. Requests show that they are.
#[tokio::test]
async fn batches_that_did_not_pay_when_tried_are_found_under_load() {
    let pool = Pool::start(1, Handle::current()).unwrap();
    for inline_limit in [Duration::from_mins(1), Duration::ZERO] {
        let settings = ServingSettings { inline_limit, ..settings() };
        let model = Echo {
            signature: signature(),
            cost: Duration::from_micros(100),
            runs: Arc::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: Arc::default(),
            gate: None,
            is_concurrent: true,
        };
        let alone = Some("larger batches are no faster per row".to_owned());
        let trial = Trial { can_join: true, alone: alone.clone(), ..Trial::none() };
        let lane = Arc::new(Lane::new(Box::new(model), Arc::new(settings), trial, pool.clone(), || {}));
        assert_eq!((lane.status().max_batch_rows, lane.status().alone), (1, alone));
        for _ in 0..10_000 {
            if lane.status().max_batch_rows == 8 {
                break;
            }
            let requests: Vec<_> = (0..32).map(|row| submit(&lane, work(&[row]))).collect();
            for (row, request) in (0..).zip(requests) {
                assert_eq!(answer(&request.await.unwrap().unwrap())[..], [row]);
            }
        }
        assert_eq!((lane.status().max_batch_rows, lane.status().alone), (8, None));
    }
}

/// What something holds up for once is not made to wait for all others besides.
#[test]
fn run_that_was_held_up_counts_on_the_pool_as_a_few_of_the_usual_ones() {
    const MILLISECOND: u64 = 1_000_000;
    let used = lane::UsedTime::default();
    for _ in 0..10 {
        used.add(Duration::from_millis(5));
    }
    assert_eq!(used.raise_to(0), 50 * MILLISECOND);
    used.add(Duration::from_secs(10));
    assert_eq!(used.raise_to(0), (50 + 160) * MILLISECOND);
    // Runs that have become long count as they are, soon.
    for _ in 0..10 {
        used.add(Duration::from_secs(10));
    }
    let before = used.raise_to(0);
    used.add(Duration::from_secs(10));
    assert_eq!(used.raise_to(0) - before, 10_000 * MILLISECOND);
}

mod crowd;
mod merging;
mod trials;
