//! A reply straight to the frame of a gRPC message: no message struct, no copy of large outputs.
//!
//! Writes what prost would write for [`convert::response`](super::convert::response): a test holds
//! the two against each other.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, int64, key_len},
};
use smallvec::SmallVec;

use super::convert;
use crate::{
    domain::{Elements, InferReply, Tensor},
    proto::inference::ModelInferResponse,
};

/// Outputs of at least this many bytes are sent from where they are; smaller ones are cheaper to
/// copy than to send on their own.
const LARGE: usize = 16 << 10;
/// Not compressed, and the length of the message.
const PREFIX: usize = 5;

/// Field numbers of `ModelInferResponse` and of the tensors in it.
mod field {
    pub(super) const MODEL_NAME: u32 = 1;
    pub(super) const MODEL_VERSION: u32 = 2;
    pub(super) const ID: u32 = 3;
    pub(super) const OUTPUTS: u32 = 5;
    pub(super) const RAW_OUTPUT_CONTENTS: u32 = 6;
    pub(super) const TENSOR_NAME: u32 = 1;
    pub(super) const TENSOR_DATATYPE: u32 = 2;
    pub(super) const TENSOR_SHAPE: u32 = 3;
}

/// Pieces of a message that are sent one after the other.
pub(super) type Pieces = SmallVec<[Bytes; 2]>;

/// The message, with gRPC's prefix.
pub(super) fn message(reply: &InferReply) -> Pieces {
    if reply.violation.is_some() {
        return in_one_piece(&convert::response(reply));
    }
    let version = reply.version.to_string();
    let raws: SmallVec<[Bytes; 4]> = reply.outputs.iter().map(raw).collect();
    let heads: SmallVec<[usize; 4]> = reply.outputs.iter().map(head_len).collect();
    let copied: usize = raws.iter().map(Bytes::len).filter(|&length| length < LARGE).sum();
    let fixed = text_len(field::MODEL_NAME, reply.model.as_str())
        + text_len(field::MODEL_VERSION, &version)
        + text_len(field::ID, reply.id.as_str())
        + heads.iter().map(|&length| delimited_len(field::OUTPUTS, length) + length).sum::<usize>()
        + raws.iter().map(|raw| delimited_len(field::RAW_OUTPUT_CONTENTS, raw.len())).sum::<usize>();
    let length = fixed + raws.iter().map(Bytes::len).sum::<usize>();

    let mut pieces = Pieces::new();
    let mut to = BytesMut::with_capacity(PREFIX + fixed + copied);
    to.put_u8(0);
    // Messages are far below 4 GiB: their tensors come from one run's memory, within the limits.
    to.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    text(field::MODEL_NAME, reply.model.as_str(), &mut to);
    text(field::MODEL_VERSION, &version, &mut to);
    text(field::ID, reply.id.as_str(), &mut to);
    for (tensor, &length) in reply.outputs.iter().zip(&heads) {
        delimited(field::OUTPUTS, length, &mut to);
        head(tensor, &mut to);
    }
    for raw in raws {
        delimited(field::RAW_OUTPUT_CONTENTS, raw.len(), &mut to);
        if raw.len() < LARGE {
            to.extend_from_slice(&raw);
        } else {
            pieces.push(to.split().freeze());
            pieces.push(raw);
        }
    }
    if !to.is_empty() {
        pieces.push(to.freeze());
    }
    pieces
}

/// A message of a rare kind, as prost writes it.
fn in_one_piece(response: &ModelInferResponse) -> Pieces {
    let length = response.encoded_len();
    let mut to = BytesMut::with_capacity(PREFIX + length);
    to.put_u8(0);
    to.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    response.encode_raw(&mut to);
    SmallVec::from_iter([to.freeze()])
}

fn raw(tensor: &Tensor) -> Bytes {
    match tensor.elements() {
        Elements::Plain { bytes, .. } => bytes.clone(),
        Elements::Text(_) => tensor.to_raw(),
    }
}

fn head_len(tensor: &Tensor) -> usize {
    text_len(field::TENSOR_NAME, tensor.name())
        + text_len(field::TENSOR_DATATYPE, tensor.datatype().name())
        + int64::encoded_len_packed(field::TENSOR_SHAPE, tensor.shape().dimensions())
}

fn head(tensor: &Tensor, to: &mut BytesMut) {
    text(field::TENSOR_NAME, tensor.name(), to);
    text(field::TENSOR_DATATYPE, tensor.datatype().name(), to);
    int64::encode_packed(field::TENSOR_SHAPE, tensor.shape().dimensions(), to);
}

/// An empty text is the default, which is not written.
fn text_len(number: u32, text: &str) -> usize {
    if text.is_empty() { 0 } else { delimited_len(number, text.len()) + text.len() }
}

fn text(number: u32, text: &str, to: &mut BytesMut) {
    if !text.is_empty() {
        delimited(number, text.len(), to);
        to.extend_from_slice(text.as_bytes());
    }
}

/// The bytes before a field of `length` bytes.
fn delimited_len(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64)
}

fn delimited(number: u32, length: usize, to: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::{
        domain::{DataType, RequestId, Shape},
        protocol::grpc::convert,
    };

    fn reply(outputs: Vec<Tensor>) -> InferReply {
        InferReply {
            model: "fraud".parse().unwrap(),
            version: "12".parse().unwrap(),
            id: RequestId::given_or_new("r-1").unwrap(),
            outputs: Arc::from(outputs),
            violation: None,
        }
    }

    fn is_as_prost_writes_it(reply: &InferReply) {
        let pieces = message(reply);
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let expected = convert::response(reply).encode_to_vec();
        assert_eq!(all[0], 0);
        assert_eq!(u32::from_be_bytes(all[1..5].try_into().unwrap()) as usize, expected.len());
        assert_eq!(&all[5..], &expected);
    }

    proptest! {
        #[test]
        fn frame_is_what_prost_writes(sizes in prop::collection::vec(0..3_usize, 0..5), small in 0..300_usize) {
            let outputs = sizes.iter().enumerate().map(|(index, size)| {
                let length = [small, LARGE - 1, LARGE + 7][*size];
                let shape = Shape::new(vec![1, i64::try_from(length).unwrap()]).unwrap();
                let bytes = Bytes::from(vec![u8::try_from(index).unwrap(); length]);
                Tensor::plain(format!("y{index}"), DataType::Uint8, shape, bytes).unwrap()
            });
            is_as_prost_writes_it(&reply(outputs.collect()));
        }
    }

    #[test]
    fn text_and_scalars_are_written_too() {
        let text = Tensor::text("t", Shape::new(vec![2]).unwrap(), vec![Bytes::from("a"), Bytes::new()]).unwrap();
        let scalar = Tensor::plain("s", DataType::Fp32, Shape::new(vec![]).unwrap(), Bytes::from(vec![0; 4])).unwrap();
        is_as_prost_writes_it(&reply(vec![text, scalar]));
    }

    #[test]
    fn large_output_is_not_copied() {
        let bytes = Bytes::from(vec![7; LARGE]);
        let shape = Shape::new(vec![i64::try_from(LARGE).unwrap()]).unwrap();
        let pieces = message(&reply(vec![Tensor::plain("y", DataType::Uint8, shape, bytes.clone()).unwrap()]));
        assert!(pieces.iter().any(|piece| piece.as_ptr() == bytes.as_ptr()));
    }
}
