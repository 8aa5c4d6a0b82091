//! What a version without a profile is compared with, and why it is not yet.

use super::state::Entry;
use crate::domain::Version;

impl Entry {
    /// The version whose live rows one without a profile is compared with: the stable one, or the one before it.
    pub(super) fn baseline_of(&self, version: Version) -> Option<Version> {
        // What a version saw itself is no baseline for it.
        [self.release.stable, self.release.previous].into_iter().flatten().find(|other| *other != version)
    }

    /// What a comparison with the stable version waits for.
    pub(super) fn awaited(&self, version: Version) -> String {
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
