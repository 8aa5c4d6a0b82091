//! What the counters of a version show to those who scrape. They never fall, but to nothing.
//!
//! A monitor goes on from counts that another one left: those of a process that was killed are a little below what was scraped
//! of it, and a monitor that is replaced may count a last row after it was saved. Prometheus takes every fall of a
//! counter for a new start, and all that the counter shows then for new. So a process shows what it has counted itself, from 0
//! on, and goes on from what it has shown where a version is loaded again.

use std::collections::HashMap;

use super::VersionMonitor;
use crate::domain::{ModelName, Version};

/// Once more versions than this are known, those that are not loaded are forgotten: they would begin at 0 again.
const KEPT: usize = 1_000;

/// What was shown of every version.
#[derive(Debug, Default)]
pub(super) struct Exported {
    versions: HashMap<(ModelName, Version), Shown>,
    scrape: u64,
}

/// The counters of a version at the last scrape of it.
#[derive(Debug)]
struct Shown {
    /// [`VersionMonitor::id`], and of what it counts.
    monitor: u64,
    digest: u64,
    /// What the monitor had counted, what it had begun with included.
    counted: Counted,
    to_scrapers: Counted,
    scrape: u64,
}

/// The counters of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    /// Rows by cell.
    pub(super) cells: Vec<u64>,
    pub(super) violations: u64,
}

impl Counted {
    fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// 0 where the other has more.
    fn less(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(&self, other: &Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let cells = self.cells.iter().zip(&other.cells).map(|(own, other)| of(*own, *other)).collect();
        Self { cells, violations: of(self.violations, other.violations) }
    }
}

impl Exported {
    /// A scrape begins.
    pub(super) fn begin(&mut self) {
        let last = self.scrape;
        if self.versions.len() > KEPT {
            self.versions.retain(|_, shown| shown.scrape == last);
        }
        self.scrape += 1;
    }

    /// What this scrape shows of a version that this monitor watches.
    pub(super) fn show(&mut self, model: &ModelName, version: Version, monitor: &VersionMonitor) -> Counted {
        let (started, counted) = (monitor.started(), monitor.counted());
        let key = (model.clone(), version);
        let shown = match self.versions.get(&key) {
            Some(last) if last.monitor == monitor.id() => last.to_scrapers.plus(&counted.less(&last.counted)),
            // It went on from what the last one left. What that one had counted after its last scrape is new too.
            Some(last) if last.digest == monitor.digest() => {
                last.to_scrapers.plus(&started.less(&last.counted)).plus(&counted.less(&started))
            }
            _ => counted.less(&started),
        };
        let (id, digest) = (monitor.id(), monitor.digest());
        let known = Shown { monitor: id, digest, counted, to_scrapers: shown.clone(), scrape: self.scrape };
        self.versions.insert(key, known);
        shown
    }
}
