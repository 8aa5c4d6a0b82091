//! Notices changes of the repository: file events where the system sends them, polling always.

use std::{
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use notify::Watcher as _;

use super::Registry;
use crate::schedule::thread_time;

/// The thread that keeps the book in step with the disk. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watcher {
    wake: Option<mpsc::SyncSender<Wake>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Wake {
    Changed,
    Stop,
}

/// Events come in bursts: one look serves all that arrive within this time.
const BURST: Duration = Duration::from_millis(50);

/// A look that no event asked for comes at the earliest after this many times the processor time
/// of the last one: a repository of thousands of models must not keep an idle gateway busy. The
/// processor's time, since a slow network file system costs nothing while it is waited for.
const PAUSE: u32 = 1000;

impl Watcher {
    /// Starts watching; looks at the repository at once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(registry: Registry, poll_interval: Duration) -> std::io::Result<Self> {
        // One waiting wake-up is enough: it stands for all that happened before it is taken.
        let (wake, woken) = mpsc::sync_channel(1);
        let events = wake.clone();
        let thread = thread::Builder::new().name("repository".into()).spawn(move || {
            let options = &registry.shared.options;
            let subscription = subscribe(&options.models, events);
            loop {
                let started = thread_time();
                let is_unsettled = registry.scan();
                let pause = poll_interval.max(thread_time().saturating_sub(started) * PAUSE);
                let wait = match &subscription {
                    _ if is_unsettled => options.settle.max(BURST).min(poll_interval),
                    Some(_) => pause,
                    None => poll_interval,
                };
                // A load that failed for a passing reason is tried again in its own time.
                let wait = registry.until_next_retry().map_or(wait, |retry| wait.min(retry.max(BURST)));
                match woken.recv_timeout(wait) {
                    Ok(Wake::Changed) => thread::sleep(BURST),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Ok(Wake::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(wake) = self.wake.take() {
            // The slot may be taken by an event: it is drained, then this goes in.
            let _ = wake.send(Wake::Stop);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn subscribe(models: &Path, wake: mpsc::SyncSender<Wake>) -> Option<notify::RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too: answering it with a read would never end.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = wake.try_send(Wake::Changed);
        }
    };
    let subscription = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(models, notify::RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    subscription
        .inspect_err(|error| tracing::warn!(%error, "no file events for the repository: it is polled only"))
        .ok()
}
