//! A gateway for tests of the doors: it answers with its inputs, and remembers what it was asked.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use super::{data_plane::DataPlane, refusal::Refusal};
use crate::{
    domain::{DataType, Dim, InferReply, InferRequest, ModelName, Protocol, Signature, Target, TensorSpec, Version},
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

    pub(super) fn last_request(&self) -> InferRequest {
        self.requests.lock().unwrap().last().unwrap().clone()
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

impl DataPlane for StandIn {
    type Error = Refusal;

    async fn infer(&self, request: InferRequest) -> Result<InferReply, Refusal> {
        self.requests.lock().unwrap().push(request.clone());
        known(&request.model)?;
        if request.model.as_str() == "slow" {
            self.begun.notify_one();
            self.let_go.notified().await;
        }
        assert_ne!(request.model.as_str(), "panic", "a model that panics");
        let version = if let Target::Version(version) = request.target { version } else { Version::new(2).unwrap() };
        Ok(InferReply { model: request.model, version, id: request.id, outputs: request.inputs })
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
        })
    }

    fn is_ready(&self) -> bool {
        !self.unready.load(Ordering::Relaxed)
    }
}
