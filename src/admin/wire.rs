//! The JSON of the admin API: what REST answers and takes, and what the command line reads.
//!
//! These types mirror the domain on purpose: a rename inside must not change the contract.

mod admission;
mod body;
mod drift;
mod event;
mod history;
mod learning;
mod rollout;
mod self_test;
mod shadow;
mod traffic;

pub use admission::{AdmissionStep, admission};
pub use body::{
    LogChangeBody, ReasonBody, RepositoryIndexBody, RepositoryModelBody, RollbackBody, SplitBody, VersionBody,
};
pub use drift::{Bin, Checked, DriftReport, Feature, Measures, Quality, RareBin};
pub use event::{Event, Missed};
pub use history::{Broken, Head, History, HistoryEntry, Verification};
pub use learning::Learning;
pub use rollout::{Arms, Evidence, Limits, MetricEvidence, RolloutBody, RolloutStatus};
pub use self_test::{DriftSelfTest, FeatureSelfTest, FoundShift};
pub use shadow::{Comparison, OutputComparison};
pub use traffic::{RecentTraffic, Traffic, Unrouted};

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    domain,
    independence::{BatchAxis, Verdict},
    registry::{self, VersionState},
    release,
    schedule::LaneStatus,
};

/// A percentage, which prints as `10` and not `10.0` when it is whole.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Share(pub f64);

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && (0.0..=100.0).contains(&self.0) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, from 0 to 100")]
            serializer.serialize_u8(self.0 as u8)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Split {
    pub version: u64,
    pub percent: Share,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    pub generation: u64,
    pub stable: Option<u64>,
    pub previous: Option<u64>,
    pub canary: Option<Split>,
    pub shadow: Option<Split>,
    pub labels: BTreeMap<String, u64>,
    /// Versions that somebody has rolled back from: none is the target of a rollback that names no version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_back: Vec<u64>,
    /// What should be known of the change that this is the answer to; only there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionStatus {
    pub version: u64,
    pub state: String,
    pub reason: Option<String>,
    pub digest: Option<String>,
    pub memory_bytes: Option<u64>,
    /// RFC 3339, UTC.
    pub loaded_at: Option<String>,
    pub requests: u64,
    /// Clients' requests by outcome; absent from gateways that do not tell.
    #[serde(default)]
    pub traffic: Traffic,
    pub monitored: bool,
    /// How far its profile is learnt; absent where it learns none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
    /// The share of unpinned requests that the release gives this version; absent for the
    /// versions that it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_percent: Option<Share>,
    /// How its runs happen; absent for versions that are not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Runs>,
    /// Copies that it did not run as shadow or that could not be compared, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shadow_dropped: BTreeMap<String, u64>,
    /// It serves what was loaded, and its files on disk are others by now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_changed: bool,
    /// The model that was released and the one that is there now, where nobody has accepted that yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<ChangedFiles>,
    /// How its last admission went; empty when there was none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admission: Vec<AdmissionStep>,
}

/// Another model than the released one lies under a version's number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedFiles {
    /// The digest of what was released: `sha256:` and hex digits, of the model and its weights.
    pub released: String,
    /// The digest of what is on disk.
    pub found: String,
}

/// How the runs of a version happen, as measured now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    /// `request`: cheap, on the thread of the request; `pool`: on the threads kept for runs.
    pub placement: String,
    /// Of one row.
    pub run_seconds: f64,
    /// Of a row in the best batch.
    pub row_seconds: f64,
    /// Rows that may run together; 1 when requests run alone.
    pub max_batch_rows: u64,
    pub max_delay_seconds: f64,
    /// Runs that may happen at the same time.
    pub instances: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// Why requests run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    /// A joined run has shown that requests must run alone: they are not joined any more. `alone` says what it showed.
    #[serde(default)]
    pub batching_stopped: bool,
    /// What the model's graph says of its rows.
    #[serde(default)]
    pub independence: Independence,
}

/// Whether no row of an answer depends on another row of the run, as the model's graph says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Independence {
    /// `independent`: proven. `dependent`: requests are never joined. `unknown`: they are joined only where the model's own
    /// configuration asks for it and a trial agrees.
    pub outcome: String,
    /// Why it is not proven: the operator, its node, and what it does to rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Where the rows of each input and output lie, where it is proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<RowAxis>,
    /// What does not speak against the proof and should be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The axis along which the rows of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowAxis {
    /// `input` or `output`.
    pub role: String,
    pub tensor: String,
    pub axis: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelStatus {
    pub model: String,
    pub release: Release,
    pub versions: Vec<VersionStatus>,
    /// Requests that failed before they reached a version, since the process started; absent where there were none.
    #[serde(default, skip_serializing_if = "Unrouted::is_none")]
    pub unrouted: Unrouted,
    /// How the shadow version compares with the version that answers; absent until copies were run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What somebody should do something about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was meant to be a version of it, and is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misplaced: Vec<Misplaced>,
}

/// Files of the repository that no version is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Misplaced {
    /// Within the repository, such as `fraud/v2`.
    pub path: String,
    /// `failed`.
    pub state: String,
    /// Why it is not served, and what to do.
    pub reason: String,
}

impl From<&registry::Misplaced> for Misplaced {
    fn from(misplaced: &registry::Misplaced) -> Self {
        let (path, reason) = (misplaced.path.clone(), misplaced.reason.clone());
        Self { path, state: VersionState::Failed.as_str().to_owned(), reason }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    pub models: Vec<ModelStatus>,
    /// What concerns all of them, such as a state that cannot be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An error, on every plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    pub error: String,
}

/// An entry of Triton's repository index. Triton writes versions as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RepositoryEntry {
    pub name: String,
    pub version: String,
    /// Triton's words: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: String,
    pub reason: String,
}

