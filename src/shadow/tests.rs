//! Copies on their way, with models that do as they are told.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::{
    domain::{Batching, DataType, Dim, Priority, ServingSettings, Shape, Signature, TensorSpec},
    engine::{EngineError, Model},
    monitor::Monitor,
    observe::{RecentBudget, RecentRequests, VersionMetrics},
    schedule::{Lane, Pool, Trial},
};

/// Gives back its input; 255 is refused, 254 panics. Each run waits for a word, where there is a gate.
struct Echo {
    signature: Arc<Signature>,
    gate: Option<Mutex<Receiver<()>>>,
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
        if let Some(gate) = &self.gate {
            // The sender is gone once the test has seen enough.
            let _ = gate.lock().unwrap().recv();
        }
        let raw = inputs[0].to_raw();
        assert!(!raw.contains(&254), "as told");
        if raw.contains(&255) { Err(EngineError::Refused("255".into())) } else { Ok(inputs.to_vec()) }
    }
}

fn tensor(values: &[u8]) -> Arc<[Tensor]> {
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap(), 1]).unwrap();
    Arc::from([Tensor::plain("x", DataType::Uint8, shape, values.to_vec().into()).unwrap()])
}

struct Rig {
    shadow: Shadow,
    servable: Arc<Servable>,
    /// Must live as long as the rig: it has the thread.
    _monitor: Monitor,
}

fn rig(max_queue: usize, max_queue_bytes: usize, gate: Option<Receiver<()>>) -> Rig {
    let metrics = Arc::new(Metrics::new());
    let monitor = Monitor::start(Arc::new(|| Duration::ZERO), 0).unwrap();
    let shadow =
        Shadow::start(ShadowOptions { threads: 1, max_queue, max_queue_bytes }, &monitor.handle(), &metrics).unwrap();
    let spec = TensorSpec {
        name: "x".into(),
        datatype: DataType::Uint8,
        shape: vec![Dim::Any, Dim::Fixed(1)],
        optional: false,
    };
    let signature = Arc::new(Signature { inputs: vec![spec.clone()], outputs: vec![spec] });
    let settings = Arc::new(ServingSettings {
        max_queue: 1,
        max_queue_bytes: 1,
        max_wait: Duration::from_secs(1),
        instances: 1,
        inline_limit: Duration::ZERO,
        default_priority: Priority::from_wire(1).unwrap(),
        default_timeout: None,
        batching: Batching::Off,
    });
    let model = Echo { signature: Arc::clone(&signature), gate: gate.map(Mutex::new), is_concurrent: true };
    let version = Version::new(2).unwrap();
    let pool = Pool::start(1, tokio::runtime::Handle::current()).unwrap();
    let servable = Servable {
        version,
        signature,
        settings: Arc::clone(&settings),
        facts: Arc::default(),
        lane: Lane::new(Box::new(model), settings, Trial::none(), pool, || ()),
        watch: Arc::default(),
        metrics: VersionMetrics::new(&metrics, &name(), version),
        recent: Arc::new(RecentRequests::new(0, RecentBudget::default())),
    };
    Rig { shadow, servable: Arc::new(servable), _monitor: monitor }
}

fn name() -> ModelName {
    "m".parse().unwrap()
}

impl Rig {
    fn offer(&self, inputs: Arc<[Tensor]>, outputs: Arc<[Tensor]>) {
        self.shadow.offer(Copied {
            model: name(),
            shadow: Arc::clone(&self.servable),
            live: Version::new(1).unwrap(),
            protocol: Protocol::Http,
            inputs,
            outputs,
            inference: Duration::from_millis(1),
        });
    }

    fn dropped(&self, reason: ShadowDrop) -> u64 {
        self.servable.metrics.shadow_drops().find(|(found, _)| *found == reason).unwrap().1
    }

    fn compared(&self) -> u64 {
        self.shadow.reports(&name(), self.servable.version).first().map_or(0, |report| report.copies)
    }

    fn wait(&self, is_there: impl Fn(&Self) -> bool) {
        while !is_there(self) {
            thread::yield_now();
        }
    }
}

#[tokio::test]
async fn copies_are_run_and_compared_with_the_answer() {
    let rig = rig(16, 1 << 20, None);
    rig.offer(tensor(&[1, 2]), tensor(&[1, 2]));
    rig.offer(tensor(&[3, 4]), tensor(&[3, 9]));
    rig.wait(|rig| rig.compared() == 2);
    let report = rig.shadow.reports(&name(), rig.servable.version).remove(0);
    let output = &report.outputs[0];
    assert_eq!((output.rows, output.agreement, output.max_difference), (4, Some(0.75), Some(5.0)));
    assert_eq!(rig.servable.metrics.answered().requests(), 2, "counted as answered in the role of the shadow");
}

#[tokio::test]
async fn offering_never_waits_and_what_does_not_fit_is_dropped_and_counted() {
    let (go, gate): (Sender<()>, _) = channel();
    let rig = rig(4, 1 << 20, Some(gate));
    // The shadow stands: one copy is with it at most, four wait.
    for _ in 0..20 {
        rig.offer(tensor(&[1]), tensor(&[1]));
    }
    let dropped = rig.dropped(ShadowDrop::QueueFull);
    assert!((15..=16).contains(&dropped), "{dropped}");
    drop(go);
    rig.wait(|rig| rig.compared() == 20 - dropped);
}

#[tokio::test]
async fn bytes_that_wait_are_bounded_but_one_large_copy_is_let_in() {
    let (go, gate): (Sender<()>, _) = channel();
    let rig = rig(64, 1, Some(gate));
    let large = vec![1; 10_000];
    rig.offer(tensor(&large), tensor(&large));
    // Not before the thread has taken it: what it runs does not wait.
    rig.wait(|rig| rig.shadow.shared.waiting_bytes.load(Ordering::Relaxed) == 0);
    rig.offer(tensor(&[1]), tensor(&[1]));
    rig.offer(tensor(&[1]), tensor(&[1]));
    assert_eq!(rig.dropped(ShadowDrop::QueueFull), 1);
    drop(go);
    rig.wait(|rig| rig.compared() == 2);
}

#[tokio::test]
async fn what_cannot_be_compared_is_dropped_by_its_reason_and_the_next_copy_is_run() {
    let rig = rig(16, 1 << 20, None);
    let renamed = {
        let shape = Shape::new(vec![1, 1]).unwrap();
        Arc::from([Tensor::plain("other", DataType::Uint8, shape, vec![1].into()).unwrap()])
    };
    rig.offer(Arc::clone(&renamed), tensor(&[1]));
    rig.offer(tensor(&[1]), renamed);
    rig.offer(tensor(&[255]), tensor(&[255]));
    rig.offer(tensor(&[254]), tensor(&[254]));
    rig.offer(tensor(&[1]), tensor(&[1]));
    rig.wait(|rig| rig.compared() == 1);
    assert_eq!((rig.dropped(ShadowDrop::Incompatible), rig.dropped(ShadowDrop::Failed)), (2, 2));
}
