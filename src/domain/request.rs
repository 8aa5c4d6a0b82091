//! One inference request and its reply, free of any wire format.

use std::sync::Arc;

use super::{Label, ModelName, RequestId, Tensor, Version};

/// The protocol that a request came in by; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Http, Self::Grpc];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// What a version was to the request that it answered; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The model's stable version.
    Stable,
    /// The canary, chosen by its percentage.
    Canary,
    /// A copy of a request that another version answered.
    Shadow,
    /// A version or label that the request named itself.
    Pinned,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Stable, Self::Canary, Self::Shadow, Self::Pinned];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Pinned => "pinned",
        }
    }
}

/// Which version a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Whatever the release says: stable, or the canary for its share.
    Release,
    Version(Version),
    Label(Label),
}

/// A request to run a model.
#[derive(Debug, Clone)]
pub struct InferRequest {
    pub model: ModelName,
    pub target: Target,
    pub id: RequestId,
    /// Requests with the same key get the same version while the canary's percentage stands.
    pub routing_key: Option<String>,
    /// Shared, so that the shadow copy and the monitor cost no copy of tensors.
    pub inputs: Arc<[Tensor]>,
    /// The outputs asked for, in the order of the answer; empty asks for all.
    pub outputs: Vec<String>,
    pub protocol: Protocol,
}

/// The answer to an [`InferRequest`].
#[derive(Debug, Clone)]
pub struct InferReply {
    pub model: ModelName,
    /// The version that really ran.
    pub version: Version,
    pub id: RequestId,
    pub outputs: Arc<[Tensor]>,
}
