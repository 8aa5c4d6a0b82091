//! What the registry tells of models and versions.

use std::{sync::Arc, time::SystemTime};

use super::{
    admission::{AdmissionReport, ChangedFiles},
    layout::Misplaced,
};
use crate::{
    domain::{ModelName, ShadowDrop, Version},
    monitor::LearningProgress,
    observe::{Counts, TrafficReport},
    release::{Outcome, Release},
    rollout::Rollout,
    schedule::LaneStatus,
    shadow::ShadowReport,
};

/// Where a version is in its life: `discovered → loading → ready → draining → unloaded`, or `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionState {
    /// Seen on disk, not complete or not asked for yet.
    Discovered,
    Loading,
    Ready,
    /// Gets no new requests; the last ones are being answered.
    Draining,
    Unloaded,
    /// Could not be admitted; the reason says why.
    Failed,
}

impl VersionState {
    pub const ALL: [Self; 6] =
        [Self::Discovered, Self::Loading, Self::Ready, Self::Draining, Self::Unloaded, Self::Failed];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unloaded => "unloaded",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone)]
pub struct VersionStatus {
    pub version: Version,
    pub state: VersionState,
    /// Why it failed; empty otherwise. For operators: may name files.
    pub reason: Option<String>,
    /// `sha256:` and the hex digest of `model.onnx`.
    pub digest: Option<String>,
    /// Bytes of the version's model files, which a session holds at least once.
    pub memory_bytes: Option<u64>,
    pub loaded_at: Option<SystemTime>,
    /// Requests answered by this version since the process started, shadow copies included.
    pub requests: u64,
    /// Clients' requests by outcome.
    pub traffic: TrafficReport,
    /// A reference profile is loaded, so drift is watched.
    pub monitored: bool,
    /// How far its profile is learnt; `None` when it learns none.
    pub learning: Option<LearningProgress>,
    /// Copies that it did not run as shadow or that could not be compared, by reason; those that are not 0.
    pub shadow_dropped: Vec<(ShadowDrop, u64)>,
    /// How its runs happen, as measured; `None` when it is not loaded.
    pub lane: Option<LaneStatus>,
    /// It serves what was loaded, and its files on disk are others by now.
    pub files_changed: bool,
    /// The model that was released and the one that is there now, where that is another and nobody has accepted it.
    pub changed: Option<ChangedFiles>,
    /// How its last admission went, step by step; `None` when there was none.
    pub admission: Option<Arc<AdmissionReport>>,
}

#[derive(Debug, Clone)]
pub struct ModelStatus {
    pub name: ModelName,
    pub release: Release,
    /// What was meant to be a version of it, and is none.
    pub misplaced: Vec<Misplaced>,
    /// In ascending order.
    pub versions: Vec<VersionStatus>,
    /// Requests that failed before they reached a version, since the process started.
    pub unrouted: Counts,
    /// How the shadow version compares, once copies were run.
    pub comparison: Option<ShadowReport>,
    /// What somebody should do something about.
    pub warnings: Vec<String>,
}

/// A rollout, and the release that it works on.
#[derive(Debug, Clone)]
pub struct RolloutStatus {
    pub model: ModelName,
    pub release: Release,
    pub rollout: Rollout,
    /// True when the change asked for was made by an earlier request with the same key; all else is as it is now.
    pub is_repeated: bool,
}

/// One entry of the audit log: an attempt at a change, made or not.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    pub sequence: u64,
    pub at: SystemTime,
    pub actor: String,
    /// Such as `promote`; see [`crate::release::Change::operation`].
    pub operation: String,
    /// What it was asked with, such as `version 4`; may be empty.
    pub asked: String,
    pub outcome: Outcome,
    pub from: Release,
    pub to: Release,
    /// Why it was refused, or what came of it beside the release.
    pub detail: Option<String>,
    pub reason: Option<String>,
    /// The attempts that the entry stands for.
    pub attempts: u64,
    /// The entry's place in the hash chain, in hex; see `store::chain`.
    pub hash: String,
}
