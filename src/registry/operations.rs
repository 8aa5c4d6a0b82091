//! What operators ask of the registry.

use std::time::Instant;

pub use super::error::RegistryError;
use super::{
    Registry,
    audit::Attempt,
    rollout::Kept,
    state::{Entry, State},
    status::{HistoryEntry, ModelStatus, VersionState},
};
use crate::{
    domain::{ModelName, Version},
    events::{Event, Topic},
    release::{Change, Outcome, Release},
    store::{ReleasedRow, StoreError, Verification},
};

/// How a change is to be made.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what a caller may ask for, each on its own")]
pub struct ChangeOptions {
    /// Check and answer with the release as it would be; change nothing.
    pub dry_run: bool,
    /// Refuse unless the release has this generation.
    pub if_generation: Option<u64>,
    /// Kept in the audit log.
    pub reason: Option<String>,
    /// Who asks; kept in the audit log.
    pub actor: String,
    /// Asked once more with the same key, the change answers as it did and does nothing again.
    pub idempotency_key: Option<String>,
    /// The rollback target may be unloaded to make room.
    pub evict_previous: bool,
    /// A version that is loaded may break clients of the stable one.
    pub allow_signature_change: bool,
    /// A promotion that there are warnings of is refused.
    pub strict: bool,
    /// A version that the release names may be loaded though its files are not those that were released.
    pub accept_changed: bool,
}

impl ChangeOptions {
    /// Of what the gateway does by itself.
    pub(super) fn of_the_gateway(reason: &str) -> Self {
        Self { actor: super::SELF.into(), reason: Some(reason.into()), ..Self::default() }
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    pub release: Release,
    /// What an operator should know of the change, though it is made.
    pub warnings: Vec<String>,
    /// True when this was the answer to an earlier request with the same key.
    pub is_repeated: bool,
}

impl Registry {
    /// All models, by name.
    #[must_use]
    pub fn models(&self) -> Vec<ModelStatus> {
        let now = (self.shared.watchers.clock)();
        let models = self.lock().models.iter().map(|(name, entry)| entry.status(name, now)).collect::<Vec<_>>();
        models.into_iter().map(|status| self.with_comparison(status)).collect()
    }

    pub fn model(&self, name: &ModelName) -> Result<ModelStatus, RegistryError> {
        let mut status = self.lock().entry(name)?.status(name, (self.shared.watchers.clock)());
        status.warnings.extend(self.shared.disk.warning());
        Ok(self.with_comparison(status))
    }

    /// Adds how the shadow compares with the version that answers most.
    fn with_comparison(&self, mut status: ModelStatus) -> ModelStatus {
        let Some(shadow) = status.release.shadow else { return status };
        let reports = self.shared.watchers.shadow.reports(&status.name, shadow.version);
        let stable = status.release.stable;
        let of_stable = reports.iter().find(|report| Some(report.live) == stable).or_else(|| reports.first());
        status.comparison = of_stable.cloned();
        status
    }

    /// Makes a change durable, publishes it, and answers with the new release. Every request
    /// that starts after the return follows it.
    pub fn change(&self, name: &ModelName, change: &Change, options: &ChangeOptions) -> Result<Release, RegistryError> {
        self.attempt(name, change, options).map(|changed| changed.release)
    }

    /// As [`Registry::change`], and says whether it was done by an earlier request with the same key.
    pub fn attempt(
        &self,
        name: &ModelName,
        change: &Change,
        options: &ChangeOptions,
    ) -> Result<Changed, RegistryError> {
        let started = Instant::now();
        let asked = if options.strict { format!("{}, strict", change.asked()) } else { change.asked() };
        let attempt = Attempt::new(name, change.operation(), asked, options);
        if let (Change::Promote(version), true) = (change, options.evict_previous)
            && matches!(self.lock().answered(&attempt, options), Ok(None))
        {
            // Who gives up the rollback target for a promotion need not load the version first. If that
            // fails, the promotion says that the version is not ready.
            let _ = self.load(name, *version, &ChangeOptions { idempotency_key: None, ..options.clone() });
        }
        if *change == Change::Forget {
            // Whether it is gone, the disk says.
            let _ = self.scan();
        }
        let mut state = self.lock();
        let outcome = self.apply(&mut state, attempt.clone(), change, options, started);
        if let Err(error) = &outcome {
            self.note(&mut state, attempt, Outcome::of(error), Some(error.to_string()), options);
        }
        drop(state);
        if *change == Change::Forget && outcome.is_ok() {
            // Takes it out of the book.
            let _ = self.scan();
        }
        outcome
    }

