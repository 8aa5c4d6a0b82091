//! What is recorded of each request, once, on every way out.
//!
//! A [`Record`] is opened when a request arrives and closed with its outcome; nothing on the
//! way counts by itself. A record dropped without [`Record::close`] means that the caller went
//! away, and is counted as `cancelled`.

mod answer;
mod comparison;
mod recent;
mod totals;
mod traffic;
mod triton;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::totals::Failure;
pub use self::{
    answer::{Reading, score_column},
    comparison::{Arm, Compared, Comparison},
    recent::{RecentBudget, RecentRequests},
    traffic::{Counts, Outcomes, Recent, Traffic, TrafficReport},
    triton::{Serving, TritonCollector},
};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::{
    domain::{ModelName, ModelStatistics, Protocol, Role, ShadowDrop, Tensor, Version},
    fault::ErrorCode,
    schedule::Executed,
    telemetry::{LogLimit, Metrics},
};

/// The handles of one version's metrics, resolved once at load: the request path looks nothing up.
#[derive(Debug)]
pub struct VersionMetrics {
    model: ModelName,
    version: Version,
    /// By [`Role`], then [`Protocol`], each in the order of its `ALL`.
    answered: Vec<Vec<IntCounter>>,
    request_duration: Vec<Histogram>,
    overhead_duration: Vec<Histogram>,
    inference_duration: Histogram,
    queue_duration: Histogram,
    batch_size: Histogram,
    inflight: IntGauge,
    /// By [`ShadowDrop`], in the order of its `ALL`.
    shadow_dropped: Vec<IntCounter>,
    shadow_compared_rows: IntCounterVec,
    shadow_agreed_rows: IntCounterVec,
    totals: totals::Totals,
    /// Requests that got no outputs, over all loads of the version.
    outcomes: Arc<Outcomes>,
    /// Of the lines about requests that the model refused or failed on.
    log_limit: LogLimit,
}

/// The requests that a version answered since the process started: all loads of it count into the same series.
#[derive(Debug, Clone, Default)]
pub struct Answered(Vec<IntCounter>);

impl Answered {
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.iter().map(IntCounter::get).sum()
    }
}

impl VersionMetrics {
    #[must_use]
    pub fn new(metrics: &Metrics, model: &ModelName, version: Version) -> Self {
        let text = version.to_string();
        let labels = [model.as_str(), &text];
        let answered = |role: Role, protocol: Protocol| {
            let labels = [model.as_str(), &text, role.as_str(), protocol.as_str(), OK];
            metrics.requests.with_label_values(&labels)
        };
        let by_protocol = |family: &prometheus::HistogramVec| {
            let one = |protocol: Protocol| family.with_label_values(&[model.as_str(), &text, protocol.as_str()]);
            Protocol::ALL.map(one).to_vec()
        };
        Self {
            model: model.clone(),
            version,
            answered: Role::ALL.map(|role| Protocol::ALL.map(|protocol| answered(role, protocol)).to_vec()).to_vec(),
            request_duration: by_protocol(&metrics.request_duration),
            overhead_duration: by_protocol(&metrics.overhead_duration),
            inference_duration: metrics.inference_duration.with_label_values(&labels),
            queue_duration: metrics.queue_duration.with_label_values(&labels),
            batch_size: metrics.batch_size.with_label_values(&labels),
            inflight: metrics.inflight.with_label_values(&labels),
            shadow_dropped: ShadowDrop::ALL
                .map(|reason| metrics.shadow_dropped.with_label_values(&[labels[0], labels[1], reason.as_str()]))
                .to_vec(),
            shadow_compared_rows: metrics.shadow_compared_rows.clone(),
            shadow_agreed_rows: metrics.shadow_agreed_rows.clone(),
            totals: totals::Totals::new(),
            outcomes: Arc::default(),
            log_limit: LogLimit::new(),
        }
    }

