//! The nouns of the gateway: names, versions, tensors, requests, replies, signatures.
//!
//! Every other room speaks in these types. They know no wire format, no runtime and, but for the ids
//! made here, no clock; they are not serialisable by design, so that a wire format can never leak inward.

mod clock;
mod facts;
mod ids;
mod request;
mod settings;
mod signature;
mod statistics;
mod tensor;

pub(crate) use clock::coarse_time_of_day;
pub use facts::{Labels, ModelFacts, VersionPolicy, WarmupElements, WarmupFacts};
pub use ids::{IdError, Label, ModelName, Percent, RequestId, Version};
pub use request::{
    InferReply, InferRequest, OutputRequest, Places, Priority, Protocol, Role, ShadowDrop, Target, Urgency,
};
pub use settings::{BatchLimits, Batching, ServingSettings};
pub use signature::{Dim, RequestFault, Signature, TensorSpec};
pub use statistics::{BatchStatistics, IndexEntry, ModelStatistics, Tally};
pub use tensor::{DataType, Dimensions, Elements, Shape, Tensor, TensorError};
