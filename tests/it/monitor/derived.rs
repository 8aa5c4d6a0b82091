//! Free text and wide rows: profiled by the command, counted live, and told when they shift.

use std::{
    fmt::Write,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tidegate::domain::DataType;

use super::{INFER, drift, feature, model, start};
use crate::{
    harness::{Gateway, Repository},
    onnx,
};

/// A version of an identity with the profile that the command makes of a table.
fn profiled(onnx: &[u8], csv: &str) -> Repository {
    let repository = Repository::new();
    let version = repository.add("m", 1, onnx);
    let output = profile(&repository, &version, csv);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    repository
}

/// Runs the command on a version with a table.
fn profile(repository: &Repository, version: &Path, csv: &str) -> Output {
    let data = repository.path().join("rows.csv");
    fs::write(&data, csv).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("profile").arg(version).arg("--data").arg(data);
    command.output().unwrap()
}

#[test]
fn profile_of_nothing_but_missing_values_is_refused_and_the_old_one_is_kept() {
    let repository = Repository::new();
    let version = repository.add_files("m", 1, &[("model.onnx", &model()), ("profile.json", b"old")]);
    let refused = profile(&repository, &version, &format!("x,s\n{}", "nan,\n".repeat(50)));
    let [said, noted] = [refused.stdout, refused.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!((refused.status.code(), noted.contains("no column")), (Some(1), true), "{noted}");
    let told = |column: &str| said.lines().find(|line| line.starts_with(&format!("{column} "))).unwrap().to_owned();
    for column in ["x", "s"] {
        let line = told(column);
        assert!(line.contains("nothing") && line.contains("50 (100.0 %)"), "{said}");
        assert!(line.contains("no value in the data: any value that comes is reported as unseen"), "{said}");
        assert!(!noted.contains(&format!("{column}: ")), "told once: {noted}");
    }
    assert_eq!(fs::read(version.join("profile.json")).unwrap(), b"old");
    let made = profile(&repository, &version, &format!("x,s\n{}", "nan,a\n".repeat(50)));
    assert!(made.status.success(), "one column is something");
}

fn send(gateway: &Gateway, name: &str, datatype: &str, shape: [usize; 2], data: &Value) {
    let input = json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
    let (status, answer) = gateway.post(INFER, &json!({ "inputs": [input] }));
    assert_eq!(status, 200, "{answer}");
}

fn states(report: &Value, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| feature(report, name)["state"].as_str().unwrap().to_owned()).collect()
}

/// A number from 0 to 1 that looks like chance.
fn noise(at: usize) -> f64 {
    let mut mixed = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A text that no other row has.
fn review(at: usize, words: usize) -> String {
    let word =
        |place: usize| ["good", "bad", "parcel", "late", "colour", "42"][(noise(at * 97 + place) * 6.0) as usize];
    let count = words + (noise(at) * 20.0) as usize;
    (0..count).map(word).collect::<Vec<_>>().join(" ") + &format!(" {at}")
}

#[test]
fn free_text_is_watched_by_its_length_and_characters() {
    let mut csv = "x\n".to_owned();
    for at in 0..3000 {
        writeln!(csv, "{}", review(at, 5)).unwrap();
    }
    let repository = profiled(&onnx::identity(DataType::Bytes, &[onnx::ANY, 1]), &csv);
    let gateway = start(&repository, "");
    let names = ["x.length", "x.letters", "x.digits", "x.spaces", "y.length"];
    let post = |from: usize, words| {
        let texts: Vec<_> = (from..from + 600).map(|at| review(at, words)).collect();
        send(&gateway, "x", "BYTES", [600, 1], &json!(texts));
    };
    post(5000, 5);
    let report = drift(&gateway, "");
    for name in names {
        assert_eq!((&feature(&report, name)["rows"], &feature(&report, name)["kind"]), (&json!(600), &json!("text")));
    }
    assert_eq!(states(&report, &["x.length", "x.spaces"]), ["ok", "ok"]);
    post(9000, 25);
    let report = drift(&gateway, "");
    assert_eq!(states(&report, &["x.length", "y.length"]), ["drift", "drift"], "{report}");
}

const COLUMNS: usize = 128;

fn embedding(at: usize, shift: f64) -> Vec<f64> {
    (0..COLUMNS).map(|column| noise(at * COLUMNS + column) - 0.5 + shift).collect()
}

#[test]
fn wide_rows_are_watched_by_norm_mean_and_projections() {
    let header: Vec<_> = (0..COLUMNS).map(|column| format!("x[{column}]")).collect();
    let mut csv = header.join(",") + "\n";
    for at in 0..2000 {
        let row: Vec<_> = embedding(at, 0.0).iter().map(ToString::to_string).collect();
        writeln!(csv, "{}", row.join(",")).unwrap();
    }
    let wide = i64::try_from(COLUMNS).unwrap();
    let repository = profiled(&onnx::identity(DataType::Fp32, &[onnx::ANY, wide]), &csv);
    let gateway = start(&repository, "");
    let names = ["x.norm", "x.mean", "x.projection0", "x.projection1", "x.projection2", "y.norm"];
    let post = |from: usize, shift: f64| {
        let data: Vec<_> = (from..from + 600).flat_map(|at| embedding(at, shift)).collect();
        send(&gateway, "x", "FP32", [600, COLUMNS], &json!(data));
    };
    post(5000, 0.0);
    let report = drift(&gateway, "");
    for name in names {
        assert_eq!(feature(&report, name)["rows"], 600, "{name}");
        assert_eq!(feature(&report, name)["kind"], "embedding", "{name}");
    }
    assert_eq!(report["state"], "ok", "{report}");
    post(9000, 0.1);
    let report = drift(&gateway, "");
    assert_eq!(states(&report, &["x.mean", "y.mean"]), ["drift", "drift"], "{report}");
}
