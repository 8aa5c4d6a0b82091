//! What was counted is there after a restart, a crash and a reload, as long as it means the same.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{drift, live, low, profile, repository, rows, send, send_to, start, usual};
use crate::harness::{Gateway, Repository};

const SECOND: &str = "/v2/models/m/versions/2/infer";

fn counts_file(repository: &Repository, version: u64) -> PathBuf {
    repository.state().join(format!("monitor/m/{version}.counts"))
}

#[test]
fn counts_go_on_after_a_stop() {
    let repository = repository(1);
    let mut gateway = start(&repository, "");
    send(&gateway, &usual(500));
    let before = drift(&gateway, "?window=1h");
    assert_eq!(gateway.terminate(), Some(0));
    let gateway = start(&repository, "");
    let after = drift(&gateway, "?window=1h");
    assert_eq!((rows(&after), live(&after, "x")), (500, live(&before, "x")));
    assert_eq!(live(&after, "s"), live(&before, "s"));
    send(&gateway, &usual(100));
    assert_eq!(rows(&drift(&gateway, "?window=1h")), 600);
    let counted = [("version", "1"), ("feature", "x")];
    let shown = gateway.metric("tidegate_feature_observations_total", &counted);
    assert_eq!(shown, Some(100.0), "counters begin with the process: Prometheus has the rows before");
    assert!(gateway.log().contains("the monitor's counts go on"));
}

#[test]
fn drift_that_was_told_before_a_stop_is_not_told_again() {
    let repository = repository(1);
    let mut gateway = start(&repository, "");
    send(&gateway, &low(600));
    let told = |gateway: &Gateway| gateway.log().contains("drift over 5m, was ");
    gateway.wait("the drift to be told", || told(&gateway).then_some(()));
    gateway.terminate();
    let gateway = start(&repository, "");
    assert_eq!(drift(&gateway, "")["state"], "drift");
    // Two looks, at least.
    thread::sleep(Duration::from_secs(3));
    assert!(!told(&gateway), "{}", gateway.log());
}

#[test]
fn counts_that_were_saved_survive_a_crash() {
    let repository = repository(1);
    let mut gateway = start(&repository, "save_interval = \"1s\"");
    send(&gateway, &usual(500));
    gateway.wait("the counts to be saved", || counts_file(&repository, 1).exists().then_some(()));
    gateway.kill();
    let gateway = start(&repository, "save_interval = \"1s\"");
    assert_eq!(rows(&drift(&gateway, "?window=1h")), 500);
}

#[test]
fn counts_of_another_profile_or_damaged_ones_are_left_alone() {
    let repository = repository(1);
    let mut gateway = start(&repository, "");
    send(&gateway, &usual(500));
    gateway.terminate();
    let (file, profile_file) = (counts_file(&repository, 1), repository.version("m", 1).join("profile.json"));
    let saved = fs::read(&file).unwrap();

    for damaged in [&saved[..saved.len() / 2], b"nonsense", b""] {
        fs::write(&file, damaged).unwrap();
        let mut gateway = start(&repository, "");
        assert_eq!(rows(&drift(&gateway, "?window=1h")), 0);
        let log = gateway.log();
        let warning = log.lines().find(|line| line.contains("saved counts are not used"));
        assert!(warning.is_some_and(|line| line.contains("WARN")), "{log}");
        gateway.terminate();
    }

    fs::write(&file, &saved).unwrap();
    fs::write(&profile_file, profile(&usual(2000))).unwrap();
    let mut gateway = start(&repository, "");
    assert_eq!(rows(&drift(&gateway, "?window=1h")), 0);
    send(&gateway, &usual(10));
    assert_eq!(rows(&drift(&gateway, "?window=1h")), 10);
    gateway.terminate();

    // Other windows are other counts too.
    let gateway = start(&repository, "windows = [\"10m\"]");
    assert_eq!(rows(&drift(&gateway, "")), 0);
}

#[test]
fn counts_go_on_when_a_version_is_loaded_right_after_it_was_unloaded() {
    let repository = repository(2);
    let gateway = start(&repository, "");
    assert_eq!(gateway.admin("POST", "/admin/v1/models/m/promote", Some(&json!({"version": 1}))).0, 200);
    // Both are named by the release: the second must not be, to be unloaded.
    repository.add_files("m", 3, &[("model.onnx", &super::model()), ("profile.json", &profile(&usual(3000)))]);
    gateway.wait_for_state("m", 3, "ready");
    let operation = |what: &str| {
        let (status, answer) = gateway.admin("POST", &format!("/admin/v1/models/m/versions/3/{what}"), None);
        assert_eq!(status, 200, "{answer}");
    };
    for round in 1..=4 {
        send_to(&gateway, "/v2/models/m/versions/3/infer", &usual(100), &json!({}));
        operation("unload");
        gateway.wait_for_state("m", 3, "unloaded");
        operation("load");
        assert_eq!(rows(&drift(&gateway, "?version=3&window=1h")), round * 100);
    }
}

fn comparison(gateway: &Gateway) -> serde_json::Value {
    drift(gateway, "?against=stable&window=1h")
}

fn change_canary(gateway: &Gateway, version: u64) {
    let canary = json!({"version": version, "percent": 50});
    assert_eq!(gateway.admin("PUT", "/admin/v1/models/m/canary", Some(&canary)).0, 200);
}

