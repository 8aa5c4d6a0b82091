//! Tests of the metrics: their form, and that the recording rules give our PSI.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prometheus::{Encoder, Registry, TextEncoder};

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec},
    monitor::{Monitor, MonitorSettings, ProfileBuilder, service::tests::Observed},
};

fn numbers(values: impl Iterator<Item = f32>) -> Tensor {
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let shape = Shape::new(vec![i64::try_from(bytes.len() / 4).unwrap()]).unwrap();
    Tensor::plain("x", DataType::Fp32, shape, bytes.into()).unwrap()
}

fn texts(name: &str, values: &[&'static str]) -> Tensor {
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap(), 1]).unwrap();
    let elements = values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
    Tensor::text(name, shape, elements).unwrap()
}

const LONG: &str = "a text that is longer than the 128 bytes that a category may have, since each category is the value \
    of a label of a time series, and those are short";

fn monitor() -> Arc<VersionMonitor> {
    let mut builder = ProfileBuilder::default();
    // Half of the numbers are one value: equal edges merge. One text is too long for a category.
    let x = numbers((0..1000).map(|i| (i as f32 - 500.0).max(0.0)));
    let s = texts("s", &[vec!["a"; 300], vec!["b"; 200], vec!["unseen"; 90], vec![""; 10]].concat());
    let o = texts("o", &[vec!["other"; 300], vec!["\"quoted\"\n"; 200], vec![LONG; 10]].concat());
    builder.add(&[x, s, o], &[]);
    let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
        optional: false,
    };
    let column = [Dim::Any, Dim::Fixed(1)];
    let inputs = vec![
        spec("x", DataType::Fp32, &[Dim::Any]),
        spec("s", DataType::Bytes, &column),
        spec("o", DataType::Bytes, &column),
    ];
    let signature = Signature { inputs, outputs: vec![] };
    let settings = MonitorSettings::default();
    Arc::new(VersionMonitor::new(builder.finish().profile, &signature, &settings).unwrap())
}

fn registry(service: &Monitor, monitor: &Arc<VersionMonitor>) -> Registry {
    let versions = vec![("loan".parse().unwrap(), Version::new(3).unwrap(), Arc::clone(monitor))];
    let clock: Clock = Arc::new(|| Duration::from_secs(100));
    let registry = Registry::new();
    let collector =
        MonitorCollector::new(service.handle(), clock, ExportSettings::default(), move || versions.clone()).unwrap();
    registry.register(Box::new(collector)).unwrap();
    registry
}