impl From<release::Split> for Split {
    fn from(split: release::Split) -> Self {
        Self { version: split.version.get(), percent: Share(split.percent.get()) }
    }
}

impl From<&release::Release> for Release {
    fn from(release: &release::Release) -> Self {
        Self {
            generation: release.generation,
            stable: release.stable.map(domain::Version::get),
            previous: release.previous.map(domain::Version::get),
            canary: release.canary.map(Split::from),
            shadow: release.shadow.map(Split::from),
            labels: release.labels.iter().map(|(label, version)| (label.to_string(), version.get())).collect(),
            rolled_back: release.rolled_back.iter().map(|version| version.get()).collect(),
            warnings: Vec::new(),
        }
    }
}

impl From<&registry::Changed> for Release {
    fn from(changed: &registry::Changed) -> Self {
        Self { warnings: changed.warnings.clone(), ..Self::from(&changed.release) }
    }
}

impl From<&registry::VersionStatus> for VersionStatus {
    fn from(status: &registry::VersionStatus) -> Self {
        Self {
            version: status.version.get(),
            state: status.state.as_str().to_owned(),
            reason: status.reason.clone(),
            digest: status.digest.clone(),
            memory_bytes: status.memory_bytes,
            loaded_at: status.loaded_at.map(timestamp),
            requests: status.requests,
            traffic: Traffic::from(&status.traffic),
            monitored: status.monitored,
            learning: status.learning.as_ref().map(Learning::from),
            traffic_percent: None,
            runs: status.lane.as_ref().map(Runs::from),
            shadow_dropped: status
                .shadow_dropped
                .iter()
                .map(|(why, copies)| (why.as_str().to_owned(), *copies))
                .collect(),
            files_changed: status.files_changed,
            changed: status
                .changed
                .as_ref()
                .map(|changed| ChangedFiles { released: changed.released.clone(), found: changed.found.clone() }),
            admission: status.admission.as_deref().map(admission).unwrap_or_default(),
        }
    }
}

impl From<&LaneStatus> for Runs {
    fn from(lane: &LaneStatus) -> Self {
        Self {
            placement: lane.placement.as_str().to_owned(),
            run_seconds: lane.run.as_secs_f64(),
            row_seconds: lane.per_row.as_secs_f64(),
            max_batch_rows: lane.max_batch_rows as u64,
            max_delay_seconds: lane.max_delay.as_secs_f64(),
            instances: lane.instances as u64,
            waiting: lane.waiting as u64,
            alone: lane.alone.clone(),
            batching_stopped: lane.is_merging_stopped,
            independence: Independence::from(&*lane.verdict),
        }
    }
}

impl From<&Verdict> for Independence {
    fn from(verdict: &Verdict) -> Self {
        let axes = |role: &str, axes: &[BatchAxis]| {
            let one =
                |axis: &BatchAxis| RowAxis { role: role.to_owned(), tensor: axis.name.clone(), axis: axis.axis as u64 };
            axes.iter().map(one).collect::<Vec<_>>()
        };
        let (axes, warnings) = match verdict {
            Verdict::Independent(proof) => {
                ([axes("input", &proof.inputs), axes("output", &proof.outputs)].concat(), proof.warnings.clone())
            }
            Verdict::Dependent(_) | Verdict::Unknown(_) => Default::default(),
        };
        Self { outcome: verdict.name().to_owned(), why: verdict.reason().map(ToString::to_string), axes, warnings }
    }
}

impl From<&registry::ModelStatus> for ModelStatus {
    fn from(status: &registry::ModelStatus) -> Self {
        let with_traffic = |version: &registry::VersionStatus| VersionStatus {
            traffic_percent: traffic_percent(&status.release, version.version),
            ..VersionStatus::from(version)
        };
        Self {
            model: status.name.to_string(),
            release: Release::from(&status.release),
            versions: status.versions.iter().map(with_traffic).collect(),
            unrouted: Unrouted::from(status.unrouted),
            comparison: status.comparison.as_ref().map(Comparison::from),
            misplaced: status.misplaced.iter().map(Misplaced::from).collect(),
            warnings: status.warnings.clone(),
        }
    }
}

/// Triton's index of all versions, or of the ready ones.
#[must_use]
pub fn repository_index(models: &[registry::ModelStatus], only_ready: bool) -> Vec<RepositoryEntry> {
    let versions = models.iter().flat_map(|model| model.versions.iter().map(move |version| (&model.name, version)));
    versions
        .filter(|(_, version)| !only_ready || version.state == VersionState::Ready)
        .map(|(name, version)| RepositoryEntry {
            name: name.to_string(),
            version: version.version.to_string(),
            state: triton_state(version.state).to_owned(),
            reason: version.reason.clone().unwrap_or_default(),
        })
        .collect()
}

/// RFC 3339 in UTC, to the millisecond. A time that the format cannot say is moved into its range.
pub(crate) fn timestamp(at: SystemTime) -> String {
    /// 9999-12-31T23:59:59Z
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since_epoch.min(LAST)).to_string()
}

pub(crate) fn traffic_percent(release: &release::Release, version: domain::Version) -> Option<Share> {
    let canary = release.canary.map_or(0.0, |split| split.percent.get());
    if release.stable == Some(version) {
        return Some(Share(100.0 - canary));
    }
    release.canary.filter(|split| split.version == version).map(|_| Share(canary))
}

fn triton_state(state: VersionState) -> &'static str {
    match state {
        VersionState::Ready => "READY",
        VersionState::Loading => "LOADING",
        VersionState::Draining => "UNLOADING",
        VersionState::Discovered | VersionState::Unloaded | VersionState::Failed => "UNAVAILABLE",
    }
}

#[cfg(test)]
mod tests;
