//! The JSON of the contract, written out by hand.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{domain::Percent, monitor, observe};

fn v(number: u64) -> domain::Version {
    domain::Version::new(number).unwrap()
}

fn split(version: u64, percent: f64) -> release::Split {
    release::Split { version: v(version), percent: Percent::new(percent).unwrap() }
}

fn release() -> release::Release {
    release::Release {
        generation: 7,
        stable: Some(v(3)),
        previous: Some(v(2)),
        canary: Some(split(4, 10.0)),
        shadow: Some(split(5, 2.5)),
        labels: [("champion".parse().unwrap(), v(3))].into(),
        newest: Some(v(3)),
        rolled_back: [v(2)].into(),
    }
}

fn version(number: u64, state: VersionState) -> registry::VersionStatus {
    registry::VersionStatus {
        version: v(number),
        state,
        reason: None,
        digest: Some("sha256:ab".to_owned()),
        memory_bytes: Some(1024),
        loaded_at: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
        requests: 12,
        traffic: observe::TrafficReport {
            total: observe::Counts { answered: 12, errors: 1, refusals: 2, cancelled: 0 },
            recent: Some(observe::Recent {
                window: Duration::from_secs(60),
                counts: observe::Counts { answered: 6, ..observe::Counts::default() },
                rate: 0.1,
                p50: Some(Duration::from_millis(2)),
                p99: None,
            }),
        },
        monitored: true,
        learning: None,
        shadow_dropped: Vec::new(),
        files_changed: false,
        changed: None,
        lane: None,
        admission: None,
    }
}

fn failed(number: u64) -> registry::VersionStatus {
    registry::VersionStatus {
        reason: Some("model.onnx is no ONNX model".to_owned()),
        digest: None,
        memory_bytes: None,
        loaded_at: None,
        requests: 0,
        traffic: observe::TrafficReport::default(),
        monitored: false,
        ..version(number, VersionState::Failed)
    }
}

#[test]
fn release_prints_as_the_contract_says() {
    assert_eq!(
        serde_json::to_string(&Release::from(&release())).unwrap(),
        r#"{"generation":7,"stable":3,"previous":2,"canary":{"version":4,"percent":10},"#.to_owned()
            + r#""shadow":{"version":5,"percent":2.5},"labels":{"champion":3},"rolled_back":[2]}"#
    );
}

#[test]
fn release_never_made_prints_null_for_what_it_has_not() {
    assert_eq!(
        serde_json::to_string(&Release::from(&release::Release::default())).unwrap(),
        r#"{"generation":0,"stable":null,"previous":null,"canary":null,"shadow":null,"labels":{}}"#
    );
}

#[test]
fn model_prints_its_release_and_versions() {
    let status = registry::ModelStatus {
        name: "fraud".parse().unwrap(),
        release: release::Release { shadow: None, labels: BTreeMap::new(), ..release() },
        versions: vec![version(3, VersionState::Ready), failed(6)],
        unrouted: observe::Counts { refusals: 4, ..observe::Counts::default() },
        comparison: None,
        misplaced: Vec::new(),
        warnings: vec!["look".to_owned()],
    };
    let expected = json!({
        "model": "fraud",
        "release": {
            "generation": 7, "stable": 3, "previous": 2,
            "canary": {"version": 4, "percent": 10}, "shadow": null, "labels": {}, "rolled_back": [2],
        },
        "versions": [
            {
                "version": 3, "state": "ready", "reason": null, "digest": "sha256:ab", "memory_bytes": 1024,
                "loaded_at": "2023-11-14T22:13:20.123Z", "requests": 12, "monitored": true, "traffic_percent": 90,
                "traffic": {"requests": 15, "errors": 1, "refusals": 2, "cancelled": 0, "recent": {
                    "window_seconds": 60.0, "requests": 6, "errors": 0, "refusals": 0,
                    "requests_per_second": 0.1, "p50_seconds": 0.002,
                }},
            },
            {
                "version": 6, "state": "failed", "reason": "model.onnx is no ONNX model", "digest": null,
                "memory_bytes": null, "loaded_at": null, "requests": 0, "monitored": false,
                "traffic": {"requests": 0, "errors": 0, "refusals": 0, "cancelled": 0},
            },
        ],
        "unrouted": {"errors": 0, "refusals": 4},
        "warnings": ["look"],
    });
    let list = ModelList { models: vec![ModelStatus::from(&status)], warnings: Vec::new() };
    assert_eq!(serde_json::to_value(&list).unwrap(), json!({ "models": [expected] }));
}

#[test]
fn admission_prints_its_steps() {
    let step = registry::StepReport {
        step: registry::Step::WarmUp,
        outcome: registry::Outcome::Passed,
        why: vec!["requests run alone".to_owned()],
        time: Duration::from_millis(250),
    };
    let report = registry::AdmissionReport { steps: vec![step], ..registry::AdmissionReport::default() };
    let expected = json!([{"step": "warmup", "outcome": "passed", "why": ["requests run alone"], "seconds": 0.25}]);
    assert_eq!(serde_json::to_value(admission(&report)).unwrap(), expected);
}

