//! What is shown of drift, of the learning of a profile, and of the self-test.

use super::*;

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
