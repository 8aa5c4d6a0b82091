//! Views, as they come out on a pipe and on a terminal.

use super::*;
use crate::admin::wire::{
    AdmissionStep, Bin, Broken, Checked, DriftReport, DriftSelfTest, Feature, FeatureSelfTest, FoundShift, Head,
    History, HistoryEntry, Independence, Learning, Measures, Quality, RareBin, RecentTraffic, Runs, Share, Traffic,
    Unrouted, Verification,
};

mod drift;

const PIPE: Look = Look { colours: false, width: None };

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
        traffic: Traffic {
            requests: 50,
            errors: 1,
            refusals: 7,
            cancelled: 0,
            recent: Some(RecentTraffic {
                window_seconds: 300.0,
                requests: 30,
                errors: 0,
                refusals: 6,
                requests_per_second: 0.1,
                p50_seconds: Some(0.0006),
                p99_seconds: Some(0.5),
            }),
        },
        monitored: true,
        learning: None,
        traffic_percent: None,
        runs: None,
        shadow_dropped: [].into(),
        files_changed: false,
        changed: None,
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
        traffic: Traffic::default(),
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
        unrouted: Unrouted { errors: 0, refusals: 3 },
        comparison: None,
        misplaced: Vec::new(),
        warnings: Vec::new(),
    }
}

#[test]
fn models_are_one_line_each() {
    assert_eq!(
        models(&ModelList { models: vec![model()], warnings: Vec::new() }, PIPE),
        "MODEL  STABLE  CANARY    SHADOW  PREVIOUS  READY VERSIONS  FAILED    RATE  ERRORS  REFUSED\n\
         fraud  2       1 at 10%  -       -         1, 2            3       0.20/s       2       17\n\n\
         fraud: version 3 failed: model.onnx is torn\n"
    );
}

#[test]
fn tables_keep_to_the_width_of_the_terminal() {
    let long = "trial: ONNX Runtime refuses the model since its operator set is newer than what the library knows, see the log";
    let mut broken = model();
    broken.versions[2].reason = Some(long.to_owned());
    for width in [60, 80, 100, 120] {
        let look = Look { colours: false, width: Some(width) };
        let shown = versions(&broken.versions, look);
        assert!(shown.lines().all(|line| line.chars().count() <= usize::from(width)), "{width}:\n{shown}");
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("operator") && words.contains("library"), "{shown}");
    }
    assert!(versions(&broken.versions, PIPE).contains(long));
}

#[test]
fn status_shows_the_release_and_why_a_version_failed() {
    let shown = status(&model(), false, PIPE);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "fraud: stable 2, previous -, canary 1 at 10%, shadow -, labels champion=2, generation 2");
    assert_eq!(
        lines[4],
        "      2  ready       90%        42  3.3 MiB  2026-01-02T03:04:05Z  0123456789ab  yes        -"
    );
    assert!(lines[5].ends_with("no         model.onnx is torn"), "{shown}");
    assert_eq!(
        lines[7..],
        [
            "VERSION  REQUESTS  ERRORS  REFUSED  LAST    RATE  ERRORS  REFUSED    P50      P99",
            "      1        50       1        7    5m  0.10/s       0        6  0.6ms  500.0ms",
            "      2        50       1        7    5m  0.10/s       0        6  0.6ms  500.0ms",
            "",
            "before a version was chosen: 3 requests refused, 0 failed",
        ]
    );
    let mut replaced = model();
    replaced.versions[1].files_changed = true;
    let shown = status(&replaced, false, PIPE);
    assert!(shown.lines().nth(4).unwrap().ends_with("yes        files on disk changed since it was loaded"), "{shown}");
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
    assert_eq!(status(&model, false, PIPE), status(&model, true, PIPE));
    let shown = status(&model, false, PIPE);
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
fn admission_where_all_went_well_is_a_line_unless_more_is_wanted() {
    let step = |step: &str, outcome: &str| AdmissionStep {
        step: step.to_owned(),
        outcome: outcome.to_owned(),
        why: Vec::new(),
        seconds: 0.2,
    };
    let passed = vec![step("complete", "passed"), step("trial", "passed"), step("golden", "skipped")];
    let failed = vec![step("complete", "failed")];
    let admitted =
        |number, admission: &Vec<_>| VersionStatus { admission: admission.clone(), ..version(number, "ready") };
    // Version 3 serves what it was, and its new files were refused.
    let versions = vec![admitted(1, &passed), admitted(2, &passed), admitted(3, &failed)];
    let model = ModelStatus { versions, ..model() };
    let shown = status(&model, false, PIPE);
    let (_, admissions) = shown.split_once("\nadmission of version 1").unwrap();
    assert_eq!(
        admissions,
        ": 2 steps passed, 1 skipped, 600 ms\n\
         admission of version 2: 2 steps passed, 1 skipped, 600 ms\n\
         \n\
         admission of version 3\n\
         \n\
         STEP      OUTCOME      TIME  WHY\n\
         complete  failed   200.0 ms\n"
    );
    let verbose = status(&model, true, PIPE);
    assert_eq!(verbose.matches("admission of version").count(), 3);
    assert!(verbose.contains("golden    skipped"), "{verbose}");
}

