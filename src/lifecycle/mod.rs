//! Starting, being ready, and stopping; what the system lets this process use.

mod memory;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::signal::unix::{SignalKind, signal};

pub use self::memory::usable_memory;

/// True until the gateway begins to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicBool>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Readiness {
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From now on load balancers should send nothing new.
    pub fn stop(&self) {
        self.0.store(false, Ordering::Relaxed);
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
