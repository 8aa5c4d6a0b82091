//! What watches a version that is loaded: the monitor of its profile, wherever that comes from.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::LoadJob;
use crate::{
    config::{self, ModelConfig},
    domain::{ModelName, Signature, Version},
    engine::{Model, OnnxModel},
    monitor::{
        self, Baseline, ColumnTypes, Contract, Learning, LearningOptions, MonitorSettings, Profile, VersionMonitor,
        Watch,
    },
    registry::{Registry, admission, facts},
    route::Servable,
};

impl Registry {
    /// The watch over a version with this profile; `identity` tells its model apart from others. Counts of the version go on: those of an earlier load, or those that
    /// were saved.
    pub(super) fn watch_over(
        &self,
        job: &LoadJob,
        profile: Option<Profile>,
        model: &OnnxModel,
        identity: &str,
    ) -> Result<Arc<Watch>, String> {
        let config = job.config.as_ref().as_ref().ok();
        let of_model = |settings| MonitorSettings {
            labels: facts::labels(config.unwrap_or(&ModelConfig::default()), model.metadata()),
            ..settings_of(settings, config)
        };
        let settings = self.shared.options.monitor.as_ref().map(of_model);
        let is_watched = config.and_then(|config| config.monitor.enabled).unwrap_or(true);
        let Some(settings) = settings.filter(|_| is_watched) else { return Ok(Arc::default()) };
        let types = config.map(admission::column_types).unwrap_or_default();
        warn_of_ignored_segments(job, &settings, &types);
        let identity = &identity_of(identity, &types);
        let fits = |profile: &Profile| profile.fit(model.signature()).is_empty();
        let kept = || kept_before(&settings, job).filter(fits);
        let learnt = || match settings.baseline {
            Baseline::Profile => None,
            // The first one is kept: after a restart there may be nobody to learn from, and counts are of one profile.
            Baseline::Stable => kept().or_else(|| {
                let live = self.live_profile(&job.model, job.version).filter(fits)?;
                keep(learnt_place(&settings, job).as_deref(), &job.model, job.version, &live);
                Some(live)
            }),
            Baseline::Learn(_) => kept().filter(|profile| is_learnt_from(profile, identity, job)),
        };
        match (profile.or_else(learnt).map(|profile| profile.without_ignored(&types)), settings.baseline) {
            // All that it has is left out.
            (Some(profile), _) if profile.features.is_empty() => Ok(Arc::default()),
            (Some(profile), _) => {
                warn_of_unknown_values(&job.model, job.version, &profile, &settings);
                let monitor = VersionMonitor::new(profile, model.signature(), &settings);
                let monitor = monitor.map_err(|error| format!("profile: {error}"))?;
                self.forget_learning(job, &settings);
                Ok(self.go_on(job, &settings, monitor, model.signature()))
            }
            (None, Baseline::Learn(length)) => {
                let names =
                    admission::columns(config.unwrap_or(&ModelConfig::default()), model.metadata(), model.signature());
                let (place, name, version) = (learnt_place(&settings, job), job.model.clone(), job.version);
                let contracted = settings.clone();
                let learning = Learning::new(LearningOptions {
                    length,
                    model_identity: identity.to_owned(),
                    names: names.unwrap_or_default(),
                    types,
                    signature: Arc::clone(model.signature()),
                    keep: Box::new(move |profile| {
                        warn_of_unknown_values(&name, version, profile, &contracted);
                        keep(place.as_deref(), &name, version, profile)
                    }),
                    settings,
                });
                Ok(self.go_on_learning(job, learning))
            }
            (None, Baseline::Stable) => Ok(self.await_stable(job, settings, Arc::clone(model.signature()), types)),
            (None, Baseline::Profile) => Ok(Arc::default()),
        }
    }

    /// A watch that begins when the stable version has rows enough and this one has something to compare.
    fn await_stable(
        &self,
        job: &LoadJob,
        settings: MonitorSettings,
        signature: Arc<Signature>,
        types: ColumnTypes,
    ) -> Arc<Watch> {
        let (shared, place) = (Arc::downgrade(&self.shared), learnt_place(&settings, job));
        let (model, version) = (job.model.clone(), job.version);
        Arc::new(Watch::awaiting(Box::new(move || {
            let registry = Registry { shared: shared.upgrade()? };
            let live = registry.live_profile(&model, version).filter(|live| live.fit(&signature).is_empty())?;
            keep(place.as_deref(), &model, version, &live);
            warn_of_unknown_values(&model, version, &live, &settings);
            let monitor = VersionMonitor::new(live.without_ignored(&types), &signature, &settings);
            monitor
                .inspect_err(|error| tracing::error!(%model, %error, "the stable version's rows are no profile"))
                .ok()
        })))
    }

