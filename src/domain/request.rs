//! One inference request and its reply, free of any wire format.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Instant,
};

use smallvec::SmallVec;

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

/// Why a copy of a request was not run by the shadow, or not compared; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowDrop {
    /// Too many copies were waiting, or too many bytes of them.
    QueueFull,
    /// The request itself got no outputs, so there is nothing to compare with.
    NotAnswered,
    /// The shadow version takes other inputs, or gives none of the outputs.
    Incompatible,
    /// The shadow version runs one request at a time, and was running.
    Busy,
    /// The shadow version failed.
    Failed,
}

impl ShadowDrop {
    pub const ALL: [Self; 5] = [Self::QueueFull, Self::NotAnswered, Self::Incompatible, Self::Busy, Self::Failed];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::NotAnswered => "not_answered",
            Self::Incompatible => "incompatible",
            Self::Busy => "busy",
            Self::Failed => "failed",
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

/// How urgent a request is: 1 is the most urgent. Among requests that wait for one version, a
/// more urgent one runs first; requests of one priority run in the order of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub NonZeroU32);

impl Priority {
    /// The priority on the wire, where 0 stands for the model's default. Larger numbers than
    /// there are levels mean the least urgent level.
    #[must_use]
    pub fn from_wire(value: u64) -> Option<Self> {
        NonZeroU32::new(u32::try_from(value).unwrap_or(u32::MAX)).map(Self)
    }
}

/// When and before whom a request wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Urgency {
    /// `None`: the model's default.
    pub priority: Option<Priority>,
    /// After this moment the answer is of no use: work that has not begun is dropped. `None`:
    /// the model's default timeout, if it has one.
    pub deadline: Option<Instant>,
}

/// An output that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRequest {
    pub name: String,
    /// Answer with this many of the highest values of each row, as `value:index[:label]`
    /// (Triton's classification extension), in place of the values.
    pub classes: Option<NonZeroUsize>,
}

impl OutputRequest {
    /// The output as the model gives it.
    #[must_use]
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), classes: None }
    }
}

/// Places of outputs in a signature.
pub type Places = SmallVec<[usize; 4]>;

/// A request to run a model.
#[derive(Debug, Clone)]
pub struct InferRequest {
    pub model: ModelName,
    pub target: Target,
    pub id: RequestId,
    /// Requests with the same key get the same version while the canary's percentage stands.
    pub routing_key: Option<String>,
    /// Names and values of the parameters that the request has beside those of the protocol: segments are told apart by them.
    pub parameters: Vec<(Arc<str>, String)>,
    /// Shared, so that the shadow copy and the monitor cost no copy of tensors.
    pub inputs: Arc<[Tensor]>,
    /// The outputs asked for, in the order of the answer; empty asks for all.
    pub outputs: Vec<OutputRequest>,
    pub urgency: Urgency,
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
    /// What the reference data of the version never had, where the contract of the model tells of it.
    pub violation: Option<String>,
}
