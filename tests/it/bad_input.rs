//! Whatever comes in: a clear error in the contract's words, and the gateway goes on.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tidegate::{
    domain::DataType,
    proto::inference::{
        ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
};
use tokio::net::TcpStream;
use tonic::Code;

use crate::{
    harness::{Gateway, Repository, request},
    onnx,
};

fn serving_add() -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn x(datatype: &str, shape: &Value, data: &Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
}

#[test]
fn each_wrong_json_request_gets_its_status_and_plain_words() {
    let (_repository, gateway) = serving_add();
    let good = x("FP32", &json!([1, 1]), &json!([1]));
    let deep = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,1],"data":{}1{}}}]}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("/v2/models/none/infer", good.to_string().into(), 404, "'none'"),
        ("/v2/models/m/versions/7/infer", good.to_string().into(), 404, "version 7"),
        ("/v2/models/m/versions/x/infer", good.to_string().into(), 400, "'x' is not a version"),
        ("/v2/models/m/labels/prod/infer", good.to_string().into(), 404, "'prod'"),
        ("/v2/models/..%2F..%2Fetc/infer", good.to_string().into(), 404, ""),
        ("/v2/nothing", good.to_string().into(), 404, ""),
        ("/v2/models/m/infer", b"".to_vec(), 400, "no body"),
        ("/v2/models/m/infer", b"{\"inputs\": [".to_vec(), 400, ""),
        ("/v2/models/m/infer", b"[]".to_vec(), 400, ""),
        ("/v2/models/m/infer", b"\xff\xfe".to_vec(), 400, ""),
        ("/v2/models/m/infer", b"{}".to_vec(), 400, "inputs"),
        ("/v2/models/m/infer", json!({"inputs": []}).to_string().into(), 400, "'x' is missing"),
        ("/v2/models/m/infer", deep.into(), 400, ""),
        ("/v2/models/m/infer", x("FP32", &json!([1, 2]), &json!([1, 2])).to_string().into(), 400, "expected [-1, 1]"),
        ("/v2/models/m/infer", x("FP64", &json!([1, 1]), &json!([1])).to_string().into(), 400, "expected FP32"),
        ("/v2/models/m/infer", x("float", &json!([1, 1]), &json!([1])).to_string().into(), 400, "'float'"),
        ("/v2/models/m/infer", x("FP32", &json!([2, 1]), &json!([1])).to_string().into(), 400, "'x'"),
        ("/v2/models/m/infer", x("FP32", &json!([1, 1]), &json!(["a"])).to_string().into(), 400, "'x'"),
        ("/v2/models/m/infer", x("INT64", &json!([1, 1]), &json!([null])).to_string().into(), 400, "'x'"),
        ("/v2/models/m/infer", x("FP32", &json!([-1, 1]), &json!([1])).to_string().into(), 400, "negative"),
        ("/v2/models/m/infer", x("FP32", &json!([i64::MAX, 9]), &json!([1])).to_string().into(), 400, "'x'"),
        (
            "/v2/models/m/infer",
            br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[nan]}]}"#.to_vec(),
            400,
            "null or NaN",
        ),
    ];
    for (path, body, status, words) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let (got, answer) = gateway.post_bytes(path, &body);
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{path} {shown}: {error}");
        assert!(!error.is_empty() && error.contains(words), "{path} {shown}: {error}");
        assert!(
            !error.contains(env!("CARGO_MANIFEST_DIR")) && !error.contains(".rs") && !error.contains(".cc"),
            "internals: {error}"
        );
    }
    let (status, answer) = gateway.run_add("/v2/models/m/infer", 1.0);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([2.0])));
    assert!(gateway.metric("tidegate_rejected_total", &[("reason", "bad_request")]).unwrap() >= 10.0);
}

#[test]
fn wrong_method_is_told_the_right_one() {
    let (_repository, gateway) = serving_add();
    assert_eq!(request("GET", gateway.addresses.http, "/v2/models/m/infer", None).0, 405);
    assert_eq!(request("POST", gateway.addresses.http, "/v2/models/m", Some(b"{}")).0, 405);
}

#[test]
fn body_of_100_megabytes_is_refused_and_the_gateway_goes_on() {
    let (_repository, gateway) = serving_add();
    let (status, answer) = gateway.post_bytes("/v2/models/m/infer", &vec![b' '; 100_000_000]);
    assert_eq!(status, 413, "{answer}");
    assert!(
        answer["error"].as_str().unwrap().contains("64MiB") || answer["error"].as_str().unwrap().contains("67108864"),
        "{answer}"
    );
    assert_eq!(gateway.run_add("/v2/models/m/infer", 1.0).0, 200);
}

