//! Files of a released version that are others now: never silently another model.

use std::fs;

use serde_json::{Value, json};
use tidegate::proto::admin::{ChangeOptions, LoadVersionRequest, admin_service_client::AdminServiceClient};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

/// Version 1 is stable.
fn serving() -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn overwrite(repository: &Repository, constant: i64) {
    fs::write(repository.version("m", 1).join("model.onnx"), onnx::add(constant)).unwrap();
}

/// What the stable version adds.
fn answer(gateway: &Gateway) -> f64 {
    let (status, answer) = gateway.run_add("/v2/models/m/infer", 0.0);
    assert_eq!(status, 200, "{answer}");
    answer["outputs"][0]["data"][0].as_f64().unwrap()
}

fn wait_until_refused(gateway: &Gateway) -> Value {
    gateway.wait("the changed files to be told", || {
        Some(gateway.version_status("m", 1)).filter(|status| status["changed"].is_object())
    })
}

#[test]
fn stable_version_that_is_overwritten_goes_on_and_is_told_everywhere() {
    let (repository, mut gateway) = serving();
    let digest = gateway.version_status("m", 1)["digest"].clone();
    overwrite(&repository, 20);
    let status = wait_until_refused(&gateway);
    assert_eq!((&status["state"], &status["files_changed"]), (&json!("ready"), &json!(true)), "{status}");
    assert_eq!((&status["digest"], &status["changed"]["released"]), (&digest, &digest), "{status}");
    let found = status["changed"]["found"].as_str().unwrap();
    assert!(found.starts_with("sha256:") && found != digest.as_str().unwrap(), "{status}");
    assert_eq!(answer(&gateway), 10.0);
    assert_eq!(gateway.metric("tidegate_model_files_changed", &[("model", "m"), ("version", "1")]), Some(1.0));
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("until somebody accepts it")).unwrap();
    assert!(line.contains(found) && line.contains(digest.as_str().unwrap()), "{line}");
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    assert_eq!(history["entries"].as_array().unwrap().len(), 1, "nothing was changed: {history}");

    // A restart does not slip it in: it says which model is there, and does not serve it.
    gateway.kill();
    let gateway = Gateway::start_unready(&repository);
    let reason = gateway.wait_for_state("m", 1, "failed");
    for words in [found, digest.as_str().unwrap(), "--accept-changed"] {
        assert!(reason.contains(words), "{words}: {reason}");
    }
    assert_eq!(gateway.run_add("/v2/models/m/infer", 0.0).0, 503);
    overwrite(&repository, 10);
    gateway.wait_for_state("m", 1, "ready");
    let status = gateway.version_status("m", 1);
    assert_eq!((answer(&gateway), status.get("changed"), status.get("files_changed")), (10.0, None, None));
    assert_eq!(gateway.metric("tidegate_model_files_changed", &[("model", "m"), ("version", "1")]), Some(0.0));
}

#[test]
fn changed_files_are_taken_by_an_operation_with_both_digests_in_the_audit_log() {
    let (repository, mut gateway) = serving();
    let released = gateway.version_status("m", 1)["digest"].as_str().unwrap().to_owned();
    overwrite(&repository, 20);
    let found = wait_until_refused(&gateway)["changed"]["found"].as_str().unwrap().to_owned();
    let (code, _, said) = gateway.cli(&["load", "m", "1"]);
    assert_eq!((code, answer(&gateway)), (Some(0), 10.0), "a load alone takes nothing: {said}");
    let (code, _, said) =
        gateway.cli(&["load", "m", "1", "--accept-changed", "--reason", "the mended export", "--actor", "ann"]);
    assert_eq!(code, Some(0), "{said}");
    let status = gateway.version_status("m", 1);
    assert_eq!(
        (answer(&gateway), status["digest"].as_str(), status.get("changed")),
        (20.0, Some(found.as_str()), None)
    );
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history?verify=true"), None);
    let newest = &history["entries"][0];
    assert_eq!((&newest["operation"], &newest["asked"]), (&json!("load"), &json!("version 1, accept_changed")));
    assert_eq!((&newest["actor"], &newest["reason"]), (&json!("ann"), &json!("the mended export")));
    assert_eq!(newest["detail"], format!("model {released} → {found}"));
    assert_eq!(history["verification"]["intact"], true);
    gateway.kill();

    let gateway = Gateway::start(&repository);
    assert_eq!(answer(&gateway), 20.0, "what was accepted is what is released, after kill -9 too");
    let (code, _, said) = gateway.cli(&["load", "m", "1", "--accept-changed"]);
    assert_eq!(code, Some(0), "there is nothing to accept: {said}");
}

#[test]
fn after_a_restart_the_files_are_accepted_just_so() {
    let (repository, mut gateway) = serving();
    gateway.kill();
    overwrite(&repository, 20);
    let gateway = Gateway::start_unready(&repository);
    let (status, answered) =
        gateway.admin("POST", &format!("{ADMIN}/versions/1/load?accept_changed=true"), Some(&json!({})));
    assert_eq!(status, 200, "{answered}");
    assert_eq!((answer(&gateway), gateway.get("/v2/health/ready").0), (20.0, 200));
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let detail = history["entries"][0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("failed → ready, model sha256:"), "{detail}");
}