    /// Counts requests without outputs in what earlier loads of the version counted them in.
    #[must_use]
    pub fn with_outcomes(self, outcomes: Arc<Outcomes>) -> Self {
        Self { outcomes, ..self }
    }

    /// Where the requests of clients are counted: copies that it ran as shadow are not in it.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let of_clients = self.answered.iter().enumerate().filter(|(role, _)| *role != Role::Shadow as usize);
        let answered = of_clients.flat_map(|(_, counters)| counters).cloned().collect();
        Traffic::new(answered, self.request_duration.clone())
    }

    /// What this version did for clients since it was loaded: copies that it ran as shadow are not in it.
    #[must_use]
    pub fn statistics(&self) -> ModelStatistics {
        self.totals.statistics(&self.model, self.version)
    }

    fn executed(&self, executed: &Executed) {
        self.queue_duration.observe(executed.queue.as_secs_f64());
        if executed.is_first_of_run {
            self.inference_duration.observe(executed.inference.as_secs_f64());
            self.batch_size.observe(executed.run_rows as f64);
        }
    }

    /// What counts the requests that this version answered, in any role.
    #[must_use]
    pub fn answered(&self) -> Answered {
        Answered(self.answered.iter().flatten().cloned().collect())
    }

    /// Counts a copy of a request that this version ran as shadow. No client asked for it: it is none of the
    /// protocol's statistics, or all of a model's would be twice what clients see.
    pub fn shadowed(&self, metrics: &Metrics, protocol: Protocol, outcome: Result<&Executed, ErrorCode>) {
        self.count(metrics, Role::Shadow, protocol, outcome.map(|_| ()));
        if let Ok(executed) = outcome {
            self.executed(executed);
        }
    }

    /// Counts a copy that this version did not run as shadow, or that could not be compared.
    pub fn shadow_dropped(&self, reason: ShadowDrop) {
        self.shadow_dropped[reason as usize].inc();
    }

    /// Counts rows of an output that were compared with those of the answer, and those of the same class.
    pub fn shadow_compared(&self, output: &str, rows: u64, agreed: u64) {
        let labels = [self.model.as_str(), &self.version.to_string(), output];
        self.shadow_compared_rows.with_label_values(&labels).inc_by(rows);
        self.shadow_agreed_rows.with_label_values(&labels).inc_by(agreed);
    }

    /// Copies that this version dropped as shadow, by reason.
    pub fn shadow_drops(&self) -> impl Iterator<Item = (ShadowDrop, u64)> {
        ShadowDrop::ALL.into_iter().zip(self.shadow_dropped.iter().map(IntCounter::get))
    }

    fn count(&self, metrics: &Metrics, role: Role, protocol: Protocol, outcome: Result<(), ErrorCode>) {
        match outcome {
            Ok(()) => self.answered[role as usize][protocol as usize].inc(),
            Err(code) => count(metrics, self.model.as_str(), Some((self.version, role)), protocol, code.label()),
        }
    }
}

/// The value of the label `code` for an answered request.
const OK: &str = "ok";
/// The value of the label `code` for a request whose caller went away.
const CANCELLED: &str = "cancelled";

/// Counts a request that got no outputs.
fn count(metrics: &Metrics, model: &str, version: Option<(Version, Role)>, protocol: Protocol, code: &str) {
    let number = version.map(|(version, _)| version.to_string()).unwrap_or_default();
    let role = version.map_or("", |(_, role)| role.as_str());
    metrics.requests.with_label_values(&[model, &number, role, protocol.as_str(), code]).inc();
}

/// The rows of a request: of its first input.
#[must_use]
pub fn rows(inputs: &[Tensor]) -> usize {
    inputs.first().map_or(1, |input| input.shape().rows())
}

