//! Loads on their own threads, behind everything else: admission outside the lock, the outcome
//! entered under it.

mod watching;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::{Instant, SystemTime},
};

use super::{
    Registry, Shared,
    admission::{
        AdmissionReport, Admitted, Baseline, Candidate, ChangedFiles, Faults, SignatureChange, Step, version_directory,
    },
    facts::facts,
    priority,
    retry::{self, Retry},
    state::{Entry, Running, State, VersionEntry},
    status::VersionState,
};
use crate::{
    config::{ModelConfig, ModelConfigError},
    domain::{ModelName, ServingSettings, Version},
    engine::Model,
    monitor::Watch,
    observe::{Outcomes, RecentRequests, VersionMetrics},
    route::Servable,
    schedule::Lane,
    store::ModelFiles,
};

/// A version to be loaded.
#[derive(Debug)]
pub(super) struct LoadJob {
    model: ModelName,
    version: Version,
    directory: PathBuf,
    config: Arc<Result<ModelConfig, ModelConfigError>>,
    recent: Arc<RecentRequests>,
    /// What its requests without outputs are counted in.
    outcomes: Arc<Outcomes>,
    signature_change: SignatureChange,
    /// The files that it must find; `None`: whatever is there.
    released: Option<ModelFiles>,
    /// An operator accepts what it finds, and notes that itself.
    is_accepted: bool,
    /// Its number among all loads.
    load: u64,
}

/// What a load is asked to take.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) signature_change: SignatureChange,
    pub(super) released: Option<ModelFiles>,
    pub(super) is_accepted: bool,
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
    let mut is_behind = false;
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let (Ok(job), Some(shared)) = (job, shared.upgrade()) else { return };
        // Until what was found at the start is loaded there are no requests to make way for.
        if !is_behind && shared.publisher.current().complete {
            priority::step_back();
            is_behind = true;
        }
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

/// A job and what came of it; nothing but the report when it failed.
type Loaded = (LoadJob, (AdmissionReport, Option<Prepared>));

/// Marks a version as loading and queues it. No load of it may be going on.
pub(super) fn request(
    shared: &Shared,
    loads: &mut u64,
    model: &ModelName,
    version: Version,
    entry: &mut Entry,
    Terms { signature_change, released, is_accepted }: Terms,
) {
    let Some(known) = entry.versions.get_mut(&version).filter(|known| known.running.is_none()) else { return };
    *loads += 1;
    let load = *loads;
    known.running = Some(Running { load, is_wanted: true });
    let is_another = known.tried.as_ref().is_none_or(|tried| !tried.same_files(&known.seen));
    known.retry = if is_another { Retry::default() } else { Retry { due: None, ..known.retry } };
    known.tried = Some(known.seen.clone());
    // A version that serves goes on serving until its successor is loaded.
    if known.servable.is_none() {
        known.state = VersionState::Loading;
    }
    let outcomes = known.traffic.outcomes();
    let job = LoadJob {
        model: model.clone(),
        version,
        directory: version_directory(&entry.directory, version),
        config: Arc::clone(&entry.config),
        recent: Arc::clone(&entry.recent),
        outcomes,
        signature_change,
        released,
        is_accepted,
        load,
    };
    if shared.jobs.send(job).is_err() {
        tracing::error!(model = %model, version = version.get(), "the loader threads are gone");
    }
}

