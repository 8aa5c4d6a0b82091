//! What happens on disk while the gateway serves: new versions, broken ones, mended ones.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

fn serving_one() -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn still_serves(gateway: &Gateway) {
    let (status, answer) = gateway.run_add("/v2/models/m/infer", 0.0);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([10.0])));
}

#[test]
fn new_version_is_picked_up_and_gets_no_traffic_until_promoted() {
    let (repository, gateway) = serving_one();
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    still_serves(&gateway);
    assert_eq!(gateway.run_add("/v2/models/m/versions/2/infer", 0.0).1["outputs"][0]["data"], json!([20.0]));
}

#[test]
fn policy_latest_promotes_what_becomes_ready() {
    let (repository, gateway) = serving_one();
    repository.write("m/model.toml", "[release]\npolicy = \"latest\"\n");
    repository.add("m", 2, &onnx::add(20));
    gateway.wait("version 2 to be stable", || {
        let (_, answer) = gateway.run_add("/v2/models/m/infer", 0.0);
        (answer["model_version"] == "2").then_some(())
    });
}

#[test]
fn new_model_is_picked_up() {
    let (repository, gateway) = serving_one();
    repository.add("other", 5, &onnx::add(50));
    gateway.wait("the new model", || (gateway.run_add("/v2/models/other/infer", 0.0).0 == 200).then_some(()));
}

#[test]
fn broken_versions_say_why_and_disturb_nothing() {
    let (repository, gateway) = serving_one();
    let whole = onnx::add(30);
    repository.add("m", 2, b"this is not onnx at all");
    repository.add("m", 3, &whole[..whole.len() / 2]);
    repository.add("m", 4, b"");
    repository.add_files("m", 5, &[("model.onnx", &whole), ("profile.json", b"{\"format\": 1")]);
    let foreign = foreign_profile();
    repository.add_files("m", 6, &[("model.onnx", &whole), ("profile.json", foreign.as_bytes())]);
    for (version, words) in [(2, "onnx"), (3, ""), (4, ""), (5, "profile.json"), (6, "profile.json")] {
        let reason = gateway.wait_for_state("m", version, "failed");
        assert!(!reason.is_empty() && reason.to_lowercase().contains(words), "{version}: {reason}");
    }
    still_serves(&gateway);
    let labels = [("model", "m"), ("version", "2"), ("state", "failed")];
    assert_eq!(gateway.metric("tidegate_model_state", &labels), Some(1.0));
    assert_eq!(gateway.get("/v2/health/ready").0, 200, "a failed version does not make the gateway unready");
}

/// A profile of a model with another input.
fn foreign_profile() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/models/car_loan/1/profile.json")).unwrap();
    assert!(text.contains("car_value"));
    text
}

#[test]
fn external_data_outside_the_directory_is_refused() {
    let (repository, gateway) = serving_one();
    let secret = repository.path().join("secret");
    fs::write(&secret, 1.0_f32.to_le_bytes()).unwrap();
    repository.add("m", 2, &onnx::external_data("../../../secret"));
    repository.add("m", 3, &onnx::external_data(secret.to_str().unwrap()));
    let temporary = repository.path().join("linked");
    fs::create_dir(&temporary).unwrap();
    symlink(&secret, temporary.join("weights")).unwrap();
    fs::write(temporary.join("model.onnx"), onnx::external_data("weights")).unwrap();
    fs::rename(&temporary, repository.version("m", 4)).unwrap();
    for (version, words) in [(2, "external data"), (3, "external data"), (4, "weights is a link that leads out")] {
        let reason = gateway.wait_for_state("m", version, "failed");
        assert!(reason.contains(words), "{version}: {reason}");
    }
    let weights = 5.0_f32.to_le_bytes();
    // A model of its own: beside version 1 its signature would be refused.
    repository.add_files("inside", 1, &[("model.onnx", &onnx::external_data("weights")), ("weights", &weights)]);
    gateway.wait_for_state("inside", 1, "ready");
    still_serves(&gateway);
}

#[test]
fn half_copied_directory_becomes_ready_once_it_is_whole() {
    let (repository, gateway) = serving_one();
    let whole = onnx::add(20);
    let directory = repository.version("m", 2);
    fs::create_dir(&directory).unwrap();
    // Longer than the settling time without the model: nothing to try yet, and too early to call it a mistake.
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(gateway.version_state("m", 2).0, "discovered");
    fs::write(directory.join("model.onnx"), &whole[..whole.len() / 2]).unwrap();
    gateway.wait_for_state("m", 2, "failed");
    still_serves(&gateway);
    fs::write(directory.join("model.onnx"), &whole).unwrap();
    gateway.wait_for_state("m", 2, "ready");
}

