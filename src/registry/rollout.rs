//! Progressive rollouts: what operators ask of them, and the looks that carry them on.
//!
//! Every change of a release goes the way of [`Registry::change`]: planned, durable, then published. A rollout
//! is written in the same transaction, so that after a crash both are as they were before the change or
//! both as after it.

mod ask;
mod driver;
#[cfg(test)]
mod sweep;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::{ask::RolloutAsk, driver::RolloutDriver};
use super::{
    ChangeOptions, Registry, RegistryError,
    audit::Attempt,
    operations::Planned,
    state::{Entry, State},
    status::{RolloutStatus, VersionState},
};
use crate::{
    domain::{ModelName, Version},
    events::{Event, Topic},
    monitor::{DriftState, FeatureRole},
    observe::{Comparison, Reading, score_column},
    release::{Change, Outcome, Release, Split},
    rollout::{Decision, Drift, Kinds, Presence, Rollout, RolloutError, Status, Vitals, set_apart, shown_evidence},
    route::Servable,
    store::{RolloutRow, StoreError},
};

/// The author of what a rollout does by itself.
const ACTOR: &str = "rollout";
/// The end of a rollout by a change of somebody else.
pub(super) const SUPERSEDE: &str = "rollout_supersede";

/// A rollout in the registry's book: the one that goes on, or the last one.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) rollout: Rollout,
    /// The keys that are in the counts of this step.
    keys: Vec<u8>,
    /// Where requests are counted; `None` until both versions serve.
    live: Option<Arc<Comparison>>,
    /// When it was last looked at and last written, by the registry's clock; `None`: not since the start.
    looked: Option<Duration>,
    written: Option<Duration>,
}

impl Kept {
    pub(super) fn new(rollout: Rollout, keys: Vec<u8>) -> Self {
        Self { rollout, keys, live: None, looked: None, written: None }
    }

    pub(super) fn row<'a>(&'a self, model: &'a ModelName) -> RolloutRow<'a> {
        RolloutRow { model, rollout: &self.rollout, keys: &self.keys }
    }

    /// Where requests are to be counted. Only while the arm of each is drawn: a canary that is not loaded
    /// gets nothing, and stable answers its share.
    pub(super) fn comparison(&self, has: impl Fn(Version) -> bool) -> Option<Arc<Comparison>> {
        let Rollout { plan, stable, status, .. } = &self.rollout;
        (status.is_active() && has(plan.version) && has(*stable)).then(|| self.live.clone()).flatten()
    }

    /// A rollout that goes on holds this version against another.
    pub(super) fn compares(&self, version: Version) -> bool {
        let Rollout { plan, stable, status, .. } = &self.rollout;
        status.is_active() && (plan.version == version || *stable == version)
    }

    /// Takes over what was counted since the last look.
    fn read(&mut self) {
        let Some(live) = &self.live else { return };
        self.rollout.cuts = live.cuts().cloned();
        let (segment, keys) = live.snapshot();
        *self.rollout.segment_mut() = segment;
        self.keys = keys;
    }

    /// Begins to count, as stable's answers can be read.
    fn begin(&mut self, stable: &Servable) {
        let reading = Reading::of(&stable.signature);
        let deciles = deciles(&reading, stable);
        self.count(reading, deciles);
    }

    /// Begins to count in the step that goes on. `deciles`: of the score, where they are known.
    fn count(&mut self, reading: Reading, deciles: Option<Vec<f64>>) {
        self.rollout.kinds = Kinds { class: reading.has_class(), score: reading.score_output().is_some() };
        let (segment, cuts) = (self.rollout.segment(), self.rollout.cuts.as_ref());
        self.live = Some(Arc::new(Comparison::new(segment, cuts, reading, &self.keys).with_deciles(deciles)));
    }

    /// The next step begins, and what was counted in the one before is counted no more.
    fn advance(&mut self) {
        self.rollout.advance();
        self.keys.clear();
        self.live = None;
    }

    fn end(&mut self, status: Status, note: String) {
        self.rollout.end(status, note, SystemTime::now());
        self.live = None;
    }

    /// The entry of the audit log for the end of the rollout, where it is a change by somebody else that ended it.
    pub(super) fn end_by(&self, change: &Attempt) -> Option<Attempt> {
        let is_its_own = change.operation.starts_with("rollout_");
        if is_its_own || self.rollout.status != Status::Superseded {
            return None;
        }
        let next = change.releases.1.clone();
        Some(Attempt {
            operation: SUPERSEDE,
            asked: asked(&self.rollout),
            releases: (next.clone(), next),
            reason: Some(self.rollout.note.clone()),
            key: None,
            ..change.clone()
        })
    }

