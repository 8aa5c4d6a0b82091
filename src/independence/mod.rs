//! Whether the rows of a model are independent: a proof from its graph, without running it.
//!
//! Requests may run together only if no row of an answer depends on another row of the inputs. A trial on some rows can
//! show that they depend; it cannot show that they do not. So the batch axis is followed from the inputs through every
//! operator to the outputs, by rules that read like the operators' documentation.
//!
//! The three outcomes are those of [`Verdict`]. An operator without a rule, and a shape that cannot be followed, are
//! never taken for harmless.

mod verdict;

pub use self::verdict::{BatchAxis, Proof, Reason, Verdict};

use crate::proto::onnx::ModelProto;

/// Whether the rows of `model` are independent. The rows of an input lie along its axis 0.
#[must_use]
pub fn prove(_model: &ModelProto) -> Verdict {
    Verdict::Unknown(Reason::of_model("the graph cannot be followed yet"))
}
