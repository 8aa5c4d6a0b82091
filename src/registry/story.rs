//! Who did what when, out of the audit log, for messages to who was not the first.

use super::{
    operations::{ChangeOptions, RegistryError},
    state::State,
    status::HistoryEntry,
};
use crate::{
    domain::{ModelName, Version},
    release::{Outcome, ReleaseError},
};

/// How far back the log is looked through.
const LOOKED_AT: usize = 500;
/// Changes that a message names at most.
const NAMED: usize = 3;

impl State {
    /// # Errors
    /// When the release has another generation than the caller saw; says who changed it, and how.
    pub(super) fn check_generation(&self, name: &ModelName, options: &ChangeOptions) -> Result<(), RegistryError> {
        let found = self.entry(name)?.release.generation;
        match options.if_generation {
            Some(expected) if expected != found => {
                let since = self.changes_since(name, expected);
                Err(RegistryError::Stale { model: name.clone(), expected, found, since })
            }
            _ => Ok(()),
        }
    }

    /// The error in words that say how it came to this.
    pub(super) fn explained(&self, name: &ModelName, error: ReleaseError) -> RegistryError {
        match error {
            ReleaseError::RolledBack(version) => {
                let story = self.rolled_back(name, version).map(|story| format!(" ({story})")).unwrap_or_default();
                RegistryError::RolledBack { model: name.clone(), version, story }
            }
            error => error.into(),
        }
    }

    /// Who rolled back from a version, when and why.
    pub(super) fn rolled_back(&self, name: &ModelName, version: Version) -> Option<String> {
        let is_it = |entry: &&HistoryEntry| {
            entry.outcome == Outcome::Done
                && entry.to.rolled_back.contains(&version)
                && !entry.from.rolled_back.contains(&version)
        };
        self.log(name).iter().find(is_it).map(told)
    }

    /// The changes after a generation, oldest first; empty where the log does not say.
    fn changes_since(&self, name: &ModelName, generation: u64) -> String {
        let log = self.log(name);
        let is_later = |entry: &&HistoryEntry| {
            entry.outcome == Outcome::Done
                && entry.to.generation > generation
                && entry.from.generation < entry.to.generation
        };
        let later: Vec<_> = log.iter().rev().filter(is_later).collect();
        if later.is_empty() {
            return String::new();
        }
        let named: Vec<_> = later.iter().take(NAMED).map(|entry| told(entry)).collect();
        let more = if later.len() > NAMED { format!("; and {} more", later.len() - NAMED) } else { String::new() };
        format!(" ({}{more})", named.join("; "))
    }

    /// Newest first. A log that cannot be read only costs the words.
    fn log(&self, name: &ModelName) -> Vec<HistoryEntry> {
        self.store.history(name, LOOKED_AT).unwrap_or_default()
    }
}

/// Such as `rollback by ann at 2026-01-02T03:04:05Z, stable 3 → 2: false alarms doubled`.
fn told(entry: &HistoryEntry) -> String {
    let HistoryEntry { operation, actor, at, from, to, reason, .. } = entry;
    let at = humantime::format_rfc3339_seconds(*at);
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{operation} by {actor} at {at}, {}{reason}", from.difference(to))
}
