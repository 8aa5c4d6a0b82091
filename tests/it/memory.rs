//! What one request makes a model allocate is bounded, and the gateway outlives it.

use std::thread;

use prost::Message;
use serde_json::{Value, json};
use tidegate::{
    domain::DataType,
    proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto},
};

use crate::{
    harness::{Gateway, Repository},
    onnx::{self, ANY, node, value},
};

/// A model that makes as large a tensor as its input `n` says, and answers its size or itself.
fn maker(nodes: Vec<NodeProto>, n: &[i64], output: (&str, DataType, &[i64])) -> Vec<u8> {
    onnx::model(GraphProto {
        name: Some("maker".into()),
        node: nodes,
        input: vec![value("n", DataType::Int64, n)],
        output: vec![value(output.0, output.1, output.2)],
        ..GraphProto::default()
    })
}

fn constant(name: &str, number: i64) -> NodeProto {
    let value = AttributeProto {
        name: Some("value_int".into()),
        i: Some(number),
        r#type: Some(2),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![value], ..node("Constant", &[], &[name]) }
}

fn makers() -> Vec<(&'static str, Vec<u8>)> {
    let size = ("size", DataType::Int64, &[][..]);
    vec![
        (
            "expand",
            maker(
                vec![constant("one", 1), node("Expand", &["one", "n"], &["y"]), node("Size", &["y"], &["size"])],
                &[1],
                size,
            ),
        ),
        ("fill", maker(vec![node("ConstantOfShape", &["n"], &["y"])], &[1], ("y", DataType::Fp32, &[ANY]))),
        (
            "tile",
            maker(
                vec![
                    node("ConstantOfShape", &["n"], &["row"]),
                    node("Tile", &["row", "n"], &["y"]),
                    node("Size", &["y"], &["size"]),
                ],
                &[1],
                size,
            ),
        ),
        (
            "range",
            maker(
                vec![
                    constant("zero", 0),
                    constant("one", 1),
                    node("Range", &["zero", "n", "one"], &["y"]),
                    node("Size", &["y"], &["size"]),
                ],
                &[],
                size,
            ),
        ),
    ]
}

/// Expand's output is used by nothing that ONNX Runtime could compute without it.
fn repository() -> Repository {
    let repository = Repository::new();
    for (name, onnx) in makers() {
        // Checks that the helper's model is one at all.
        ModelProto::decode(onnx.as_slice()).unwrap();
        repository.add(name, 1, &onnx);
    }
    repository.add("add", 1, &onnx::add(10));
    repository
}

fn start(repository: &Repository, limit: &str, all: &str) -> Gateway {
    Gateway::start_with(repository, |command| {
        command.env("TIDEGATE_SCHEDULER__MAX_RUN_MEMORY", limit).env("TIDEGATE_RUNTIME__MAX_MEMORY", all)
    })
}

fn make(gateway: &Gateway, model: &str, n: i64) -> (u16, Value) {
    let shape = if model == "range" { json!([]) } else { json!([1]) };
    let input = json!({"name": "n", "datatype": "INT64", "shape": shape, "data": [n]});
    gateway.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": [input]}))
}

#[test]
fn request_that_needs_more_memory_than_a_run_may_hold_is_refused_and_nothing_else_happens() {
    let repository = repository();
    let gateway = start(&repository, "64MiB", "0B");
    for (model, _) in makers() {
        // More than the limit; more than the machine has; more than can be said in bytes.
        for n in [40_000_000, 10_000_000_000, i64::MAX / 16] {
            let (status, answer) = make(&gateway, model, n);
            let said = answer["error"].as_str().unwrap_or_default();
            assert!([400, 413].contains(&status), "{model} {n}: {status} {answer}");
            if n < 10_000_000_000 {
                assert_eq!(
                    said, "the request needs more memory than one run may hold (64.0 MiB: scheduler.max_run_memory)",
                    "{model}"
                );
            }
            let (status, answer) = make(&gateway, model, 3);
            assert_eq!(status, 200, "{model} after {n}: {answer}");
        }
    }
    assert_eq!(gateway.run_add("/v2/models/add/infer", 1.0).1["outputs"][0]["data"], json!([11.0]));
}

#[test]
fn model_sets_a_limit_of_its_own() {
    let repository = repository();
    repository.write("fill/model.toml", "[scheduler]\nmax_run_memory = \"1MiB\"\n");
    let gateway = start(&repository, "64MiB", "0B");
    assert_eq!(make(&gateway, "fill", 1_000_000).0, 413);
    assert_eq!(make(&gateway, "expand", 1_000_000).0, 200);
}

#[test]
fn greedy_requests_do_not_hurt_their_neighbours() {
    let repository = repository();
    let gateway = start(&repository, "256MiB", "300MiB");
    thread::scope(|scope| {
        for model in ["expand", "tile", "range", "fill"] {
            let gateway = &gateway;
            scope.spawn(move || {
                for n in [30_000_000, 1_000_000_000, 20_000_000].repeat(4) {
                    let (status, answer) = make(gateway, model, if model == "fill" { n.min(100) } else { n });
                    // 400: Tile itself says that no tensor can be so large.
                    assert!([200, 400, 413, 429].contains(&status), "{model} {n}: {status} {answer}");
                }
            });
        }
        for client in 0..4_u32 {
            let gateway = &gateway;
            scope.spawn(move || {
                for request in 0..100_u32 {
                    let x = f64::from(client * 1000 + request);
                    let (status, answer) = gateway.run_add("/v2/models/add/infer", x);
                    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([x + 10.0])), "{answer}");
                }
            });
        }
    });
}

#[test]
fn memory_of_a_large_run_and_its_answer_goes_back_without_another_one() {
    let repository = repository();
    let gateway = start(&repository, "1GiB", "0B");
    for (model, _) in makers() {
        assert_eq!(make(&gateway, model, 3).0, 200);
    }
    let before = resident(&gateway);
    // 200 MB for the run; then 40 MB for a run whose answer takes as much again as text.
    assert_eq!(make(&gateway, "expand", 50_000_000).0, 200);
    let kept = resident(&gateway);
    assert!(kept > before + 150_000_000, "the run held {} bytes", kept - before);
    make(&gateway, "fill", 10_000_000);
    gateway.wait("the memory to go back", || {
        // Small traffic goes on.
        assert_eq!(gateway.run_add("/v2/models/add/infer", 1.0).0, 200);
        (resident(&gateway) < before + 30_000_000).then_some(())
    });
}

/// The resident memory of the gateway, in bytes.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn all_runs_together_are_bounded_and_what_models_keep_makes_room() {
    let repository = repository();
    let gateway = start(&repository, "1GiB", "120MB");
    // 80 MB each: the second takes the place of what the first keeps for its next run.
    for model in ["expand", "range", "expand"] {
        assert_eq!(make(&gateway, model, 10_000_000).0, 200, "{model}");
    }
    let (status, answer) = make(&gateway, "expand", 20_000_000);
    let said = answer["error"].as_str().unwrap_or_default();
    assert!(status == 429 && said.contains("runtime.max_memory"), "{status} {answer}");
    assert_eq!(make(&gateway, "expand", 1000).0, 200);
}
