//! Views, as they come out on a pipe and on a terminal.

use super::*;
use crate::admin::wire::{Bin, DriftReport, Feature, Measures, Share};

const PIPE: Look = Look { colours: false };

fn release(stable: u64, previous: Option<u64>) -> Release {
    Release { generation: stable, stable: Some(stable), previous, ..Release::default() }
}

fn version(number: u64, state: &str) -> VersionStatus {
    VersionStatus {
        version: number,
        state: state.to_owned(),
        reason: None,
        digest: Some("sha256:0123456789abcdef0123".to_owned()),
        memory_bytes: Some(3_500_000),
        loaded_at: Some("2026-01-02T03:04:05.678Z".to_owned()),
        requests: 42,
        monitored: true,
        traffic_percent: None,
        runs: None,
        admission: Vec::new(),
    }
}

fn model() -> ModelStatus {
    let broken = VersionStatus {
        reason: Some("model.onnx is\ntorn".to_owned()),
        digest: None,
        memory_bytes: None,
        loaded_at: None,
        requests: 0,
        monitored: false,
        ..version(3, "failed")
    };
    let stable = VersionStatus { traffic_percent: Some(Share(90.0)), ..version(2, "ready") };
    ModelStatus {
        model: "fraud".to_owned(),
        release: Release {
            canary: Some(Split { version: 1, percent: Share(10.0) }),
            labels: [("champion".to_owned(), 2)].into(),
            ..release(2, None)
        },
        versions: vec![version(1, "ready"), stable, broken],
    }
}

#[test]
fn models_are_one_line_each() {
    assert_eq!(
        models(&ModelList { models: vec![model()] }, PIPE),
        "MODEL  STABLE  CANARY    SHADOW  PREVIOUS  READY VERSIONS  FAILED\n\
         fraud  2       1 at 10%  -       -         1, 2            3\n"
    );
}

#[test]
fn status_shows_the_release_and_why_a_version_failed() {
    let shown = status(&model(), PIPE);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "fraud: stable 2, previous -, canary 1 at 10%, shadow -, labels champion=2, generation 2");
    assert_eq!(
        lines[4],
        "      2  ready       90%        42  3.3 MiB  2026-01-02T03:04:05Z  0123456789ab  yes        -"
    );
    assert!(lines[5].ends_with("no         model.onnx is torn"), "{shown}");
}

#[test]
fn admission_has_a_line_for_each_thing_found() {
    let step = |step: &str, outcome: &str, why: &[&str]| AdmissionStep {
        step: step.to_owned(),
        outcome: outcome.to_owned(),
        why: why.iter().map(|why| (*why).to_owned()).collect(),
        seconds: 0.0125,
    };
    let steps = vec![
        step("complete", "passed", &[]),
        step("digest", "failed", &["a was changed", "b is\nmissing"]),
        step("trial", "skipped", &["not run"]),
    ];
    let model = ModelStatus {
        versions: vec![VersionStatus { admission: steps, ..version(3, "failed") }, version(4, "unloaded")],
        ..model()
    };
    let shown = status(&model, PIPE);
    let (_, admission) = shown.split_once("\nadmission of version 3\n\n").unwrap();
    assert_eq!(
        admission,
        "STEP      OUTCOME     TIME  WHY\n\
         complete  passed   12.5 ms\n\
         digest    failed   12.5 ms  a was changed\n\
         \x20                           b is missing\n\
         trial     skipped        -  not run\n"
    );
}

#[test]
fn change_says_what_is_different() {
    let before = Release { labels: [("old".to_owned(), 1)].into(), ..release(1, None) };
    let shown = change("fraud", &before, &release(2, Some(1)), false, PIPE);
    assert!(shown.starts_with("fraud: changed stable 1 → 2, previous - → 1, label old 1 → -\n\nSTABLE"), "{shown}");
    let dry = change("fraud", &before, &release(2, Some(1)), true, PIPE);
    assert!(dry.starts_with("fraud: dry run, would change stable 1 → 2"), "{dry}");
    let same = change("fraud", &before, &before, false, PIPE);
    assert!(same.starts_with("fraud: nothing to change\n"), "{same}");
}

#[test]
fn history_shows_the_difference_and_no_control_characters() {
    let entry = crate::admin::wire::HistoryEntry {
        sequence: 3,
        at: "2026-01-02T03:04:05.678Z".to_owned(),
        actor: "ada\u{1b}[2J".to_owned(),
        operation: "promote".to_owned(),
        from: release(1, None),
        to: release(2, Some(1)),
        reason: Some("better".to_owned()),
    };
    let shown = history(&History { model: "fraud".to_owned(), entries: vec![entry] }, PIPE);
    assert!(shown.contains("stable 1 → 2, previous - → 1"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

fn feature(name: &str, state: &str, corrected: f64) -> Feature {
    Feature {
        tensor: "input".to_owned(),
        feature: name.to_owned(),
        kind: "numeric".to_owned(),
        rows: 100,
        missing: 0,
        state: state.to_owned(),
        threshold: Some(0.2),
        measures: Measures { psi: Some(corrected + 0.01), psi_corrected: Some(corrected), ..Measures::default() },
        bins: vec![
            Bin { bin: "0".to_owned(), reference: 50, live: 100 },
            Bin { bin: "1".to_owned(), reference: 50, live: 0 },
        ],
    }
}

fn report() -> DriftReport {
    DriftReport {
        model: "fraud".to_owned(),
        version: 2,
        window: "5m".to_owned(),
        rows: 100,
        state: "drift".to_owned(),
        features: vec![feature("calm", "ok", 0.01), feature("odd", "warning", 0.15), feature("age", "drift", 0.5)],
    }
}

#[test]
fn drift_shows_the_worst_features_first_with_both_pictures() {
    let shown = drift(&report(), PIPE);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "fraud version 2: drift, 1 of 3 features drifted, 100 rows in the last 5m");
    let names: Vec<_> = lines[3..].iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["age", "odd", "calm"]);
    assert_eq!(lines[3], "age      numeric   100        0  0.5100     0.5000     0.2000  drift    ▅▅         █▁");
}

#[test]
fn colours_are_shown_where_they_are_wanted_only() {
    assert!(!drift(&report(), PIPE).contains('\u{1b}'));
    assert!(drift(&report(), Look { colours: true }).contains('\u{1b}'));
}

#[test]
fn size_has_the_unit_that_fits() {
    assert_eq!([512, 2048, 5 * 1024 * 1024, 3 << 40].map(size), ["512 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]);
}
