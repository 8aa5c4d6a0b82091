//! A protobuf message as its fields, to rewrite a few of them and copy the rest as it is: `proto/onnx.proto` knows only a part
//! of the format.

use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// Field numbers of the format.
pub(super) const MODEL_GRAPH: u32 = 7;
pub(super) const MODEL_OPSET_IMPORT: u32 = 8;
pub(super) const MODEL_METADATA_PROPS: u32 = 14;
pub(super) const MODEL_FUNCTIONS: u32 = 25;
pub(super) const FUNCTION_NODE: u32 = 7;
pub(super) const GRAPH_NODE: u32 = 1;
pub(super) const GRAPH_OUTPUT: u32 = 12;
pub(super) const GRAPH_VALUE_INFO: u32 = 13;
pub(super) const NODE_ATTRIBUTE: u32 = 5;
pub(super) const ATTRIBUTE_GRAPH: u32 = 6;
pub(super) const ATTRIBUTE_GRAPHS: u32 = 11;

/// A field of a message, by where it stands.
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) whole: Range<usize>,
    /// Without key and length, of a length-delimited field.
    pub(super) content: Option<Range<usize>>,
}

/// The fields of a message in their order; `None` when it is broken.
pub(super) fn fields(message: &[u8]) -> Option<Vec<Field>> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = message.len() - rest.len();
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let content = if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let begin = message.len() - rest.len();
            rest = rest.get(length..)?;
            Some(begin..begin + length)
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
            None
        };
        fields.push(Field { number, whole: start..message.len() - rest.len(), content });
    }
    Some(fields)
}

/// Appends a length-delimited field.
pub(super) fn put(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend(content);
}
