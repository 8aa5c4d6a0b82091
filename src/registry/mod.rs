//! Models and versions: discovery, admission, release state, publication.
//!
//! The registry is the only writer of the routes and of the store. Everything here blocks
//! (disk, loads, locks) and runs on its own threads or on blocking ones; the request path only
//! ever reads the table that [`Registry::new`] publishes.
//!
//! - `disk` reads the repository, `missing` says what becomes of versions that are gone from it, `admission` decides whether a version may serve,
//! - `loader` runs admissions on their own threads and puts the outcome into the book (`state`);
//!   `retry` says when one that failed for a passing reason is tried again,
//! - `operations` and `versions` are what operators ask for, `promotion` warns them, `story` says who was faster, `rollout` what they ask to happen by itself,
//!   `audit` bounds what of it is written, `drift` and `unwatched` say what the drift monitor finds and why it does not,
//! - `memory` plans what stays loaded, `room` acts on it,
//! - `watch` notices changes on disk, `collect` exports the state as metrics.

mod admission;
mod audit;
mod changed;
mod collect;
mod disk;
mod drift;
mod error;
mod facts;
mod layout;
mod loader;
mod memory;
mod missing;
mod operations;
mod priority;
mod promotion;
mod retry;
mod rollout;
mod room;
mod selection;
mod settings;
mod state;
mod status;
mod story;
mod unwatched;
mod versions;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, mpsc},
    time::{Duration, Instant},
};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::admission::fuzzing;
pub use self::{
    admission::{
        Admission, AdmissionOptions, AdmissionReport, Baseline, Candidate, ChangedFiles, Outcome, Refusal,
        RequestDecoder, SandboxOptions, SignatureChange, SignaturePolicy, SigningKey, Step, StepReport, column_types,
        columns, open_version, see, serve_trials,
    },
    disk::is_hidden,
    layout::{Misplaced, loose, misplaced_in, stray},
    operations::{ChangeOptions, Changed, RegistryError},
    rollout::{RolloutAsk, RolloutDriver},
    settings::{ServingDefaults, bytes_or_share, cores},
    status::{HistoryEntry, ModelStatus, RolloutStatus, VersionState, VersionStatus},
    watch::Watcher,
};
use self::{
    audit::Repeats,
    changed::Until,
    loader::LoadJob,
    missing::warn_once,
    room::{Claimed, Wanted},
    state::{Entry, State, VersionEntry},
};
use crate::{
    config::{Policy, ReloadChanged, RolloutConfig},
    domain::{ModelName, Version},
    engine::Runtime,
    events::Events,
    monitor::{Clock, MonitorHandle, MonitorSettings, Watched},
    observe::{RecentBudget, RecentRequests, Serving},
    release::Change,
    route::{RoutePublisher, RouteTable},
    schedule::Pool,
    shadow::Shadow,
    store::{StateDisk, Store, StoreError},
    telemetry::Metrics,
};

/// What the registry needs to know.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// The repository.
    pub models: PathBuf,
    /// How long a version directory must have been unchanged.
    pub settle: Duration,
    pub load_threads: usize,
    pub policy: Policy,
    /// What rollouts do where nobody says otherwise.
    pub rollout: RolloutConfig,
    /// Requests may name a version or a label, where a model's configuration does not say otherwise.
    pub allow_pinning: bool,
    /// The rollback target may make room in memory, likewise.
    pub evict_previous: bool,
    /// What becomes of changed files of released versions, likewise.
    pub reload_changed: ReloadChanged,
    /// Bytes of all loaded versions; `None`: no limit.
    pub model_memory: Option<u64>,
    pub admission: AdmissionOptions,
    /// Requests of each model that are kept for the warm-up of its next version.
    pub recent_requests: usize,
    pub serving: ServingDefaults,
    /// The threads of costly runs.
    pub pool: Pool,
    /// `None`: live traffic is not compared with profiles.
    pub monitor: Option<MonitorSettings>,
}

/// Who watches, and whom the registry asks or tells.
#[derive(Clone)]
pub struct Watchers {
    pub monitor: MonitorHandle,
    pub clock: Clock,
    pub events: Events,
    pub shadow: Shadow,
}

/// The models and their releases. All methods block (disk, loads): never call them on an async
/// thread. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    options: RegistryOptions,
    admission: Admission,
    /// What may be kept of the recent requests of all models.
    recent: RecentBudget,
    metrics: Arc<Metrics>,
    watchers: Watchers,
    publisher: RoutePublisher,
    /// The disk under the state.
    disk: StateDisk,
    state: Mutex<State>,
    /// Told of every change of a version's state.
    changed: Condvar,
    jobs: mpsc::Sender<LoadJob>,
    /// Held by a self-test of a monitor: there is one at a time.
    self_test: Mutex<()>,
}

