//! The codec of HTTP bodies without a connection around it, for `benches/codec.rs` only: the
//! codec itself is no public interface.

use std::sync::Arc;

use bytes::Bytes;

use super::json::{self, BinaryOutputs};
use crate::{
    domain::{InferReply, Tensor},
    protocol::Nonfinite,
};

/// The inputs of a request. `json_length`: where the raw tensors begin, when there are any.
///
/// # Panics
/// When the body is no request: a bench has no use for refusals.
#[must_use]
pub fn decode(body: &Bytes, json_length: Option<usize>) -> Arc<[Tensor]> {
    json::decode(body, json_length).expect("the body is a request").inputs
}

/// The body of an answer, with its outputs as JSON or as raw tensors behind it.
///
/// # Panics
/// When the reply has no JSON form.
#[must_use]
pub fn encode(reply: &InferReply, binary: bool) -> Vec<u8> {
    let wanted = BinaryOutputs { all: binary, single: Vec::new() };
    json::encode(reply, &wanted, Nonfinite::Null).expect("the reply has a JSON form").body
}
