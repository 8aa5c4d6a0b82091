//! What an operator should know before a version becomes stable. Nothing of it forbids a promotion, unless the
//! operator asks for that (`strict`).

use std::time::Duration;

use super::{
    admission::{Outcome, Step},
    operations::{ChangeOptions, RegistryError},
    state::{Entry, State, VersionEntry},
};
use crate::{
    domain::{ModelName, Version},
    release::Change,
};

/// A run that takes so many times as long as stable's is told,
const SLOWER: f64 = 5.0;
/// if it is longer by more than this: what a request does not notice is no warning.
const NOTICED: Duration = Duration::from_millis(1);
/// The share of failed requests that is told,
const FAILING: f64 = 0.05;
/// of so many requests at least.
const ENOUGH: u64 = 20;

/// What is known of a version, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Facts {
    version: Version,
    /// Its drift is watched, or will be without anybody doing something.
    is_watched: bool,
    has_golden: bool,
    /// What a run of one row takes; zero when none was measured.
    run: Duration,
    answered: u64,
    failed: u64,
    files_changed: bool,
}

impl State {
    /// What is to be said of a change that could be made.
    ///
    /// `is_monitored`: the gateway watches drift at all.
    ///
    /// # Errors
    /// [`RegistryError::Strict`] where warnings are to be refused.
    pub(super) fn warnings(
        &self,
        name: &ModelName,
        change: &Change,
        options: &ChangeOptions,
        is_monitored: bool,
    ) -> Result<Vec<String>, RegistryError> {
        let Change::Promote(version) = change else { return Ok(Vec::new()) };
        let mut warnings = self.entry(name)?.promotion_warnings(*version, is_monitored);
        if self.entry(name)?.release.rolled_back.contains(version) {
            let story = self.rolled_back(name, *version).map(|story| format!(" ({story})")).unwrap_or_default();
            warnings.push(format!("version {version} was rolled back from{story}"));
        }
        if options.strict && !warnings.is_empty() {
            return Err(RegistryError::Strict { model: name.clone(), version: *version, warnings });
        }
        Ok(warnings)
    }
}

impl Entry {
    fn promotion_warnings(&self, version: Version, is_monitored: bool) -> Vec<String> {
        if self.release.stable == Some(version) {
            return Vec::new();
        }
        let own = self.config.as_ref().as_ref().ok().and_then(|config| config.monitor.enabled);
        let is_off = !is_monitored || own == Some(false);
        let facts = |version: Version| {
            let facts = self.versions.get(&version)?.facts(version)?;
            // Nobody misses what was switched off.
            Some(Facts { is_watched: facts.is_watched || is_off, ..facts })
        };
        let Some(candidate) = facts(version) else { return Vec::new() };
        let was_stable = self.release.previous == Some(version);
        warnings(&candidate, self.release.stable.and_then(facts).as_ref(), was_stable)
    }
}

impl VersionEntry {
    /// `None` while it does not serve.
    fn facts(&self, version: Version) -> Option<Facts> {
        let servable = self.servable.as_ref()?;
        let report = self.admission.as_deref();
        let golden = report.and_then(|report| report.steps.iter().find(|step| step.step == Step::Golden));
        let statistics = servable.metrics.statistics();
        Some(Facts {
            version,
            is_watched: servable.watch.wants_rows() || servable.watch.is_waiting(),
            has_golden: golden.is_some_and(|step| step.outcome == Outcome::Passed),
            run: servable.lane.status().run,
            answered: self.answered.requests(),
            failed: statistics.fail.count,
            files_changed: self.files_changed(),
        })
    }
}

/// All of it, the worst first. `stable` is what it takes the place of.
fn warnings(candidate: &Facts, stable: Option<&Facts>, was_stable: bool) -> Vec<String> {
    let Facts { version, answered, failed, .. } = *candidate;
    let mut warnings = Vec::new();
    let requests = answered + failed;
    let share = failed as f64 / requests.max(1) as f64;
    if requests >= ENOUGH && share >= FAILING {
        let percent = 100.0 * share;
        warnings.push(format!("version {version} failed on {failed} of its {requests} requests ({percent:.0} %)"));
    }
    if let Some(stable) = stable {
        let ratio = candidate.run.as_secs_f64() / stable.run.as_secs_f64().max(1e-9);
        if !stable.run.is_zero() && ratio >= SLOWER && candidate.run > stable.run + NOTICED {
            let (slow, fast) = (shown(candidate.run), shown(stable.run));
            let against = stable.version;
            warnings.push(format!(
                "version {version} is {ratio:.0} times slower than stable: a run takes {slow}, one of version {against} {fast}"
            ));
        }
        if requests == 0 && !was_stable {
            warnings.push(format!(
                "version {version} has answered no request since the gateway started: try it as a shadow or canary first"
            ));
        }
    }
    if candidate.files_changed {
        warnings.push(format!("the files of version {version} on disk are not those that were loaded"));
    }
    if !candidate.is_watched {
        let ends =
            if stable.is_some_and(|stable| stable.is_watched) { ", and that of the model ends here" } else { "" };
        warnings.push(format!(
            "version {version} has no profile.json: its drift is not watched{ends} (`tidegate profile`)"
        ));
    }
    if !candidate.has_golden {
        warnings.push(format!(
            "version {version} has no golden requests: nobody has checked what it answers (golden/*.json)"
        ));
    }
    warnings
}

/// To three digits or so.
fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        micros if micros < 1e3 => format!("{micros:.0} us"),
        micros if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        micros => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(version: u64, micros: u64) -> Facts {
        Facts {
            version: Version::new(version).unwrap(),
            is_watched: true,
            has_golden: true,
            run: Duration::from_micros(micros),
            answered: 100,
            failed: 0,
            files_changed: false,
        }
    }

    #[test]
    fn version_that_was_tried_watched_and_checked_has_no_warnings() {
        assert_eq!(warnings(&good(4, 20), Some(&good(3, 16)), false), Vec::<String>::new());
        assert_eq!(warnings(&good(4, 20), None, false), Vec::<String>::new());
    }

    #[test]
    fn each_fault_has_a_warning_of_its_own() {
        let cases = [
            (Facts { is_watched: false, ..good(4, 16) }, "no profile.json"),
            (Facts { has_golden: false, ..good(4, 16) }, "no golden requests"),
            (Facts { answered: 0, ..good(4, 16) }, "has answered no request"),
            (Facts { files_changed: true, ..good(4, 16) }, "not those that were loaded"),
            (Facts { answered: 95, failed: 5, ..good(4, 16) }, "failed on 5 of its 100 requests (5 %)"),
            (good(4, 22_000), "1375 times slower than stable: a run takes 22.0 ms, one of version 3 16 us"),
        ];
        for (candidate, words) in cases {
            let found = warnings(&candidate, Some(&good(3, 16)), false);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
    }

    #[test]
    fn what_nobody_notices_or_nothing_shows_is_no_warning() {
        let quiet = [
            (good(4, 900), good(3, 16)),
            (good(4, 50_000), good(3, 11_000)),
            (good(4, 50_000), good(3, 0)),
            (Facts { answered: 10, failed: 9, ..good(4, 16) }, good(3, 16)),
        ];
        for (candidate, stable) in quiet {
            assert_eq!(warnings(&candidate, Some(&stable), false), Vec::<String>::new(), "{candidate:?}");
        }
        let back = Facts { answered: 0, ..good(4, 16) };
        assert!(warnings(&back, Some(&good(3, 16)), true).is_empty(), "it was stable before");
        assert!(warnings(&back, None, false).is_empty(), "somebody must be the first");
    }
}