#[test]
fn files_that_are_no_model_are_not_taken_though_they_are_accepted() {
    let (repository, gateway) = serving();
    fs::write(repository.version("m", 1).join("model.onnx"), b"no model").unwrap();
    wait_until_refused(&gateway);
    let (code, _, said) = gateway.cli(&["load", "m", "1", "--accept-changed"]);
    assert!(code == Some(1) && said.contains("it serves what it served"), "{said}");
    assert_eq!(answer(&gateway), 10.0);
}

#[test]
fn new_profile_for_the_same_model_is_taken_without_being_accepted() {
    let repository = Repository::new();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models/car_loan");
    let read = |path: &str| fs::read(format!("{models}/{path}")).unwrap();
    let (model, profile, config) = (read("1/model.onnx"), read("1/profile.json"), read("model.toml"));
    repository.add("car_loan", 1, &model);
    repository.write("car_loan/model.toml", &String::from_utf8(config).unwrap());
    let gateway = Gateway::start(&repository);
    assert_eq!(gateway.version_status("car_loan", 1)["monitored"], false);
    fs::write(repository.version("car_loan", 1).join("profile.json"), profile).unwrap();
    gateway.wait("drift to be watched", || (gateway.version_status("car_loan", 1)["monitored"] == true).then_some(()));
    // So are the same bytes written anew.
    let file = repository.version("car_loan", 1).join("model.onnx");
    let loaded = gateway.version_status("car_loan", 1)["loaded_at"].clone();
    fs::write(&file, &model).unwrap();
    gateway.wait("the same model to be loaded again", || {
        let status = gateway.version_status("car_loan", 1);
        (status["loaded_at"] != loaded && status.get("files_changed").is_none()).then_some(())
    });
}

#[test]
fn weights_in_a_file_of_their_own_are_part_of_the_model() {
    let repository = Repository::new();
    let files =
        |weight: f32| [("model.onnx", onnx::external_data("weights")), ("weights", weight.to_le_bytes().to_vec())];
    let add = files(5.0);
    repository.add_files("m", 1, &add.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())));
    let gateway = Gateway::start(&repository);
    let digest = gateway.version_status("m", 1)["digest"].clone();
    fs::write(repository.version("m", 1).join("weights"), 6.0_f32.to_le_bytes()).unwrap();
    let status = wait_until_refused(&gateway);
    assert_eq!(status["digest"], digest);
    assert_ne!(status["changed"]["released"], status["changed"]["found"], "{status}");
}

#[test]
fn version_that_no_release_names_is_loaded_as_it_is() {
    let (repository, gateway) = serving();
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    let digest = gateway.version_status("m", 2)["digest"].clone();
    fs::write(repository.version("m", 2).join("model.onnx"), onnx::add(30)).unwrap();
    gateway.wait("the new files", || (gateway.version_status("m", 2)["digest"] != digest).then_some(()));
    // Once it was named, and is not any more, it is as free as before.
    let canary = json!({"version": 2, "percent": 1});
    assert_eq!(gateway.admin("PUT", &format!("{ADMIN}/canary"), Some(&canary)).0, 200);
    assert_eq!(gateway.admin("DELETE", &format!("{ADMIN}/canary"), Some(&json!({}))).0, 200);
    fs::write(repository.version("m", 2).join("model.onnx"), onnx::add(40)).unwrap();
    gateway.wait("the newest files", || {
        let (_, answer) = gateway.run_add("/v2/models/m/versions/2/infer", 0.0);
        (answer["outputs"][0]["data"][0] == 40.0).then_some(())
    });
}

#[test]
fn model_may_say_that_its_files_are_taken_by_themselves() {
    let (repository, mut gateway) = serving();
    repository.write("m/model.toml", "[release]\nreload_changed = \"auto\"\n");
    overwrite(&repository, 20);
    gateway.wait("the new files to serve", || (answer(&gateway) == 20.0).then_some(()));
    gateway.kill();
    repository.write("m/model.toml", "");
    let gateway = Gateway::start(&repository);
    assert_eq!(answer(&gateway), 20.0, "what was taken is what is released");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_told_and_accepted_over_grpc_alike() {
    let (repository, gateway) = serving();
    overwrite(&repository, 20);
    tokio::task::block_in_place(|| wait_until_refused(&gateway));
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let ask = |accept_changed| LoadVersionRequest {
        model: "m".into(),
        version: 1,
        options: Some(ChangeOptions::default()),
        allow_signature_change: false,
        accept_changed,
    };
    let told = admin.load_version(ask(false)).await.unwrap().into_inner();
    let changed = told.changed.unwrap();
    assert!(told.files_changed && changed.released == told.digest && changed.found != told.digest, "{changed:?}");
    let taken = admin.load_version(ask(true)).await.unwrap().into_inner();
    assert_eq!((taken.digest, taken.changed), (changed.found, None));
}
