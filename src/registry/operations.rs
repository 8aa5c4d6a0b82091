//! What operators ask of the registry.

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{
    Registry, loader,
    retry::Retry,
    state::{Entry, State},
    status::{HistoryEntry, ModelStatus, VersionState, VersionStatus},
};
use crate::{
    domain::{ModelName, Version},
    fault::{ErrorCode, Fault},
    monitor::DriftReport,
    release::{Change, Release, ReleaseError},
    store::{Entry as AuditEntry, StoreError},
};

/// How a change is to be made.
#[derive(Debug, Clone, Default)]
pub struct ChangeOptions {
    /// Check and answer with the release as it would be; change nothing.
    pub dry_run: bool,
    /// Refuse unless the release has this generation.
    pub if_generation: Option<u64>,
    /// Kept in the audit log.
    pub reason: Option<String>,
    /// Who asks; kept in the audit log.
    pub actor: String,
}

/// Why an operation was refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("unknown model '{0}'")]
    UnknownModel(ModelName),
    #[error("model '{model}' has no version {version}")]
    UnknownVersion { model: ModelName, version: Version },
    #[error("version {version} of model '{model}' is {}{}", state.as_str(), because(reason.as_deref()))]
    NotReady { model: ModelName, version: Version, state: VersionState, reason: Option<String> },
    #[error("the release of model '{model}' has generation {found}, not {expected}: somebody changed it meanwhile")]
    Stale { model: ModelName, expected: u64, found: u64 },
    #[error(
        "version {version} of model '{model}' is in use by the release: promote another version or clear the role first"
    )]
    InUse { model: ModelName, version: Version },
    #[error("model '{0}' has no stable version")]
    NoStable(ModelName),
    #[error("version {version} of model '{model}' has no profile.json: its drift is not watched")]
    NotMonitored { model: ModelName, version: Version },
    #[error("the window must be more than 0s and at most {}", humantime::format_duration(*longest))]
    Window { longest: Duration },
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

impl Fault for RegistryError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownModel(_) | Self::UnknownVersion { .. } | Self::NotMonitored { .. } => ErrorCode::NotFound,
            Self::NotReady { .. } | Self::InUse { .. } | Self::NoStable(_) => ErrorCode::Conflict,
            Self::Stale { .. } => ErrorCode::Stale,
            Self::Window { .. } => ErrorCode::BadRequest,
            Self::Release(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Store(error) => error.message(),
            other => other.to_string(),
        }
    }
}

impl Registry {
    /// All models, by name.
    #[must_use]
    pub fn models(&self) -> Vec<ModelStatus> {
        self.lock().models.iter().map(|(name, entry)| entry.status(name)).collect()
    }

    pub fn model(&self, name: &ModelName) -> Result<ModelStatus, RegistryError> {
        Ok(self.lock().entry(name)?.status(name))
    }

    /// Makes a change durable, publishes it, and answers with the new release. Every request
    /// that starts after the return follows it.
    pub fn change(&self, name: &ModelName, change: &Change, options: &ChangeOptions) -> Result<Release, RegistryError> {
        let mut state = self.lock();
        let outcome = self.apply(&mut state, name, change, options);
        let is_known = state.models.contains_key(name);
        drop(state);
        if is_known && !options.dry_run {
            let label = match &outcome {
                Ok(_) => "ok",
                Err(RegistryError::Store(_)) => "failed",
                Err(_) => "refused",
            };
            let labels = [name.as_str(), change.operation(), label];
            self.shared.metrics.release_operations.with_label_values(&labels).inc();
        }
        match &outcome {
            Ok(release) if !options.dry_run => {
                let (operation, generation) = (change.operation(), release.generation);
                tracing::info!(model = %name, operation, generation, actor = options.actor, "release changed");
            }
            Err(error) => {
                tracing::warn!(model = %name, operation = change.operation(), %error, "release change refused");
            }
            Ok(_) => {}
        }
        outcome
    }

    fn apply(
        &self,
        state: &mut State,
        name: &ModelName,
        change: &Change,
        options: &ChangeOptions,
    ) -> Result<Release, RegistryError> {
        let planned = state.plan(name, change, options)?;
        let next = planned.next.clone();
        if !options.dry_run && planned.next != planned.before {
            state.commit(vec![planned])?;
            self.publish(state, [name]);
        }
        Ok(next)
    }

