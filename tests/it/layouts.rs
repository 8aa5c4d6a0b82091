//! Repositories as people have them: files in the wrong place, files that are no models, links into a cache, models of
//! exporters that need a little help.

use std::{fs, os::unix::fs::symlink, process::Command};

use prost::Message;
use serde_json::{Value, json};
use tidegate::{
    domain::DataType,
    proto::onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto, type_proto,
    },
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Files at these paths, all of them a model that could be served.
fn repository(paths: &[&str]) -> Repository {
    let repository = Repository::new();
    for path in paths {
        let path = repository.models().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, onnx::add(10)).unwrap();
    }
    repository
}

#[test]
fn layouts_that_are_not_understood_fail_with_their_reason_everywhere() {
    let repository = repository(&[
        "good/1/model.onnx",
        "good/v2/model.onnx",
        "good/03/model.onnx",
        "upper/1/MODEL.ONNX",
        "torch/1/model.pt",
        "pickle/1/model.pkl",
        "inner/1/onnx/model.onnx",
        "other/1/churn.onnx",
        "flat/model.onnx",
        "loose.onnx",
    ]);
    fs::create_dir_all(repository.models().join("void/1")).unwrap();
    let versions = [
        ("upper", "model.onnx is missing: MODEL.ONNX is there: rename it to model.onnx"),
        ("torch", "model.pt is there, a PyTorch file: export the model to ONNX"),
        ("pickle", "model.pkl is there, a Python pickle"),
        ("inner", "onnx/model.onnx is there: move it up, to model.onnx"),
        ("other", "churn.onnx is there: rename it to model.onnx"),
        ("void", "model.onnx is missing: the directory is empty"),
    ];
    let misplaced = [
        ("good", "good/v2", "rename it to 2"),
        ("good", "good/03", "rename it to 3"),
        ("flat", "flat/model.onnx", "move it to flat/1/model.onnx"),
        ("loose", "loose.onnx", "move it to loose/1/model.onnx"),
    ];
    let gateway = Gateway::start(&repository);
    for (model, words) in versions {
        let reason = gateway.wait_for_state(model, 1, "failed");
        assert!(reason.contains(words), "{model}: {reason}");
    }
    for (model, path, words) in misplaced {
        let found = gateway.wait(&format!("{path} to be told"), || {
            let (_, status) = gateway.admin("GET", &format!("/admin/v1/models/{model}"), None);
            status["misplaced"].as_array()?.iter().find(|it| it["path"] == path).cloned()
        });
        assert_eq!(found["state"], "failed");
        assert!(found["reason"].as_str().unwrap().contains(words), "{found}");
        assert!(gateway.log().contains(&format!("{path} is not served")), "{path}");
    }
    assert_eq!(gateway.run_add("/v2/models/good/infer", 1.0).0, 200);
    let (_, shown) = run(&["models", "--admin-url", &format!("http://{}", gateway.addresses.admin)]);
    let (code, checked) = run(&["check", repository.models().to_str().unwrap()]);
    assert_eq!(code, Some(1), "{checked}");
    for (model, words) in versions.into_iter().chain(misplaced.map(|(model, _, words)| (model, words))) {
        assert!(shown.lines().any(|line| line.starts_with(model) && line.contains(words)), "{model}: {shown}");
        assert!(checked.contains(words), "{words}: {checked}");
    }
    // What is mended is served, and no longer told of.
    fs::rename(repository.models().join("good/v2"), repository.models().join("good/2")).unwrap();
    gateway.wait_for_state("good", 2, "ready");
    fs::write(repository.version("void", 1).join("model.onnx"), onnx::add(10)).unwrap();
    gateway.wait_for_state("void", 1, "ready");
    fs::create_dir(repository.models().join("flat/1")).unwrap();
    fs::rename(repository.models().join("flat/model.onnx"), repository.models().join("flat/1/model.onnx")).unwrap();
    gateway.wait_for_state("flat", 1, "ready");
    gateway.wait("nothing to be told of flat", || {
        let (_, status) = gateway.admin("GET", "/admin/v1/models/flat", None);
        status.get("misplaced").is_none().then_some(())
    });
}