    /// The rollout after a change by somebody else; `None` when that leaves it as it is.
    pub(super) fn superseded(&self, change: &Change, before: &Release, next: &Release, actor: &str) -> Option<Self> {
        let is_touched = before.stable != next.stable || before.canary != next.canary;
        if !self.rollout.status.is_active() || !is_touched {
            return None;
        }
        let mut kept = self.clone();
        kept.read();
        let note = format!("superseded at {} % by {actor}'s {}", self.rollout.percent(), change.operation());
        kept.end(Status::Superseded, note);
        Some(kept)
    }
}

/// The deciles of the score in stable's reference profile, where it has them.
fn deciles(reading: &Reading, stable: &Servable) -> Option<Vec<f64>> {
    let output = reading.score_output()?;
    let column = score_column(stable.signature.output(output)?)?;
    stable
        .watch
        .monitor()?
        .edges(FeatureRole::Output, output, column)
        .filter(|edges| edges.len() < 10)
        .map(|edges| set_apart(&edges))
}

impl Registry {
    /// The rollout that goes on, or the last one.
    pub fn rollout(&self, name: &ModelName) -> Result<RolloutStatus, RegistryError> {
        self.lock().rollout(name)
    }

    /// The rollout of every model that has or had one, for metrics: as of the last look.
    pub(super) fn rollouts(&self) -> Vec<(ModelName, Rollout)> {
        let state = self.lock();
        state.rollouts.iter().map(|(name, kept)| (name.clone(), kept.rollout.clone())).collect()
    }

    /// Gives a version the share of the first step, and carries it on from there.
    pub fn start_rollout(
        &self,
        name: &ModelName,
        ask: RolloutAsk,
        options: &ChangeOptions,
    ) -> Result<RolloutStatus, RegistryError> {
        let attempt = Attempt::new(name, "rollout_start", ask.asked(), options);
        self.operate(attempt, options, |state| {
            let entry = state.entry(name)?;
            if let Some(going) = state.rollouts.get(name).filter(|kept| kept.rollout.status.is_active()) {
                return Err(RolloutError::Active(going.rollout.plan.version).into());
            }
            let plan = ask.plan(&self.shared.options.rollout).map_err(RolloutError::from)?;
            let version = plan.version;
            let stable = entry.release.stable.ok_or_else(|| RegistryError::NoStable(name.clone()))?;
            let rollout = Rollout::start(plan, stable, SystemTime::now()).map_err(RolloutError::from)?;
            let next = entry.release.apply(&Change::SetCanary(Split { version, percent: rollout.percent() }))?;
            entry.check_ready(name, version)?;
            entry.check_ready(name, stable)?;
            let mut kept = Kept::new(rollout, Vec::new());
            if let Some(servable) = entry.servable(stable) {
                kept.begin(&servable);
            }
            Ok((next, kept))
        })
    }

    /// Stops it from advancing; its gates go on.
    pub fn pause_rollout(&self, name: &ModelName, options: &ChangeOptions) -> Result<RolloutStatus, RegistryError> {
        let attempt = Attempt::new(name, "rollout_pause", String::new(), options);
        self.operate(attempt, options, |state| state.changed_rollout(name, |kept| kept.rollout.pause()))
    }

    pub fn resume_rollout(&self, name: &ModelName, options: &ChangeOptions) -> Result<RolloutStatus, RegistryError> {
        let attempt = Attempt::new(name, "rollout_resume", String::new(), options);
        self.operate(attempt, options, |state| state.changed_rollout(name, |kept| kept.rollout.resume()))
    }

    /// Ends it, and the canary with it.
    pub fn abort_rollout(&self, name: &ModelName, options: &ChangeOptions) -> Result<RolloutStatus, RegistryError> {
        let attempt = Attempt::new(name, "rollout_abort", String::new(), options);
        self.operate(attempt, options, |state| {
            let (release, kept) = state.changed_rollout(name, |kept| {
                kept.rollout.check_active()?;
                let note = format!("aborted at {} % by {}", kept.rollout.percent(), options.actor);
                kept.end(Status::Aborted, note);
                Ok(())
            })?;
            Ok((release.apply(&Change::ClearCanary)?, kept))
        })
    }