    /// Loads a version that is on disk; returns when it is ready, or says why it is not. A break of
    /// the signature fails it, unless that is allowed.
    pub fn load(
        &self,
        name: &ModelName,
        version: Version,
        allow_signature_change: bool,
        options: &ChangeOptions,
    ) -> Result<VersionStatus, RegistryError> {
        let _ = self.scan();
        let mut state = self.lock();
        state.entry(name)?.check_generation(name, options)?;
        if options.dry_run {
            return version_status(&state, name, version);
        }
        // What is being loaded already is waited for: it may be without the allowance.
        state = self.wait_for_load(state, name, version);
        let State { models, loads, .. } = &mut *state;
        let entry = models.get_mut(name).ok_or_else(|| RegistryError::UnknownModel(name.clone()))?;
        let unknown = || RegistryError::UnknownVersion { model: name.clone(), version };
        let known = entry.versions.get(&version).ok_or_else(unknown)?;
        if matches!(known.state, VersionState::Unloaded | VersionState::Failed | VersionState::Discovered) {
            loader::request(&self.shared, loads, name, version, entry, allow_signature_change);
            state = self.wait_for_load(state, name, version);
            state.entry(name)?.check_ready(name, version)?;
        }
        version_status(&state, name, version)
    }

    fn wait_for_load<'a>(
        &self,
        state: MutexGuard<'a, State>,
        name: &ModelName,
        version: Version,
    ) -> MutexGuard<'a, State> {
        let is_loading = |state: &mut State| {
            let known = state.models.get(name).and_then(|entry| entry.versions.get(&version));
            known.is_some_and(|known| known.running.is_some())
        };
        self.shared.changed.wait_while(state, is_loading).unwrap_or_else(PoisonError::into_inner)
    }

    /// Drains and drops a version that the release does not use.
    pub fn unload(
        &self,
        name: &ModelName,
        version: Version,
        options: &ChangeOptions,
    ) -> Result<VersionStatus, RegistryError> {
        let mut state = self.lock();
        let entry = state.entry(name)?;
        entry.check_generation(name, options)?;
        if entry.release.versions().any(|named| named == version) {
            return Err(RegistryError::InUse { model: name.clone(), version });
        }
        let unknown = || RegistryError::UnknownVersion { model: name.clone(), version };
        let entry = state.models.get_mut(name).ok_or_else(unknown)?;
        let known = entry.versions.get_mut(&version).ok_or_else(unknown)?;
        if !options.dry_run {
            match known.servable.take() {
                Some(servable) => {
                    known.retry = Retry::default();
                    // A new load of it that goes on is not wanted any more.
                    if let Some(running) = &mut known.running {
                        running.is_wanted = false;
                    }
                    known.state = VersionState::Draining;
                    known.requests_before += servable.metrics.requests();
                    tracing::info!(model = %name, version = version.get(), actor = options.actor, "unloading");
                    self.publish(&state, [name]);
                    // The worker drops the model once the last request has let go of it.
                    drop(servable);
                }
                None if known.state == VersionState::Loading => {
                    let (state, reason) = (known.state, None);
                    return Err(RegistryError::NotReady { model: name.clone(), version, state, reason });
                }
                None => (known.state, known.retry) = (VersionState::Unloaded, Retry::default()),
            }
        }
        version_status(&state, name, version)
    }

    /// The audit log of a model, newest first.
    pub fn history(&self, name: &ModelName, limit: usize) -> Result<Vec<HistoryEntry>, RegistryError> {
        let state = self.lock();
        if !state.models.contains_key(name) && !state.store.knows(name)? {
            return Err(RegistryError::UnknownModel(name.clone()));
        }
        Ok(state.store.history(name, limit)?)
    }

    /// The drift of a version (`None`: the stable one) over a window (`None`: the configured
    /// one). Everything answered before the call is in it.
    pub fn drift(
        &self,
        name: &ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    ) -> Result<DriftReport, RegistryError> {
        let monitor = {
            let state = self.lock();
            let entry = state.entry(name)?;
            let version = version.or(entry.release.stable).ok_or_else(|| RegistryError::NoStable(name.clone()))?;
            entry.check_ready(name, version)?;
            let servable = entry.versions.get(&version).and_then(|known| known.servable.as_ref());
            let monitor = servable.and_then(|servable| servable.monitor.clone());
            (version, monitor.ok_or_else(|| RegistryError::NotMonitored { model: name.clone(), version })?)
        };
        let (version, monitor) = monitor;
        let longest = monitor.window_lengths().iter().max().copied().unwrap_or_default();
        let window = window.unwrap_or(longest);
        if window.is_zero() || window > longest {
            return Err(RegistryError::Window { longest });
        }
        if !self.shared.monitor.settle(SETTLE_LIMIT) {
            tracing::warn!(model = %name, "the monitor is behind: the drift view misses the latest rows");
        }
        Ok(monitor.report(name, version, window, (self.shared.clock)()))
    }
}

