//! Looks at a small monitor, at times that are given.

use super::*;
use crate::{
    domain::Tensor,
    monitor::{
        Answered, DriftState, VersionMonitor,
        version_monitor::tests::{monitor, numbers, words},
    },
};

const WINDOWS: usize = 3;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A feature that has drifted, and one that has not.
fn drifted() -> [Tensor; 2] {
    [numbers("x", (0..1000).map(|i| i % 300)), words(&[["a"; 900].as_slice(), &["b"; 100]].concat())]
}

fn states(monitor: &VersionMonitor, window: usize) -> Vec<DriftState> {
    monitor.latest()[window].features.iter().map(|judged| judged.state).collect()
}

/// Which features of a window the second look computed anew.
fn renewed(before: &Seen, after: &Seen) -> Vec<bool> {
    before.features.iter().zip(&after.features).map(|(before, after)| !Arc::ptr_eq(before, after)).collect()
}

#[test]
fn before_the_first_look_no_feature_has_a_verdict() {
    let monitor = monitor();
    for seen in &*monitor.latest() {
        assert_eq!(seen.features.len(), 3);
        for judged in &seen.features {
            assert_eq!((judged.rows, judged.state, judged.measures.psi), (0, DriftState::TooFewRows, None));
            assert!(judged.threshold.is_finite());
        }
    }
}

#[test]
fn look_finds_over_every_window_what_a_report_does() {
    let monitor = monitor();
    for (minute, rows) in [(0, 500), (50, 300), (59, 700)] {
        let now = Duration::from_mins(minute);
        monitor.count(Answered::new(&[numbers("x", 0..rows), words(&["a", "c", ""])], &[]), now);
        monitor.look(now);
        for seen in &*monitor.latest() {
            let report =
                monitor.report(&"m".parse().unwrap(), crate::domain::Version::new(1).unwrap(), seen.window, now);
            for (judged, feature) in seen.features.iter().zip(&report.features) {
                assert_eq!((judged.rows, judged.missing, judged.state), (feature.rows, feature.missing, feature.state));
                assert_eq!((judged.measures, &judged.quality), (feature.measures, &feature.quality));
                assert_eq!((judged.threshold, judged.interval), (feature.threshold, feature.interval));
            }
        }
    }
}

#[test]
fn what_has_not_changed_is_not_computed_again() {
    let monitor = monitor();
    monitor.count(Answered::new(&drifted(), &[]), seconds(1));
    monitor.look(seconds(1));
    let first = monitor.latest();
    monitor.look(seconds(2));
    assert!(Arc::ptr_eq(&first, &monitor.latest()), "no row came, and no window slid over one");
    monitor.count(Answered::new(&[numbers("x", 0..10)], &[]), seconds(3));
    monitor.look(seconds(3));
    let second = monitor.latest();
    for window in 0..WINDOWS {
        assert_eq!(renewed(&first[window], &second[window]), [true, false, false], "only 'x' has new rows");
    }
    // The shortest window slides over the rows, the others have them still.
    monitor.look(seconds(400));
    let third = monitor.latest();
    assert_eq!(renewed(&second[0], &third[0]), [true, true, false]);
    assert!((1..WINDOWS).all(|window| Arc::ptr_eq(&second[window], &third[window])));
    assert!(third[0].features.iter().all(|judged| judged.rows == 0 && judged.state == DriftState::TooFewRows));
    monitor.look(seconds(900));
    assert!(Arc::ptr_eq(&third, &monitor.latest()), "an empty window slides over nothing");
}

#[test]
fn verdict_changes_when_its_window_has_slid_and_numbers_at_every_look() {
    let monitor = monitor();
    assert_eq!(monitor.look(seconds(0)), []);
    monitor.count(Answered::new(&drifted(), &[]), seconds(1));
    assert_eq!(monitor.look(seconds(1)), [], "no window has slid since");
    for window in 0..WINDOWS {
        assert_eq!(states(&monitor, window), [DriftState::Drift, DriftState::Ok, DriftState::TooFewRows]);
    }
    for (at, window) in [(5, seconds(300)), (60, seconds(3600)), (24 * 60, Duration::from_hours(24))] {
        let changes = monitor.look(seconds(at));
        let told: Vec<_> = changes.iter().map(|change| (change.window, change.before, change.now)).collect();
        // By then the shortest window has slid over the rows.
        let ended = (seconds(300), DriftState::Drift, DriftState::TooFewRows);
        let begun = (window, DriftState::TooFewRows, DriftState::Drift);
        assert_eq!(told, if at > 300 { vec![ended, begun] } else { vec![begun] }, "at {at} s");
        assert_eq!(monitor.look(seconds(at)), [], "the same look again");
    }
}