/// The author of changes that the gateway makes by itself.
const SELF: &str = "tidegate";

impl Registry {
    /// Opens the book: releases from `store`, no models yet. Starts the loader threads; the
    /// first [`Registry::scan`] fills it.
    ///
    /// # Errors
    /// When the stored releases cannot be read, or the system gives no thread.
    pub fn new(
        options: RegistryOptions,
        runtime: Runtime,
        store: Store,
        publisher: RoutePublisher,
        watchers: Watchers,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let stored = store.releases()?;
        let rollouts = store.rollouts()?.into_iter();
        let rollouts = rollouts.map(|(name, (rollout, keys))| (name, rollout::Kept::new(rollout, keys))).collect();
        let allowances = store.allowances()?;
        let (released, disk) = (store.released()?, store.disk());
        let (jobs, queue) = mpsc::channel();
        let threads = options.load_threads;
        let state = State {
            models: BTreeMap::new(),
            store,
            rollouts,
            stored,
            allowances,
            released,
            is_complete: false,
            is_scanned: false,
            is_listed: false,
            started: Instant::now(),
            repeats: Repeats::default(),
            loads: 0,
            warned: BTreeSet::new(),
        };
        let shared = Shared {
            admission: Admission::new(runtime, options.admission.clone()),
            recent: RecentBudget::default(),
            options,
            metrics: Arc::clone(metrics),
            watchers,
            publisher,
            disk,
            state: Mutex::new(state),
            changed: Condvar::new(),
            jobs,
            self_test: Mutex::default(),
        };
        let registry = Self { shared: Arc::new(shared) };
        loader::start(&registry, queue, threads)?;
        metrics.register(Box::new(collect::RegistryCollector::new(&registry)));
        Ok(registry)
    }

    /// The disk under the state.
    #[must_use]
    pub fn state_disk(&self) -> StateDisk {
        self.shared.disk.clone()
    }

    /// All versions that serve, in order, and the requests that wait for each.
    #[must_use]
    pub fn all_serving(&self) -> Vec<Serving> {
        let table = self.shared.publisher.current();
        let mut models: Vec<_> = table.models.iter().collect();
        models.sort_by_key(|(name, _)| *name);
        let servables = models.into_iter().flat_map(|(_, route)| route.versions.values());
        servables.map(|servable| (Arc::clone(servable) as _, servable.lane.status().waiting)).collect()
    }

    /// All versions that are loaded, in order, and what watches them.
    #[must_use]
    pub fn watched(&self) -> Vec<Watched> {
        let table = self.shared.publisher.current();
        let versions = table.models.iter().flat_map(|(name, route)| {
            route.versions.values().map(|servable| (name.clone(), servable.version, Arc::clone(&servable.watch)))
        });
        let mut watched: Vec<_> = versions.collect();
        watched.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        watched
    }

    /// The versions that the last scan found, loaded or not, and those that the release names without files; `None` when it could not
    /// read the repository.
    #[must_use]
    pub fn known_versions(&self) -> Option<BTreeSet<(ModelName, Version)>> {
        let state = self.lock();
        let versions = |(name, entry): (&ModelName, &Entry)| {
            entry.versions.keys().map(|version| (name.clone(), *version)).collect::<Vec<_>>()
        };
        state.is_listed.then(|| state.models.iter().flat_map(versions).collect())
    }

    /// Waits until everything that the first scan found is loaded or refused.
    pub fn wait_until_complete(&self) {
        let state = self.lock();
        drop(self.shared.changed.wait_while(state, |state| !state.is_complete));
    }

