//! The monitor's self-test as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::monitor;

/// What a monitor like a version's says of rows that are drawn from its profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriftSelfTest {
    pub model: String,
    pub version: u64,
    /// A duration such as `5m`.
    pub window: String,
    /// Rows in the window now.
    pub live_rows: u64,
    /// Rows of each window drawn: as many as `live_rows`, but enough for a verdict, and no more than there is time for.
    pub rows: u64,
    /// Looks at each feature without a shift, at windows that slide by a part of their rows.
    pub looks: u64,
    /// Windows drawn of each feature with each shift.
    pub draws: u64,
    /// The promised probability of a false alarm of one test at one look.
    pub alpha: f64,
    /// Values, of all features, that were counted in another bin than they were drawn from: 0 unless the monitor is broken.
    pub miscounted: u64,
    /// Looks without a shift, of all features, that found the state `warning`.
    pub false_warnings: u64,
    /// Looks without a shift, of all features, that found the state `drift`.
    pub false_drifts: u64,
    /// How often chance passes an easier test without floors, and the share of all looks without a shift at which it found
    /// drift.
    pub chance_alpha: f64,
    pub chance_rate: f64,
    pub features: Vec<FeatureSelfTest>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureSelfTest {
    pub tensor: String,
    pub feature: String,
    pub kind: String,
    pub miscounted: u64,
    pub false_warnings: u64,
    pub false_drifts: u64,
    /// The share of looks without a shift at which the easier test found drift.
    pub chance_rate: f64,
    /// The smallest shifts that are found at these rows; empty where none ever is.
    pub shifts: Vec<FoundShift>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FoundShift {
    /// The probability that its state is `drift` at one look, by computation.
    pub power: f64,
    /// Its true PSI.
    pub psi: f64,
    /// As a shift of a normal feature's mean, in standard deviations; null for categories.
    pub sigma: Option<f64>,
    /// The share of windows drawn with this shift whose state is `drift`.
    pub found: f64,
}

impl From<&monitor::FeatureSelfTest> for FeatureSelfTest {
    fn from(test: &monitor::FeatureSelfTest) -> Self {
        let shift = |monitor::FoundShift { power, psi, sigma, found }| FoundShift { power, psi, sigma, found };
        Self {
            tensor: test.tensor.clone(),
            feature: test.feature.clone(),
            kind: test.kind.as_str().to_owned(),
            miscounted: test.miscounted,
            false_warnings: test.false_warnings,
            false_drifts: test.false_drifts,
            chance_rate: test.chance_rate,
            shifts: test.shifts.iter().copied().map(shift).collect(),
        }
    }
}

impl From<&monitor::SelfTest> for DriftSelfTest {
    fn from(test: &monitor::SelfTest) -> Self {
        let features: Vec<_> = test.features.iter().map(FeatureSelfTest::from).collect();
        Self {
            model: test.model.to_string(),
            version: test.version.get(),
            window: monitor::window_label(test.window),
            live_rows: test.live_rows,
            rows: test.rows,
            looks: test.looks,
            draws: test.draws,
            alpha: test.alpha,
            miscounted: features.iter().map(|feature| feature.miscounted).sum(),
            false_warnings: features.iter().map(|feature| feature.false_warnings).sum(),
            false_drifts: features.iter().map(|feature| feature.false_drifts).sum(),
            chance_alpha: monitor::CHANCE_ALPHA,
            chance_rate: features.iter().map(|feature| feature.chance_rate).sum::<f64>() / features.len().max(1) as f64,
            features,
        }
    }
}
