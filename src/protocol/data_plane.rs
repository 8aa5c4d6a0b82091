//! What a door asks of the gateway.

use crate::{
    domain::{IndexEntry, InferReply, InferRequest, ModelName, ModelStatistics, Protocol, Target},
    fault::{ErrorCode, Fault},
    gateway::{Gateway, InferError, ModelView},
};

/// The gateway as the doors see it; in tests, its stand-in.
pub(super) trait DataPlane: Send + Sync + 'static {
    type Error: Fault + Send;

    fn infer(&self, request: InferRequest) -> impl Future<Output = Result<InferReply, Self::Error>> + Send;

    /// Counts a request that a door refused. `model` is what the client named.
    fn refuse(&self, model: Option<&str>, protocol: Protocol, code: ErrorCode);

    fn model(&self, name: &ModelName, target: &Target) -> Result<ModelView, Self::Error>;

    /// Whether a request would be taken now, asked before its body is read.
    fn accepts(&self, name: &ModelName, target: &Target) -> Result<(), Self::Error>;

    /// What the versions of one model, or of all, did.
    fn statistics(&self, name: Option<&ModelName>, target: &Target) -> Result<Vec<ModelStatistics>, Self::Error>;

    /// All versions that are known.
    fn index(&self) -> Vec<IndexEntry>;

    fn is_ready(&self) -> bool;
}

impl DataPlane for Gateway {
    type Error = InferError;

    fn infer(&self, request: InferRequest) -> impl Future<Output = Result<InferReply, InferError>> + Send {
        Gateway::infer(self, request)
    }

    fn refuse(&self, model: Option<&str>, protocol: Protocol, code: ErrorCode) {
        Gateway::refuse(self, model, protocol, code);
    }

    fn model(&self, name: &ModelName, target: &Target) -> Result<ModelView, InferError> {
        Gateway::model(self, name, target)
    }

    fn accepts(&self, name: &ModelName, target: &Target) -> Result<(), InferError> {
        Gateway::accepts(self, name, target)
    }

    fn statistics(&self, name: Option<&ModelName>, target: &Target) -> Result<Vec<ModelStatistics>, InferError> {
        Gateway::statistics(self, name, target)
    }

    fn index(&self) -> Vec<IndexEntry> {
        Gateway::index(self)
    }

    fn is_ready(&self) -> bool {
        Gateway::is_ready(self)
    }
}
