//! Writing an OIP v2 JSON inference response.
//!
//! Elements are written flat, floats in the shortest form that reads back to the same value
//! (FP16 and BF16 as the FP32 of equal value). JSON has no NaN and no infinity: both become
//! `null`, or words that many readers take (`NaN`, `Infinity`, `-Infinity`) where those are wanted. Bytes that are not UTF-8
//! cannot be written; binary data can carry them.
//!
//! An output wanted as binary data has `parameters.binary_data_size` in place of `data`; its
//! raw bytes stand behind the JSON, in the order of the outputs.

use bytes::Bytes;

use super::{BinaryOutputs, cursor::plain_length};
use crate::{
    domain::{DataType, Elements, InferReply, Tensor},
    protocol::{
        Nonfinite, VIOLATION_PARAMETER,
        refusal::{Refusal, shown},
    },
};

/// Up to this size the raw outputs are copied behind the JSON: one write of one buffer costs
/// less than the bookkeeping of several.
const CONTIGUOUS: usize = 16 << 10;

/// An encoded reply.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The JSON, and behind it the raw outputs when they are few bytes.
    pub(crate) body: Vec<u8>,
    /// The raw outputs that are to follow `body` as they are.
    pub(crate) blobs: Vec<Bytes>,
    /// The length of the JSON, when raw tensors stand behind it.
    pub(crate) json_length: Option<usize>,
}

/// A reply as JSON, with the outputs that are `wanted` in binary behind it.
pub(crate) fn encode(reply: &InferReply, wanted: &BinaryOutputs, nonfinite: Nonfinite) -> Result<Encoded, Refusal> {
    let is_binary = |tensor: &Tensor| wanted.wants(tensor.name());
    let binary = || reply.outputs.iter().filter(|tensor| is_binary(tensor));
    let is_contiguous = binary().map(Tensor::raw_size).sum::<usize>() < CONTIGUOUS;
    let expected: usize = reply.outputs.iter().map(|tensor| expected_length(tensor, is_binary(tensor))).sum();
    let mut text = Vec::with_capacity(256 + expected);
    text.extend_from_slice(b"{\"model_name\":");
    string(&mut text, reply.model.as_str());
    text.extend_from_slice(b",\"model_version\":\"");
    integer(&mut text, reply.version.get());
    text.extend_from_slice(b"\",\"id\":");
    string(&mut text, reply.id.as_str());
    if let Some(violation) = &reply.violation {
        text.extend_from_slice(b",\"parameters\":{\"");
        text.extend_from_slice(VIOLATION_PARAMETER.as_bytes());
        text.extend_from_slice(b"\":");
        string(&mut text, violation);
        text.push(b'}');
    }
    text.extend_from_slice(b",\"outputs\":");
    list(&mut text, reply.outputs.iter(), |text, tensor| {
        text.extend_from_slice(b"{\"name\":");
        string(text, tensor.name());
        text.extend_from_slice(b",\"datatype\":\"");
        text.extend_from_slice(tensor.datatype().name().as_bytes());
        text.extend_from_slice(b"\",\"shape\":");
        list(text, tensor.shape().dimensions(), |text, &size| {
            integer(text, size);
            Ok(())
        })?;
        if is_binary(tensor) {
            text.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            integer(text, tensor.raw_size());
            text.push(b'}');
        } else {
            text.extend_from_slice(b",\"data\":");
            data(text, tensor, nonfinite)?;
        }
        text.push(b'}');
        Ok(())
    })?;
    text.push(b'}');
    let json_length = binary().next().map(|_| text.len());
    let blobs = if is_contiguous {
        binary().for_each(|tensor| tensor.write_raw(&mut text));
        Vec::new()
    } else {
        binary().map(Tensor::to_raw).collect()
    };
    Ok(Encoded { body: text, blobs, json_length })
}

