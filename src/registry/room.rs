//! The memory budget applied: loads that are asked for, and what is unloaded for them.

use std::time::SystemTime;

use super::{
    Registry,
    admission::SignatureChange,
    loader,
    memory::{Claim, Held, make_room},
    operations::{ChangeOptions, RegistryError},
    state::{Entry, State, VersionEntry},
    status::VersionState,
};
use crate::{
    domain::{ModelName, Version},
    release::{Change, Release},
};

/// A load that nobody asked for: what the repository has.
pub(super) struct Wanted {
    pub(super) model: ModelName,
    pub(super) version: Version,
    pub(super) claim: Claimed,
}

/// What the release has to do with a version, in the order in which they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimed {
    /// The others are held against it.
    Stable,
    /// As the stable one it is loaded whatever the budget says.
    Named,
    Spare,
}

impl Claimed {
    pub(super) fn by(release: &Release, version: Version) -> Self {
        if release.stable == Some(version) {
            Self::Stable
        } else if release.versions().any(|named| named == version) {
            Self::Named
        } else {
            Self::Spare
        }
    }
}

impl Registry {
    /// Asks for what the repository has. What releases name comes first; of the rest, where not all of
    /// it fits, the highest versions.
    pub(super) fn request_all(&self, state: &mut State, mut wanted: Vec<Wanted>) {
        wanted.sort_by_key(|load| (load.claim, std::cmp::Reverse(load.version)));
        for Wanted { model, version, claim } in wanted {
            match self.make_room(state, &model, version, None) {
                Ok(()) => {}
                Err(error) if claim != Claimed::Spare => {
                    tracing::warn!(model = %model, version = version.get(), %error, "loaded beyond the budget");
                }
                Err(error) => {
                    state.leave_out(&model, version, &error.to_string());
                    continue;
                }
            }
            self.request(state, &model, version, &ChangeOptions::default());
        }
    }

    /// Asks for a version to be loaded.
    pub(super) fn request(&self, state: &mut State, model: &ModelName, version: Version, options: &ChangeOptions) {
        let is_accepted = options.accept_changed;
        let expected = || state.expected(model, version, self.shared.options.reload_changed);
        let released = if is_accepted { None } else { expected() };
        let State { models, loads, allowances, .. } = state;
        let is_allowed = || allowances.get(&(model.clone(), version)).cloned();
        let signature_change =
            if options.allow_signature_change { SignatureChange::Allowed } else { SignatureChange::of(is_allowed()) };
        if let Some(entry) = models.get_mut(model) {
            let terms = loader::Terms { signature_change, released, is_accepted };
            loader::request(&self.shared, loads, model, version, entry, terms);
        }
    }

    /// Unloads what must go so that a version can be loaded. Without `options` nobody asked for the load,
    /// and the rollback target goes only if the configuration allows it.
    ///
    /// # Errors
    /// When there is no room; nothing is unloaded then.
    pub(super) fn make_room(
        &self,
        state: &mut State,
        model: &ModelName,
        version: Version,
        options: Option<&ChangeOptions>,
    ) -> Result<(), RegistryError> {
        let Some(limit) = self.shared.options.model_memory else { return Ok(()) };
        let needed = state.models.get(model).and_then(|entry| entry.versions.get(&version)).map(VersionEntry::bytes);
        let may_evict = self.may_evict_previous(state, model) || options.is_some_and(|options| options.evict_previous);
        let held = state.held(model, version, may_evict);
        let evicted = make_room(limit, needed.unwrap_or_default(), held)
            .map_err(|shortage| RegistryError::NoMemory { model: model.clone(), version, shortage })?;
        if options.is_some_and(|options| options.dry_run) {
            return Ok(());
        }
        let (asked_by_nobody, why) =
            (ChangeOptions::of_the_gateway("limits.model_memory"), format!("for version {version} of {model}"));
        for Held { model: owner, version: evicted, claim, .. } in evicted {
            if claim == Claim::SparePrevious {
                let options = options.unwrap_or(&asked_by_nobody);
                let planned = state.plan(
                    &owner,
                    &Change::ForgetPrevious,
                    &ChangeOptions {
                        // The generation that the caller saw is that of the load.
                        if_generation: None,
                        idempotency_key: None,
                        ..options.clone()
                    },
                )?;
                let (before, next) = (planned.before.clone(), planned.next.clone());
                let superseded = state.commit(vec![planned])?;
                self.tell_release(&owner, Change::ForgetPrevious.operation(), (&before, &next), options);
                self.tell_superseded(state, &superseded);
            }
            self.retire(state, &owner, evicted, &format!("to make room {why}"));
            state.leave_out(&owner, evicted, &format!("unloaded to make room {why}"));
        }
        Ok(())
    }

    fn may_evict_previous(&self, state: &State, model: &ModelName) -> bool {
        let own = state.models.get(model).and_then(|entry| entry.config.as_ref().as_ref().ok()?.release.evict_previous);
        own.unwrap_or(self.shared.options.evict_previous)
    }
}

impl State {
    /// What is in memory or on its way there, beside the version that is to be loaded.
    fn held(&self, model: &ModelName, version: Version, may_evict_previous: bool) -> Vec<Held> {
        let mut all = Vec::new();
        for (name, entry) in &self.models {
            for (number, known) in &entry.versions {
                let is_held = known.servable.is_some() || known.state == VersionState::Loading;
                if !is_held || (name == model && *number == version) {
                    continue;
                }
                let claim = match entry.claim(*number, known) {
                    Claim::Previous if may_evict_previous && name == model => Claim::SparePrevious,
                    claim => claim,
                };
                let used = known.used();
                all.push(Held { model: name.clone(), version: *number, bytes: known.bytes(), used, claim });
            }
        }
        all
    }

    /// Says why a version is not loaded.
    fn leave_out(&mut self, model: &ModelName, version: Version, why: &str) {
        let known = self.models.get_mut(model).and_then(|entry| entry.versions.get_mut(&version));
        let Some(known) = known else { return };
        if known.state == VersionState::Discovered {
            known.state = VersionState::Unloaded;
        }
        // It would be looked for again and again, and room is made by whoever asks for it.
        known.retry.due = None;
        if known.reason.as_deref() != Some(why) {
            tracing::warn!(model = %model, version = version.get(), why, "version is not loaded");
            known.reason = Some(why.to_owned());
        }
    }
}

impl Entry {
    fn claim(&self, version: Version, known: &VersionEntry) -> Claim {
        let named = self.release.versions().filter(|named| *named == version).count();
        match named {
            0 if known.state == VersionState::Loading => Claim::InUse,
            0 => Claim::None,
            1 if self.release.previous == Some(version) => Claim::Previous,
            _ => Claim::InUse,
        }
    }
}

impl VersionEntry {
    /// As measured when it was loaded, otherwise as its files say.
    fn bytes(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(|| self.seen.model_bytes())
    }

    fn used(&self) -> SystemTime {
        let answered = self.servable.as_ref().and_then(|servable| servable.metrics.statistics().last_inference);
        answered.max(self.loaded_at).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}