    /// Reads the repository once and asks for what is new to be loaded. Returns true when
    /// something is there that has not settled yet, so that the next look should be soon.
    #[must_use]
    pub fn scan(&self) -> bool {
        let found = match disk::scan(&self.shared.options.models, self.shared.options.settle) {
            Ok(found) => found,
            Err(error) => {
                let mut state = self.lock();
                state.is_listed = false;
                let directory = self.shared.options.models.display();
                warn_once(&mut state, format!("cannot read the model repository {directory}: {error}"));
                // What is released and was never seen is not served: that must not look like a gateway without models.
                let mut changed: BTreeSet<_> = self.keep_released(&mut state).into_iter().collect();
                changed.extend(self.miss_released(&mut state));
                self.finish_scan(&mut state, changed);
                return false;
            }
        };
        let mut state = self.lock();
        state.is_listed = true;
        state.store.look();
        let due = state.repeats.due(Instant::now());
        state.write_attempts(due);
        for reason in found.ignored {
            warn_once(&mut state, format!("ignored {reason}"));
        }
        let mut changed = missing::forget_gone(&mut state, &found.models);
        let (mut is_unsettled, mut wanted) = (found.is_unsettled, Vec::new());
        for (name, model) in found.models {
            let known = state.models.get(&name).map_or(0, |entry| entry.versions.len());
            is_unsettled |= self.look_at(&mut state, &name, model, &mut wanted);
            if state.models.get(&name).is_some_and(|entry| entry.versions.len() != known) {
                changed.insert(name);
            }
        }
        self.request_all(&mut state, wanted);
        changed.extend(self.keep_released(&mut state));
        changed.extend(self.miss_released(&mut state));
        self.finish_scan(&mut state, changed);
        is_unsettled
    }

    /// A model whose release is stored but whose files are not there is not unknown: it is not
    /// ready, and operators see its release. Says which models these are.
    fn keep_released(&self, state: &mut State) -> Vec<ModelName> {
        let stored = std::mem::take(&mut state.stored);
        let (forgotten, stored): (BTreeMap<_, _>, BTreeMap<_, _>) =
            stored.into_iter().partition(|(_, release)| release.is_empty());
        state.stored = forgotten;
        let names = stored.keys().cloned().collect();
        for (name, release) in stored {
            let directory = self.shared.options.models.join(name.as_str());
            tracing::warn!(model = %name, "the model has a release but no version on disk");
            state.models.entry(name).or_insert_with(|| Entry::new(directory, release, self.recent()));
        }
        names
    }

    /// Enters what was found of one model, and notes what is wanted of it.
    fn look_at(&self, state: &mut State, name: &ModelName, found: disk::FoundModel, wanted: &mut Vec<Wanted>) -> bool {
        let stored = state.stored.remove(name);
        for Misplaced { path, reason } in &found.misplaced {
            warn_once(state, format!("{path} is not served: {reason}"));
        }
        let entry = state
            .models
            .entry(name.clone())
            .or_insert_with(|| Entry::new(found.directory.clone(), stored.unwrap_or_default(), self.recent()));
        let config_changed = entry.config_print != found.config;
        if config_changed {
            entry.config = Arc::new(crate::config::ModelConfig::read(&entry.directory));
            entry.config_print = found.config;
            match entry.config.as_ref() {
                Ok(config) if config.warnings.is_empty() => {}
                Ok(config) => tracing::warn!(model = %name, "{}", config.warnings.join("; ")),
                Err(error) => tracing::warn!(model = %name, %error, "the model's configuration cannot be used"),
            }
        }
        let mut is_unsettled = false;
        entry.misplaced = found.misplaced;
        let now = (self.shared.watchers.clock)();
        let policy = entry.config.as_ref().as_ref().map(crate::config::ModelConfig::versions).unwrap_or_default();
        let on_disk = found.versions.keys().copied().collect();
        let rollout = state.rollouts.get(name);
        let is_kept = entry.reload_changed(self.shared.options.reload_changed) == ReloadChanged::Manual;
        for (version, print) in found.versions {
            let known = entry.versions.entry(version).or_insert_with(|| VersionEntry::discovered(print.clone()));
            known.seen = print;
            let claim = Claimed::by(&entry.release, version);
            known.select(selection::is_selected(&policy, &on_disk, &entry.release, version));
            // What a rollout has counted of a version says nothing of another model under its number.
            let is_compared = rollout.is_some_and(|rollout| rollout.compares(version));
            known.tell_change(name, version, Until::of(is_compared, is_kept && claim != Claimed::Spare));
            if !known.seen.is_settled(self.shared.options.settle) {
                is_unsettled = true;
                continue;
            }
            let files_changed = known.tried.as_ref().is_none_or(|tried| !tried.same_files(&known.seen));
            let should_load = match known.state {
                // Without a model it is only told what is wrong, and not before it is clear that nobody writes it.
                VersionState::Discovered if !known.seen.has_model() => {
                    let is_at_rest = known.seen.is_at_rest(self.shared.options.settle);
                    is_unsettled |= !is_at_rest;
                    is_at_rest
                }
                VersionState::Discovered => true,
                // Somebody may have mended it, or what was wrong may have passed.
                VersionState::Failed => files_changed || config_changed || known.retry.is_due(now),
                // Somebody replaced its files or added a profile: load again, serve the old until then.
                VersionState::Ready if is_compared => false,
                VersionState::Ready => files_changed && known.seen.has_model() || known.retry.is_due(now),
                VersionState::Loading | VersionState::Draining | VersionState::Unloaded => false,
            };
            if should_load && known.running.is_some() {
                // Once the load that goes on has ended.
                is_unsettled = true;
            } else if should_load {
                wanted.push(Wanted { model: name.clone(), version, claim });
            }
        }
        is_unsettled
    }