    fn apply(
        &self,
        state: &mut State,
        attempt: Attempt,
        change: &Change,
        options: &ChangeOptions,
        started: Instant,
    ) -> Result<Changed, RegistryError> {
        if let Some(release) = state.answered(&attempt, options)? {
            return Ok(Changed { release, warnings: Vec::new(), is_repeated: true });
        }
        let mut planned = state.plan(&attempt.model, change, options)?;
        planned.attempt.asked.clone_from(&attempt.asked);
        let (before, release) = (planned.before.clone(), planned.next.clone());
        let is_monitored = self.shared.options.monitor.is_some();
        let warnings = state.warnings(&attempt.model, change, options, is_monitored)?;
        let changed = Changed { release: release.clone(), warnings, is_repeated: false };
        if options.dry_run {
            return Ok(changed);
        }
        let name = attempt.model.clone();
        let is_forgotten = *change == Change::Forget;
        if planned.next == planned.before {
            self.keep(state, Attempt { releases: (release.clone(), release), ..attempt }, options)?;
            return Ok(changed);
        }
        let write = Instant::now();
        let is_published_before = write.saturating_duration_since(started);
        let superseded = state.commit(vec![planned])?;
        let published = Instant::now();
        self.publish(state, [&name]);
        self.shared.metrics.publish_duration.observe((is_published_before + published.elapsed()).as_secs_f64());
        self.tell_release(&name, change.operation(), (&before, &changed.release), options);
        self.tell_superseded(state, &superseded);
        if is_forgotten {
            let versions: Vec<_> = state.entry(&name)?.versions.keys().copied().collect();
            for version in versions {
                self.retire(state, &name, version, "its model was forgotten");
            }
        }
        Ok(changed)
    }

    /// Counts and tells a change that was made.
    pub(super) fn tell_release(
        &self,
        name: &ModelName,
        operation: &'static str,
        (before, release): (&Release, &Release),
        options: &ChangeOptions,
    ) {
        self.count(name, operation, Outcome::Done);
        let (generation, actor) = (release.generation, options.actor.as_str());
        let (change, reason) = (before.difference(release), options.reason.as_deref().unwrap_or_default());
        tracing::info!(model = %name, operation, change, reason, actor, generation, "release changed");
        let message = format!("{actor}: {operation}, {change}, generation {generation}");
        let event = Event::new(Topic::Release, name, operation, message);
        self.shared.watchers.events.publish(match release.stable {
            Some(stable) => event.of_version(stable),
            None => event,
        });
    }

    pub(super) fn count(&self, name: &ModelName, operation: &str, outcome: Outcome) {
        // That all was so already is as good as a change to who asked for it.
        let label = if outcome == Outcome::Unchanged { Outcome::Done } else { outcome }.as_str();
        self.shared.metrics.release_operations.with_label_values(&[name.as_str(), operation, label]).inc();
    }

    /// Enters an attempt that was not made into the audit log, counts it, and says so.
    pub(super) fn note(
        &self,
        state: &mut State,
        attempt: Attempt,
        outcome: Outcome,
        detail: Option<String>,
        options: &ChangeOptions,
    ) {
        let (name, operation) = (attempt.model.clone(), attempt.operation);
        tracing::warn!(
            model = %name, operation, asked = attempt.asked, actor = attempt.actor, error = detail,
            "change {}", outcome.as_str()
        );
        if options.dry_run {
            return;
        }
        let release = state.models.get(&name).map(|entry| entry.release.clone());
        if release.is_some() {
            self.count(&name, operation, outcome);
        }
        let release = release.unwrap_or_default();
        let attempt = Attempt { outcome, detail, releases: (release.clone(), release), ..attempt };
        let due = state.repeats.note(attempt, Instant::now());
        state.write_attempts(due);
    }

    /// Enters an attempt that succeeded and left the release as it was. With a key it is written
    /// before it is acknowledged.
    pub(super) fn keep(&self, state: &mut State, attempt: Attempt, options: &ChangeOptions) -> Result<(), StoreError> {
        if options.dry_run {
            return Ok(());
        }
        self.count(&attempt.model, attempt.operation, attempt.outcome);
        if attempt.outcome == Outcome::Done || attempt.key.is_some() {
            return state.store.commit(&[attempt.entry()]);
        }
        let due = state.repeats.note(attempt, Instant::now());
        state.write_attempts(due);
        Ok(())
    }

    /// Writes what was counted and not written: the gateway stops.
    pub fn flush(&self) {
        let mut state = self.lock();
        let all = state.repeats.all();
        state.write_attempts(all);
    }

    /// The audit log of a model, newest first.
    pub fn history(&self, name: &ModelName, limit: usize) -> Result<Vec<HistoryEntry>, RegistryError> {
        let state = self.lock();
        if !state.models.contains_key(name) && !state.store.knows(name)? {
            return Err(RegistryError::UnknownModel(name.clone()));
        }
        Ok(state.store.history(name, limit)?)
    }

    /// Checks the hash chain over the audit log, which is one for all models.
    pub fn verify_history(&self) -> Result<Verification, RegistryError> {
        Ok(self.lock().store.verify()?)
    }
}

impl State {
    pub(super) fn entry(&self, name: &ModelName) -> Result<&Entry, RegistryError> {
        self.models.get(name).ok_or_else(|| RegistryError::UnknownModel(name.clone()))
    }