#[test]
fn verdicts_go_on_where_a_version_is_loaded_anew() {
    let (before, after) = (monitor(), monitor());
    before.count(Answered::new(&drifted(), &[]), seconds(1));
    assert_eq!(before.look(seconds(2)).len(), WINDOWS);
    after.adopt(&before, seconds(3));
    assert_eq!(states(&after, 0), [DriftState::Drift, DriftState::Ok, DriftState::TooFewRows], "before its first look");
    for at in [3, 10, 100] {
        assert_eq!(after.look(seconds(at)), [], "what was told is no news");
    }
}

/// What was told of the shortest window at these looks.
fn told(monitor: &VersionMonitor, looks: &[u64]) -> Vec<(u64, String)> {
    let look = |at: &u64| {
        let changes = monitor.look(seconds(*at)).into_iter().filter(|change| change.window == seconds(300));
        changes.map(|change| (*at, change.to_string())).collect::<Vec<_>>()
    };
    looks.iter().flat_map(look).collect()
}

#[test]
fn incident_is_one_line_and_features_that_follow_are_another_a_minute_later() {
    let monitor = monitor();
    let low = || numbers("x", (0..1000).map(|i| i % 300));
    monitor.count(Answered::new(&[low(), words(&["a"; 300])], &[numbers("y", (0..300).map(|_| 7))]), seconds(1));
    let [(at, message)] = told(&monitor, &[5, 10]).try_into().unwrap();
    let begin =
        "drift over 5m, was too_few_rows: 3 of 3 features in warning or drift, 1000 rows; y (drift; corrected PSI ";
    assert!(at == 5 && message.starts_with(begin), "{message}");
    assert!(message.contains("; constant), x (drift; corrected PSI ") && message.contains(", s (drift; "), "{message}");

    // One is over, then another; the state of all is the same.
    let usual = || numbers("y", (0..5000).map(|i| i % 1000));
    monitor.count(Answered::new(&[], &[usual()]), seconds(11));
    let usual = || words(&[["a"; 900].as_slice(), &["b"; 100]].concat());
    monitor.count(Answered::new(&[usual()], &[]), seconds(21));
    let looks: Vec<_> = (15..=70).step_by(5).collect();
    let [(at, message)] = told(&monitor, &looks).try_into().unwrap();
    let expected = "drift over 5m, was drift: 1 of 3 features in warning or drift, 5300 rows; better or over: ";
    assert!(at == 65 && message.starts_with(expected), "{message}");
    assert!(message.contains('y') && message.contains('s'), "{message}");

    // All is over at once: told without delay, and once.
    let looks: Vec<_> = (75..=1000).step_by(5).collect();
    let [(at, message)] = told(&monitor, &looks).try_into().unwrap();
    assert_eq!((at, &*message), (300, "ok over 5m, was drift: 5000 rows; better or over: x"));
}

#[test]
fn drift_that_ends_as_no_rows_come_is_told_as_no_verdict() {
    let monitor = monitor();
    monitor.count(Answered::new(&drifted(), &[]), seconds(1));
    let looks: Vec<_> = (5..=1000).step_by(5).collect();
    let [begun, (at, message)] = told(&monitor, &looks).try_into().unwrap();
    assert!(begun.0 == 5 && begun.1.starts_with("drift over 5m"), "{begun:?}");
    assert_eq!((at, &*message), (300, "no verdict over 5m, was drift: 0 of 200 rows; better or over: x"));
}

#[test]
fn that_there_are_too_few_rows_for_a_verdict_is_no_news_where_all_was_well() {
    let monitor = monitor();
    for at in [0, 400, 800] {
        let usual = [numbers("x", 0..1000), words(&[["a"; 900].as_slice(), &["b"; 100]].concat())];
        monitor.count(Answered::new(&usual, &[numbers("y", 0..1000)]), seconds(at + 1));
        assert_eq!(monitor.look(seconds(at + 5)), []);
        assert_eq!(states(&monitor, 0), [DriftState::Ok; 3]);
        assert_eq!(monitor.look(seconds(at + 390)), []);
        assert_eq!(states(&monitor, 0), [DriftState::TooFewRows; 3]);
    }
}

#[test]
fn many_features_are_named_up_to_ten_and_counted() {
    let names: Vec<_> = (0..12).map(|at| format!("f{at}")).collect();
    assert_eq!(crate::monitor::change::named(&names), "f0, f1, f2, f3, f4, f5, f6, f7, f8, f9 and 2 more");
    assert_eq!(crate::monitor::change::named(&names[..2]), "f0, f1");
}
