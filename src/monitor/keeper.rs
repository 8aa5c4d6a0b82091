//! The monitor's second thread: computes distances and verdicts once a second, tells of those that changed, looks whether
//! monitors that are waited for can begin, saves counts now and then, and deletes what was kept of versions that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Change, Clock, VersionMonitor, Watch, leftovers};
use crate::domain::{ModelName, Version};

/// How often verdicts are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often what is kept of versions that are gone is looked for.
const SWEEP_EVERY: Duration = Duration::from_hours(24);

/// A version that is loaded, and what watches it.
pub type Watched = (ModelName, Version, Arc<Watch>);

/// Is told of a verdict that changed.
pub type Teller = Box<dyn Fn(&ModelName, Version, &Change) + Send>;

/// Says which versions are in the repository, loaded or not; `None` when it could not be read.
pub type KnownVersions = Box<dyn Fn() -> Option<BTreeSet<(ModelName, Version)>> + Send>;

/// What a [`Keeper`] needs.
pub struct KeeperOptions {
    /// The versions that are loaded now.
    pub versions: Box<dyn Fn() -> Vec<Watched> + Send>,
    pub clock: Clock,
    /// Where counts are saved.
    pub directory: PathBuf,
    pub save_interval: Duration,
    pub known: KnownVersions,
    /// How long counts and profiles of a version that is gone are kept.
    pub keep_gone: Duration,
    /// Is told of every verdict that changed.
    pub tell: Teller,
}

/// The thread. When it is dropped, it saves all counts and ends.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// # Errors
    /// When the system gives no thread.
    pub fn start(options: KeeperOptions) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("drift".into()).spawn(move || {
            let mut kept = Kept::default();
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                kept.round(&options);
            }
            // Versions that came since the last round are to be saved too.
            kept.round(&options);
            kept.save_all(&options.directory);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at drift panicked");
        }
    }
}

/// The versions of the last round. One that is unloaded is saved by who unloads it, before it can be loaded again.
#[derive(Default)]
struct Kept {
    versions: BTreeMap<(ModelName, Version), KeptVersion>,
    saved: Duration,
    swept: Option<Duration>,
}

struct KeptVersion {
    watch: Arc<Watch>,
    /// `None` while its profile is learnt.
    monitor: Option<Arc<VersionMonitor>>,
    /// [`VersionMonitor::changes`] when it was saved.
    saved: u64,
}

impl Kept {
    fn round(&mut self, options: &KeeperOptions) {
        let now = (options.clock)();
        let mut versions = BTreeMap::new();
        for (model, version, watch) in (options.versions)() {
            watch.look_for_monitor();
            let monitor = watch.monitor();
            for change in monitor.iter().flat_map(|monitor| monitor.look(now)) {
                (options.tell)(&model, version, &change);
            }
            let place = (model, version);
            let is_same =
                |known: &KeptVersion| known.monitor.as_ref().map(Arc::as_ptr) == monitor.as_ref().map(Arc::as_ptr);
            let saved = self.versions.remove(&place).filter(is_same).map_or(0, |known| known.saved);
            versions.insert(place, KeptVersion { watch, monitor, saved });
        }
        self.versions = versions;
        if now.saturating_sub(self.saved) >= options.save_interval {
            self.saved = now;
            self.save_all(&options.directory);
        }
        let is_due = self.swept.is_none_or(|swept| now.saturating_sub(swept) >= SWEEP_EVERY);
        if is_due && let Some(known) = (options.known)() {
            self.swept = Some(now);
            leftovers::sweep(&options.directory, &known, options.keep_gone, now);
        }
    }

    fn save_all(&mut self, directory: &Path) {
        for ((model, version), KeptVersion { watch, monitor, saved }) in &mut self.versions {
            let now = monitor.as_ref().map(|monitor| monitor.changes());
            if now != Some(*saved) {
                save(directory, model, *version, watch);
                *saved = now.unwrap_or_default();
            }
        }
    }
}

/// Where the counts of a version are saved.
fn path(directory: &Path, model: &ModelName, version: Version) -> PathBuf {
    directory.join(model.as_str()).join(format!("{version}.counts"))
}

/// Where the profile that a version learnt is kept.
#[must_use]
pub fn learnt_profile_path(directory: &Path, model: &ModelName, version: Version) -> PathBuf {
    directory.join(model.as_str()).join(format!("{version}.profile.json"))
}

/// Where the rows are kept that a version learns its profile from.
#[must_use]
pub fn learning_path(directory: &Path, model: &ModelName, version: Version) -> PathBuf {
    directory.join(model.as_str()).join(format!("{version}.learning"))
}

/// Saves the counts of a version, or what it has learnt of its profile. What goes wrong is told in the log.
pub fn save(directory: &Path, model: &ModelName, version: Version, watch: &Watch) {
    let saved = if let Some(monitor) = watch.monitor() {
        let _only_one = monitor.saving();
        monitor.save().and_then(|bytes| write(&path(directory, model, version), &bytes))
    } else {
        watch.save_learning()
    };
    if let Err(error) = saved {
        tracing::warn!(%model, version = version.get(), %error, "what the monitor counted is not saved");
    }
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let staging = path.with_extension("new");
    fs::write(&staging, bytes)?;
    fs::rename(staging, path)
}

/// Lets a monitor go on from what was saved of the version, if it was of the same profile and windows.
pub fn restore(directory: &Path, model: &ModelName, version: Version, monitor: &VersionMonitor, now: Duration) {
    let bytes = match fs::read(path(directory, model, version)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return tracing::warn!(%model, version = version.get(), %error, "saved counts are unreadable"),
    };
    match monitor.restore(&bytes, now) {
        Ok(true) => {
            tracing::info!(%model, version = version.get(), "the monitor's counts go on");
            // Verdicts go on too: what was told before is no news.
            drop(monitor.look(now));
        }
        Ok(false) => {
            tracing::info!(%model, version = version.get(), "saved counts are of another profile or other windows");
        }
        Err(error) => tracing::warn!(%model, version = version.get(), %error, "saved counts are not used"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn leftovers_are_looked_for_at_the_start_and_daily_once_the_repository_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m/1.counts");
        write(&file, b"x").unwrap();
        let clock = Arc::new(Mutex::new(Duration::from_hours(1000)));
        let (time, is_read) = (Arc::clone(&clock), Arc::new(Mutex::new(false)));
        let known = Arc::clone(&is_read);
        let options = KeeperOptions {
            versions: Box::new(Vec::new),
            clock: Arc::new(move || *time.lock().unwrap()),
            directory: directory.path().into(),
            save_interval: Duration::from_hours(1),
            known: Box::new(move || known.lock().unwrap().then(BTreeSet::new)),
            keep_gone: Duration::from_hours(48),
            tell: Box::new(|_, _, _| {}),
        };
        let note = directory.path().join("gone.json");
        let mut kept = Kept::default();
        kept.round(&options);
        assert!(!note.exists(), "the repository is not read yet");
        *is_read.lock().unwrap() = true;
        kept.round(&options);
        assert!(note.exists() && file.exists());
        *clock.lock().unwrap() += Duration::from_hours(47);
        kept.round(&options);
        *clock.lock().unwrap() += Duration::from_hours(23);
        kept.round(&options);
        assert!(file.exists(), "the last look was 23 hours ago");
        *clock.lock().unwrap() += Duration::from_hours(1);
        kept.round(&options);
        assert!(!file.exists());
    }
}
