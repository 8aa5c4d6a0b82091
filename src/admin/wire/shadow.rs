//! How a shadow version compares, as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shadow;

/// A shadow version beside the version that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The shadow version.
    pub version: u64,
    /// The version that answered.
    pub against: u64,
    /// Copies that were compared.
    pub copies: u64,
    /// What a run took on average: of the version that answered as its requests ran, of the shadow alone
    /// and at low priority.
    pub against_seconds: f64,
    pub version_seconds: f64,
    pub outputs: Vec<OutputComparison>,
}

/// One output of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputComparison {
    pub output: String,
    /// Rows that have a class.
    pub rows: u64,
    /// The share of them with the same class, from 0 to 1; null where no row has one.
    pub agreement: Option<f64>,
    /// Elements whose numbers were compared.
    pub elements: u64,
    /// The mean and the largest of their absolute differences.
    pub mean_difference: Option<f64>,
    pub max_difference: Option<f64>,
    /// Elements that are a finite number on one side only.
    pub incomparable: u64,
    /// Copies whose output had another shape or kind.
    pub mismatched: u64,
    /// The population stability index of the scores; null for the first 500 rows.
    pub psi: Option<f64>,
    /// Between the bins of the scores, deciles of the version that answered; the last bin counts what is
    /// no number.
    pub edges: Vec<f64>,
    /// Rows by bin, of the version that answered and of the shadow.
    pub against_bins: Vec<u64>,
    pub version_bins: Vec<u64>,
}

impl From<&shadow::ShadowReport> for Comparison {
    fn from(report: &shadow::ShadowReport) -> Self {
        Self {
            version: report.shadow.get(),
            against: report.live.get(),
            copies: report.copies,
            against_seconds: report.live_seconds,
            version_seconds: report.shadow_seconds,
            outputs: report.outputs.iter().map(OutputComparison::from).collect(),
        }
    }
}

impl From<&shadow::OutputReport> for OutputComparison {
    fn from(report: &shadow::OutputReport) -> Self {
        // JSON has no word for an infinite sum.
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        Self {
            output: report.output.clone(),
            rows: report.rows,
            agreement: report.agreement,
            elements: report.elements,
            mean_difference: finite(report.mean_difference),
            max_difference: finite(report.max_difference),
            incomparable: report.incomparable,
            mismatched: report.mismatched,
            psi: finite(report.psi),
            edges: report.edges.clone(),
            against_bins: report.live_bins.clone(),
            version_bins: report.shadow_bins.clone(),
        }
    }
}
