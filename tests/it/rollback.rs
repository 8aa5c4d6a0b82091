//! Rollbacks: two at once, versions that were rolled back from, and what survives `kill -9` of it.

use serde_json::{Value, json};
use tidegate::proto::admin::{RollbackRequest, admin_service_client::AdminServiceClient};

use crate::{
    harness::{Gateway, Repository, request},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

/// Version 1 is stable, 2 was; the bad one is 3, which is stable now.
fn bad_version_is_stable() -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    for version in 2..=3 {
        repository.add("m", version, &onnx::add(i64::try_from(version).unwrap() * 10));
        gateway.wait_for_state("m", version, "ready");
        let (status, answer) = gateway.admin("POST", &format!("{ADMIN}/promote"), Some(&json!({"version": version})));
        assert_eq!(status, 200, "{answer}");
    }
    (repository, gateway)
}

fn roll_back(gateway: &Gateway, body: &Value) -> (u16, Value) {
    gateway.admin("POST", &format!("{ADMIN}/rollback"), Some(body))
}

fn release(gateway: &Gateway) -> Value {
    gateway.admin("GET", ADMIN, None).1["release"].clone()
}

#[test]
fn of_two_people_who_roll_back_at_once_one_is_told_what_the_other_did() {
    let (_repository, gateway) = bad_version_is_stable();
    for round in 0..7 {
        let people = ["ann", "ben"].map(|actor| {
            let mut command = gateway.cli_command(&["rollback", "m", "--actor", actor, "--reason", "false alarms"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        });
        let done = people.map(|person| person.wait_with_output().unwrap());
        let codes: Vec<_> = done.iter().filter_map(|done| done.status.code()).collect();
        assert!(codes.contains(&0) && codes.contains(&1), "round {round}: {done:?}");
        let (first, second) = if codes[0] == 0 { ("ann", &done[1]) } else { ("ben", &done[0]) };
        let said = String::from_utf8_lossy(&second.stderr);
        for words in [&format!("rollback by {first} at "), "stable 3 → 2", "false alarms"] {
            assert!(said.contains(words), "round {round}, {words}: {said}");
        }
        let found = release(&gateway);
        assert_eq!((&found["stable"], &found["rolled_back"]), (&json!(2), &json!([3])), "round {round}");
        let (status, answer) = gateway.admin("POST", &format!("{ADMIN}/promote"), Some(&json!({"version": 3})));
        assert_eq!(status, 200, "{answer}");
    }
}

#[test]
fn second_rollback_is_refused_and_names_the_version_and_the_way_out() {
    let (repository, mut gateway) = bad_version_is_stable();
    assert_eq!(roll_back(&gateway, &json!({"reason": "false alarms"})).0, 200);
    for _ in 0..2 {
        let (code, _, said) = gateway.cli(&["rollback", "m"]);
        assert_eq!(code, Some(1), "{said}");
        for words in ["version 3", "was rolled back from", "false alarms", "stable 3 → 2", "tidegate rollback m --to 3"]
        {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(release(&gateway)["stable"], 2);
        // The same after a restart that nobody prepared.
        gateway.kill();
        gateway = Gateway::start(&repository);
    }
    let (_, shown, _) = gateway.cli(&["status", "m"]);
    assert!(shown.contains("rolled back from 3"), "{shown}");

    let (code, shown, said) = gateway.cli(&["rollback", "m", "--to", "3"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(shown.contains("stable 2 → 3"), "{shown}");
    let found = release(&gateway);
    assert_eq!((&found["stable"], &found["previous"], &found["rolled_back"]), (&json!(3), &json!(2), &json!([2])));
    assert_eq!(roll_back(&gateway, &json!({"to": 1})).0, 200, "any version that is ready may be named");
    assert_eq!(roll_back(&gateway, &json!({"to": 9})).0, 404);
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let asked: Vec<_> = history["entries"].as_array().unwrap().iter().map(|entry| entry["asked"].clone()).collect();
    assert_eq!(asked[..2], [json!("to version 9"), json!("to version 1")], "{asked:?}");
}

#[test]
fn rollback_after_a_new_promotion_goes_back_as_ever() {
    let (repository, gateway) = bad_version_is_stable();
    assert_eq!(roll_back(&gateway, &json!({})).0, 200);
    repository.add("m", 4, &onnx::add(40));
    gateway.wait_for_state("m", 4, "ready");
    gateway.admin("POST", &format!("{ADMIN}/promote"), Some(&json!({"version": 4})));
    let (status, found) = roll_back(&gateway, &json!({}));
    assert_eq!((status, &found["stable"], &found["previous"]), (200, &json!(2), &json!(4)));
    assert_eq!(found["rolled_back"], json!([3, 4]));
}

#[test]
fn stale_change_is_told_who_was_faster() {
    let (_repository, gateway) = bad_version_is_stable();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("http://{}{ADMIN}/rollback", gateway.addresses.admin);
    gateway.admin("PUT", &format!("{ADMIN}/labels/old"), Some(&json!({"version": 1})));
    let mut answer = agent.post(&url).header("if-match", "3").send("{}").unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    assert_eq!(answer.status().as_u16(), 412, "{text}");
    for words in ["has generation 4, not 3", "label by 127.0.0.1 at ", "label old - → 1"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn key_makes_a_rollback_once_though_the_generation_is_another_by_then() {
    let (_repository, gateway) = bad_version_is_stable();
    for _ in 0..2 {
        let (code, _, said) = gateway.cli(&["rollback", "m", "--idempotency-key", "incident-7"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(release(&gateway)["stable"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_to_a_version_is_the_same_over_grpc() {
    let (_repository, gateway) = bad_version_is_stable();
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let ask = |to| RollbackRequest { model: "m".into(), options: None, to };
    let found = admin.rollback(ask(0)).await.unwrap().into_inner();
    assert_eq!((found.stable, found.rolled_back), (2, vec![3]));
    let refused = admin.rollback(ask(0)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("--to 3"), "{}", refused.message());
    let found = admin.rollback(ask(3)).await.unwrap().into_inner();
    assert_eq!((found.stable, found.rolled_back), (3, vec![2]));
}

#[test]
fn release_that_changed_is_logged_with_what_changed_why_and_by_whom() {
    let (_repository, gateway) = bad_version_is_stable();
    let body = json!({"reason": "false alarms doubled"}).to_string();
    request("POST", gateway.addresses.admin, &format!("{ADMIN}/rollback"), Some(body.as_bytes()));
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("release changed") && line.contains("\"rollback\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let field = |name: &str| line.get(name).or_else(|| line["fields"].get(name)).cloned().unwrap_or_default();
    assert_eq!(field("change"), "stable 3 → 2, previous 2 → 3", "{line}");
    assert_eq!((field("model"), field("generation")), (json!("m"), json!(4)), "{line}");
    assert_eq!((field("reason"), field("actor")), (json!("false alarms doubled"), json!("127.0.0.1")), "{line}");
}

#[test]
fn command_without_a_user_in_the_environment_names_that_of_the_system() {
    let (_repository, gateway) = bad_version_is_stable();
    let done = gateway.cli_command(&["rollback", "m"]).env_remove("USER").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history"), None);
    let actor = history["entries"][0]["actor"].as_str().unwrap();
    let id = rustix::process::geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_own = |line: &&str| line.split(':').nth(2) == Some(&id.to_string());
    let name = users.lines().find(is_own).and_then(|line| line.split(':').next());
    assert_eq!(actor, name.map_or_else(|| format!("uid {id}"), str::to_owned));
}
