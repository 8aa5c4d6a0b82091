//! Views, as they come out on a pipe and on a terminal.

use super::*;
use crate::admin::wire::{
    AdmissionStep, Bin, Broken, Checked, DriftReport, DriftSelfTest, Feature, FeatureSelfTest, FoundShift, Head,
    History, HistoryEntry, Independence, Learning, Measures, Quality, RareBin, RecentTraffic, Runs, Share, Traffic,
    Unrouted, Verification,
};

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
         fraud  2       1 at 10%  -       -         1, 2            3       0.20/s       2       17\n"
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

fn feature(name: &str, state: &str, corrected: f64) -> Feature {
    Feature {
        tensor: "input".to_owned(),
        feature: name.to_owned(),
        kind: "numeric".to_owned(),
        rows: 100,
        missing: 0,
        state: state.to_owned(),
        rare_bin: None,
        threshold: Some(0.2),
        design_effect: None,
        effective_rows: None,
        psi_interval: Some([corrected - 0.01, corrected + 0.01]),
        quality: Quality { state: "ok".to_owned(), ..Quality::default() },
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
        min_rows: 200,
        state: "drift".to_owned(),
        alpha: 1e-7,
        against: "profile".to_owned(),
        segment: String::new(),
        segments: Vec::new(),
        multivariate: None,
        learning: None,
        features: vec![feature("calm", "ok", 0.01), feature("odd", "warning", 0.15), feature("age", "drift", 0.5)],
    }
}

#[test]
fn drift_shows_the_worst_features_first_with_both_pictures() {
    let shown = drift(&report(), PIPE);
    let lines: Vec<_> = shown.lines().collect();
    let head = "fraud version 2: drift, 1 of 3 features drifted, 100 rows in the last 5m against its profile";
    assert_eq!(lines[0], head);
    let names: Vec<_> = lines[3..].iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["age", "odd", "calm"]);
    assert_eq!(
        lines[3],
        "age      numeric   100        0  0.5100     0.5000  0.490 – 0.510     0.2000  drift    ok       ▅▅         █▁"
    );
}

#[test]
fn drift_of_too_few_rows_says_how_many_it_takes_and_names_no_verdict() {
    let too_few = |name| feature(name, "too_few_rows", 0.3);
    let report =
        DriftReport { state: "too_few_rows".to_owned(), features: vec![too_few("age"), too_few("income")], ..report() };
    let shown = drift(&report, PIPE);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "fraud version 2: too few rows: 100 of 200 in the last 5m against its profile");
    assert!(lines[3].contains("too few rows") && lines[3].starts_with("age"), "{shown}");
    let some = DriftReport {
        state: "ok".to_owned(),
        rows: 900,
        features: vec![too_few("age"), feature("b", "ok", 0.0)],
        ..report
    };
    let head = "fraud version 2: ok, 0 of 2 features drifted, 1 with too few rows, 900 rows in the last 5m against its profile";
    assert_eq!(drift(&some, PIPE).lines().next(), Some(head));
}

#[test]
fn rare_bin_that_has_changed_is_shown_where_no_share_of_rows_is() {
    let bin = "2 (fraud)".to_owned();
    let rare = RareBin { bin, state: "drift".to_owned(), reference: 0.002, live: 0.0041, design_effect: None };
    let features = vec![Feature { rare_bin: Some(rare), ..feature("label", "drift", 0.001) }];
    let shown = drift(&DriftReport { features, ..report() }, PIPE);
    assert!(shown.contains("'2 (fraud)' 0.41 % (0.20 %)"), "{shown}");
}

fn progress(rows: u64, rows_left: u64, seconds_left: f64) -> Learning {
    Learning {
        rows,
        min_rows: 200,
        rows_left,
        since: Some("2026-01-02T03:04:05.678Z".to_owned()),
        length: "1d".to_owned(),
        earliest_end: Some("2026-01-03T03:04:05.678Z".to_owned()),
        seconds_left,
        full: false,
    }
}

#[test]
fn drift_of_a_version_that_learns_is_a_line_that_says_when_there_will_be_a_verdict() {
    let shown = |progress| {
        let report = DriftReport { learning: Some(progress), features: Vec::new(), ..report() };
        let shown = drift(&report, PIPE);
        shown.strip_prefix("fraud version 2: learning its profile, ").unwrap().to_owned()
    };
    let since = "since 2026-01-02T03:04:05Z";
    assert_eq!(
        shown(progress(120, 80, 11_519.2)),
        format!(
            "120 of at least 200 rows {since}, 80 rows and 3h 12m left: ends at 2026-01-03T03:04:05Z at the earliest\n"
        )
    );
    let rows = shown(progress(250, 0, 60.0));
    assert_eq!(rows, format!("250 rows {since}, 1m left: ends at 2026-01-03T03:04:05Z at the earliest\n"));
    assert_eq!(shown(progress(199, 1, 0.0)), format!("199 of at least 200 rows {since}, 1 rows left\n"));
    assert_eq!(shown(progress(250, 0, 0.0)), format!("250 rows {since}, ends with the next row\n"));
    let full = shown(Learning { full: true, ..progress(90, 0, 1.0) });
    assert!(full.starts_with("90 rows (all that there is room for) since"), "{full}");
    let none = Learning { since: None, earliest_end: None, ..progress(0, 200, 86_400.0) };
    assert_eq!(shown(none), "no row has come yet, it takes 1d from the first one and 200 rows\n");
    let odd = shown(progress(0, 1, f64::NAN));
    assert!(odd.contains("1 rows and "), "{odd}");
}