/// The elements of a tensor.
fn data(to: &mut Vec<u8>, tensor: &Tensor, nonfinite: Nonfinite) -> Result<(), Refusal> {
    let (datatype, bytes) = match tensor.elements() {
        Elements::Plain { datatype, bytes } => (*datatype, bytes),
        Elements::Text(elements) => {
            return list(to, elements, |to, element| {
                let text = std::str::from_utf8(element).map_err(|_| not_text(tensor))?;
                string(to, text);
                Ok(())
            });
        }
    };
    match datatype {
        DataType::Bool => elements(to, bytes, |to, [byte]: [u8; 1]| {
            to.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DataType::Uint8 | DataType::Bytes => elements(to, bytes, |to, value| integer(to, u8::from_le_bytes(value))),
        DataType::Uint16 => elements(to, bytes, |to, value| integer(to, u16::from_le_bytes(value))),
        DataType::Uint32 => elements(to, bytes, |to, value| integer(to, u32::from_le_bytes(value))),
        DataType::Uint64 => elements(to, bytes, |to, value| integer(to, u64::from_le_bytes(value))),
        DataType::Int8 => elements(to, bytes, |to, value| integer(to, i8::from_le_bytes(value))),
        DataType::Int16 => elements(to, bytes, |to, value| integer(to, i16::from_le_bytes(value))),
        DataType::Int32 => elements(to, bytes, |to, value| integer(to, i32::from_le_bytes(value))),
        DataType::Int64 => elements(to, bytes, |to, value| integer(to, i64::from_le_bytes(value))),
        DataType::Fp16 => {
            elements(to, bytes, |to, value| single(to, half::f16::from_le_bytes(value).to_f32(), nonfinite));
        }
        DataType::Bf16 => {
            elements(to, bytes, |to, value| single(to, half::bf16::from_le_bytes(value).to_f32(), nonfinite));
        }
        DataType::Fp32 => elements(to, bytes, |to, value| single(to, f32::from_le_bytes(value), nonfinite)),
        DataType::Fp64 => elements(to, bytes, |to, value| double(to, f64::from_le_bytes(value), nonfinite)),
    }
    Ok(())
}

fn not_text(tensor: &Tensor) -> Refusal {
    let name = shown(tensor.name());
    Refusal::bad_request(format!("output '{name}' is not UTF-8 text, which JSON needs: ask for binary data"))
}

/// The fixed-size elements in `bytes` as a list.
fn elements<const SIZE: usize>(to: &mut Vec<u8>, bytes: &[u8], mut write: impl FnMut(&mut Vec<u8>, [u8; SIZE])) {
    to.push(b'[');
    let (elements, _) = bytes.as_chunks::<SIZE>();
    for element in elements {
        write(to, *element);
        to.push(b',');
    }
    close(to);
}

fn list<T>(
    to: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    to.push(b'[');
    for item in items {
        write(to, item)?;
        to.push(b',');
    }
    close(to);
    Ok(())
}

/// Ends a list, whose last item has a comma too many.
fn close(to: &mut Vec<u8>) {
    if to.last() == Some(&b',') {
        to.pop();
    }
    to.push(b']');
}

fn integer(to: &mut Vec<u8>, value: impl itoa::Integer) {
    to.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn single(to: &mut Vec<u8>, value: f32, nonfinite: Nonfinite) {
    let mut digits = zmij::Buffer::new();
    let is_finite = value.is_finite();
    to.extend_from_slice(if is_finite {
        digits.format_finite(value).as_bytes()
    } else {
        word(value.into(), nonfinite)
    });
}

fn double(to: &mut Vec<u8>, value: f64, nonfinite: Nonfinite) {
    let mut digits = zmij::Buffer::new();
    let is_finite = value.is_finite();
    to.extend_from_slice(if is_finite { digits.format_finite(value).as_bytes() } else { word(value, nonfinite) });
}

/// The word for a number that is not finite.
#[cold]
fn word(value: f64, nonfinite: Nonfinite) -> &'static [u8] {
    match nonfinite {
        Nonfinite::Null => b"null",
        Nonfinite::Literal if value.is_nan() => b"NaN",
        Nonfinite::Literal if value > 0.0 => b"Infinity",
        Nonfinite::Literal => b"-Infinity",
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    if plain_length(text.as_bytes()) == text.len() {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        serde_json::to_writer(to, text).expect("memory takes all bytes");
    }
}

/// A guess that is seldom too small: a float takes about three characters per byte.
fn expected_length(tensor: &Tensor, is_binary: bool) -> usize {
    let elements = match tensor.elements() {
        Elements::Plain { bytes, .. } if is_binary => bytes.len().min(CONTIGUOUS),
        Elements::Plain { bytes, .. } => bytes.len() * 3,
        Elements::Text(elements) => elements.iter().map(|element| element.len() + 3).sum(),
    };
    128 + tensor.name().len() + elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RequestId, Shape};

    fn reply(outputs: Vec<Tensor>) -> InferReply {
        InferReply {
            model: "fraud".parse().unwrap(),
            version: "2".parse().unwrap(),
            id: RequestId::given_or_new("r\"1").unwrap(),
            outputs: outputs.into(),
            violation: None,
        }
    }

    fn vector(name: &str, datatype: DataType, bytes: Vec<u8>) -> Tensor {
        let length = i64::try_from(bytes.len() / datatype.size().unwrap()).unwrap();
        Tensor::plain(name, datatype, Shape::new(vec![length]).unwrap(), bytes.into()).unwrap()
    }

    fn fp32(values: &[f32]) -> Tensor {
        vector("y", DataType::Fp32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn encode(reply: &InferReply) -> Result<Vec<u8>, Refusal> {
        super::encode(reply, &BinaryOutputs::default(), Nonfinite::Null).map(|encoded| encoded.body)
    }

    #[test]
    fn output_wanted_in_binary_stands_behind_the_json() {
        let wanted = BinaryOutputs { all: true, single: vec![("j".into(), false)] };
        let outputs = vec![vector("b", DataType::Int8, vec![1, 2]), vector("j", DataType::Int8, vec![3])];
        let encoded = super::encode(&reply(outputs), &wanted, Nonfinite::Null).unwrap();
        let (json, blobs) = encoded.body.split_at(encoded.json_length.unwrap());
        let json = std::str::from_utf8(json).unwrap();
        assert!(json.contains(r#"{"name":"b","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}}"#));
        assert!(json.contains(r#"{"name":"j","datatype":"INT8","shape":[1],"data":[3]}"#));
        assert_eq!(blobs, [1, 2]);
    }

    #[test]
    fn large_output_wanted_in_binary_is_not_copied() {
        let wanted = BinaryOutputs { all: true, single: vec![] };
        let tensor = vector("b", DataType::Int8, vec![7; CONTIGUOUS]);
        let encoded = super::encode(&reply(vec![tensor.clone()]), &wanted, Nonfinite::Null).unwrap();
        assert_eq!(encoded.json_length, Some(encoded.body.len()));
        assert_eq!(encoded.blobs.len(), 1);
        assert_eq!(encoded.blobs[0].as_ptr(), tensor.to_raw().as_ptr());
    }

    #[test]
    fn reply_is_what_serde_reads() {
        let outputs = vec![fp32(&[]), vector("a\"\n\u{1}", DataType::Fp64, f64::MAX.to_le_bytes().to_vec())];
        let value: serde_json::Value = serde_json::from_slice(&encode(&reply(outputs)).unwrap()).unwrap();
        assert_eq!(value["outputs"][0]["data"], serde_json::json!([]));
        assert_eq!(value["outputs"][1]["name"], "a\"\n\u{1}");
        assert_eq!(value["outputs"][1]["data"][0], f64::MAX);
    }

    #[test]
    fn reply_is_written_in_the_order_of_the_protocol() {
        let text = Tensor::text("t", Shape::new(vec![1, 1]).unwrap(), vec![Bytes::from("a\nä")]).unwrap();
        let body = encode(&reply(vec![fp32(&[0.1, 1.0, 1e30]), text])).unwrap();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            concat!(
                r#"{"model_name":"fraud","model_version":"2","id":"r\"1","outputs":["#,
                r#"{"name":"y","datatype":"FP32","shape":[3],"data":[0.1,1.0,1e+30]},"#,
                r#"{"name":"t","datatype":"BYTES","shape":[1,1],"data":["a\nä"]}]}"#
            )
        );
    }

    #[test]
    fn float_that_is_not_finite_becomes_null_or_the_word_for_it() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
        let raw = |datatype| match datatype {
            DataType::Fp16 => values.iter().flat_map(|value| half::f16::from_f64(*value).to_le_bytes()).collect(),
            DataType::Bf16 => values.iter().flat_map(|value| half::bf16::from_f64(*value).to_le_bytes()).collect(),
            DataType::Fp32 => {
                values.iter().flat_map(|value| half::f16::from_f64(*value).to_f32().to_le_bytes()).collect()
            }
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(),
        };
        for datatype in [DataType::Fp16, DataType::Bf16, DataType::Fp32, DataType::Fp64] {
            let reply = reply(vec![vector("y", datatype, raw(datatype))]);
            for (nonfinite, data) in [
                (Nonfinite::Null, r#""data":[null,null,null,-0.0]"#),
                (Nonfinite::Literal, r#""data":[NaN,Infinity,-Infinity,-0.0]"#),
            ] {
                let body = super::encode(&reply, &BinaryOutputs::default(), nonfinite).unwrap().body;
                assert!(String::from_utf8(body).unwrap().contains(data), "{datatype:?} {nonfinite:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_by_name() {
        let text = Tensor::text("t", Shape::new(vec![1]).unwrap(), vec![Bytes::from_static(b"\xff")]).unwrap();
        let error = encode(&reply(vec![text])).unwrap_err();
        assert_eq!(error.to_string(), "output 't' is not UTF-8 text, which JSON needs: ask for binary data");
    }
}