    /// Makes an operation as every change is made: planned, durable, published, told; refused, it is noted.
    fn operate(
        &self,
        attempt: Attempt,
        options: &ChangeOptions,
        plan: impl FnOnce(&State) -> Result<(Release, Kept), RegistryError>,
    ) -> Result<RolloutStatus, RegistryError> {
        let mut state = self.lock();
        let outcome = self.try_operation(&mut state, attempt.clone(), options, plan);
        if let Err(error) = &outcome {
            self.note(&mut state, attempt, Outcome::of(error), Some(error.to_string()), options);
        }
        outcome
    }

    fn try_operation(
        &self,
        state: &mut State,
        attempt: Attempt,
        options: &ChangeOptions,
        plan: impl FnOnce(&State) -> Result<(Release, Kept), RegistryError>,
    ) -> Result<RolloutStatus, RegistryError> {
        let model = attempt.model.clone();
        if state.answered(&attempt, options)?.is_some() {
            return Ok(RolloutStatus { is_repeated: true, ..state.rollout(&model)? });
        }
        state.check_generation(&model, options)?;
        let before = state.entry(&model)?.release.clone();
        let (next, kept) = plan(state)?;
        let (release, rollout) = (next.clone(), kept.rollout.clone());
        if !options.dry_run {
            self.make(state, Planned { before, next, attempt, rollout: Some(kept) }, options)?;
        }
        Ok(RolloutStatus { model, release, rollout, is_repeated: false })
    }

    /// Makes a change of a rollout durable, publishes it, counts it and tells it.
    fn make(&self, state: &mut State, planned: Planned, options: &ChangeOptions) -> Result<(), RegistryError> {
        let (name, operation) = (planned.attempt.model.clone(), planned.attempt.operation);
        let releases = (planned.before != planned.next).then(|| (planned.before.clone(), planned.next.clone()));
        state.commit(vec![planned])?;
        self.publish(state, [&name]);
        match releases {
            Some((before, next)) => self.tell_release(&name, operation, (&before, &next), options),
            None => self.count(&name, operation, Outcome::Done),
        }
        self.tell_rollout(state, &name, operation);
        Ok(())
    }

    /// Tells what became of a rollout, as the book has it.
    fn tell_rollout(&self, state: &State, name: &ModelName, operation: &'static str) {
        let Some(kept) = state.rollouts.get(name) else { return };
        let (version, note) = (kept.rollout.plan.version, kept.rollout.note.as_str());
        tracing::info!(model = %name, version = version.get(), operation, note, "rollout changed");
        self.shared.watchers.events.publish(Event::new(Topic::Rollout, name, operation, note).of_version(version));
    }

