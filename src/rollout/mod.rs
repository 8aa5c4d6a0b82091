//! Progressive rollout: a canary that grows by itself, and goes to nothing when it is worse.
//!
//! Pure: no I/O and no clock of its own; time and counts come in as arguments.
//!
//! - [`Plan`] is what an operator asks for: the steps, and the limits of the gates;
//! - [`Segment`] holds the counts of one step, by arm (stable or canary);
//! - `evidence` turns counts into evidence against "the versions do not differ": an exact test that
//!   may be looked at after every request ([`Findings`]);
//! - [`Rollout`] is the state machine: [`Rollout::look`] says whether to hold, advance or roll back.
//!
//! `observe` counts, the registry looks once a second and makes the decisions durable.
//! `docs/ROLLOUT.md` has the formulas, their sources, and what is done in each odd case.

mod counts;
mod cuts;
mod evidence;
mod gaps;
mod latency;
mod machine;
mod plan;

pub use self::{
    counts::{Cell, Counts, Outcome, Pair, Seen, Segment, Stream, cell},
    cuts::{Cuts, SAMPLE, score_cell, set_apart},
    evidence::{Difference, Excess, Finding, Findings, Metric, shown_evidence},
    gaps::Kinds,
    latency::{BUCKETS, bucket, quantile},
    machine::{Cause, Decision, Drift, Presence, Rollout, RolloutError, Status, Vitals},
    plan::{Limits, MAX_STEPS, OnDrift, Plan, PlanError},
};
