//! Golden requests that are met, and those that are not, in words that say where.

use std::{fs, sync::Arc};

use super::*;
use crate::{
    domain::{Dim, Shape, Signature, TensorSpec},
    engine::EngineError,
    protocol::decode_json_request,
};

/// Answers what it is told to.
struct Fixed {
    signature: Arc<Signature>,
    answer: Vec<Tensor>,
}

impl Model for Fixed {
    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn run(&self, _: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        Ok(outputs.iter().map(|&place| self.answer[place].clone()).collect())
    }
}

fn model() -> Fixed {
    let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.into(),
        optional: false,
    };
    let row = [Dim::Any, Dim::Fixed(2)];
    let scores: Vec<u8> = [0.1_f32, 0.9, 0.25, f32::NAN].iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = |dimensions: &[i64]| Shape::new(dimensions.to_vec()).unwrap();
    Fixed {
        signature: Arc::new(Signature {
            inputs: vec![spec("x", DataType::Fp32, &[Dim::Any])],
            outputs: vec![spec("scores", DataType::Fp32, &row), spec("label", DataType::Bytes, &[Dim::Any])],
        }),
        answer: vec![
            Tensor::plain("scores", DataType::Fp32, shape(&[2, 2]), scores.into()).unwrap(),
            Tensor::text("label", shape(&[2]), vec!["yes".into(), "no".into()]).unwrap(),
        ],
    }
}

const REQUEST: &str = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}"#;

/// The faults of a golden request that expects these outputs.
fn replayed(outputs: &str) -> Result<usize, String> {
    replayed_text(&format!(
        r#"{{"request": {REQUEST}, "response": {{"outputs": [{outputs}]}}, "rtol": 1e-3, "atol": 0}}"#
    ))
}

fn replayed_text(golden: &str) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("golden")).unwrap();
    fs::write(directory.path().join("golden/a.json"), golden).unwrap();
    let listing = Listing::of(directory.path()).unwrap();
    let outcome = replay(&listing, &model(), decode_json_request).unwrap();
    outcome.map_err(|faults| faults.reasons.join("; "))
}

#[test]
fn golden_request_that_python_wrote_may_have_literals() {
    let request = REQUEST.replace("[1, 2]", "[NaN, -Infinity]");
    let golden = |data: &str| {
        replayed_text(&format!(r#"{{"request": {request}, "response": {{"outputs": [{}]}}}}"#, scores(data)))
    };
    assert_eq!(golden("[0.1, 0.9, 0.25, NaN]"), Ok(1));
    assert_eq!(golden("[0.1, 0.9, 0.25, null]"), Ok(1));
    for (data, fault) in [
        ("[0.1, 0.9, 0.25, -Infinity]", "'scores' at [1, 1]: expected -Infinity, got NaN"),
        ("[0.1, 0.9, NaN, NaN]", "'scores' at [1, 0]: expected NaN, got 0.25"),
        ("[0.1, 0.9, null, NaN]", "'scores' at [1, 0]: expected null, got 0.25"),
        ("[0.1, 0.9, 0.25, 1]", "'scores' at [1, 1]: expected 1, got NaN"),
    ] {
        assert!(golden(data).unwrap_err().contains(fault), "{data}: {:?}", golden(data));
    }
}

fn scores(data: &str) -> String {
    format!(r#"{{"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": {data}}}"#)
}

#[test]
fn answer_within_tolerance_passes_flat_or_nested() {
    assert_eq!(replayed(&scores("[0.1, 0.9, 0.25, null]")), Ok(1));
    assert_eq!(replayed(&scores("[[0.10009, 0.8995], [0.25, null]]")), Ok(1));
    let label = r#"{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "no"]}"#;
    assert_eq!(replayed(&format!("{}, {label}", scores("[0.1, 0.9, 0.25, null]"))), Ok(1));
}

#[test]
fn mismatch_names_tensor_index_expected_and_got() {
    assert_eq!(
        replayed(&scores("[0.1, 0.9, 0.5, 1.0]")).unwrap_err(),
        "golden/a.json: output 'scores' at [1, 0]: expected 0.5, got 0.25 (off by 2.500e-1, rtol 1e-3, atol 0e0); \
         1 more elements of it differ"
    );
    let label = r#"{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "yes"]}"#;
    let words = "golden/a.json: output 'label' at [1]: expected \"yes\", got \"no\"";
    assert_eq!(replayed(label).unwrap_err(), words);
}

#[test]
fn all_that_is_wrong_with_outputs_is_told() {
    let cases = [
        (r#"{"name": "z", "datatype": "FP32", "shape": [1], "data": [1]}"#, "output 'z' is expected and not"),
        (r#"{"name": "scores", "datatype": "FP64", "shape": [2, 2], "data": []}"#, "expected FP64, got FP32"),
        (r#"{"name": "scores", "datatype": "FP32", "shape": [4], "data": []}"#, "expected shape [4], got [2, 2]"),
        (
            r#"{"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [1]}"#,
            "has 1 elements, its shape needs 4",
        ),
    ];
    let all = cases.map(|(output, _)| output).join(", ");
    let faults = replayed(&all).unwrap_err();
    for (_, words) in cases {
        assert!(faults.contains(words), "{words}: {faults}");
    }
}

#[test]
fn golden_that_is_none_says_what_is_wrong() {
    let request = |input: &str| format!(r#"{{"request": {{"inputs": [{input}]}}, "response": {{"outputs": []}}}}"#);
    let cases = [
        ("{".to_owned(), "EOF"),
        (r#"{"request": {}, "response": {"outputs": []}, "tolerance": 1}"#.to_owned(), "unknown field `tolerance`"),
        (request(r#"{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}"#), "request: "),
        (request(r#"{"name": "q", "datatype": "FP32", "shape": [1], "data": [1]}"#), "input 'q' is unknown"),
    ];
    for (text, words) in cases {
        let fault = replayed_text(&text).unwrap_err();
        assert!(fault.contains(words) && fault.starts_with("golden/a.json: "), "{words}: {fault}");
    }
}

#[test]
fn every_datatype_is_compared_with_its_own_numbers() {
    let shape = || Shape::new(vec![1]).unwrap();
    let cases: [(DataType, Vec<u8>, &str); 12] = [
        (DataType::Bool, vec![1], "true"),
        (DataType::Uint8, vec![200], "200"),
        (DataType::Uint16, 60_000_u16.to_le_bytes().into(), "60000"),
        (DataType::Uint32, u32::MAX.to_le_bytes().into(), "4294967295"),
        (DataType::Uint64, u64::MAX.to_le_bytes().into(), "18446744073709551615"),
        (DataType::Int8, (-5_i8).to_le_bytes().into(), "-5"),
        (DataType::Int16, (-5_i16).to_le_bytes().into(), "-5"),
        (DataType::Int32, (-5_i32).to_le_bytes().into(), "-5"),
        (DataType::Int64, i64::MIN.to_le_bytes().into(), "-9223372036854775808"),
        (DataType::Fp16, f16::from_f32(1.5).to_le_bytes().into(), "1.5"),
        (DataType::Bf16, bf16::from_f32(1.5).to_le_bytes().into(), "1.5"),
        (DataType::Fp64, 0.1_f64.to_le_bytes().into(), "0.1"),
    ];
    for (datatype, bytes, expected) in cases {
        let tensor = Tensor::plain("y", datatype, shape(), bytes.into()).unwrap();
        assert_eq!(element(&tensor, 0).to_string(), expected, "{datatype}");
    }
}
