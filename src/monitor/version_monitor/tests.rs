//! Counting and reporting.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, TensorSpec},
    monitor::{Check, DriftReport, DriftState, Measures, ProfileBuilder},
};

pub(in crate::monitor) fn numbers(name: &str, values: impl Iterator<Item = i32>) -> Tensor {
    let bytes: Vec<u8> = values.flat_map(|value| (value as f32).to_le_bytes()).collect();
    let shape = Shape::new(vec![i64::try_from(bytes.len() / 4).unwrap()]).unwrap();
    Tensor::plain(name, DataType::Fp32, shape, bytes.into()).unwrap()
}

pub(in crate::monitor) fn words(values: &[&'static str]) -> Tensor {
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
    Tensor::text("s", shape, values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()).unwrap()
}

pub(in crate::monitor) fn monitor() -> VersionMonitor {
    let mut builder = ProfileBuilder::default();
    let inputs = [numbers("x", 0..1000), words(&[["a"; 900].as_slice(), &["b"; 100]].concat())];
    builder.add(&inputs, &[numbers("y", 0..1000)]);
    let spec =
        |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: vec![Dim::Any], optional: false };
    let signature = Signature {
        inputs: vec![spec("x", DataType::Fp32), spec("s", DataType::Bytes)],
        outputs: vec![spec("y", DataType::Fp32)],
    };
    VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default()).unwrap()
}

fn report(monitor: &VersionMonitor, now: u64) -> DriftReport {
    let version = Version::new(1).unwrap();
    monitor.report(&"m".parse().unwrap(), version, Duration::from_mins(5), Duration::from_secs(now))
}

/// As numbers; 9 where there is no verdict.
fn states(report: &DriftReport) -> Vec<u8> {
    report.features.iter().map(|feature| feature.state.as_number().unwrap_or(9)).collect()
}

#[test]
fn report_of_the_reference_itself_is_ok() {
    let monitor = monitor();
    monitor.count(Answered::new(&[numbers("x", 0..1000)], &[numbers("y", 0..1000)]), Duration::ZERO);
    let report = report(&monitor, 0);
    assert_eq!((report.state, report.rows), (DriftState::Ok, 1000));
    let Measures { psi, jensen_shannon, wasserstein, p_value, .. } = report.features[0].measures;
    assert!(psi.unwrap() < 1e-12 && jensen_shannon.unwrap() < 1e-7 && wasserstein.unwrap() < 1e-12);
    assert!((p_value.unwrap() - 1.0).abs() < 1e-12);
}

#[test]
fn absent_tensor_counts_nothing_and_has_no_measures() {
    let monitor = monitor();
    monitor.count(Answered::new(&[numbers("x", 0..10)], &[]), Duration::ZERO);
    let report = report(&monitor, 0);
    let rows: Vec<_> = report.features.iter().map(|feature| feature.rows).collect();
    assert_eq!(rows, [10, 0, 0]);
    assert_eq!(report.features[1].measures, Measures::default());
    assert!(report.features[1].threshold.is_finite());
}

#[test]
fn drift_of_one_feature_is_its_own_and_ends_with_the_window() {
    let monitor = monitor();
    let drifting = [numbers("x", (0..1000).map(|i| i % 300)), words(&[["a"; 90].as_slice(), &["b"; 10]].concat())];
    monitor.count(Answered::new(&drifting, &[numbers("y", 0..1000)]), Duration::from_secs(10));
    let drifted = report(&monitor, 20);
    assert_eq!((drifted.state, states(&drifted)), (DriftState::Drift, vec![2, 9, 0]));
    let feature = &drifted.features[0];
    assert!(feature.measures.psi_corrected.unwrap() > feature.threshold);
    let later = report(&monitor, 400);
    assert_eq!((later.state, later.rows), (DriftState::TooFewRows, 0));
}