#[test]
fn check_is_short_and_shows_what_the_model_takes() {
    let repository = repository(&["good/1/model.onnx", "bad/1/net.onnx", "bad/2/net.onnx"]);
    repository.write("bad/model.toml", "[batching]\nmax_delay = 5\n");
    let (code, shown) = run(&["check", repository.models().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("takes x FP32 [-1, 1]") && shown.contains("gives y FP32 [-1, 1]"), "{shown}");
    assert!(shown.contains("not run: trial, load, signature, golden, warmup"), "{shown}");
    assert_eq!(shown.matches("expected a duration with its unit, such as \"250ms\"").count(), 1, "{shown}");
    assert_eq!(shown.matches("as told of the model above").count(), 2, "{shown}");
    assert!(shown.ends_with("checked 2 models, 3 versions: 3 FAILED\n"), "{shown}");
}

#[test]
fn directory_that_is_called_as_the_model_holds_it_and_its_weights() {
    let repository = Repository::new();
    let weights = 5.0_f32.to_le_bytes();
    let model = onnx::external_data("weights.bin");
    repository.add_files("m", 1, &[("model.onnx/model.onnx", &model), ("model.onnx/weights.bin", &weights)]);
    repository.add_files("gone", 1, &[("model.onnx/model.onnx", &model), ("weights.bin", &weights)]);
    repository.add_files("named", 1, &[("model.onnx/net.onnx", &model)]);
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 1, "ready");
    let reason = gateway.wait_for_state("gone", 1, "failed");
    assert!(
        reason.contains("'weights.bin' is missing") && reason.contains("copy it to model.onnx/weights.bin"),
        "{reason}"
    );
    let reason = gateway.wait_for_state("named", 1, "failed");
    assert!(reason.contains("model.onnx/net.onnx is there: rename it to model.onnx/model.onnx"), "{reason}");
    let (status, answer) = gateway.post(
        "/v2/models/m/infer",
        &json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}),
    );
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([6.0])), "{answer}");
}

/// A version whose files are links into a cache, as those of Hugging Face's are, and the cache.
fn linked() -> (Repository, std::path::PathBuf) {
    let repository = Repository::new();
    let cache = repository.path().join("hub/models--org--net");
    fs::create_dir_all(cache.join("blobs")).unwrap();
    fs::create_dir_all(cache.join("snapshots/abc")).unwrap();
    fs::write(cache.join("blobs/111"), onnx::external_data("model.onnx_data")).unwrap();
    fs::write(cache.join("blobs/222"), 5.0_f32.to_le_bytes()).unwrap();
    symlink("../../blobs/111", cache.join("snapshots/abc/model.onnx")).unwrap();
    symlink("../../blobs/222", cache.join("snapshots/abc/model.onnx_data")).unwrap();
    let version = repository.version("m", 1);
    fs::create_dir_all(version.parent().unwrap()).unwrap();
    symlink(cache.join("snapshots/abc"), version).unwrap();
    (repository, cache.canonicalize().unwrap())
}

#[test]
fn links_of_a_cache_are_refused_and_the_message_names_the_setting() {
    let (repository, cache) = linked();
    let gateway = Gateway::start(&repository);
    let reason = gateway.wait_for_state("m", 1, "failed");
    assert!(reason.contains(&format!("admission.link_roots = [{:?}]", cache.display().to_string())), "{reason}");
}

#[test]
fn links_of_a_cache_are_served_where_they_are_allowed() {
    let (repository, cache) = linked();
    let secret = repository.path().join("secret");
    fs::write(&secret, 7.0_f32.to_le_bytes()).unwrap();
    repository.add("out", 1, &onnx::external_data("weights"));
    symlink(&secret, repository.version("out", 1).join("weights")).unwrap();
    let config = repository.path().join("tidegate.toml");
    let root = cache.parent().unwrap().display().to_string();
    fs::write(&config, format!("[admission]\nlink_roots = [{root:?}]\n")).unwrap();
    let gateway = Gateway::start_with(&repository, |command| command.arg("--config").arg(&config));
    gateway.wait_for_state("m", 1, "ready");
    let (status, answer) = gateway.post(
        "/v2/models/m/infer",
        &json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}),
    );
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([6.0])), "{answer}");
    let reason = gateway.wait_for_state("out", 1, "failed");
    assert!(reason.contains("weights is a link that leads out"), "{reason}");
    let (code, checked) =
        run(&["check", "--config", config.to_str().unwrap(), repository.version("m", 1).to_str().unwrap()]);
    assert_eq!(code, Some(0), "{checked}");
}

