//! What watches a version that is loaded: the monitor of its profile, wherever that comes from.

use std::{fs, sync::Arc};

use super::LoadJob;
use crate::{
    config::{self, ModelConfig},
    engine::{Model, OnnxModel},
    monitor::{self, Baseline, Contract, Learning, MonitorSettings, Profile, VersionMonitor, Watch},
    registry::{Registry, admission},
};

impl Registry {
    /// The watch over a version with this profile. Counts of the version go on: those of an earlier load, or those that
    /// were saved.
    pub(super) fn watch_over(
        &self,
        job: &LoadJob,
        profile: Option<Profile>,
        model: &OnnxModel,
    ) -> Result<Watch, String> {
        let config = job.config.as_ref().as_ref().ok();
        let settings = self.shared.options.monitor.as_ref().map(|settings| settings_of(settings, config));
        let is_watched = config.and_then(|config| config.monitor.enabled).unwrap_or(true);
        let Some(settings) = settings.filter(|_| is_watched) else { return Ok(Watch::default()) };
        let learnt = || match settings.baseline {
            Baseline::Profile => None,
            Baseline::Stable => self.live_profile(job).filter(|profile| profile.fit(model.signature()).is_empty()),
            Baseline::Learn(_) => {
                learnt_before(&settings, job).filter(|profile| profile.fit(model.signature()).is_empty())
            }
        };
        match (profile.or_else(learnt), settings.baseline) {
            (Some(profile), _) => {
                let monitor = VersionMonitor::new(profile, model.signature(), &settings);
                let monitor = monitor.map_err(|error| format!("profile: {error}"))?;
                self.go_on(job, &settings, &monitor);
                Ok(Watch::with(Some(Arc::new(monitor))))
            }
            (None, Baseline::Learn(length)) => {
                let names =
                    admission::columns(config.unwrap_or(&ModelConfig::default()), model.metadata(), model.signature());
                let place = settings.directory.as_ref();
                let place = place.map(|place| monitor::learnt_profile_path(place, &job.model, job.version));
                let (name, version) = (job.model.clone(), job.version.get());
                let keep = move |profile: &Profile| {
                    tracing::info!(model = %name, version, rows = profile.rows, "the version's profile is learnt");
                    let written = profile.to_json().map_err(|error| error.to_string()).and_then(|json| {
                        let Some(place) = &place else { return Ok(()) };
                        monitor::write(place, json.as_bytes()).map_err(|error| error.to_string())
                    });
                    if let Err(error) = written {
                        tracing::warn!(model = %name, version, %error, "the learnt profile is not kept over a restart");
                    }
                };
                let signature = Arc::clone(model.signature());
                Ok(Watch::learning(Learning::new(length, names.unwrap_or_default(), signature, settings, keep)))
            }
            (None, _) => Ok(Watch::default()),
        }
    }

    /// What is live on the stable version, as a profile.
    fn live_profile(&self, job: &LoadJob) -> Option<Profile> {
        let stable = {
            let state = self.lock();
            let entry = state.entry(&job.model).ok()?;
            Arc::clone(entry.versions.get(&entry.release.stable?)?.servable.as_ref()?)
        };
        let monitor = stable.watch.monitor()?;
        let longest = monitor.window_lengths().iter().max().copied()?;
        monitor.live_profile(longest, (self.shared.watchers.clock)())
    }

    /// Lets the counts of the version go on.
    fn go_on(&self, job: &LoadJob, settings: &MonitorSettings, monitor: &VersionMonitor) {
        let now = (self.shared.watchers.clock)();
        let before = {
            let state = self.lock();
            let entry = state.models.get(&job.model).and_then(|entry| entry.versions.get(&job.version));
            entry.and_then(|entry| entry.servable.as_ref()).and_then(|servable| servable.watch.monitor())
        };
        if let Some(before) = before {
            monitor.adopt(&before, now);
        } else if let Some(directory) = &settings.directory {
            monitor::restore(directory, &job.model, job.version, monitor, now);
        }
    }
}

/// The gateway's settings, and what the model wants different.
fn settings_of(settings: &MonitorSettings, config: Option<&ModelConfig>) -> MonitorSettings {
    let mut settings = settings.clone();
    if let Some(config) = config.map(|config| &config.monitor) {
        let thresholds = &mut settings.thresholds;
        thresholds.warning = config.warning.unwrap_or(thresholds.warning);
        thresholds.drift = config.drift.unwrap_or(thresholds.drift).max(thresholds.warning);
        thresholds.min_rows = config.min_rows.unwrap_or(thresholds.min_rows);
        settings.contract = config.contract.map_or(settings.contract, Into::into);
        settings.baseline = config.baseline.map_or(settings.baseline, Into::into);
        settings.segments = config.segments.clone().unwrap_or(settings.segments);
    }
    settings
}

/// The profile that the version learnt in an earlier run.
fn learnt_before(settings: &MonitorSettings, job: &LoadJob) -> Option<Profile> {
    let path = monitor::learnt_profile_path(settings.directory.as_ref()?, &job.model, job.version);
    let parsed = Profile::parse(&fs::read(&path).ok()?);
    parsed.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a learnt profile is not used")).ok()
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
