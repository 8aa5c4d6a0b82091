//! The registry's own book of models and versions. Only ever touched under the registry's lock,
//! which no request takes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    admission::{AdmissionReport, ChangedFiles},
    audit::Repeats,
    changed::Until,
    disk::{ConfigPrint, Fingerprint},
    layout::Misplaced,
    retry::Retry,
    rollout::Kept,
    status::{ModelStatus, VersionState, VersionStatus},
};
use crate::{
    config::{ModelConfig, ModelConfigError, Policy},
    domain::{ModelName, Version},
    observe::{Answered, Outcomes, RecentRequests, Traffic},
    release::Release,
    route::{ModelRoute, Servable},
    store::{Allowances, ModelFiles, Released, Store},
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) models: BTreeMap<ModelName, Entry>,
    pub(super) store: Store,
    /// The rollout of each model that goes on, or the last one.
    pub(super) rollouts: BTreeMap<ModelName, Kept>,
    /// Releases read at the start of models not seen on disk yet.
    pub(super) stored: BTreeMap<ModelName, Release>,
    /// Versions whose signature may differ from the stable one's.
    pub(super) allowances: Allowances,
    /// What the files of the versions are that releases name.
    pub(super) released: Released,
    /// True once everything found by the first scan is loaded or refused.
    pub(super) is_complete: bool,
    pub(super) is_scanned: bool,
    /// True when the last scan could read the repository.
    pub(super) is_listed: bool,
    pub(super) started: Instant,
    /// Attempts that changed nothing.
    pub(super) repeats: Repeats,
    /// Loads asked for so far.
    pub(super) loads: u64,
    /// What was already warned of, so that it is said once.
    pub(super) warned: std::collections::BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) directory: PathBuf,
    pub(super) config: Arc<Result<ModelConfig, ModelConfigError>>,
    /// The files that `config` was read from, as they were; `None`: not read yet.
    pub(super) config_print: Option<ConfigPrint>,
    pub(super) release: Release,
    pub(super) versions: BTreeMap<Version, VersionEntry>,
    /// What was meant to be a version, and is none.
    pub(super) misplaced: Vec<Misplaced>,
    /// Requests kept for the warm-up of new versions.
    pub(super) recent: Arc<RecentRequests>,
    /// Requests that failed before they reached a version.
    pub(super) unrouted: Arc<Outcomes>,
}

/// A load that waits or runs: there is never more than one of a version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    /// Its number among all loads. Those with lower ones have begun earlier.
    pub(super) load: u64,
    /// False when the version was unloaded meanwhile: what comes of it is dropped.
    pub(super) is_wanted: bool,
}

#[derive(Debug)]
pub(super) struct VersionEntry {
    pub(super) state: VersionState,
    pub(super) reason: Option<String>,
    pub(super) digest: Option<String>,
    /// The files that were loaded last.
    pub(super) files: Option<ModelFiles>,
    /// What was found instead of the released files, and not loaded.
    pub(super) changed: Option<ChangedFiles>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) loaded_at: Option<SystemTime>,
    pub(super) servable: Option<Arc<Servable>>,
    /// The directory as it was when it was last loaded or tried.
    pub(super) tried: Option<Fingerprint>,
    /// The directory as last seen.
    pub(super) seen: Fingerprint,
    /// The directory as it was when what serves was loaded.
    pub(super) loaded: Option<Fingerprint>,
    /// It was said that the files are not those that serve.
    pub(super) is_change_told: bool,
    /// How its last admission went.
    pub(super) admission: Option<Arc<AdmissionReport>>,
    pub(super) running: Option<Running>,
    pub(super) retry: Retry,
    /// The load that `servable` came of, so that the end of an old one is not taken for that of a
    /// new one.
    pub(super) served: u64,
    /// Counts what this version answered; it outlives the load.
    pub(super) answered: Answered,
    /// Its requests by outcome; it outlives the load too.
    pub(super) traffic: Traffic,
}

/// Why a version that nobody unloaded is not loaded.
const LEFT_OUT: &str = "the model's version_policy leaves it out";

