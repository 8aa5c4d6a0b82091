//! When the gateway says that it is ready, and how an operator says that a model is gone on purpose.

use std::fs;

use serde_json::{Value, json};
use tidegate::proto::{
    admin::{ClearRequest, admin_service_client::AdminServiceClient},
    inference::{ModelReadyRequest, ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    harness::{Gateway, Repository, request},
    onnx,
};

/// Two models were released; of `m` the files are elsewhere by now. Nothing runs.
fn one_model_is_gone() -> Repository {
    let repository = Repository::new();
    for model in ["m", "n"] {
        repository.add(model, 1, &onnx::add(10));
    }
    Gateway::start(&repository).kill();
    fs::rename(repository.models().join("m"), repository.path().join("away")).unwrap();
    repository
}

fn bring_back(repository: &Repository) {
    fs::rename(repository.path().join("away"), repository.models().join("m")).unwrap();
}

fn readyz(gateway: &Gateway) -> (u16, Value) {
    request("GET", gateway.addresses.metrics, "/readyz", None)
}

fn status(gateway: &Gateway, path: &str) -> u16 {
    gateway.get(path).0
}

#[test]
fn gateway_is_not_ready_while_a_released_model_does_not_serve() {
    let repository = one_model_is_gone();
    let gateway = Gateway::start_unready(&repository);
    let (code, answer) = readyz(&gateway);
    assert_eq!((code, &answer["error"]), (503, &json!("not ready: 1 of 2 released models cannot be served: m")));
    for (path, expected) in
        [("/v2/health/ready", 503), ("/v2/health/live", 200), ("/v2/models/m/ready", 503), ("/v2/models/n/ready", 200)]
    {
        assert_eq!(status(&gateway, path), expected, "{path}");
    }
    assert_eq!(request("GET", gateway.addresses.metrics, "/livez", None).0, 200);
    for (model, served) in [("m", 0.0), ("n", 1.0)] {
        assert_eq!(gateway.metric("tidegate_model_served", &[("model", model)]), Some(served), "{model}");
    }
    gateway
        .wait("the banner", || gateway.log().contains("tidegate is NOT ready, 1 of 2 released models").then_some(()));
    assert!(!gateway.log().contains("tidegate is ready"), "{}", gateway.log());
    let (code, _, said) = gateway.cli(&["models"]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("warning: version 1 is stable and does not serve") && said.contains("tidegate forget m"),
        "{said}"
    );

    bring_back(&repository);
    gateway.wait("readiness", || (status(&gateway, "/v2/health/ready") == 200).then_some(()));
    assert_eq!((readyz(&gateway).0, gateway.run_add("/v2/models/m/infer", 1.0).0), (200, 200));
}

#[test]
fn with_any_the_gateway_is_ready_as_long_as_one_released_model_serves() {
    let repository = one_model_is_gone();
    let any = || Gateway::launch(&repository, |command| command.env("TIDEGATE_SERVER__READINESS", "any"));
    let mut gateway = any();
    gateway.wait("readiness", || (status(&gateway, "/v2/health/ready") == 200).then_some(()));
    assert_eq!((status(&gateway, "/v2/models/m/ready"), status(&gateway, "/v2/models/n/ready")), (503, 200));
    gateway.kill();
    fs::remove_dir_all(repository.models().join("n")).unwrap();
    let gateway = any();
    gateway.wait("an answer", || (readyz(&gateway).1["error"].as_str()?.contains("2 of 2")).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_the_same_over_grpc() {
    let repository = one_model_is_gone();
    let gateway = Gateway::start_unready(&repository);
    let address = format!("http://{}", gateway.addresses.grpc);
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel.clone());
    let mut health = HealthClient::new(channel);
    let mut found = async || {
        let server = client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready;
        let model = ModelReadyRequest { name: "m".into(), version: String::new() };
        let model = client.model_ready(model).await.unwrap().into_inner().ready;
        let check = health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
        (server, model, check.into_inner().status)
    };
    assert_eq!(found().await, (false, false, 2));
    bring_back(&repository);
    tokio::task::block_in_place(|| {
        gateway.wait("readiness", || (status(&gateway, "/v2/health/ready") == 200).then_some(()));
    });
    assert_eq!(found().await, (true, true, 1));
}

#[test]
fn model_that_never_had_a_release_keeps_nobody_waiting() {
    let repository = Repository::new();
    repository.add("bad", 1, b"not onnx");
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("bad", 1, "failed");
    assert_eq!((readyz(&gateway).0, status(&gateway, "/v2/models/bad/ready")), (200, 503));
    assert_eq!(gateway.metric("tidegate_model_served", &[("model", "bad")]), None);
}

#[test]
fn model_that_is_gone_on_purpose_is_forgotten_for_good_and_may_come_again() {
    let repository = one_model_is_gone();
    let mut gateway = Gateway::start_unready(&repository);
    let (code, answer) = gateway.admin("DELETE", "/admin/v1/models/n", Some(&json!({})));
    assert!(code == 409 && answer["error"].as_str().unwrap().contains("still has versions on disk"), "{answer}");
    let (code, shown, said) = gateway.cli(&["forget", "m", "--reason", "replaced by n"]);
    assert!(code == Some(0) && shown.contains("stable 1 → -"), "{shown}{said}");
    assert_eq!((readyz(&gateway).0, status(&gateway, "/v2/models/m/ready")), (200, 404));
    let (_, history) = gateway.admin("GET", "/admin/v1/models/m/history", None);
    let newest = &history["entries"][0];
    assert_eq!((&newest["operation"], &newest["reason"]), (&json!("forget"), &json!("replaced by n")));
    gateway.kill();

    let gateway = Gateway::start(&repository);
    assert_eq!(gateway.admin("GET", "/admin/v1/models/m", None).0, 404);
    bring_back(&repository);
    gateway.wait("the model as a new one", || (gateway.run_add("/v2/models/m/infer", 1.0).0 == 200).then_some(()));
    let release = gateway.admin("GET", "/admin/v1/models/m", None).1["release"].clone();
    assert_eq!((&release["stable"], &release["generation"]), (&json!(1), &json!(3)), "nobody takes it for the old one");
}

#[tokio::test(flavor = "multi_thread")]
async fn model_whose_files_went_while_it_served_is_forgotten_over_grpc() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    fs::remove_dir_all(repository.models().join("m")).unwrap();
    assert_eq!(gateway.run_add("/v2/models/m/infer", 1.0).0, 200, "it serves until somebody says that it is gone");
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let gone = admin.forget_model(ClearRequest { model: "m".into(), options: None }).await.unwrap().into_inner();
    assert_eq!((gone.stable, gone.generation), (0, 2));
    tokio::task::block_in_place(|| {
        gateway.wait("the model to be unknown", || (gateway.run_add("/v2/models/m/infer", 1.0).0 == 404).then_some(()));
    });
    assert_eq!(readyz(&gateway).0, 200);
}

#[test]
fn repository_that_may_not_be_read_is_an_error_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let repository = Repository::new();
    let models = repository.models();
    fs::set_permissions(&models, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&models).is_ok() {
        crate::harness::skipped("an unreadable repository: this user may read everything");
        return;
    }
    let done = crate::harness::command(&repository).output().unwrap();
    fs::set_permissions(&models, fs::Permissions::from_mode(0o755)).unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(1) && said.contains("cannot read the model repository"), "{said}");
    assert!(said.contains(models.to_str().unwrap()), "{said}");
}
