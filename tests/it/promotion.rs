//! What a promotion warns of, and refuses where that is asked for.

use serde_json::{Value, json};
use tidegate::proto::admin::{ChangeOptions, PromoteRequest, admin_service_client::AdminServiceClient};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn golden(y: f64) -> String {
    let tensor = |name: &str, value: f64| json!({"name": name, "datatype": "FP32", "shape": [1, 1], "data": [value]});
    json!({"request": {"inputs": [tensor("x", 1.0)]}, "response": {"outputs": [tensor("y", y)]}}).to_string()
}

/// Version 1 is stable; 2 has golden requests, and neither a profile nor requests.
fn untried() -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    repository.add_files("m", 2, &[("model.onnx", &onnx::add(20)), ("golden/a.json", golden(21.0).as_bytes())]);
    gateway.wait_for_state("m", 2, "ready");
    (repository, gateway)
}

fn promote(gateway: &Gateway, query: &str) -> (u16, Value) {
    gateway.admin("POST", &format!("{ADMIN}/promote{query}"), Some(&json!({"version": 2})))
}

fn texts(warnings: &Value) -> String {
    let texts: Vec<_> = warnings.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    texts.join("\n")
}

#[test]
fn promotion_says_what_nobody_has_checked_and_is_made_all_the_same() {
    let (_repository, gateway) = untried();
    let (status, planned) = promote(&gateway, "?dry_run=true");
    assert_eq!(status, 200, "{planned}");
    let (code, _, said) = gateway.cli(&["promote", "m", "2"]);
    assert_eq!(code, Some(0), "{said}");
    for words in ["version 2 has answered no request", "version 2 has no profile.json"] {
        assert!(texts(&planned["warnings"]).contains(words), "{words}: {planned}");
        assert!(said.contains(&format!("warning: {words}")), "{words}: {said}");
    }
    assert!(!said.contains("golden"), "{said}");
    let (_, model) = gateway.admin("GET", ADMIN, None);
    assert_eq!(model["release"]["stable"], 2);
    assert!(model["release"].get("warnings").is_none(), "they belong to the change: {model}");
    let (_, back) = gateway.admin("POST", &format!("{ADMIN}/rollback"), Some(&json!({"reason": "worse"})));
    assert!(back.get("warnings").is_none(), "a rollback is not held up: {back}");
    let (_, again) = promote(&gateway, "?dry_run=true");
    assert!(texts(&again["warnings"]).contains("version 2 was rolled back from (rollback by"), "{again}");
}

#[test]
fn strict_promotion_is_refused_while_there_are_warnings() {
    let (repository, gateway) = untried();
    for query in ["?strict=true", "?strict=true&dry_run=true"] {
        let (status, answer) = promote(&gateway, query);
        let error = answer["error"].as_str().unwrap();
        assert!(status == 409 && error.contains("no profile.json") && error.contains("(strict)"), "{answer}");
    }
    let (code, _, said) = gateway.cli(&["promote", "m", "2", "--strict"]);
    assert!(code == Some(1) && said.contains("has answered no request"), "{said}");
    assert_eq!(gateway.admin("GET", ADMIN, None).1["release"]["generation"], 1);

    // Watched by nobody on purpose, and tried as a canary.
    repository.write("m/model.toml", "[monitor]\nenabled = false\n");
    let canary = json!({"version": 2, "percent": 100});
    assert_eq!(gateway.admin("PUT", &format!("{ADMIN}/canary"), Some(&canary)).0, 200);
    gateway.wait("a promotion without warnings", || {
        assert_eq!(gateway.run_add("/v2/models/m/infer", 1.0).0, 200);
        let (_, answer) = promote(&gateway, "?dry_run=true");
        answer.get("warnings").is_none().then_some(())
    });
    let (status, answer) = promote(&gateway, "?strict=true");
    assert_eq!((status, &answer["stable"]), (200, &json!(2)), "{answer}");
}

#[test]
fn version_that_fails_its_requests_is_told() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    repository.add("m", 2, &onnx::fails_from(5));
    gateway.wait_for_state("m", 2, "ready");
    for _ in 0..30 {
        gateway.run_add("/v2/models/m/versions/2/infer", 9.0);
    }
    let (_, answer) = promote(&gateway, "?dry_run=true");
    assert!(texts(&answer["warnings"]).contains("version 2 failed on 30 of its 30 requests (100 %)"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_and_strictness_are_the_same_over_grpc() {
    let (_repository, gateway) = untried();
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let ask =
        |strict| PromoteRequest { model: "m".into(), version: 2, options: Some(ChangeOptions::default()), strict };
    let refused = admin.promote(ask(true)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("no profile.json"), "{}", refused.message());
    let made = admin.promote(ask(false)).await.unwrap().into_inner();
    assert!(made.stable == 2 && made.warnings.len() == 2, "{made:?}");
}
