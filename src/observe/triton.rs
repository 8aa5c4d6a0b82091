//! The totals of versions as Triton names them, `nv_inference_…`, for dashboards that were made for it.
//!
//! Names, labels and meaning follow Triton's page on metrics; times are whole microseconds.

use std::{collections::HashMap, sync::Arc};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{AsVersionMetrics, VersionMetrics};
use crate::{
    domain::{ModelStatistics, Tally},
    telemetry::{Sample, counter_family, gauge_family},
};

/// A version that serves, and the requests that wait for it.
pub type Serving = (Arc<dyn AsVersionMetrics>, usize);

/// A counter by version: its name, what it says, and where it is found.
type Counter = (&'static str, &'static str, fn(&ModelStatistics) -> u64);

const COUNTERS: [Counter; 8] = [
    ("nv_inference_request_success", "Number of successful inference requests, all batch sizes", |of| of.success.count),
    ("nv_inference_count", "Number of inferences performed (does not include cached requests)", |of| {
        of.inference_count
    }),
    ("nv_inference_exec_count", "Number of model executions performed (does not include cached requests)", |of| {
        of.execution_count
    }),
    ("nv_inference_request_duration_us", "Cumulative inference request duration in microseconds", |of| {
        micros(of.success)
    }),
    ("nv_inference_queue_duration_us", "Cumulative inference queuing duration in microseconds", |of| micros(of.queue)),
    ("nv_inference_compute_input_duration_us", "Cumulative compute input duration in microseconds", |of| {
        micros(of.compute_input)
    }),
    ("nv_inference_compute_infer_duration_us", "Cumulative compute inference duration in microseconds", |of| {
        micros(of.compute_infer)
    }),
    ("nv_inference_compute_output_duration_us", "Cumulative compute output duration in microseconds", |of| {
        micros(of.compute_output)
    }),
];
const FAILURES: (&str, &str) = ("nv_inference_request_failure", "Number of failed inference requests, by reason");
const PENDING: (&str, &str) =
    ("nv_inference_pending_request_count", "Number of requests that wait for a run of the model");

fn micros(tally: Tally) -> u64 {
    u64::try_from(tally.time.as_micros()).unwrap_or(u64::MAX)
}

/// Reads the totals at scrape time: a version's series are there, at 0, from its load on, and gone with it.
pub struct TritonCollector {
    serving: Box<dyn Fn() -> Vec<Serving> + Send + Sync>,
    descriptions: Vec<Desc>,
}

impl TritonCollector {
    /// `serving` says which versions serve now.
    ///
    /// # Errors
    /// None in fact: the names and labels are valid.
    pub fn new(serving: impl Fn() -> Vec<Serving> + Send + Sync + 'static) -> prometheus::Result<Self> {
        let describe = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.into(), help.into(), labels, HashMap::new())
        };
        let by_version = ["model", "version"];
        let mut descriptions =
            COUNTERS.iter().map(|(name, help, _)| describe(name, help, &by_version)).collect::<Result<Vec<_>, _>>()?;
        descriptions.push(describe(FAILURES.0, FAILURES.1, &["model", "version", "reason"])?);
        descriptions.push(describe(PENDING.0, PENDING.1, &by_version)?);
        Ok(Self { serving: Box::new(serving), descriptions })
    }
}

impl Collector for TritonCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let serving = (self.serving)();
        let versions: Vec<_> = serving.iter().map(|(version, waiting)| (version.version_metrics(), waiting)).collect();
        if versions.is_empty() {
            return Vec::new();
        }
        let statistics: Vec<_> = versions.iter().map(|(version, _)| (*version, version.statistics())).collect();
        let counter = |&(name, help, read): &Counter| {
            let sample = |(version, of): &(&VersionMetrics, ModelStatistics)| (labels(version), read(of) as f64);
            counter_family(name, help, statistics.iter().map(sample))
        };
        let failures = versions.iter().flat_map(|(version, _)| failures(version));
        let pending = versions.iter().map(|(version, waiting)| (labels(version), **waiting as f64));
        let mut families: Vec<_> = COUNTERS.iter().map(counter).collect();
        families.push(counter_family(FAILURES.0, FAILURES.1, failures));
        families.push(gauge_family(PENDING.0, PENDING.1, pending));
        families
    }
}

fn labels(version: &VersionMetrics) -> Vec<(&'static str, String)> {
    vec![("model", version.model.to_string()), ("version", version.version.to_string())]
}

fn failures(version: &VersionMetrics) -> impl Iterator<Item = Sample> {
    version.totals.failures().map(|(failure, count)| {
        let mut labels = labels(version);
        labels.push(("reason", failure.triton().to_owned()));
        (labels, count as f64)
    })
}
