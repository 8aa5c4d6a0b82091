//! The doors as clients and operators meet them: addresses, connections that grow old, web pages, what JSON says of numbers
//! that are missing, labels that are always there, and words that help.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
};

use serde_json::{Value, json};
use tidegate::{
    domain::DataType,
    proto::{
        inference::{
            ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
            model_infer_request::InferInputTensor,
        },
        onnx::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, type_proto},
    },
};
use tonic::Code;

use crate::{
    harness::{Gateway, PATIENCE, Repository, command},
    onnx::{self, ANY, node, value},
};

/// The head and the body of an answer to a request on a connection that stays open.
fn ask(stream: &mut BufReader<TcpStream>, request: &str) -> (String, String) {
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "the connection ended before the answer: {head:?}");
    }
    let head = head.to_ascii_lowercase();
    let length =
        head.split_once("content-length: ").map_or(0, |(_, rest)| rest.split('\r').next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn infer(model: &str, body: &str) -> String {
    format!("POST /v2/models/{model}/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn tensors() -> Repository {
    let repository = Repository::new();
    repository.add("floats", 1, &onnx::identity(DataType::Fp32, &[ANY]));
    repository.add("texts", 1, &onnx::identity(DataType::Bytes, &[ANY]));
    repository.add("numbers", 1, &onnx::identity(DataType::Int64, &[ANY]));
    repository
}

fn data(datatype: &str, count: usize, data: &str, more: &str) -> String {
    format!(r#"{{{more}"inputs":[{{"name":"x","datatype":"{datatype}","shape":[{count}],"data":{data}}}]}}"#)
}

#[test]
fn missing_and_infinite_numbers_go_both_ways_in_json() {
    let repository = tensors();
    let sent = data("FP32", 5, "[NaN, null, Infinity, -Infinity, 1.5]", "");
    let literal = data("FP32", 2, "[null, -Infinity]", r#""parameters":{"nonfinite":"literal"},"#);
    let null = data("FP32", 2, "[null, -Infinity]", r#""parameters":{"nonfinite":"null"},"#);
    for (setting, as_set) in
        [(None, r#""data":[null,null,null,null,1.5]"#), (Some("literal"), r#""data":[NaN,NaN,Infinity,-Infinity,1.5]"#)]
    {
        let gateway = Gateway::start_with(&repository, |command| match setting {
            Some(setting) => command.env("TIDEGATE_PROTOCOL__NONFINITE", setting),
            None => command,
        });
        let mut stream = connect(gateway.addresses.http);
        for (body, words) in
            [(&sent, as_set), (&literal, r#""data":[NaN,-Infinity]"#), (&null, r#""data":[null,null]"#)]
        {
            let (head, answer) = ask(&mut stream, &infer("floats", body));
            assert!(head.starts_with("http/1.1 200") && answer.contains(words), "{setting:?} {body}: {answer}");
        }
        let (_, answer) = ask(&mut stream, &infer("texts", &data("BYTES", 3, r#"["a", null, ""]"#, "")));
        assert!(answer.contains(r#""data":["a","",""]"#), "{answer}");
        let (head, answer) = ask(&mut stream, &infer("numbers", &data("INT64", 2, "[1, null]", "")));
        assert!(head.starts_with("http/1.1 400") && answer.contains("INT64 has no value for a missing"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_labels_stand_for_what_the_release_names_on_both_protocols() {
    let repository = Repository::new();
    for version in 1..=4 {
        repository.add("m", version, &onnx::add(i64::try_from(version).unwrap() * 10));
    }
    let gateway = Gateway::start(&repository);
    let change = |method: &str, path: &str, body: Value| {
        let (status, answer) = gateway.admin(method, &format!("/admin/v1/models/m/{path}"), Some(&body));
        assert_eq!(status, 200, "{path}: {answer}");
    };
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap();
    let mut answering = async |label: &str| {
        let (status, answer) = gateway.run_add(&format!("/v2/models/m/labels/{label}/infer"), 0.0);
        let input = InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        };
        let request = ModelInferRequest {
            model_name: "m".into(),
            model_version: label.into(),
            inputs: vec![input],
            raw_input_contents: vec![vec![0; 4].into()],
            ..ModelInferRequest::default()
        };
        match client.model_infer(request).await {
            Ok(reply) => {
                let version = reply.into_inner().model_version;
                assert_eq!((status, &answer["model_version"]), (200, &json!(version)), "{label}");
                version
            }
            Err(refusal) => {
                let words = answer["error"].as_str().unwrap();
                assert_eq!((status, refusal.code(), refusal.message()), (404, Code::NotFound, words), "{label}");
                assert!(words.contains(label) && words.contains("at the moment"), "{words}");
                String::new()
            }
        }
    };
    let mut all = async || {
        let mut found = Vec::new();
        for label in ["stable", "previous", "canary", "shadow"] {
            found.push(answering(label).await);
        }
        found
    };
    assert_eq!(all().await, ["4", "", "", ""]);
    change("POST", "promote", json!({"version": 1}));
    assert_eq!(all().await, ["1", "4", "", ""]);
    change("PUT", "canary", json!({"version": 2, "percent": 0}));
    change("PUT", "shadow", json!({"version": 3, "percent": 0}));
    assert_eq!(all().await, ["1", "4", "2", "3"]);
    change("POST", "rollback", json!({}));
    assert_eq!(all().await, ["4", "1", "2", "3"]);
    change("DELETE", "canary", json!({}));
    assert_eq!(all().await, ["4", "1", "", "3"]);

    for label in ["stable", "previous", "canary", "shadow"] {
        for (method, body) in [("PUT", json!({"version": 1})), ("DELETE", json!({}))] {
            let (status, answer) = gateway.admin(method, &format!("/admin/v1/models/m/labels/{label}"), Some(&body));
            let words = answer["error"].as_str().unwrap_or_default();
            assert!(status == 400 && words.contains("is always there"), "{method} {label}: {status} {answer}");
        }
        let url = format!("http://{}", gateway.addresses.admin);
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["label", "m", label, "--version", "1", "--admin-url", &url])
            .output()
            .unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && words.contains("choose another name"), "{words}");
    }
    change("PUT", "labels/stable2", json!({"version": 1}));
    assert_eq!(gateway.run_add("/v2/models/m/labels/stable2/infer", 0.0).1["model_version"], "1");
}

#[test]
fn no_request_over_http_fails_by_the_age_of_its_connection() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start_with(&repository, |command| {
        command
            .env("TIDEGATE_SERVER__MAX_CONNECTION_AGE", "50ms")
            .env("TIDEGATE_SERVER__MAX_CONNECTION_AGE_GRACE", "1s")
    });
    let request = infer("m", r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}"#);
    let address = gateway.addresses.http;
    // Each client keeps its connection until it is told to leave it, and some wait longer between requests than it may live.
    thread::scope(|scope| {
        for client in 0..12_u64 {
            let request = &request;
            scope.spawn(move || {
                for _ in 0..6 {
                    let mut stream = connect(address);
                    for count in 0.. {
                        let (head, body) = ask(&mut stream, request);
                        assert!(head.starts_with("http/1.1 200") && body.contains("[2.0]"), "{head}{body}");
                        if head.contains("connection: close") {
                            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "and then it ends");
                            break;
                        }
                        assert!(count < 1_000_000, "the connection never became too old");
                        if client % 3 == 0 {
                            // Part of what is tested: idle for longer than the age, and then used again.
                            thread::sleep(std::time::Duration::from_millis(20 * (client + 1)));
                        }
                    }
                }
            });
        }
    });
    assert_eq!(gateway.metric_sum("tidegate_rejected_total", &[]), 0.0);
}

#[test]
fn connections_last_where_no_age_is_set() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start(&repository);
    let mut stream = connect(gateway.addresses.http);
    for _ in 0..200 {
        let (head, _) = ask(&mut stream, "GET /v2/models/m HTTP/1.1\r\nhost: t\r\n\r\n");
        assert!(!head.contains("connection: close"), "{head}");
    }
}

#[test]
fn web_pages_of_configured_origins_may_ask_the_inference_plane_alone() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start_with(&repository, |command| {
        command.env("TIDEGATE_SERVER__CORS_ORIGINS", r#"["https://app.example.com"]"#)
    });
    let preflight = "OPTIONS /v2/models/m/infer HTTP/1.1\r\nhost: t\r\norigin: https://app.example.com\r\n\
                     access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\r\n";
    let (head, _) = ask(&mut connect(gateway.addresses.http), preflight);
    assert!(head.starts_with("http/1.1 204") && head.contains("access-control-allow-origin: https://app"), "{head}");
    for other in [gateway.addresses.admin, gateway.addresses.metrics] {
        let (head, _) = ask(&mut connect(other), preflight);
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
}

#[test]
fn host_names_are_looked_up_for_flags_files_and_variables_alike() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let file = repository.path().join("addresses.json");
    let config = repository.path().join("tidegate.toml");
    std::fs::write(&config, "[server]\nhttp = \"localhost:0\"\nadmin = \"localhost:0\"\n").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["serve", "--metrics", "localhost:0", "--models"])
        .arg(repository.models())
        .arg("--state")
        .arg(repository.state())
        .arg("--config")
        .arg(&config)
        .arg("--addresses-file")
        .arg(&file)
        .env("TIDEGATE_SERVER__GRPC", "localhost:0")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    let addresses: Value = loop {
        if let Some(read) = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            break read;
        }
        assert!(started.elapsed() < PATIENCE, "no addresses were written");
        thread::yield_now();
    };
    let reached: Vec<bool> = ["http", "grpc", "metrics", "admin"]
        .iter()
        .map(|plane| {
            let address: SocketAddr = addresses[plane].as_str().unwrap().parse().unwrap();
            // As the name says it, whichever of its addresses a client takes.
            TcpStream::connect(address).is_ok() && TcpStream::connect(("localhost", address.port())).is_ok()
        })
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(reached, [true; 4], "{addresses}");
}

#[test]
fn address_that_is_none_is_refused_with_one_that_is() {
    let repository = Repository::new();
    for (flag, words) in [
        ("8000", "\"127.0.0.1:8000\""),
        (":8000", "\"0.0.0.0:8000\""),
        ("localhost", "\"localhost:8000\""),
        ("http://localhost:8000", "\"localhost:8000\""),
    ] {
        let mut command = command(&repository);
        let output = command.env("TIDEGATE_SERVER__HTTP", "127.0.0.1:0").args(["--http", flag]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2), "{flag}: {text}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.args(["config", "show"]).env("TIDEGATE_SERVER__HTTP", flag).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(words), "{flag}: {text}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--http", "nowhere.invalid:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0", "--models"])
        .arg(repository.models())
        .arg("--state")
        .arg(repository.state())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1), "{text}");
    assert!(text.contains("cannot look up the host of nowhere.invalid:0 (server.http)"), "{text}");
}

/// A column as scikit-learn's exporter declares it: without a name for its rows.
fn column(name: &str) -> ValueInfoProto {
    let mut column = value(name, DataType::Fp32, &[ANY, 1]);
    let kind = column.r#type.as_mut().and_then(|kind| kind.value.as_mut());
    let Some(type_proto::Value::TensorType(tensor)) = kind else { panic!("a tensor") };
    tensor.shape.as_mut().unwrap().dim[0].value = None;
    column
}

/// Two columns side by side.
fn columns() -> Vec<u8> {
    let axis = AttributeProto { name: Some("axis".into()), i: Some(1), r#type: Some(2), ..AttributeProto::default() };
    onnx::model(GraphProto {
        name: Some("columns".into()),
        node: vec![NodeProto { attribute: vec![axis], ..node("Concat", &["a", "b"], &["y"]) }],
        input: vec![column("a"), column("b")],
        output: vec![value("y", DataType::Fp32, &[ANY, 2])],
        ..GraphProto::default()
    })
}

#[test]
fn mistakes_are_told_with_the_way_out_and_without_what_is_internal() {
    let repository = Repository::new();
    repository.add("columns", 1, &columns());
    repository.add("fraud", 1, &onnx::add(1));
    let gateway = Gateway::start(&repository);
    let column = |name: &str, rows: usize| json!({"name": name, "datatype": "FP32", "shape": [rows, 1], "data": vec![0.5; rows]});
    let post = |path: &str, body: Value| gateway.post(path, &body);
    let x = |datatype: &str, shape: Value, data: Value| json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]});
    for ((status, answer), expected, words) in [
        (
            post("/v2/models/columns/infer", json!({"inputs": [column("a", 3), column("b", 2)]})),
            400,
            "the inputs differ in their number of rows ('a' has 3 rows, 'b' has 2)",
        ),
        (post("/v2/models/fruad/infer", json!({})), 404, "unknown model 'fruad': did you mean 'fraud'?"),
        (post("/v2/models/churn/infer", json!({})), 404, "unknown model 'churn'"),
        (
            post("/v2/models/fraud/infer", x("float32", json!([1, 1]), json!([1]))),
            400,
            "datatype 'float32' is unknown: did you mean FP32?",
        ),
        (
            post("/v2/models/fraud/infer", x("FP32", json!([1, 2]), json!([1, 2]))),
            400,
            "input 'x' has shape [1, 2], expected [-1, 1] (-1: any size)",
        ),
        (post("/predict", json!({})), 404, "POST /v2/models/{model}/infer"),
        (gateway.get("/metrics"), 404, "8002"),
    ] {
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == expected && error.contains(words), "{status} {answer}");
        for internal in ["::", ".h:", ".cc:", "onnxruntime"] {
            assert!(!error.contains(internal), "{error}");
        }
    }
    for other in [gateway.addresses.http, gateway.addresses.metrics] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["models", "--admin-url", &format!("http://{other}")])
            .output()
            .unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && words.contains("8003") && words.contains("--admin-url"), "{words}");
    }
}