fn text(name: &str, value: &str) -> AttributeProto {
    let (name, s) = (Some(name.into()), Some(value.into()));
    AttributeProto { name, s, r#type: Some(3), ..AttributeProto::default() }
}

/// `y` is `x` in lower case, by the rules of this locale; `None`: none is named.
fn lower(locale: Option<&str>) -> Vec<u8> {
    let attribute =
        [text("case_change_action", "LOWER")].into_iter().chain(locale.map(|locale| text("locale", locale))).collect();
    onnx::model(GraphProto {
        name: Some("lower".into()),
        node: vec![NodeProto { attribute, ..onnx::node("StringNormalizer", &["x"], &["y"]) }],
        input: vec![onnx::value("x", DataType::Bytes, &[onnx::ANY])],
        output: vec![onnx::value("y", DataType::Bytes, &[onnx::ANY])],
        ..GraphProto::default()
    })
}

#[test]
fn text_models_need_no_english_locale() {
    let repository = Repository::new();
    repository.add("absent", 1, &lower(None));
    repository.add("english", 1, &lower(Some("en_US.UTF-8")));
    repository.add("other", 1, &lower(Some("xx_XX.UTF-8")));
    let gateway = Gateway::start(&repository);
    for model in ["absent", "english"] {
        gateway.wait_for_state(model, 1, "ready");
        let input = json!({"name": "x", "datatype": "BYTES", "shape": [2], "data": ["ÄPFEL", "Ab"]});
        let (_, answer) = gateway.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": [input]}));
        assert_eq!(answer["outputs"][0]["data"], json!(["äpfel", "ab"]), "{answer}");
        let report = gateway.version_status(model, 1)["admission"].to_string();
        assert!(report.contains("C.UTF-8 is taken"), "{report}");
    }
    let reason = gateway.wait_for_state("other", 1, "failed");
    assert!(reason.contains("the locale xx_XX.UTF-8, which this machine does not have: install it"), "{reason}");
}

/// Two tensors of scores as one sequence, as a classifier of two targets ends.
fn two_targets() -> Vec<u8> {
    let tensor = TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(1), shape: None })),
    };
    let sequence = type_proto::Sequence { elem_type: Some(Box::new(tensor)) };
    let kind = TypeProto { value: Some(type_proto::Value::SequenceType(Box::new(sequence))) };
    onnx::model(GraphProto {
        name: Some("targets".into()),
        node: vec![
            onnx::node("Neg", &["x"], &["n"]),
            onnx::node("SequenceConstruct", &["x", "n"], &["probabilities"]),
            onnx::node("Identity", &["x"], &["label"]),
        ],
        input: vec![onnx::value("x", DataType::Fp32, &[onnx::ANY, 2])],
        output: vec![
            onnx::value("label", DataType::Fp32, &[onnx::ANY, 2]),
            ValueInfoProto { name: Some("probabilities".into()), r#type: Some(kind) },
        ],
        ..GraphProto::default()
    })
}

#[test]
fn classifier_of_several_targets_is_served_as_a_tensor_for_each() {
    let repository = Repository::new();
    repository.add("m", 1, &two_targets());
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 1, "ready");
    let (_, metadata) = gateway.get("/v2/models/m");
    let names: Vec<&Value> = metadata["outputs"].as_array().unwrap().iter().map(|output| &output["name"]).collect();
    assert_eq!(names, ["label", "probabilities_0", "probabilities_1"]);
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]});
    let (status, answer) = gateway.post("/v2/models/m/infer", &json!({"inputs": [input]}));
    let outputs = &answer["outputs"];
    assert_eq!((status, &outputs[1]["data"]), (200, &json!([0.25, 0.75])), "{answer}");
    assert_eq!((&outputs[2]["data"], &outputs[2]["shape"]), (&json!([-0.25, -0.75]), &json!([1, 2])));
}