    /// Room for the recent requests of one more model.
    fn recent(&self) -> RecentRequests {
        RecentRequests::new(self.shared.options.recent_requests, self.shared.recent.clone())
    }

    /// How long until a load that failed is to be tried again.
    fn until_next_retry(&self) -> Option<Duration> {
        let due = self.lock().next_retry()?;
        Some(due.saturating_sub((self.shared.watchers.clock)()))
    }

    fn finish_scan(&self, state: &mut State, changed: BTreeSet<ModelName>) {
        state.is_scanned = true;
        self.settle_releases(state, changed);
    }

    /// Gives models that were never released their first stable version, follows the policy
    /// `latest`, notices when the first loads are done, and publishes all of it together with the
    /// models that have `changed` otherwise.
    fn settle_releases(&self, state: &mut State, mut changed: BTreeSet<ModelName>) {
        changed.extend(self.promote_what_is_due(state));
        let was_complete = state.is_complete;
        state.is_complete |= state.is_scanned && !state.is_first_load_going_on();
        if !changed.is_empty() || state.is_complete != was_complete {
            self.publish(state, &changed);
        }
        self.shared.changed.notify_all();
    }

    /// Makes the promotions that nobody has to ask for, all of them in one write to the disk.
    /// Says which models got one.
    fn promote_what_is_due(&self, state: &mut State) -> BTreeSet<ModelName> {
        let is_pending = |entry: &Entry| entry.versions.values().any(VersionEntry::is_pending);
        let mut due = Vec::new();
        for (name, entry) in &state.models {
            let Some(highest) = entry.highest_ready() else { continue };
            let reason = if entry.release.is_empty() && !is_pending(entry) {
                "the highest version that was admitted at the first start"
            } else if entry.policy(self.shared.options.policy) == Policy::Latest
                && !entry.release.is_empty()
                && entry.release.newest.is_none_or(|newest| highest > newest)
                && !entry.release.rolled_back.contains(&highest)
            {
                "release.policy is latest"
            } else {
                continue;
            };
            due.push((name.clone(), highest, ChangeOptions::of_the_gateway(reason)));
        }
        let mut planned = Vec::new();
        for (name, version, options) in &due {
            match state.plan(name, &Change::Promote(*version), options) {
                Ok(change) => planned.push(change),
                Err(error) => tracing::error!(model = %name, version = version.get(), %error, "cannot promote"),
            }
        }
        let names: BTreeSet<_> = planned.iter().map(|planned| planned.attempt.model.clone()).collect();
        let releases: Vec<_> = planned.iter().map(|planned| (planned.before.clone(), planned.next.clone())).collect();
        let superseded = match state.commit(planned) {
            Ok(superseded) => superseded,
            Err(error) => {
                tracing::error!(models = names.len(), %error, "cannot promote");
                return BTreeSet::new();
            }
        };
        let made = due.iter().filter(|(name, ..)| names.contains(name));
        for ((name, _, options), (before, next)) in made.zip(&releases) {
            self.tell_release(name, "promote", (before, next), options);
        }
        self.tell_superseded(state, &superseded);
        names
    }

    /// Every request that starts after this call sees the models of `changed` as the book has
    /// them. The others are taken over as they were published before.
    fn publish<'a>(&self, state: &State, changed: impl IntoIterator<Item = &'a ModelName>) {
        let mut models = self.shared.publisher.current().models.clone();
        for name in changed {
            match state.route(name, self.shared.options.allow_pinning) {
                Some(route) => drop(models.insert(name.clone(), Arc::new(route))),
                None => drop(models.remove(name)),
            }
        }
        self.shared.publisher.publish(RouteTable { models, complete: state.is_complete });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves the book as it was at that statement: each statement
        // keeps it consistent, and going on beats refusing every operation from then on.
        self.shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why the registry could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a loader thread: {0}")]
    Thread(#[from] std::io::Error),
}
