//! The JSON of rollouts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Release, Share, body, timestamp};
use crate::{registry, rollout};

/// What a rollout is started with. What is absent is as configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutBody {
    #[serde(deserialize_with = "body::version")]
    pub version: u64,
    /// Percentages that ascend to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Share>>,
    /// A duration such as `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_p99_ratio: Option<f64>,
    /// A duration such as `2ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_tolerance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tolerance: Option<f64>,
    /// `hold`, `roll_back` or `ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_drift: Option<String>,
    #[serde(default, deserialize_with = "body::reason", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A rollout as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStatus {
    pub model: String,
    pub version: u64,
    /// The version that it is compared with.
    pub stable: u64,
    /// `running`, `paused`, `completed`, `rolled_back`, `aborted` or `superseded`.
    pub state: String,
    /// The last decision and its reason.
    pub note: String,
    /// From 1.
    pub step: u64,
    /// The canary's share in this step.
    pub percent: Share,
    pub steps: Vec<Share>,
    pub interval: String,
    /// How long this step has lasted while the rollout ran.
    pub served_seconds: f64,
    pub min_requests: u64,
    /// What must still be compared before this step is left, in words, such as `score: 137 of 200 compared requests of
    /// stable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Of this step, by arm.
    pub requests: Arms,
    pub failures: Arms,
    pub evidence: Evidence,
    pub limits: Limits,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub ended_at: Option<String>,
    /// The release as it is, or would be after a dry run.
    pub release: Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Arms {
    pub stable: u64,
    pub canary: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    pub alpha: f64,
    /// The canary is rolled back when the combined evidence reaches this: 1/alpha.
    pub limit: f64,
    /// The weighted sum of the metrics that are material.
    pub combined: f64,
    pub metrics: Vec<MetricEvidence>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricEvidence {
    /// `failures`, `refused`, `latency`, `class` or `score`.
    pub metric: String,
    /// 1 at the start, and at most 1 on the mean while the versions do not differ.
    pub evidence: f64,
    pub weight: f64,
    /// The difference is large enough to be held against the canary.
    pub material: bool,
    /// Requests that count as evidence, over all steps.
    pub requests: Arms,
    /// Of them, those that failed or were refused; absent for distributions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Arms>,
    /// Requests of this step that are compared, those that repeat a key too; absent where the model has no such metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Arms>,
    /// The total variation distance between the arms; absent for events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    pub max_error_rate: f64,
    pub max_p99_ratio: f64,
    pub latency_tolerance: String,
    pub output_tolerance: f64,
    pub on_drift: String,
}

impl From<rollout::Pair> for Arms {
    fn from(pair: rollout::Pair) -> Self {
        Self { stable: pair.stable, canary: pair.canary }
    }
}

/// Evidence outgrows what JSON readers take for a number.
fn evidence(log: f64) -> f64 {
    const LARGEST: f64 = 1e300;
    log.exp().min(LARGEST)
}

impl MetricEvidence {
    fn of(rollout: &rollout::Rollout, finding: &rollout::Finding) -> Self {
        Self {
            metric: finding.metric.as_str().to_owned(),
            evidence: evidence(finding.log_evidence),
            weight: finding.metric.weight(),
            material: finding.is_material,
            requests: finding.requests.into(),
            compared: rollout.compared(finding.metric).map(Arms::from),
            events: finding.distance.is_none().then(|| finding.events.into()),
            distance: finding.distance,
        }
    }
}

impl From<&registry::RolloutStatus> for RolloutStatus {
    fn from(status: &registry::RolloutStatus) -> Self {
        let rollout = &status.rollout;
        let (plan, seen, findings) = (&rollout.plan, &rollout.segment().seen, rollout.findings());
        let duration = |duration| humantime::format_duration(duration).to_string();
        Self {
            model: status.model.to_string(),
            version: plan.version.get(),
            stable: rollout.stable.get(),
            state: rollout.status.as_str().to_owned(),
            note: rollout.note.clone(),
            step: rollout.step as u64 + 1,
            percent: Share(rollout.percent().get()),
            steps: plan.steps.iter().map(|step| Share(step.get())).collect(),
            interval: duration(plan.interval),
            served_seconds: rollout.served.as_secs_f64(),
            min_requests: plan.min_requests,
            missing: rollout.missing(),
            requests: seen.requests.into(),
            failures: seen.failures.into(),
            evidence: Evidence {
                alpha: plan.alpha,
                limit: 1.0 / plan.alpha,
                combined: evidence(findings.log_combined),
                metrics: findings.each.iter().map(|finding| MetricEvidence::of(rollout, finding)).collect(),
            },
            limits: Limits {
                max_error_rate: plan.limits.max_error_rate,
                max_p99_ratio: plan.limits.max_p99_ratio,
                latency_tolerance: duration(plan.limits.latency_tolerance),
                output_tolerance: plan.limits.output_tolerance,
                on_drift: plan.limits.on_drift.as_str().to_owned(),
            },
            started_at: timestamp(rollout.started),
            ended_at: rollout.ended.map(timestamp),
            release: Release::from(&status.release),
        }
    }
}
