//! Loads on their own threads: admission outside the lock, the outcome entered under it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::{Instant, SystemTime},
};

use super::{
    Registry, Shared,
    admission::{Admitted, Refusal, admit, version_directory},
    facts::facts,
    state::{State, VersionEntry},
    status::VersionState,
};
use crate::{
    config::{ModelConfig, ModelConfigError},
    domain::{ModelName, Version},
    engine::Model,
    monitor::VersionMonitor,
    observe::VersionMetrics,
    route::Servable,
    schedule::{Lane, Trial},
};

/// A version to be loaded.
#[derive(Debug)]
pub(super) struct LoadJob {
    model: ModelName,
    version: Version,
    directory: PathBuf,
    config: Arc<Result<ModelConfig, ModelConfigError>>,
    load: u64,
}

/// Starts the loader threads. They end when the registry does.
pub(super) fn start(registry: &Registry, queue: mpsc::Receiver<LoadJob>, threads: usize) -> std::io::Result<()> {
    let queue = Arc::new(Mutex::new(queue));
    let (outcomes, loaded) = mpsc::channel();
    for _ in 0..threads {
        let (queue, outcomes, shared) = (Arc::clone(&queue), outcomes.clone(), Arc::downgrade(&registry.shared));
        thread::Builder::new().name("load".into()).spawn(move || work(&queue, &outcomes, &shared))?;
    }
    let shared = Arc::downgrade(&registry.shared);
    thread::Builder::new().name("enter".into()).spawn(move || keep_entering(&loaded, &shared))?;
    Ok(())
}

fn work(queue: &Mutex<mpsc::Receiver<LoadJob>>, outcomes: &mpsc::Sender<Loaded>, shared: &Weak<Shared>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let (Ok(job), Some(shared)) = (job, shared.upgrade()) else { return };
        let outcome = Registry { shared }.run(&job);
        if outcomes.send((job, outcome)).is_err() {
            return;
        }
    }
}

/// Enters what the loader threads have done, until they or the registry are gone.
fn keep_entering(loaded: &mpsc::Receiver<Loaded>, shared: &Weak<Shared>) {
    enter_together(loaded, |outcomes| {
        let shared = shared.upgrade()?;
        Registry { shared }.enter_all(outcomes);
        Some(())
    });
}

/// Enters each time everything that came in during the last write to the disk: a thousand models
/// need a few dozen writes, and no loader waits for one. Ends when `enter` says so with `None`.
fn enter_together<T>(loaded: &mpsc::Receiver<T>, mut enter: impl FnMut(Vec<T>) -> Option<()>) {
    while let Ok(first) = loaded.recv() {
        let all = std::iter::once(first).chain(loaded.try_iter()).collect();
        if enter(all).is_none() {
            return;
        }
    }
}

/// A job and what came of it.
type Loaded = (LoadJob, Result<Prepared, Refusal>);

/// Marks a version as loading and queues it.
pub(super) fn request(
    shared: &Shared,
    model: &ModelName,
    version: Version,
    entry: &mut VersionEntry,
    directory: &Path,
    config: &Arc<Result<ModelConfig, ModelConfigError>>,
) {
    entry.load += 1;
    entry.tried = Some(entry.seen.clone());
    // A version that serves goes on serving until its successor is loaded.
    if entry.servable.is_none() {
        entry.state = VersionState::Loading;
    }
    let directory = version_directory(directory, version);
    let job = LoadJob { model: model.clone(), version, directory, config: Arc::clone(config), load: entry.load };
    if shared.jobs.send(job).is_err() {
        tracing::error!(model = %model, version = version.get(), "the loader threads are gone");
    }
}

impl Registry {
    fn run(&self, job: &LoadJob) -> Result<Prepared, Refusal> {
        let started = Instant::now();
        let engine = self.shared.options.serving.engine_options(job.config.as_ref().as_ref().ok());
        let outcome = admit(&self.shared.runtime, engine, &job.config, &job.directory)
            .and_then(|admitted| self.prepare(job, admitted));
        let elapsed = started.elapsed();
        let (model, version) = (&job.model, job.version.get());
        match &outcome {
            Ok(_) => {
                let labels = [model.as_str(), &version.to_string()];
                self.shared.metrics.load_duration.with_label_values(&labels).observe(elapsed.as_secs_f64());
                tracing::info!(%model, version, seconds = elapsed.as_secs_f64(), "version ready");
            }
            Err(reason) => tracing::error!(%model, version, %reason, "version failed"),
        }
        outcome
    }

    fn enter_all(&self, outcomes: Vec<Loaded>) {
        let mut state = self.lock();
        let mut changed = BTreeSet::new();
        for (job, outcome) in outcomes {
            enter(&mut state, &job, outcome);
            let known = state.models.get(&job.model).and_then(|entry| entry.versions.get(&job.version));
            if let Some(known) = known {
                let message = known.reason.as_deref().unwrap_or("it can be promoted");
                self.tell_version(&job.model, job.version, known.state, message);
            }
            changed.insert(job.model);
        }
        self.settle_releases(&mut state, changed);
    }