/// Runs of 6.5 µs, joined up to 64 rows.
fn joined() -> Runs {
    Runs {
        placement: "request".to_owned(),
        run_seconds: 6.5e-6,
        row_seconds: 0.25e-6,
        max_batch_rows: 64,
        max_delay_seconds: 0.0,
        instances: 2,
        waiting: 0,
        alone: None,
        batching_stopped: false,
        independence: Independence { outcome: "independent".to_owned(), ..Independence::default() },
    }
}

#[test]
fn status_shows_how_runs_happen_in_a_hundred_columns() {
    let alone = Runs {
        placement: "pool".to_owned(),
        run_seconds: 0.0123,
        row_seconds: 0.0,
        max_batch_rows: 1,
        max_delay_seconds: 1.5,
        waiting: 1024,
        alone: Some("output 'y' of a row\ndepends on other rows".to_owned()),
        independence: Independence {
            outcome: "dependent".to_owned(),
            why: Some("ReduceMax at node 'm'\nis over all rows".to_owned()),
            ..Independence::default()
        },
        ..joined()
    };
    let mut model = model();
    for (version, runs) in model.versions.iter_mut().zip([joined(), alone]) {
        version.runs = Some(runs);
    }
    let shown = status(&model, false, PIPE);
    let (_, runs) = shown.split_once("0 failed\n\n").unwrap();
    assert_eq!(
        runs,
        "VERSION  RUNS ON  ONE RUN  PER ROW  BATCH ROWS  DELAY  INSTANCES  WAITING\n      \
         1  request   6.5 µs   250 ns          64    0 s          2        0\n      \
         2  pool       12 ms        -           1  1.5 s          2     1024\n\
         version 2 runs each request alone: output 'y' of a row depends on other rows\n\
         version 1 has independent rows, proven from the graph\n\
         version 2 has rows that depend on each other: ReduceMax at node 'm' is over all rows\n"
    );
    assert!(runs.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn status_of_a_model_that_is_not_loaded_says_nothing_of_runs() {
    assert!(!status(&model(), false, PIPE).contains("RUNS ON"));
}

#[test]
fn time_has_the_unit_that_fits() {
    let times = [0.0, 3e-10, 250e-9, 0.99999e-6, 9.96e-6, 0.0123, 0.9999, 1.5, 3600.0].map(runs::time);
    assert_eq!(times, ["0 s", "0.3 ns", "250 ns", "1.0 µs", "10 µs", "12 ms", "1.0 s", "1.5 s", "3600 s"]);
}

#[test]
fn change_says_what_is_different() {
    let before = Release { labels: [("old".to_owned(), 1)].into(), ..release(1, None) };
    let shown = change("fraud", Some(&before), &release(2, Some(1)), false, PIPE);
    assert!(shown.starts_with("fraud: changed stable 1 → 2, previous - → 1, label old 1 → -\n\nSTABLE"), "{shown}");
    let dry = change("fraud", Some(&before), &release(2, Some(1)), true, PIPE);
    assert!(dry.starts_with("fraud: dry run, would change stable 1 → 2"), "{dry}");
    let same = change("fraud", Some(&before), &before, false, PIPE);
    assert!(same.starts_with("fraud: nothing to change\n"), "{same}");
    let repeated = change("fraud", None, &before, false, PIPE);
    assert!(repeated.starts_with("fraud: done before with this key"), "{repeated}");
}

fn attempt(outcome: &str) -> HistoryEntry {
    HistoryEntry {
        sequence: 3,
        at: "2026-01-02T03:04:05.678Z".to_owned(),
        actor: "ada\u{1b}[2J".to_owned(),
        operation: "promote".to_owned(),
        asked: "version 2".to_owned(),
        outcome: outcome.to_owned(),
        from: release(1, None),
        to: release(if outcome == "ok" { 2 } else { 1 }, None),
        detail: Some("version 2 is loading".to_owned()),
        reason: Some("better".to_owned()),
        attempts: if outcome == "ok" { 1 } else { 12 },
        hash: "abc".to_owned(),
    }
}

#[test]
fn history_shows_the_difference_or_the_refusal_and_no_control_characters() {
    let entries = vec![attempt("refused"), attempt("ok")];
    let shown = history(&History { model: "fraud".to_owned(), entries, verification: None }, PIPE);
    assert!(shown.contains("promote version 2  refused ×12  version 2 is loading  better"), "{shown}");
    assert!(shown.contains("promote version 2  ok           stable 1 → 2"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn verification_says_how_far_the_log_is_as_written() {
    let head = Some(Head { sequence: 2, hash: "abc".to_owned() });
    let shown = |intact, broken| {
        let verification = Some(Verification { intact, entries: 2, head: head.clone(), broken });
        history(&History { model: "fraud".to_owned(), entries: Vec::new(), verification }, PIPE)
    };
    let intact = shown(true, None);
    assert!(intact.ends_with("\nThe audit log is intact: 2 entries, up to entry 2 with hash abc\n"), "{intact}");
    let broken = shown(false, Some(Broken { sequence: 3, why: "it is missing".to_owned() }));
    assert!(broken.contains("only its first 2 entries are as written"), "{broken}");
}

#[test]
fn size_has_the_unit_that_fits() {
    assert_eq!([512, 2048, 5 * 1024 * 1024, 3 << 40].map(size), ["512 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]);
}