    /// What is live on the stable version, or was before this one was, as a profile.
    fn live_profile(&self, model: &ModelName, version: Version) -> Option<Profile> {
        let stable = {
            let state = self.lock();
            let entry = state.entry(model).ok()?;
            Arc::clone(entry.versions.get(&entry.baseline_of(version)?)?.servable.as_ref()?)
        };
        let monitor = stable.watch.monitor()?;
        let longest = monitor.window_lengths().iter().max().copied()?;
        monitor.live_profile(longest, (self.shared.watchers.clock)())
    }

    /// Lets the counts of the version go on.
    fn go_on(
        &self,
        job: &LoadJob,
        settings: &MonitorSettings,
        monitor: VersionMonitor,
        signature: &Signature,
    ) -> Arc<Watch> {
        let (now, before) = ((self.shared.watchers.clock)(), self.serving(job));
        let counted = before.as_ref().and_then(|before| Some((before, before.watch.monitor()?)));
        if let Some((before, counted)) = counted {
            if counted.is_like(&monitor) && *before.signature == *signature {
                // Rows that are counted until this load is entered are not lost, since both count into the same.
                return Arc::clone(&before.watch);
            }
            monitor.adopt(&counted, now);
        } else if let Some(directory) = &settings.directory {
            monitor::restore(directory, &job.model, job.version, &monitor, now);
        }
        Arc::new(Watch::with(Some(Arc::new(monitor))))
    }

    /// What serves under the number of the version now.
    fn serving(&self, job: &LoadJob) -> Option<Arc<Servable>> {
        let state = self.lock();
        let entry = state.models.get(&job.model).and_then(|entry| entry.versions.get(&job.version));
        entry.and_then(|entry| entry.servable.clone())
    }

    /// Lets what the version learnt go on: in an earlier load, or in an earlier run.
    fn go_on_learning(&self, job: &LoadJob, mut learning: Learning) -> Arc<Watch> {
        if let Some(before) = self.serving(job) {
            if before.watch.goes_on_learning(&learning) {
                return Arc::clone(&before.watch);
            }
            // Two must not write one file.
            before.watch.stop_learning();
        }
        let settings = self.shared.options.monitor.as_ref();
        if let Some(directory) = settings.and_then(|settings| settings.directory.as_ref()) {
            let path = monitor::learning_path(directory, &job.model, job.version);
            learning.go_on_from(&path, (self.shared.watchers.clock)());
        }
        Arc::new(Watch::learning(learning))
    }

    /// The version has a profile now: what it learnt of its own is of no use any more.
    fn forget_learning(&self, job: &LoadJob, settings: &MonitorSettings) {
        if let Some(before) = self.serving(job) {
            before.watch.stop_learning();
        }
        let Some(directory) = &settings.directory else { return };
        let path = monitor::learning_path(directory, &job.model, job.version);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "saved rows to learn from are not removed");
            }
            _ => {}
        }
    }

    /// Saves the counts of a version that answers nothing any more, or what it learnt, so that its next load goes on from
    /// them.
    pub(super) fn save_counts(&self, model: &ModelName, version: Version, watch: &Watch) {
        let directory = self.shared.options.monitor.as_ref().and_then(|settings| settings.directory.as_ref());
        if let Some(directory) = directory.filter(|_| watch.wants_rows()) {
            if !self.shared.watchers.monitor.settle(SETTLE) {
                tracing::warn!(%model, version = version.get(), "the monitor is behind: the latest rows are not saved");
            }
            monitor::save(directory, model, version, watch);
            watch.stop_learning();
        }
    }
}

/// How long the end of a version waits for the monitor to count what it answered.
const SETTLE: Duration = Duration::from_secs(2);

/// The gateway's settings, and what the model wants different.
fn settings_of(settings: &MonitorSettings, config: Option<&ModelConfig>) -> MonitorSettings {
    let mut settings = settings.clone();
    if let Some(config) = config.map(|config| &config.monitor) {
        let thresholds = &mut settings.thresholds;
        // What the model says holds, and what it does not say gives way: no drift may be less than a warning.
        let (warning, drift) = (thresholds.warning, thresholds.drift);
        thresholds.warning = config.warning.unwrap_or(config.drift.map_or(warning, |drift| warning.min(drift)));
        thresholds.drift = config.drift.unwrap_or(drift.max(thresholds.warning));
        thresholds.min_rows = config.min_rows.unwrap_or(thresholds.min_rows);
        if let Some(windows) = &config.windows {
            settings.windows = windows.iter().map(|window| window.0).collect();
        }
        settings.contract = config.contract.map_or(settings.contract, Into::into);
        settings.baseline = config.baseline.map_or(settings.baseline, Into::into);
        settings.segments = config.segments.clone().unwrap_or(settings.segments);
    }
    settings
}

/// Says that the contract lets unknown values of these features pass.
fn warn_of_unknown_values(model: &ModelName, version: Version, profile: &Profile, settings: &MonitorSettings) {
    let features: Vec<_> = profile.inputs_of_unknown_values().collect();
    if settings.contract != Contract::Off && !features.is_empty() {
        let (version, features) = (version.get(), features.join(", "));
        let message =
            "the profile does not know its rare values: no category of these features is against the contract";
        tracing::warn!(%model, version, features, "{message}");
    }
}

