//! The thread that carries rollouts on.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::registry::Registry;

/// The thread that looks at rollouts. Dropping it ends the thread.
#[derive(Debug)]
pub struct RolloutDriver {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RolloutDriver {
    /// # Errors
    /// When the system gives no thread.
    pub fn start(registry: Registry, every: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("rollout".into()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                registry.look_at_rollouts();
                registry.look_at_traffic();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RolloutDriver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the rollouts panicked");
        }
    }
}