fn grpc_request(name: &str, datatype: DataType, shape: &[i64], raw: Vec<Vec<u8>>) -> ModelInferRequest {
    let input = InferInputTensor {
        name: name.into(),
        datatype: datatype.name().into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input],
        raw_input_contents: raw.into_iter().map(Into::into).collect(),
        ..ModelInferRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_grpc_request_gets_its_code_and_plain_words() {
    let (_repository, gateway) = serving_add();
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap();
    let one = || vec![1.0_f32.to_le_bytes().to_vec()];
    let good = || grpc_request("x", DataType::Fp32, &[1, 1], one());
    let cases: Vec<(ModelInferRequest, Code, &str)> = vec![
        (ModelInferRequest { model_name: "none".into(), ..good() }, Code::NotFound, "'none'"),
        (ModelInferRequest { model_version: "7".into(), ..good() }, Code::NotFound, "version 7"),
        (ModelInferRequest { model_name: String::new(), ..good() }, Code::InvalidArgument, ""),
        (grpc_request("y", DataType::Fp32, &[1, 1], one()), Code::InvalidArgument, "'y' is unknown"),
        (grpc_request("x", DataType::Int32, &[1, 1], one()), Code::InvalidArgument, "expected FP32"),
        (grpc_request("x", DataType::Fp32, &[1, 2], one()), Code::InvalidArgument, "'x'"),
        (grpc_request("x", DataType::Fp32, &[1, 1], vec![vec![0; 3]]), Code::InvalidArgument, "4 bytes, got 3"),
        (grpc_request("x", DataType::Fp32, &[1, 1], vec![]), Code::InvalidArgument, "'x'"),
        (
            grpc_request("x", DataType::Fp32, &[1, 1], vec![vec![0; 4], vec![0; 4]]),
            Code::InvalidArgument,
            "raw_input_contents",
        ),
        (grpc_request("x", DataType::Fp32, &[-1, 1], one()), Code::InvalidArgument, "negative"),
        (ModelInferRequest { inputs: vec![], raw_input_contents: vec![], ..good() }, Code::InvalidArgument, "missing"),
    ];
    for (request, code, words) in cases {
        let status = client.model_infer(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{request:?}: {}", status.message());
        assert!(status.message().contains(words), "{request:?}: {}", status.message());
    }
    client.model_infer(good()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn message_over_the_limit_is_resource_exhausted() {
    let (_repository, gateway) = serving_add();
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc))
        .await
        .unwrap()
        .max_encoding_message_size(200 << 20);
    let large = grpc_request("x", DataType::Fp32, &[25_000_000, 1], vec![vec![0; 100_000_000]]);
    assert_eq!(client.model_infer(large).await.unwrap_err().code(), Code::ResourceExhausted);
    client.model_infer(grpc_request("x", DataType::Fp32, &[1, 1], vec![vec![0; 4]])).await.unwrap();
}

/// A message of another type, whose field 1 is a number where the request has a string.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_protobuf_is_invalid_argument() {
    use tidegate::proto::inference::{ModelInferResponse, ModelReadyResponse};
    let (_repository, gateway) = serving_add();
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", gateway.addresses.grpc)).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<ModelReadyResponse, ModelInferResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let wrong = tonic::Request::new(ModelReadyResponse { ready: true });
    let status = client.unary(wrong, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
}

#[test]
fn model_that_fails_while_it_runs_costs_one_request() {
    // Two lengths that do not go together: found only when it runs.
    let repository = Repository::new();
    repository.add("m", 1, &onnx::sum_and_product());
    let gateway = Gateway::start(&repository);
    let tensor = |name: &str, data: &Value, length: usize| json!({"name": name, "datatype": "INT64", "shape": [length], "data": data});
    let mismatched = json!({"inputs": [tensor("a", &json!([1, 2]), 2), tensor("b", &json!([1, 2, 3]), 3)]});
    let (status, answer) = gateway.post("/v2/models/m/infer", &mismatched);
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("'a' and 'b' disagree"), "{answer}");
    let fitting = json!({"inputs": [tensor("a", &json!([1]), 1), tensor("b", &json!([2]), 1)]});
    assert_eq!(gateway.post("/v2/models/m/infer", &fitting).0, 200);
}

/// A call that sends these bytes and then nothing, without an end: its status, and why.
async fn call_that_falls_silent(gateway: &Gateway, encoding: Option<&str>, bytes: &'static [u8]) -> (String, String) {
    let stream = TcpStream::connect(gateway.addresses.grpc).await.unwrap();
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) = connected.await.unwrap();
    tokio::spawn(connection);
    let sent = (!bytes.is_empty()).then(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(bytes))));
    let pieces = tokio_stream::StreamExt::chain(tokio_stream::iter(sent), tokio_stream::pending());
    let uri = format!("http://{}/inference.GRPCInferenceService/ModelInfer", gateway.addresses.grpc);
    let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let request = encoding.into_iter().fold(request, |request, encoding| request.header("grpc-encoding", encoding));
    let answer = client.send_request(request.body(StreamBody::new(pieces)).unwrap());
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("it is given up").unwrap();
    let text = |name| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    (text("grpc-status"), text("grpc-message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn call_that_falls_silent_is_given_up_compressed_or_not() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start_with(&repository, |command| command.env("TIDEGATE_SERVER__BODY_TIMEOUT", "100ms"));
    let invalid = (Code::InvalidArgument as i32).to_string();
    for encoding in [None, Some("gzip")] {
        // Nothing, a part of a message, and a whole one after which the call is held open.
        for bytes in [&b""[..], b"\0\0\0\0\x09abc", b"\0\0\0\0\0"] {
            let (status, message) = call_that_falls_silent(&gateway, encoding, bytes).await;
            assert_eq!(status, invalid, "{encoding:?} {bytes:?}: {message}");
            assert!(message.contains("in%20time") || message.contains("in time"), "{message}");
        }
    }
    drop(repository);
}
