//! Metric families made at scrape time, from state that lives elsewhere.

use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One sample: its labels and its value.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A gauge family. Samples keep their order.
#[must_use]
pub fn gauge_family(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics: Vec<Metric> = samples.into_iter().map(|(labels, value)| metric(labels, value)).collect();
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(metrics);
    family
}

fn metric(labels: Vec<(&'static str, String)>, value: f64) -> Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.into());
        pair.set_value(value);
        pair
    });
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs.collect());
    metric.set_gauge(gauge);
    metric
}
