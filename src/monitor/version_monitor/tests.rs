//! Counting and reporting.

use bytes::Bytes;

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, TensorSpec},
    monitor::{Measures, ProfileBuilder},
};

fn numbers(name: &str, values: impl Iterator<Item = i32>) -> Tensor {
    let bytes: Vec<u8> = values.flat_map(|value| (value as f32).to_le_bytes()).collect();
    let shape = Shape::new(vec![i64::try_from(bytes.len() / 4).unwrap()]).unwrap();
    Tensor::plain(name, DataType::Fp32, shape, bytes.into()).unwrap()
}

fn words(values: &[&'static str]) -> Tensor {
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
    Tensor::text("s", shape, values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()).unwrap()
}

fn monitor() -> VersionMonitor {
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

fn states(report: &DriftReport) -> Vec<u8> {
    report.features.iter().map(|feature| feature.state.as_number()).collect()
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
    assert_eq!((drifted.state, states(&drifted)), (DriftState::Drift, vec![2, 0, 0]));
    let feature = &drifted.features[0];
    assert!(feature.measures.psi_corrected.unwrap() > feature.threshold);
    let later = report(&monitor, 400);
    assert_eq!((later.state, later.rows), (DriftState::Ok, 0));
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
