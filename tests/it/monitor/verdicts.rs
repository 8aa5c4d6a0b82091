//! What the monitor says: of a canary beside the stable version, of windows, and when a verdict changes.

use std::{
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
    assert_eq!((&asked["state"], rows(&asked)), (&json!("ok"), 0));
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
        let is_it = message.contains("feature 'x'") && message.contains("over 3s") && event["what"] == what;
        told.push(message.clone());
        if is_it {
            return message;
        }
    };
    send(&gateway, &low(600));
    let message = next("drift");
    assert!(message.contains("was ok") && message.contains("corrected PSI"), "{message}");
    // Silence for the length of the window: no rows, no drift.
    let message = next("ok");
    assert!(message.contains("was drift"), "{message}");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("feature 'x' is in state drift") && line.contains("over 3s"));
    assert!(line.is_some_and(|line| line.contains("WARN") && line.contains("\"feature\":\"x\"")), "{log}");
    assert!(log.lines().any(|line| line.contains("feature 'x' is in state ok") && line.contains("INFO")), "{log}");
}
