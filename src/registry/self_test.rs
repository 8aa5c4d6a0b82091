//! What the monitor of a version says of rows drawn from its own profile.

use std::time::Duration;

use super::{Registry, RegistryError};
use crate::{
    domain::{ModelName, Version},
    monitor::SelfTest,
};

impl Registry {
    /// The self-test of a version's monitor, at as many rows as it counted in the window. About a second of work.
    pub fn drift_self_test(
        &self,
        name: &ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    ) -> Result<SelfTest, RegistryError> {
        let (version, monitor) = {
            let state = self.lock();
            let entry = state.entry(name)?;
            let version = version.or(entry.release.stable).ok_or_else(|| RegistryError::NoStable(name.clone()))?;
            entry.check_ready(name, version)?;
            let servable = entry.versions.get(&version).and_then(|known| known.servable.as_ref());
            let monitor = servable.and_then(|servable| servable.watch.monitor());
            (version, monitor.ok_or_else(|| entry.unwatched(name, version))?)
        };
        let longest = monitor.window_lengths().iter().max().copied().unwrap_or_default();
        if window.is_some_and(|window| window.is_zero() || window > longest) {
            return Err(RegistryError::Window { longest });
        }
        Ok(monitor.self_test(name, version, window, (self.shared.watchers.clock)()))
    }
}
