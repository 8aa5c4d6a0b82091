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
fn before_the_first_look_every_feature_is_ok_without_rows() {
    let monitor = monitor();
    for seen in &*monitor.latest() {
        assert_eq!(seen.features.len(), 3);
        for judged in &seen.features {
            assert_eq!((judged.rows, judged.state, judged.measures.psi), (0, DriftState::Ok, None));
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
    assert!(third[0].features.iter().all(|judged| judged.rows == 0 && judged.state == DriftState::Ok));
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
        assert_eq!(states(&monitor, window), [DriftState::Drift, DriftState::Ok, DriftState::Ok]);
    }
    for (at, window) in [(5, seconds(300)), (60, seconds(3600)), (24 * 60, Duration::from_hours(24))] {
        let changes = monitor.look(seconds(at));
        let told: Vec<_> = changes.iter().map(|change| (change.window, change.before, change.now.state)).collect();
        // By then the shortest window has slid over the rows.
        let ended = (seconds(300), DriftState::Drift, DriftState::Ok);
        let begun = (window, DriftState::Ok, DriftState::Drift);
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
    assert_eq!(states(&after, 0), [DriftState::Drift, DriftState::Ok, DriftState::Ok], "before its first look");
    for at in [3, 10, 100] {
        assert_eq!(after.look(seconds(at)), [], "what was told is no news");
    }
}
