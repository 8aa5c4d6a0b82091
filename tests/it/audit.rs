//! The audit log and its hash chain, and idempotency keys, over the real API.

use std::process::Command;

use serde_json::{Value, json};
use tidegate::proto::admin::{
    ChangeOptions, GetHistoryRequest, PromoteRequest, admin_service_client::AdminServiceClient,
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn serving() -> (Repository, Gateway) {
    let repository = Repository::new();
    for version in 1..=3 {
        repository.add("m", version, &onnx::add(i64::try_from(version).unwrap() * 10));
    }
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

/// A POST with headers: the status, the body, and whether the answer is a repeated one.
fn post(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value, bool) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent.post(format!("http://{}{ADMIN}{path}", gateway.addresses.admin));
    for (name, value) in headers {
        request = request.header(*name, value.as_bytes());
    }
    let mut answer = request.send(body.to_string()).unwrap();
    let is_repeated = answer.headers().get("idempotency-replayed").is_some_and(|value| value == "true");
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap(), is_repeated)
}

fn history(gateway: &Gateway) -> Vec<Value> {
    gateway.admin("GET", &format!("{ADMIN}/history?verify=true"), None).1["entries"].as_array().unwrap().clone()
}

fn summary(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    format!("{} {} {} {}", text("actor"), text("operation"), text("asked"), text("outcome"))
}

#[test]
fn every_attempt_is_in_the_log_with_who_what_and_why() {
    let (_repository, gateway) = serving();
    let ann = [("tidegate-actor", "ann")];
    post(&gateway, "/promote", &ann, &json!({"version": 1, "reason": "older is better"}));
    assert_eq!(post(&gateway, "/promote", &ann, &json!({"version": 9})).0, 404);
    assert_eq!(post(&gateway, "/versions/1/unload", &ann, &json!({})).0, 409);
    post(&gateway, "/versions/2/unload", &ann, &json!({"reason": "room"}));
    gateway.wait_for_state("m", 2, "unloaded");
    post(&gateway, "/versions/2/load", &ann, &json!({}));
    assert_eq!(post(&gateway, "/promote?dry_run=true", &ann, &json!({"version": 2})).0, 200);
    let entries = history(&gateway);
    let summaries: Vec<_> = entries.iter().rev().map(summary).collect();
    assert_eq!(
        summaries,
        [
            "tidegate promote version 3 ok",
            "ann promote version 1 ok",
            "ann promote version 9 refused",
            "ann unload version 1 refused",
            "ann unload version 2 ok",
            "ann load version 2 ok",
        ]
    );
    let [load, unload, _, unknown, promote, _] = &entries[..] else { panic!("six entries") };
    assert_eq!((&promote["from"]["stable"], &promote["to"]["stable"]), (&json!(3), &json!(1)));
    assert_eq!(promote["reason"], "older is better");
    assert_eq!(unknown["detail"], "model 'm' has no version 9");
    assert_eq!(unknown["from"], unknown["to"]);
    assert_eq!((&unload["reason"], &load["detail"]), (&json!("room"), &json!("unloaded → ready")));
}

#[test]
fn endless_refusals_are_counted_in_one_entry() {
    let (repository, mut gateway) = serving();
    for _ in 0..50 {
        assert_eq!(post(&gateway, "/promote", &[("tidegate-actor", "loop")], &json!({"version": 9})).0, 404);
    }
    assert_eq!(history(&gateway).len(), 2);
    assert_eq!(gateway.terminate(), Some(0));
    // What was counted is written at the end.
    let gateway = Gateway::start(&repository);
    let newest = &history(&gateway)[0];
    assert_eq!((&newest["attempts"], &newest["actor"]), (&json!(49), &json!("loop")));
}

#[test]
fn chain_is_checked_and_the_first_broken_entry_is_named() {
    let (repository, mut gateway) = serving();
    for version in [1, 2, 3, 1] {
        post(&gateway, "/promote", &[], &json!({"version": version}));
    }
    let verified = |gateway: &Gateway| {
        let (status, answer) = gateway.admin("GET", &format!("{ADMIN}/history?verify=true"), None);
        assert_eq!(status, 200, "{answer}");
        answer["verification"].clone()
    };
    let found = verified(&gateway);
    assert_eq!((&found["intact"], &found["entries"], &found["broken"]), (&json!(true), &json!(5), &Value::Null));
    assert_eq!(found["head"]["hash"], history(&gateway)[0]["hash"]);
    gateway.kill();

    let file = rusqlite::Connection::open(repository.state().join("tidegate.db")).unwrap();
    file.execute("UPDATE history SET actor = 'nobody' WHERE sequence = 3", []).unwrap();
    drop(file);
    let gateway = Gateway::start(&repository);
    let found = verified(&gateway);
    assert_eq!((&found["intact"], &found["broken"]["sequence"]), (&json!(false), &json!(3)));

    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["history", "m", "--verify", "--admin-url", &format!("http://{}", gateway.addresses.admin)])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.starts_with("error: entry 3 of the audit log is not as written"), "{complaint}");
}

