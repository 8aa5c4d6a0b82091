//! Versions that are gone from disk.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Registry,
    admission::version_directory,
    disk::{Fingerprint, FoundModel},
    state::{State, VersionEntry},
    status::VersionState,
};
use crate::domain::{ModelName, Version};

/// Takes out of the book what is gone from disk. A version that the release names stays, and goes on
/// serving if it does: losing the files is no reason to lose the traffic. Says which models changed.
pub(super) fn forget_gone(state: &mut State, found: &BTreeMap<ModelName, FoundModel>) -> BTreeSet<ModelName> {
    let mut warnings = Vec::new();
    let mut changed = BTreeSet::new();
    for (name, entry) in &mut state.models {
        let on_disk = found.get(name);
        let named: Vec<Version> = entry.release.versions().collect();
        let before = entry.versions.len();
        entry.versions.retain(|version, known| {
            if on_disk.is_some_and(|model| model.versions.contains_key(version)) || known.running.is_some() {
                return true;
            }
            if known.servable.is_some() && named.contains(version) {
                warnings.push(format!("version {version} of model '{name}' is gone from disk; it goes on serving"));
            }
            (known.seen, known.is_change_told) = (Fingerprint::default(), true);
            named.contains(version)
        });
        if entry.versions.len() != before {
            changed.insert(name.clone());
        }
    }
    for warning in warnings {
        warn_once(state, warning);
    }
    for (name, entry) in &mut state.models {
        if !found.contains_key(name) {
            entry.misplaced.clear();
        }
    }
    let State { models, stored, .. } = state;
    models.retain(|name, entry| {
        let is_kept = !entry.versions.is_empty() || !entry.release.is_empty() || !entry.misplaced.is_empty();
        if !is_kept && entry.release.generation > 0 {
            // Its generation goes on when a model of this name comes again.
            stored.insert(name.clone(), entry.release.clone());
        }
        is_kept
    });
    changed
}

impl Registry {
    /// Enters versions that the release names and that are not on disk as failed: that requests find nothing must
    /// not go unnoticed. Says which models changed.
    pub(super) fn miss_released(&self, state: &mut State) -> BTreeSet<ModelName> {
        let mut missed = Vec::new();
        for (name, entry) in &mut state.models {
            let named: BTreeSet<Version> = entry.release.versions().collect();
            for version in named {
                let directory = version_directory(&entry.directory, version);
                let absent = || VersionEntry::discovered(Fingerprint::default());
                let known = entry.versions.entry(version).or_insert_with(absent);
                if known.miss(&directory) {
                    let reason = known.reason.clone().unwrap_or_default();
                    tracing::warn!(model = %name, version = version.get(), reason, "the release names a version that is gone");
                    missed.push((name.clone(), version, reason));
                }
            }
        }
        for (name, version, reason) in &missed {
            self.tell_version(name, *version, VersionState::Failed, reason);
        }
        missed.into_iter().map(|(name, ..)| name).collect()
    }
}

pub(super) fn warn_once(state: &mut State, message: String) {
    if !state.warned.contains(&message) {
        tracing::warn!("{message}");
        state.warned.insert(message);
    }
}
