//! The drift monitor of the real binary, asked as its users ask: what is counted, kept, told apart and told.

mod baselines;
mod classes;
mod columns;
mod contract;
mod derived;
mod export;
mod learning;
mod restarts;
mod segments;
mod tables;
mod verdicts;

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use tidegate::{
    domain::{DataType, Shape, Tensor},
    monitor::ProfileBuilder,
    proto::{
        inference::{
            InferParameter, InferTensorContents, ModelInferRequest,
            grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
            model_infer_request::InferInputTensor,
        },
        onnx::GraphProto,
    },
};
use tonic::transport::Channel;

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const INFER: &str = "/v2/models/m/infer";
const DRIFT: &str = "/admin/v1/models/m/drift";

/// Rows of the model: a number `x`, a word `s`.
type Row = (f32, &'static str);

/// `y = x` and `t = s`, row by row.
fn model() -> Vec<u8> {
    let shape = [onnx::ANY, 1];
    onnx::model(GraphProto {
        name: Some("rows".into()),
        node: vec![onnx::node("Identity", &["x"], &["y"]), onnx::node("Identity", &["s"], &["t"])],
        input: vec![onnx::value("x", DataType::Fp32, &shape), onnx::value("s", DataType::Bytes, &shape)],
        output: vec![onnx::value("y", DataType::Fp32, &shape), onnx::value("t", DataType::Bytes, &shape)],
        ..GraphProto::default()
    })
}

/// So many rows as the reference has them: `x` evenly from 0 to 999, half of `s` "de", a third "fr", the rest "it".
fn usual(count: u16) -> Vec<Row> {
    let word = |at: u16| ["de", "fr", "de", "it", "de", "fr"][usize::from(at % 6)];
    (0..count).map(|at| (f32::from(u16::try_from(u32::from(at) * 7919 % 1000).unwrap()), word(at))).collect()
}

/// Rows whose `x` is in the lowest tenth of the reference.
fn low(count: u16) -> Vec<Row> {
    usual(count).into_iter().map(|(x, s)| (x / 10.0, s)).collect()
}

fn tensors(rows: &[Row], [x, s]: [&str; 2]) -> [Tensor; 2] {
    let shape = || Shape::new(vec![i64::try_from(rows.len()).unwrap(), 1]).unwrap();
    let bytes: Vec<u8> = rows.iter().flat_map(|(x, _)| x.to_le_bytes()).collect();
    let words = rows.iter().map(|(_, s)| s.as_bytes().into()).collect();
    [Tensor::plain(x, DataType::Fp32, shape(), bytes.into()).unwrap(), Tensor::text(s, shape(), words).unwrap()]
}

/// The profile of these rows, as `profile.json` has it.
fn profile(rows: &[Row]) -> Vec<u8> {
    let mut builder = ProfileBuilder::default();
    builder.add(&tensors(rows, ["x", "s"]), &tensors(rows, ["y", "t"]));
    builder.finish().profile.to_json().unwrap().into_bytes()
}

/// A repository with a model `m` of so many versions, each with the profile of the usual rows.
fn repository(versions: u64) -> Repository {
    let repository = Repository::new();
    for version in 1..=versions {
        repository.add_files("m", version, &[("model.onnx", &model()), ("profile.json", &profile(&usual(3000)))]);
    }
    repository
}

/// A repository with a model `m` of one version, without a profile.
fn repository_without_profile() -> Repository {
    let repository = Repository::new();
    repository.add("m", 1, &model());
    repository
}

/// A gateway with these lines of configuration under `[monitor]`.
fn start(repository: &Repository, monitor: &str) -> Gateway {
    let file = repository.path().join("tidegate.toml");
    fs::write(&file, format!("[monitor]\n{monitor}\n")).unwrap();
    Gateway::start_with(repository, |command| command.arg("--config").arg(&file))
}

/// A request over HTTP.
fn body(rows: &[Row], parameters: &Value) -> Value {
    let shape = [rows.len(), 1];
    let (x, s): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
    json!({"parameters": parameters, "inputs": [
        {"name": "x", "datatype": "FP32", "shape": shape, "data": x},
        {"name": "s", "datatype": "BYTES", "shape": shape, "data": s},
    ]})
}

fn send_to(gateway: &Gateway, path: &str, rows: &[Row], parameters: &Value) {
    let (status, answer) = gateway.post(path, &body(rows, parameters));
    assert_eq!(status, 200, "{answer}");
}

fn send(gateway: &Gateway, rows: &[Row]) {
    send_to(gateway, INFER, rows, &json!({}));
}

/// The same request over gRPC.
fn message(rows: &[Row], parameters: &[(&str, &str)]) -> ModelInferRequest {
    let input = |name: &str, datatype: &str, contents| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![i64::try_from(rows.len()).unwrap(), 1],
        contents: Some(contents),
        ..InferInputTensor::default()
    };
    let x = InferTensorContents { fp32_contents: rows.iter().map(|row| row.0).collect(), ..Default::default() };
    let s = InferTensorContents { bytes_contents: rows.iter().map(|row| row.1.into()).collect(), ..Default::default() };
    let parameter = |(name, value): &(&str, &str)| {
        let parameter_choice = Some(ParameterChoice::StringParam((*value).into()));
        ((*name).to_owned(), InferParameter { parameter_choice })
    };
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input("x", "FP32", x), input("s", "BYTES", s)],
        parameters: parameters.iter().map(parameter).collect(),
        ..ModelInferRequest::default()
    }
}

async fn client(gateway: &Gateway) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap()
}

/// The drift report for a query such as `?window=1m`.
fn drift(gateway: &Gateway, query: &str) -> Value {
    let (status, report) = gateway.admin("GET", &format!("{DRIFT}{query}"), None);
    assert_eq!(status, 200, "{report}");
    report
}

fn feature<'a>(report: &'a Value, name: &str) -> &'a Value {
    let features = report["features"].as_array().unwrap();
    features.iter().find(|feature| feature["feature"] == name).unwrap_or_else(|| panic!("{name} of {report}"))
}

/// Live rows of a feature by bin, without the empty ones.
fn live(report: &Value, name: &str) -> BTreeMap<String, u64> {
    let bins = feature(report, name)["bins"].as_array().unwrap().iter();
    let bins = bins.map(|bin| (bin["bin"].as_str().unwrap().to_owned(), bin["live"].as_u64().unwrap()));
    bins.filter(|(_, live)| *live > 0).collect()
}

/// Whether the drift of a version is watched: it has a profile by now.
fn is_monitored(gateway: &Gateway, query: &str) -> bool {
    let (status, report) = gateway.admin("GET", &format!("{DRIFT}{query}"), None);
    status == 200 && report["state"] != "learning"
}

fn rows(report: &Value) -> u64 {
    report["rows"].as_u64().unwrap()
}