impl VersionEntry {
    pub(super) fn discovered(seen: Fingerprint) -> Self {
        Self {
            state: VersionState::Discovered,
            reason: None,
            digest: None,
            files: None,
            changed: None,
            memory_bytes: None,
            loaded_at: None,
            servable: None,
            tried: None,
            seen,
            loaded: None,
            is_change_told: false,
            admission: None,
            running: None,
            retry: Retry::default(),
            served: 0,
            answered: Answered::default(),
            traffic: Traffic::default(),
        }
    }

    /// Its files are not on disk: it has failed, and is loaded once they are there. False when that is known, or it
    /// serves all the same.
    pub(super) fn miss(&mut self, directory: &Path) -> bool {
        let is_over = self.servable.is_none() && self.running.is_none() && self.state != VersionState::Draining;
        let reason = format!("it is gone from disk: there is no {}", directory.display());
        if !is_over || !self.seen.is_missing() || self.reason.as_ref() == Some(&reason) {
            return false;
        }
        (self.state, self.reason) = (VersionState::Failed, Some(reason));
        // What comes back may be what was tried before.
        (self.tried, self.retry) = (None, Retry::default());
        true
    }

    /// Follows the model's `version_policy`: what it leaves out is not loaded by itself.
    pub(super) fn select(&mut self, is_selected: bool) {
        let is_left_out = self.state == VersionState::Unloaded && self.reason.as_deref() == Some(LEFT_OUT);
        match (is_selected, self.state) {
            (false, VersionState::Discovered) => {
                (self.state, self.reason) = (VersionState::Unloaded, Some(LEFT_OUT.into()));
            }
            (true, VersionState::Unloaded) if is_left_out => {
                (self.state, self.reason) = (VersionState::Discovered, None);
            }
            _ => {}
        }
    }

    fn status(&self, version: Version, now: Duration) -> VersionStatus {
        let servable = self.servable.as_ref();
        VersionStatus {
            version,
            state: self.state,
            reason: self.reason.clone(),
            digest: self.digest.clone(),
            memory_bytes: self.memory_bytes,
            loaded_at: self.loaded_at,
            requests: self.answered.requests(),
            traffic: self.traffic.report(now),
            monitored: servable.is_some_and(|servable| servable.watch.monitor().is_some()),
            learning: servable.and_then(|servable| servable.watch.learning_progress(now)),
            shadow_dropped: servable
                .map(|servable| servable.metrics.shadow_drops().filter(|(_, copies)| *copies > 0).collect())
                .unwrap_or_default(),
            lane: servable.map(|servable| servable.lane.status()),
            files_changed: self.files_changed() || self.changed.is_some(),
            changed: self.changed.clone(),
            admission: self.admission.clone(),
        }
    }

    /// What serves is not what is on disk.
    pub(super) fn files_changed(&self) -> bool {
        self.servable.is_some() && self.loaded.as_ref().is_some_and(|loaded| !loaded.same_files(&self.seen))
    }

    /// Says once that the files are not those that serve.
    pub(super) fn tell_change(&mut self, model: &ModelName, version: Version, until: Until) {
        if self.is_change_told || !self.files_changed() {
            return;
        }
        self.is_change_told = true;
        let until = until.as_str();
        tracing::warn!(%model, version = version.get(), "its files changed: it serves what was loaded {until}");
    }

    /// Being loaded, or on disk and about to be.
    pub(super) fn is_pending(&self) -> bool {
        match self.state {
            VersionState::Loading => true,
            VersionState::Discovered => self.seen.has_model(),
            _ => false,
        }
    }
}

impl Entry {
    /// A model of which nothing is known yet but where it is.
    pub(super) fn new(directory: PathBuf, release: Release, recent: RecentRequests) -> Self {
        Self {
            directory,
            config: Arc::new(Ok(ModelConfig::default())),
            config_print: None,
            release,
            versions: BTreeMap::new(),
            misplaced: Vec::new(),
            recent: Arc::new(recent),
            unrouted: Arc::default(),
        }
    }