#[test]
fn changes_of_rollouts_are_in_the_chain_with_what_was_asked_and_refused() {
    let (repository, mut gateway) = serving();
    let ann = [("tidegate-actor", "ann")];
    let plan = json!({"version": 1, "steps": [10, 100], "interval": "1h", "reason": "slowly"});
    assert_eq!(post(&gateway, "/rollout", &ann, &plan).0, 200);
    assert_eq!(post(&gateway, "/rollout", &ann, &plan).0, 409);
    assert_eq!(post(&gateway, "/rollout/pause", &ann, &json!({})).0, 200);
    assert_eq!(post(&gateway, "/promote", &ann, &json!({"version": 2})).0, 200);
    assert_eq!(post(&gateway, "/rollout/pause", &ann, &json!({})).0, 409);
    gateway.kill();
    let gateway = Gateway::start(&repository);
    let entries = history(&gateway);
    let summaries: Vec<_> = entries.iter().rev().skip(1).map(summary).collect();
    assert_eq!(
        summaries,
        [
            "ann rollout_start version 1, steps 10 100, interval 1h ok",
            "ann rollout_start version 1, steps 10 100, interval 1h refused",
            "ann rollout_pause  ok",
            "ann promote version 2 ok",
            "ann rollout_supersede version 1 ok",
            "ann rollout_pause  refused",
        ]
    );
    let [_, ended, promoted, .., started, _] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&started["reason"], &started["to"]["canary"]["percent"]), (&json!("slowly"), &json!(10)));
    assert_eq!(promoted["to"]["canary"], Value::Null, "nobody watches it any more");
    assert!(ended["reason"].as_str().unwrap().contains("superseded at 10 % by ann's promote"), "{ended}");
    let (_, verified) = gateway.admin("GET", &format!("{ADMIN}/history?verify=true"), None);
    assert_eq!(verified["verification"]["intact"], true, "{verified}");
}

#[test]
fn rollout_with_a_key_is_started_once_and_follows_if_match() {
    let (repository, mut gateway) = serving();
    let plan = json!({"version": 1, "steps": [10, 100], "interval": "1h"});
    let stale = post(&gateway, "/rollout", &[("If-Match", "7")], &plan);
    assert_eq!(stale.0, 412, "{}", stale.1);
    let key = [("Idempotency-Key", "\"r-1\""), ("If-Match", "1")];
    let first = post(&gateway, "/rollout", &key, &plan);
    assert_eq!((first.0, first.2), (200, false), "{}", first.1);
    assert_eq!(post(&gateway, "/rollout/pause", &[("Idempotency-Key", "p-1")], &json!({})).0, 200);
    assert_eq!(post(&gateway, "/rollout/resume", &[], &json!({})).1["state"], "running");
    gateway.kill();
    let gateway = Gateway::start(&repository);
    let (status, again, is_repeated) = post(&gateway, "/rollout/pause", &[("Idempotency-Key", "p-1")], &json!({}));
    assert_eq!((status, &again["state"], is_repeated), (200, &json!("running"), true), "paused once: as it is now");
    let (status, again, is_repeated) = post(&gateway, "/rollout", &key, &plan);
    assert_eq!((status, is_repeated), (200, true), "{again}");
    assert_eq!(again["started_at"], first.1["started_at"]);
    let other = json!({"version": 1, "steps": [20, 100], "interval": "1h"});
    assert_eq!(post(&gateway, "/rollout", &key, &other).0, 422);
}

#[test]
fn change_with_a_key_is_made_once_and_survives_a_restart() {
    let (repository, mut gateway) = serving();
    let key = [("Idempotency-Key", "\"k-1\"")];
    let first = post(&gateway, "/promote", &key, &json!({"version": 1}));
    assert_eq!((first.0, first.2), (200, false));
    post(&gateway, "/rollback", &[], &json!({}));
    let again = post(&gateway, "/promote", &key, &json!({"version": 1}));
    let mut release = first.1.clone();
    assert!(release.as_object_mut().unwrap().remove("warnings").is_some(), "told with the change itself");
    assert_eq!((again.0, &again.1, again.2), (200, &release, true), "as the first");
    let (status, answer, _) = post(&gateway, "/promote", &key, &json!({"version": 2}));
    assert_eq!(status, 422, "{answer}");
    gateway.kill();

    let gateway = Gateway::start(&repository);
    let again = post(&gateway, "/promote", &[("Idempotency-Key", "k-1")], &json!({"version": 1}));
    assert_eq!((again.0, &again.1, again.2), (200, &release, true), "after kill -9");
    assert_eq!(gateway.admin("GET", ADMIN, None).1["release"]["stable"], 3, "nothing was done again");
}

