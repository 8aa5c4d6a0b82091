//! What of a `config.pbtxt` becomes what.

use proptest::prelude::*;

use super::*;
use crate::{config::ModelConfigError, domain::VersionPolicy};

const FULL: &str = r#"
# A comment, and every form that Triton's own examples use.
name: "m"
platform: "onnxruntime_onnx"
max_batch_size: 32
default_model_filename: "net.onnx"
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] },
  { name: "mask", data_type: TYPE_BOOL; dims: 1 dims: 2 }
]
output { name: "y" data_type: TYPE_STRING dims: [ 10 ] label_filename: "classes.txt" }
instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_GPU } ]
version_policy: { specific: { versions: [ 1, 3 ] } }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 1500
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { max_queue_size: 7 default_timeout_microseconds: 2000000 timeout_action: DELAY }
}
parameters [ { key: "a" value: { string_value: "1" } }, { key: "b" value { string_value: "two" } } ]
model_warmup {
  name: "sample" batch_size: 4 count: 2
  inputs: [
    { key: "x" value: { data_type: TYPE_FP32 dims: [ 3, 5 ] random_data: true } },
    { key: "mask" value: { data_type: TYPE_BOOL dims: [ 1, 2 ] input_data_file: "mask" } }
  ]
}
optimization { graph { level: 1 } }
response_cache { enable: true }
"#;

fn read(text: &str) -> Result<ModelConfig, ModelConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("m");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.pbtxt"), text).unwrap();
    std::fs::write(model.join("classes.txt"), "a\nb\n").unwrap();
    ModelConfig::read(&model)
}

#[test]
fn every_part_with_a_meaning_is_translated() {
    let config = read(FULL).unwrap();
    let micros = |micros| Some(Span(Duration::from_micros(micros)));
    assert_eq!((config.batching.enabled, config.batching.max_size), (Some(true), Some(32)));
    assert_eq!(config.batching.max_delay, micros(1500));
    assert_eq!((config.scheduler.instances, config.scheduler.max_queue), (Some(3), Some(7)));
    assert_eq!(config.scheduler.default_timeout, micros(2_000_000));
    assert_eq!(config.scheduler.default_priority.map(NonZeroU32::get), Some(2));
    assert_eq!(config.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["a=1", "b=two"]);
    assert_eq!(config.labels.of("y").unwrap(), ["a", "b"]);
    let sample = &config.warmup[0];
    assert_eq!((sample.rows.map(NonZeroUsize::get), sample.count.map(NonZeroUsize::get)), (Some(4), Some(2)));
    assert_eq!(sample.inputs["x"], WarmupInput { shape: Some(vec![4, 3, 5]), data: WarmupData::Random });
    assert_eq!(sample.inputs["mask"].data, WarmupData::File("mask".into()));
    assert_eq!(config.versions(), VersionPolicy::Specific(vec![1, 3]));
    let triton = config.triton.unwrap();
    assert_eq!((triton.max_batch_size, triton.preferred_batch_sizes), (32, vec![4, 8]));
    assert_eq!(triton.model_file.as_deref(), Some("net.onnx"));
    let mask =
        DeclaredTensor { name: "mask".into(), datatype: Some(DataType::Bool), dims: vec![1, 2], client_dims: None };
    assert_eq!((triton.inputs[1].clone(), triton.outputs[0].datatype), (mask, Some(DataType::Bytes)));
}

#[test]
fn what_has_no_meaning_is_named_once() {
    let warnings = read(&FULL.replace("name: \"m\"", "name: \"other\"")).unwrap().warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("'other'") && warnings[1].contains("GPU"), "{warnings:?}");
    for name in ["optimization", "response_cache", "preferred_batch_size", "timeout_action"] {
        assert!(warnings[2].contains(name), "{warnings:?}");
    }
    assert_eq!(read("").unwrap().warnings, Vec::<String>::new());
}

#[test]
fn requests_are_merged_only_where_triton_would() {
    let enabled = |text| read(text).unwrap().batching.enabled;
    assert_eq!(enabled(""), Some(false));
    assert_eq!(enabled("max_batch_size: 8"), Some(false));
    assert_eq!(enabled("dynamic_batching { }"), Some(false));
    assert_eq!(enabled("max_batch_size: 8 dynamic_batching { }"), Some(true));
}

#[test]
fn what_cannot_be_served_is_refused_with_its_line_or_its_name() {
    let cases = [
        ("name: \"m\"\nmax_batch: 3\n", "line 2"),
        ("input [\n{ name: \"x\"\n", "line 3"),
        ("max_batch_size: \"8\"", "line 1"),
        ("max_batch_size: -1", "negative"),
        ("platform: \"tensorrt_plan\"", "tensorrt_plan"),
        ("backend: \"python\"", "python"),
        ("sequence_batching { }", "sequence_batching"),
        ("ensemble_scheduling { }", "ensemble_scheduling"),
        ("default_model_filename: \"../model.onnx\"", "default_model_filename"),
        ("default_model_filename: \"model.plan\"", "default_model_filename"),
        ("version_policy { specific { versions: 0 } }", "version 0"),
        ("model_warmup { inputs { key: \"x\" value { dims: 1 } } }", "'x' has no data"),
        ("output { name: \"y\" label_filename: \"none.txt\" }", "none.txt"),
    ];
    for (text, words) in cases {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(read("max_batch: 3").unwrap_err().to_string().contains("config.pbtxt"));
}

#[test]
fn model_toml_wins_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.pbtxt"), "this is not read").unwrap();
    std::fs::write(directory.path().join("model.toml"), "[batching]\nmax_size = 5\n").unwrap();
    let config = ModelConfig::read(directory.path()).unwrap();
    assert_eq!((config.batching.max_size, config.warnings.len()), (Some(5), 1));
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        let _ = parse(&text, "m");
    }

    /// Pieces of the real thing in any order go deeper than noise does.
    #[test]
    fn any_pieces_are_read_without_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "name", "input", "dims", "parameters", "key", "value", "version_policy", "latest", "model_warmup", "inputs",
        ":", "{", "}", "[", "]", "<", ">", ",", ";", "\"x\"", "'", "-1", "0x", "1e999", "inf", "99999999999999999999",
        "TYPE_FP32", "\\", "#", "\n", "\u{e9}", "max_batch_size", "/", "[a.b/inference.ModelConfig]",
    ]), 0..40)) {
        let _ = parse(&pieces.join(" "), "m");
    }
}
