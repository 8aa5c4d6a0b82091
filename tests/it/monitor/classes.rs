//! Outputs of a classifier are called by the names of its classes.

use std::{fmt::Write, fs, process::Command};

use serde_json::{Value, json};
use tidegate::{domain::DataType, proto::onnx::GraphProto};

use super::{INFER, drift, live, start};
use crate::{harness::Repository, onnx};

/// `scores = s`, three columns, and `class = c`, one number.
fn classifier() -> Vec<u8> {
    let (scores, class) = ([onnx::ANY, 3], [onnx::ANY, 1]);
    onnx::model(GraphProto {
        name: Some("classes".into()),
        node: vec![onnx::node("Identity", &["s"], &["scores"]), onnx::node("Identity", &["c"], &["class"])],
        input: vec![onnx::value("s", DataType::Fp32, &scores), onnx::value("c", DataType::Int64, &class)],
        output: vec![onnx::value("scores", DataType::Fp32, &scores), onnx::value("class", DataType::Int64, &class)],
        ..GraphProto::default()
    })
}

fn repository(labels: &str) -> Repository {
    let repository = Repository::new();
    repository.add("m", 1, &classifier());
    repository.write("m/labels.txt", labels);
    repository
}

/// Rows of class 0, 0, 0, 1, 1, 2 and again.
fn class(row: u16) -> u16 {
    [0, 0, 0, 1, 1, 2][usize::from(row % 6)]
}

/// The roles and names of the features in the profile that the command makes.
fn profiled(repository: &Repository) -> Vec<(String, String)> {
    let mut csv = "s[0],s[1],s[2],c\n".to_owned();
    for row in 0..600 {
        writeln!(csv, "{row},{},{},{}", row * 2, row * 3, class(row)).unwrap();
    }
    let data = repository.path().join("rows.csv");
    fs::write(&data, csv).unwrap();
    let version = repository.version("m", 1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("profile").arg(&version).arg("--data").arg(data);
    let output = command.output().unwrap();
    let profile = fs::read(version.join("profile.json")).unwrap_or_default();
    let profile: Value = serde_json::from_slice(&profile).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let features = profile["features"].as_array().unwrap().iter();
    features.map(|feature| (text(&feature["role"]), text(&feature["feature"]))).collect()
}

fn outputs(features: &[(String, String)]) -> Vec<&str> {
    features.iter().filter(|(role, _)| role == "output").map(|(_, name)| name.as_str()).collect()
}

fn body(rows: u16) -> Value {
    let scores: Vec<u16> = (0..rows).flat_map(|row| [row, row * 2, row * 3]).collect();
    let classes: Vec<u16> = (0..rows).map(class).collect();
    json!({"inputs": [
        {"name": "s", "datatype": "FP32", "shape": [rows, 3], "data": scores},
        {"name": "c", "datatype": "INT64", "shape": [rows, 1], "data": classes},
    ]})
}

fn report_after(repository: &Repository, monitor: &str, rows: u16, is_learnt: bool) -> Value {
    let gateway = start(repository, monitor);
    if is_learnt {
        assert_eq!(gateway.post(INFER, &body(600)).0, 200);
        gateway.wait("the profile to be learnt", || {
            gateway.post(INFER, &body(1));
            super::is_monitored(&gateway, "").then_some(())
        });
    }
    assert_eq!(gateway.post(INFER, &body(rows)).0, 200);
    drift(&gateway, "?window=1h")
}

#[test]
fn columns_and_bins_of_a_classifier_have_the_names_of_its_classes() {
    let repository = repository("cat\ndog\nfish\n");
    let features = profiled(&repository);
    assert_eq!(outputs(&features), ["scores[cat]", "scores[dog]", "scores[fish]", "class"]);
    let report = report_after(&repository, "", 600, false);
    let expected = [("0 (cat)", 300), ("1 (dog)", 200), ("2 (fish)", 100)];
    assert_eq!(live(&report, "class"), expected.map(|(bin, rows)| (bin.to_owned(), rows)).into());
    // What goes in is no class.
    assert!(live(&report, "c").contains_key("1"), "{report}");
    assert_eq!(report["state"], "ok");
}

#[test]
fn learnt_profile_has_the_names_too() {
    let repository = repository("cat\ndog\nfish\n");
    let report = report_after(&repository, "baseline = { learn = \"1s\" }", 600, true);
    assert!(live(&report, "scores[dog]").values().sum::<u64>() >= 600, "{report}");
    assert!(live(&report, "class").contains_key("2 (fish)"), "{report}");
}

#[test]
fn names_of_columns_in_the_models_configuration_win() {
    let repository = repository("cat\ndog\nfish\n");
    repository.write("m/model.toml", "[columns]\nscores = [\"a\", \"b\", \"c\"]\n");
    assert_eq!(outputs(&profiled(&repository)), ["a", "b", "c", "class"]);
}

#[test]
fn labels_of_another_number_of_classes_name_nothing() {
    let repository = repository("cat\ndog\n");
    assert_eq!(outputs(&profiled(&repository)), ["scores[0]", "scores[1]", "scores[2]", "class"]);
    let report = report_after(&repository, "", 600, false);
    assert!(live(&report, "class").contains_key("1"), "{report}");
}