#[test]
fn comparison_of_a_canary_goes_on_after_a_stop_and_a_crash() {
    let repository = repository(3);
    let settings = "save_interval = \"1s\"";
    let mut gateway = start(&repository, settings);
    change_canary(&gateway, 1);
    let send = |gateway: &Gateway| (0..40).for_each(|_| send(gateway, &usual(25)));
    send(&gateway);
    let before = comparison(&gateway);
    assert!(rows(&before) > 0, "{before}");
    assert_eq!(gateway.terminate(), Some(0));

    let mut gateway = start(&repository, settings);
    assert_eq!(comparison(&gateway), before);
    send(&gateway);
    let grown = comparison(&gateway);
    assert!(rows(&grown) > rows(&before), "{grown}");
    // The first of two saves may have begun earlier.
    for _ in 0..2 {
        let at = || fs::metadata(counts_file(&repository, 3)).and_then(|metadata| metadata.modified()).unwrap();
        let saved = at();
        send_to(&gateway, "/v2/models/m/versions/3/infer", &usual(1), &json!({}));
        gateway.wait("the counts to be saved", || (at() > saved).then_some(()));
    }
    gateway.kill();

    let mut gateway = start(&repository, settings);
    let after = comparison(&gateway);
    assert_eq!((rows(&after), live(&after, "x")), (rows(&grown), live(&grown, "x")));
    gateway.terminate();

    // Another canary is another pair.
    let gateway = start(&repository, settings);
    change_canary(&gateway, 2);
    let (status, answer) = gateway.admin("GET", "/admin/v1/models/m/drift?against=stable", None);
    assert_eq!(status, 404, "{answer}");
    send(&gateway);
    let other = comparison(&gateway);
    assert_eq!(other["version"], 2);
    assert!(rows(&other) < rows(&grown), "{other}");
}

fn replace_model(repository: &Repository, version: u64) {
    let onnx = repository.version("m", version).join("model.onnx");
    let renamed = onnx.with_extension("new");
    fs::write(&renamed, super::model()).unwrap();
    fs::rename(&renamed, &onnx).unwrap();
}

/// Waits until another load of a version has ended than the one that began at `before`.
fn wait_for_another_load(gateway: &Gateway, before: &serde_json::Value) {
    gateway.wait("another load", || {
        let status = gateway.version_status("m", 2);
        (status["loaded_at"] != *before && status["state"] == "ready").then_some(())
    });
}

#[test]
fn no_row_is_lost_when_the_files_of_a_version_are_replaced_under_traffic() {
    let repository = repository(2);
    let gateway = start(&repository, "");
    let loaded_at = gateway.version_status("m", 2)["loaded_at"].clone();
    let is_done = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut sent = 0;
            while !is_done.load(Ordering::Relaxed) {
                send_to(&gateway, SECOND, &usual(10), &json!({}));
                sent += 10;
            }
            sent
        });
        replace_model(&repository, 2);
        wait_for_another_load(&gateway, &loaded_at);
        is_done.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    assert_eq!(rows(&drift(&gateway, "?version=2&window=1h")), sent);
}

#[test]
fn counts_go_on_under_other_settings_and_begin_anew_under_another_profile() {
    let repository = repository(2);
    let gateway = start(&repository, "");
    let reload = |change: &dyn Fn()| {
        let loaded_at = gateway.version_status("m", 2)["loaded_at"].clone();
        change();
        replace_model(&repository, 2);
        wait_for_another_load(&gateway, &loaded_at);
        rows(&drift(&gateway, "?version=2&window=1h"))
    };
    send_to(&gateway, SECOND, &usual(100), &json!({}));
    let settings = || repository.write("m/model.toml", "[monitor]\nmin_rows = 50\ncontract = \"reject\"\n");
    assert_eq!(reload(&settings), 100);
    let (status, _) = gateway.post(SECOND, &super::body(&[(-5.0, "de")], &json!({})));
    assert_eq!(status, 400, "the settings are in force");
    let profile_file = repository.version("m", 2).join("profile.json");
    assert_eq!(reload(&|| fs::write(&profile_file, profile(&usual(2000))).unwrap()), 0);
}

#[test]
fn what_was_kept_of_a_version_that_is_gone_for_long_is_deleted() {
    let repository = repository(2);
    let mut gateway = start(&repository, "");
    for path in ["/v2/models/m/versions/1/infer", SECOND] {
        send_to(&gateway, path, &usual(100), &json!({}));
    }
    gateway.terminate();
    fs::remove_dir_all(repository.version("m", 1)).unwrap();
    let note = repository.state().join("monitor/gone.json");

    let mut gateway = start(&repository, "");
    gateway.wait("the version to be missed", || note.exists().then_some(()));
    assert!(counts_file(&repository, 1).exists(), "it may come back");
    gateway.terminate();

    fs::write(&note, r#"{"m": {"1": 0}}"#).unwrap();
    let gateway = start(&repository, "");
    gateway.wait("the counts to be deleted", || (!counts_file(&repository, 1).exists()).then_some(()));
    assert!(counts_file(&repository, 2).exists());
    assert!(gateway.log().contains("what the monitor kept of it is deleted"), "{}", gateway.log());
}