#[test]
fn files_that_are_not_those_that_serve_are_told_until_they_are() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    // What becomes of released versions otherwise, `changed_files` has.
    let gateway = Gateway::start_with(&repository, |command| command.env("TIDEGATE_RELEASE__RELOAD_CHANGED", "auto"));
    let first = gateway.version_status("m", 1);
    assert_eq!(first.get("files_changed"), None);
    fs::write(repository.version("m", 1).join("model.onnx"), b"no model").unwrap();
    let refused = gateway.wait("the new files to be refused", || {
        Some(gateway.version_status("m", 1)).filter(|status| status["reason"].is_string())
    });
    assert_eq!((&refused["state"], &refused["files_changed"]), (&"ready".into(), &true.into()), "{refused}");
    assert_eq!(refused["digest"], first["digest"]);
    still_serves(&gateway);
    assert_eq!(gateway.log().matches("its files changed").count(), 1, "{}", gateway.log());
    fs::write(repository.version("m", 1).join("model.onnx"), onnx::add(20)).unwrap();
    gateway.wait("the mended files to serve", || {
        let status = gateway.version_status("m", 1);
        (status["digest"] != first["digest"] && status.get("files_changed").is_none()).then_some(())
    });
}

#[test]
fn broken_model_toml_fails_new_versions_and_mending_it_heals_them() {
    let (repository, gateway) = serving_one();
    repository.write("m/model.toml", "[release]\npolcy = 1\n");
    repository.add("m", 2, &onnx::add(20));
    let reason = gateway.wait_for_state("m", 2, "failed");
    assert!(reason.contains("model.toml") && reason.contains("polcy"), "{reason}");
    still_serves(&gateway);
    repository.write("m/model.toml", "");
    gateway.wait_for_state("m", 2, "ready");
}

#[test]
fn version_deleted_from_disk_goes_on_serving_while_it_is_stable() {
    let (repository, gateway) = serving_one();
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    fs::remove_dir_all(repository.version("m", 1)).unwrap();
    fs::remove_dir_all(repository.version("m", 2)).unwrap();
    gateway.wait("version 2 to be gone", || gateway.version_state("m", 2).0.is_empty().then_some(()));
    still_serves(&gateway);
}

#[test]
fn stable_version_that_is_gone_at_the_start_is_told_and_serves_once_it_is_back() {
    let (repository, mut gateway) = serving_one();
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    gateway.kill();
    let (directory, aside) = (repository.version("m", 1), repository.path().join("aside"));
    fs::rename(&directory, &aside).unwrap();
    let gateway = Gateway::start_unready(&repository);
    assert_eq!(gateway.run_add("/v2/models/m/infer", 0.0).0, 503);
    let reason = gateway.wait_for_state("m", 1, "failed");
    assert!(reason.contains("gone from disk") && reason.contains(directory.to_str().unwrap()), "{reason}");
    let labels = [("model", "m"), ("version", "1"), ("state", "failed")];
    assert_eq!(gateway.metric("tidegate_model_state", &labels), Some(1.0));
    let (_, index) = gateway.admin("POST", "/v2/repository/index", None);
    let row = index.as_array().unwrap().iter().find(|row| row["version"] == "1").unwrap_or_else(|| panic!("{index}"));
    assert!(row["state"] == "UNAVAILABLE" && row["reason"].as_str().unwrap().contains("gone"), "{index}");
    let warnings = || gateway.log().lines().filter(|line| line.contains("WARN") && line.contains("is gone")).count();
    assert_eq!(warnings(), 1, "{}", gateway.log());
    assert_eq!(gateway.get("/v2/health/ready").0, 503, "what is released does not serve");
    let (status, answer) = gateway.admin("POST", "/admin/v1/models/m/versions/1/load", Some(&json!({})));
    assert!(status == 409 && answer["error"].as_str().unwrap().contains("failed"), "{status}: {answer}");
    fs::rename(&aside, &directory).unwrap();
    gateway.wait_for_state("m", 1, "ready");
    still_serves(&gateway);
    assert_eq!(gateway.get("/v2/health/ready").0, 200);
}

#[test]
fn model_that_is_gone_at_the_start_is_told() {
    let (repository, mut gateway) = serving_one();
    gateway.kill();
    fs::remove_dir_all(repository.models().join("m")).unwrap();
    let gateway = Gateway::start_unready(&repository);
    assert!(gateway.wait_for_state("m", 1, "failed").contains("gone from disk"));
}

#[test]
fn model_that_cannot_be_served_says_why() {
    use tidegate::{domain::DataType, proto::onnx::GraphProto};
    let (repository, gateway) = serving_one();
    let graph = GraphProto {
        name: Some("sequence".into()),
        node: vec![onnx::node("SplitToSequence", &["x"], &["y"])],
        input: vec![onnx::value("x", DataType::Fp32, &[3])],
        output: vec![tidegate::proto::onnx::ValueInfoProto { name: Some("y".into()), r#type: None }],
        ..GraphProto::default()
    };
    repository.add("m", 2, &onnx::model(graph));
    let reason = gateway.wait_for_state("m", 2, "failed");
    assert!(!reason.is_empty(), "{reason}");
    still_serves(&gateway);
}
