//! `tidegate profile` with the data that people have: parts, lists, dialects, too few rows; what it says of them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use prost::Message;
use serde_json::Value;
use tidegate::{
    domain::DataType,
    proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto},
};

use crate::{harness::Repository, onnx};

/// A model `m` with version 1, and files of data beside it.
fn with_data(model: &[u8], files: &[(&str, String)]) -> Repository {
    let repository = Repository::new();
    repository.add("m", 1, model);
    for (name, text) in files {
        let path = data(&repository, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    repository
}

fn data(repository: &Repository, name: &str) -> PathBuf {
    repository.path().join("data").join(name)
}

fn profile(repository: &Repository, version: &str, paths: &[&str], flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("profile");
    let directory = repository.version("m", 1);
    command.arg(if version == "m" { directory.parent().unwrap() } else { &directory });
    command.arg("--data").args(paths.iter().map(|path| data(repository, path))).args(flags);
    command.output().unwrap()
}

/// What the command said on stderr, when it went as expected.
fn noted(output: &Output, is_good: bool) -> String {
    let noted = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), is_good, "{noted}");
    noted
}

fn written(repository: &Repository) -> Value {
    serde_json::from_slice(&fs::read(repository.version("m", 1).join("profile.json")).unwrap()).unwrap()
}

fn names(profile: &Value, role: &str) -> Vec<String> {
    let features = profile["features"].as_array().unwrap().iter().filter(|feature| feature["role"] == role);
    features.map(|feature| feature["feature"].as_str().unwrap().to_owned()).collect()
}

fn lines(rows: std::ops::Range<usize>, line: impl Fn(usize) -> String) -> String {
    rows.map(|row| line(row) + "\n").collect()
}

#[test]
fn directories_patterns_and_several_files_are_one_table() {
    let part = |rows| format!("x;s\n{}", lines(rows, |row| format!("{row},5;a")));
    let files = [("date=2026-01-01/p.csv", part(0..150)), ("date=2026-01-02/p.csv", part(150..300))];
    let repository = with_data(&onnx::identity(DataType::Fp32, &[onnx::ANY]), &files);
    for paths in [&[""][..], &["date=*/p.csv"], &["date=2026-01-01/p.csv", "date=2026-01-02"]] {
        let noted = noted(&profile(&repository, "m/1", paths, &[]), true);
        assert!(noted.contains("fields are separated by ';', decimals have a comma"), "{noted}");
        assert!(noted.contains("2 files, 300 rows"), "{noted}");
        assert!(!noted.contains("too few"), "{noted}");
        let profile = written(&repository);
        assert_eq!(profile["rows"], 300);
        let kind = &profile["features"][0]["kind"]["numeric"];
        assert_eq!((&kind["min"], &kind["max"]), (&Value::from(0.5), &Value::from(299.5)), "{profile}");
    }
    let refused = noted(&profile(&repository, "m/1", &["*.parquet"], &[]), false);
    assert!(refused.contains("*.parquet matches no file"), "{refused}");
    let refused = noted(&profile(&repository, "m", &[""], &[]), false);
    assert!(refused.contains("m is a model, not a version of it: did you mean "), "{refused}");
    let refused = noted(&profile(&repository, "m/1", &[""], &["--delimiter", "tab"]), false);
    assert!(refused.contains("has no column 'x', which input 'x' needs: it has 'x;s', 'date'"), "{refused}");
}

#[test]
fn fixed_batch_uses_all_rows_and_leaves_the_outputs_of_repeated_ones_out() {
    let text = "x\n".to_owned() + &lines(0..100, |row| row.to_string());
    let repository = with_data(&onnx::identity(DataType::Fp32, &[64, 1]), &[("rows.csv", text)]);
    let noted = noted(&profile(&repository, "m/1", &["rows.csv"], &[]), true);
    assert!(noted.contains("filled up with 28 repeated rows, whose outputs are left out"), "{noted}");
    assert!(noted.contains("warning: 100 rows are too few to tell a drift from chance"), "{noted}");
    let profile = written(&repository);
    assert_eq!(profile["rows"], 100);
    for feature in profile["features"].as_array().unwrap() {
        assert_eq!(feature["rows"], 100, "{feature}");
        let (mean, max) = (&feature["kind"]["numeric"]["mean"], &feature["kind"]["numeric"]["max"]);
        assert_eq!((mean, max), (&Value::from(49.5), &Value::from(99.0)), "{feature}");
    }
}

