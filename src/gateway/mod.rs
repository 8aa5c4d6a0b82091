//! The life of a request: route, schedule, infer, observe, answer.

use std::sync::Arc;

use crate::{
    domain::{InferReply, InferRequest, ModelName, Protocol, Signature, Target, Version},
    fault::{ErrorCode, Fault},
};

/// What a client may know of a model.
#[derive(Debug, Clone)]
pub struct ModelView {
    pub name: ModelName,
    /// The version that the target stands for.
    pub version: Version,
    /// All ready versions, ascending.
    pub versions: Vec<Version>,
    pub signature: Arc<Signature>,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct InferError {
    code: ErrorCode,
    message: String,
}

impl Fault for InferError {
    fn code(&self) -> ErrorCode {
        self.code
    }
}

/// The data plane behind both doors.
pub struct Gateway {}

impl Gateway {
    /// Runs a model.
    pub async fn infer(&self, _request: InferRequest) -> Result<InferReply, InferError> {
        todo!()
    }

    /// Counts a request that a door refused before it could become an [`InferRequest`]
    /// (malformed, too large). `model` is what the client named, checked here for existence.
    pub fn refuse(&self, _model: Option<&str>, _protocol: Protocol, _code: ErrorCode) {
        todo!()
    }

    /// The signature and versions of a model, for metadata. NotFound / Unavailable otherwise.
    pub fn model(&self, _name: &ModelName, _target: &Target) -> Result<ModelView, InferError> {
        todo!()
    }

    /// True when every model that the gateway should serve can be served: first loads are done
    /// and the gateway is not draining.
    pub fn is_ready(&self) -> bool {
        todo!()
    }
}
