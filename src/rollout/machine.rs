//! The life of one rollout: which step it is at, and what is to happen next.

use std::time::{Duration, SystemTime};

use super::{Cuts, Finding, Findings, Kinds, Limits, Metric, Pair, Plan, PlanError, Segment, latency, shown_evidence};
use crate::{
    domain::{Percent, Version},
    fault::{ErrorCode, Fault},
};

/// Where a rollout is. The last four are ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Running,
    /// Does not advance. Its gates go on: a canary that is found worse is rolled back.
    Paused,
    /// The version is stable now.
    Completed,
    /// A gate failed: the canary has 0 % and stays loaded.
    RolledBack,
    /// An operator ended it: the canary is cleared.
    Aborted,
    /// Somebody changed the stable version or the canary meanwhile.
    Superseded,
}

impl Status {
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Paused, Self::Completed, Self::RolledBack, Self::Aborted, Self::Superseded];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }

    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// Why an operation on a rollout was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    #[error("a rollout of version {0} is going on: abort it first")]
    Active(Version),
    #[error("there is no rollout")]
    None,
    #[error("the rollout of version {version} is {} already", status.as_str())]
    Ended { version: Version, status: Status },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Fault for RolloutError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Active(_) | Self::Ended { .. } => ErrorCode::Conflict,
            Self::None => ErrorCode::NotFound,
            Self::Plan(error) => error.code(),
        }
    }
}

/// Whether a version can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    Serving,
    /// After a restart.
    Loading,
    /// It is not there and will not come by itself; the reason.
    Gone(String),
}

/// What is known of the versions beside the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vitals {
    pub stable: Presence,
    pub canary: Presence,
    pub drift: Drift,
    /// That the canary's live quality is worse than stable's, in words; `None` where it is not, or where
    /// nothing is known of it.
    pub worse_quality: Option<String>,
}

/// Whether the canary's answers have drifted from its reference profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// There is no profile, or too few rows.
    Unknown,
    No,
    /// Of these outputs.
    Of(Vec<String>),
}

/// Which gate failed, and the figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// A [`Metric`], or `error_rate`, `p99`, `drift`, `quality` or `canary`.
    pub metric: &'static str,
    /// With the evidence and the counts.
    pub words: String,
}

/// What is to happen next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nothing; the reason.
    Hold(String),
    /// The canary gets this share.
    Advance(Percent),
    /// The version becomes stable.
    Promote,
    /// The canary gets nothing.
    RollBack(Cause),
}

/// A rollout and all it has counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    pub plan: Plan,
    /// The version that it is compared with.
    pub stable: Version,
    pub status: Status,
    /// From 0.
    pub step: usize,
    /// How long this step has lasted: only while it runs and both versions serve, so that neither a pause
    /// nor a time without a gateway counts.
    pub served: Duration,
    /// One for each step so far; the last one is being filled.
    pub segments: Vec<Segment>,
    /// `None` until enough answers were seen.
    pub cuts: Option<Cuts>,
    /// What of the model's answers is compared. Known once both versions serve, and not kept over a restart.
    pub kinds: Kinds,
    pub started: SystemTime,
    pub ended: Option<SystemTime>,
    /// The last decision and its reason, for people.
    pub note: String,
}

/// Fewer requests than this say nothing of an error rate.
const RATE_REQUESTS: u64 = 20;
/// Fewer requests than this have fewer than ten beyond their 99th percentile.
const P99_REQUESTS: u64 = 1_000;

impl Rollout {
    /// # Errors
    /// When the plan makes no sense.
    pub fn start(plan: Plan, stable: Version, at: SystemTime) -> Result<Self, PlanError> {
        plan.check_start()?;
        let first = plan.steps[0];
        let note = format!("started at {first} %");
        let segments = vec![Segment::new(first, Percent::ZERO)];
        let (status, served) = (Status::Running, Duration::ZERO);
        Ok(Self {
            plan,
            stable,
            status,
            step: 0,
            served,
            segments,
            cuts: None,
            kinds: Kinds::default(),
            started: at,
            ended: None,
            note,
        })
    }

