//! What a monitor leaves to the next one of its version: its counts, as the bytes of a file.

use std::{
    io,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::VersionMonitor;
use crate::{
    domain::Version,
    monitor::{
        comparison::Comparison,
        saved::{self, Part, SavedCounts, SavedError},
    },
};

impl VersionMonitor {
    /// The content of a file that [`VersionMonitor::restore`] goes on from.
    ///
    /// # Errors
    /// Never: the bytes are in memory; the compressor cannot say so.
    pub fn save(&self) -> io::Result<Vec<u8>> {
        // Before the rows of this version: what it had counted when the comparison began must be among them.
        let canary = self.canary.load_full().map(|canary| canary.save());
        let all = std::iter::once((Part::All, self.counts.save()));
        let segments = self.segments.save().into_iter().map(|(name, counts)| (Part::Segment(name), counts));
        let parts = all.chain(segments).chain(canary.into_iter().flatten());
        saved::encode(self.digest, &parts.map(|(part, counts)| (part.to_string(), counts)).collect::<Vec<_>>())
    }

    /// Goes on from what was saved; false when it was saved of another profile or with other windows.
    ///
    /// # Errors
    /// When the bytes are damaged; nothing changes then.
    pub fn restore(&self, bytes: &[u8], now: Duration) -> Result<bool, SavedError> {
        let Some(saved) = saved::decode(self.digest, bytes)? else { return Ok(false) };
        let (mut is_restored, mut before, mut canary) = (false, None, None);
        for (name, counts) in saved {
            match name.parse() {
                Ok(Part::All) => is_restored = self.counts.restore(counts, now),
                Ok(Part::Segment(segment)) => self.segments.restore(&segment, counts, now),
                Ok(Part::BeforeCanary(version)) => before = Some((version, counts.totals)),
                Ok(Part::Canary(version)) => canary = Some((version, counts)),
                // Of a later program.
                Err(_) => {}
            }
        }
        if is_restored && let (Some(before), Some(canary)) = (before, canary) {
            self.restore_canary(before, canary, now);
        }
        self.changed();
        Ok(is_restored)
    }

    fn restore_canary(&self, before: (Version, Vec<u64>), (version, counts): (Version, SavedCounts), now: Duration) {
        let saved = (before.0 == version).then_some((before.1, counts));
        let totals = self.totals();
        let canary =
            saved.and_then(|saved| Comparison::restored(version, saved, &totals, &self.settings, now)).map(Arc::new);
        if canary.is_none() {
            tracing::warn!(version = version.get(), "saved rows of a canary contradict those of the version");
        }
        self.canary.store(canary);
    }

    /// The right to write the counts to their file: two at once would mix up their bytes.
    pub(in crate::monitor) fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on from another monitor of the same version, loaded before.
    pub fn adopt(&self, before: &Self, now: Duration) {
        match before.save().map_err(SavedError::from).and_then(|bytes| self.restore(&bytes, now)) {
            Ok(true) => {
                self.counts.adopt_runs(&before.counts);
                self.looks.adopt(&before.looks);
                // What a scrape finds from now on. Nothing of it is news.
                drop(self.look(now));
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the counts of the version do not go on"),
        }
        let violations = before.violations.load(Ordering::Relaxed);
        self.started_violations.fetch_add(violations, Ordering::Relaxed);
        self.violations.fetch_add(violations, Ordering::Relaxed);
    }

    /// A number that grows when something is counted, rows of a canary included, and when counts go on from others.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
