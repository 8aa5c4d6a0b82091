//! What the monitor says of a version: scores and verdicts by feature.

use std::time::Duration;

use crate::domain::{ModelName, Version};

/// The verdict on a feature, or on all features of a version (the worst of them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftState {
    Ok,
    Warning,
    Drift,
}

impl DriftState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Drift => "drift",
        }
    }

    /// The value of the metric `tidegate_drift_state`.
    #[must_use]
    pub fn as_number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Drift => 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureKind {
    Numeric,
    Categorical,
    Boolean,
    /// Derived from free text, a number.
    Text,
    /// Derived from a wide row, a number.
    Embedding,
    /// Of several inputs, a number.
    Multivariate,
}

impl FeatureKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Categorical => "categorical",
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Embedding => "embedding",
            Self::Multivariate => "multivariate",
        }
    }
}

/// Distances between the reference and the live distribution of a feature. `None` where a
/// measure has no meaning for the kind of feature, or no rows were seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measures {
    pub psi: Option<f64>,
    pub psi_corrected: Option<f64>,
    pub jensen_shannon: Option<f64>,
    pub hellinger: Option<f64>,
    pub kolmogorov_smirnov: Option<f64>,
    pub wasserstein: Option<f64>,
    pub chi_square: Option<f64>,
    pub p_value: Option<f64>,
    pub total_variation: Option<f64>,
}

/// Rows of one bin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinCount {
    pub bin: String,
    pub reference: u64,
    pub live: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FeatureReport {
    pub tensor: String,
    pub feature: String,
    pub kind: FeatureKind,
    /// Rows in the window, missing ones included.
    pub rows: u64,
    pub missing: u64,
    pub state: DriftState,
    /// The corrected PSI at which the state becomes `drift`, at this number of rows.
    pub threshold: f64,
    pub measures: Measures,
    pub bins: Vec<BinCount>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DriftReport {
    pub model: ModelName,
    pub version: Version,
    pub window: Duration,
    /// The largest number of rows of any feature in the window.
    pub rows: u64,
    pub state: DriftState,
    /// Inputs, then outputs, in the order of the profile.
    pub features: Vec<FeatureReport>,
}
