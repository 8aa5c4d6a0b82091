//! What the monitor says of a version: scores and verdicts by feature.

use std::{fmt, str::FromStr, time::Duration};

use super::{LearningProgress, quality::Quality};
use crate::domain::{ModelName, Version};

/// The verdict on a feature, or on all features of a version (the worst of them, so `TooFewRows` where no feature has a
/// verdict).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftState {
    /// There is no verdict: the window has fewer rows than it takes.
    TooFewRows,
    Ok,
    Warning,
    Drift,
}

impl DriftState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooFewRows => "too_few_rows",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Drift => "drift",
        }
    }

    /// The value of the metric `tidegate_drift_state`; `None` where there is no verdict.
    #[must_use]
    pub fn as_number(self) -> Option<u8> {
        match self {
            Self::TooFewRows => None,
            Self::Ok => Some(0),
            Self::Warning => Some(1),
            Self::Drift => Some(2),
        }
    }

    /// Whether somebody should look: `warning` or `drift`.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        self >= Self::Warning
    }

    /// The state of a feature, given those of its tests: the worst alarm; without one `Ok` only where all tests have a
    /// verdict.
    #[must_use]
    pub fn of_tests(states: &[Self]) -> Self {
        let worst = states.iter().copied().max().unwrap_or(Self::Ok);
        if worst.is_alarm() { worst } else { states.iter().copied().min().unwrap_or(Self::Ok) }
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
    pub cramers_v: Option<f64>,
    pub l_infinity: Option<f64>,
}

/// Rows of one bin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinCount {
    pub bin: String,
    pub reference: u64,
    pub live: u64,
}

/// A bin with few of the reference's rows whose share has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct RareBin {
    pub bin: String,
    pub state: DriftState,
    /// The share of the reference's rows with a value.
    pub reference: f64,
    /// The share of the live rows with a value.
    pub live: f64,
    /// So many live rows are worth one independent row; `None` where that is not known.
    pub design_effect: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FeatureReport {
    pub tensor: String,
    pub feature: String,
    pub kind: FeatureKind,
    /// Rows in the window, missing ones included.
    pub rows: u64,
    pub missing: u64,
    /// The verdict on the distribution alone.
    pub distribution: DriftState,
    /// The worst of the verdicts on the distribution, on rare bins and on the quality.
    pub state: DriftState,
    /// The rare bin that has grown or shrunk most certainly; `None` where none has.
    pub rare_bin: Option<RareBin>,
    /// The corrected PSI at which the distribution's verdict becomes `drift`, at this number of rows.
    pub threshold: f64,
    /// So many live rows are worth one independent row, for the distribution's verdict; `None` where it was not needed, as
    /// not even independent rows would be an alarm, or where there are too few sub-windows with rows to know.
    pub design_effect: Option<f64>,
    /// The live rows with a value divided by that.
    pub effective_rows: Option<f64>,
    /// Holds the true corrected PSI with probability 0.95; `None` without rows, or with one bin.
    pub interval: Option<(f64, f64)>,
    pub measures: Measures,
    pub quality: Quality,
    pub bins: Vec<BinCount>,
}

/// What live rows are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Against {
    /// The version's profile.
    #[default]
    Profile,
    /// The live rows of the stable version.
    Stable,
}

impl Against {
    pub const ALL: [Self; 2] = [Self::Profile, Self::Stable];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Stable => "stable",
        }
    }
}

/// The rows that have one value of a feature or of a request's parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    pub key: String,
    pub value: String,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for SegmentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no segment: use KEY=VALUE"))?;
        Ok(Self { key: key.into(), value: value.into() })
    }
}

/// Which drift is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriftQuery {
    /// `None`: the stable version; against the stable version, the canary.
    pub version: Option<Version>,
    /// `None`: the window that says most.
    pub window: Option<Duration>,
    pub against: Against,
    /// `None`: all rows.
    pub segment: Option<SegmentName>,
}

/// What there is to say of the drift of a version.
#[derive(Debug, Clone, PartialEq)]
pub enum Drift {
    Report(DriftReport),
    /// Nothing yet: the version learns its profile.
    Learning {
        model: ModelName,
        version: Version,
        progress: LearningProgress,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct DriftReport {
    pub model: ModelName,
    pub version: Version,
    pub window: Duration,
    /// The largest number of rows of any feature in the window.
    pub rows: u64,
    /// With fewer there is no verdict.
    pub min_rows: u64,
    pub state: DriftState,
    /// The probability of a false alarm of one test at one look, of a verdict over this window.
    pub alpha: f64,
    pub against: Against,
    /// The segment that the live rows are of.
    pub segment: Option<SegmentName>,
    /// The segments that the version's rows are told apart by.
    pub segments: Vec<SegmentName>,
    /// Inputs, then outputs, in the order of the profile.
    pub features: Vec<FeatureReport>,
}
