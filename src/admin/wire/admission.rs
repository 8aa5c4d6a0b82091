//! The steps of a version's admission.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registry::AdmissionReport;

/// One step of an admission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdmissionStep {
    /// Such as `digest`; see `docs/MODELS.md`.
    pub step: String,
    /// `passed`, `skipped` or `failed`.
    pub outcome: String,
    /// Why it failed or was skipped, everything found; what there is to know of one that passed.
    pub why: Vec<String>,
    pub seconds: f64,
}

/// The steps of a report, in their order.
#[must_use]
pub fn admission(report: &AdmissionReport) -> Vec<AdmissionStep> {
    let step = |step: &crate::registry::StepReport| AdmissionStep {
        step: step.step.as_str().to_owned(),
        outcome: step.outcome.as_str().to_owned(),
        why: step.why.clone(),
        seconds: step.time.as_secs_f64(),
    };
    report.steps.iter().map(step).collect()
}
