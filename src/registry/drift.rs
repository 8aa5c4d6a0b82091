//! What the monitors of versions say.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{Registry, RegistryError, state::State};
use crate::{
    domain::{ModelName, Version},
    monitor::{Against, Drift, DriftQuery, Lacking, SelfTest, VersionMonitor, Watch},
    route::Servable,
};

/// How long a drift view waits for the monitor to catch up, at most.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

impl Registry {
    /// The drift of a version. Everything answered before the call is in it.
    pub fn drift(&self, name: &ModelName, query: &DriftQuery) -> Result<Drift, RegistryError> {
        let (version, (watching, watch)) = {
            let state = self.lock();
            let entry = state.entry(name)?;
            let no_stable = || RegistryError::NoStable(name.clone());
            let stable = entry.release.stable;
            let (version, watching) = match query.against {
                Against::Profile => {
                    let version = query.version.or(stable).ok_or_else(no_stable)?;
                    (version, version)
                }
                Against::Stable => {
                    let canary = entry.release.canary.map(|canary| canary.version);
                    let no_canary = || RegistryError::NoCanary(name.clone());
                    (query.version.or(canary).ok_or_else(no_canary)?, stable.ok_or_else(no_stable)?)
                }
            };
            (version, (watching, watch_of(&state, name, watching)?))
        };
        if !self.shared.watchers.monitor.settle(SETTLE_LIMIT) {
            tracing::warn!(model = %name, "the monitor is behind: the drift view misses the latest rows");
        }
        check_window(&watch, query.window)?;
        let now = (self.shared.watchers.clock)();
        let monitor = match self.monitor_of(&watch, name, watching, now) {
            Ok(monitor) => monitor,
            // Of rows that are compared with others there is nothing to say before.
            Err(RegistryError::Learning { model, version, progress }) if query.against == Against::Profile => {
                return Ok(Drift::Learning { model, version, progress });
            }
            Err(error) => return Err(error),
        };
        let report = |window| match (query.against, &query.segment) {
            (Against::Profile, None) => Some(monitor.report(name, version, window, now)),
            (Against::Profile, Some(segment)) => monitor.report_of_segment((name, version), segment, window, now),
            (Against::Stable, _) => monitor.report_of_canary((name, version), window, now),
        };
        let found = query.window.map_or_else(|| monitor.telling(report), report);
        found.map(Drift::Report).ok_or_else(|| match &query.segment {
            Some(segment) => RegistryError::NoSegment { model: name.clone(), segment: segment.clone() },
            None => RegistryError::NotCompared { model: name.clone(), version },
        })
    }

    /// The self-test of a version's monitor, at as many rows as it counted in the window: one to two seconds of work at most.
    /// One is done at a time, so that their memory and work are bounded: others wait.
    pub fn drift_self_test(
        &self,
        name: &ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    ) -> Result<SelfTest, RegistryError> {
        let (version, servable) = {
            let state = self.lock();
            let stable = state.entry(name)?.release.stable;
            let version = version.or(stable).ok_or_else(|| RegistryError::NoStable(name.clone()))?;
            (version, servable_of(&state, name, version)?)
        };
        let watch = servable.as_ref().map(|servable| Arc::clone(&servable.watch)).unwrap_or_default();
        check_window(&watch, window)?;
        let monitor = self.monitor_of(&watch, name, version, (self.shared.watchers.clock)())?;
        let unmonitored = || RegistryError::NotMonitored { model: name.clone(), version };
        let signature = &servable.as_ref().ok_or_else(unmonitored)?.signature;
        let _only_one = self.shared.self_test.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(monitor.self_test((name, version), signature, window, (self.shared.watchers.clock)()))
    }

    fn monitor_of(
        &self,
        watch: &Watch,
        name: &ModelName,
        version: Version,
        now: Duration,
    ) -> Result<Arc<VersionMonitor>, RegistryError> {
        let model = name.clone();
        watch.monitor().ok_or_else(|| match watch.lacking(now) {
            Some(Lacking::Learning(progress)) => RegistryError::Learning { model, version, progress },
            Some(Lacking::Failed) => RegistryError::NotLearnt { model, version },
            None if watch.is_waiting() => {
                let what = self.lock().entry(name).map(|entry| entry.awaited(version)).unwrap_or_default();
                RegistryError::AwaitsBaseline { model, version, what }
            }
            None => RegistryError::NotMonitored { model, version },
        })
    }
}

/// Whether a version has rows of as long ago, or will have.
fn check_window(watch: &Watch, window: Option<Duration>) -> Result<(), RegistryError> {
    match (window, watch.longest_window()) {
        (Some(window), Some(longest)) if window.is_zero() || window > longest => Err(RegistryError::Window { longest }),
        _ => Ok(()),
    }
}

/// What watches a version that is ready.
fn watch_of(state: &State, name: &ModelName, version: Version) -> Result<Arc<Watch>, RegistryError> {
    let servable = servable_of(state, name, version)?;
    Ok(servable.map(|servable| Arc::clone(&servable.watch)).unwrap_or_default())
}

/// A version that is ready; `None` while it is on its way to be.
fn servable_of(state: &State, name: &ModelName, version: Version) -> Result<Option<Arc<Servable>>, RegistryError> {
    let entry = state.entry(name)?;
    entry.check_ready(name, version)?;
    Ok(entry.versions.get(&version).and_then(|known| known.servable.clone()))
}
