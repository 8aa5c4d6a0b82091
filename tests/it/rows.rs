//! No answer is touched by a stranger's row; and what a model answers wins over what its file declares.

mod models;

use std::{process::Command, thread};

use serde_json::{Value, json};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const CLIENTS: usize = 12;
const ROUNDS: usize = 40;

fn inputs(datatype: &str, shape: &[usize], data: &Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
}

fn ask(gateway: &Gateway, model: &str, request: &Value) -> Value {
    let (status, answer) = gateway.post(&format!("/v2/models/{model}/infer"), request);
    assert_eq!(status, 200, "{answer}");
    answer["outputs"].clone()
}

/// Many clients at once, each with a request of its own: every answer is the one that it got alone before.
fn answers_are_as_alone(gateway: &Gateway, model: &str, requests: &[Value]) {
    let alone: Vec<Value> = requests.iter().map(|request| ask(gateway, model, request)).collect();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (request, alone) = (&requests[client % requests.len()], &alone[client % requests.len()]);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    assert_eq!(&ask(gateway, model, request), alone, "{model}: {request}");
                }
            });
        }
    });
}

/// Every model whose rows touch each other, the requests of its clients, and the operator that is to blame.
fn mixing() -> Vec<(&'static str, Vec<u8>, Vec<Value>, &'static str)> {
    let row = |row: [f64; 2]| inputs("FP32", &[1, 2], &json!(row));
    let rows = || vec![row([0.5, 1.0]), row([3.0, -2.0]), row([1e6, 1e6]), row([0.25, 0.75])];
    let image = |scores: [f64; 3]| {
        let place = |(at, score): (usize, f64)| {
            let at = at as f64 * 10.0;
            vec![at, at, at + 5.0, at + 5.0, score]
        };
        let data: Vec<f64> = scores.into_iter().enumerate().flat_map(place).collect();
        inputs("FP32", &[1, 3, 5], &json!(data))
    };
    // One detection each, none, and three: in all as many as there are images, at times.
    let images = vec![image([0.9, 0.0, 0.0]), image([0.0, 0.0, 0.8]), image([0.0; 3]), image([0.9, 0.7, 0.8])];
    let text = |text: &str| inputs("BYTES", &[1], &json!([text]));
    let texts = vec![text("d"), text("a b c d e f"), text("two words")];
    vec![
        ("maximum", models::over_the_maximum(), rows(), "ReduceMax at node 'all'"),
        ("quantised", models::dynamically_quantised(), rows(), "DynamicQuantizeLinear at node 'scale'"),
        ("detector", models::detector(), images, "NonMaxSuppression at node 'nms'"),
        ("words", models::words(), texts, "StringSplit at node 'split'"),
    ]
}

fn no_answer_is_touched(model_toml: &str) -> (Repository, Gateway) {
    let repository = Repository::new();
    for (name, model, ..) in mixing() {
        repository.write(&format!("{name}/model.toml"), model_toml);
        repository.add(name, 1, &model);
    }
    let gateway = Gateway::start(&repository);
    for (name, _, requests, operator) in mixing() {
        answers_are_as_alone(&gateway, name, &requests);
        let runs = gateway.runs(name, 1);
        assert_eq!(
            (&runs["independence"]["outcome"], &runs["max_batch_rows"]),
            (&json!("dependent"), &json!(1)),
            "{runs}"
        );
        for told in [&runs["independence"]["why"], &runs["alone"]] {
            assert!(told.as_str().unwrap().contains(operator), "{runs}");
        }
    }
    (repository, gateway)
}

#[test]
fn rows_that_touch_each_other_are_not_joined_by_default() {
    no_answer_is_touched("");
}

#[test]
fn rows_that_touch_each_other_are_not_joined_though_they_wait_for_each_other() {
    no_answer_is_touched("[batching]\nmax_delay = \"3ms\"\n");
}

#[test]
fn rows_that_touch_each_other_are_not_even_joined_where_it_is_asked_for_and_the_owner_is_told() {
    let (_repository, gateway) = no_answer_is_touched("[batching]\nenabled = true\nmax_delay = \"3ms\"\n");
    for (name, ..) in mixing() {
        let admission = gateway.version_status(name, 1)["admission"].to_string();
        assert!(admission.contains("warning: batching is asked for"), "{admission}");
    }
}

