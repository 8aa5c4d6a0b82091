//! What the monitor says: of a canary beside the stable version, of windows, and when a verdict changes.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{DRIFT, INFER, body, drift, feature, low, repository, rows, send, start, usual};
use crate::harness::PATIENCE;

#[test]
fn canary_is_compared_with_the_live_rows_of_the_stable_version() {
    let repository = repository(2);
    let gateway = start(&repository, "");
    let against = format!("{DRIFT}?against=stable");
    let (status, answer) = gateway.admin("GET", &against, None);
    assert_eq!((status, answer["error"].as_str()), (404, Some("model 'm' has no canary to compare with stable")));
    let canary = json!({"version": 1, "percent": 50});
    assert_eq!(gateway.admin("PUT", "/admin/v1/models/m/canary", Some(&canary)).0, 200);
    let (status, answer) = gateway.admin("GET", &against, None);
    assert!(status == 404 && answer["error"].as_str().unwrap().contains("version 1 of model 'm' has answered nothing"));

    let mut answered = [0, 0];
    let mut send = |rows: &[super::Row], count: usize| {
        for _ in 0..count {
            let (_, answer) = gateway.post(INFER, &body(rows, &json!({})));
            let by_canary = answer["model_version"] == "1";
            // What stable answered before the canary's first row is not compared.
            if by_canary || answered[1] > 0 {
                answered[usize::from(by_canary)] += rows.len() as u64;
            }
        }
    };
    // Both get rows that are unlike the profile, but like each other's.
    send(&low(50), 60);
    let report = drift(&gateway, "?against=stable");
    assert_eq!((&report["version"], &report["against"], &report["state"]), (&json!(1), &json!("stable"), &json!("ok")));
    let of_stable: u64 =
        feature(&report, "x")["bins"].as_array().unwrap().iter().map(|bin| bin["reference"].as_u64().unwrap()).sum();
    assert_eq!([of_stable, rows(&report)], answered);
    assert_eq!(drift(&gateway, "?version=1")["state"], "drift", "against its profile");
    assert_eq!(drift(&gateway, "?against=stable&version=1&window=1m")["window"], "1m");
}

#[test]
fn report_without_a_window_is_of_the_one_that_tells_most() {
    let repository = repository(1);
    let gateway = start(&repository, "windows = [\"3s\", \"1h\"]\nsegments = [\"s\"]");
    send(&gateway, &usual(600));
    let begun = Instant::now();
    let report = drift(&gateway, "");
    assert_eq!((&report["window"], &report["state"], rows(&report)), (&json!("3s"), &json!("ok"), 600));
    thread::sleep(Duration::from_millis(3100).saturating_sub(begun.elapsed()));
    let report = drift(&gateway, "");
    assert_eq!((&report["window"], rows(&report)), (&json!("1h"), 600), "the shortest with rows enough");
    let report = drift(&gateway, "?segment=s=de");
    assert_eq!((&report["window"], rows(&report)), (&json!("1h"), 300), "the same of a segment");

    send(&gateway, &low(600));
    let begun = Instant::now();
    let report = drift(&gateway, "");
    assert_eq!((&report["window"], &report["state"], rows(&report)), (&json!("3s"), &json!("drift"), 600));
    thread::sleep(Duration::from_millis(3100).saturating_sub(begun.elapsed()));
    let report = drift(&gateway, "");
    assert_eq!((&report["window"], &report["state"], rows(&report)), (&json!("1h"), &json!("drift"), 1200));
    let asked = drift(&gateway, "?window=3s");
    assert_eq!((&asked["state"], rows(&asked), &asked["min_rows"]), (&json!("too_few_rows"), 0, &json!(200)));
    for query in ["?window=2h", "?window=0s", "?window=soon"] {
        assert_eq!(gateway.admin("GET", &format!("{DRIFT}{query}"), None).0, 400, "{query}");
    }
}

#[test]
fn verdicts_that_change_are_events_and_lines_of_the_log() {
    let repository = repository(1);
    let gateway = start(&repository, "windows = [\"3s\", \"1h\"]\nmin_rows = 100");
    let mut events = crate::admin_api::Events::open(&gateway, "?topic=drift");
    let begun = Instant::now();
    let mut told = Vec::new();
    let mut next = |what: &str| loop {
        assert!(begun.elapsed() < PATIENCE, "{told:?}");
        let (name, event) = events.next();
        assert_eq!((&*name, &event["model"], &event["version"]), ("drift", &json!("m"), &json!(1)));
        let message = event["message"].as_str().unwrap().to_owned();
        let is_it = message.contains('x') && message.contains("over 3s") && event["what"] == what;
        told.push(message.clone());
        if is_it {
            return message;
        }
    };
    send(&gateway, &low(600));
    let message = next("drift");
    assert!(message.starts_with("drift over 3s, was too_few_rows: ") && message.contains("corrected PSI"), "{message}");
    // Silence for the length of the window: no rows, no verdict.
    let message = next("too_few_rows");
    assert!(message.starts_with("no verdict over 3s, was drift: 0 of 100 rows; "), "{message}");
    let log = gateway.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("over 3s")).collect();
    // One for all features that drift, and one for their end.
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("\"features\":\"") && lines[0].contains('x'), "{lines:?}");
    assert!(lines[1].contains("INFO") && lines[1].contains("\"state\":\"too_few_rows\""), "{lines:?}");
}

#[test]
fn fewer_rows_than_it_takes_are_a_state_of_their_own_on_every_wire() {
    let repository = repository(1);
    let gateway = start(&repository, "");
    send(&gateway, &low(100));
    let report = drift(&gateway, "?window=5m");
    assert_eq!((&report["state"], rows(&report), &report["min_rows"]), (&json!("too_few_rows"), 100, &json!(200)));
    assert_eq!(feature(&report, "x")["state"], "too_few_rows");
    let url = format!("http://{}", gateway.addresses.admin);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["drift", "m", "--window", "5m", "--admin-url", &url]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("m version 1: too few rows: 100 of 200 in the last 5m against its profile"), "{shown}");
    let of_x = [("feature", "x"), ("window", "5m")];
    gateway.wait("a look", || gateway.metric("tidegate_drift_rows", &of_x).filter(|rows| *rows > 99.0));
    assert_eq!(gateway.metric("tidegate_drift_state", &of_x), None);
    assert_eq!(gateway.metric("tidegate_drift_min_rows", &[("model", "m")]), Some(200.0));
    send(&gateway, &low(100));
    assert_eq!(drift(&gateway, "?window=5m")["state"], "drift");
    gateway.wait("the verdict", || gateway.metric("tidegate_drift_state", &of_x).filter(|state| *state > 1.0));
}

#[test]
fn windows_of_a_model_are_its_own() {
    let repository = repository(1);
    repository.write("m/model.toml", "[monitor]\nwindows = [\"2h\", \"7d\"]\n");
    let gateway = start(&repository, "windows = [\"3s\", \"1h\"]");
    send(&gateway, &usual(600));
    let report = drift(&gateway, "");
    assert_eq!((&report["window"], &report["state"]), (&json!("2h"), &json!("ok")));
    assert_eq!(rows(&drift(&gateway, "?window=7d")), 600);
    assert_eq!(gateway.admin("GET", &format!("{DRIFT}?window=8d"), None).0, 400);
}