    /// Counts and tells the end of rollouts by changes of somebody else.
    pub(super) fn tell_superseded<'a>(&self, state: &State, names: impl IntoIterator<Item = &'a ModelName>) {
        for name in names {
            self.count(name, SUPERSEDE, Outcome::Done);
            self.tell_rollout(state, name, SUPERSEDE);
        }
    }

    /// Looks at every rollout that goes on, and does what its counts call for.
    pub fn look_at_rollouts(&self) {
        let names: Vec<_> = {
            let state = self.lock();
            if !state.is_scanned {
                return;
            }
            let going = state.rollouts.iter().filter(|(_, kept)| kept.rollout.status.is_active());
            going.map(|(name, _)| name.clone()).collect()
        };
        let now = (self.shared.watchers.clock)();
        for name in names {
            self.look_at_rollout(&name, now);
        }
    }

    /// Remembers how many requests each version has had, for the rates of its status.
    pub fn look_at_traffic(&self) {
        let now = (self.shared.watchers.clock)();
        let mut state = self.lock();
        let versions = state.models.values_mut().flat_map(|entry| entry.versions.values_mut());
        versions.filter(|version| version.servable.is_some()).for_each(|version| version.traffic.sample(now));
    }

    fn look_at_rollout(&self, name: &ModelName, now: Duration) {
        let mut state = self.lock();
        let (Ok(entry), Some(kept)) = (state.entry(name), state.rollouts.get(name)) else { return };
        let mut kept = kept.clone();
        if !kept.rollout.status.is_active() {
            return;
        }
        if !is_carried_by(&entry.release, &kept.rollout) {
            // Never by this program, which writes both at once: by an older one that knows no rollouts.
            let note = "superseded: the release was changed while nobody looked at the rollout".to_owned();
            kept.end(Status::Superseded, note);
            let (change, operation) = (None, SUPERSEDE);
            return self.commit_step(&mut state, name, Step { kept, change, operation, cause: None });
        }
        let vitals = vitals(name, entry, &kept.rollout, now);
        let both_serve = vitals.stable == Presence::Serving && vitals.canary == Presence::Serving;
        kept.read();
        // First written, then decided: see `store::rollout`.
        if let Err(error) = state.write_counts(name, &mut kept, now) {
            tracing::error!(model = %name, %error, "cannot write what the rollout has counted");
        }
        let elapsed = kept.looked.map_or(Duration::ZERO, |looked| now.saturating_sub(looked));
        kept.looked = Some(now);
        match kept.rollout.look(elapsed, &vitals) {
            Decision::Hold(_) => {
                let begins = kept.live.is_none() && both_serve;
                if begins && let Some(stable) = state.servable(name, kept.rollout.stable) {
                    kept.begin(&stable);
                }
                state.rollouts.insert(name.clone(), kept);
                if begins {
                    self.publish(&state, [name]);
                }
            }
            Decision::Advance(percent) => {
                let figures = figures(&kept.rollout);
                kept.advance();
                kept.rollout.note = format!("{}; {figures}", kept.rollout.note);
                if let Some(stable) = state.servable(name, kept.rollout.stable) {
                    kept.begin(&stable);
                }
                let change = Some(Change::SetCanary(Split { version: kept.rollout.plan.version, percent }));
                self.commit_step(&mut state, name, Step { kept, change, operation: "rollout_advance", cause: None });
            }
            Decision::Promote => {
                let (version, figures) = (kept.rollout.plan.version, figures(&kept.rollout));
                kept.end(Status::Completed, format!("completed: version {version} is stable; {figures}"));
                let change = Some(Change::Promote(version));
                self.commit_step(&mut state, name, Step { kept, change, operation: "rollout_complete", cause: None });
            }
            Decision::RollBack(cause) => {
                let (version, at) = (kept.rollout.plan.version, kept.rollout.percent());
                kept.end(Status::RolledBack, format!("rolled back at {at} %: {}", cause.words));
                // Still named by the release, so that it stays loaded, and marked: no rollback goes to it by itself.
                let change = Some(Change::RollBackCanary(version));
                let cause = Some(cause.metric);
                self.commit_step(&mut state, name, Step { kept, change, operation: "rollout_roll_back", cause });
            }
        }
    }

    /// Makes a step as every change is made. What could not be made durable is decided again at the next look.
    fn commit_step(&self, state: &mut State, name: &ModelName, step: Step) {
        let Step { kept, change, operation, cause } = step;
        let (version, evidence) = (kept.rollout.plan.version.get(), kept.rollout.findings().log_combined.exp());
        let note = kept.rollout.note.clone();
        let options = ChangeOptions { actor: ACTOR.into(), reason: Some(note.clone()), ..ChangeOptions::default() };
        let asked = change.as_ref().map_or_else(|| asked(&kept.rollout), Change::asked);
        let attempt = Attempt::new(name, operation, asked, &options);
        let planned = state.entry(name).and_then(|entry| {
            let before = entry.release.clone();
            let next = change.map_or_else(|| Ok(before.clone()), |change| before.apply(&change))?;
            Ok(Planned { before, next, attempt: attempt.clone(), rollout: Some(kept) })
        });
        match (planned.and_then(|planned| self.make(state, planned, &options)), cause) {
            (Ok(()), Some(metric)) => {
                tracing::warn!(model = %name, version, metric, evidence, note, "rolled back: the canary gets nothing now");
            }
            (Ok(()), None) => {}
            (Err(error), _) => self.note(state, attempt, Outcome::of(&error), Some(error.to_string()), &options),
        }
    }
}

/// What the audit log says that an operation was about.
fn asked(rollout: &Rollout) -> String {
    format!("version {}", rollout.plan.version)
}

/// What a look has decided to do: the rollout as it is afterwards, and the change of the release.
struct Step {
    kept: Kept,
    change: Option<Change>,
    operation: &'static str,
    /// The gate that failed.
    cause: Option<&'static str>,
}

