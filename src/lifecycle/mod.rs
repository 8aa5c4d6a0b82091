//! Starting, being ready, and stopping; what the system lets this process use.

mod memory;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::signal::unix::{SignalKind, signal};

pub use self::memory::usable_memory;

/// Whether the gateway stops, and how many models must serve for it to be ready. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    is_going: Arc<AtomicBool>,
    needs_all: bool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Readiness {
    /// `needs_all`: every model that has a release must serve, otherwise one of them.
    #[must_use]
    pub fn new(needs_all: bool) -> Self {
        Self { is_going: Arc::new(AtomicBool::new(true)), needs_all }
    }

    /// True until the gateway begins to stop.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.is_going.load(Ordering::Relaxed)
    }

    /// True when so many of the released models that do not serve are no reason to send requests elsewhere.
    #[must_use]
    pub fn suffices(&self, unserved: usize, released: usize) -> bool {
        unserved == 0 || !self.needs_all && unserved < released
    }

    /// From now on load balancers should send nothing new.
    pub fn stop(&self) {
        self.is_going.store(false, Ordering::Relaxed);
    }
}

/// Waits for SIGTERM or SIGINT, and says which came.
///
/// # Errors
/// When the system refuses to report signals.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_says_how_many_released_models_must_serve() {
        for (needs_all, unserved, released, suffices) in [
            (true, 0, 0, true),
            (true, 0, 3, true),
            (true, 1, 3, false),
            (false, 2, 3, true),
            (false, 3, 3, false),
            (false, 0, 0, true),
        ] {
            let found = Readiness::new(needs_all).suffices(unserved, released);
            assert_eq!(found, suffices, "needs all: {needs_all}, {unserved} of {released}");
        }
    }
}