    /// Builds all that a ready version needs, so that entering it cannot fail.
    fn prepare(&self, job: &LoadJob, admitted: Admitted) -> Result<Prepared, Refusal> {
        let Admitted { model, digest, memory_bytes, profile } = admitted;
        let signature = Arc::clone(model.signature());
        let config = job.config.as_ref().as_ref().ok();
        let is_watched = config.and_then(|config| config.monitor.enabled).unwrap_or(true);
        let settings = self.shared.options.monitor.as_ref().filter(|_| is_watched);
        let monitor = match (settings, profile) {
            (Some(settings), Some(profile)) => {
                let monitor = VersionMonitor::new(profile, &signature, settings);
                Some(Arc::new(monitor.map_err(|error| Refusal::from(format!("profile.json: {error}")))?))
            }
            _ => None,
        };
        let settings = self.shared.options.serving.for_model(config);
        let facts = Arc::new(facts(config, model.metadata()));
        let is_forced = config.and_then(|config| config.batching.enabled).unwrap_or(false);
        let trial = Trial::of(&model, &settings, is_forced);
        let (registry, retired) = (Arc::downgrade(&self.shared), (job.model.clone(), job.version, job.load));
        let pool = self.shared.options.pool.clone();
        let lane = Lane::new(Box::new(model), Arc::clone(&settings), trial, pool, move || {
            if let Some(shared) = registry.upgrade() {
                Registry { shared }.retired(&retired.0, retired.1, retired.2);
            }
        });
        let metrics = VersionMetrics::new(&self.shared.metrics, &job.model, job.version);
        let servable = Arc::new(Servable { version: job.version, signature, settings, facts, lane, monitor, metrics });
        Ok(Prepared { servable, digest, memory_bytes })
    }

    /// A worker has ended and dropped its model.
    fn retired(&self, model: &ModelName, version: Version, load: u64) {
        let mut state = self.lock();
        let entry = state.models.get_mut(model).and_then(|entry| entry.versions.get_mut(&version));
        if let Some(entry) = entry.filter(|entry| entry.load == load && entry.state == VersionState::Draining) {
            entry.state = VersionState::Unloaded;
            entry.memory_bytes = None;
            entry.loaded_at = None;
            tracing::info!(%model, version = version.get(), "version unloaded");
            self.tell_version(model, version, VersionState::Unloaded, "its memory is free");
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

struct Prepared {
    servable: Arc<Servable>,
    digest: String,
    memory_bytes: u64,
}

fn enter(state: &mut State, job: &LoadJob, outcome: Result<Prepared, Refusal>) {
    let entry = state.models.get_mut(&job.model).and_then(|entry| entry.versions.get_mut(&job.version));
    let Some(entry) = entry.filter(|entry| entry.load == job.load) else { return };
    match outcome {
        Ok(prepared) => {
            entry.state = VersionState::Ready;
            entry.reason = None;
            entry.digest = Some(prepared.digest);
            entry.memory_bytes = Some(prepared.memory_bytes);
            entry.loaded_at = Some(SystemTime::now());
            if let Some(old) = entry.servable.replace(prepared.servable) {
                // The counters go on: both loads count into the same series.
                drop(old);
            }
        }
        Err(reason) => {
            entry.reason = Some(reason.to_string());
            if entry.servable.is_none() {
                entry.state = VersionState::Failed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_loaded_during_a_write_is_entered_by_the_next_one_together() {
        let (loaded, outcomes) = mpsc::channel();
        let (began_sender, began) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let writer = thread::spawn(move || {
            enter_together(&outcomes, |all: Vec<u32>| {
                began_sender.send(all).unwrap();
                may_go.recv().ok()
            });
        });
        loaded.send(0).unwrap();
        assert_eq!(began.recv().unwrap(), [0], "the first waits for nobody");
        // Nobody who loads waits for the write.
        for outcome in 1..=1000 {
            loaded.send(outcome).unwrap();
        }
        go.send(()).unwrap();
        assert_eq!(began.recv().unwrap(), (1..=1000).collect::<Vec<_>>(), "in the order in which they ended");
        loaded.send(1001).unwrap();
        drop(loaded);
        go.send(()).unwrap();
        assert_eq!(began.recv().unwrap(), [1001], "what was loaded at the end is entered too");
        go.send(()).unwrap();
        writer.join().unwrap();
        assert!(began.recv().is_err());
    }

    #[test]
    fn nothing_is_entered_into_a_registry_that_is_gone() {
        let (loaded, outcomes) = mpsc::channel();
        for outcome in 0..3 {
            loaded.send(outcome).unwrap();
        }
        let mut entered = 0;
        enter_together(&outcomes, |all| {
            entered += all.len();
            None
        });
        assert_eq!(entered, 3);
        loaded.send(3).unwrap();
        assert_eq!(outcomes.try_iter().count(), 1);
    }
}
