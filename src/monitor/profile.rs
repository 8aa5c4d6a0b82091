//! The reference profile of a model version: what its inputs and outputs looked like when it was made.
//!
//! A profile is a file (`profile.json`) beside the model. It holds counts, not rows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::FeatureKind;

/// More bins than this are refused: each is a time series of every replica.
pub(super) const MAX_BINS: usize = 1000;

/// Why a profile is refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the profile is not valid JSON of a profile: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the profile has format {0}, this program reads format {format}", format = Profile::FORMAT)]
    Format(u32),
    #[error("the profile is inconsistent: {}", .0.join("; "))]
    Inconsistent(Vec<String>),
    #[error("the profile does not fit the model: {}", .0.join("; "))]
    Unfit(Vec<String>),
}

/// Whether a feature is a column of an input or of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureRole {
    Input,
    Output,
}

impl FeatureRole {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// The reference distribution of every feature of a model version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The format of the file: [`Profile::FORMAT`].
    pub format: u32,
    /// Rows of the reference data.
    pub rows: u64,
    /// Inputs, then outputs.
    pub features: Vec<FeatureProfile>,
}

/// The reference distribution of one column of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureProfile {
    pub tensor: String,
    /// The place of the column in a row of the tensor, flattened, from 0.
    pub column: usize,
    /// The name of the feature.
    pub feature: String,
    pub role: FeatureRole,
    /// All rows of this column: those in bins, missing and non-finite ones.
    pub rows: u64,
    /// NaN, or an empty string.
    pub missing: u64,
    /// Infinite values.
    pub nonfinite: u64,
    #[serde(rename = "kind")]
    pub distribution: Distribution,
}

/// A distribution as counts by bin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Distribution {
    Numeric {
        min: f64,
        max: f64,
        mean: f64,
        /// The population's standard deviation (divided by n).
        std: f64,
        /// Inner edges, ascending: bin `i` holds `edges[i-1] ≤ x < edges[i]`.
        edges: Vec<f64>,
        /// Rows by bin: one more than there are edges.
        counts: Vec<u64>,
    },
    Categorical {
        /// Sorted by value.
        categories: Vec<Category>,
        /// Rows of rarer values, pooled: the reference of the bin `unseen`.
        other: u64,
    },
}

/// One value of a categorical feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    pub value: String,
    pub count: u64,
}

impl Profile {
    pub const FORMAT: u32 = 1;

    /// Reads and checks a profile.
    ///
    /// # Errors
    /// When `json` is no profile, or one that contradicts itself; all contradictions are named.
    pub fn parse(json: &[u8]) -> Result<Self, ProfileError> {
        /// Read first, so that a later format is named as such and not as an unknown key.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(json)?;
        if format != Self::FORMAT {
            return Err(ProfileError::Format(format));
        }
        let profile: Self = serde_json::from_slice(json)?;
        let mut faults = profile.faults();
        if profile.features.is_empty() {
            // It would watch nothing, and every view of it would be green.
            faults.push("it has no features".into());
        }
        if faults.is_empty() { Ok(profile) } else { Err(ProfileError::Inconsistent(faults)) }
    }

    /// The profile as the text of its file.
    ///
    /// # Errors
    /// Never for a profile that was parsed or built; the type cannot say so.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(json)
    }

    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.features.iter().flat_map(FeatureProfile::faults).collect();
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for feature in &self.features {
            if !names.insert((&feature.tensor, &feature.feature)) {
                faults.push(format!("feature '{}' of tensor '{}' is listed twice", feature.feature, feature.tensor));
            }
            if !places.insert((feature.role, &feature.tensor, feature.column)) {
                faults.push(format!("column {} of tensor '{}' is listed twice", feature.column, feature.tensor));
            }
        }
        faults
    }
}

