//! Promotion, rollback, canary, shadow; and what survives `kill -9`.

use serde_json::{Value, json};
use tidegate::proto::admin::{
    ChangeOptions, GetModelRequest, PromoteRequest, RollbackRequest, SplitRequest,
    admin_service_client::AdminServiceClient,
};

use crate::{
    harness::{Gateway, Repository, request},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn three_versions() -> Repository {
    let repository = Repository::new();
    for version in 1..=3 {
        repository.add("m", version, &onnx::add(i64::try_from(version).unwrap() * 10));
    }
    repository
}

/// The repository must live as long as the gateway.
fn serving() -> (Repository, Gateway) {
    let repository = three_versions();
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn change(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = gateway.admin(method, &format!("{ADMIN}{path}"), Some(body));
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

/// The version that answers, which must be the one that the answer names.
fn answering(gateway: &Gateway, path: &str) -> u64 {
    let (status, answer) = gateway.run_add(path, 0.0);
    assert_eq!(status, 200, "{answer}");
    let version = answer["outputs"][0]["data"][0].as_f64().unwrap() as u64 / 10;
    assert_eq!(answer["model_version"], version.to_string());
    version
}

#[test]
fn first_start_makes_the_highest_version_stable() {
    let (_repository, gateway) = serving();
    assert_eq!(answering(&gateway, "/v2/models/m/infer"), 3);
    assert_eq!(answering(&gateway, "/v2/models/m/versions/1/infer"), 1);
}

#[test]
fn promote_and_rollback_flip_what_answers() {
    let (_repository, gateway) = serving();
    let release = change(&gateway, "POST", "/promote", &json!({"version": 1, "reason": "older is better"}));
    assert_eq!((&release["stable"], &release["previous"]), (&json!(1), &json!(3)));
    assert_eq!(answering(&gateway, "/v2/models/m/infer"), 1);
    change(&gateway, "POST", "/rollback", &json!({}));
    assert_eq!(answering(&gateway, "/v2/models/m/infer"), 3);

    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let operations: Vec<_> = history["entries"].as_array().unwrap().iter().map(|entry| &entry["operation"]).collect();
    assert_eq!(operations, ["rollback", "promote", "promote"]);
    assert_eq!(history["entries"][1]["reason"], "older is better");
    let labels = [("model", "m"), ("operation", "rollback"), ("outcome", "ok")];
    assert_eq!(gateway.metric("tidegate_release_operations_total", &labels), Some(1.0));
}

#[test]
fn canary_gets_its_share_and_keeps_its_keys() {
    let (_repository, gateway) = serving();
    change(&gateway, "PUT", "/canary", &json!({"version": 1, "percent": 30}));
    let canary = (0..400).filter(|_| answering(&gateway, "/v2/models/m/infer") == 1).count();
    // Five standard deviations around 120.
    assert!((75..=165).contains(&canary), "{canary} of 400");

    let ask = |key: &str| {
        let body = json!({"parameters": {"routing_key": key}, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0]}]});
        gateway.post("/v2/models/m/infer", &body).1["model_version"].as_str().unwrap().to_owned()
    };
    let keys: Vec<String> = (0..60).map(|key| format!("user-{key}")).collect();
    let before: Vec<_> = keys.iter().map(|key| ask(key)).collect();
    assert_eq!(keys.iter().map(|key| ask(key)).collect::<Vec<_>>(), before, "a key keeps its version");
    change(&gateway, "PUT", "/canary", &json!({"version": 1, "percent": 60}));
    for (key, version) in keys.iter().zip(&before) {
        assert!(version == "3" || ask(key) == "1", "{key} left the canary when its share grew");
    }
    let labels = [("model", "m"), ("version", "1"), ("role", "canary")];
    assert_eq!(gateway.metric("tidegate_traffic_percent", &labels), Some(60.0));
    change(&gateway, "DELETE", "/canary", &json!({}));
    assert!((0..50).all(|_| answering(&gateway, "/v2/models/m/infer") == 3));
}

#[test]
fn shadow_gets_copies_and_never_answers() {
    let (_repository, gateway) = serving();
    change(&gateway, "PUT", "/shadow", &json!({"version": 2, "percent": 100}));
    for _ in 0..20 {
        assert_eq!(answering(&gateway, "/v2/models/m/infer"), 3);
    }
    let labels = [("version", "2"), ("role", "shadow"), ("protocol", "http"), ("code", "ok")];
    gateway.wait("the shadow's answers", || {
        (gateway.metric("tidegate_requests_total", &labels) == Some(20.0)).then_some(())
    });
}

#[test]
fn refused_changes_change_nothing_and_say_why() {
    let repository = three_versions();
    repository.add("m", 4, b"not onnx");
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 4, "failed");
    let before = gateway.admin("GET", ADMIN, None).1["release"].clone();
    let cases: [(&str, &str, Value, u16); 8] = [
        ("POST", "/promote", json!({"version": 9}), 404),
        ("POST", "/promote", json!({"version": 4}), 409),
        ("POST", "/promote", json!({"version": 0}), 400),
        ("POST", "/promote", json!({"vresion": 1}), 400),
        ("POST", "/rollback", json!({}), 409),
        ("PUT", "/canary", json!({"version": 1, "percent": 101}), 400),
        ("PUT", "/canary", json!({"version": 3, "percent": 10}), 409),
        ("POST", "/versions/3/unload", json!({}), 409),
    ];
    for (method, path, body, status) in cases {
        let (got, answer) = gateway.admin(method, &format!("{ADMIN}{path}"), Some(&body));
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        assert!(!answer["error"].as_str().unwrap_or_default().is_empty());
    }
    assert_eq!(gateway.admin("GET", "/admin/v1/models/none", None).0, 404);
    let (_, dry) = gateway.admin("POST", &format!("{ADMIN}/promote?dry_run=true"), Some(&json!({"version": 1})));
    assert_eq!(dry["stable"], 1);
    assert_eq!(gateway.admin("GET", ADMIN, None).1["release"], before);
}

