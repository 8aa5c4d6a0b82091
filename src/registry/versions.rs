//! What operators ask of single versions: to be loaded, and to be unloaded.

use std::sync::{MutexGuard, PoisonError};

use super::{
    Registry,
    audit::Attempt,
    operations::{ChangeOptions, RegistryError},
    retry::Retry,
    state::State,
    status::{VersionState, VersionStatus},
};
use crate::{
    domain::{ModelName, Version},
    events::{Event, Topic},
    release::Outcome,
    store::ModelFiles,
};

impl State {
    /// The files that were released under a number; of a version that is not released, those that were loaded.
    fn files(&self, name: &ModelName, version: Version) -> Option<ModelFiles> {
        let loaded = || self.models.get(name)?.versions.get(&version)?.files.clone();
        match loaded() {
            // At a start with other files nothing is loaded.
            None => self.released.get(&(name.clone(), version)).cloned(),
            loaded => loaded,
        }
    }
}

impl Registry {
    /// Loads a version that is on disk; returns when it is ready, or says why it is not. A break of
    /// the signature fails it, unless that is allowed.
    pub fn load(
        &self,
        name: &ModelName,
        version: Version,
        options: &ChangeOptions,
    ) -> Result<VersionStatus, RegistryError> {
        let _ = self.scan();
        self.versioned("load", name, version, options, || self.try_load(name, version, options))
    }

    /// Drains and drops a version that the release does not use.
    pub fn unload(
        &self,
        name: &ModelName,
        version: Version,
        options: &ChangeOptions,
    ) -> Result<VersionStatus, RegistryError> {
        self.versioned("unload", name, version, options, || self.try_unload(name, version, options))
    }

    /// Makes an operation on a version, and enters it into the audit log. With a key that was used
    /// before it does nothing, and answers with the version as it is now.
    fn versioned(
        &self,
        operation: &'static str,
        name: &ModelName,
        version: Version,
        options: &ChangeOptions,
        make: impl FnOnce() -> Result<VersionState, RegistryError>,
    ) -> Result<VersionStatus, RegistryError> {
        let allowed = if options.allow_signature_change { ", allow_signature_change" } else { "" };
        let accepted = if options.accept_changed { ", accept_changed" } else { "" };
        let attempt = Attempt::new(name, operation, format!("version {version}{allowed}{accepted}"), options);
        let (answered, files_before) = {
            let state = self.lock();
            (state.answered(&attempt, options), state.files(name, version))
        };
        let outcome = match answered {
            Ok(Some(_)) => return self.version_status(&self.lock(), name, version),
            Ok(None) => make(),
            Err(error) => Err(error),
        };
        let mut state = self.lock();
        match outcome.and_then(|before| Ok((before, self.version_status(&state, name, version)?))) {
            Ok((before, status)) => {
                let release = state.entry(name)?.release.clone();
                let files = state.files(name, version).filter(|_| options.accept_changed && !options.dry_run);
                let accepted = files.filter(|files| Some(files) != files_before.as_ref());
                let is_moved = before != status.state;
                let is_done = is_moved || accepted.is_some();
                let outcome = if is_done { Outcome::Done } else { Outcome::Unchanged };
                let moved = is_moved.then(|| format!("{} → {}", before.as_str(), status.state.as_str()));
                let model = accepted.as_ref().map(|files| {
                    let before = files_before.as_ref().map_or("-", |files| files.identity.as_str());
                    format!("model {before} → {}", files.identity)
                });
                let detail: Vec<_> = moved.into_iter().chain(model).collect();
                let detail = Some(detail.join(", ")).filter(|detail| !detail.is_empty());
                let accepted = accepted.filter(|_| release.versions().any(|named| named == version));
                let accepted = accepted.map(|files| (version, files));
                let entered = accepted.clone();
                let releases = (release.clone(), release);
                let digest = status.digest.clone().filter(|_| is_done && options.allow_signature_change);
                let allowance = digest.map(|digest| (version, digest));
                let remembered = allowance.clone().map(|(version, digest)| ((name.clone(), version), digest));
                self.keep(&mut state, Attempt { outcome, releases, detail, allowance, accepted, ..attempt }, options)?;
                state
                    .enter_released(name, entered.into_iter().map(|(version, files)| (version, Some(files))).collect());
                state.allowances.extend(remembered);
                Ok(status)
            }
            Err(error) => {
                self.note(&mut state, attempt, Outcome::of(&error), Some(error.to_string()), options);
                Err(error)
            }
        }
    }