#[test]
fn bins_of_a_report_hold_every_row_of_both_sides() {
    let monitor = monitor();
    monitor.count(Answered::new(&[words(&["a", "c", "c", ""]), numbers("x", -2..1)], &[]), Duration::ZERO);
    let report = report(&monitor, 0);
    let bins = |feature: usize| -> Vec<_> {
        let bins = report.features[feature].bins.iter().filter(|bin| bin.live > 0);
        bins.map(|bin| (bin.bin.clone(), bin.reference, bin.live)).collect()
    };
    assert_eq!(bins(0), [("0".into(), 100, 1), ("below".into(), 0, 2)]);
    assert_eq!(bins(1), [("a".into(), 900, 1), ("unseen".into(), 0, 2), ("missing".into(), 0, 1)]);
    assert_eq!((report.features[1].rows, report.features[1].missing), (4, 1));
}

#[test]
fn profile_that_does_not_fit_makes_no_monitor() {
    let mut builder = ProfileBuilder::default();
    builder.add(&[numbers("x", 0..10)], &[]);
    let signature = Signature { inputs: vec![], outputs: vec![] };
    let refused = VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the profile does not fit the model: input 'x' is unknown: the model has none"
    );
}

#[test]
fn canary_is_compared_with_what_the_stable_version_answered_at_the_same_time() {
    let monitor = monitor();
    let second = Version::new(2).unwrap();
    let at_night = [numbers("x", (0..1000).map(|i| i % 300))];
    let by_day = [numbers("x", 0..1000)];
    monitor.count(Answered::new(&at_night, &[]), Duration::from_secs(0));
    for minute in 60..63 {
        let now = Duration::from_mins(minute);
        monitor.count_canary(second, Answered::new(&by_day, &[]), now);
        monitor.count(Answered::new(&by_day, &[]), now);
    }
    let name = "m".parse().unwrap();
    for hours in [1, 24] {
        let now = Duration::from_mins(63);
        let report = monitor.report_of_canary((&name, second), Duration::from_hours(hours), now).unwrap();
        let reference: u64 = report.features[0].bins.iter().map(|bin| bin.reference).sum();
        assert_eq!((report.state, report.rows, reference), (DriftState::Ok, 3000, 3000), "over {hours} h");
    }
}

/// Users one after the other, each with 25 alike rows: first and last number of seconds.
fn send_alike(seconds: std::ops::Range<u64>, mut send: impl FnMut(&[Tensor], Duration)) {
    let mut random = crate::monitor::simulation::Random::new(7);
    for second in seconds.step_by(5) {
        let value = i32::try_from(random.whole() % 1000).unwrap();
        send(&[numbers("x", (0..25).map(|_| value))], Duration::from_secs(second));
    }
}

#[test]
fn users_with_many_alike_rows_are_no_drift_and_the_report_says_what_they_are_worth() {
    let (spread, at_once) = (monitor(), monitor());
    send_alike(1000..1300, |inputs, now| spread.count(Answered::new(inputs, &[]), now));
    send_alike(1000..1300, |inputs, _| at_once.count(Answered::new(inputs, &[]), Duration::from_secs(1299)));
    let [spread_report, at_once_report] = [&spread, &at_once].map(|monitor| report(monitor, 1299));
    let [known, unknown] = [&spread_report, &at_once_report].map(|report| &report.features[0]);
    assert_eq!(known.bins, unknown.bins);
    // How rows that came in a moment depend on one another cannot be told.
    assert_eq!((unknown.state, unknown.design_effect, unknown.effective_rows), (DriftState::Drift, None, None));
    assert_eq!((known.state, known.rows), (DriftState::Ok, 1500));
    let effect = known.design_effect.unwrap();
    assert!((15.0..40.0).contains(&effect), "{effect}");
    assert!((known.effective_rows.unwrap() - 1500.0 / effect).abs() < 1e-9);
    assert!(known.threshold > 5.0 * unknown.threshold, "{} and {}", known.threshold, unknown.threshold);
    // A look sees the same.
    let looked = |monitor: &VersionMonitor| monitor.look(Duration::from_secs(1299)).len();
    // The hour and the day have only begun, but the shorter window tells.
    assert_eq!((looked(&spread), looked(&at_once)), (0, 3));
}

