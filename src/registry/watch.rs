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

/// How often the repository is looked at.
#[derive(Debug, Clone, Copy)]
struct Pace {
    poll_interval: Duration,
    settle: Duration,
    /// False where only looking tells of changes.
    has_events: bool,
}

impl Pace {
    /// How long to wait for an event after a look that used so much of a processor.
    fn pause(&self, is_unsettled: bool, used: Duration) -> Duration {
        if is_unsettled {
            self.settle.max(BURST).min(self.poll_interval)
        } else if self.has_events {
            self.poll_interval.max(used.saturating_mul(PAUSE))
        } else {
            self.poll_interval
        }
    }
}

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
            let pace = Pace { poll_interval, settle: options.settle, has_events: subscription.is_some() };
            let look = || {
                let started = thread_time();
                let is_unsettled = registry.scan();
                let pause = pace.pause(is_unsettled, thread_time().saturating_sub(started));
                // A load that failed for a passing reason is tried again in its own time.
                registry.until_next_retry().map_or(pause, |retry| pause.min(retry.max(BURST)))
            };
            keep_looking(&woken, look, || thread::sleep(BURST));
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

/// Looks at once, after each event, and whenever the pause that the last look asked for is over.
/// `let_burst_pass` is called between an event and the look at what it was about.
fn keep_looking(woken: &mpsc::Receiver<Wake>, mut look: impl FnMut() -> Duration, mut let_burst_pass: impl FnMut()) {
    loop {
        match woken.recv_timeout(look()) {
            Ok(Wake::Changed) => let_burst_pass(),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        // The next look sees what the rest of the burst was about.
        if let Ok(Wake::Stop) = woken.try_recv() {
            return;
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

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::MAX;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn looks_that_no_event_asked_for_take_at_most_a_thousandth_of_a_processor() {
        let pace = Pace { poll_interval: seconds(5), settle: seconds(1), has_events: true };
        assert_eq!(pace.pause(false, Duration::ZERO), seconds(5));
        assert_eq!(pace.pause(false, Duration::from_millis(5)), seconds(5));
        assert_eq!(pace.pause(false, Duration::from_millis(60)), seconds(60));
        assert_eq!(pace.pause(false, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn without_events_the_repository_is_polled_however_long_a_look_takes() {
        let pace = Pace { poll_interval: seconds(5), settle: seconds(1), has_events: false };
        assert_eq!(pace.pause(false, seconds(60)), seconds(5));
    }

    #[test]
    fn what_has_not_settled_is_looked_at_again_once_it_may_have() {
        for has_events in [true, false] {
            let pace = |settle| Pace { poll_interval: seconds(5), settle, has_events };
            assert_eq!(pace(seconds(1)).pause(true, seconds(60)), seconds(1));
            assert_eq!(pace(Duration::ZERO).pause(true, seconds(60)), BURST);
            assert_eq!(pace(seconds(60)).pause(true, seconds(60)), seconds(5));
        }
    }

    /// Watches with looks that say that they began, and go on when the test says how long to
    /// pause. What `let_burst_pass` does is the test's too.
    fn watched(
        let_burst_pass: impl FnMut() + Send + 'static,
        woken: mpsc::Receiver<Wake>,
    ) -> (mpsc::Receiver<()>, mpsc::Sender<Duration>, JoinHandle<()>) {
        let (began_sender, began) = mpsc::channel();
        let (pause, pauses) = mpsc::channel();
        let look = move || {
            began_sender.send(()).unwrap();
            pauses.recv().unwrap()
        };
        (began, pause, thread::spawn(move || keep_looking(&woken, look, let_burst_pass)))
    }

    #[test]
    fn events_during_a_look_are_answered_with_one_more() {
        let (wake, woken) = mpsc::sync_channel(1);
        let (began, pause, watcher) = watched(|| {}, woken);
        began.recv().unwrap();
        for _ in 0..5 {
            let _ = wake.try_send(Wake::Changed);
        }
        pause.send(NEVER).unwrap();
        began.recv().unwrap();
        wake.send(Wake::Stop).unwrap();
        pause.send(NEVER).unwrap();
        watcher.join().unwrap();
        assert!(began.try_recv().is_err());
    }

    #[test]
    fn burst_of_events_is_answered_with_one_look() {
        let (wake, woken) = mpsc::sync_channel(1);
        let more = wake.clone();
        let burst = move || {
            for _ in 0..5 {
                let _ = more.try_send(Wake::Changed);
            }
        };
        let (began, pause, watcher) = watched(burst, woken);
        began.recv().unwrap();
        wake.send(Wake::Changed).unwrap();
        pause.send(NEVER).unwrap();
        began.recv().unwrap();
        wake.send(Wake::Stop).unwrap();
        pause.send(NEVER).unwrap();
        watcher.join().unwrap();
        assert!(began.try_recv().is_err());
    }

    #[test]
    fn look_follows_when_the_pause_is_over() {
        let (wake, woken) = mpsc::sync_channel(1);
        let (began, pause, watcher) = watched(|| {}, woken);
        for _ in 0..3 {
            began.recv().unwrap();
            pause.send(Duration::ZERO).unwrap();
        }
        began.recv().unwrap();
        drop(wake);
        pause.send(NEVER).unwrap();
        watcher.join().unwrap();
    }

    #[test]
    fn end_is_not_put_off_by_a_burst() {
        let (wake, woken) = mpsc::sync_channel(1);
        let stop = wake.clone();
        let (began, pause, watcher) = watched(move || stop.send(Wake::Stop).unwrap(), woken);
        began.recv().unwrap();
        wake.send(Wake::Changed).unwrap();
        pause.send(NEVER).unwrap();
        watcher.join().unwrap();
        assert!(began.try_recv().is_err());
    }
}