#[test]
fn traffic_percent_is_what_the_release_gives() {
    let shares = [3, 4, 2, 5].map(|number| traffic_percent(&release(), v(number)));
    assert_eq!(shares, [Some(Share(90.0)), Some(Share(10.0)), None, None]);
}

#[test]
fn history_entry_prints_both_releases() {
    let entry = registry::HistoryEntry {
        sequence: 9,
        at: SystemTime::UNIX_EPOCH,
        actor: "ada".to_owned(),
        operation: "promote".to_owned(),
        asked: "version 1".to_owned(),
        outcome: release::Outcome::Done,
        detail: None,
        attempts: 1,
        hash: "abc".to_owned(),
        from: release::Release::default(),
        to: release::Release { generation: 1, stable: Some(v(1)), ..Default::default() },
        reason: None,
    };
    let history = History::new(&"fraud".parse().unwrap(), &[entry], None);
    let bare = json!({"generation": 0, "stable": null, "previous": null, "canary": null, "shadow": null, "labels": {}});
    let one = json!({"generation": 1, "stable": 1, "previous": null, "canary": null, "shadow": null, "labels": {}});
    assert_eq!(
        serde_json::to_value(&history).unwrap(),
        json!({"model": "fraud", "entries": [{
            "sequence": 9, "at": "1970-01-01T00:00:00.000Z", "actor": "ada", "operation": "promote",
            "asked": "version 1", "outcome": "ok", "detail": null, "attempts": 1, "hash": "abc",
            "from": bare, "to": one, "reason": null,
        }]})
    );
}

#[test]
fn drift_prints_as_the_contract_says() {
    let report = monitor::DriftReport {
        model: "fraud".parse().unwrap(),
        version: v(1),
        window: Duration::from_mins(5),
        rows: 100,
        min_rows: 200,
        state: monitor::DriftState::Drift,
        alpha: 1e-7,
        against: monitor::Against::Profile,
        segment: Some("country=DE".parse().unwrap()),
        segments: vec!["country=DE".parse().unwrap()],
        features: vec![monitor::FeatureReport {
            tensor: "input".to_owned(),
            feature: "age".to_owned(),
            kind: monitor::FeatureKind::Numeric,
            rows: 100,
            missing: 1,
            distribution: monitor::DriftState::Warning,
            state: monitor::DriftState::Drift,
            rare_bin: Some(monitor::RareBin {
                bin: "3".to_owned(),
                state: monitor::DriftState::Warning,
                reference: 0.002,
                live: 0.0035,
                design_effect: None,
            }),
            threshold: 0.25,
            design_effect: Some(4.0),
            effective_rows: Some(24.75),
            interval: Some((0.3, 0.5)),
            quality: monitor::Quality {
                checks: vec![monitor::Checked {
                    check: monitor::Check::Missing,
                    state: monitor::DriftState::Drift,
                    reference: 0.0,
                    live: 0.5,
                    threshold: 0.25,
                    design_effect: Some(2.0),
                }],
            },
            measures: monitor::Measures {
                psi: Some(0.5),
                psi_corrected: Some(0.4),
                wasserstein: Some(f64::INFINITY),
                ..Default::default()
            },
            bins: vec![monitor::BinCount { bin: "below".to_owned(), reference: 0, live: 3 }],
        }],
    };
    let expected = json!({
        "model": "fraud", "version": 1, "window": "5m", "rows": 100, "min_rows": 200, "state": "drift",
        "alpha": 1e-7, "against": "profile", "segment": "country=DE", "segments": ["country=DE"],
        "features": [{
            "tensor": "input", "feature": "age", "kind": "numeric", "rows": 100, "missing": 1, "state": "drift",
            "rare_bin": {
                "bin": "3", "state": "warning", "reference": 0.002, "live": 0.0035, "design_effect": null,
            },
            "threshold": 0.25, "design_effect": 4.0, "effective_rows": 24.75, "psi_interval": [0.3, 0.5],
            "quality": {
                "state": "drift",
                "missing": {
                    "state": "drift", "reference": 0.0, "live": 0.5, "threshold": 0.25, "design_effect": 2.0,
                },
                "nonfinite": null, "unseen": null, "out_of_range": null, "constant": null,
            },
            "measures": {
                "psi": 0.5, "psi_corrected": 0.4, "jensen_shannon": null, "hellinger": null,
                "kolmogorov_smirnov": null, "wasserstein": null, "chi_square": null, "p_value": null,
                "total_variation": null, "cramers_v": null, "l_infinity": null,
            },
            "bins": [{"bin": "below", "reference": 0, "live": 3}],
        }],
        "multivariate": null,
    });
    let printed = DriftReport::from(&report);
    assert_eq!(serde_json::to_value(&printed).unwrap(), expected);
    assert_eq!(serde_json::from_value::<DriftReport>(expected).unwrap(), printed);
}