    /// The canary's share now.
    #[must_use]
    pub fn percent(&self) -> Percent {
        self.plan.steps[self.step]
    }

    /// The counts of this step.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    pub fn segment_mut(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// The evidence so far.
    #[must_use]
    pub fn findings(&self) -> Findings {
        Findings::of(&self.segments, &self.plan.limits)
    }

    /// Looks at the counts, `elapsed` after the look before, and decides. Only [`Rollout::served`] and the note
    /// change; the decision is carried out by [`Rollout::advance`] or [`Rollout::end`].
    pub fn look(&mut self, elapsed: Duration, vitals: &Vitals) -> Decision {
        if !self.status.is_active() {
            return Decision::Hold(self.note.clone());
        }
        if self.status == Status::Running && vitals.stable == Presence::Serving && vitals.canary == Presence::Serving {
            self.served += elapsed;
        }
        if let Some(cause) = self.failed_gate(vitals) {
            return Decision::RollBack(cause);
        }
        if let Some(reason) = self.reason_to_hold(vitals) {
            self.note.clone_from(&reason);
            return Decision::Hold(reason);
        }
        self.plan.steps.get(self.step + 1).map_or(Decision::Promote, |next| Decision::Advance(*next))
    }

    /// The next step begins.
    pub fn advance(&mut self) {
        let floor = self.percent();
        self.step += 1;
        self.served = Duration::ZERO;
        self.segments.push(Segment::new(self.percent(), floor));
        self.note = format!("advanced to {} %", self.percent());
    }

    /// # Errors
    /// When it has ended.
    pub fn pause(&mut self) -> Result<(), RolloutError> {
        self.check_active()?;
        (self.status, self.note) = (Status::Paused, format!("paused at {} %", self.percent()));
        Ok(())
    }

    /// # Errors
    /// When it has ended.
    pub fn resume(&mut self) -> Result<(), RolloutError> {
        self.check_active()?;
        (self.status, self.note) = (Status::Running, format!("resumed at {} %", self.percent()));
        Ok(())
    }

    /// It is over.
    pub fn end(&mut self, status: Status, note: String, at: SystemTime) {
        (self.status, self.note, self.ended) = (status, note, Some(at));
    }

    /// # Errors
    /// When it has ended.
    pub fn check_active(&self) -> Result<(), RolloutError> {
        if self.status.is_active() {
            return Ok(());
        }
        Err(RolloutError::Ended { version: self.plan.version, status: self.status })
    }

    fn failed_gate(&self, vitals: &Vitals) -> Option<Cause> {
        if let Presence::Gone(reason) = &vitals.canary {
            let words = format!("version {} does not serve any more: {reason}", self.plan.version);
            return Some(Cause { metric: "canary", words });
        }
        let findings = self.findings();
        if findings.log_combined >= -self.plan.alpha.ln() {
            return Some(self.evident(&findings));
        }
        let rate = self.error_rate_too_high().map(|words| Cause { metric: "error_rate", words });
        let p99 = || self.p99_too_long().map(|words| Cause { metric: "p99", words });
        let drift = || match &vitals.drift {
            Drift::Of(outputs) if self.plan.limits.on_drift == super::OnDrift::RollBack => {
                Some(Cause { metric: "drift", words: drifted(outputs) })
            }
            _ => None,
        };
        let quality = || vitals.worse_quality.clone().map(|words| Cause { metric: "quality", words });
        rate.or_else(p99).or_else(drift).or_else(quality)
    }

    fn evident(&self, findings: &Findings) -> Cause {
        let strongest = findings.strongest();
        let words = format!(
            "{}; evidence {} in all, rolled back from {} on",
            described(strongest, &self.plan.limits),
            shown_evidence(findings.log_combined.exp()),
            shown_evidence(1.0 / self.plan.alpha),
        );
        Cause { metric: strongest.metric.as_str(), words }
    }