#[test]
fn canary_with_users_of_many_alike_rows_does_not_differ_from_a_stable_version_with_others() {
    let (monitor, second) = (monitor(), Version::new(2).unwrap());
    let independent = [numbers("x", (0..25).map(|i| i * 40))];
    send_alike(1000..1300, |inputs, now| {
        monitor.count_canary(second, Answered::new(inputs, &[]), now);
        monitor.count(Answered::new(&independent, &[]), now);
    });
    let of_other = |now| {
        let now = Duration::from_secs(now);
        monitor.report_of_canary((&"m".parse().unwrap(), second), Duration::from_mins(5), now).unwrap()
    };
    let report = of_other(1299);
    assert_eq!((report.state, report.features[0].rows), (DriftState::Ok, 1500));
    assert!(report.features[0].design_effect.unwrap() > 15.0, "{report:?}");
}

/// A row: a number, a word.
type Row = (i32, &'static str);

fn row() -> impl Strategy<Value = Row> {
    (-200..1200, prop::sample::select(vec!["a", "b", "new", ""]))
}

/// Counts the rows in requests of these sizes, again and again.
fn counted(rows: &[Row], sizes: &[usize]) -> VersionMonitor {
    let monitor = monitor();
    let (mut rest, mut sizes) = (rows, sizes.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().map_or(rest.len(), |size| *size).min(rest.len()));
        let words_now: Vec<_> = now.iter().map(|row| row.1).collect();
        let outputs = [numbers("y", now.iter().map(|row| row.0))];
        let inputs = [numbers("x", now.iter().map(|row| row.0)), words(&words_now)];
        monitor.count(Answered::new(&inputs, &outputs), Duration::from_secs(10));
        rest = later;
    }
    monitor
}

/// The state of the check of `x`.
fn checked(monitor: &VersionMonitor, check: Check) -> Option<DriftState> {
    report(monitor, 10).features[0].quality.of(check).map(|checked| checked.state)
}

#[test]
fn constant_is_one_value_and_not_one_bin() {
    // Values above the range, values of one fine bin (about eight of a thousand), one value.
    let above = numbers("x", 2000..2300);
    let near = {
        let bytes: Vec<u8> = (0..3000_u16).flat_map(|at| (500.0 + f32::from(at) / 10_000.0).to_le_bytes()).collect();
        Tensor::plain("x", DataType::Fp32, Shape::new(vec![3000]).unwrap(), bytes.into()).unwrap()
    };
    let one = numbers("x", (0..300).map(|_| 500));
    for (values, state) in [(above, DriftState::Ok), (near, DriftState::Ok), (one, DriftState::Drift)] {
        let monitor = monitor();
        monitor.count(Answered::new(&[values], &[]), Duration::from_secs(9));
        assert_eq!(checked(&monitor, Check::Constant), Some(state));
        assert_eq!(
            report(&monitor, 10).features[0].state,
            DriftState::Drift,
            "the distribution is another in any case"
        );
    }
}

#[test]
fn value_stands_still_from_the_first_row_of_the_window_on() {
    let monitor = monitor();
    let count = |values: &[i32], at| {
        monitor.count(Answered::new(&[numbers("x", values.iter().copied())], &[]), Duration::from_secs(at));
    };
    count(&[600; 300], 1);
    count(&[500; 300], 6);
    assert_eq!(checked(&monitor, Check::Constant), Some(DriftState::Ok));
    count(&[500; 300], 302);
    let later = |at| {
        let report = monitor.report(&"m".parse().unwrap(), Version::new(1).unwrap(), Duration::from_mins(5), at);
        report.features[0].quality.of(Check::Constant).map(|checked| checked.state)
    };
    assert_eq!(later(Duration::from_secs(304)), Some(DriftState::Drift), "the others have left the window");
    count(&[501], 305);
    assert_eq!(later(Duration::from_secs(305)), Some(DriftState::Ok));
}

