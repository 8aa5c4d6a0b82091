//! A repository made for Triton: `config.pbtxt`, label files, maps as outputs.

use prost::Message;
use serde_json::json;
use tidegate::{
    domain::DataType,
    proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto},
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const CONFIG: &str = r#"
name: "m"
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] label_filename: "names.txt" } ]
version_policy { specific { versions: [ 1, 3 ] } }
dynamic_batching { max_queue_delay_microseconds: 100 priority_levels: 3 }
parameters { key: "owner" value { string_value: "team" } }
model_warmup { name: "zeros" batch_size: 2 inputs { key: "x" value { dims: 1 zero_data: true } } }
optimization { cuda { graphs: true } }
"#;

#[test]
fn config_of_triton_is_obeyed_and_shown() {
    let repository = Repository::new();
    repository.write("m/config.pbtxt", CONFIG);
    repository.write("m/names.txt", "only\n");
    for version in 1..=3 {
        repository.add("m", version, &onnx::add(10));
    }
    let gateway = Gateway::start(&repository);
    let reason = gateway.wait_for_state("m", 2, "unloaded");
    assert!(reason.contains("version_policy"), "{reason}");
    assert_eq!(gateway.run_add("/v2/models/m/infer", 1.0).1["model_version"], "3");
    for path in ["/v2/models/m/config", "/v2/models/m/versions/1/config"] {
        let (status, config) = gateway.get(path);
        assert_eq!((status, &config["name"], &config["max_batch_size"]), (200, &json!("m"), &json!(4)), "{config}");
        assert_eq!(config["input"][0]["dims"], json!([1]));
        assert_eq!(config["output"][0]["label_filename"], "names.txt");
        assert_eq!(config["dynamic_batching"]["max_queue_delay_microseconds"], 100);
        assert_eq!(config["dynamic_batching"]["priority_levels"], 3);
        let zeros = json!({"data_type": "TYPE_FP32", "dims": [1], "zero_data": true});
        let warmup = json!([{"name": "zeros", "batch_size": 2, "count": 1, "inputs": {"x": zeros}}]);
        assert_eq!(config["model_warmup"], warmup);
        assert_eq!(config["version_policy"]["specific"]["versions"], json!([1, 3]));
        assert_eq!(config["parameters"]["owner"]["string_value"], "team");
    }
    assert_eq!(gateway.get("/v2/models/m/versions/2/config").0, 503);
    assert_eq!(gateway.get("/v2/models/none/config").0, 404);
}

/// `y = x` of `[1, 3, 2]`, and the config that lets clients leave the 1 out.
const RESHAPED: &str = r#"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 2 ] reshape { shape: [ 1, 3, 2 ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 6 ] reshape { shape: [ 1, 3, 2 ] } } ]
"#;

/// `y = x` of one number a row, which clients send as `[rows, 1]`.
const SCALARS: &str = r#"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
dynamic_batching { }
"#;

#[test]
fn reshape_is_applied_both_ways() {
    let repository = Repository::new();
    repository.write("image/config.pbtxt", RESHAPED);
    repository.add("image", 1, &onnx::identity(DataType::Fp32, &[1, 3, 2]));
    repository.write("scalar/config.pbtxt", SCALARS);
    repository.add("scalar", 1, &onnx::identity(DataType::Fp32, &[onnx::ANY]));
    repository.write("wrong/config.pbtxt", &RESHAPED.replace("dims: [ 6 ]", "dims: [ 5 ]"));
    repository.add("wrong", 1, &onnx::identity(DataType::Fp32, &[1, 3, 2]));
    repository.write("other/config.pbtxt", RESHAPED);
    repository.add("other", 1, &onnx::identity(DataType::Fp32, &[2, 3, 2]));
    let gateway = Gateway::start(&repository);
    for model in ["image", "scalar"] {
        gateway.wait_for_state(model, 1, "ready");
    }
    let shapes = |model: &str| {
        let (_, metadata) = gateway.get(&format!("/v2/models/{model}"));
        (metadata["inputs"][0]["shape"].clone(), metadata["outputs"][0]["shape"].clone())
    };
    assert_eq!(shapes("image"), (json!([3, 2]), json!([6])));
    assert_eq!(shapes("scalar"), (json!([-1, 1]), json!([-1, 1])));
    let (_, config) = gateway.get("/v2/models/image/config");
    assert_eq!((&config["input"][0]["dims"], &config["output"][0]["dims"]), (&json!([3, 2]), &json!([6])));
    let infer = |model: &str, shape: serde_json::Value, data: serde_json::Value| {
        let input = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": data});
        gateway.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": [input]}))
    };
    let values = json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let (status, answer) = infer("image", json!([3, 2]), values.clone());
    assert_eq!((status, &answer["outputs"][0]["shape"]), (200, &json!([6])), "{answer}");
    assert_eq!(answer["outputs"][0]["data"], values);
    let (status, answer) = infer("image", json!([1, 3, 2]), values);
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("[3, 2]"), "{answer}");
    let (status, answer) = infer("scalar", json!([2, 1]), json!([7.0, 8.0]));
    assert_eq!((status, &answer["outputs"][0]["shape"]), (200, &json!([2, 1])), "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!([7.0, 8.0]));
    let reason = gateway.wait_for_state("wrong", 1, "failed");
    assert!(reason.contains("reshape of 'y': dims [5] and shape [1, 3, 2] must hold equally many"), "{reason}");
    let reason = gateway.wait_for_state("other", 1, "failed");
    assert!(reason.contains("is declared with dims [1, 3, 2], the model has [2, 3, 2]"), "{reason}");
}

