//! Progressive rollouts: a bad version takes itself back, a good one completes, and both survive `kill -9`.

use serde_json::{Value, json};
use tidegate::proto::admin::{
    ChangeOptions, GetRolloutRequest, RolloutRequest, StartRolloutRequest, admin_service_client::AdminServiceClient,
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn start(repository: &Repository) -> Gateway {
    Gateway::start_with(repository, |command| command.env("TIDEGATE_ROLLOUT__LOOK_INTERVAL", "50ms"))
}

/// Version 1 is stable, since version 2 comes later.
fn serving(second: &[u8]) -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = start(&repository);
    repository.add("m", 2, second);
    gateway.wait_for_state("m", 2, "ready");
    (repository, gateway)
}

fn ask(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = gateway.admin(method, &format!("{ADMIN}{path}"), Some(body));
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

fn rollout(gateway: &Gateway) -> Value {
    let (status, answer) = gateway.admin("GET", &format!("{ADMIN}/rollout"), None);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Some requests with different inputs, whatever comes of them.
fn traffic(gateway: &Gateway) {
    for x in 0..40 {
        gateway.run_add("/v2/models/m/infer", f64::from(x));
    }
}

/// Sends requests until the rollout is in a state, and gives it then.
fn drive_to(gateway: &Gateway, state: &str) -> Value {
    gateway.wait(&format!("the rollout to be {state}"), || {
        traffic(gateway);
        Some(rollout(gateway)).filter(|rollout| rollout["state"] == state)
    })
}

/// A plan that never advances by itself within a test.
fn watchful() -> Value {
    json!({"version": 2, "steps": [30, 100], "interval": "1h"})
}

fn operations(gateway: &Gateway) -> Vec<String> {
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let entries = history["entries"].as_array().unwrap().iter();
    entries.map(|entry| entry["operation"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn taken_back(gateway: &Gateway, metrics: &[&str]) {
    let ended = drive_to(gateway, "rolled_back");
    assert_eq!(ended["release"]["canary"], json!({"version": 2, "percent": 0}), "{ended}");
    assert_eq!(ended["release"]["rolled_back"], json!([2]), "no rollback goes to it by itself: {ended}");
    assert_eq!(ended["release"]["stable"], 1);
    let note = ended["note"].as_str().unwrap();
    assert!(metrics.iter().any(|metric| note.contains(&format!("rolled back at 30 %: {metric}"))), "{note}");
    assert_eq!(gateway.version_state("m", 2).0, "ready", "it stays loaded for inspection");

    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let last = &history["entries"][0];
    assert_eq!((&last["operation"], &last["actor"]), (&json!("rollout_roll_back"), &json!("rollout")));
    assert_eq!(&last["reason"], note);
    assert_eq!(last["from"]["canary"]["percent"], 30);
    let labels = [("model", "m"), ("version", "2"), ("state", "rolled_back")];
    assert_eq!(gateway.metric("tidegate_rollout_state", &labels), Some(1.0));
    let labels = [("model", "m"), ("operation", "rollout_roll_back"), ("outcome", "ok")];
    assert_eq!(gateway.metric("tidegate_release_operations_total", &labels), Some(1.0));
    assert!(gateway.log().contains("rolled back: the canary gets nothing now"), "{}", gateway.log());
}

#[test]
fn version_that_fails_takes_itself_back() {
    let (_repository, gateway) = serving(&onnx::fails_from(5));
    ask(&gateway, "POST", "/rollout", &watchful());
    taken_back(&gateway, &["failures", "refused"]);
}

#[test]
fn version_with_other_answers_takes_itself_back() {
    let (_repository, gateway) = serving(&onnx::add(1000));
    ask(&gateway, "POST", "/rollout", &watchful());
    taken_back(&gateway, &["score"]);
}

#[test]
fn version_that_answers_nothing_but_zero_is_taken_back_before_it_gets_everything() {
    let (_repository, gateway) = serving(&onnx::zero());
    // Steps that are over long before there is evidence.
    let plan = json!({"version": 2, "steps": [50, 100], "interval": "1ms"});
    let started = ask(&gateway, "POST", "/rollout", &plan);
    assert_eq!(
        started["missing"],
        json!([
            "latency, score: 0 of 200 compared requests of the canary",
            "latency, score: 0 of 200 compared requests of stable"
        ])
    );
    for x in 0..60 {
        gateway.run_add("/v2/models/m/infer", f64::from(x));
    }
    gateway.wait("a look", || rollout(&gateway)["note"].as_str().unwrap().contains("compared requests").then_some(()));
    let so_far = rollout(&gateway);
    assert_eq!((&so_far["state"], &so_far["percent"]), (&json!("running"), &json!(50)), "{so_far}");
    let ended = drive_to(&gateway, "rolled_back");
    let note = ended["note"].as_str().unwrap();
    assert!(note.starts_with("rolled back at 50 %: score: total variation distance"), "{note}");
    assert!(note.contains("above the limit of 0.1 (--output-tolerance"), "{note}");
    assert_eq!(ended["release"]["stable"], 1);
    assert_eq!(operations(&gateway), ["rollout_roll_back", "rollout_start", "promote"]);
    assert!(ended.get("missing").is_none(), "{ended}");
}

#[test]
fn step_waits_for_compared_requests_of_both_arms_and_says_for_how_many() {
    let (_repository, gateway) = serving(&onnx::add(10));
    // Stable gets one request in a hundred.
    let plan = json!({"version": 2, "steps": [99, 100], "interval": "1ms", "min_requests": 30, "alpha": 1e-9});
    ask(&gateway, "POST", "/rollout", &plan);
    gateway.wait("30 requests of the canary", || {
        traffic(&gateway);
        (rollout(&gateway)["requests"]["canary"].as_u64().unwrap() >= 30).then_some(())
    });
    let waits = gateway.wait("a look", || {
        Some(rollout(&gateway)).filter(|rollout| rollout["note"].as_str().unwrap().contains("of stable"))
    });
    let compared = &waits["evidence"]["metrics"][4]["compared"];
    let missing = json!([format!("latency, score: {} of 30 compared requests of stable", compared["stable"])]);
    assert_eq!((&waits["missing"], &waits["percent"]), (&missing, &json!(99)), "{waits}");
    assert_eq!(waits["evidence"]["metrics"][3].get("compared"), None, "the model predicts no class");
}

#[test]
fn good_version_goes_through_its_steps_and_becomes_stable() {
    let (_repository, gateway) = serving(&onnx::add(10));
    // Almost no false alarm at all: this test must not fail once in a hundred runs.
    let plan = json!({"version": 2, "steps": [10, 50, 100], "interval": "100ms", "min_requests": 5, "alpha": 1e-9, "reason": "better"});
    let started = ask(&gateway, "POST", "/rollout", &plan);
    assert_eq!((&started["state"], &started["percent"]), (&json!("running"), &json!(10)));
    assert_eq!(started["release"]["canary"], json!({"version": 2, "percent": 10}));
    let ended = drive_to(&gateway, "completed");
    let release = &ended["release"];
    assert_eq!((&release["stable"], &release["previous"], &release["canary"]), (&json!(2), &json!(1), &json!(null)));
    assert_eq!(
        operations(&gateway),
        ["rollout_complete", "rollout_advance", "rollout_advance", "rollout_start", "promote"]
    );
    let (_, answer) = gateway.run_add("/v2/models/m/infer", 0.0);
    assert_eq!(answer["model_version"], "2");
}

#[test]
fn rollout_goes_on_after_kill_9_with_its_counts() {
    let (repository, mut gateway) = serving(&onnx::fails_from(5));
    let harmless = |gateway: &Gateway| (0..40).for_each(|_| drop(gateway.run_add("/v2/models/m/infer", 1.0)));
    ask(&gateway, "POST", "/rollout", &watchful());
    // The note is made by a look, and a look writes what it has read before.
    let before = gateway.wait("a look at the counts", || {
        harmless(&gateway);
        Some(rollout(&gateway)).filter(|rollout| rollout["note"].as_str().unwrap().contains("requests of at least"))
    });
    gateway.kill();
    let gateway = start(&repository);
    let after = rollout(&gateway);
    for key in ["version", "stable", "state", "step", "steps", "interval", "started_at", "release"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert!(after["requests"]["canary"].as_u64().unwrap() > 0, "{after}");
    taken_back(&gateway, &["failures", "refused"]);
}

#[test]
fn canary_that_is_gone_after_a_restart_is_taken_back() {
    let (repository, mut gateway) = serving(&onnx::add(10));
    ask(&gateway, "POST", "/rollout", &watchful());
    gateway.kill();
    std::fs::remove_dir_all(repository.version("m", 2)).unwrap();
    let gateway = start(&repository);
    let ended = drive_to(&gateway, "rolled_back");
    let note = ended["note"].as_str().unwrap();
    assert!(note.contains("version 2 does not serve any more: it is gone from disk"), "{note}");
}

#[test]
fn without_traffic_it_holds_and_says_so() {
    let (_repository, gateway) = serving(&onnx::add(10));
    ask(&gateway, "POST", "/rollout", &json!({"version": 2, "interval": "1ms"}));
    gateway.wait("a look", || rollout(&gateway)["note"].as_str().unwrap().contains("no traffic").then_some(()));
    assert_eq!(rollout(&gateway)["percent"], 1);
}

#[test]
fn requests_with_one_id_are_one_piece_of_evidence() {
    let (_repository, gateway) = serving(&onnx::add(10));
    ask(&gateway, "POST", "/rollout", &watchful());
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]});
    for _ in 0..50 {
        assert_eq!(gateway.post("/v2/models/m/infer", &json!({"id": "same", "inputs": [input]})).0, 200);
    }
    // Pinned requests are not drawn, and count nothing.
    for _ in 0..50 {
        assert_eq!(gateway.post("/v2/models/m/versions/2/infer", &json!({"inputs": [input]})).0, 200);
    }
    let rollout = rollout(&gateway);
    let arms = |value: &Value| value["stable"].as_u64().unwrap() + value["canary"].as_u64().unwrap();
    assert_eq!(arms(&rollout["requests"]), 50);
    assert_eq!(arms(&rollout["evidence"]["metrics"][0]["requests"]), 1);
}

#[test]
fn operators_pause_resume_and_abort() {
    let (_repository, gateway) = serving(&onnx::add(10));
    let plan = json!({"version": 2, "steps": [50, 100], "interval": "50ms", "min_requests": 1, "alpha": 1e-9});
    ask(&gateway, "POST", "/rollout", &plan);
    assert_eq!(ask(&gateway, "POST", "/rollout/pause", &json!({"reason": "lunch"}))["state"], "paused");
    traffic(&gateway);
    gateway.wait("a look", || rollout(&gateway)["note"].as_str().unwrap().starts_with("paused").then_some(()));
    assert_eq!(rollout(&gateway)["percent"], 50);
    assert_eq!(ask(&gateway, "POST", "/rollout/resume", &json!({}))["state"], "running");
    gateway.wait("the next step", || {
        traffic(&gateway);
        let rollout = rollout(&gateway);
        (rollout["percent"] == 100 || rollout["state"] == "completed").then_some(())
    });

    let (_repository, gateway) = serving(&onnx::add(10));
    ask(&gateway, "POST", "/rollout", &plan);
    let aborted = ask(&gateway, "DELETE", "/rollout", &json!({"reason": "wrong version"}));
    assert_eq!((&aborted["state"], &aborted["release"]["canary"]), (&json!("aborted"), &json!(null)));
    assert_eq!(operations(&gateway), ["rollout_abort", "rollout_start", "promote"]);
    assert_eq!(gateway.admin("POST", &format!("{ADMIN}/rollout/pause"), Some(&json!({}))).0, 409);
}

#[test]
fn operators_change_of_the_release_ends_the_rollout() {
    let (repository, gateway) = serving(&onnx::add(10));
    repository.add("m", 3, &onnx::add(30));
    gateway.wait_for_state("m", 3, "ready");
    let cases: [(&str, &str, Value, Value); 3] = [
        ("PUT", "/canary", json!({"version": 2, "percent": 2}), json!({"version": 2, "percent": 2})),
        ("DELETE", "/canary", json!({}), json!(null)),
        ("POST", "/promote", json!({"version": 3}), json!(null)),
    ];
    for (method, path, body, canary) in cases {
        ask(&gateway, "POST", "/rollout", &watchful());
        // A shadow and a label are no business of the rollout's.
        ask(&gateway, "PUT", "/labels/next", &json!({"version": 2}));
        assert_eq!(rollout(&gateway)["state"], "running");
        let release = ask(&gateway, method, path, &body);
        assert_eq!(release["canary"], canary, "{method} {path}: nobody watches the canary any more");
        let ended = rollout(&gateway);
        assert_eq!(ended["state"], "superseded", "{method} {path}");
        assert!(ended["note"].as_str().unwrap().contains("superseded at 30 % by 127.0.0.1's"), "{ended}");
        assert_eq!(operations(&gateway)[0], "rollout_supersede");
    }
}

#[test]
fn refused_rollouts_change_nothing_and_say_why() {
    let (_repository, gateway) = serving(&onnx::add(10));
    let path = format!("{ADMIN}/rollout");
    assert_eq!(gateway.admin("GET", &path, None).0, 404);
    assert_eq!(gateway.admin("DELETE", &path, Some(&json!({}))).0, 404);
    let before = gateway.admin("GET", ADMIN, None).1["release"].clone();
    for (body, status) in [
        (json!({"version": 9}), 404),
        (json!({"version": 1}), 409),
        (json!({"version": 2, "steps": [50]}), 400),
        (json!({"version": 2, "steps": [100]}), 400),
        (json!({"version": 2, "alpha": 2}), 400),
        (json!({"version": 2, "intervall": "1m"}), 400),
    ] {
        let (got, answer) = gateway.admin("POST", &path, Some(&body));
        assert_eq!(got, status, "{body}: {answer}");
    }
    let (status, dry) = gateway.admin("POST", &format!("{path}?dry_run=true"), Some(&watchful()));
    assert_eq!((status, &dry["release"]["canary"]["percent"]), (200, &json!(30)));
    assert_eq!(gateway.admin("GET", ADMIN, None).1["release"], before);
    assert_eq!(gateway.admin("GET", &path, None).0, 404);
    ask(&gateway, "POST", "/rollout", &watchful());
    let (status, answer) = gateway.admin("POST", &path, Some(&watchful()));
    assert_eq!(
        (status, answer["error"].as_str().unwrap()),
        (409, "a rollout of version 2 is going on: abort it first")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_says_what_rest_says() {
    let (_repository, gateway) = tokio::task::block_in_place(|| serving(&onnx::add(10)));
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let options = Some(ChangeOptions { reason: "over gRPC".into(), actor: "ann".into(), ..ChangeOptions::default() });
    let start = StartRolloutRequest {
        model: "m".into(),
        version: 2,
        steps: vec![25.0, 100.0],
        interval: "2h".into(),
        alpha: Some(0.05),
        options: options.clone(),
        ..StartRolloutRequest::default()
    };
    let started = admin.start_rollout(start).await.unwrap().into_inner();
    assert_eq!((started.state.as_str(), started.evidence_limit, started.steps), ("running", 20.0, vec![25.0, 100.0]));
    let change = RolloutRequest { model: "m".into(), options };
    assert_eq!(admin.pause_rollout(change.clone()).await.unwrap().into_inner().state, "paused");
    let rest = tokio::task::block_in_place(|| rollout(&gateway));
    let grpc = admin.get_rollout(GetRolloutRequest { model: "m".into() }).await.unwrap().into_inner();
    assert_eq!((&rest["state"], &rest["interval"]), (&json!(grpc.state), &json!(grpc.interval)));
    assert_eq!(rest["release"]["canary"]["percent"].as_f64(), grpc.release.unwrap().canary.map(|split| split.percent));
    assert_eq!(rest["evidence"]["metrics"].as_array().unwrap().len(), grpc.metrics.len());
    assert!(grpc.missing.len() == 2 && rest["missing"] == json!(grpc.missing), "{rest}");
    assert!(grpc.metrics[4].compared.is_some() && grpc.metrics[3].compared.is_none());
    assert_eq!(admin.resume_rollout(change.clone()).await.unwrap().into_inner().state, "running");
    assert_eq!(admin.abort_rollout(change.clone()).await.unwrap().into_inner().state, "aborted");
    assert_eq!(admin.abort_rollout(change).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
}

#[test]
fn version_whose_files_change_in_a_rollout_serves_what_was_loaded_until_it_is_over() {
    let (repository, gateway) = serving(&onnx::add(20));
    ask(&gateway, "POST", "/rollout", &watchful());
    let before = gateway.version_status("m", 2);
    std::fs::write(repository.version("m", 2).join("model.onnx"), onnx::add(30)).unwrap();
    gateway.wait("the change to be told", || (gateway.version_status("m", 2)["files_changed"] == true).then_some(()));
    // Longer than the settling time: it would have been loaded.
    std::thread::sleep(std::time::Duration::from_millis(600));
    let (kept, log) = (gateway.version_status("m", 2), gateway.log());
    assert_eq!((&kept["digest"], &kept["loaded_at"]), (&before["digest"], &before["loaded_at"]), "{kept}");
    assert_eq!(log.matches("it serves what was loaded until its rollout is over").count(), 1, "{log}");
    ask(&gateway, "DELETE", "/rollout", &json!({}));
    gateway.wait("the new files to serve", || {
        let status = gateway.version_status("m", 2);
        (status["digest"] != before["digest"] && status.get("files_changed").is_none()).then_some(())
    });
}