/// Counts a request that a door refused. `model` is given only when it exists: what clients
/// invent must not become label values.
pub fn refused(metrics: &Metrics, model: Option<&str>, protocol: Protocol, code: ErrorCode) {
    metrics.rejected.with_label_values(&[code.label()]).inc();
    if let Some(model) = model {
        count(metrics, model, None, protocol, code.label());
    }
}

/// The version that a request went to.
#[derive(Debug)]
struct Routed {
    metrics: Arc<dyn AsVersionMetrics>,
    role: Role,
}

/// Something that keeps a version's metrics alive for as long as a request needs them.
pub trait AsVersionMetrics: Send + Sync + std::fmt::Debug {
    fn version_metrics(&self) -> &VersionMetrics;
}

/// The record of one request.
#[derive(Debug)]
pub struct Record {
    metrics: Arc<Metrics>,
    model: ModelName,
    protocol: Protocol,
    started: Instant,
    routed: Option<Routed>,
    /// What the request is to the rollout that goes on.
    compared: Option<Compared>,
    /// Queue and inference time, once the model ran.
    ran: Option<Duration>,
    is_closed: bool,
}

impl Record {
    #[must_use]
    pub fn open(metrics: &Arc<Metrics>, model: &ModelName, protocol: Protocol) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            model: model.clone(),
            protocol,
            started: Instant::now(),
            routed: None,
            compared: None,
            ran: None,
            is_closed: false,
        }
    }

    /// The request goes to this version.
    pub fn routed(&mut self, version: Arc<dyn AsVersionMetrics>, role: Role) {
        version.version_metrics().inflight.inc();
        self.routed = Some(Routed { metrics: version, role });
    }

    /// A rollout goes on, and the request counts in it.
    pub fn compared(&mut self, compared: Compared) {
        self.compared = Some(compared);
    }

    /// The version that the request went to, and whether a line about it may be written at `now`: then the number of
    /// lines that were left out before.
    #[must_use]
    pub fn admit_line(&self, now: Duration) -> Option<(Option<Version>, u64)> {
        let Some(routed) = &self.routed else { return Some((None, 0)) };
        let metrics = routed.metrics.version_metrics();
        Some((Some(metrics.version), metrics.log_limit.admit(now)?))
    }

    /// False when it reached no version.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.routed.is_some()
    }

    /// The model ran.
    pub fn executed(&mut self, inputs: &[Tensor], executed: &Executed) {
        let ran = executed.queue + executed.inference;
        self.ran = Some(ran);
        if let Some(compared) = &self.compared {
            compared.executed(&executed.outputs, ran);
        }
        if let Some(routed) = &self.routed {
            let metrics = routed.metrics.version_metrics();
            metrics.totals.executed(rows(inputs), executed);
            metrics.executed(executed);
        }
    }

    /// The request is over.
    pub fn close(mut self, outcome: Result<(), ErrorCode>) {
        self.is_closed = true;
        let protocol = self.protocol;
        if let Some(compared) = &self.compared {
            compared.ended(Some(outcome));
        }
        if let Err(code) = outcome
            && self.ran.is_none()
            && code != ErrorCode::Internal
        {
            self.metrics.rejected.with_label_values(&[code.label()]).inc();
        }
        let Some(routed) = &self.routed else {
            // An unknown model is no label value: the rejection above is all that is kept.
            if let Err(code) = outcome
                && code != ErrorCode::NotFound
            {
                count(&self.metrics, self.model.as_str(), None, protocol, code.label());
            }
            return;
        };
        let metrics = routed.metrics.version_metrics();
        metrics.count(&self.metrics, routed.role, protocol, outcome);
        if let Err(code) = outcome {
            metrics.outcomes.failed(code);
        }
        let total = self.started.elapsed();
        metrics.totals.ended(outcome.map_err(Failure::of), total);
        metrics.request_duration[protocol as usize].observe(total.as_secs_f64());
        if let Some(ran) = self.ran {
            metrics.overhead_duration[protocol as usize].observe(total.saturating_sub(ran).as_secs_f64());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(routed) = &self.routed {
            let metrics = routed.metrics.version_metrics();
            metrics.inflight.dec();
            if !self.is_closed {
                if let Some(compared) = &self.compared {
                    compared.ended(None);
                }
                metrics.totals.ended(Err(Failure::Cancelled), self.started.elapsed());
                metrics.outcomes.cancelled();
                let version = Some((metrics.version, routed.role));
                count(&self.metrics, self.model.as_str(), version, self.protocol, CANCELLED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AsVersionMetrics for VersionMetrics {
        fn version_metrics(&self) -> &VersionMetrics {
            self
        }
    }

    fn rig() -> (Arc<Metrics>, ModelName, Arc<VersionMetrics>) {
        let metrics = Arc::new(Metrics::new());
        let model: ModelName = "m".parse().unwrap();
        let version = Arc::new(VersionMetrics::new(&metrics, &model, Version::new(1).unwrap()));
        (metrics, model, version)
    }

    fn requests(metrics: &Metrics, labels: [&str; 5]) -> u64 {
        metrics.requests.with_label_values(&labels).get()
    }

    #[test]
    fn answered_request_is_counted_once_by_version_role_and_protocol() {
        let (metrics, model, version) = rig();
        let mut record = Record::open(&metrics, &model, Protocol::Grpc);
        record.routed(Arc::clone(&version) as _, Role::Canary);
        assert_eq!(version.inflight.get(), 1);
        let executed = Executed { inference: Duration::from_millis(1), ..Executed::default() };
        record.executed(&[], &executed);
        record.close(Ok(()));
        assert_eq!(requests(&metrics, ["m", "1", "canary", "grpc", "ok"]), 1);
        assert_eq!((version.inflight.get(), version.answered().requests()), (0, 1));
        assert_eq!(version.request_duration[Protocol::Grpc as usize].get_sample_count(), 1);
        assert_eq!(version.overhead_duration[Protocol::Grpc as usize].get_sample_count(), 1);
    }

    #[test]
    fn dropped_record_is_a_cancelled_request() {
        let (metrics, model, version) = rig();
        let mut record = Record::open(&metrics, &model, Protocol::Http);
        record.routed(Arc::clone(&version) as _, Role::Stable);
        drop(record);
        assert_eq!(requests(&metrics, ["m", "1", "stable", "http", "cancelled"]), 1);
        assert_eq!(version.statistics().fail.count, 1);
        assert_eq!(version.inflight.get(), 0);
    }

    #[test]
    fn copy_that_is_run_as_shadow_is_counted_in_its_role_and_not_in_the_statistics() {
        let (metrics, _, version) = rig();
        let executed = Executed { run_rows: 3, is_first_of_run: true, ..Executed::default() };
        version.shadowed(&metrics, Protocol::Http, Ok(&executed));
        version.shadowed(&metrics, Protocol::Http, Err(ErrorCode::Internal));
        assert_eq!(requests(&metrics, ["m", "1", "shadow", "http", "ok"]), 1);
        assert_eq!(version.inference_duration.get_sample_count(), 1);
        let idle = VersionMetrics::new(&metrics, &version.model, version.version).statistics();
        assert_eq!(version.statistics(), idle);
    }

    #[test]
    fn unknown_model_is_rejected_without_a_label_of_its_own() {
        let (metrics, _, _) = rig();
        Record::open(&metrics, &"invented".parse().unwrap(), Protocol::Http).close(Err(ErrorCode::NotFound));
        assert_eq!(metrics.rejected.with_label_values(&["not_found"]).get(), 1);
        let families = metrics.gather();
        let requests = families.iter().find(|family| family.name() == "tidegate_requests_total").unwrap();
        let invented = |label: &prometheus::proto::LabelPair| label.value() == "invented";
        assert!(!requests.get_metric().iter().any(|metric| metric.get_label().iter().any(invented)));
    }
}