#[test]
fn stale_generation_is_refused() {
    let (_repository, gateway) = serving();
    let promote = |generation: &str| {
        let url = format!("http://{}{ADMIN}/promote", gateway.addresses.admin);
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.post(&url).header("If-Match", generation).send(r#"{"version": 1}"#).unwrap().status().as_u16()
    };
    assert_eq!(promote("7"), 412);
    assert_eq!(promote("1"), 200);
    assert_eq!(promote("1"), 412);
}

#[test]
fn release_survives_kill_9() {
    let repository = three_versions();
    for round in 0..5_u64 {
        let mut gateway = Gateway::start(&repository);
        let version = round % 3 + 1;
        change(&gateway, "POST", "/promote", &json!({"version": version}));
        let other = version % 3 + 1;
        let acknowledged = change(&gateway, "PUT", "/canary", &json!({"version": other, "percent": 12.5}));
        gateway.kill();
        let gateway = Gateway::start(&repository);
        assert_eq!(gateway.admin("GET", ADMIN, None).1["release"], acknowledged);
    }
}

#[test]
fn released_model_without_files_is_not_ready_rather_than_unknown() {
    let repository = three_versions();
    Gateway::start(&repository).kill();
    std::fs::rename(repository.models().join("m"), repository.path().join("away")).unwrap();
    let gateway = Gateway::start_unready(&repository);
    assert_eq!(gateway.run_add("/v2/models/m/infer", 0.0).0, 503);
    assert_eq!(gateway.admin("GET", ADMIN, None).1["release"]["stable"], 3);
    std::fs::rename(repository.path().join("away"), repository.models().join("m")).unwrap();
    gateway.wait("version 3 to serve again", || (gateway.run_add("/v2/models/m/infer", 0.0).0 == 200).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_admin_says_what_rest_says() {
    let (_repository, gateway) = serving();
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let options = Some(ChangeOptions { reason: "over gRPC".into(), actor: "ann".into(), ..ChangeOptions::default() });
    let promote = PromoteRequest { model: "m".into(), version: 2, options: options.clone(), strict: false };
    let release = admin.promote(promote).await.unwrap().into_inner();
    assert_eq!((release.stable, release.previous), (2, 3));
    let split = SplitRequest { model: "m".into(), version: 1, percent: 5.0, options };
    admin.set_canary(split).await.unwrap();
    let rest = tokio::task::block_in_place(|| gateway.admin("GET", ADMIN, None).1["release"].clone());
    let status = admin.get_model(GetModelRequest { model: "m".into() }).await.unwrap().into_inner();
    let grpc = status.release.unwrap();
    assert_eq!(rest["stable"], grpc.stable);
    assert_eq!(rest["canary"], json!({"version": 1, "percent": 5}));
    assert_eq!(grpc.canary.unwrap().percent, 5.0);
    let unknown = RollbackRequest { model: "none".into(), options: None, to: 0 };
    assert_eq!(admin.rollback(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[test]
fn unloaded_version_answers_no_more_and_loads_again() {
    let (_repository, gateway) = serving();
    let (status, answer) = gateway.admin("POST", &format!("{ADMIN}/versions/1/unload"), Some(&json!({})));
    assert_eq!(status, 200, "{answer}");
    gateway.wait_for_state("m", 1, "unloaded");
    assert_eq!(gateway.run_add("/v2/models/m/versions/1/infer", 0.0).0, 503);
    assert_eq!(gateway.run_add("/v2/models/m/versions/9/infer", 0.0).0, 404);
    let (status, answer) = gateway.admin("POST", &format!("{ADMIN}/versions/1/load"), Some(&json!({})));
    assert_eq!((status, &answer["state"]), (200, &json!("ready")), "{answer}");
    assert_eq!(answering(&gateway, "/v2/models/m/versions/1/infer"), 1);
}

#[test]
fn requests_are_told_as_they_were_however_often_a_version_is_loaded() {
    let (_repository, gateway) = serving();
    assert_eq!(answering(&gateway, "/v2/models/m/versions/1/infer"), 1);
    for _ in 0..3 {
        gateway.admin("POST", &format!("{ADMIN}/versions/1/unload"), Some(&json!({})));
        gateway.wait_for_state("m", 1, "unloaded");
        assert_eq!(gateway.version_status("m", 1)["requests"], 1, "unloaded");
        gateway.admin("POST", &format!("{ADMIN}/versions/1/load"), Some(&json!({})));
        assert_eq!(gateway.version_status("m", 1)["requests"], 1, "loaded again");
    }
}

#[test]
fn admin_refuses_what_it_does_not_know() {
    let (_repository, gateway) = serving();
    let admin = gateway.addresses.admin;
    assert_eq!(request("GET", admin, "/admin/v1/nothing", None).0, 404);
    assert_eq!(request("DELETE", admin, &format!("{ADMIN}/promote"), None).0, 405);
    // The admin API is not on the inference plane.
    assert_eq!(request("GET", gateway.addresses.http, ADMIN, None).0, 404);
}