impl FeatureProfile {
    #[must_use]
    pub fn kind(&self) -> FeatureKind {
        match self.distribution {
            Distribution::Numeric { .. } => FeatureKind::Numeric,
            Distribution::Categorical { .. } => FeatureKind::Categorical,
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = match &self.distribution {
            Distribution::Numeric { min, max, mean, std, edges, counts } => {
                numeric_faults([*min, *max, *mean, *std], edges, counts)
            }
            Distribution::Categorical { categories, .. } => categorical_faults(categories, self.nonfinite),
        };
        let binned = match &self.distribution {
            Distribution::Numeric { counts, .. } => sum(counts.iter().copied()),
            Distribution::Categorical { categories, other } => {
                sum(categories.iter().map(|category| category.count).chain([*other]))
            }
        };
        if binned.and_then(|binned| sum([binned, self.missing, self.nonfinite])) != Some(self.rows) {
            faults.push(format!("its counts do not add up to its {} rows", self.rows));
        }
        if binned == Some(0) {
            faults.push("it has no value to compare with".into());
        }
        faults.into_iter().map(|fault| format!("feature '{}' of '{}': {fault}", self.feature, self.tensor)).collect()
    }
}

fn numeric_faults([min, max, mean, std]: [f64; 4], edges: &[f64], counts: &[u64]) -> Vec<String> {
    let mut faults = Vec::new();
    // JSON has no NaN, but 1e999 is read as infinity.
    if ![min, max, mean, std].iter().chain(edges).all(|number| number.is_finite()) {
        faults.push("its numbers are not all finite".into());
    }
    if min > max || std < 0.0 {
        faults.push(format!("it has the range {min} to {max} and the standard deviation {std}"));
    }
    if !edges.windows(2).all(|pair| pair[0] < pair[1]) {
        faults.push("its edges do not ascend".into());
    }
    if counts.len() != edges.len() + 1 {
        faults.push(format!("it has {} counts for {} edges, expected one more", counts.len(), edges.len()));
    }
    if counts.len() > MAX_BINS {
        faults.push(format!("it has {} bins, at most {MAX_BINS} are possible", counts.len()));
    }
    faults
}

fn categorical_faults(categories: &[Category], nonfinite: u64) -> Vec<String> {
    let mut faults = Vec::new();
    if !categories.windows(2).all(|pair| pair[0].value < pair[1].value) {
        faults.push("its categories are not sorted, each once".into());
    }
    if categories.first().is_some_and(|category| category.value.is_empty()) {
        faults.push("the empty string is no category: it counts as missing".into());
    }
    if categories.len() > MAX_BINS {
        faults.push(format!("it has {} categories, at most {MAX_BINS} are possible", categories.len()));
    }
    if nonfinite != 0 {
        faults.push("a categorical feature has no non-finite values".into());
    }
    faults
}

/// The sum, or `None` when it is too large.
fn sum(counts: impl IntoIterator<Item = u64>) -> Option<u64> {
    counts.into_iter().try_fold(0, u64::checked_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"format": 1, "rows": 10, "features": [
        {"tensor": "x", "column": 0, "feature": "age", "role": "input", "rows": 10, "missing": 1, "nonfinite": 2,
         "kind": {"numeric": {"min": 0.1, "max": 9, "mean": 4, "std": 2, "edges": [0.30000000000000004], "counts": [3, 4]}}},
        {"tensor": "y", "column": 0, "feature": "y", "role": "output", "rows": 10, "missing": 0, "nonfinite": 0,
         "kind": {"categorical": {"categories": [{"value": "a", "count": 5}, {"value": "b", "count": 3}], "other": 2}}}]}"#;

    fn refusal(from: &str, to: &str) -> String {
        let json = GOOD.replacen(from, to, 1);
        assert_ne!(json, GOOD, "{from}");
        Profile::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn profile_survives_its_file_to_the_bit() {
        let profile = Profile::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(Profile::parse(profile.to_json().unwrap().as_bytes()).unwrap(), profile);
    }

    #[test]
    fn profile_numbers_survive_their_text_to_the_bit() {
        for bits in (0..10_000_u64).map(|i| 0x3fd3_3333_3333_3333 ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 14) {
            let number = f64::from_bits(bits);
            let text = serde_json::to_string(&number).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), bits, "{text}");
        }
    }

    #[test]
    fn profile_that_contradicts_itself_is_refused_in_words() {
        let cases = [
            (r#""format": 1"#, r#""format": 2"#, "format 2, this program reads format 1"),
            (r#""rows": 10, "f"#, r#""lines": 10, "f"#, "unknown field `lines`"),
            ("[3, 4]", "[3, 5]", "feature 'age' of 'x': its counts do not add up to its 10 rows"),
            ("[3, 4]", "[3, 18446744073709551615]", "do not add up"),
            ("[3, 4]", "[7]", "it has 1 counts for 1 edges, expected one more"),
            (r#"[0.30000000000000004], "counts": [3, 4]"#, r#"[1, 1], "counts": [3, 4, 0]"#, "edges do not ascend"),
            (r#""max": 9"#, r#""max": -9"#, "the range 0.1 to -9"),
            (r#""value": "a""#, r#""value": "c""#, "not sorted"),
            (r#""value": "a""#, r#""value": """#, "counts as missing"),
            (
                r#""tensor": "y", "column": 0, "feature": "y""#,
                r#""tensor": "x", "column": 1, "feature": "age""#,
                "'age' of tensor 'x' is listed twice",
            ),
            (
                r#""tensor": "y", "column": 0, "feature": "y", "role": "output""#,
                r#""tensor": "x", "column": 0, "feature": "y", "role": "input""#,
                "column 0 of tensor 'x' is listed twice",
            ),
        ];
        for (from, to, message) in cases {
            let refused = refusal(from, to);
            assert!(refused.contains(message), "{refused:?} should say {message:?}");
        }
    }

    #[test]
    fn profile_with_several_faults_names_them_all() {
        let json = GOOD.replace("[3, 4]", "[9, 4]").replace(r#""count": 5"#, r#""count": 50"#);
        let refused = Profile::parse(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused.matches("do not add up").count(), 2, "{refused}");
    }

    #[test]
    fn profile_from_any_bytes_never_panics() {
        for junk in [&b""[..], b"{}", b"[]", b"\xff\xfe", b"{\"format\":1}", b"{\"format\":-1}"] {
            assert!(Profile::parse(junk).is_err());
        }
    }
}