#[test]
fn fewer_rows_than_it_takes_are_no_verdict_of_any_kind() {
    for rows in [0, 4, 199] {
        let monitor = monitor();
        let inputs = [numbers("x", (0..rows).map(|_| 5000)), words(&vec!["new"; usize::try_from(rows).unwrap()])];
        monitor.count(Answered::new(&inputs, &[numbers("y", (0..rows).map(|_| 1))]), Duration::from_secs(9));
        let report = report(&monitor, 10);
        assert_eq!((report.state, report.min_rows), (DriftState::TooFewRows, 200));
        for feature in &report.features {
            assert_eq!(feature.state, DriftState::TooFewRows, "{feature:?}");
            assert!(
                feature.quality.checks.iter().all(|checked| checked.state == DriftState::TooFewRows),
                "{feature:?}"
            );
        }
        let telling = monitor.telling_report(&"m".parse().unwrap(), Version::new(1).unwrap(), Duration::from_secs(10));
        assert_eq!(telling.unwrap().window, Duration::from_hours(24), "the longest: none says anything");
    }
}

/// A model with a number and a text that no row of the reference has, and a class that it answers.
fn monitor_of_classes(reference: &[i64]) -> VersionMonitor {
    let mut builder = ProfileBuilder::default();
    let missing = Tensor::plain(
        "x",
        DataType::Fp32,
        Shape::new(vec![i64::try_from(reference.len()).unwrap()]).unwrap(),
        reference.iter().flat_map(|_| f32::NAN.to_le_bytes()).collect::<Vec<_>>().into(),
    );
    builder.add(&[missing.unwrap(), words(&vec![""; reference.len()])], &[classes(reference)]);
    let spec =
        |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: vec![Dim::Any], optional: false };
    let signature = Signature {
        inputs: vec![spec("x", DataType::Fp32), spec("s", DataType::Bytes)],
        outputs: vec![spec("class", DataType::Int64)],
    };
    VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default()).unwrap()
}

fn classes(values: &[i64]) -> Tensor {
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::plain("class", DataType::Int64, shape, bytes.into()).unwrap()
}

/// So many rows in a thousand of class 2, the rest of 0 and 1.
fn with_rare(rows: i64, in_a_thousand: i64) -> Vec<i64> {
    (0..rows).map(|at| if at % 1000 < in_a_thousand { 2 } else { at % 2 }).collect()
}

#[test]
fn predicted_class_that_becomes_twice_as_frequent_is_drift_and_is_named() {
    let monitor = monitor_of_classes(&with_rare(100_000, 2));
    for (now, in_a_thousand, state) in
        [(10, 2, DriftState::Ok), (400, 4, DriftState::Drift), (800, 10, DriftState::Drift)]
    {
        let live = with_rare(100_000, in_a_thousand);
        monitor.count(Answered::new(&[], &[classes(&live)]), Duration::from_secs(now));
        let report = report(&monitor, now);
        let feature = report.features.iter().find(|feature| feature.tensor == "class").unwrap();
        assert_eq!((feature.distribution, feature.state), (DriftState::Ok, state), "{in_a_thousand}");
        let rare = feature.rare_bin.as_ref().map(|rare| (rare.bin.clone(), rare.reference, rare.live));
        let expected = (state == DriftState::Drift).then(|| ("2".into(), 0.002, in_a_thousand as f64 / 1000.0));
        assert_eq!(rare, expected);
    }
}

