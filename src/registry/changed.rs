//! Files of a released version that are others now: the loaded model goes on until somebody accepts the new one.
//!
//! What a released version is, the store remembers: the digests of its model file and of the files of its weights
//! ([`ModelFiles`]). A load of a released version that finds another model is refused in the admission, at a restart as in a
//! running gateway. A new profile, new golden requests, or the same files written anew are loaded as ever.

use std::collections::BTreeSet;

use super::{
    Registry,
    operations::{ChangeOptions, RegistryError},
    state::{Entry, State, VersionEntry},
    status::VersionState,
};
use crate::{
    config::ReloadChanged,
    domain::{ModelName, Version},
    events::{Event, Topic},
    release::Release,
    store::{ModelFiles, Released, ReleasedRow},
};

/// How long a version serves what was loaded, though its files are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    RolloutIsOver,
    Accepted,
    Admitted,
}

impl Until {
    pub(super) fn of(is_compared: bool, is_kept: bool) -> Self {
        match (is_compared, is_kept) {
            (true, _) => Self::RolloutIsOver,
            (false, true) => Self::Accepted,
            (false, false) => Self::Admitted,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RolloutIsOver => "until its rollout is over",
            Self::Accepted => "and, if they are another model, until somebody accepts that",
            Self::Admitted => "until the new ones are admitted",
        }
    }
}

impl Entry {
    pub(super) fn reload_changed(&self, default: ReloadChanged) -> ReloadChanged {
        let own = self.config.as_ref().as_ref().ok().and_then(|config| config.release.reload_changed);
        own.unwrap_or(default)
    }
}

impl State {
    /// The files that a load of a version must find; `None`: whatever is there.
    pub(super) fn expected(&self, model: &ModelName, version: Version, default: ReloadChanged) -> Option<ModelFiles> {
        let entry = self.models.get(model)?;
        let is_released = entry.release.versions().any(|named| named == version);
        if !is_released || entry.reload_changed(default) == ReloadChanged::Auto {
            return None;
        }
        self.released.get(&(model.clone(), version)).cloned()
    }

    /// What is to be noted of the files of a model's versions when its release becomes `next`.
    pub(super) fn released_by(&self, model: &ModelName, next: &Release) -> Vec<(Version, Option<ModelFiles>)> {
        let named: BTreeSet<Version> = next.versions().collect();
        let is_known = |version: Version| self.released.contains_key(&(model.clone(), version));
        let entry = self.models.get(model);
        let files = |version: Version| entry?.versions.get(&version)?.files.clone();
        let new = named.iter().copied().filter(|version| !is_known(*version));
        let new = new.filter_map(|version| Some((version, Some(files(version)?))));
        let known = self.released.keys().filter(|(name, version)| name == model && !named.contains(version));
        new.chain(known.map(|(_, version)| (*version, None))).collect()
    }

    /// Enters it into the book, once it is durable.
    pub(super) fn enter_released(&mut self, model: &ModelName, rows: Vec<(Version, Option<ModelFiles>)>) {
        for (version, files) in rows {
            enter(&mut self.released, model, version, files);
        }
    }

    /// Notes the files of released versions that were loaded without being accepted one by one: those of a state that an
    /// older program wrote, and those that `reload_changed = "auto"` takes.
    pub(super) fn note_loaded(&mut self, loaded: &[(ModelName, Version)]) {
        let rows: Vec<_> = loaded
            .iter()
            .filter_map(|(model, version)| {
                let entry = self.models.get(model)?;
                let files = entry.versions.get(version)?.files.clone()?;
                let is_released = entry.release.versions().any(|named| named == *version);
                let is_new = self.released.get(&(model.clone(), *version)) != Some(&files);
                (is_released && is_new).then(|| (model.clone(), *version, files))
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        let written: Vec<_> = rows
            .iter()
            .map(|(model, version, files)| ReleasedRow { model, version: *version, files: Some(files) })
            .collect();
        if let Err(error) = self.store.commit_all(&[], &[], &written) {
            tracing::error!(%error, "cannot note what the files of released versions are");
        }
        for (model, version, files) in rows {
            enter(&mut self.released, &model, version, Some(files));
        }
    }

    /// Whether an operator's load has something to accept, and what was released until then.
    pub(super) fn to_accept(&self, model: &ModelName, version: Version, options: &ChangeOptions) -> bool {
        let known = self.models.get(model).and_then(|entry| entry.versions.get(&version));
        options.accept_changed && known.is_some_and(VersionEntry::files_changed)
    }

    /// # Errors
    /// When a version that serves has not taken the files that were to be accepted.
    pub(super) fn check_accepted(&self, model: &ModelName, version: Version) -> Result<(), RegistryError> {
        let known = self.entry(model)?.versions.get(&version);
        match known.filter(|known| known.state == VersionState::Ready && known.files_changed()) {
            Some(known) => {
                let reason = known.reason.clone().unwrap_or_else(|| "they changed again".into());
                Err(RegistryError::NotAccepted { model: model.clone(), version, reason })
            }
            None => Ok(()),
        }
    }
}

fn enter(released: &mut Released, model: &ModelName, version: Version, files: Option<ModelFiles>) {
    match files {
        Some(files) => drop(released.insert((model.clone(), version), files)),
        None => drop(released.remove(&(model.clone(), version))),
    }
}

impl Registry {
    /// Says that the files of a released version are others.
    pub(super) fn tell_changed_files(&self, model: &ModelName, version: Version, message: &str) {
        let event = Event::new(Topic::Version, model, "files_changed", message);
        self.shared.watchers.events.publish(event.of_version(version));
    }
}