    /// Checks a change. Nothing is changed yet.
    pub(super) fn plan(
        &self,
        name: &ModelName,
        change: &Change,
        options: &ChangeOptions,
    ) -> Result<Planned, RegistryError> {
        let entry = self.entry(name)?;
        self.check_generation(name, options)?;
        if *change == Change::Forget && entry.versions.values().any(|known| !known.seen.is_missing()) {
            return Err(RegistryError::StillThere(name.clone()));
        }
        let mut next = entry.release.apply(change).map_err(|error| self.explained(name, error))?;
        // A rollback may name no version itself: its target is the next stable one.
        let target = if matches!(change, Change::Rollback(_)) { next.stable } else { change.version() };
        if let Some(version) = target {
            entry.check_ready(name, version)?;
        }
        let before = entry.release.clone();
        let attempt = Attempt::new(name, change.operation(), change.asked(), options);
        let going = self.rollouts.get(name);
        let rollout = going.and_then(|going| going.superseded(change, &before, &next, &options.actor));
        if rollout.is_some() && next.canary == before.canary {
            // The canary was the rollout's: it must not go on with nobody watching it.
            next.canary = None;
        }
        Ok(Planned { before, next, attempt, rollout })
    }

    /// Makes checked changes durable and enters them into the book: all or none. Says of which models they
    /// ended a rollout.
    pub(super) fn commit(&mut self, planned: Vec<Planned>) -> Result<Vec<ModelName>, StoreError> {
        let made: Vec<(Attempt, Option<Kept>)> = planned.into_iter().map(Planned::made).collect();
        let ended: Vec<_> = made.iter().filter_map(|(attempt, kept)| kept.as_ref()?.end_by(attempt)).collect();
        let entries: Vec<_> = made.iter().map(|(attempt, _)| attempt).chain(&ended).map(Attempt::entry).collect();
        let rollouts = made.iter().filter_map(|(attempt, kept)| Some(kept.as_ref()?.row(&attempt.model)));
        let released: Vec<_> =
            made.iter().map(|(attempt, _)| self.released_by(&attempt.model, &attempt.releases.1)).collect();
        let rows = made.iter().zip(&released).flat_map(|((attempt, _), rows)| {
            rows.iter().map(|(version, files)| ReleasedRow {
                model: &attempt.model,
                version: *version,
                files: files.as_ref(),
            })
        });
        self.store.commit_all(&entries, &rollouts.collect::<Vec<_>>(), &rows.collect::<Vec<_>>())?;
        for ((attempt, rollout), released) in made.into_iter().zip(released) {
            self.enter_released(&attempt.model, released);
            if let Some(entry) = self.models.get_mut(&attempt.model) {
                entry.release = attempt.releases.1;
            }
            if let Some(rollout) = rollout {
                self.rollouts.insert(attempt.model, rollout);
            }
        }
        Ok(ended.into_iter().map(|attempt| attempt.model).collect())
    }

    /// What an earlier attempt with the same key answered.
    pub(super) fn answered(
        &self,
        attempt: &Attempt,
        options: &ChangeOptions,
    ) -> Result<Option<Release>, RegistryError> {
        match attempt.key() {
            Some(key) if !options.dry_run => Ok(self.store.answered(key, attempt.at)?),
            _ => Ok(None),
        }
    }

    /// Enters attempts that changed nothing. That this fails costs the entries, and no more.
    pub(super) fn write_attempts(&mut self, attempts: impl IntoIterator<Item = Attempt>) {
        let attempts: Vec<Attempt> = attempts.into_iter().collect();
        let entries: Vec<_> = attempts.iter().map(Attempt::entry).collect();
        if entries.is_empty() {
            return;
        }
        if let Err(error) = self.store.commit(&entries) {
            tracing::error!(%error, "refused attempts could not be entered into the audit log");
        }
    }
}

/// A change of a release that has passed every check.
pub(super) struct Planned {
    pub(super) before: Release,
    pub(super) next: Release,
    pub(super) attempt: Attempt,
    /// The rollout as it is after the change, where the change is one of it too.
    pub(super) rollout: Option<Kept>,
}

impl Planned {
    fn made(self) -> (Attempt, Option<Kept>) {
        let Self { before, next, attempt, rollout } = self;
        (Attempt { outcome: Outcome::Done, releases: (before, next), ..attempt }, rollout)
    }
}

impl Outcome {
    /// What an attempt came to that ended in an error.
    pub(super) fn of(error: &RegistryError) -> Self {
        match error {
            RegistryError::Store(_) | RegistryError::NotReady { state: VersionState::Failed, .. } => Self::Failed,
            _ => Self::Refused,
        }
    }
}

impl Entry {
    pub(super) fn check_ready(&self, name: &ModelName, version: Version) -> Result<(), RegistryError> {
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
