//! The control planes, metrics and admin, on a thread and a runtime of their own.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    admin::{AdminService, serve_admin},
    protocol::{Listeners, MetricsDoor, serve_metrics},
};

/// The running control planes.
pub(super) struct ControlPlanes {
    shutdown: CancellationToken,
    thread: JoinHandle<()>,
}

/// How long requests on the control planes may take to finish.
const GRACE: Duration = Duration::from_secs(3);

impl ControlPlanes {
    pub(super) fn start(app: &App, metrics: Listeners, admin: Listeners) -> Result<Self> {
        let shutdown = CancellationToken::new();
        let stopping = shutdown.clone();
        let (logs, events) = (app.logs.clone(), app.events.clone());
        let service = AdminService::new(app.registry.clone(), logs, events, shutdown.clone());
        let runtime = app.runtime.version();
        let disk = app.registry.state_disk();
        let notes = Arc::new(move || disk.warning());
        let door = MetricsDoor::new(Arc::clone(&app.gateway), Arc::clone(&app.metrics), runtime, notes);
        // The listeners move to the other runtime through the system's own handles.
        let (metrics, admin) = (metrics.into_std()?, admin.into_std()?);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (metrics, admin) = (Listeners::from_std(metrics)?, Listeners::from_std(admin)?);
                let serving = async {
                    tokio::join!(
                        serve_metrics(metrics, door, stopping.clone()),
                        serve_admin(admin, service, stopping.clone()),
                    );
                };
                tokio::select! {
                    () = serving => {}
                    () = async { stopping.cancelled().await; tokio::time::sleep(GRACE).await } => {}
                }
                Ok::<(), std::io::Error>(())
            })
        };
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                if let Err(error) = run() {
                    tracing::error!(%error, "the control planes could not run");
                }
            })
            .context("cannot start the control planes' thread")?;
        Ok(Self { shutdown, thread })
    }

    /// Ends the planes and waits for them.
    pub(super) fn stop(self) {
        self.shutdown.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the control planes' thread panicked");
        }
    }
}