fn scraped(registry: &Registry) -> String {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn service() -> Monitor {
    Monitor::start(Arc::new(|| Duration::from_secs(100)), 0).unwrap()
}

#[test]
fn every_bin_is_there_at_zero_from_the_start() {
    let text = scraped(&registry(&service(), &monitor()));
    for line in [
        r#"tidegate_feature_bin_total{bin="0",feature="x",model="loan",tensor="x",version="3"} 0"#,
        r#"tidegate_feature_bin_total{bin="below",feature="x",model="loan",tensor="x",version="3"} 0"#,
        r#"tidegate_feature_bin_total{bin="nonfinite",feature="x",model="loan",tensor="x",version="3"} 0"#,
        r#"tidegate_feature_bin_total{bin="=unseen",feature="s",model="loan",tensor="s",version="3"} 0"#,
        r#"tidegate_feature_bin_total{bin="unseen",feature="s",model="loan",tensor="s",version="3"} 0"#,
        r#"tidegate_feature_bin_total{bin="\"quoted\"\n",feature="o",model="loan",tensor="o",version="3"} 0"#,
        r#"tidegate_feature_out_of_range_total{feature="x",model="loan",tensor="x",version="3"} 0"#,
        r#"tidegate_feature_unseen_category_total{feature="s",model="loan",tensor="s",version="3"} 0"#,
        r#"tidegate_reference_bin_ratio{bin="below",feature="x",model="loan",psi_bin="0",tensor="x",version="3"} 0"#,
        r#"tidegate_drift_state{feature="x",model="loan",tensor="x",version="3",window="5m"} 0"#,
        r#"tidegate_drift_state{feature="x",model="loan",tensor="x",version="3",window="1h"} 0"#,
        "tidegate_monitor_dropped_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("tidegate_drift_score"), "nothing was seen");
}

#[test]
fn no_series_is_given_twice_and_every_family_keeps_its_labels() {
    let families = registry(&service(), &monitor()).gather();
    for family in &families {
        let labels = FAMILIES.iter().find(|(_, name, ..)| *name == family.name()).unwrap().4;
        let mut series = BTreeSet::new();
        for metric in family.get_metric() {
            let names: BTreeSet<_> = metric.get_label().iter().map(LabelPair::name).collect();
            assert_eq!(names, labels.iter().copied().collect(), "{}", family.name());
            assert!(series.insert(format!("{:?}", metric.get_label())), "{} has {metric:?} twice", family.name());
        }
    }
}

#[test]
fn reference_ratios_of_a_feature_add_up_to_one() {
    for feature in monitor().features() {
        let known = reference_ratios(feature).into_iter().filter(|(_, psi_bin, _)| psi_bin != "unseen");
        let sum: f64 = known.map(|(.., ratio)| ratio).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{}: {sum}", feature.profile.feature);
    }
}

/// Values of a family by feature and one more label.
fn values(families: &[MetricFamily], name: &str, by: &str) -> BTreeMap<(String, String), (f64, String)> {
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let metrics = family.get_metric().iter();
    metrics
        .filter(|metric| metric.get_label().iter().all(|label| label.name() != "window" || label.value() == "5m"))
        .map(|metric| {
            let value = |name: &str| {
                let found = metric.get_label().iter().find(|label| label.name() == name);
                found.map_or(String::new(), |label| label.value().to_owned())
            };
            // A metric has one of the two; the other reads 0.
            let number = metric.get_counter().value() + metric.get_gauge().value();
            ((value("feature"), value(by)), (number, value("psi_bin")))
        })
        .collect()
}

/// The recording rules of the module's documentation, step by step.
fn psi_by_rules(families: &[MetricFamily], feature: &str) -> f64 {
    let (mut increase, mut reference) = (BTreeMap::<String, f64>::new(), BTreeMap::<String, f64>::new());
    let counters = values(families, "tidegate_feature_bin_total", "bin");
    for ((name, bin), (ratio, psi_bin)) in values(families, "tidegate_reference_bin_ratio", "bin") {
        if name == feature {
            *increase.entry(psi_bin.clone()).or_default() += counters[&(name, bin)].0;
            let p = reference.entry(psi_bin).or_default();
            *p = p.max(ratio);
        }
    }
    increase.retain(|psi_bin, rows| psi_bin != "unseen" || *rows > 0.0);
    let total: f64 = increase.values().map(|rows| rows + 0.5).sum();
    increase
        .iter()
        .map(|(psi_bin, rows)| ((rows + 0.5) / total, reference[psi_bin]))
        .map(|(q, p)| (q - p) * (q / p).ln())
        .sum()
}

#[test]
fn recording_rules_over_the_counters_give_the_psi_of_the_report() {
    let (service, monitor) = (service(), monitor());
    let registry = registry(&service, &monitor);
    let offer = |inputs: Vec<Tensor>| {
        Observed::of(Arc::clone(&monitor), inputs.into()).offer_to(&service.handle());
    };
    offer(vec![
        numbers((0..400).map(|i| (i * 2) as f32 - 100.0)),
        texts("s", &[vec!["a"; 100], vec!["b"; 200], vec![""; 7]].concat()),
        texts("o", &[vec!["other"; 100], vec![LONG; 20]].concat()),
    ]);
    let close = |families: &[MetricFamily], feature: &str, tolerance: f64| {
        let psi = values(families, "tidegate_drift_score", "measure")[&(feature.into(), "psi".into())].0;
        let by_rules = psi_by_rules(families, feature);
        assert!(psi > 0.01 && (by_rules / psi - 1.0).abs() < tolerance, "{feature}: {by_rules} for {psi}");
    };
    let families = registry.gather();
    for feature in ["x", "s", "o"] {
        close(&families, feature, 1e-12);
    }
    // A value that the reference has not: `unseen` becomes a bin.
    offer(vec![texts("s", &["new"; 30]), texts("o", &["new"; 30])]);
    for feature in ["s", "o"] {
        close(&registry.gather(), feature, 1e-3);
    }
}

#[test]
fn window_label_is_the_shortest() {
    let label = |seconds| window_label(Duration::from_secs(seconds));
    assert_eq!([label(300), label(3600), label(90), label(86_400), label(0)], ["5m", "1h", "90s", "1d", "0ms"]);
    assert_eq!(window_label(Duration::from_millis(250)), "250ms");
}