/// What is proven is joined by default, and says where its rows lie, everywhere.
#[test]
fn rows_that_keep_apart_are_proven_and_joined() {
    let repository = Repository::new();
    repository.write("m/model.toml", "[batching]\nmax_delay = \"3ms\"\n");
    let version = repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    let runs = gateway.runs("m", 1);
    let axes = json!([{"role": "input", "tensor": "x", "axis": 0}, {"role": "output", "tensor": "y", "axis": 0}]);
    assert_eq!(runs["independence"]["outcome"], "independent", "{runs}");
    assert_eq!((&runs["independence"]["axes"], &runs["alone"]), (&axes, &Value::Null), "{runs}");
    assert!(runs["max_batch_rows"].as_u64().unwrap() > 1, "{runs}");
    let requests: Vec<Value> = (0..4).map(|x| inputs("FP32", &[1, 1], &json!([x]))).collect();
    answers_are_as_alone(&gateway, "m", &requests);
    let runs = gateway.metric("tidegate_batch_size_count", &[("model", "m")]).unwrap();
    let rows = gateway.metric("tidegate_batch_size_sum", &[("model", "m")]).unwrap();
    assert!(rows > runs, "{rows} rows in {runs} runs");
    assert_eq!(gateway.metric("tidegate_batching_stopped", &[("model", "m")]), Some(0.0));
    let told = [
        output(
            Command::new(env!("CARGO_BIN_EXE_tidegate"))
                .args(["status", "m", "--admin-url"])
                .arg(format!("http://{}", gateway.addresses.admin)),
        ),
        output(Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("check").arg(version)),
    ];
    for told in told {
        assert!(told.contains("independent") && told.contains("proven from the graph"), "{told}");
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Exporters declare shapes that are not so. What runs show is what clients are told, what is joined, what a profile must
/// fit, and what the next version is compared with.
#[test]
fn shapes_that_a_model_answers_with_win_over_declared_ones() {
    let any = onnx::ANY;
    let cases = [
        ("forest", models::two_columns(&[any, 1]), json!([-1, 2]), models::two_columns(&[any, 2])),
        ("lightgbm", models::label(&[1]), json!([-1]), models::label(&[any])),
        // ONNX Runtime follows the rank of this operator by itself, and leaves the width open.
        ("catboost", models::one_column(&[any]), json!([-1, -1]), models::one_column(&[any, 1])),
    ];
    let repository = Repository::new();
    for (name, declared, ..) in &cases {
        repository.add(name, 1, declared);
    }
    let gateway = Gateway::start(&repository);
    for (name, _, shape, retrained) in &cases {
        let (_, metadata) = gateway.get(&format!("/v2/models/{name}"));
        assert_eq!(&metadata["outputs"][0]["shape"], shape, "{metadata}");
        let status = gateway.version_status(name, 1);
        let is_told = status["admission"].to_string().contains("output 'y' is declared with");
        assert!(is_told || *name == "catboost", "{status}");
        assert_eq!(status["runs"]["alone"], Value::Null, "{name}: {status}");
        // One that declares what is so breaks nobody.
        repository.add(name, 2, retrained);
        gateway.wait_for_state(name, 2, "ready");
        let row = |first: f64| inputs("FP32", &[1, 3], &json!([first, 2.0, 3.0]));
        answers_are_as_alone(&gateway, name, &[row(1.0), row(4.0), row(-7.0)]);
    }
}

#[test]
fn profile_of_a_model_that_declares_too_few_columns_fits_it() {
    let repository = Repository::new();
    let version = repository.add("forest", 1, &models::two_columns(&[onnx::ANY, 1]));
    let rows = (0..400).map(|row| format!("{row},{},{}\n", row % 7, row % 3)).collect::<Vec<_>>().concat();
    let data = repository.path().join("reference.csv");
    std::fs::write(&data, format!("x[0],x[1],x[2]\n{rows}")).unwrap();
    let profile =
        output(Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("profile").arg(&version).arg("--data").arg(&data));
    assert!(profile.contains("features from 400 rows"), "{profile}");
    let gateway = Gateway::start(&repository);
    let status = gateway.version_status("forest", 1);
    assert_eq!((&status["state"], &status["monitored"]), (&json!("ready"), &json!(true)), "{status}");
}

/// An encoder that refuses made-up texts is tried out on golden requests, and says what it needs where there are none.
#[test]
fn encoders_of_known_categories_are_tried_on_golden_requests() {
    let repository = Repository::new();
    repository.add("bare", 1, &models::encoder());
    let golden = json!({
        "request": inputs("BYTES", &[3, 1], &json!(["red", "blue", "green"])),
        "response": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [3, 3], "data": [1, 0, 0, 0, 0, 1, 0, 1, 0]}]},
    });
    let files = [("model.onnx", &models::encoder()[..]), ("golden/colours.json", golden.to_string().as_bytes())]
        .map(|(name, content)| (name, content.to_vec()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, &content[..])).collect();
    repository.add_files("golden", 1, &files);
    let gateway = Gateway::start(&repository);
    let bare = gateway.runs("bare", 1);
    assert!(bare["alone"].as_str().unwrap().contains("golden requests (golden/*.json)"), "{bare}");
    let golden = gateway.runs("golden", 1);
    assert_eq!(
        (&golden["independence"]["outcome"], &golden["alone"]),
        (&json!("independent"), &Value::Null),
        "{golden}"
    );
    assert!(golden["run_seconds"].as_f64().unwrap() > 0.0, "it was run: {golden}");
}

/// A Dropout that is still active is told, or refused where that is wanted.
#[test]
fn answers_that_differ_between_two_runs_are_told_or_refused() {
    let repository = Repository::new();
    repository.add("random", 1, &models::dropout());
    let gateway = Gateway::start(&repository);
    let status = gateway.version_status("random", 1);
    let admission = status["admission"].to_string();
    assert_eq!(status["state"], "ready", "{status}");
    assert!(admission.contains("warning: output 'y' differs between two runs on the same request"), "{admission}");
    assert!(admission.contains("Dropout at node 'drop' draws at random"), "{admission}");
    assert_eq!(status["runs"]["max_batch_rows"], 1, "{status}");
    drop(gateway);
    let version = repository.version("random", 1);
    let check = |policy: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let command = command.arg("check").arg(&version).env("TIDEGATE_ADMISSION__NONDETERMINISTIC", policy);
        (command.status().unwrap().success(), output(command))
    };
    let (is_ok, told) = check("refuse");
    assert!(!is_ok && told.contains("admission.nondeterministic is \"refuse\""), "{told}");
    let (is_ok, told) = check("warn");
    assert!(is_ok, "{told}");
}
