//! The drift report as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Learning;
use crate::monitor;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftReport {
    pub model: String,
    pub version: u64,
    /// A duration such as `5m`; empty while the version learns.
    pub window: String,
    pub rows: u64,
    /// With fewer rows in the window there is no verdict; 0 while the version learns.
    #[serde(default)]
    pub min_rows: u64,
    /// `ok`, `warning` or `drift`: the worst of the features; `too_few_rows` where none of them has a verdict; or
    /// `learning`, with no features yet.
    pub state: String,
    /// The probability of a false alarm of one test at one look, of a verdict over this window.
    pub alpha: f64,
    /// What the live rows are compared with: `profile`, or `stable`, the live rows of the stable version.
    pub against: String,
    /// The segment that the live rows are of, as `key=value`; empty: all rows.
    pub segment: String,
    /// The segments that there are, each as `key=value`.
    pub segments: Vec<String>,
    pub features: Vec<Feature>,
    /// All numeric inputs together: how far rows are from their principal components. Null where the profile has none.
    pub multivariate: Option<Feature>,
    /// How far the version's profile is learnt; absent once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Feature {
    pub tensor: String,
    pub feature: String,
    pub kind: String,
    pub rows: u64,
    pub missing: u64,
    /// `ok`, `warning` or `drift`: the worst of the distribution, of rare bins and of the quality; or `too_few_rows`, where
    /// there is no verdict.
    pub state: String,
    /// The rare bin (of less than 5 % of the reference) whose share has changed by a large factor; null where none has.
    #[serde(default)]
    pub rare_bin: Option<RareBin>,
    /// The corrected PSI at which the distribution has drifted. Null when there is no finite one.
    pub threshold: Option<f64>,
    /// So many live rows are worth one independent row, for the distribution. Null where no alarm depends on it, or where
    /// there are too few sub-windows with rows to know.
    pub design_effect: Option<f64>,
    /// The live rows with a value divided by that; null with it.
    pub effective_rows: Option<f64>,
    /// Holds the true corrected PSI with probability 0.95; null without rows.
    pub psi_interval: Option<[f64; 2]>,
    pub measures: Measures,
    pub quality: Quality,
    pub bins: Vec<Bin>,
}

/// A bin of less than 5 % of the reference whose share has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RareBin {
    pub bin: String,
    /// `warning`, where the share is 1.5 times what it was, or that part of it; `drift`, from 1.75 times on.
    pub state: String,
    /// Share of the reference's rows that have a value.
    pub reference: f64,
    /// Share of the live rows that have a value.
    pub live: f64,
    /// As that of the feature, for the rows of this bin.
    pub design_effect: Option<f64>,
}

/// Shares of rows that should not grow, and a value that stands still. Null where it means nothing for the kind of feature.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Quality {
    pub state: String,
    /// NaN, or an empty string.
    pub missing: Option<Checked>,
    /// Infinite.
    pub nonfinite: Option<Checked>,
    /// A category that the reference lacks; of numbers any value, where the reference has none at all.
    pub unseen: Option<Checked>,
    /// Below or above the reference's range.
    pub out_of_range: Option<Checked>,
    /// One value only, where the reference has several: the shares are those of the reference's most frequent one.
    pub constant: Option<Checked>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    pub state: String,
    /// Share of all rows of the reference.
    pub reference: f64,
    /// Share of all live rows.
    pub live: f64,
    /// The live share at which the state is `drift`.
    pub threshold: f64,
    /// As that of the feature, for the rows of this share.
    pub design_effect: Option<f64>,
}

impl Quality {
    /// The checks that mean something for the feature, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Checked)> {
        [
            ("missing", &self.missing),
            ("nonfinite", &self.nonfinite),
            ("unseen", &self.unseen),
            ("out_of_range", &self.out_of_range),
            ("constant", &self.constant),
        ]
        .into_iter()
        .filter_map(|(name, checked)| checked.as_ref().map(|checked| (name, checked)))
    }
}

impl From<&monitor::Quality> for Quality {
    fn from(quality: &monitor::Quality) -> Self {
        let of = |check| {
            quality.of(check).map(|monitor::Checked { state, reference, live, threshold, design_effect, .. }| Checked {
                state: state.as_str().to_owned(),
                reference,
                live,
                threshold,
                design_effect,
            })
        };
        Self {
            state: quality.state().as_str().to_owned(),
            missing: of(monitor::Check::Missing),
            nonfinite: of(monitor::Check::Nonfinite),
            unseen: of(monitor::Check::Unseen),
            out_of_range: of(monitor::Check::OutOfRange),
            constant: of(monitor::Check::Constant),
        }
    }
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
    pub cramers_v: Option<f64>,
    pub l_infinity: Option<f64>,
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
            ("cramers_v", self.cramers_v),
            ("l_infinity", self.l_infinity),
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
            cramers_v: finite(measures.cramers_v),
            l_infinity: finite(measures.l_infinity),
        }
    }
}

impl From<&monitor::RareBin> for RareBin {
    fn from(rare: &monitor::RareBin) -> Self {
        let monitor::RareBin { bin, state, reference, live, design_effect } = rare;
        let (bin, state) = (bin.clone(), state.as_str().to_owned());
        Self { bin, state, reference: *reference, live: *live, design_effect: *design_effect }
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
            rare_bin: report.rare_bin.as_ref().map(RareBin::from),
            threshold: Some(report.threshold).filter(|threshold| threshold.is_finite()),
            design_effect: report.design_effect,
            effective_rows: report.effective_rows,
            psi_interval: report.interval.map(|(low, high)| [low, high]),
            measures: Measures::from(&report.measures),
            quality: Quality::from(&report.quality),
            bins: report.bins.iter().map(Bin::from).collect(),
        }
    }
}

fn is_joint(feature: &monitor::FeatureReport) -> bool {
    feature.kind == monitor::FeatureKind::Multivariate
}

impl From<&monitor::DriftReport> for DriftReport {
    fn from(report: &monitor::DriftReport) -> Self {
        Self {
            model: report.model.to_string(),
            version: report.version.get(),
            window: monitor::window_label(report.window),
            rows: report.rows,
            min_rows: report.min_rows,
            state: report.state.as_str().to_owned(),
            alpha: report.alpha,
            against: report.against.as_str().to_owned(),
            segment: report.segment.as_ref().map(ToString::to_string).unwrap_or_default(),
            segments: report.segments.iter().map(ToString::to_string).collect(),
            features: report.features.iter().filter(|feature| !is_joint(feature)).map(Feature::from).collect(),
            multivariate: report.features.iter().find(|feature| is_joint(feature)).map(Feature::from),
            learning: None,
        }
    }
}

impl From<&monitor::Drift> for DriftReport {
    fn from(drift: &monitor::Drift) -> Self {
        match drift {
            monitor::Drift::Report(report) => Self::from(report),
            monitor::Drift::Learning { model, version, progress } => Self {
                model: model.to_string(),
                version: version.get(),
                window: String::new(),
                rows: progress.rows,
                min_rows: 0,
                state: "learning".to_owned(),
                alpha: 0.0,
                against: monitor::Against::Profile.as_str().to_owned(),
                segment: String::new(),
                segments: Vec::new(),
                features: Vec::new(),
                multivariate: None,
                learning: Some(Learning::from(progress)),
            },
        }
    }
}
