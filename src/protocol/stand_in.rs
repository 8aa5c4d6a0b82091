//! A gateway for tests of the doors: it answers with its inputs, and remembers what it was asked.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;

use super::{BodyBudget, DoorOptions, Nonfinite, ServerSettings, data_plane::DataPlane, refusal::Refusal};
use crate::{
    domain::{
        BatchLimits, BatchStatistics, Batching, DataType, Dim, IndexEntry, InferReply, InferRequest, ModelName,
        ModelStatistics, Priority, Protocol, ServingSettings, Signature, Tally, Target, TensorSpec, Version,
    },
    fault::ErrorCode,
    gateway::ModelView,
};

/// Serves `echo` (versions 1 and 2); `panic` panics, `slow` waits for [`StandIn::let_go`],
/// `busy` is overloaded and `loading` unavailable. Any other model is unknown.
#[derive(Default)]
pub(super) struct StandIn {
    unready: AtomicBool,
    refusals: Mutex<Vec<(Option<String>, ErrorCode)>>,
    requests: Mutex<Vec<InferRequest>>,
    waiting: AtomicUsize,
    pub(super) begun: Notify,
    pub(super) let_go: Notify,
}

impl StandIn {
    pub(super) fn set_ready(&self, ready: bool) {
        self.unready.store(!ready, Ordering::Relaxed);
    }

    pub(super) fn refusals(&self) -> Vec<(Option<String>, ErrorCode)> {
        self.refusals.lock().unwrap().clone()
    }

    /// Requests that were begun, answered or not.
    pub(super) fn begun_requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Requests to `slow` that wait, neither let go nor cancelled.
    pub(super) fn waiting_requests(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn last_request(&self) -> InferRequest {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

/// Counts a request as waiting until it goes on or is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn one_of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Options of a door whose requests may have `limit` bytes.
pub(super) fn options(limit: usize) -> DoorOptions {
    DoorOptions {
        max_body_bytes: limit,
        budget: BodyBudget::new(16 * limit),
        body_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        max_age: None,
        cors: None,
        nonfinite: Nonfinite::Null,
        settings: ServerSettings::default(),
    }
}

fn known(model: &ModelName) -> Result<(), Refusal> {
    match model.as_str() {
        "echo" | "panic" | "slow" => Ok(()),
        "busy" => Err(Refusal::new(ErrorCode::Overloaded, "too many requests are waiting")),
        "loading" => Err(Refusal::new(ErrorCode::Unavailable, "model 'loading' is not ready")),
        name => Err(Refusal::new(ErrorCode::NotFound, format!("model '{name}' is unknown"))),
    }
}

fn settings() -> ServingSettings {
    ServingSettings {
        max_queue: 16,
        max_queue_bytes: 1 << 20,
        max_wait: Duration::from_secs(1),
        instances: 2,
        inline_limit: Duration::from_micros(250),
        default_priority: Priority::from_wire(10).expect("not 0"),
        default_timeout: None,
        batching: Batching::On(BatchLimits { max_rows: 64, max_delay: Duration::ZERO, target_p99: None }),
    }
}

impl DataPlane for StandIn {
    type Error = Refusal;

    async fn infer(&self, request: InferRequest) -> Result<InferReply, Refusal> {
        self.requests.lock().unwrap().push(request.clone());
        known(&request.model)?;
        if request.model.as_str() == "slow" {
            let _waiting = Waiting::one_of(&self.waiting);
            self.begun.notify_one();
            self.let_go.notified().await;
        }
        assert_ne!(request.model.as_str(), "panic", "a model that panics");
        let version = if let Target::Version(version) = request.target { version } else { Version::new(2).unwrap() };
        Ok(InferReply { model: request.model, version, id: request.id, outputs: request.inputs, violation: None })
    }

    fn refuse(&self, model: Option<&str>, _protocol: Protocol, code: ErrorCode) {
        self.refusals.lock().unwrap().push((model.map(String::from), code));
    }

    fn model(&self, name: &ModelName, target: &Target) -> Result<ModelView, Refusal> {
        known(name)?;
        let version = if let Target::Version(version) = target { *version } else { Version::new(2).unwrap() };
        let spec = |name: &str, datatype| TensorSpec {
            name: name.into(),
            datatype,
            shape: vec![Dim::Any, Dim::Fixed(3)],
            optional: false,
        };
        Ok(ModelView {
            name: name.clone(),
            version,
            versions: vec![Version::new(1).unwrap(), Version::new(2).unwrap()],
            signature: Arc::new(Signature {
                inputs: vec![spec("x", DataType::Fp32)],
                outputs: vec![spec("y", DataType::Int64)],
            }),
            settings: Arc::new(settings()),
            facts: Arc::default(),
        })
    }

    fn accepts(&self, name: &ModelName, _: &Target) -> Result<(), Refusal> {
        known(name)
    }

    fn statistics(&self, name: Option<&ModelName>, _: &Target) -> Result<Vec<ModelStatistics>, Refusal> {
        if let Some(name) = name {
            known(name)?;
        }
        let tally = |count, micros| Tally { count, time: Duration::from_micros(micros) };
        Ok(vec![ModelStatistics {
            model: "echo".parse().expect("a model name"),
            version: Version::new(2).expect("a version"),
            last_inference: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            inference_count: 12,
            execution_count: 3,
            success: tally(4, 400),
            fail: tally(1, 10),
            queue: tally(4, 40),
            compute_input: tally(4, 4),
            compute_infer: tally(4, 300),
            compute_output: tally(4, 8),
            batches: vec![BatchStatistics {
                rows: 4,
                compute_input: tally(3, 3),
                compute_infer: tally(3, 225),
                compute_output: tally(3, 6),
            }],
        }])
    }

    fn index(&self) -> Vec<IndexEntry> {
        let entry = |model: &str, version, is_ready| IndexEntry {
            model: model.parse().expect("a model name"),
            version: Version::new(version).expect("a version"),
            is_ready,
        };
        vec![entry("echo", 1, true), entry("echo", 2, true), entry("loading", 1, false)]
    }

    fn is_ready(&self) -> bool {
        !self.unready.load(Ordering::Relaxed)
    }
}
