//! The registry's state as metrics, collected at scrape time.

use std::sync::{Arc, Weak};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    Registry, Shared,
    status::{ModelStatus, VersionState},
};
use crate::{
    domain::{ModelName, Role},
    release::Release,
    rollout::{Rollout, Status},
    telemetry::{Sample, gauge_family},
};

/// Holds the registry weakly: metrics must not keep it alive.
pub(super) struct RegistryCollector {
    shared: Weak<Shared>,
    descriptions: Vec<Desc>,
}

const STATE: (&str, &str) = ("tidegate_model_state", "1 for the state that a version is in, 0 for the others.");
const MEMORY: (&str, &str) =
    ("tidegate_model_memory_bytes", "Bytes of a loaded version's model files, held in memory at least once.");
const GENERATION: (&str, &str) = ("tidegate_release_generation", "Changes made to a model's release so far.");
const TRAFFIC: (&str, &str) = ("tidegate_traffic_percent", "Share of unpinned requests that a version gets, by role.");
const STOPPED: (&str, &str) = (
    "tidegate_batching_stopped",
    "1 when a joined run of a loaded version has shown that its requests must run alone: they are not joined any more.",
);

const SERVED: (&str, &str) =
    ("tidegate_model_served", "1 when the stable version of a model that has one serves, 0 when it does not.");
const CHANGED: (&str, &str) = (
    "tidegate_model_files_changed",
    "1 while the files of a version are not those that serve or were released, 0 otherwise.",
);
const WRITABLE: (&str, &str) =
    ("tidegate_state_writable", "1 when releases can be changed, 0 when the state cannot be written.");
const FREE: (&str, &str) = ("tidegate_state_free_bytes", "Bytes that may still be written to the disk of the state.");
const RESERVE: (&str, &str) = ("tidegate_state_reserve_bytes", "Bytes that are held back for changes on a full disk.");

const ROLLOUT: (&str, &str) =
    ("tidegate_rollout_state", "1 for the state that a model's last rollout is in, 0 for the others.");
const EVIDENCE: (&str, &str) = (
    "tidegate_rollout_evidence",
    "Evidence that the version differs, by metric, while a rollout goes on; combined: what is compared with the limit.",
);
const LIMIT: (&str, &str) =
    ("tidegate_rollout_evidence_limit", "The combined evidence at which the version is rolled back: 1/alpha.");

impl RegistryCollector {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let describe = |(name, help): (&str, &str), names: &[&str]| {
            Desc::new(name.into(), help.into(), labels(names), std::collections::HashMap::new())
                .expect("the name and the labels are valid")
        };
        let descriptions = vec![
            describe(STATE, &["model", "version", "state"]),
            describe(MEMORY, &["model", "version"]),
            describe(GENERATION, &["model"]),
            describe(TRAFFIC, &["model", "version", "role"]),
            describe(SERVED, &["model"]),
            describe(CHANGED, &["model", "version"]),
            describe(WRITABLE, &[]),
            describe(FREE, &[]),
            describe(RESERVE, &[]),
            describe(STOPPED, &["model", "version"]),
            describe(ROLLOUT, &["model", "version", "state"]),
            describe(EVIDENCE, &["model", "version", "metric"]),
            describe(LIMIT, &["model", "version"]),
        ];
        Self { shared: Arc::downgrade(&registry.shared), descriptions }
    }
}

impl Collector for RegistryCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let registry = Registry { shared };
        let (models, rollouts) = (registry.models(), registry.rollouts());
        let going = || rollouts.iter().filter(|(_, rollout)| rollout.status.is_active());
        let disk = registry.state_disk();
        let one = |value: f64| vec![(Vec::new(), value)];
        let families = [
            (SERVED, models.iter().filter_map(served).collect()),
            (CHANGED, models.iter().flat_map(changed).collect()),
            (WRITABLE, one(f64::from(u8::from(disk.fault().is_none())))),
            (FREE, disk.free_bytes().map(|bytes| one(bytes as f64)).unwrap_or_default()),
            (RESERVE, one(disk.reserve_bytes() as f64)),
            (STATE, models.iter().flat_map(states).collect::<Vec<_>>()),
            (MEMORY, models.iter().flat_map(memory).collect()),
            (GENERATION, models.iter().map(generation).collect()),
            (TRAFFIC, models.iter().flat_map(|model| traffic(model.name.as_str(), &model.release)).collect()),
            (STOPPED, models.iter().flat_map(stopped).collect()),
            (ROLLOUT, rollouts.iter().flat_map(rollout_states).collect()),
            (EVIDENCE, going().flat_map(evidence).collect()),
            (LIMIT, going().map(limit).collect()),
        ];
        let filled = families.into_iter().filter(|(_, samples)| !samples.is_empty());
        filled.map(|((name, help), samples)| gauge_family(name, help, samples)).collect()
    }
}