#[test]
fn class_that_was_never_predicted_is_a_rare_one() {
    let monitor = monitor_of_classes(&with_rare(50_000, 2));
    let mut live = with_rare(100_000, 2);
    live[..200].fill(7);
    monitor.count(Answered::new(&[], &[classes(&live)]), Duration::from_secs(9));
    let report = report(&monitor, 10);
    let feature = report.features.iter().find(|feature| feature.tensor == "class").unwrap();
    let rare = feature.rare_bin.as_ref().unwrap();
    assert_eq!((&*rare.bin, rare.reference, rare.live), ("unseen", 0.0, 0.002));
    assert_eq!(feature.quality.of(Check::Unseen).unwrap().state, DriftState::Ok, "under the floor of a share");
}

#[test]
fn values_in_a_column_that_was_empty_are_told_as_unseen() {
    let monitor = monitor_of_classes(&with_rare(10_000, 2));
    let states = |now| {
        let report = report(&monitor, now);
        let one = |feature: &str| {
            let found = report.features.iter().find(|known| known.feature == feature).unwrap();
            (found.state, found.quality.of(Check::Unseen).unwrap().state)
        };
        [one("x"), one("s")]
    };
    let inputs = |x: f32, s: &'static str| {
        let bytes: Vec<u8> = (0..1000).flat_map(|at| if at < 20 { x } else { f32::NAN }.to_le_bytes()).collect();
        let texts = [vec![s; 20], vec![""; 980]].concat();
        [Tensor::plain("x", DataType::Fp32, Shape::new(vec![1000]).unwrap(), bytes.into()).unwrap(), words(&texts)]
    };
    monitor.count(Answered::new(&inputs(f32::NAN, ""), &[]), Duration::from_secs(9));
    assert_eq!(states(9), [(DriftState::Ok, DriftState::Ok); 2]);
    monitor.count(Answered::new(&inputs(0.0, "a"), &[]), Duration::from_secs(400));
    assert_eq!(states(400), [(DriftState::Drift, DriftState::Drift); 2]);
    // No number and no text is within the contract.
    let violation =
        |x, s| monitor.violation(&inputs(x, s)).map(|violation| (violation.feature.clone(), violation.to_string()));
    let found = violation(0.0, "").unwrap();
    assert_eq!(found.1, "feature 'x' has a value, which it never had in the reference data (row 0, counted from 0)");
    assert_eq!(violation(f32::NAN, "a").unwrap().0, "s");
    assert_eq!(violation(f32::NAN, ""), None);
    // As a reference of another version, what has come has no bins to be in.
    let profile = monitor.live_profile(Duration::from_mins(5), Duration::from_secs(401));
    assert_eq!(profile, None, "no class was answered");
}

proptest! {
    #[test]
    fn counts_depend_neither_on_the_order_of_rows_nor_on_how_requests_split_them(
        (rows, shuffled) in prop::collection::vec(row(), 0..300)
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        sizes in prop::collection::vec(1_usize..50, 1..6),
    ) {
        let (one, many) = (counted(&rows, &[rows.len().max(1)]), counted(&shuffled, &sizes));
        prop_assert_eq!(one.totals(), many.totals());
        prop_assert_eq!(report(&one, 20), report(&many, 20));
        let counted: Vec<_> = report(&many, 20).features.iter().map(|feature| feature.rows).collect();
        prop_assert_eq!(counted, [rows.len() as u64; 3]);
    }

    #[test]
    fn counts_of_two_monitors_add_up_to_those_of_one_that_saw_all(
        rows in prop::collection::vec(row(), 0..300),
        is_left in prop::collection::vec(any::<bool>(), 300),
    ) {
        let side = |left: bool| -> Vec<Row> {
            rows.iter().zip(&is_left).filter(|(_, is_left)| **is_left == left).map(|(row, _)| *row).collect()
        };
        let sides = [true, false].map(|left| counted(&side(left), &[7]));
        let sum: Vec<u64> = sides[0].totals().iter().zip(sides[1].totals()).map(|(one, other)| one + other).collect();
        prop_assert_eq!(sum, counted(&rows, &[13]).totals());
    }
}
