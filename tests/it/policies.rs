//! What limits a release: who may name a version, which versions are loaded, and how much fits in memory.

use serde_json::{Value, json};
use tidegate::proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn repository(versions: std::ops::RangeInclusive<u64>) -> Repository {
    let repository = Repository::new();
    for version in versions {
        add(&repository, version);
    }
    repository
}

fn add(repository: &Repository, version: u64) {
    repository.add("m", version, &onnx::add(i64::try_from(version).unwrap() * 10));
}

fn states(gateway: &Gateway) -> Vec<(u64, String)> {
    let (_, answer) = gateway.admin("GET", ADMIN, None);
    let versions = answer["versions"].as_array().unwrap().iter();
    versions.map(|one| (one["version"].as_u64().unwrap(), one["state"].as_str().unwrap().to_owned())).collect()
}

fn ready(gateway: &Gateway) -> Vec<u64> {
    states(gateway).into_iter().filter(|(_, state)| state == "ready").map(|(version, _)| version).collect()
}

fn release(gateway: &Gateway) -> Value {
    gateway.admin("GET", ADMIN, None).1["release"].clone()
}

fn post(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    gateway.admin("POST", &format!("{ADMIN}{path}"), Some(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn naming_a_version_or_label_can_be_forbidden() {
    let repository = repository(1..=2);
    repository.write("m/model.toml", "[release]\nallow_pinning = false\n");
    let gateway = tokio::task::block_in_place(|| Gateway::start(&repository));
    tokio::task::block_in_place(|| {
        let label = json!({"version": 2});
        assert_eq!(gateway.admin("PUT", &format!("{ADMIN}/labels/champion"), Some(&label)).0, 200);
        assert_eq!(gateway.run_add("/v2/models/m/infer", 0.0).0, 200);
        for path in ["/v2/models/m/versions/2/infer", "/v2/models/m/labels/champion/infer"] {
            let (status, answer) = gateway.run_add(path, 0.0);
            assert_eq!(status, 403, "{path}: {answer}");
        }
        // What a version takes and gives is no secret.
        assert_eq!(gateway.get("/v2/models/m/versions/2").0, 200);
    });
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap();
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 1],
        ..InferInputTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "m".into(),
        model_version: "2".into(),
        inputs: vec![input],
        raw_input_contents: vec![vec![0; 4].into()],
        ..ModelInferRequest::default()
    };
    let refused = client.model_infer(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    let free = ModelInferRequest { model_version: String::new(), ..request };
    assert_eq!(client.model_infer(free).await.unwrap().into_inner().model_version, "2");
}

#[test]
fn gateway_can_forbid_it_for_all_models_and_a_model_allow_it() {
    let repository = repository(1..=1);
    let start = || Gateway::start_with(&repository, |command| command.env("TIDEGATE_RELEASE__ALLOW_PINNING", "false"));
    assert_eq!(start().run_add("/v2/models/m/versions/1/infer", 0.0).0, 403);
    repository.write("m/model.toml", "[release]\nallow_pinning = true\n");
    assert_eq!(start().run_add("/v2/models/m/versions/1/infer", 0.0).0, 200);
}

#[test]
fn version_policy_limits_what_is_loaded_and_an_operator_may_load_the_rest() {
    for (policy, expected) in
        [("\"all\"", vec![1, 2, 3]), ("{ latest = 2 }", vec![2, 3]), ("{ specific = [1, 9] }", vec![1])]
    {
        let repository = repository(1..=3);
        repository.write("m/model.toml", &format!("version_policy = {policy}\n"));
        let gateway = Gateway::start(&repository);
        assert_eq!(ready(&gateway), expected, "{policy}");
        let (status, answer) = post(&gateway, "/versions/2/load", &json!({}));
        assert_eq!((status, &answer["state"]), (200, &json!("ready")), "{policy}");
    }
}

#[test]
fn policy_latest_promotes_what_is_new_and_leaves_alone_what_was_gone_back_from() {
    let repository = repository(1..=2);
    repository.write("m/model.toml", "[release]\npolicy = \"latest\"\n");
    let gateway = Gateway::start(&repository);
    assert_eq!(release(&gateway)["stable"], 2);
    let become_stable = |version: u64| {
        gateway.wait(&format!("version {version} to be stable"), || {
            (release(&gateway)["stable"] == version).then_some(())
        });
    };
    add(&repository, 3);
    become_stable(3);
    // An operator goes back, and further back: the policy must not undo it.
    post(&gateway, "/promote", &json!({"version": 2}));
    post(&gateway, "/promote", &json!({"version": 1}));
    assert_eq!(post(&gateway, "/versions/3/load", &json!({})).0, 200);
    assert_eq!(release(&gateway)["stable"], 1);
    add(&repository, 4);
    become_stable(4);
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history?limit=1"), None);
    assert_eq!(history["entries"][0]["reason"], "release.policy is latest");
}

/// Bytes of one version of the model `add`; all have about the same.
fn version_bytes() -> u64 {
    onnx::add(10).len() as u64
}

fn with_room_for(repository: &Repository, versions: u64) -> Gateway {
    let bytes = version_bytes() * versions + version_bytes() / 2;
    Gateway::start_with(repository, |command| command.env("TIDEGATE_LIMITS__MODEL_MEMORY", format!("{bytes}B")))
}

#[test]
fn unreferenced_versions_make_room_for_what_is_loaded() {
    let repository = repository(1..=3);
    let gateway = with_room_for(&repository, 2);
    // At the start the highest are loaded, as far as they fit.
    assert_eq!(ready(&gateway), [2, 3]);
    assert_eq!(release(&gateway)["stable"], 3);
    let (_, reason) = gateway.version_state("m", 1);
    assert!(reason.contains("limits.model_memory"), "{reason}");

    assert_eq!(post(&gateway, "/versions/1/load", &json!({})).0, 200);
    gateway.wait_for_state("m", 2, "unloaded");
    assert_eq!(ready(&gateway), [1, 3]);
}

#[test]
fn rollback_target_makes_room_by_choice_only() {
    let repository = repository(1..=2);
    let gateway = with_room_for(&repository, 2);
    assert_eq!(post(&gateway, "/promote", &json!({"version": 1})).0, 200);
    add(&repository, 3);
    let reason = gateway.wait_for_state("m", 3, "unloaded");
    assert!(reason.contains("rollback targets hold"), "{reason}");
    let (status, answer) = post(&gateway, "/versions/3/load", &json!({}));
    assert_eq!(status, 409, "{answer}");
    let words = answer["error"].as_str().unwrap();
    assert!(words.contains("are in use") && words.contains("evict_previous"), "{words}");
    assert_eq!(post(&gateway, "/promote", &json!({"version": 3})).0, 409);
    assert_eq!((ready(&gateway), &release(&gateway)["previous"]), (vec![1, 2], &json!(2)));

    // Nothing changes in a dry run, and then all of it at once.
    assert_eq!(post(&gateway, "/versions/3/load?evict_previous=true&dry_run=true", &json!({})).0, 200);
    assert_eq!(release(&gateway)["previous"], 2);
    let (status, answer) = post(&gateway, "/promote?evict_previous=true", &json!({"version": 3}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["stable"], &answer["previous"]), (&json!(3), &json!(1)));
    gateway.wait_for_state("m", 2, "unloaded");
    assert_eq!(ready(&gateway), [1, 3]);
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let operations: Vec<_> =
        history["entries"].as_array().unwrap().iter().take(3).map(|entry| entry["operation"].clone()).collect();
    assert_eq!(operations, ["promote", "load", "forget_previous"]);
}

#[test]
fn what_a_release_names_is_loaded_at_a_start_whatever_the_budget() {
    let repository = repository(1..=2);
    let mut gateway = Gateway::start(&repository);
    assert_eq!(post(&gateway, "/promote", &json!({"version": 1})).0, 200);
    gateway.kill();
    let gateway = with_room_for(&repository, 1);
    assert_eq!(ready(&gateway), [1, 2]);
    assert!(gateway.log().contains("loaded beyond the budget"));
}
