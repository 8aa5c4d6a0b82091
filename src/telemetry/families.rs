//! Metric families made at scrape time, from state that lives elsewhere.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One sample: its labels and its value.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A gauge family. Samples keep their order.
#[must_use]
pub fn gauge_family(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let set = |metric: &mut Metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    };
    family(MetricType::GAUGE, name, help, samples.into_iter().map(|sample| metric(sample, set)).collect())
}

/// A counter family. Samples keep their order.
#[must_use]
pub fn counter_family(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let set = |metric: &mut Metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    };
    family(MetricType::COUNTER, name, help, samples.into_iter().map(|sample| metric(sample, set)).collect())
}

fn family(kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn metric((labels, value): Sample, set: impl Fn(&mut Metric, f64)) -> Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.into());
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    set(&mut metric, value);
    metric
}