#[test]
fn key_is_looked_at_before_the_generation_and_kept_by_success_only() {
    let (_repository, gateway) = serving();
    let refused = [("Idempotency-Key", "k-1"), ("If-Match", "9")];
    assert_eq!(post(&gateway, "/promote", &refused, &json!({"version": 1})).0, 412);
    let good = [("Idempotency-Key", "k-1"), ("If-Match", "1")];
    assert_eq!(post(&gateway, "/promote", &good, &json!({"version": 1})).0, 200, "a refused attempt keeps no key");
    let again = post(&gateway, "/promote", &good, &json!({"version": 1}));
    assert_eq!((again.0, again.2), (200, true), "though the generation is another by now");
    // A change that alters nothing is remembered too: it must not do something later.
    let key = [("Idempotency-Key", "k-2")];
    assert_eq!(post(&gateway, "/promote", &key, &json!({"version": 1})).0, 200);
    post(&gateway, "/promote", &[], &json!({"version": 3}));
    assert!(post(&gateway, "/promote", &key, &json!({"version": 1})).2);
    assert_eq!(gateway.admin("GET", ADMIN, None).1["release"]["stable"], 3);
    for (key, status) in [("", 400), ("a b", 400)] {
        assert_eq!(post(&gateway, "/rollback", &[("Idempotency-Key", key)], &json!({})).0, status, "{key:?}");
    }
}

#[test]
fn unload_with_a_key_is_not_repeated_after_a_load() {
    let (_repository, gateway) = serving();
    let key = [("Idempotency-Key", "k-1")];
    assert_eq!(post(&gateway, "/versions/1/unload", &key, &json!({})).0, 200);
    gateway.wait_for_state("m", 1, "unloaded");
    assert_eq!(post(&gateway, "/versions/1/load", &[], &json!({})).0, 200);
    let (status, answer, _) = post(&gateway, "/versions/1/unload", &key, &json!({}));
    assert_eq!((status, &answer["state"]), (200, &json!("ready")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_the_chain_are_the_same_over_grpc() {
    let (_repository, gateway) = serving();
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let promote = |version, key: &str| PromoteRequest {
        model: "m".into(),
        version,
        options: Some(ChangeOptions { idempotency_key: key.into(), ..ChangeOptions::default() }),
        strict: false,
    };
    let first = admin.promote(promote(1, "k-1")).await.unwrap();
    assert!(first.metadata().get("idempotency-replayed").is_none());
    let again = admin.promote(promote(1, "k-1")).await.unwrap();
    assert_eq!(again.metadata().get("idempotency-replayed").unwrap(), "true");
    let first = tidegate::proto::admin::Release { warnings: Vec::new(), ..first.into_inner() };
    assert_eq!(again.into_inner(), first, "what was to be known of the change was told with it");
    let other = admin.promote(promote(2, "k-1")).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::InvalidArgument);
    let rest = tokio::task::block_in_place(|| {
        post(&gateway, "/promote", &[("Idempotency-Key", "k-1")], &json!({"version": 1}))
    });
    assert!(rest.2, "one memory for both protocols");

    let request = GetHistoryRequest { model: "m".into(), limit: 1, verify: true };
    let answer = admin.get_history(request).await.unwrap().into_inner();
    let verification = answer.verification.unwrap();
    assert!(verification.intact && verification.broken.is_none());
    assert_eq!(verification.head.unwrap().text, answer.entries[0].hash);
}

/// A change made by the command line: its exit code and what it says on stderr.
fn label(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["label", "m", "best", "--admin-url", &format!("http://{}", gateway.addresses.admin)]);
    let output = command.args(arguments).env("USER", "someone").output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn names_beyond_ascii_are_in_the_log_and_what_is_refused_is_shown() {
    let (_repository, gateway) = serving();
    let newest = || history(&gateway).remove(0)["actor"].clone();
    let (status, answer, _) = post(&gateway, "/promote", &[("tidegate-actor", "Jürgen")], &json!({"version": 2}));
    assert_eq!((status, newest()), (200, json!("Jürgen")), "{answer}");
    assert_eq!(label(&gateway, &["--version", "1", "--actor", "Groß & 李"]), (Some(0), String::new()));
    assert_eq!(newest(), "Groß & 李");
    let (status, answer, _) = post(&gateway, "/promote", &[("idempotency-key", "clé")], &json!({"version": 3}));
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("'clé' is refused"), "{answer}");
    for (arguments, shown) in
        [(["--actor", "a\nb"], "'a\\nb' is refused"), (["--idempotency-key", "clé"], "'clé' is refused: use 1 to")]
    {
        let (code, words) = label(&gateway, &arguments);
        assert!(code == Some(2) && words.contains(shown), "{code:?}: {words}");
    }
    assert_eq!(history(&gateway).len(), 3, "nothing of what was refused was done");
    assert_eq!(label(&gateway, &["--version", "2"]).0, Some(0));
    assert_eq!(newest(), "someone");
}
