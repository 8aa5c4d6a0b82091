//! What the monitor of a version says of rows drawn from its own profile.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{Registry, RegistryError};
use crate::{
    domain::{ModelName, Version},
    monitor::SelfTest,
};

impl Registry {
    /// The self-test of a version's monitor, at as many rows as it counted in the window: one to two seconds of work at most.
    /// One is done at a time, so that their memory and work are bounded: others wait.
    pub fn drift_self_test(
        &self,
        name: &ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    ) -> Result<SelfTest, RegistryError> {
        let (version, monitor, signature) = {
            let state = self.lock();
            let entry = state.entry(name)?;
            let version = version.or(entry.release.stable).ok_or_else(|| RegistryError::NoStable(name.clone()))?;
            entry.check_ready(name, version)?;
            let servable = entry.versions.get(&version).and_then(|known| known.servable.as_ref());
            let watched =
                servable.and_then(|servable| Some((servable.watch.monitor()?, Arc::clone(&servable.signature))));
            let unmonitored = || RegistryError::NotMonitored { model: name.clone(), version };
            let (monitor, signature) = watched.ok_or_else(unmonitored)?;
            (version, monitor, signature)
        };
        let longest = monitor.window_lengths().iter().max().copied().unwrap_or_default();
        if window.is_some_and(|window| window.is_zero() || window > longest) {
            return Err(RegistryError::Window { longest });
        }
        let _only_one = self.shared.self_test.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(monitor.self_test((name, version), &signature, window, (self.shared.watchers.clock)()))
    }
}