impl Registry {
    fn run(&self, job: &LoadJob) -> (AdmissionReport, Option<Prepared>) {
        let started = Instant::now();
        let config = job.config.as_ref().as_ref().ok();
        let settings = self.shared.options.serving.for_model(config);
        let is_allowed = config.is_some_and(|config| config.release.allow_signature_change);
        let candidate = Candidate {
            directory: &job.directory,
            config: &job.config,
            engine: self.shared.options.serving.engine_options(config),
            serving: &settings,
            baselines: &|| self.baselines(job),
            signature_change: if is_allowed { &SignatureChange::Allowed } else { &job.signature_change },
            released: job.released.as_ref(),
            recent: job.recent.all(),
            is_urgent: !self.shared.publisher.current().complete,
        };
        let (mut report, admitted) = self.shared.admission.admit(&candidate);
        let prepared = admitted.and_then(|admitted| {
            let prepared = self.prepare(job, &settings, admitted);
            prepared.map_err(|fault| report.amend(Step::Load, Faults::lasting(fault))).ok()
        });
        let elapsed = started.elapsed();
        let (model, version) = (&job.model, job.version.get());
        if prepared.is_some() {
            let labels = [model.as_str(), &version.to_string()];
            self.shared.metrics.load_duration.with_label_values(&labels).observe(elapsed.as_secs_f64());
            tracing::info!(%model, version, seconds = elapsed.as_secs_f64(), "version ready");
        } else if let Some(ChangedFiles { released, found }) = &report.changed {
            tracing::error!(
                %model, version, released, found,
                "the files of a released version are another model: it is not loaded until somebody accepts it"
            );
        } else {
            let reason = report.faults().join("; ");
            tracing::error!(%model, version, reason, is_transient = report.is_transient, "version failed");
        }
        (report, prepared)
    }

    /// What the signature of a version is held against: what serves under its number now, and the
    /// stable version. One that the release names already was admitted before: that a restart
    /// finds another stable version is no reason to refuse the rollback target.
    fn baselines(&self, job: &LoadJob) -> Result<Vec<Baseline>, String> {
        let mut state = self.lock();
        // A stable version that is being loaded is waited for; its load must have begun before this
        // one, or both might wait on the same thread.
        let is_loading_stable = |state: &mut State| {
            let entry = state.models.get(&job.model);
            let stable = entry.and_then(|entry| entry.versions.get(&entry.release.stable?));
            stable.is_some_and(|stable| {
                stable.servable.is_none() && stable.running.is_some_and(|running| running.load < job.load)
            })
        };
        state = self.shared.changed.wait_while(state, is_loading_stable).unwrap_or_else(PoisonError::into_inner);
        let entry = state.models.get(&job.model).ok_or("the model is gone")?;
        let baseline = |version: Version| {
            let servable = entry.versions.get(&version)?.servable.as_ref()?;
            Some(Baseline { version, signature: Arc::clone(&servable.signature) })
        };
        let own = baseline(job.version);
        if own.is_none() && entry.release.versions().any(|named| named == job.version) {
            return Err("the release names this version already".into());
        }
        let other = entry.release.stable.filter(|stable| *stable != job.version);
        let baselines: Vec<_> = own.into_iter().chain(other.and_then(baseline)).collect();
        if !baselines.is_empty() {
            return Ok(baselines);
        }
        Err(match other {
            None => "there is no stable version to compare with".into(),
            Some(stable) => format!("stable version {stable} is not loaded: there is nothing to compare with"),
        })
    }

    fn enter_all(&self, outcomes: Vec<Loaded>) {
        let mut state = self.lock();
        let (mut changed, mut loaded) = (BTreeSet::new(), Vec::new());
        for (job, (report, prepared)) in outcomes {
            let (is_loaded, is_changed) = (prepared.is_some() && !job.is_accepted, report.changed.is_some());
            let known = state.models.get_mut(&job.model).and_then(|entry| entry.versions.get_mut(&job.version));
            if let Some(known) = known
                && self.enter(known, &job, report, prepared)
            {
                let message = known.reason.as_deref().unwrap_or("it can be promoted");
                if is_changed {
                    self.tell_changed_files(&job.model, job.version, message);
                } else {
                    self.tell_version(&job.model, job.version, known.state, message);
                }
                if is_loaded {
                    loaded.push((job.model.clone(), job.version));
                }
            }
            changed.insert(job.model);
        }
        state.note_loaded(&loaded);
        self.settle_releases(&mut state, changed);
    }