/// Says that rows are not told apart by columns that are left out.
fn warn_of_ignored_segments(job: &LoadJob, settings: &MonitorSettings, types: &ColumnTypes) {
    for segment in settings.segments.iter().filter(|segment| types.ignores(segment, segment)) {
        let (model, version) = (&job.model, job.version.get());
        let message = "rows are not counted apart by the values of this column: [monitor.features] leaves it out";
        tracing::warn!(%model, version, segment, "{message}");
    }
}

/// Where the profile that a version learnt is kept; `None`: nowhere.
fn learnt_place(settings: &MonitorSettings, job: &LoadJob) -> Option<PathBuf> {
    let directory = settings.directory.as_ref()?;
    Some(monitor::learnt_profile_path(directory, &job.model, job.version))
}

/// Keeps a profile that was learnt, for the next load; true when it is kept.
fn keep(place: Option<&Path>, model: &ModelName, version: Version, profile: &Profile) -> bool {
    let version = version.get();
    tracing::info!(%model, version, rows = profile.rows, "the version's profile is learnt");
    let Some(place) = place else { return false };
    let json = profile.to_json().map_err(|error| error.to_string());
    let written = json.and_then(|json| monitor::write(place, json.as_bytes()).map_err(|error| error.to_string()));
    if let Err(error) = &written {
        tracing::warn!(%model, version, %error, "the learnt profile is not kept over a restart");
    }
    written.is_ok()
}

/// The profile that the version learnt in an earlier run.
fn kept_before(settings: &MonitorSettings, job: &LoadJob) -> Option<Profile> {
    let path = learnt_place(settings, job)?;
    let parsed = Profile::parse(&fs::read(&path).ok()?);
    parsed.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a learnt profile is not used")).ok()
}

/// Tells apart what is learnt: the model, and what its columns are taken for. What is left out makes no difference, since that
/// can be left out of what was learnt before.
fn identity_of(model: &str, types: &ColumnTypes) -> String {
    let types = types.watched();
    if types.is_empty() { model.to_owned() } else { format!("{model} {types}") }
}

/// Whether a profile was learnt of the rows of the model that is loaded: what another one answered is no measure of it.
fn is_learnt_from(profile: &Profile, identity: &str, job: &LoadJob) -> bool {
    // One that an earlier program kept does not say of which.
    let is_it = profile.learnt_from.as_ref().is_none_or(|model| model == identity);
    if !is_it {
        let (model, version) = (&job.model, job.version.get());
        tracing::info!(%model, version, "the profile that the version learnt is of another model: it learns anew");
    }
    is_it
}

impl From<config::Baseline> for Baseline {
    fn from(baseline: config::Baseline) -> Self {
        match baseline {
            config::Baseline::Profile => Self::Profile,
            config::Baseline::Stable => Self::Stable,
            config::Baseline::Learn(span) => Self::Learn(span.0),
        }
    }
}

impl From<config::Contract> for Contract {
    fn from(contract: config::Contract) -> Self {
        match contract {
            config::Contract::Off => Self::Off,
            config::Contract::Flag => Self::Flag,
            config::Contract::Reject => Self::Reject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_that_a_model_sets_holds_and_the_gateways_gives_way() {
        let mut settings = MonitorSettings::default();
        (settings.thresholds.warning, settings.thresholds.drift) = (0.1, 0.2);
        let of = |warning, drift| {
            let mut config = ModelConfig::default();
            (config.monitor.warning, config.monitor.drift) = (warning, drift);
            let thresholds = settings_of(&settings, Some(&config)).thresholds;
            [thresholds.warning, thresholds.drift].map(|threshold| format!("{threshold}"))
        };
        assert_eq!(of(None, None), ["0.1", "0.2"]);
        assert_eq!(of(None, Some(0.3)), ["0.1", "0.3"]);
        assert_eq!(of(None, Some(0.05)), ["0.05", "0.05"], "not the gateway's warning in its place");
        assert_eq!(of(Some(0.15), None), ["0.15", "0.2"]);
        assert_eq!(of(Some(0.5), None), ["0.5", "0.5"]);
        assert_eq!(of(Some(0.01), Some(0.05)), ["0.01", "0.05"]);
    }

    #[test]
    fn windows_that_a_model_sets_are_its_own() {
        let (settings, mut config) = (MonitorSettings::default(), ModelConfig::default());
        assert_eq!(settings_of(&settings, Some(&config)).windows, settings.windows);
        let day = Duration::from_hours(24);
        config.monitor.windows = Some(vec![config::Span(day), config::Span(7 * day)]);
        assert_eq!(settings_of(&settings, Some(&config)).windows, [day, 7 * day]);
    }
}