/// The release is as the rollout has left it.
fn is_carried_by(release: &Release, rollout: &Rollout) -> bool {
    let canary = Split { version: rollout.plan.version, percent: rollout.percent() };
    (release.stable, release.canary) == (Some(rollout.stable), Some(canary))
}

fn vitals(name: &ModelName, entry: &Entry, rollout: &Rollout, now: Duration) -> Vitals {
    let canary = rollout.plan.version;
    Vitals {
        stable: presence(entry, rollout.stable),
        canary: presence(entry, canary),
        drift: entry.servable(canary).map_or(Drift::Unknown, |servable| drift(name, &servable, now)),
        // Live quality is not measured yet: nothing is known of it.
        worse_quality: None,
    }
}

fn presence(entry: &Entry, version: Version) -> Presence {
    let Some(known) = entry.versions.get(&version) else { return Presence::Gone("it is gone from disk".into()) };
    match known.state {
        _ if known.servable.is_some() && known.state != VersionState::Draining => Presence::Serving,
        VersionState::Discovered | VersionState::Loading | VersionState::Ready => Presence::Loading,
        state => Presence::Gone(known.reason.clone().unwrap_or_else(|| state.as_str().into())),
    }
}

/// Whether outputs of the canary have drifted from its profile. Inputs are not its doing.
fn drift(name: &ModelName, canary: &Servable, now: Duration) -> Drift {
    let Some(monitor) = canary.watch.monitor() else { return Drift::Unknown };
    let Some(report) = monitor.telling_report(name, canary.version, now) else { return Drift::Unknown };
    let outputs = report.features.iter().filter(|feature| canary.signature.output(&feature.tensor).is_some());
    let drifted = outputs.filter(|feature| feature.state == DriftState::Drift);
    let drifted: Vec<_> = drifted.map(|feature| feature.feature.clone()).collect();
    if drifted.is_empty() { Drift::No } else { Drift::Of(drifted) }
}

/// What a step came to, for the history.
fn figures(rollout: &Rollout) -> String {
    let (seen, findings) = (&rollout.segment().seen, rollout.findings());
    let (requests, failures) = (seen.requests, seen.failures);
    format!(
        "{} requests with {} failures on the canary, {} with {} on stable; evidence {} of {:.0}",
        requests.canary,
        failures.canary,
        requests.stable,
        failures.stable,
        shown_evidence(findings.log_combined.exp()),
        1.0 / rollout.plan.alpha,
    )
}

/// How long counts may be unwritten while nothing but the time has changed.
const WRITE_AFTER: Duration = Duration::from_secs(10);

impl State {
    /// The rollout that goes on, or the last one, with what was counted up to now.
    fn rollout(&self, name: &ModelName) -> Result<RolloutStatus, RegistryError> {
        let release = self.entry(name)?.release.clone();
        let mut kept = self.rollouts.get(name).cloned().ok_or(RolloutError::None)?;
        kept.read();
        Ok(RolloutStatus { model: name.clone(), release, rollout: kept.rollout, is_repeated: false })
    }

    /// A copy of the rollout of a model after a change, with the release as it is.
    fn changed_rollout(
        &self,
        name: &ModelName,
        change: impl FnOnce(&mut Kept) -> Result<(), RolloutError>,
    ) -> Result<(Release, Kept), RegistryError> {
        let mut kept = self.rollouts.get(name).cloned().ok_or(RolloutError::None)?;
        kept.read();
        change(&mut kept)?;
        Ok((self.entry(name)?.release.clone(), kept))
    }

    /// Writes what was counted where that is new, and the time now and then.
    fn write_counts(&mut self, name: &ModelName, kept: &mut Kept, now: Duration) -> Result<(), StoreError> {
        let counts = |rollout: &Rollout| (rollout.segment().clone(), rollout.cuts.clone());
        let is_new = self.rollouts.get(name).is_none_or(|before| counts(&before.rollout) != counts(&kept.rollout));
        let is_due = kept.written.is_none_or(|written| now.saturating_sub(written) >= WRITE_AFTER);
        if is_new || is_due {
            // Not written until it is: after a failure the next look tries again.
            kept.written = None;
            self.store.commit_with(&[], &[kept.row(name)])?;
            kept.written = Some(now);
        }
        Ok(())
    }

    fn servable(&self, name: &ModelName, version: Version) -> Option<Arc<Servable>> {
        self.models.get(name)?.servable(version)
    }
}
