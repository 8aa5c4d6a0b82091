//! Attempts at changes on their way into the audit log, and the bound on how many are written.
//!
//! A change that is made is always written, by itself. An attempt that changed nothing (refused, failed,
//! or all was so already) is written the first time; attempts like it that follow are only counted, and
//! one more entry says how many there were. The time between such entries doubles from a minute to an
//! hour while they go on, so a client that retries for ever leaves some thirty entries a day.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use super::operations::ChangeOptions;
use crate::{
    domain::{ModelName, Version},
    release::{Outcome, Release},
    store::{Allowance, Entry, KeyEntry, ModelFiles},
};

/// One attempt.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) model: ModelName,
    pub(super) at: SystemTime,
    pub(super) operation: &'static str,
    pub(super) asked: String,
    pub(super) outcome: Outcome,
    /// As it was, and as it became.
    pub(super) releases: (Release, Release),
    pub(super) detail: Option<String>,
    pub(super) actor: String,
    pub(super) reason: Option<String>,
    pub(super) attempts: u64,
    /// The idempotency key, and all that was asked with it.
    pub(super) key: Option<(String, String)>,
    /// The version whose signature may differ from now on, and the digest for which that holds.
    pub(super) allowance: Option<(Version, String)>,
    /// The files that are those of a released version from now on.
    pub(super) accepted: Option<(Version, ModelFiles)>,
}

impl Attempt {
    pub(super) fn new(model: &ModelName, operation: &'static str, asked: String, options: &ChangeOptions) -> Self {
        let key = options.idempotency_key.clone().map(|key| (key, content(model, operation, &asked, options)));
        Self {
            model: model.clone(),
            at: SystemTime::now(),
            operation,
            asked,
            outcome: Outcome::Unchanged,
            releases: <(Release, Release)>::default(),
            detail: None,
            actor: options.actor.clone(),
            reason: options.reason.clone(),
            attempts: 1,
            key,
            allowance: None,
            accepted: None,
        }
    }

    pub(super) fn key(&self) -> Option<KeyEntry<'_>> {
        self.key.as_ref().map(|(key, content)| KeyEntry { key, content })
    }

    /// A refused attempt keeps no key: nothing was changed, so asking again is harmless, and may succeed.
    pub(super) fn entry(&self) -> Entry<'_> {
        let is_kept = matches!(self.outcome, Outcome::Done | Outcome::Unchanged);
        Entry {
            model: &self.model,
            at: self.at,
            actor: &self.actor,
            operation: self.operation,
            asked: &self.asked,
            outcome: self.outcome,
            from: &self.releases.0,
            to: &self.releases.1,
            detail: self.detail.as_deref(),
            reason: self.reason.as_deref(),
            attempts: self.attempts,
            key: self.key().filter(|_| is_kept),
            allowance: self.allowance.as_ref().map(|(version, digest)| Allowance { version: *version, digest }),
            accepted: self.accepted.as_ref().map(|(version, files)| (*version, files)),
        }
    }
}

/// All that a repetition must ask the same.
fn content(model: &ModelName, operation: &str, asked: &str, options: &ChangeOptions) -> String {
    let content = (model.as_str(), operation, asked, &options.reason, options.if_generation, options.evict_previous);
    serde_json::to_string(&content).expect("numbers and text always have a JSON form")
}

/// Attempts of one kind: what they have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    model: ModelName,
    operation: &'static str,
    outcome: Outcome,
    actor: String,
}

/// Attempts of one kind of which one was written lately.
#[derive(Debug)]
struct Series {
    written: Instant,
    window: Duration,
    /// The newest that was not written; its `attempts` counts all of them.
    waiting: Option<Attempt>,
}

/// Decides which attempts that changed nothing are written.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    series: BTreeMap<Option<Kind>, Series>,
}

const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);
/// Kinds told apart at a time. What comes beside them is one kind, so that invented actors and
/// models are bounded too.
const MOST: usize = 16;

