//! Every data type, shape and form of request, over both protocols.

use serde_json::{Value, json};
use tidegate::{
    domain::DataType,
    proto::inference::{
        InferTensorContents, ModelInferRequest, ModelInferResponse,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
};
use tonic::transport::Channel;

use crate::{
    harness::{Gateway, Repository},
    onnx::{self, ANY},
};

async fn client(gateway: &Gateway) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap()
}

fn input(name: &str, datatype: DataType, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.name().into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn raw_request(model: &str, inputs: Vec<InferInputTensor>, raw: Vec<Vec<u8>>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        inputs,
        raw_input_contents: raw.into_iter().map(Into::into).collect(),
        ..ModelInferRequest::default()
    }
}

/// Two elements of each type, in raw form.
fn raw_pair(datatype: DataType) -> Vec<u8> {
    match datatype {
        DataType::Bool => vec![1, 0],
        DataType::Bytes => [&[3, 0, 0, 0][..], b"a\0b", &[2, 0, 0, 0], &[0xff, 0xfe]].concat(),
        other => (1..=u8::try_from(2 * other.size().unwrap()).unwrap()).collect(),
    }
}

fn identities() -> Repository {
    let repository = Repository::new();
    for datatype in DataType::ALL {
        repository.add(&format!("pair_{datatype}"), 1, &onnx::identity(datatype, &[ANY]));
        repository.add(&format!("scalar_{datatype}"), 1, &onnx::identity(datatype, &[]));
    }
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_through_grpc_raw_as_pair_scalar_and_empty() {
    let repository = identities();
    let gateway = Gateway::start(&repository);
    let mut client = client(&gateway).await;
    for datatype in DataType::ALL {
        let pair = raw_pair(datatype);
        let scalar = match datatype {
            DataType::Bytes => vec![1, 0, 0, 0, b'x'],
            DataType::Bool => vec![1],
            other => pair[..other.size().unwrap()].to_vec(),
        };
        let cases = [("pair", vec![2], pair), ("scalar", vec![], scalar), ("pair", vec![0], vec![])];
        for (kind, shape, raw) in cases {
            let model = format!("{kind}_{datatype}");
            let request = raw_request(&model, vec![input("x", datatype, &shape)], vec![raw.clone()]);
            let answer: ModelInferResponse = client.model_infer(request).await.unwrap().into_inner();
            assert_eq!(answer.outputs[0].datatype, datatype.name(), "{model}");
            assert_eq!(answer.outputs[0].shape, shape, "{model}");
            assert_eq!(answer.raw_output_contents[0], raw, "{model} {shape:?}");
            assert_eq!((answer.model_version.as_str(), answer.id.len()), ("1", 36));
        }
    }
}

fn typed_pair(datatype: DataType) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match datatype {
        DataType::Bool => contents.bool_contents = vec![true, false],
        DataType::Int8 | DataType::Int16 | DataType::Int32 => contents.int_contents = vec![-7, 100],
        DataType::Int64 => contents.int64_contents = vec![i64::MIN, 2],
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => contents.uint_contents = vec![7, 200],
        DataType::Uint64 => contents.uint64_contents = vec![u64::MAX, 2],
        DataType::Fp32 => contents.fp32_contents = vec![1.5, f32::NAN],
        DataType::Fp64 => contents.fp64_contents = vec![1.5, f64::NEG_INFINITY],
        DataType::Bytes => contents.bytes_contents = vec!["ä".into(), "".into()],
        DataType::Fp16 | DataType::Bf16 => {}
    }
    contents
}