fn states(model: &ModelStatus) -> Vec<Sample> {
    let one = |version: &super::VersionStatus, state: VersionState| {
        let labels = vec![
            ("model", model.name.to_string()),
            ("version", version.version.to_string()),
            ("state", state.as_str().to_owned()),
        ];
        (labels, f64::from(u8::from(version.state == state)))
    };
    model.versions.iter().flat_map(|version| VersionState::ALL.map(|state| one(version, state))).collect()
}

fn served(model: &ModelStatus) -> Option<Sample> {
    let stable = model.release.stable?;
    let is_served = model.versions.iter().any(|known| known.version == stable && known.state == VersionState::Ready);
    Some((vec![("model", model.name.to_string())], f64::from(u8::from(is_served))))
}

fn changed(model: &ModelStatus) -> Vec<Sample> {
    let one = |version: &super::VersionStatus| {
        let labels = vec![("model", model.name.to_string()), ("version", version.version.to_string())];
        (labels, f64::from(u8::from(version.files_changed)))
    };
    model.versions.iter().map(one).collect()
}

fn memory(model: &ModelStatus) -> Vec<Sample> {
    let versions = model.versions.iter().filter_map(|version| Some((version.version, version.memory_bytes?)));
    versions
        .map(|(version, bytes)| {
            (vec![("model", model.name.to_string()), ("version", version.to_string())], bytes as f64)
        })
        .collect()
}

fn stopped(model: &ModelStatus) -> Vec<Sample> {
    let lanes = model.versions.iter().filter_map(|version| Some((version.version, version.lane.as_ref()?)));
    lanes
        .map(|(version, lane)| {
            let labels = vec![("model", model.name.to_string()), ("version", version.to_string())];
            (labels, f64::from(u8::from(lane.is_merging_stopped)))
        })
        .collect()
}

fn generation(model: &ModelStatus) -> Sample {
    (vec![("model", model.name.to_string())], model.release.generation as f64)
}

/// The labels of a rollout, and one more.
fn labels((model, rollout): &(ModelName, Rollout), more: Option<(&'static str, &str)>) -> Vec<(&'static str, String)> {
    let mut labels = vec![("model", model.to_string()), ("version", rollout.plan.version.to_string())];
    labels.extend(more.map(|(name, value)| (name, value.to_owned())));
    labels
}

fn rollout_states(rollout: &(ModelName, Rollout)) -> Vec<Sample> {
    let one = |status: Status| {
        (labels(rollout, Some(("state", status.as_str()))), f64::from(u8::from(rollout.1.status == status)))
    };
    Status::ALL.map(one).to_vec()
}

fn evidence(rollout: &(ModelName, Rollout)) -> Vec<Sample> {
    let findings = rollout.1.findings();
    let each = findings.each.iter().map(|finding| (finding.metric.as_str(), finding.log_evidence));
    let all = each.chain([("combined", findings.log_combined)]);
    all.map(|(metric, log)| (labels(rollout, Some(("metric", metric))), log.exp())).collect()
}

fn limit(rollout: &(ModelName, Rollout)) -> Sample {
    (labels(rollout, None), 1.0 / rollout.1.plan.alpha)
}

fn traffic(model: &str, release: &Release) -> Vec<Sample> {
    let canary = release.canary.map_or(0.0, |split| split.percent.get());
    let stable = release.stable.map(|version| (version, Role::Stable, 100.0 - canary));
    let canary = release.canary.map(|split| (split.version, Role::Canary, split.percent.get()));
    let shadow = release.shadow.map(|split| (split.version, Role::Shadow, split.percent.get()));
    [stable, canary, shadow]
        .into_iter()
        .flatten()
        .map(|(version, role, percent)| {
            let labels =
                vec![("model", model.to_owned()), ("version", version.to_string()), ("role", role.as_str().to_owned())];
            (labels, percent)
        })
        .collect()
}
