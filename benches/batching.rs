//! What joining requests costs: 64 requests joined and split again, and 64 requests through a
//! lane, each run in place against all of them gathered. The model does nothing.

use std::{sync::Arc, time::Duration};

use divan::{Bencher, counter::ItemsCount};
use tidegate::{
    domain::{BatchLimits, Batching, DataType, Dim, Priority, ServingSettings, Shape, Signature, Tensor, TensorSpec},
    engine::{EngineError, Model},
    independence::{Proof, Verdict},
    schedule::{Known, Lane, Pool, Trial, Work, bench_support, wall_time},
};
use tokio::{runtime::Runtime, task::JoinSet};

const REQUESTS: usize = 64;
/// Values of a row: those of the models `tiny` and `mlp` of the end-to-end benchmarks.
const WIDTHS: [usize; 2] = [30, 784];

fn main() {
    divan::main();
}

/// Gives back its inputs.
struct Echo(Arc<Signature>);

impl Model for Echo {
    fn signature(&self) -> &Arc<Signature> {
        &self.0
    }

    fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        Ok(inputs.to_vec())
    }
}

/// One row of FP32 values.
fn row(width: usize) -> Tensor {
    let shape = Shape::new(vec![1, i64::try_from(width).expect("a small number")]).expect("a small shape");
    let bytes = vec![0_u8; width * 4];
    Tensor::plain("x", DataType::Fp32, shape, bytes.into()).expect("as many bytes as the shape needs")
}

#[divan::bench(args = WIDTHS)]
fn join(bencher: Bencher<'_, '_>, width: usize) {
    let requests = vec![[row(width)]; REQUESTS];
    let lent: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(|| bench_support::join(&lent));
}

#[divan::bench(args = WIDTHS)]
fn split(bencher: Bencher<'_, '_>, width: usize) {
    let requests = vec![[row(width)]; REQUESTS];
    let lent: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
    let outputs = bench_support::join(&lent);
    let rows = || std::iter::repeat_n(1, REQUESTS);
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(|| bench_support::split(&outputs, rows()));
}

/// No request is joined with another.
#[divan::bench(args = WIDTHS)]
fn lane_in_place(bencher: Bencher<'_, '_>, width: usize) {
    through_a_lane(bencher, Batching::Off, width);
}

/// Requests come together, and so run together.
#[divan::bench(args = WIDTHS)]
fn lane_gathered(bencher: Bencher<'_, '_>, width: usize) {
    let limits = BatchLimits { max_rows: REQUESTS, max_delay: Duration::ZERO, target_p99: None };
    through_a_lane(bencher, Batching::On(limits), width);
}

/// Each request is a task on the one thread of its runtime, as in a gateway on one core.
fn through_a_lane(bencher: Bencher<'_, '_>, batching: Batching, width: usize) {
    let is_joined = matches!(batching, Batching::On(_));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let lane = Arc::new(lane(&runtime, batching, width));
    let inputs: Arc<[Tensor]> = Arc::from([row(width)]);
    let once = || runtime.block_on(all_at_once(&lane, &inputs));
    assert_eq!(once() > 1, is_joined, "requests take the way that is measured");
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(once);
}

/// The rows of the largest run.
async fn all_at_once(lane: &Arc<Lane>, inputs: &Arc<[Tensor]>) -> usize {
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let (lane, inputs) = (Arc::clone(lane), Arc::clone(inputs));
        requests.spawn(async move { lane.execute(work(inputs)).await });
    }
    let mut most = 0;
    while let Some(answer) = requests.join_next().await {
        most = most.max(answer.expect("no panic").expect("an answer").run_rows);
    }
    most
}

fn work(inputs: Arc<[Tensor]>) -> Work {
    Work { inputs, outputs: vec![0].into(), priority: None, deadline: None, is_background: false }
}

fn lane(runtime: &Runtime, batching: Batching, width: usize) -> Lane {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![Dim::Any, Dim::Fixed(width as u64)],
        optional: false,
    };
    let signature = Arc::new(Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] });
    let settings = Arc::new(ServingSettings {
        max_queue: 1024,
        max_queue_bytes: 1 << 30,
        max_wait: Duration::from_mins(1),
        instances: 1,
        inline_limit: Duration::from_secs(1),
        default_priority: Priority::from_wire(10).expect("not 0"),
        default_timeout: None,
        batching,
    });
    let model = Box::new(Echo(signature));
    let verdict = Arc::new(Verdict::Independent(Proof::default()));
    let trial = Trial::of(&*model, &settings, &Known { verdict, is_asked_for: true, samples: &[] }, wall_time);
    let pool = Pool::start(1, runtime.handle().clone()).expect("threads");
    Lane::new(model, settings, trial, pool, || {})
}
