//! What columns are taken for: said by the command, chosen by whoever knows better, and counted so by the gateway.

use std::{fmt::Write, fs, process::Command};

use serde_json::{Value, json};
use tidegate::domain::DataType;

use super::{INFER, drift, feature, live, start};
use crate::{
    harness::{Gateway, Repository},
    onnx,
};

/// Runs the command on a table for version 1 of `m`: whether it went well, and what it said on stdout and stderr.
fn profile(repository: &Repository, csv: &str, flags: &[&str]) -> (bool, String, String) {
    let data = repository.path().join("rows.csv");
    fs::write(&data, csv).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("profile").arg(repository.version("m", 1));
    let output = command.arg("--data").arg(data).args(flags).output().unwrap();
    let [said, noted] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), said, noted)
}

fn repository(datatype: DataType, columns: i64) -> Repository {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::identity(datatype, &[onnx::ANY, columns]));
    repository
}

fn post(gateway: &Gateway, datatype: &str, columns: usize, data: &[Value]) -> (u16, Value) {
    let shape = [data.len() / columns, columns];
    gateway.post(INFER, &json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]}))
}

fn send(gateway: &Gateway, datatype: &str, columns: usize, data: &[Value]) {
    let (status, answer) = post(gateway, datatype, columns, data);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn codes_of_which_few_are_left_and_codes_that_never_were_are_a_drift() {
    let repository = repository(DataType::Bytes, 1);
    let code = |at: usize| format!("{:05}", 10_000 + at * 7919 % 600);
    let csv: String = (0..12_000).fold("x\n".to_owned(), |csv, at| csv + &code(at) + "\n");
    let (made, said, noted) = profile(&repository, &csv, &[]);
    assert!(made, "{noted}");
    let line = said.lines().find(|line| line.starts_with("x ")).unwrap();
    assert!(line.contains("categorical") && line.contains("600") && line.contains("in 64 hash buckets"), "{said}");
    assert!(!noted.contains("warning"), "{noted}");
    let state = |rows: &dyn Fn(usize) -> String| {
        let gateway = start(&repository, "");
        send(&gateway, "BYTES", 1, &(0..1000).map(|at| json!(rows(at))).collect::<Vec<_>>());
        let report = drift(&gateway, "");
        let unseen = live(&report, "x").get("unseen").copied().unwrap_or(0);
        (feature(&report, "x")["state"].as_str().unwrap().to_owned(), unseen)
    };
    assert_eq!(state(&|at| code(at * 31 + 5)), ("ok".into(), 0));
    assert_eq!(state(&|at| format!("{:05}", 10_480 + at * 7919 % 120)), ("drift".into(), 0));
    assert_eq!(state(&|at| format!("{:05}", 20_000 + at % 600)), ("drift".into(), 1000));
}

#[test]
fn type_of_a_column_can_be_chosen_and_a_wrong_one_is_told() {
    let repository = repository(DataType::Int64, 2);
    repository.write("m/model.toml", "[columns]\nx = [\"id\", \"code\"]\n[monitor.features]\ncode = \"numeric\"\n");
    let csv = (0..600).fold("id,code\n".to_owned(), |mut csv, at| {
        writeln!(csv, "{},{}", 5000 + at, at * 7 % 20).unwrap();
        csv
    });
    let names = || -> Vec<String> {
        let json: Value =
            serde_json::from_slice(&fs::read(repository.version("m", 1).join("profile.json")).unwrap()).unwrap();
        let features = json["features"].as_array().unwrap().iter().filter(|feature| feature["role"] != "output");
        let kind = |feature: &Value| feature["kind"].as_object().unwrap().keys().next().cloned().unwrap();
        features.map(|feature| format!("{} {}", feature["feature"].as_str().unwrap(), kind(feature))).collect()
    };
    let (made, said, noted) = profile(&repository, &csv, &[]);
    assert!(made && said.contains("as chosen: numeric"), "{said}{noted}");
    assert!(
        noted.contains("warning: id: it rises from row to row") && noted.contains("--types 'id=ignore'"),
        "{noted}"
    );
    assert_eq!(names(), ["id numeric", "code numeric", "reconstruction_error numeric"]);
    let (made, _, noted) = profile(&repository, &csv, &["--types", "id=ignore,code=categorical"]);
    assert!(made && !noted.contains("warning: id"), "{noted}");
    assert_eq!(names(), ["code categorical"]);
    for (types, words) in [
        ("cod=ignore", "the model has no column 'cod': did you mean 'code'?"),
        ("code=text", "'code' cannot be text: 'x' is INT64 and has no texts"),
        ("code=number", "write categorical, numeric, text or ignore"),
        ("code", "write COLUMN=TYPE"),
    ] {
        let (made, _, noted) = profile(&repository, &csv, &["--types", types]);
        assert!(!made && noted.contains(words), "{noted}");
    }
    assert_eq!(names(), ["code categorical"], "a refused one changes nothing");
}

#[test]
fn column_that_is_left_out_of_an_old_profile_drifts_no_more() {
    let repository = repository(DataType::Fp32, 3);
    let columns = "[columns]\nx = [\"id\", \"a\", \"b\"]\ny = [\"p\", \"q\", \"r\"]\n";
    repository.write("m/model.toml", columns);
    let row = |at: usize| [at, at * 31 % 97, at * 17 % 89];
    let csv = (0..2000).fold("id,a,b\n".to_owned(), |mut csv, at| {
        let [id, a, b] = row(at);
        writeln!(csv, "{id},{a},{b}").unwrap();
        csv
    });
    let (made, _, noted) = profile(&repository, &csv, &[]);
    assert!(made && noted.contains("warning: id") && !noted.contains("warning: a"), "{noted}");
    let report = || {
        let gateway = start(&repository, "");
        send(&gateway, "FP32", 3, &(5000..5500).flat_map(row).map(|value| json!(value)).collect::<Vec<_>>());
        let metrics = gateway.metrics();
        (drift(&gateway, ""), metrics)
    };
    let (before, _) = report();
    assert_eq!((&feature(&before, "id")["state"], &before["state"]), (&json!("drift"), &json!("drift")));
    let left_out = format!("{columns}[monitor.features]\nid = \"ignore\"\np = \"ignore\"\nqq = \"ignore\"\n");
    repository.write("m/model.toml", &left_out);
    let (after, metrics) = report();
    let names: Vec<_> =
        after["features"].as_array().unwrap().iter().map(|feature| feature["feature"].as_str().unwrap()).collect();
    assert_eq!((names, &after["state"]), (vec!["a", "b", "q", "r"], &json!("ok")), "{after}");
    assert!(!metrics.contains("feature=\"id\"") && metrics.contains("feature=\"a\""));
}

/// A CSV file of numbers of 32 bits has all digits that they have with 64.
#[test]
fn reference_with_32_bits_judges_64_as_the_same_values() {
    let repository = repository(DataType::Fp64, 1);
    let value = |at: usize| (1 + at * 7919 % 70) as f64 / 100.0;
    let csv = (0..7000).fold("x\n".to_owned(), |mut csv, at| {
        writeln!(csv, "{}", f64::from(value(at).to_string().parse::<f32>().unwrap())).unwrap();
        csv
    });
    let (made, said, noted) = profile(&repository, &csv, &[]);
    assert!(made && said.contains("stored with 32 bits"), "{said}{noted}");
    let gateway = start(&repository, "contract = \"reject\"");
    let (status, answer) = post(&gateway, "FP64", 1, &[json!(0.01), json!(0.7)]);
    assert_eq!(status, 200, "the least and the greatest value of the reference: {answer}");
    let (status, _) = post(&gateway, "FP64", 1, &[json!(0.7001)]);
    assert_eq!(status, 400);
    send(&gateway, "FP64", 1, &(0..998).map(|at| json!(value(at))).collect::<Vec<_>>());
    let report = drift(&gateway, "");
    let x = feature(&report, "x");
    assert!(x["measures"]["psi"].as_f64().unwrap() < 0.01, "{x}");
    assert!(!live(&report, "x").contains_key("above") && x["state"] == "ok", "{x}");
}
