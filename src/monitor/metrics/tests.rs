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
        r#"tidegate_drift_rows{feature="x",model="loan",tensor="x",version="3",window="5m"} 0"#,
        r#"tidegate_drift_rows{feature="x",model="loan",tensor="x",version="3",window="1h"} 0"#,
        r#"tidegate_drift_min_rows{model="loan",version="3"} 200"#,
        "tidegate_monitor_dropped_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for family in ["tidegate_drift_score{", "tidegate_drift_state{", "tidegate_feature_quality_state{"] {
        assert!(!text.contains(family), "{family}: nothing was seen, so there is no verdict");
    }
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
    let family = families.iter().filter(|family| family.name() == name);
    let metrics = family.flat_map(MetricFamily::get_metric);
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
        assert_eq!((rows(&before), state(&before)), (Some(400.0), None));
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

/// Counters of one scrape, by name and labels, for all series of counters.
fn counters(registry: &Registry) -> BTreeMap<String, f64> {
    let families = registry.gather();
    let counters = families.iter().filter(|family| family.get_field_type() == MetricType::COUNTER);
    let series = |family: &MetricFamily| -> Vec<(String, f64)> {
        let labels = |metric: &Metric| -> Vec<String> {
            metric.get_label().iter().map(|pair| format!("{}={}", pair.name(), pair.value())).collect()
        };
        let of =
            |metric: &Metric| (format!("{} {}", family.name(), labels(metric).join(",")), metric.get_counter().value());
        family.get_metric().iter().map(of).collect()
    };
    counters.flat_map(series).collect()
}

/// A collector whose version may be loaded anew.
struct Loaded {
    registry: Registry,
    watch: Arc<std::sync::Mutex<Option<Arc<Watch>>>>,
}

impl Loaded {
    fn new(service: &Monitor) -> Self {
        let watch = Arc::new(std::sync::Mutex::new(None::<Arc<Watch>>));
        let versions = {
            let watch = Arc::clone(&watch);
            move || -> Vec<Watched> {
                let watch = watch.lock().unwrap().clone();
                watch.map(|watch| ("loan".parse().unwrap(), Version::new(3).unwrap(), watch)).into_iter().collect()
            }
        };
        let clock: Clock = Arc::new(|| NOW);
        let registry = Registry::new();
        let collector = MonitorCollector::new(service.handle(), clock, ExportSettings::default(), versions).unwrap();
        registry.register(Box::new(collector)).unwrap();
        Self { registry, watch }
    }

    fn load(&self, monitor: Option<&Arc<VersionMonitor>>) {
        *self.watch.lock().unwrap() = monitor.map(|monitor| Arc::new(Watch::with(Some(Arc::clone(monitor)))));
    }

    fn observations(&self) -> f64 {
        let found = counters(&self.registry);
        let name = "tidegate_feature_observations_total feature=x,model=loan,tensor=x,version=3";
        *found.get(name).unwrap_or_else(|| panic!("{name} in {found:?}"))
    }
}

fn count(monitor: &VersionMonitor, rows: usize) {
    let (x, s) = (numbers((0..rows).map(|i| i as f32)), texts("s", &vec!["a"; rows]));
    monitor.count(Answered::new(&[x, s], &[]), NOW);
}

#[test]
fn restored_counts_are_not_shown_as_new_and_windows_have_them() {
    let service = service();
    let before = monitor();
    count(&before, 1000);
    let saved = before.save().unwrap();
    // Counted and scraped, and lost by the crash.
    count(&before, 7);
    let loaded = Loaded::new(&service);
    loaded.load(Some(&before));
    assert!((loaded.observations() - 1007.0).abs() < 1e-9);

    let after = monitor();
    assert!(after.restore(&saved, NOW).unwrap());
    let restarted = Loaded::new(&service);
    restarted.load(Some(&after));
    assert!(counters(&restarted.registry).values().all(|value| value.abs() < 1e-9), "a new process begins at 0");
    count(&after, 20);
    assert!((restarted.observations() - 20.0).abs() < 1e-9);
    let report = after.report(&"loan".parse().unwrap(), Version::new(3).unwrap(), Duration::from_mins(5), NOW);
    assert_eq!(report.features[0].rows, 1020, "the window has all rows");
}

#[test]
fn counters_go_on_over_a_reload_whatever_was_saved_and_never_fall() {
    let service = service();
    let loaded = Loaded::new(&service);
    let first = monitor();
    loaded.load(Some(&first));
    count(&first, 100);
    let mut last = counters(&loaded.registry);
    let mut never_falls = |loaded: &Loaded, what: &str| {
        let now = counters(&loaded.registry);
        for (series, value) in &now {
            assert!(last.get(series).is_none_or(|before| before <= value), "{series} falls {what}");
        }
        last = now;
    };
    // Counted after the last scrape, then saved, then counted by the one that goes.
    count(&first, 10);
    let second = monitor();
    second.adopt(&first, NOW);
    count(&first, 3);
    never_falls(&loaded, "by a row that came late");
    assert!((loaded.observations() - 113.0).abs() < 1e-9);
    loaded.load(Some(&second));
    never_falls(&loaded, "by a reload");
    assert!((loaded.observations() - 113.0).abs() < 1e-9);
    count(&second, 5);
    assert!((loaded.observations() - 118.0).abs() < 1e-9);

    // Unloaded, and loaded from the file.
    let saved = second.save().unwrap();
    loaded.load(None);
    assert!(!counters(&loaded.registry).keys().any(|series| series.contains("feature=x")));
    let third = monitor();
    third.restore(&saved, NOW).unwrap();
    count(&third, 2);
    loaded.load(Some(&third));
    never_falls(&loaded, "by unloading and loading");
    assert!((loaded.observations() - 120.0).abs() < 1e-9);

    // A file that is older than what was shown, or none.
    let fourth = monitor();
    loaded.load(Some(&fourth));
    never_falls(&loaded, "by a file that is lost");
    count(&fourth, 1);
    assert!((loaded.observations() - 121.0).abs() < 1e-9);
}

#[test]
fn another_profile_begins_at_nothing() {
    let service = service();
    let loaded = Loaded::new(&service);
    let first = monitor();
    loaded.load(Some(&first));
    count(&first, 100);
    assert!((loaded.observations() - 100.0).abs() < 1e-9);
    let mut builder = ProfileBuilder::default();
    builder.add(&[numbers((0..500).map(|i| i as f32))], &[]);
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![Dim::Any], optional: false };
    let signature = Signature { inputs: vec![spec], outputs: vec![] };
    let other =
        VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default()).map(Arc::new).unwrap();
    assert!(!other.restore(&first.save().unwrap(), NOW).unwrap());
    loaded.load(Some(&other));
    assert!(loaded.observations().abs() < 1e-9);
    // And back.
    let again = monitor();
    again.adopt(&first, NOW);
    loaded.load(Some(&again));
    assert!(loaded.observations().abs() < 1e-9);
}

#[test]
fn violations_go_on_over_a_reload() {
    let service = service();
    let loaded = Loaded::new(&service);
    let violations =
        |loaded: &Loaded| counters(&loaded.registry)["tidegate_contract_violations_total model=loan,version=3"];
    let first = monitor();
    loaded.load(Some(&first));
    let bad = [texts("s", &["never"])];
    let violate =
        |monitor: &VersionMonitor, times: usize| (0..times).for_each(|_| assert!(monitor.violation(&bad).is_some()));
    violate(&first, 3);
    assert!((violations(&loaded) - 3.0).abs() < 1e-9);
    let second = monitor();
    second.adopt(&first, NOW);
    violate(&first, 1);
    assert!((violations(&loaded) - 4.0).abs() < 1e-9);
    loaded.load(Some(&second));
    assert!((violations(&loaded) - 4.0).abs() < 1e-9, "not 3");
    violate(&second, 1);
    assert!((violations(&loaded) - 5.0).abs() < 1e-9);
}
