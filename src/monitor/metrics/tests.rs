//! Tests of the metrics: their form, and that the recording rules give our PSI.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use prometheus::{Encoder, Registry, TextEncoder};

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec, Version},
    monitor::{
        Answered, ColumnNames, ColumnTypes, Learning, LearningOptions, Monitor, MonitorSettings, ProfileBuilder,
        VersionMonitor, Watch, service::tests::Observed,
    },
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
    registry_of(service, Watch::with(Some(Arc::clone(monitor))))
}

fn registry_of(service: &Monitor, watch: Watch) -> Registry {
    let versions = vec![("loan".parse().unwrap(), Version::new(3).unwrap(), Arc::new(watch))];
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

const NOW: Duration = Duration::from_secs(100);

fn service() -> Monitor {
    Monitor::start(Arc::new(|| NOW), 0).unwrap()
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
fn version_that_learns_has_its_progress_and_nothing_else() {
    let mut learning = Learning::new(LearningOptions {
        length: Duration::from_hours(1),
        model_identity: String::new(),
        names: ColumnNames::new(),
        types: ColumnTypes::default(),
        signature: Arc::new(Signature { inputs: vec![], outputs: vec![] }),
        settings: MonitorSettings::default(),
        keep: Box::new(|_| true),
    });
    learning.add(Answered::new(&[numbers((0..30).map(|i| i as f32))], &[]), Duration::from_secs(70));
    let text = scraped(&registry_of(&service(), Watch::learning(learning)));
    let samples: Vec<_> = text.lines().filter(|line| line.contains("loan")).collect();
    let of_version = r#"{model="loan",version="3"}"#;
    let expected = [
        format!("tidegate_monitor_learning_remaining_rows{of_version} 170"),
        format!("tidegate_monitor_learning_remaining_seconds{of_version} 3570"),
        format!("tidegate_monitor_learning_rows{of_version} 30"),
    ];
    assert_eq!(samples, expected);
    let watched = scraped(&registry(&service(), &monitor()));
    assert!(!watched.contains("tidegate_monitor_learning"), "{watched}");
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
        assert!(service.handle().settle(Duration::from_mins(1)));
        monitor.look(NOW);
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
fn scrape_has_the_counters_as_they_are_and_what_the_last_look_found() {
    let (service, monitor) = (service(), monitor());
    let registry = registry(&service, &monitor);
    let of_x = |families: &[MetricFamily], name: &str, by: &str, value: &str| {
        values(families, name, by).get(&("x".into(), value.into())).map(|(number, _)| *number)
    };
    let rows = |families: &[MetricFamily]| of_x(families, "tidegate_feature_observations_total", "window", "");
    let state = |families: &[MetricFamily]| of_x(families, "tidegate_drift_state", "window", "5m");
    Observed::of(Arc::clone(&monitor), vec![numbers((0..400).map(|_| 1.0))].into()).offer_to(&service.handle());
    for _ in 0..2 {
        let before = registry.gather();
        assert_eq!((rows(&before), state(&before)), (Some(400.0), Some(0.0)));
        assert!(!before.iter().any(|family| family.name() == "tidegate_drift_score"), "a scrape computes nothing");
    }
    monitor.look(NOW);
    let after = registry.gather();
    assert_eq!((rows(&after), state(&after)), (Some(400.0), Some(2.0)));
    let [score, threshold] = [("tidegate_drift_score", "psi_corrected"), ("tidegate_drift_threshold", "")]
        .map(|(name, measure)| of_x(&after, name, "measure", measure).unwrap());
    assert!(score > threshold, "the state is that of the numbers: {score} over {threshold}");
    // The time goes on, and no look comes.
    monitor.count(Answered::new(&[numbers((0..1000).map(|i| i as f32))], &[]), NOW + Duration::from_hours(1));
    let later = registry.gather();
    let score_later = of_x(&later, "tidegate_drift_score", "measure", "psi_corrected");
    assert_eq!((rows(&later), score_later, state(&later)), (Some(1400.0), Some(score), Some(2.0)));
}

#[test]
fn window_label_is_the_shortest() {
    let label = |seconds| window_label(Duration::from_secs(seconds));
    assert_eq!([label(300), label(3600), label(90), label(86_400), label(0)], ["5m", "1h", "90s", "1d", "0ms"]);
    assert_eq!(window_label(Duration::from_millis(250)), "250ms");
}
