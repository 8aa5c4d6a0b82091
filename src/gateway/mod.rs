//! The life of a request: route → schedule → infer → observe → answer.
//!
//! [`Gateway::infer`] is the one way to a model, behind both doors. It knows neither HTTP nor
//! gRPC, and no step of it counts or logs by itself: the [`Record`] does, once, at the end.

mod classify;

use std::{sync::Arc, time::Duration};

use tracing::info_span;

pub use self::classify::{ClassifyError, classify};
use crate::{
    domain::{
        IndexEntry, InferReply, InferRequest, ModelFacts, ModelName, ModelStatistics, OutputRequest, Protocol,
        RequestFault, RequestId, Role, ServingSettings, ShadowDrop, Signature, Target, Tensor, Version,
        coarse_time_of_day,
    },
    fault::{ErrorCode, Fault},
    lifecycle::Readiness,
    monitor::{Contract, MonitorHandle, Observation, Violation, Watch},
    observe::{self, AsVersionMetrics, Record, VersionMetrics},
    route::{Choice, RouteError, Routes, Servable},
    schedule::{LaneError, Work},
    shadow::{Copied, Shadow},
    telemetry::{Metrics, in_span},
};

/// What a client may know of a model.
#[derive(Debug, Clone)]
pub struct ModelView {
    pub name: ModelName,
    /// The version that the target stands for.
    pub version: Version,
    /// All ready versions, ascending.
    pub versions: Vec<Version>,
    pub signature: Arc<Signature>,
    pub settings: Arc<ServingSettings>,
    pub facts: Arc<ModelFacts>,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Request(#[from] RequestFault),
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error(transparent)]
    Classify(#[from] ClassifyError),
    /// The contract of the model refuses what its reference data never had.
    #[error("{0}")]
    Contract(Violation),
}

impl Fault for InferError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Route(error) => error.code(),
            Self::Request(_) | Self::Classify(_) | Self::Contract(_) => ErrorCode::BadRequest,
            Self::Lane(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Route(error) => error.message(),
            Self::Request(error) => error.to_string(),
            Self::Classify(error) => error.to_string(),
            Self::Contract(violation) => violation.to_string(),
            Self::Lane(error) => error.message(),
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Lane(error) => error.retry_after(),
            other => other.code().retry_after(),
        }
    }
}

/// What the contract of the version finds: an error where it refuses, a violation where it tells.
fn contract(watch: &Watch, inputs: &[Tensor]) -> Result<Option<Violation>, InferError> {
    match watch.violation(inputs) {
        Some((Contract::Reject, violation)) => Err(InferError::Contract(violation)),
        found => Ok(found.map(|(_, violation)| violation)),
    }
}

/// Why the gateway is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    #[error("it is stopping")]
    Stopping,
    #[error("it is loading models")]
    Loading,
    #[error("{} of {released} released models cannot be served: {}", models.len(), some(models))]
    Unserved { models: Vec<ModelName>, released: usize },
}