#[test]
fn drift_of_a_version_that_learns_says_how_far_it_is() {
    let progress = monitor::LearningProgress {
        rows: 120,
        min_rows: 200,
        is_full: false,
        since: Some(Duration::from_millis(1_700_000_000_500)),
        length: Duration::from_hours(24),
        time_left: Duration::from_millis(1500),
    };
    let learning = json!({
        "rows": 120, "min_rows": 200, "rows_left": 80, "since": "2023-11-14T22:13:20.500Z", "length": "1d",
        "earliest_end": "2023-11-15T22:13:20.500Z", "seconds_left": 1.5, "full": false,
    });
    let drift = monitor::Drift::Learning { model: "fraud".parse().unwrap(), version: v(2), progress };
    let expected = json!({
        "model": "fraud", "version": 2, "window": "", "rows": 120, "min_rows": 0, "state": "learning", "alpha": 0.0,
        "against": "profile", "segment": "", "segments": [], "features": [], "multivariate": null,
        "learning": learning,
    });
    let printed = DriftReport::from(&drift);
    assert_eq!(serde_json::to_value(&printed).unwrap(), expected);
    assert_eq!(serde_json::from_value::<DriftReport>(expected).unwrap(), printed);
    let status =
        registry::VersionStatus { monitored: false, learning: Some(progress), ..version(2, VersionState::Ready) };
    assert_eq!(serde_json::to_value(VersionStatus::from(&status)).unwrap()["learning"], learning);

    let begins = monitor::LearningProgress { since: None, rows: 0, length: Duration::MAX, ..progress };
    let printed = serde_json::to_value(Learning::from(&begins)).unwrap();
    assert_eq!((&printed["since"], &printed["earliest_end"]), (&json!(null), &json!(null)));
    let endless = monitor::LearningProgress { length: Duration::MAX, ..progress };
    assert_eq!(Learning::from(&endless).earliest_end.as_deref(), Some("9999-12-31T23:59:59.000Z"));
}

#[test]
fn self_test_adds_up_what_its_features_say() {
    let feature = |false_warnings, false_drifts, chance_rate, sigma| monitor::FeatureSelfTest {
        tensor: "input".to_owned(),
        feature: "age".to_owned(),
        kind: monitor::FeatureKind::Numeric,
        miscounted: 5,
        false_warnings,
        false_drifts,
        chance_rate,
        shifts: vec![monitor::FoundShift { power: 0.8, psi: 0.05, sigma, found: 0.75 }],
    };
    let test = monitor::SelfTest {
        model: "fraud".parse().unwrap(),
        version: v(1),
        window: Duration::from_hours(1),
        live_rows: 150,
        rows: 200,
        looks: 400,
        draws: 100,
        alpha: 1e-7,
        features: vec![feature(1, 2, 0.0, Some(0.25)), feature(3, 4, 0.5, None)],
    };
    let printed = serde_json::to_value(DriftSelfTest::from(&test)).unwrap();
    let one = |warnings, drifts, rate: f64, sigma: Option<f64>| {
        json!({"tensor": "input", "feature": "age", "kind": "numeric", "miscounted": 5,
            "false_warnings": warnings, "false_drifts": drifts, "chance_rate": rate,
            "shifts": [{"power": 0.8, "psi": 0.05, "sigma": sigma, "found": 0.75}]})
    };
    assert_eq!(
        printed,
        json!({
            "model": "fraud", "version": 1, "window": "1h", "live_rows": 150, "rows": 200, "looks": 400, "draws": 100,
            "alpha": 1e-7, "miscounted": 10, "false_warnings": 4, "false_drifts": 6, "chance_alpha": 0.01, "chance_rate": 0.25,
            "features": [one(1, 2, 0.0, Some(0.25)), one(3, 4, 0.5, None)],
        })
    );
}

#[test]
fn repository_index_speaks_tritons_words() {
    let status = registry::ModelStatus {
        name: "fraud".parse().unwrap(),
        release: release(),
        versions: vec![version(3, VersionState::Ready), failed(6)],
        unrouted: observe::Counts { refusals: 4, ..observe::Counts::default() },
        comparison: None,
        misplaced: Vec::new(),
        warnings: vec!["look".to_owned()],
    };
    assert_eq!(
        serde_json::to_value(repository_index(std::slice::from_ref(&status), false)).unwrap(),
        json!([
            {"name": "fraud", "version": "3", "state": "READY", "reason": ""},
            {"name": "fraud", "version": "6", "state": "UNAVAILABLE", "reason": "model.onnx is no ONNX model"},
        ])
    );
    assert_eq!(repository_index(&[status], true).len(), 1);
}

#[test]
fn timestamp_outside_the_format_is_moved_into_it() {
    let long_ago = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(timestamp(long_ago), "1970-01-01T00:00:00.000Z");
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(timestamp(far), "9999-12-31T23:59:59.000Z");
}
