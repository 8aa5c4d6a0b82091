//! The codec of HTTP bodies as functions of bytes: see [`crate::fuzzing`].

use bytes::Bytes;

use super::{
    encoding::{self, Coding},
    json::{self, BinaryOutputs, Decoded},
    raw,
};
use crate::{
    domain::{DataType, Dim, InferReply},
    fuzzing::{one_input, reply},
    protocol::{BodyBudget, Nonfinite},
};

pub(crate) fn json(bytes: &[u8]) {
    if let Ok(decoded) = json::decode(&Bytes::copy_from_slice(bytes), None) {
        answer(decoded);
    }
}

/// Two bytes with the length of the JSON, then the body.
pub(crate) fn binary(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    if let Ok(decoded) = json::decode(&Bytes::copy_from_slice(body), Some(length)) {
        answer(decoded);
    }
}

/// What a request holds can be answered with, as JSON where the bytes are text, and raw.
fn answer(decoded: Decoded) {
    let (wanted, nonfinite) = (decoded.binary, decoded.nonfinite.unwrap_or_default());
    let Some(reply) = reply(decoded.inputs.to_vec()) else { return };
    let _ = json::encode(&reply, &wanted, nonfinite);
    read_again(&reply);
    let all = BinaryOutputs { all: true, single: Vec::new() };
    let raw = json::encode(&reply, &all, nonfinite).expect("raw bytes need no text");
    let length = raw.json_length.unwrap_or(raw.body.len());
    let blobs = raw.body.len() - length + raw.blobs.iter().map(Bytes::len).sum::<usize>();
    assert_eq!(blobs, reply.outputs.iter().map(|tensor| tensor.to_raw().len()).sum::<usize>());
}

/// What is written with words for numbers that are not finite is read as the same tensors, each NaN as a NaN.
fn read_again(reply: &InferReply) {
    let Ok(encoded) = json::encode(reply, &BinaryOutputs::default(), Nonfinite::Literal) else { return };
    let text = String::from_utf8(encoded.body).expect("JSON is text");
    let request = text.replacen("\"outputs\":[", "\"inputs\":[", 1);
    let Ok(again) = json::decode(&request.into(), None) else { return };
    for (one, other) in reply.outputs.iter().zip(&*again.inputs) {
        let again = InferReply { outputs: [other.clone()].into(), ..reply.clone() };
        let reply = InferReply { outputs: [one.clone()].into(), ..reply.clone() };
        let [one, other] = [reply, again].map(|reply| {
            json::encode(&reply, &BinaryOutputs::default(), Nonfinite::Literal).map(|encoded| encoded.body).ok()
        });
        assert_eq!(one, other);
    }
}

/// A byte with the datatype, one with the rank, one with a dimension, then the body.
pub(crate) fn raw(bytes: &[u8]) {
    let Some(([datatype, rank, size], body)) = bytes.split_first_chunk::<3>() else { return };
    let datatype = DataType::ALL[usize::from(*datatype) % DataType::ALL.len()];
    let dims = [Dim::Any, Dim::Fixed(u64::from(*size)), Dim::Any, Dim::Unranked];
    let shape = dims[..usize::from(*rank) % (dims.len() + 1)].to_vec();
    let Ok(tensor) = raw::input(&one_input(datatype, shape), Bytes::copy_from_slice(body)) else { return };
    assert!(tensor.byte_size() >= body.len());
}

/// A byte with the coding, then the body. What inflates is within the limit.
pub(crate) fn encoding(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    let Some((&coding, body)) = bytes.split_first() else { return };
    let coding = [Coding::Gzip, Coding::Deflate, Coding::Identity][usize::from(coding) % 3];
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let permit = BodyBudget::new(4 * LIMIT).reserve(body.len());
    let Ok(permit) = permit else { return };
    let body = Bytes::copy_from_slice(body);
    if let Ok((plain, _)) = runtime.block_on(encoding::inflate(body, coding, LIMIT, permit)) {
        assert!(coding == Coding::Identity || plain.len() <= LIMIT);
    }
}
