//! Where a version gets what it is compared with when no `profile.json` lies beside it.

use std::{thread, time::Duration};

use serde_json::json;

use super::{
    DRIFT, drift, feature, is_monitored, live, low, model, profile, repository, rows, send, send_to, start, usual,
};
use crate::{
    harness::{Gateway, Repository},
    onnx,
};

/// Rows of the reference of `x`.
fn reference(gateway: &Gateway, version: u64) -> u64 {
    let report = drift(gateway, &format!("?version={version}&window=1h"));
    let bins = feature(&report, "x")["bins"].as_array().unwrap();
    bins.iter().map(|bin| bin["reference"].as_u64().unwrap()).sum()
}

#[test]
fn version_learns_its_profile_and_keeps_it_with_its_counts() {
    let repository = Repository::new();
    repository.add("m", 1, &model());
    let settings = "baseline = { learn = \"2s\" }";
    let mut gateway = start(&repository, settings);
    send(&gateway, &usual(3000));
    thread::sleep(Duration::from_secs(2));
    gateway.wait("the profile to be learnt", || {
        send(&gateway, &usual(1));
        is_monitored(&gateway, "").then_some(())
    });
    assert_eq!(reference(&gateway, 1), 3000, "of the first two seconds");
    let before = rows(&drift(&gateway, "?window=1h"));
    send(&gateway, &low(600));
    let drifted = drift(&gateway, "?window=1h");
    assert_eq!((rows(&drifted), &drifted["state"]), (before + 600, &json!("drift")));
    gateway.terminate();

    let gateway = start(&repository, settings);
    let after = drift(&gateway, "?window=1h");
    assert_eq!((rows(&after), live(&after, "x")), (before + 600, live(&drifted, "x")));
}

#[test]
fn version_is_compared_with_what_the_stable_one_saw_and_goes_on_so_after_a_restart() {
    let repository = repository(1);
    repository.write("m/model.toml", "[monitor]\nbaseline = \"stable\"\n");
    let mut gateway = start(&repository, "");
    send(&gateway, &low(600));
    repository.add("m", 2, &model());
    gateway.wait_for_state("m", 2, "ready");
    assert_eq!(reference(&gateway, 2), 600);
    send_to(&gateway, "/v2/models/m/versions/2/infer", &low(600), &json!({}));
    let report = drift(&gateway, "?version=2&window=1h");
    assert_eq!((rows(&report), &report["state"]), (600, &json!("ok")), "as the stable version saw it");
    assert_eq!(gateway.admin("POST", "/admin/v1/models/m/promote", Some(&json!({"version": 2}))).0, 200);
    gateway.terminate();

    // Now that it is the stable version itself, there is nobody to learn from.
    let gateway = start(&repository, "");
    assert_eq!(reference(&gateway, 2), 600);
    assert_eq!(rows(&drift(&gateway, "?version=2&window=1h")), 600);
}

#[test]
fn version_that_is_loaded_before_the_stable_one_has_rows_is_compared_once_both_have_answered() {
    let repository = repository(1);
    repository.write("m/model.toml", "[monitor]\nbaseline = \"stable\"\n");
    let gateway = start(&repository, "");
    repository.add("m", 2, &model());
    gateway.wait_for_state("m", 2, "ready");
    let said = || gateway.admin("GET", &format!("{DRIFT}?version=2"), None);
    let (status, answer) = said();
    let words = "baseline is \"stable\", and that takes min_rows rows of version 1 in the longest window";
    assert!(status == 404 && answer["error"].as_str().unwrap().contains(words), "{answer}");

    // Its own rows begin nothing, nor do so few of the stable version.
    let to_second = |count| send_to(&gateway, "/v2/models/m/versions/2/infer", &low(count), &json!({}));
    to_second(300);
    send(&gateway, &low(100));
    send(&gateway, &low(500));
    gateway.wait("the comparison to begin", || is_monitored(&gateway, "?version=2").then_some(()));
    assert_eq!(reference(&gateway, 2), 600);
    to_second(600);
    let report = drift(&gateway, "?version=2&window=1h");
    assert_eq!((rows(&report), &report["state"]), (600, &json!("ok")), "as the stable version saw it");
}

#[test]
fn version_without_anybody_to_be_compared_with_is_told_what_to_do() {
    let repository = Repository::new();
    repository.add("m", 1, &model());
    let gateway = start(&repository, "baseline = \"stable\"");
    let said = |version: u64| {
        let (status, answer) = gateway.admin("GET", &format!("{DRIFT}?version={version}"), None);
        assert_eq!(status, 404, "{answer}");
        answer["error"].as_str().unwrap().to_owned()
    };
    assert!(said(1).contains("no other version to compare it with: give it a profile.json"), "{}", said(1));
    repository.add("m", 2, &model());
    gateway.wait_for_state("m", 2, "ready");
    assert!(said(2).contains("version 1 is not watched itself: give it a profile.json"), "{}", said(2));
}

#[test]
fn profile_may_come_in_the_metadata_of_the_model() {
    let repository = Repository::new();
    let profile = String::from_utf8(profile(&usual(3000))).unwrap();
    repository.add("m", 1, &onnx::with_metadata(&model(), "tidegate.profile", &profile));
    let gateway = start(&repository, "");
    send(&gateway, &low(600));
    let report = drift(&gateway, "");
    assert_eq!((rows(&report), &report["state"]), (600, &json!("drift")));
    assert_eq!(reference(&gateway, 1), 3000);
}