    /// True when the outcome was still wanted.
    fn enter(
        &self,
        entry: &mut VersionEntry,
        job: &LoadJob,
        report: AdmissionReport,
        prepared: Option<Prepared>,
    ) -> bool {
        let Some(running) = entry.running.take_if(|running| running.load == job.load) else { return false };
        if !running.is_wanted {
            return false;
        }
        if let Some(prepared) = prepared {
            entry.state = VersionState::Ready;
            (entry.reason, entry.retry) = (None, Retry::default());
            entry.digest = Some(prepared.files.digest.clone());
            (entry.files, entry.changed) = (Some(prepared.files), None);
            entry.memory_bytes = Some(prepared.memory_bytes);
            entry.loaded_at = Some(SystemTime::now());
            entry.served = job.load;
            (entry.loaded, entry.is_change_told) = (entry.tried.clone(), false);
            entry.answered = prepared.servable.metrics.answered();
            entry.traffic.follow(prepared.servable.metrics.traffic());
            entry.servable = Some(prepared.servable);
        } else {
            entry.retry = if report.is_transient {
                entry.retry.failed((self.shared.watchers.clock)(), retry::jitter(&job.model, job.version))
            } else {
                Retry::default()
            };
            let again = if report.is_transient { " (tried again by itself)" } else { "" };
            entry.reason = Some(format!("{}{again}", report.faults().join("; ")));
            entry.changed.clone_from(&report.changed);
            if entry.servable.is_none() {
                entry.state = VersionState::Failed;
            }
        }
        entry.admission = Some(Arc::new(report));
        true
    }

    /// Builds all that a ready version needs, so that entering it cannot fail.
    fn prepare(&self, job: &LoadJob, settings: &Arc<ServingSettings>, admitted: Admitted) -> Result<Prepared, String> {
        let Admitted { model, digest, identity, memory_bytes, profile, trial } = admitted;
        let signature = Arc::clone(model.signature());
        let config = job.config.as_ref().as_ref().ok();
        let watch = self.watch_over(job, profile, &model, &identity)?;
        let facts = Arc::new(facts(config, model.metadata()));
        let (registry, retired) = (Arc::downgrade(&self.shared), (job.model.clone(), job.version, job.load));
        let (pool, watched) = (self.shared.options.pool.clone(), Arc::clone(&watch));
        let lane = Lane::new(Box::new(model), Arc::clone(settings), trial, pool, move || {
            if let Some(shared) = registry.upgrade() {
                Registry { shared }.retired(&retired.0, retired.1, retired.2, &watched);
            }
        });
        let (registry, name, version) = (Arc::downgrade(&self.shared), job.model.clone(), job.version);
        lane.tell_stop_to(move |why| {
            let message = format!("its requests are not joined any more: {why}");
            tracing::warn!(model = %name, version = version.get(), "{message}");
            if let Some(shared) = registry.upgrade() {
                Registry { shared }.tell_version(&name, version, VersionState::Ready, &message);
            }
        });
        let metrics = VersionMetrics::new(&self.shared.metrics, &job.model, job.version);
        let metrics = metrics.with_outcomes(Arc::clone(&job.outcomes));
        let (settings, recent) = (Arc::clone(settings), Arc::clone(&job.recent));
        let servable =
            Arc::new(Servable { version: job.version, signature, settings, facts, lane, watch, metrics, recent });
        Ok(Prepared { servable, files: ModelFiles { digest, identity }, memory_bytes })
    }

    /// A worker has ended and dropped its model.
    fn retired(&self, model: &ModelName, version: Version, load: u64, watch: &Watch) {
        let is_followed = {
            let state = self.lock();
            let entry = state.models.get(model).and_then(|entry| entry.versions.get(&version));
            entry.is_some_and(|entry| entry.served != load)
        };
        // Once it is unloaded it may be loaded again, and its counts must go on.
        if !is_followed {
            self.save_counts(model, version, watch);
        }
        let mut state = self.lock();
        let entry = state.models.get_mut(model).and_then(|entry| entry.versions.get_mut(&version));
        if let Some(entry) = entry.filter(|entry| entry.served == load && entry.state == VersionState::Draining) {
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
    files: ModelFiles,
    memory_bytes: u64,
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
