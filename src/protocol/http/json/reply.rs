//! Writing an OIP v2 JSON inference response.
//!
//! Elements are written flat, floats in the shortest form that reads back to the same value
//! (FP16 and BF16 as the FP32 of equal value). JSON has no NaN and no infinity: both become
//! `null`. Bytes that are not UTF-8 cannot be written; binary data can carry them.
//!
//! An output wanted as binary data has `parameters.binary_data_size` in place of `data`; its
//! raw bytes stand behind the JSON, in the order of the outputs.

use serde::{Serialize, Serializer};

use super::BinaryOutputs;
use crate::{
    domain::{DataType, Elements, InferReply, Tensor},
    protocol::refusal::{Refusal, shown},
};

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: String,
    id: &'a str,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// An encoded reply.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) body: Vec<u8>,
    /// The length of the JSON, when raw tensors stand behind it.
    pub(crate) json_length: Option<usize>,
}

/// A reply as JSON, with the outputs that are `wanted` in binary behind it.
pub(crate) fn encode(reply: &InferReply, wanted: &BinaryOutputs) -> Result<Encoded, Refusal> {
    let mut blobs = Vec::new();
    let mut outputs = Vec::with_capacity(reply.outputs.len());
    for tensor in reply.outputs.iter() {
        if wanted.wants(tensor.name()) {
            let raw = tensor.to_raw();
            outputs.push(Output::binary(tensor, raw.len()));
            blobs.push(raw);
        } else {
            outputs.push(Output::of(tensor)?);
        }
    }
    let mut text = Vec::with_capacity(256 + reply.outputs.iter().map(expected_length).sum::<usize>());
    let (model_name, id) = (reply.model.as_str(), reply.id.as_str());
    let wire = Reply { model_name, model_version: reply.version.to_string(), id, outputs };
    serde_json::to_writer(&mut text, &wire).expect("memory takes all bytes, and every key is a string");
    let json_length = (!blobs.is_empty()).then_some(text.len());
    for raw in &blobs {
        text.extend_from_slice(raw);
    }
    Ok(Encoded { body: text, json_length })
}

impl<'a> Output<'a> {
    fn of(tensor: &'a Tensor) -> Result<Self, Refusal> {
        let data = match tensor.elements() {
            Elements::Plain { datatype, bytes } => Data::Plain(*datatype, bytes),
            Elements::Text(elements) => {
                let strings = elements.iter().map(|element| std::str::from_utf8(element));
                Data::Text(strings.collect::<Result<_, _>>().map_err(|_| {
                    let name = shown(tensor.name());
                    Refusal::bad_request(format!(
                        "output '{name}' is not UTF-8 text, which JSON needs: ask for binary data"
                    ))
                })?)
            }
        };
        Ok(Self { data: Some(data), parameters: None, ..Self::head(tensor) })
    }

    fn binary(tensor: &'a Tensor, binary_data_size: usize) -> Self {
        Self { parameters: Some(Parameters { binary_data_size }), ..Self::head(tensor) }
    }

    fn head(tensor: &'a Tensor) -> Self {
        let (name, datatype, shape) = (tensor.name(), tensor.datatype().name(), tensor.shape().dimensions());
        Self { name, datatype, shape, parameters: None, data: None }
    }
}

enum Data<'a> {
    Plain(DataType, &'a [u8]),
    Text(Vec<&'a str>),
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (datatype, bytes) = match self {
            Self::Text(strings) => return strings.serialize(to),
            Self::Plain(datatype, bytes) => (*datatype, *bytes),
        };
        match datatype {
            DataType::Bool => list(to, bytes, |[byte]: [u8; 1]| byte != 0),
            DataType::Uint8 | DataType::Bytes => list(to, bytes, u8::from_le_bytes),
            DataType::Uint16 => list(to, bytes, u16::from_le_bytes),
            DataType::Uint32 => list(to, bytes, u32::from_le_bytes),
            DataType::Uint64 => list(to, bytes, u64::from_le_bytes),
            DataType::Int8 => list(to, bytes, i8::from_le_bytes),
            DataType::Int16 => list(to, bytes, i16::from_le_bytes),
            DataType::Int32 => list(to, bytes, i32::from_le_bytes),
            DataType::Int64 => list(to, bytes, i64::from_le_bytes),
            DataType::Fp16 => list(to, bytes, |value| half::f16::from_le_bytes(value).to_f32()),
            DataType::Bf16 => list(to, bytes, |value| half::bf16::from_le_bytes(value).to_f32()),
            DataType::Fp32 => list(to, bytes, f32::from_le_bytes),
            DataType::Fp64 => list(to, bytes, f64::from_le_bytes),
        }
    }
}

fn list<S: Serializer, T: Serialize, const SIZE: usize>(
    to: S,
    bytes: &[u8],
    read: impl Fn([u8; SIZE]) -> T,
) -> Result<S::Ok, S::Error> {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    to.collect_seq(elements.iter().map(|element| read(*element)))
}

/// A guess that is seldom too small: a float takes about three characters per byte.
fn expected_length(tensor: &Tensor) -> usize {
    let elements = match tensor.elements() {
        Elements::Plain { bytes, .. } => bytes.len() * 3,
        Elements::Text(elements) => elements.iter().map(|element| element.len() + 3).sum(),
    };
    128 + tensor.name().len() + elements
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::{RequestId, Shape};

    fn reply(outputs: Vec<Tensor>) -> InferReply {
        InferReply {
            model: "fraud".parse().unwrap(),
            version: "2".parse().unwrap(),
            id: RequestId::given_or_new("r\"1").unwrap(),
            outputs: outputs.into(),
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
        super::encode(reply, &BinaryOutputs::default()).map(|encoded| encoded.body)
    }

    #[test]
    fn output_wanted_in_binary_stands_behind_the_json() {
        let wanted = BinaryOutputs { all: true, single: vec![("j".into(), false)] };
        let outputs = vec![vector("b", DataType::Int8, vec![1, 2]), vector("j", DataType::Int8, vec![3])];
        let encoded = super::encode(&reply(outputs), &wanted).unwrap();
        let (json, blobs) = encoded.body.split_at(encoded.json_length.unwrap());
        let json = std::str::from_utf8(json).unwrap();
        assert!(json.contains(r#"{"name":"b","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}}"#));
        assert!(json.contains(r#"{"name":"j","datatype":"INT8","shape":[1],"data":[3]}"#));
        assert_eq!(blobs, [1, 2]);
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
    fn float_that_is_not_finite_becomes_null() {
        let body = encode(&reply(vec![fp32(&[f32::NAN, f32::INFINITY, -0.0])])).unwrap();
        assert!(String::from_utf8(body).unwrap().contains(r#""data":[null,null,-0.0]"#));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_by_name() {
        let text = Tensor::text("t", Shape::new(vec![1]).unwrap(), vec![Bytes::from_static(b"\xff")]).unwrap();
        let error = encode(&reply(vec![text])).unwrap_err();
        assert_eq!(error.to_string(), "output 't' is not UTF-8 text, which JSON needs: ask for binary data");
    }
}