    /// The state before.
    fn try_load(
        &self,
        name: &ModelName,
        version: Version,
        options: &ChangeOptions,
    ) -> Result<VersionState, RegistryError> {
        let mut state = self.lock();
        state.check_generation(name, options)?;
        let entry = state.entry(name)?;
        let unknown = || RegistryError::UnknownVersion { model: name.clone(), version };
        let before = entry.versions.get(&version).ok_or_else(unknown)?.state;
        if !options.dry_run {
            // Two loads of one version never run at once, and one that goes on may be without the allowance.
            state = self.wait_for_load(state, name, version);
        }
        let now = state.entry(name)?.versions.get(&version).ok_or_else(unknown)?.state;
        if options.accept_changed {
            // What is served must be what is noted.
            state.store.check_writable()?;
        }
        if now == VersionState::Ready && state.to_accept(name, version, options) && !options.dry_run {
            self.request(&mut state, name, version, options);
            state = self.wait_for_load(state, name, version);
            state.check_accepted(name, version)?;
        } else if matches!(now, VersionState::Unloaded | VersionState::Failed | VersionState::Discovered) {
            self.make_room(&mut state, name, version, Some(options))?;
            if options.dry_run {
                return Ok(before);
            }
            self.request(&mut state, name, version, options);
            state = self.wait_for_load(state, name, version);
            state.entry(name)?.check_ready(name, version)?;
        }
        Ok(before)
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

    /// The state before.
    fn try_unload(
        &self,
        name: &ModelName,
        version: Version,
        options: &ChangeOptions,
    ) -> Result<VersionState, RegistryError> {
        let mut state = self.lock();
        state.check_generation(name, options)?;
        let entry = state.entry(name)?;
        if entry.release.versions().any(|named| named == version) {
            return Err(RegistryError::InUse { model: name.clone(), version });
        }
        let unknown = || RegistryError::UnknownVersion { model: name.clone(), version };
        let before = entry.versions.get(&version).ok_or_else(unknown)?.state;
        if before == VersionState::Loading {
            return Err(RegistryError::NotReady { model: name.clone(), version, state: before, reason: None });
        }
        if !options.dry_run {
            self.retire(&mut state, name, version, "an operator unloaded it");
        }
        Ok(before)
    }

    /// Takes a version out of service. Its worker drops the model once the last request has let go.
    pub(super) fn retire(&self, state: &mut State, name: &ModelName, version: Version, why: &str) {
        let known = state.models.get_mut(name).and_then(|entry| entry.versions.get_mut(&version));
        let Some(known) = known else { return };
        (known.retry, known.changed) = (Retry::default(), None);
        // A new load of it that goes on is not wanted any more.
        if let Some(running) = &mut known.running {
            running.is_wanted = false;
        }
        let Some(servable) = known.servable.take() else {
            if known.state != VersionState::Draining {
                known.state = VersionState::Unloaded;
            }
            return;
        };
        known.state = VersionState::Draining;
        tracing::info!(model = %name, version = version.get(), why, "unloading");
        self.publish(state, [name]);
        self.tell_version(name, version, VersionState::Draining, why);
        drop(servable);
    }

    fn version_status(
        &self,
        state: &State,
        name: &ModelName,
        version: Version,
    ) -> Result<VersionStatus, RegistryError> {
        let status = state.entry(name)?.status(name, (self.shared.watchers.clock)());
        let unknown = || RegistryError::UnknownVersion { model: name.clone(), version };
        status.versions.into_iter().find(|status| status.version == version).ok_or_else(unknown)
    }

    /// Tells a version's new state to who watches.
    pub(super) fn tell_version(&self, name: &ModelName, version: Version, state: VersionState, message: &str) {
        let event = Event::new(Topic::Version, name, state.as_str(), message);
        self.shared.watchers.events.publish(event.of_version(version));
    }
}