fn typed_pair_raw(datatype: DataType) -> Vec<u8> {
    fn bytes<const N: usize>(elements: &[[u8; N]]) -> Vec<u8> {
        elements.concat()
    }
    match datatype {
        DataType::Bool => vec![1, 0],
        DataType::Int8 => bytes(&[(-7_i8).to_le_bytes(), 100_i8.to_le_bytes()]),
        DataType::Int16 => bytes(&[(-7_i16).to_le_bytes(), 100_i16.to_le_bytes()]),
        DataType::Int32 => bytes(&[(-7_i32).to_le_bytes(), 100_i32.to_le_bytes()]),
        DataType::Int64 => bytes(&[i64::MIN.to_le_bytes(), 2_i64.to_le_bytes()]),
        DataType::Uint8 => vec![7, 200],
        DataType::Uint16 => bytes(&[7_u16.to_le_bytes(), 200_u16.to_le_bytes()]),
        DataType::Uint32 => bytes(&[7_u32.to_le_bytes(), 200_u32.to_le_bytes()]),
        DataType::Uint64 => bytes(&[u64::MAX.to_le_bytes(), 2_u64.to_le_bytes()]),
        DataType::Fp32 => bytes(&[1.5_f32.to_le_bytes(), f32::NAN.to_le_bytes()]),
        DataType::Fp64 => bytes(&[1.5_f64.to_le_bytes(), f64::NEG_INFINITY.to_le_bytes()]),
        DataType::Bytes => [&[2, 0, 0, 0][..], "ä".as_bytes(), &[0, 0, 0, 0]].concat(),
        DataType::Fp16 | DataType::Bf16 => vec![],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_with_typed_contents_goes_through_grpc() {
    let repository = identities();
    let gateway = Gateway::start(&repository);
    let mut client = client(&gateway).await;
    for datatype in DataType::ALL {
        let contents = Some(typed_pair(datatype));
        let tensor = InferInputTensor { contents, ..input("x", datatype, &[2]) };
        let request = raw_request(&format!("pair_{datatype}"), vec![tensor], vec![]);
        let answer = client.model_infer(request).await;
        if matches!(datatype, DataType::Fp16 | DataType::Bf16) {
            // The protocol has no typed form for them.
            assert_eq!(answer.unwrap_err().code(), tonic::Code::InvalidArgument);
        } else {
            assert_eq!(answer.unwrap().into_inner().raw_output_contents[0], typed_pair_raw(datatype), "{datatype}");
        }
    }
}

#[test]
fn every_type_goes_through_json_as_pair_scalar_and_empty() {
    let repository = identities();
    let gateway = Gateway::start(&repository);
    for datatype in DataType::ALL {
        let (pair, one) = match datatype {
            DataType::Bool => (json!([true, false]), json!([true])),
            DataType::Bytes => (json!(["ä", ""]), json!(["x"])),
            float if float.is_float() => (json!([1.5, -0.25]), json!([2.0])),
            DataType::Int64 => (json!([i64::MIN, i64::MAX]), json!([3])),
            DataType::Uint64 => (json!([0, u64::MAX]), json!([3])),
            _ => (json!([1, 2]), json!([3])),
        };
        for (kind, shape, data) in
            [("pair", json!([2]), pair), ("scalar", json!([]), one), ("pair", json!([0]), json!([]))]
        {
            let input = json!({"name": "x", "datatype": datatype.name(), "shape": shape, "data": data});
            let path = format!("/v2/models/{kind}_{datatype}/infer");
            let (status, answer) = gateway.post(&path, &json!({"id": "my id", "inputs": [input]}));
            assert_eq!(status, 200, "{path}: {answer}");
            let output = &answer["outputs"][0];
            assert_eq!((&output["data"], &output["shape"]), (&data, &shape), "{path}");
            assert_eq!((&answer["id"], &answer["model_version"]), (&json!("my id"), &json!("1")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_outputs_asked_for_are_answered_in_that_order() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::sum_and_product());
    let gateway = Gateway::start(&repository);
    let raw: Vec<u8> = [3_i64.to_le_bytes(), 4_i64.to_le_bytes()].concat();
    let mut request = raw_request(
        "m",
        vec![input("b", DataType::Int64, &[2]), input("a", DataType::Int64, &[2])],
        vec![raw.clone(), raw],
    );
    let output = |name: &str| InferRequestedOutputTensor { name: name.into(), ..InferRequestedOutputTensor::default() };
    request.outputs = vec![output("product"), output("sum")];
    let answer = client(&gateway).await.model_infer(request).await.unwrap().into_inner();
    let names: Vec<_> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["product", "sum"]);
    assert_eq!(answer.raw_output_contents[0], [9_i64.to_le_bytes(), 16_i64.to_le_bytes()].concat());

    let inputs = json!([
        {"name": "a", "datatype": "INT64", "shape": [1], "data": [5]},
        {"name": "b", "datatype": "INT64", "shape": [1], "data": [6]},
    ]);
    let (_, answer) = gateway.post("/v2/models/m/infer", &json!({"inputs": inputs, "outputs": [{"name": "sum"}]}));
    assert_eq!(answer["outputs"], json!([{"name": "sum", "datatype": "INT64", "shape": [1], "data": [11]}]));
}

#[test]
fn optional_input_may_be_left_out() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::optional_bias());
    let gateway = Gateway::start(&repository);
    let x = json!({"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]});
    let bias = json!({"name": "bias", "datatype": "FP32", "shape": [1], "data": [100]});
    let (_, without) = gateway.post("/v2/models/m/infer", &json!({"inputs": [x]}));
    let (_, with) = gateway.post("/v2/models/m/infer", &json!({"inputs": [x, bias]}));
    assert_eq!(without["outputs"][0]["data"], json!([11.0, 12.0]));
    assert_eq!(with["outputs"][0]["data"], json!([101.0, 102.0]));
}

#[test]
fn metadata_says_what_a_model_takes_and_gives() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    repository.add("m", 3, &onnx::add(3));
    let gateway = Gateway::start(&repository);
    let (_, metadata) = gateway.get("/v2/models/m");
    assert_eq!(metadata["versions"], json!(["1", "3"]));
    assert_eq!(metadata["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]));
    assert_eq!(gateway.get("/v2/models/m/versions/1/ready").0, 200);
    assert_eq!(gateway.get("/v2/models/m/versions/2/ready").0, 404);
    let (_, server): (u16, Value) = gateway.get("/v2");
    assert_eq!(server["name"], "tidegate");
}

/// Reflection and health as a client without our proto files sees them.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start(&repository);
    let channel = Channel::from_shared(format!("http://{}", gateway.addresses.grpc)).unwrap().connect().await.unwrap();
    for service in ["", "inference.GRPCInferenceService"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "SERVING");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::iter([request]);
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    assert!(list.service.iter().any(|service| service.name == "inference.GRPCInferenceService"));
}

#[test]
fn model_without_declared_shapes_takes_any_rank_and_a_scalar_stays_a_scalar() {
    let repository = Repository::new();
    repository.add("any", 1, &onnx::unranked_identity());
    repository.add("scalar", 1, &onnx::identity(DataType::Fp32, &[]));
    let gateway = Gateway::start(&repository);
    let ask = |model: &str, shape: &[u64], data: &[f64]| {
        let input = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": data});
        gateway.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": [input]}))
    };
    for (shape, data) in [(&[][..], &[1.5][..]), (&[0], &[]), (&[2], &[1.5, 2.0]), (&[1, 2, 1], &[1.5, 2.0])] {
        let (status, answer) = ask("any", shape, data);
        assert_eq!(status, 200, "{shape:?}: {answer}");
        assert_eq!((&answer["outputs"][0]["shape"], &answer["outputs"][0]["data"]), (&json!(shape), &json!(data)));
    }
    assert_eq!(gateway.get("/v2/models/any").1["inputs"][0]["shape"], json!([-1]));
    assert_eq!(gateway.get("/v2/models/scalar").1["inputs"][0]["shape"], json!([]));
    assert_eq!(ask("scalar", &[], &[1.5]).0, 200);
    assert_eq!(ask("scalar", &[1], &[1.5]).0, 400);
}

#[test]
fn tensors_may_have_any_name() {
    let repository = Repository::new();
    let (x, y) = ("a/b:0 \"ä\" \\ {x}", "Identity:0/\n y");
    repository.add("m", 1, &onnx::named_identity(x, y));
    let gateway = Gateway::start(&repository);
    let input = json!({"name": x, "datatype": "FP32", "shape": [1], "data": [1.5]});
    let (status, answer) = gateway.post("/v2/models/m/infer", &json!({"inputs": [input], "outputs": [{"name": y}]}));
    assert_eq!((status, &answer["outputs"][0]["name"]), (200, &json!(y)), "{answer}");
}