#[test]
fn lists_fill_images_and_ids() {
    let row = |row: usize| format!("{{\"x\": [[{row}, 1, 2], [3, 4, 5]], \"id\": {row}}}");
    let repository =
        with_data(&onnx::identity(DataType::Fp32, &[onnx::ANY, 2, 3]), &[("rows.jsonl", lines(0..300, row))]);
    noted(&profile(&repository, "m/1", &["rows.jsonl"], &[]), true);
    let profile_of = written(&repository);
    assert_eq!(profile_of["rows"], 300);
    let inputs = names(&profile_of, "input");
    assert_eq!((inputs.len(), inputs[0].as_str(), inputs[5].as_str()), (6, "x[0]", "x[5]"));
    let rows = lines(0..3, |row| format!("{{\"x\": {:?}}}", vec![row; 2 + row / 2]));
    let repository = with_data(&onnx::identity(DataType::Int64, &[onnx::ANY, onnx::ANY]), &[("rows.jsonl", rows)]);
    let refused = noted(&profile(&repository, "m/1", &["rows.jsonl"], &[]), false);
    assert!(refused.contains("row 3, column 'x': its list has the shape [3], those before have [2]"), "{refused}");
}

#[test]
fn columns_of_a_matrix_are_named_as_the_error_says() {
    let text = "a,b,species\n".to_owned() + &lines(0..300, |row| format!("{row},{},iris", row * 2));
    let repository = with_data(&onnx::identity(DataType::Fp32, &[onnx::ANY, 2]), &[("iris.csv", text)]);
    let refused = noted(&profile(&repository, "m/1", &["iris.csv"], &[]), false);
    assert!(refused.contains("--columns 'x=a,b', or for good in model.toml:"), "{refused}");
    noted(&profile(&repository, "m/1", &["iris.csv"], &["--columns", "x=a,b"]), true);
    assert_eq!(names(&written(&repository), "input"), ["a", "b"]);
    let refused = noted(&profile(&repository, "m/1", &["iris.csv"], &["--columns", "x=a,b,species"]), false);
    assert!(refused.contains("'x' has 2 columns, 3 are named"), "{refused}");
}

#[test]
fn outputs_of_one_model_with_the_same_classes_are_told_apart() {
    let map = |output: &str| NodeProto {
        domain: Some("ai.onnx.ml".into()),
        attribute: vec![AttributeProto {
            name: Some("classlabels_int64s".into()),
            ints: vec![3, 7],
            r#type: Some(7),
            ..AttributeProto::default()
        }],
        ..onnx::node("ZipMap", &["p"], &[output])
    };
    let output = |name: &str| ValueInfoProto { name: Some(name.into()), r#type: None };
    let graph = GraphProto {
        name: Some("two classifiers".into()),
        node: vec![onnx::node("Identity", &["x"], &["p"]), map("churn"), map("fraud")],
        input: vec![onnx::value("x", DataType::Fp32, &[onnx::ANY, 2])],
        output: vec![output("churn"), output("fraud")],
        ..GraphProto::default()
    };
    let mut model = ModelProto::decode(&onnx::model(graph)[..]).unwrap();
    model.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(1) });
    let text = "x[0],x[1]\n".to_owned() + &lines(0..300, |row| format!("{row},{}", 300 - row));
    let repository = with_data(&model.encode_to_vec(), &[("rows.csv", text)]);
    noted(&profile(&repository, "m/1", &["rows.csv"], &[]), true);
    assert_eq!(names(&written(&repository), "output"), ["churn[3]", "churn[7]", "fraud[3]", "fraud[7]"]);
}