    pub(super) fn policy(&self, default: Policy) -> Policy {
        self.config.as_ref().as_ref().ok().and_then(|config| config.release.policy).unwrap_or(default)
    }

    /// The model at the time `now` of the monitor's clock.
    pub(super) fn status(&self, name: &ModelName, now: Duration) -> ModelStatus {
        let versions = self.versions.iter().map(|(version, entry)| entry.status(*version, now)).collect();
        ModelStatus {
            name: name.clone(),
            release: self.release.clone(),
            versions,
            unrouted: self.unrouted.counts(),
            comparison: None,
            misplaced: self.misplaced.clone(),
            warnings: self.not_served(name),
        }
    }

    /// That the stable version does not serve, and what may be done.
    fn not_served(&self, name: &ModelName) -> Vec<String> {
        let Some(stable) = self.release.stable else { return Vec::new() };
        if self.servable(stable).is_some() {
            return Vec::new();
        }
        let known = self.versions.get(&stable);
        if known.is_some_and(|known| matches!(known.state, VersionState::Discovered | VersionState::Loading)) {
            return Vec::new();
        }
        let is_gone = self.versions.values().all(|known| known.seen.is_missing());
        let way = if is_gone {
            format!("put it back, or, if the model is gone on purpose, `tidegate forget {name}`")
        } else {
            format!("mend it, or `tidegate promote {name} VERSION` another one")
        };
        let text =
            format!("version {stable} is stable and does not serve, so requests for model '{name}' get 503: {way}");
        vec![text]
    }

    /// The version if it serves.
    pub(super) fn servable(&self, version: Version) -> Option<Arc<Servable>> {
        self.versions.get(&version)?.servable.clone()
    }

    pub(super) fn highest_ready(&self) -> Option<Version> {
        self.versions.iter().rev().find(|(_, entry)| entry.servable.is_some()).map(|(version, _)| *version)
    }
}

/// How long readiness waits for directories that are still being written: a copy that goes on
/// for minutes must not keep the other models from serving.
const FIRST_LOOK: Duration = Duration::from_secs(10);

impl State {
    /// Something found at the start is not yet loaded or refused.
    pub(super) fn is_first_load_going_on(&self) -> bool {
        let is_patient = self.started.elapsed() < FIRST_LOOK;
        self.models.values().flat_map(|entry| entry.versions.values()).any(|version| match version.state {
            VersionState::Loading => true,
            VersionState::Failed => is_patient && version.retry.due.is_some(),
            _ => is_patient && version.is_pending(),
        })
    }

    /// When the next load that failed is to be tried again, by the registry's clock.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        self.models.values().flat_map(|entry| entry.versions.values()).filter_map(|version| version.retry.due).min()
    }

    /// The route of a model as it follows from the book; `None` when the book has no such model.
    /// `allow_pinning` holds where the model's configuration says nothing of it.
    pub(super) fn route(&self, name: &ModelName, allow_pinning: bool) -> Option<ModelRoute> {
        let entry = self.models.get(name)?;
        let own = entry.config.as_ref().as_ref().ok().and_then(|config| config.release.allow_pinning);
        let ready = entry.versions.iter().filter_map(|(version, entry)| {
            // Draining versions get nothing new.
            let servable = entry.servable.as_ref().filter(|_| entry.state != VersionState::Draining)?;
            Some((*version, Arc::clone(servable)))
        });
        let versions: BTreeMap<_, _> = ready.collect();
        let not_ready = entry.versions.keys().filter(|version| !versions.contains_key(version));
        let not_ready = not_ready.copied().collect();
        let (release, kept) = (entry.release.clone(), self.rollouts.get(name));
        let comparison = kept.and_then(|kept| kept.comparison(|version| versions.contains_key(&version)));
        let allow_pinning = own.unwrap_or(allow_pinning);
        let unrouted = Arc::clone(&entry.unrouted);
        Some(ModelRoute { release, versions, not_ready, allow_pinning, comparison, unrouted })
    }
}