/// `y = x`, after a change of the file.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(&onnx::identity(DataType::Fp32, &[onnx::ANY, 1])[..]).unwrap();
    change(&mut model);
    model.encode_to_vec()
}

fn operator(domain: &str, name: &str) -> Vec<u8> {
    changed(|model| {
        model.opset_import.push(OperatorSetIdProto { domain: Some(domain.into()), version: Some(1) });
        let node = &mut model.graph.as_mut().unwrap().node[0];
        (node.domain, node.op_type) = (Some(domain.into()), Some(name.into()));
    })
}

#[test]
fn models_that_cannot_be_loaded_say_what_to_do_and_nothing_of_the_runtimes_source() {
    let whole = onnx::add(1);
    let too_new = changed(|model| {
        (model.ir_version, model.opset_import[0].version) = (Some(99), Some(99));
    });
    let bf16 = onnx::model(GraphProto {
        name: Some("mod".into()),
        node: vec![onnx::node("Mod", &["x", "x"], &["y"])],
        input: vec![onnx::value("x", DataType::Bf16, &[onnx::ANY])],
        output: vec![onnx::value("y", DataType::Bf16, &[onnx::ANY])],
        ..GraphProto::default()
    });
    let cases: [(&str, &[u8], &[&str]); 10] = [
        ("new", &too_new, &["IR version 99", "`ir_version=", "opset 99 of ai.onnx", "`target_opset="]),
        (
            "opset",
            &changed(|model| model.opset_import[0].version = Some(99)),
            &["opset 99 of ai.onnx", "`target_opset="],
        ),
        (
            "solve",
            &operator("com.microsoft", "Solve"),
            &["operator Solve of com.microsoft, which ONNX Runtime does not have"],
        ),
        (
            "custom",
            &operator("my.ops", "Foo"),
            &["custom operator Foo of the domain 'my.ops'", "cannot be given to this gateway yet"],
        ),
        ("contrib", &operator("ai.onnx.contrib", "Foo"), &["onnxruntime-extensions"]),
        ("bf16", &bf16, &["operator Mod (opset 13)", "export it in float32"]),
        (
            "lfs",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n",
            &["Git LFS pointer", "git lfs pull"],
        ),
        ("page", b"<!DOCTYPE html><html>404</html>", &["HTML", "download it again"]),
        ("cut", &whole[..whole.len() / 2], &["cut short"]),
        ("weights", &onnx::external_data("w.bin"), &["'w.bin' is missing", "copy it to w.bin"]),
    ];
    let repository = Repository::new();
    for (model, bytes, _) in &cases {
        repository.add(model, 1, bytes);
    }
    let gateway = Gateway::start(&repository);
    let is_internal = |text: &str| ["::", ".cc:", ".h:", "_src", "\u{1b}"].iter().any(|known| text.contains(known));
    for (model, _, words) in cases {
        let reason = gateway.wait_for_state(model, 1, "failed");
        for word in words {
            assert!(reason.contains(word), "{model}: {word}: {reason}");
        }
        assert!(!is_internal(&reason), "{model}: {reason}");
        let version = repository.version(model, 1);
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let (code, profiled) = run(&["profile", version.to_str().unwrap(), "--data", data]);
        assert_eq!(code, Some(1), "{profiled}");
        assert_eq!(profiled.matches(words[0]).count(), 1, "{model}: {profiled}");
        assert!(!is_internal(&profiled), "{model}: {profiled}");
    }
    let (_, checked) = run(&["check", repository.models().to_str().unwrap()]);
    assert!(!is_internal(&checked), "{checked}");
    let log = gateway.log();
    let messages = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for line in messages.filter(|line| line["level"] != "DEBUG") {
        assert!(!is_internal(&line["fields"].to_string()), "{line}");
    }
}
