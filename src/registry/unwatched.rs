//! Why the drift of a version is not watched, and what to do about it.

use super::{RegistryError, state::Entry};
use crate::domain::{ModelName, Version};

impl Entry {
    /// What to tell somebody who asks for the drift of a version that has no monitor.
    pub(super) fn unwatched(&self, name: &ModelName, version: Version) -> RegistryError {
        let model = name.clone();
        let servable = self.versions.get(&version).and_then(|known| known.servable.as_ref());
        match servable.map(|servable| &servable.watch) {
            Some(watch) if watch.is_waiting() => {
                RegistryError::AwaitsBaseline { model, version, what: self.awaited(version) }
            }
            Some(watch) if watch.wants_rows() => RegistryError::Learning { model, version },
            _ => RegistryError::NotMonitored { model, version },
        }
    }

    /// The version whose live rows one without a profile is compared with: the stable one, or the one before it.
    pub(super) fn baseline_of(&self, version: Version) -> Option<Version> {
        // What a version saw itself is no baseline for it.
        [self.release.stable, self.release.previous].into_iter().flatten().find(|other| *other != version)
    }

    /// What a comparison with the stable version waits for.
    fn awaited(&self, version: Version) -> String {
        let Some(other) = self.baseline_of(version) else {
            return "there is no other version to compare it with: give it a profile.json (`tidegate profile`), or set \
                    monitor.baseline = { learn = \"24h\" }"
                .into();
        };
        let servable = self.versions.get(&other).and_then(|known| known.servable.as_ref());
        if servable.is_some_and(|servable| servable.watch.monitor().is_some()) {
            return format!(
                "that takes min_rows rows of version {other} in the longest window, and a row that version {version} answers"
            );
        }
        format!("version {other} is not watched itself: give it a profile.json (`tidegate profile`)")
    }
}