#[test]
fn declaration_that_is_wrong_fails_the_version_in_clear_words() {
    let repository = Repository::new();
    repository.add("good", 1, &onnx::add(10));
    let cases = [
        ("dims", CONFIG.replacen("dims: [ 1 ]", "dims: [ 7 ]", 1), "dims [7], the model has [1]"),
        ("syntax", "max_batch_size: 1\ninput [ {\n".to_owned(), "line 3"),
        ("platform", "platform: \"tensorrt_plan\"".to_owned(), "tensorrt_plan"),
        ("warmup", CONFIG.replace("zero_data: true", "input_data_file: \"../x\""), "outside the directory 'warmup'"),
    ];
    for (model, config, _) in &cases {
        repository.write(&format!("{model}/config.pbtxt"), config);
        repository.write(&format!("{model}/names.txt"), "only\n");
        repository.add(model, 1, &onnx::add(10));
    }
    let gateway = Gateway::start(&repository);
    for (model, _, words) in cases {
        let reason = gateway.wait_for_state(model, 1, "failed");
        assert!(reason.contains(words), "{model}: {reason}");
    }
    repository.write("syntax/config.pbtxt", "max_batch_size: 1\n");
    gateway.wait_for_state("syntax", 1, "ready");
}

/// `p = x` as a map of the classes `no` and `yes`, as scikit-learn's converter ends a classifier.
fn zip_map() -> Vec<u8> {
    zip_map_of(onnx::node("Identity", &["x"], &["p"]), Vec::new())
}

fn zip_map_of(scores: NodeProto, initializer: Vec<TensorProto>) -> Vec<u8> {
    let classes = AttributeProto {
        name: Some("classlabels_strings".into()),
        strings: vec!["no".into(), "yes".into()],
        r#type: Some(8),
        ..AttributeProto::default()
    };
    let map = NodeProto {
        domain: Some("ai.onnx.ml".into()),
        attribute: vec![classes],
        ..onnx::node("ZipMap", &["p"], &["probabilities"])
    };
    let graph = GraphProto {
        name: Some("classifier".into()),
        node: vec![scores, map],
        initializer,
        input: vec![onnx::value("x", DataType::Fp32, &[onnx::ANY, 2])],
        output: vec![ValueInfoProto { name: Some("probabilities".into()), r#type: None }],
        ..GraphProto::default()
    };
    let mut model = ModelProto::decode(&onnx::model(graph)[..]).unwrap();
    model.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(1) });
    model.encode_to_vec()
}