/// The first few names.
fn some(models: &[ModelName]) -> String {
    const SHOWN: usize = 10;
    let names: Vec<_> = models.iter().take(SHOWN).map(ModelName::as_str).collect();
    let more = if models.len() > SHOWN { format!(" and {} more", models.len() - SHOWN) } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// The data plane behind both doors.
#[derive(Debug)]
pub struct Gateway {
    routes: Routes,
    monitor: MonitorHandle,
    shadow: Shadow,
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

impl AsVersionMetrics for Servable {
    fn version_metrics(&self) -> &VersionMetrics {
        &self.metrics
    }
}

impl Gateway {
    #[must_use]
    pub fn new(
        routes: Routes,
        monitor: MonitorHandle,
        shadow: Shadow,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> Self {
        Self { routes, monitor, shadow, metrics, readiness }
    }

    /// Runs a model.
    ///
    /// # Errors
    /// See [`InferError`]; [`Fault::message`] is fit for the client.
    pub async fn infer(&self, request: InferRequest) -> Result<InferReply, InferError> {
        let mut record = Record::open(&self.metrics, &request.model, request.protocol);
        let (model, id) = (request.model.clone(), request.id.clone());
        let outcome = self.walk(request, &mut record).await;
        if let Err(error) = &outcome {
            if !record.is_routed() {
                self.count_unrouted(model.as_str(), error.code());
            }
            log(error, &record, &model, &id, coarse_time_of_day());
        }
        record.close(outcome.as_ref().map(|_| ()).map_err(Fault::code));
        outcome
    }

    async fn walk(&self, request: InferRequest, record: &mut Record) -> Result<InferReply, InferError> {
        let InferRequest { model, target, id, routing_key, parameters, inputs, outputs, urgency, protocol } = request;
        let route = self.routes.model(model.as_str())?;
        route.permits(&model, &target)?;
        let key = routing_key.as_deref().unwrap_or(id.as_str());
        let Choice { servable, role, shadow } = route.choose(&model, &target, key)?;
        if let Some(compared) = route.compared(&model, role, routing_key.as_deref(), &id) {
            record.compared(compared);
        }
        let stable = (role == Role::Canary).then(|| route.stable_watch()).flatten();
        let stable = stable.filter(|stable| stable.wants_rows());
        drop(route);
        record.routed(Arc::clone(&servable) as Arc<dyn AsVersionMetrics>, role);
        let version = servable.version;
        tracing::Span::current().record("version", version.get());

        let wanted = servable.signature.check(&inputs, &outputs)?;
        let violation = contract(&servable.watch, &inputs)?;
        let work = Work {
            inputs: Arc::clone(&inputs),
            outputs: wanted,
            priority: urgency.priority,
            deadline: urgency.deadline.or_else(|| servable.default_deadline()),
            is_background: false,
        };
        let run = info_span!("run", model = %model, version = version.get(), role = role.as_str());
        let executed = in_span!(run, servable.lane.execute(work));
        if let (Err(_), Some(shadow)) = (&executed, &shadow) {
            shadow.metrics.shadow_dropped(ShadowDrop::NotAnswered);
        }
        let executed = executed?;

        record.executed(&inputs, &executed);
        servable.recent.offer(&inputs);
        let produced = Arc::clone(&executed.outputs);
        if let Some(shadow) = shadow {
            let (model, inputs, outputs) = (model.clone(), Arc::clone(&inputs), Arc::clone(&produced));
            let inference = executed.inference;
            self.shadow.offer(Copied { model, shadow, live: version, protocol, inputs, outputs, inference });
        }
        self.watch(&servable, stable.as_ref(), &parameters, &inputs, &produced);
        let outputs = answered(produced, &outputs, &servable.facts)?;
        Ok(InferReply { model, version, id, outputs, violation: violation.map(|violation| violation.to_string()) })
    }

    fn watch(
        &self,
        servable: &Servable,
        stable: Option<&Arc<Watch>>,
        parameters: &[(Arc<str>, String)],
        inputs: &Arc<[Tensor]>,
        outputs: &Arc<[Tensor]>,
    ) {
        if servable.watch.wants_rows() || stable.is_some() {
            let (watch, version) = (&servable.watch, servable.version);
            self.monitor.offer(Observation { watch, stable, version, inputs, outputs, parameters });
        }
    }

    /// Counts a request that a door refused before it could become an [`InferRequest`]
    /// (malformed, too large). `model` is what the client named, checked here for existence.
    pub fn refuse(&self, model: Option<&str>, protocol: Protocol, code: ErrorCode) {
        let known = model.filter(|name| self.routes.knows(name));
        observe::refused(&self.metrics, known, protocol, code);
        if let Some(name) = known {
            self.count_unrouted(name, code);
        }
    }

    /// Counts a request for a model that failed before it reached a version. A version that does not exist is no
    /// failure of the model.
    fn count_unrouted(&self, model: &str, code: ErrorCode) {
        if code != ErrorCode::NotFound
            && let Ok(route) = self.routes.model(model)
        {
            route.unrouted.failed(code);
        }
    }

    /// The signature and versions of a model, for metadata.
    ///
    /// # Errors
    /// When the model or the version is unknown, or not ready.
    pub fn model(&self, name: &ModelName, target: &Target) -> Result<ModelView, InferError> {
        let route = self.routes.model(name.as_str())?;
        let servable = match target {
            // Metadata is about the stable version, whatever a canary would draw.
            Target::Release => {
                let stable = route.release.stable.ok_or_else(|| RouteError::NothingReady(name.clone()))?;
                route.choose(name, &Target::Version(stable), "")?.servable
            }
            named => route.choose(name, named, "")?.servable,
        };
        Ok(ModelView {
            name: name.clone(),
            version: servable.version,
            versions: route.versions.keys().copied().collect(),
            signature: Arc::clone(&servable.signature),
            settings: Arc::clone(&servable.settings),
            facts: Arc::clone(&servable.facts),
        })
    }

    /// Whether a request for this model would be taken now, asked before its body is read.
    ///
    /// # Errors
    /// When the model or the version is unknown or not ready, or its queue is full.
    pub fn accepts(&self, name: &ModelName, target: &Target) -> Result<(), InferError> {
        let route = self.routes.model(name.as_str())?;
        route.permits(name, target)?;
        // The request's key is in its body: a canary may be meant, but stable takes most.
        let choice = route.choose(name, target, "")?;
        Ok(choice.servable.lane.accepts(0)?)
    }

    /// What the versions did: of one model, or of all. A version that is named must be ready.
    ///
    /// # Errors
    /// When the model or the version is unknown, or not ready.
    pub fn statistics(&self, name: Option<&ModelName>, target: &Target) -> Result<Vec<ModelStatistics>, InferError> {
        let routes = match name {
            Some(name) => vec![self.routes.model(name.as_str())?],
            None => self.routes.snapshot().models.values().cloned().collect(),
        };
        let mut all = Vec::new();
        for route in routes {
            match (name, target) {
                (Some(name), named @ (Target::Version(_) | Target::Label(_))) => {
                    all.push(route.choose(name, named, "")?.servable.metrics.statistics());
                }
                _ => all.extend(route.versions.values().map(|servable| servable.metrics.statistics())),
            }
        }
        all.sort_by(|left, right| (&left.model, left.version).cmp(&(&right.model, right.version)));
        Ok(all)
    }

    /// All versions that are known, by model and version.
    #[must_use]
    pub fn index(&self) -> Vec<IndexEntry> {
        let table = self.routes.snapshot();
        let entries = table.models.iter().flat_map(|(name, route)| {
            let ready = route.versions.keys().map(|version| (*version, true));
            let others = route.not_ready.iter().map(|version| (*version, false));
            ready.chain(others).map(|(version, is_ready)| IndexEntry { model: name.clone(), version, is_ready })
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by(|left, right| (&left.model, left.version).cmp(&(&right.model, right.version)));
        entries
    }

    /// True when the gateway should get traffic: the first loads are done, enough of the released models serve, and it is
    /// not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// Why the gateway should get no traffic; `None`: it should.
    #[must_use]
    pub fn unready(&self) -> Option<Unready> {
        if !self.readiness.is_going() {
            return Some(Unready::Stopping);
        }
        let table = self.routes.snapshot();
        if !table.complete {
            return Some(Unready::Loading);
        }
        let (unserved, released) = table.unserved();
        let models = || unserved.iter().map(|name| (*name).clone()).collect();
        (!self.readiness.suffices(unserved.len(), released)).then(|| Unready::Unserved { models: models(), released })
    }
}

/// The outputs as the client wants them: those with classes in place of their values.
fn answered(
    produced: Arc<[Tensor]>,
    wanted: &[OutputRequest],
    facts: &ModelFacts,
) -> Result<Arc<[Tensor]>, ClassifyError> {
    if wanted.iter().all(|output| output.classes.is_none()) {
        return Ok(produced);
    }
    let one = |(tensor, wanted): (&Tensor, &OutputRequest)| match wanted.classes {
        Some(classes) => classify(tensor, classes, facts.labels.of(tensor.name())),
        None => Ok(tensor.clone()),
    };
    produced.iter().zip(wanted).map(one).collect()
}

/// A run that failed goes to the log, whoever is at fault: an operator must be able to tell a version that refuses good
/// input from a client that sends bad input. Lines are bounded, since clients cause them. What is refused before a run is
/// the client's own.
fn log(error: &InferError, record: &Record, model: &ModelName, id: &RequestId, now: Duration) {
    let code = error.code();
    let has_run = matches!(error, InferError::Lane(LaneError::Engine(_)));
    if !has_run && code != ErrorCode::Internal {
        tracing::debug!(%model, %id, %error, code = code.label(), "request refused");
        return;
    }
    let Some((version, left_out)) = record.admit_line(now) else { return };
    let version = version.map(Version::get);
    match code {
        ErrorCode::Internal => tracing::error!(%model, version, %id, %error, left_out, "request failed"),
        code => {
            tracing::warn!(%model, version, %id, %error, code = code.label(), left_out, "the model refused a request");
        }
    }
}