/// How long a drift view waits for the monitor to catch up, at most.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

fn version_status(state: &State, name: &ModelName, version: Version) -> Result<VersionStatus, RegistryError> {
    let status = state.entry(name)?.status(name);
    let unknown = || RegistryError::UnknownVersion { model: name.clone(), version };
    status.versions.into_iter().find(|status| status.version == version).ok_or_else(unknown)
}

impl State {
    fn entry(&self, name: &ModelName) -> Result<&Entry, RegistryError> {
        self.models.get(name).ok_or_else(|| RegistryError::UnknownModel(name.clone()))
    }

    /// Checks a change. Nothing is changed yet.
    pub(super) fn plan<'a>(
        &self,
        name: &ModelName,
        change: &Change,
        options: &'a ChangeOptions,
    ) -> Result<Planned<'a>, RegistryError> {
        let entry = self.entry(name)?;
        entry.check_generation(name, options)?;
        let next = entry.release.apply(change)?;
        // A rollback names no version itself: its target is the next stable one.
        let target = if *change == Change::Rollback { next.stable } else { change.version() };
        if let Some(version) = target {
            entry.check_ready(name, version)?;
        }
        let before = entry.release.clone();
        Ok(Planned { model: name.clone(), operation: change.operation(), before, next, options })
    }

    /// Makes checked changes durable and enters them into the book: all or none.
    pub(super) fn commit(&mut self, planned: Vec<Planned<'_>>) -> Result<(), StoreError> {
        let entries: Vec<_> = planned.iter().map(Planned::audit_entry).collect();
        self.store.commit(&entries)?;
        for change in planned {
            if let Some(entry) = self.models.get_mut(&change.model) {
                entry.release = change.next;
            }
        }
        Ok(())
    }
}

/// A change of a release that has passed every check.
pub(super) struct Planned<'a> {
    pub(super) model: ModelName,
    operation: &'static str,
    before: Release,
    next: Release,
    options: &'a ChangeOptions,
}

impl Planned<'_> {
    fn audit_entry(&self) -> AuditEntry<'_> {
        AuditEntry {
            model: &self.model,
            at: SystemTime::now(),
            actor: &self.options.actor,
            operation: self.operation,
            from: &self.before,
            to: &self.next,
            reason: self.options.reason.as_deref(),
        }
    }
}

impl Entry {
    fn check_generation(&self, name: &ModelName, options: &ChangeOptions) -> Result<(), RegistryError> {
        let found = self.release.generation;
        match options.if_generation {
            Some(expected) if expected != found => Err(RegistryError::Stale { model: name.clone(), expected, found }),
            _ => Ok(()),
        }
    }

    fn check_ready(&self, name: &ModelName, version: Version) -> Result<(), RegistryError> {
        let model = name.clone();
        let Some(known) = self.versions.get(&version) else {
            return Err(RegistryError::UnknownVersion { model, version });
        };
        if known.servable.is_some() {
            return Ok(());
        }
        Err(RegistryError::NotReady { model, version, state: known.state, reason: known.reason.clone() })
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("models", &std::sync::Arc::strong_count(&self.shared)).finish_non_exhaustive()
    }
}
