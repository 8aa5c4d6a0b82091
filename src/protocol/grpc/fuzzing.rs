//! The reading of a gRPC inference request as a function of bytes: see [`crate::fuzzing`].

use http::HeaderMap;
use prost::Message;

use super::{convert, encode, terms::CallTerms};
use crate::{fuzzing::reply, proto::inference::ModelInferRequest};

/// The bytes of a `ModelInferRequest`. What it holds can be answered with, the same by both
/// writers.
pub(crate) fn infer(bytes: &[u8]) {
    let Ok(message) = ModelInferRequest::decode(bytes) else { return };
    let Ok(terms) = CallTerms::read(&HeaderMap::new()) else { return };
    let model = message.model_name.clone();
    let Ok(request) = convert::request(&model, message, terms) else { return };
    let Some(reply) = reply(request.inputs.to_vec()) else { return };
    let expected = convert::response(&reply).encode_to_vec();
    let written: Vec<u8> = encode::message(&reply).iter().flat_map(|piece| piece.to_vec()).collect();
    assert_eq!(written[5..], expected);
}