#[test]
fn status_says_how_far_a_version_has_learnt() {
    let mut learns = model();
    (learns.versions[1].monitored, learns.versions[1].learning) = (false, Some(progress(250, 0, 0.0)));
    let shown = status(&learns, false, PIPE);
    let line = shown.lines().nth(4).unwrap();
    let end = "  learning   profile: 250 rows since 2026-01-02T03:04:05Z, ends with the next row";
    assert!(line.ends_with(end), "{shown}");
}

#[test]
fn drift_names_the_worst_check_and_the_segments() {
    let checked = |state: &str, live| {
        Some(Checked { state: state.to_owned(), reference: 0.1, live, threshold: 0.115, design_effect: None })
    };
    let quality = Quality {
        state: "drift".to_owned(),
        missing: checked("drift", 0.221),
        nonfinite: checked("ok", 0.1),
        out_of_range: checked("warning", 0.9),
        ..Quality::default()
    };
    let constant = Quality { constant: checked("drift", 1.0), ..Quality::default() };
    let names = ["country=DE".to_owned(), "country=other\u{1b}".to_owned()];
    let mut report =
        DriftReport { against: "stable".to_owned(), segment: names[0].clone(), segments: names.to_vec(), ..report() };
    report.features[1].quality = constant;
    report.features[2].quality = quality;
    let shown = drift(&report, PIPE);
    let lines: Vec<_> = shown.lines().collect();
    assert!(
        lines[0].ends_with("100 rows of country=DE in the last 5m against the live rows of the stable version"),
        "{shown}"
    );
    assert!(lines[3].contains("  drift    missing 22.1 % (10.0 %)  "), "{shown}");
    assert!(lines[4].contains("  warning  constant  "), "{shown}");
    assert!(shown.ends_with("\n\nsegments (--segment): country=DE, country=other\u{fffd}\n"), "{shown}");
}

#[test]
fn drift_leaves_out_what_a_narrow_terminal_has_no_room_for() {
    let shown = |width| drift(&report(), Look { colours: true, width: Some(width) });
    let headers = |width| -> String { shown(width).lines().nth(2).unwrap().into() };
    let whole = headers(300);
    assert!(whole.contains("95 % INTERVAL") && whole.contains("KIND"), "{whole}");
    let narrow = headers(100);
    assert!(!narrow.contains("95 % INTERVAL") && narrow.contains("CORRECTED"), "{narrow}");
    let narrowest = headers(20);
    assert!(!narrowest.contains("KIND") && narrowest.contains("LIVE"), "{narrowest}");
    let plain = drift(&report(), Look { colours: false, width: Some(100) });
    assert!(plain.lines().skip(2).all(|line| line.chars().count() <= 100), "{plain}");
}

#[test]
fn self_test_shows_what_the_monitor_gets_wrong_and_what_it_finds() {
    let shift = |power, psi, sigma, found| FoundShift { power, psi, sigma, found };
    let feature = |name: &str, false_drifts, shifts| FeatureSelfTest {
        tensor: "input".to_owned(),
        feature: name.to_owned(),
        kind: "numeric".to_owned(),
        miscounted: 3,
        false_warnings: 0,
        false_drifts,
        chance_rate: 0.0082,
        shifts,
    };
    let test = DriftSelfTest {
        model: "fraud".to_owned(),
        version: 2,
        window: "5m".to_owned(),
        live_rows: 300,
        rows: 300,
        looks: 1000,
        draws: 250,
        alpha: 1.2e-8,
        miscounted: 6,
        false_warnings: 0,
        false_drifts: 1,
        chance_alpha: 0.01,
        chance_rate: 0.0082,
        features: vec![
            feature("age", 1, vec![shift(0.5, 0.163, Some(0.41), 0.48), shift(0.8, 0.218, Some(0.479), 0.7725)]),
            feature("constant", 0, Vec::new()),
        ],
    };
    assert_eq!(
        self_test(&test, PIPE),
        "fraud version 2: rows drawn from its profile, through a monitor like its own: 300 in a window of 5m (as now)\n\
         miscounted: 6 values\n\
         false alarms: 0 warning, 1 drift at 2000 looks, 1000 at each of 2 features; promised for one test: 1.2e-8\n\
         by chance, in a test without floors that allows 1.0 %: 0.8 %\n\
         found: of 250 windows with each shift\n\
         \n\
         FEATURE   KIND     FALSE ALARMS  BY CHANCE  PSI 50 %   FOUND  PSI 80 %   FOUND  SHIFT 80 %\n\
         age       numeric             1      0.8 %    0.1630  48.0 %    0.2180  77.2 %      0.48 σ\n\
         constant  numeric             0      0.8 %         -       -         -       -           -\n"
    );
    let capped = self_test(&DriftSelfTest { live_rows: 1_000_000, ..test }, PIPE);
    assert!(capped.contains(": 300 in a window of 5m (1000000 now)\n"), "{capped}");
}

#[test]
fn colours_are_shown_where_they_are_wanted_only() {
    assert!(!drift(&report(), PIPE).contains('\u{1b}'));
    assert!(drift(&report(), Look { colours: true, width: None }).contains('\u{1b}'));
}

#[test]
fn size_has_the_unit_that_fits() {
    assert_eq!([512, 2048, 5 * 1024 * 1024, 3 << 40].map(size), ["512 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]);
}
