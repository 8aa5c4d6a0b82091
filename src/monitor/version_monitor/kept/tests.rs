//! A canary beside its stable version: the comparison goes on, or begins anew.

use super::*;
use crate::{
    domain::{DataType, Dim, Signature, TensorSpec},
    monitor::{
        Answered, DriftReport, MonitorSettings, ProfileBuilder,
        version_monitor::tests::{monitor, numbers},
    },
};

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Counts so many rows of a canary, or of the stable version itself.
fn count(monitor: &VersionMonitor, canary: Option<u64>, rows: i32, at: u64) {
    let (inputs, outputs) = ([numbers("x", (0..rows).map(|row| row * 7 % 400))], [numbers("y", 0..rows)]);
    let answered = Answered::new(&inputs, &outputs);
    match canary {
        Some(number) => monitor.count_canary(version(number), answered, seconds(at)),
        None => monitor.count(answered, seconds(at)),
    }
}

fn report(monitor: &VersionMonitor, canary: u64, at: u64) -> Option<DriftReport> {
    monitor.report_of_canary((&"m".parse().unwrap(), version(canary)), Duration::from_hours(1), seconds(at))
}

/// Live rows of `x`, and those that they are compared with.
fn rows(report: &DriftReport) -> (u64, u64) {
    let bins = &report.features[0].bins;
    (bins.iter().map(|bin| bin.live).sum(), bins.iter().map(|bin| bin.reference).sum())
}

/// A thousand rows before the first one of canary 2, and some of both since.
fn compared() -> VersionMonitor {
    let monitor = monitor();
    count(&monitor, None, 1000, 10);
    count(&monitor, Some(2), 300, 20);
    count(&monitor, None, 500, 30);
    count(&monitor, Some(2), 200, 200);
    monitor
}

#[test]
fn comparison_goes_on_as_if_nothing_had_been_in_between() {
    let (before, after) = (compared(), monitor());
    assert!(after.restore(&before.save().unwrap(), seconds(250)).unwrap());
    assert_eq!(rows(&report(&after, 2, 250).unwrap()), (500, 500));
    for (at, rows) in [(260, 100), (300, 50), (3630, 40), (3900, 30)] {
        for monitor in [&before, &after] {
            count(monitor, Some(2), rows, at);
            count(monitor, None, 2 * rows, at);
        }
        assert_eq!(report(&after, 2, at), report(&before, 2, at), "at {at} s");
    }
    assert_eq!(rows(&report(&after, 2, 3900).unwrap()), (70, 140), "the window slid on");
}

#[test]
fn another_canary_begins_anew() {
    let after = monitor();
    assert!(after.restore(&compared().save().unwrap(), seconds(250)).unwrap());
    assert_eq!(report(&after, 3, 250), None);
    count(&after, Some(3), 10, 260);
    count(&after, None, 20, 270);
    assert_eq!(rows(&report(&after, 3, 280).unwrap()), (10, 20));
    assert_eq!(report(&after, 2, 280), None);
}

#[test]
fn another_profile_or_other_windows_begin_anew() {
    let saved = compared().save().unwrap();
    let mut builder = ProfileBuilder::default();
    builder.add(&[numbers("x", 0..1000)], &[]);
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![Dim::Any], optional: false };
    let signature = Signature { inputs: vec![spec], outputs: vec![] };
    let profile = builder.finish().profile;
    let other = VersionMonitor::new(profile.clone(), &signature, &MonitorSettings::default()).unwrap();
    assert!(!other.restore(&saved, seconds(250)).unwrap());
    assert_eq!(report(&other, 2, 250), None);

    count(&other, Some(2), 10, 260);
    let windows = MonitorSettings { windows: vec![Duration::from_hours(2)], ..MonitorSettings::default() };
    let windows = VersionMonitor::new(profile, &signature, &windows).unwrap();
    assert!(!windows.restore(&other.save().unwrap(), seconds(270)).unwrap());
    assert_eq!(report(&windows, 2, 270), None);
}

/// What was saved, with the parts that `change` makes of it.
fn changed(change: impl FnOnce(&mut Vec<(String, SavedCounts)>)) -> Vec<u8> {
    let before = compared();
    let mut parts = saved::decode(before.digest, &before.save().unwrap()).unwrap().unwrap();
    change(&mut parts);
    saved::encode(before.digest, &parts).unwrap()
}

fn part<'a>(parts: &'a mut [(String, SavedCounts)], of: &str) -> &'a mut (String, SavedCounts) {
    parts.iter_mut().find(|(name, _)| name == of).unwrap()
}

#[test]
fn comparison_that_contradicts_the_rest_is_left_out_and_the_rest_is_not() {
    type Change = fn(&mut Vec<(String, SavedCounts)>);
    let changes: [(&str, Change); 6] = [
        ("more rows before than there are", |parts| part(parts, "before canary 2").1.totals[0] += 9999),
        ("fewer cells", |parts| part(parts, "before canary 2").1.totals.truncate(1)),
        ("windows without totals", |parts| part(parts, "canary 2").1.totals.fill(0)),
        ("another canary's beginning", |parts| part(parts, "before canary 2").0 = "before canary 3".into()),
        ("no beginning", |parts| parts.retain(|(name, _)| !name.starts_with("before"))),
        ("a part of a later program", |parts| part(parts, "canary 2").0 = "later".into()),
    ];
    for (what, change) in changes {
        let after = monitor();
        assert!(after.restore(&changed(change), seconds(250)).unwrap(), "{what}");
        assert_eq!((report(&after, 2, 250), after.totals()), (None, compared().totals()), "{what}");
    }
    // The order of the parts means nothing.
    let after = monitor();
    assert!(after.restore(&changed(|parts| parts.reverse()), seconds(250)).unwrap());
    assert_eq!(rows(&report(&after, 2, 250).unwrap()), (500, 500));
}

#[test]
fn everything_counted_is_a_change_to_be_saved() {
    let (monitor, other) = (monitor(), compared());
    let mut last = monitor.changes();
    let mut is_changed = || std::mem::replace(&mut last, monitor.changes()) != monitor.changes();
    assert!(!is_changed());
    count(&monitor, None, 1, 10);
    assert!(is_changed());
    count(&monitor, Some(2), 1, 10);
    assert!(is_changed(), "rows of a canary alone");
    count(&monitor, Some(3), 1, 10);
    assert!(is_changed(), "of another one, as many");
    monitor.adopt(&other, seconds(250));
    assert!(is_changed());
    assert!(!is_changed());
}
