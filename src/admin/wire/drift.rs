//! The drift report as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::monitor;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftReport {
    pub model: String,
    pub version: u64,
    /// A duration such as `5m`.
    pub window: String,
    pub rows: u64,
    pub state: String,
    pub features: Vec<Feature>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Feature {
    pub tensor: String,
    pub feature: String,
    pub kind: String,
    pub rows: u64,
    pub missing: u64,
    pub state: String,
    /// Null when there is no finite threshold, as with no rows.
    pub threshold: Option<f64>,
    pub measures: Measures,
    pub bins: Vec<Bin>,
}

/// Null where a measure has no meaning for the kind of feature, or no rows were seen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bin {
    pub bin: String,
    pub reference: u64,
    pub live: u64,
}

impl Measures {
    /// The measures that there are, by the name that they have on every wire.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("psi", self.psi),
            ("psi_corrected", self.psi_corrected),
            ("jensen_shannon", self.jensen_shannon),
            ("hellinger", self.hellinger),
            ("kolmogorov_smirnov", self.kolmogorov_smirnov),
            ("wasserstein", self.wasserstein),
            ("chi_square", self.chi_square),
            ("p_value", self.p_value),
            ("total_variation", self.total_variation),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

impl From<&monitor::Measures> for Measures {
    fn from(measures: &monitor::Measures) -> Self {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        Self {
            psi: finite(measures.psi),
            psi_corrected: finite(measures.psi_corrected),
            jensen_shannon: finite(measures.jensen_shannon),
            hellinger: finite(measures.hellinger),
            kolmogorov_smirnov: finite(measures.kolmogorov_smirnov),
            wasserstein: finite(measures.wasserstein),
            chi_square: finite(measures.chi_square),
            p_value: finite(measures.p_value),
            total_variation: finite(measures.total_variation),
        }
    }
}

impl From<&monitor::BinCount> for Bin {
    fn from(count: &monitor::BinCount) -> Self {
        Self { bin: count.bin.clone(), reference: count.reference, live: count.live }
    }
}

impl From<&monitor::FeatureReport> for Feature {
    fn from(report: &monitor::FeatureReport) -> Self {
        Self {
            tensor: report.tensor.clone(),
            feature: report.feature.clone(),
            kind: report.kind.as_str().to_owned(),
            rows: report.rows,
            missing: report.missing,
            state: report.state.as_str().to_owned(),
            threshold: Some(report.threshold).filter(|threshold| threshold.is_finite()),
            measures: Measures::from(&report.measures),
            bins: report.bins.iter().map(Bin::from).collect(),
        }
    }
}

impl From<&monitor::DriftReport> for DriftReport {
    fn from(report: &monitor::DriftReport) -> Self {
        Self {
            model: report.model.to_string(),
            version: report.version.get(),
            window: monitor::window_label(report.window),
            rows: report.rows,
            state: report.state.as_str().to_owned(),
            features: report.features.iter().map(Feature::from).collect(),
        }
    }
}
