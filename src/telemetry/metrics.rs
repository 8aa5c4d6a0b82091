//! The metric families of the request path and of the releases, registered once.
//!
//! The families of the monitor and of the registry are collected at scrape time by those rooms.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};

use crate::fault::ErrorCode;

/// Upper bounds in seconds. The smallest tells a tree ensemble from an echo; the largest is
/// 10 s, beyond which a request is an incident, not a measurement.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds of loading times: 10 ms to 5 min.
const LOAD_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Upper bounds of rows per run.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// All families that are counted as things happen.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests that named a known model, by outcome. `version` and `role` are empty where the
    /// request reached no version; `code` is `ok` or the error.
    pub requests: IntCounterVec,
    /// From the request's arrival in the gateway to its answer.
    pub request_duration: HistogramVec,
    /// The request's duration less queue and inference: what the gateway itself costs.
    pub overhead_duration: HistogramVec,
    pub inference_duration: HistogramVec,
    pub queue_duration: HistogramVec,
    /// Rows of the first input, per run.
    pub batch_size: HistogramVec,
    pub inflight: IntGaugeVec,
    /// Requests refused before a model ran, by reason.
    pub rejected: IntCounterVec,
    /// Copies that a shadow did not run or that could not be compared, by reason.
    pub shadow_dropped: IntCounterVec,
    /// Rows of the shadow's outputs that were compared, and those of the same class.
    pub shadow_compared_rows: IntCounterVec,
    pub shadow_agreed_rows: IntCounterVec,
    pub load_duration: HistogramVec,
    pub release_operations: IntCounterVec,
    /// Of a change of a release, from its acceptance to the published table, less the durable write.
    pub publish_duration: Histogram,
    build_info: IntGaugeVec,
}

impl Metrics {
    /// # Panics
    /// Never: the names below are distinct and valid, which a test confirms.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let rejected = counter(&registry, "rejected_total", "Requests refused before a model ran.", &["reason"]);
        for code in ErrorCode::ALL {
            // There from the start: `increase` does not see the event that a series is born with.
            rejected.with_label_values(&[code.label()]);
        }
        let by_version: &[&str] = &["model", "version"];
        let by_protocol: &[&str] = &["model", "version", "protocol"];
        Self {
            requests: counter(
                &registry,
                "requests_total",
                "Requests by outcome: code is ok or the error.",
                &["model", "version", "role", "protocol", "code"],
            ),
            request_duration: histogram(
                &registry,
                "request_duration_seconds",
                "Time from the request's arrival to its answer.",
                by_protocol,
                SECONDS,
            ),
            overhead_duration: histogram(
                &registry,
                "overhead_duration_seconds",
                "Time of a request outside queue and model.",
                by_protocol,
                SECONDS,
            ),
            inference_duration: histogram(
                &registry,
                "inference_duration_seconds",
                "Time of one run of the model.",
                by_version,
                SECONDS,
            ),
            queue_duration: histogram(
                &registry,
                "queue_duration_seconds",
                "Time that requests waited for the model.",
                by_version,
                SECONDS,
            ),
            batch_size: histogram(&registry, "batch_size", "Rows per run of the model.", by_version, ROWS),
            inflight: gauge(&registry, "inflight_requests", "Requests being answered.", by_version),
            rejected,
            shadow_dropped: counter(
                &registry,
                "shadow_dropped_total",
                "Copies that a shadow version did not run, or that could not be compared.",
                &["model", "version", "reason"],
            ),
            shadow_compared_rows: counter(
                &registry,
                "shadow_compared_rows_total",
                "Rows whose class was compared between the shadow and the answer.",
                &["model", "version", "output"],
            ),
            shadow_agreed_rows: counter(
                &registry,
                "shadow_agreed_rows_total",
                "Rows for which the shadow and the answer have the same class.",
                &["model", "version", "output"],
            ),
            load_duration: histogram(
                &registry,
                "model_load_duration_seconds",
                "Time to admit, load and warm a version.",
                by_version,
                LOAD_SECONDS,
            ),
            release_operations: counter(
                &registry,
                "release_operations_total",
                "Operations on releases: outcome is ok, refused or failed.",
                &["model", "operation", "outcome"],
            ),
            publish_duration: histogram(
                &registry,
                "release_publish_duration_seconds",
                "Time of a release change until requests follow it, the durable write excluded.",
                &[],
                SECONDS,
            )
            .with_label_values(NO_LABELS),
            build_info: gauge(
                &registry,
                "build_info",
                "1; the labels say what is running.",
                &["version", "onnxruntime"],
            ),
            registry,
        }
    }

    /// Says what is running.
    pub fn set_build_info(&self, version: &str, onnxruntime: &str) {
        self.build_info.with_label_values(&[version, onnxruntime]).set(1);
    }

    /// Adds families that are collected at scrape time.
    ///
    /// # Panics
    /// When a family of that name exists already: a bug that the first scrape would show.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.registry.register(collector).expect("collectors have distinct families, named in one place each");
    }

    /// All families as they are now.
    #[must_use]
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const NO_LABELS: &[&str] = &[];
const VALID: &str = "the name and the labels are valid and used once";

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(format!("tidegate_{name}"), help), labels).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(format!("tidegate_{name}"), help), labels).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(format!("tidegate_{name}"), help).buckets(buckets.to_vec());
    let family = HistogramVec::new(options, labels).expect(VALID);
    registry.register(Box::new(family.clone())).expect(VALID);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_registered_once_with_the_prefix() {
        let metrics = Metrics::new();
        metrics.rejected.with_label_values(&["bad_request"]).inc();
        let families = metrics.gather();
        assert!(families.iter().all(|family| family.name().starts_with("tidegate_")));
        assert!(families.iter().any(|family| family.name() == "tidegate_rejected_total"));
    }
}