#[test]
fn map_of_a_classifier_is_served_as_a_tensor() {
    let repository = Repository::new();
    repository.add("m", 1, &zip_map());
    let gateway = Gateway::start(&repository);
    let (_, metadata) = gateway.get("/v2/models/m");
    assert_eq!(metadata["outputs"], json!([{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]));
    let input = json!({"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [0.75, 0.25, 0.5, 0.5]});
    let (status, answer) = gateway.post("/v2/models/m/infer", &json!({"inputs": [input]}));
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([0.75, 0.25, 0.5, 0.5])), "{answer}");
}

#[test]
fn map_of_a_classifier_with_weights_beside_it_is_served_too() {
    let external = ModelProto::decode(&onnx::external_data("data/weights")[..]).unwrap();
    let weights = external.graph.unwrap().initializer;
    let model = zip_map_of(onnx::node("Mul", &["x", "w"], &["p"]), weights);
    let repository = Repository::new();
    repository.add_files("m", 1, &[("model.onnx", &model), ("data/weights", &0.5_f32.to_le_bytes())]);
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 1, "ready");
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.0]});
    let (status, answer) = gateway.post("/v2/models/m/infer", &json!({"inputs": [input]}));
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([0.25, 0.5])), "{answer}");
    assert_eq!(answer["outputs"][0]["name"], "probabilities");
}

const COUNTS: [&str; 3] = ["nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"];
const TIMES: [&str; 5] = ["request", "queue", "compute_input", "compute_infer", "compute_output"];

#[test]
fn metrics_have_the_names_of_triton_too_when_asked_for() {
    let repository = Repository::new();
    for version in 1..=2 {
        repository.add("m", version, &onnx::add(10));
    }
    let gateway = Gateway::start(&repository);
    assert!(!gateway.metrics().contains("nv_inference"), "nobody asked for them");
    drop(gateway);
    let gateway = Gateway::start_with(&repository, |command| command.env("TIDEGATE_METRICS__TRITON_NAMES", "true"));
    let of = |version: &'static str, name: &str| gateway.metric(name, &[("model", "m"), ("version", version)]);
    let times = TIMES.map(|phase| format!("nv_inference_{phase}_duration_us"));
    for name in COUNTS.iter().copied().chain(times.iter().map(String::as_str)) {
        assert_eq!(of("1", name), Some(0.0), "{name} is there before the first request");
    }
    assert_eq!(of("1", "nv_inference_pending_request_count"), Some(0.0));
    let rows = json!({"name": "x", "datatype": "FP32", "shape": [150, 1], "data": vec![1; 150]});
    let path = "/v2/models/m/versions/1/infer";
    assert_eq!(gateway.post(path, &json!({"inputs": [rows]})).0, 200);
    assert_eq!(gateway.run_add(path, 1.0).0, 200);
    let wrong = json!({"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]});
    assert_eq!(gateway.post(path, &json!({"inputs": [wrong]})).0, 400);
    assert_eq!(COUNTS.map(|name| of("1", name)), [Some(2.0), Some(151.0), Some(2.0)]);
    assert_eq!(COUNTS.map(|name| of("2", name)), [Some(0.0); 3]);
    let failed = |reason| {
        gateway.metric("nv_inference_request_failure", &[("model", "m"), ("version", "1"), ("reason", reason)])
    };
    assert_eq!(["REJECTED", "CANCELED", "BACKEND", "OTHER"].map(failed), [0.0, 0.0, 0.0, 1.0].map(Some));
    let [request, queue, _, infer, _] = times.each_ref().map(|name| of("1", name).unwrap());
    assert!(request > 0.0 && request >= queue + infer, "{request} {queue} {infer}");
    let text = gateway.metrics();
    assert!(text.contains("# TYPE nv_inference_count counter"), "{text}");
    assert!(text.contains("# TYPE nv_inference_pending_request_count gauge"), "{text}");
    let statistics = gateway.get("/v2/models/m/versions/1/stats").1["model_stats"][0].clone();
    let sizes: Vec<_> =
        statistics["batch_stats"].as_array().unwrap().iter().map(|batch| &batch["batch_size"]).collect();
    assert_eq!(sizes, [1, 150], "{statistics}");
    assert_eq!(gateway.admin("POST", "/admin/v1/models/m/versions/1/unload", Some(&json!({}))).0, 200);
    gateway.wait_for_state("m", 1, "unloaded");
    assert_eq!(of("1", "nv_inference_count"), None, "gone with the version");
    assert_eq!(of("2", "nv_inference_count"), Some(0.0));
}

#[test]
fn shared_memory_is_refused_over_http_too() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    let region = json!({"shared_memory_region": "r", "shared_memory_byte_size": 4});
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]});
    let (status, answer) = gateway
        .post("/v2/models/m/infer", &json!({"inputs": [input], "outputs": [{"name": "y", "parameters": region}]}));
    assert_eq!((status, answer["error"].as_str().unwrap().contains("shared memory is not served")), (501, true));
}