impl Repeats {
    /// The attempt, if it is to be written now; otherwise it is counted.
    pub(super) fn note(&mut self, attempt: Attempt, now: Instant) -> Option<Attempt> {
        let kind = Kind {
            model: attempt.model.clone(),
            operation: attempt.operation,
            outcome: attempt.outcome,
            actor: attempt.actor.clone(),
        };
        let is_told_apart = self.series.contains_key(&Some(kind.clone())) || self.series.len() < MOST;
        let kind = is_told_apart.then_some(kind);
        let Some(series) = self.series.get_mut(&kind) else {
            self.series.insert(kind, Series { written: now, window: SHORTEST, waiting: None });
            return Some(attempt);
        };
        let before = series.waiting.take().map_or(0, |waiting| waiting.attempts);
        let attempt = Attempt { attempts: before + 1, ..attempt };
        if now.saturating_duration_since(series.written) < series.window {
            series.waiting = Some(attempt);
            return None;
        }
        series.begin_again(now);
        Some(attempt)
    }

    /// What was counted and is due to be written. Series that ended are forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Attempt> {
        let mut due = Vec::new();
        self.series.retain(|_, series| {
            if now.saturating_duration_since(series.written) < series.window {
                return true;
            }
            let Some(waiting) = series.waiting.take() else { return false };
            due.push(waiting);
            series.begin_again(now);
            true
        });
        due
    }

    /// All that was counted: the gateway stops.
    pub(super) fn all(&mut self) -> Vec<Attempt> {
        std::mem::take(&mut self.series).into_values().filter_map(|series| series.waiting).collect()
    }
}

impl Series {
    fn begin_again(&mut self, now: Instant) {
        self.written = now;
        self.window = (self.window * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(actor: &str) -> Attempt {
        let options = ChangeOptions { actor: actor.into(), ..ChangeOptions::default() };
        let attempt = Attempt::new(&"fraud".parse().unwrap(), "promote", "version 9".into(), &options);
        Attempt { outcome: Outcome::Refused, ..attempt }
    }

    /// The entries that a client leaves which tries every second for `time`.
    fn entries(time: Duration) -> Vec<u64> {
        let (start, mut repeats, mut written) = (Instant::now(), Repeats::default(), Vec::new());
        for second in 0..time.as_secs() {
            let now = start + Duration::from_secs(second);
            written.extend(repeats.due(now).into_iter().map(|attempt| attempt.attempts));
            written.extend(repeats.note(attempt("ci"), now).map(|attempt| attempt.attempts));
        }
        written.extend(repeats.all().into_iter().map(|attempt| attempt.attempts));
        written
    }

    #[test]
    fn first_attempt_is_written_and_repetitions_are_counted() {
        assert_eq!(entries(Duration::from_secs(1)), [1]);
        assert_eq!(entries(Duration::from_secs(30)), [1, 29]);
        assert_eq!(entries(Duration::from_secs(200)), [1, 59, 120, 20]);
    }

    #[test]
    fn endless_loop_leaves_few_entries_and_every_attempt_is_in_one() {
        let day = Duration::from_hours(24);
        let written = entries(day);
        assert!(written.len() < 35, "{}", written.len());
        assert_eq!(written.iter().sum::<u64>(), day.as_secs());
    }

    #[test]
    fn invented_actors_are_bounded_together() {
        let (now, mut repeats) = (Instant::now(), Repeats::default());
        let written = (0..1000).filter_map(|number| repeats.note(attempt(&number.to_string()), now)).count();
        assert_eq!(written, MOST + 1);
        assert_eq!(repeats.all().iter().map(|attempt| attempt.attempts).sum::<u64>(), 1000 - written as u64);
    }

    #[test]
    fn kind_that_has_ended_is_forgotten() {
        let (now, mut repeats) = (Instant::now(), Repeats::default());
        assert!(repeats.note(attempt("ci"), now).is_some());
        assert!(repeats.due(now + SHORTEST).is_empty() && repeats.series.is_empty());
        assert!(repeats.note(attempt("ci"), now + SHORTEST).is_some());
    }
}
