//! One request per model and protocol, as clients send them.

use std::{fs, path::Path};

use anyhow::Result;
use prost::Message;
use serde_json::json;
use tidegate::proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};

use crate::models::{BIG_SIDE, BenchModel, MODELS};

/// Tells where the JSON of a binary request ends.
pub const BINARY_HEADER: &str = "inference-header-content-length";

/// The protocols, by the ending of a request's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    /// JSON over HTTP.
    Json,
    /// Tensors as bytes behind the JSON, both ways.
    Binary,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Json, Self::Binary];

    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Json => "json",
            Self::Binary => "binary",
        }
    }
}

/// Writes `MODEL.grpc` (with gRPC's prefix of five bytes), `MODEL.json` and `MODEL.binary`; the
/// length of the JSON of the last stands in `MODEL.binary.length`.
pub fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for model in MODELS.iter().chain([&BenchModel { name: "big", row: &[BIG_SIDE] }]) {
        let file = |ending: &str| directory.join(format!("{}.{ending}", model.name));
        fs::write(file("grpc"), framed(&grpc(model)))?;
        fs::write(file("json"), json(model)?)?;
        let (binary, length) = binary(model);
        fs::write(file("binary"), binary)?;
        fs::write(file("binary.length"), length.to_string())?;
    }
    Ok(())
}

fn shape(model: &BenchModel) -> Vec<i64> {
    std::iter::once(1).chain(model.row.iter().copied()).collect()
}

fn bytes(model: &BenchModel) -> Vec<u8> {
    model.values().into_iter().flat_map(f32::to_le_bytes).collect()
}

pub fn grpc(model: &BenchModel) -> ModelInferRequest {
    let input =
        InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: shape(model), ..Default::default() };
    ModelInferRequest {
        model_name: model.name.into(),
        inputs: vec![input],
        raw_input_contents: vec![bytes(model).into()],
        ..Default::default()
    }
}

/// A message as gRPC sends it: uncompressed, after its length.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(body);
    framed
}

/// With numbers as short as FP32 can be told, as clients write them.
pub fn json(model: &BenchModel) -> Result<Vec<u8>> {
    let (shape, data) = (shape(model), serde_json::to_string(&model.values())?);
    let text = format!(r#"{{"inputs":[{{"name":"x","shape":{shape:?},"datatype":"FP32","data":{data}}}]}}"#);
    Ok(text.into_bytes())
}

/// The body, and the length of its JSON.
pub fn binary(model: &BenchModel) -> (Vec<u8>, usize) {
    let raw = bytes(model);
    let parameters = json!({"binary_data_size": raw.len()});
    let input = json!({"name": "x", "shape": shape(model), "datatype": "FP32", "parameters": parameters});
    let head = json!({"parameters": {"binary_data_output": true}, "inputs": [input]});
    let mut body = head.to_string().into_bytes();
    let length = body.len();
    body.extend(raw);
    (body, length)
}