    fn error_rate_too_high(&self) -> Option<String> {
        let seen = &self.segment().seen;
        let rate = share(seen.failures.canary, seen.requests.canary);
        let limit = self.plan.limits.max_error_rate;
        (seen.requests.canary >= RATE_REQUESTS && rate > limit).then(|| {
            let counts = arms(seen.failures, seen.requests);
            format!("error rate {:.1} %, the limit is {:.1} %: {counts}", rate * 100.0, limit * 100.0)
        })
    }

    fn p99_too_long(&self) -> Option<String> {
        let p99 = |segment: &Segment, arm: fn(&Pair) -> u64| {
            let latencies = &segment.seen.latency;
            let requests: u64 = latencies.iter().map(arm).sum();
            latency::quantile(latencies, arm, 0.99).filter(|_| requests >= P99_REQUESTS)
        };
        let canary = p99(self.segment(), |pair| pair.canary)?;
        // At 100 % stable answers nothing any more: what it did last is what there is to compare with.
        let stable = self.segments.iter().rev().find_map(|segment| p99(segment, |pair| pair.stable))?;
        let limits = &self.plan.limits;
        let ratio = canary.as_secs_f64() / stable.as_secs_f64();
        (ratio > limits.max_p99_ratio && canary.saturating_sub(stable) > limits.latency_tolerance).then(|| {
            let limit = limits.max_p99_ratio;
            format!(
                "99th percentile of latency {canary:.1?}, {ratio:.1} times stable's {stable:.1?}; the limit is {limit}"
            )
        })
    }

    fn reason_to_hold(&self, vitals: &Vitals) -> Option<String> {
        for (presence, version) in [(&vitals.canary, self.plan.version), (&vitals.stable, self.stable)] {
            match presence {
                Presence::Serving => {}
                Presence::Loading => return Some(format!("holding: version {version} is loading")),
                Presence::Gone(reason) => return Some(format!("holding: version {version} does not serve: {reason}")),
            }
        }
        if self.status == Status::Paused {
            return Some(format!("paused at {} %", self.percent()));
        }
        let (requests, wanted) = (self.segment().seen.requests.canary, self.plan.min_requests);
        if requests == 0 && wanted > 0 {
            return Some(format!("holding: no traffic: version {} has had no request in this step", self.plan.version));
        }
        let (served, interval) = (whole_seconds(self.served), self.plan.interval);
        let missing = self.missing();
        if self.served < interval {
            let missing: Vec<_> = missing.iter().map(|missing| format!("; still missing: {missing}")).collect();
            let missing = missing.concat();
            return Some(format!(
                "{} of {}, {requests} requests of at least {wanted}{missing}",
                humantime::format_duration(served),
                humantime::format_duration(interval)
            ));
        }
        if !missing.is_empty() {
            return Some(format!("holding: {}", missing.join("; ")));
        }
        match &vitals.drift {
            Drift::Of(outputs) if self.plan.limits.on_drift == super::OnDrift::Hold => {
                Some(format!("holding: {}", drifted(outputs)))
            }
            _ => None,
        }
    }
}

/// What was found of one metric, with its counts.
fn described(finding: &Finding, limits: &Limits) -> String {
    let Finding { metric, requests, events, distance, .. } = finding;
    let name = metric.as_str();
    let Some(distance) = distance else { return format!("{name}: {}", arms(*events, *requests)) };
    let between = format!(
        "{name}: total variation distance {distance:.3} between {} requests on the canary and {} on stable",
        requests.canary, requests.stable
    );
    match metric {
        Metric::Latency => {
            let tolerance = humantime::format_duration(limits.latency_tolerance);
            format!("{between}, and it is longer by more than {tolerance} (--latency-tolerance)")
        }
        _ => format!(
            "{between}, above the limit of {} (--output-tolerance: raise it where the version is meant to answer otherwise)",
            limits.output_tolerance
        ),
    }
}

fn arms(events: Pair, requests: Pair) -> String {
    let Pair { stable, canary } = events;
    format!("{canary} of {} on the canary, {stable} of {} on stable", requests.canary, requests.stable)
}

fn drifted(outputs: &[String]) -> String {
    format!("the answers have drifted from the reference profile: {}", outputs.join(", "))
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

#[cfg(test)]
mod tests;
