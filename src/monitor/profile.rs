//! The reference profile of a model version: what its inputs and outputs looked like when it was made.
//!
//! A profile is a file (`profile.json`) beside the model. It holds counts, not rows.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ColumnTypes, FeatureKind, buckets::HashBuckets, pca::PrincipalComponents, precision::Precision, rare::RareValues,
};

/// More bins than this are refused: each is a time series of every replica.
pub(super) const MAX_BINS: usize = 1000;

/// Why a profile is refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the profile is not valid JSON of a profile: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the profile has format {0}, this program reads formats 1 to {format}", format = Profile::FORMAT)]
    Format(u32),
    #[error("the profile is inconsistent: {}", .0.join("; "))]
    Inconsistent(Vec<String>),
    #[error("the profile does not fit the model: {}", .0.join("; "))]
    Unfit(Vec<String>),
}

/// Whether a feature is of an input, of an output, or of several inputs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeatureRole {
    Input,
    Output,
    /// Of all numeric inputs together: see [`Source::ReconstructionError`].
    Joint,
}

impl FeatureRole {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Joint => "joint",
        }
    }
}

/// What of a tensor's row a feature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The value in the feature's column.
    #[default]
    Value,
    /// Of a text: its characters (Unicode scalar values).
    Length,
    /// Of a text: the share of its characters that are letters, 0 to 1.
    Letters,
    /// Of a text: the share of its characters that are decimal digits, 0 to 1.
    Digits,
    /// Of a text: the share of its characters that are white space, 0 to 1.
    Spaces,
    /// Of a wide row (an embedding, an image): its Euclidean norm, divided by the root of its size.
    Norm,
    /// Of a wide row: the mean of its elements.
    Mean,
    /// Of a wide row: the sum of its elements with random signs, always the same for this number, divided by the
    /// root of its size (Achlioptas, 2003).
    Projection(u8),
    /// Of all numeric inputs: the distance of the row from what the profile's principal components keep of it.
    ReconstructionError,
}

/// What stands for the tensor of a feature that is of several.
pub(super) const JOINT_TENSOR: &str = "inputs";
/// The name of the only feature that is of several inputs.
pub(super) const JOINT_FEATURE: &str = "reconstruction_error";

impl Source {
    /// What is looked at of a free text.
    pub(super) const OF_TEXT: [Self; 4] = [Self::Length, Self::Letters, Self::Digits, Self::Spaces];
    /// What is looked at of a wide row.
    pub(super) const OF_WIDE: [Self; 5] =
        [Self::Norm, Self::Mean, Self::Projection(0), Self::Projection(1), Self::Projection(2)];

    /// The name of such a feature of `of`: `of` itself for a value, otherwise `of.length` and the like.
    #[must_use]
    pub fn name(self, of: &str) -> String {
        match self {
            Self::Value | Self::ReconstructionError => of.to_owned(),
            Self::Length => format!("{of}.length"),
            Self::Letters => format!("{of}.letters"),
            Self::Digits => format!("{of}.digits"),
            Self::Spaces => format!("{of}.spaces"),
            Self::Norm => format!("{of}.norm"),
            Self::Mean => format!("{of}.mean"),
            Self::Projection(number) => format!("{of}.projection{number}"),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
    fn is_value(&self) -> bool {
        *self == Self::Value
    }
}

/// The reference distribution of every feature of a model version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The format of the file: [`Profile::FORMAT`].
    pub format: u32,
    /// Rows of the reference data.
    pub rows: u64,
    /// Tells apart the model whose own rows it was learnt from, where a gateway has done so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt_from: Option<String>,
    /// Inputs, then outputs, then what is of several inputs.
    pub features: Vec<FeatureProfile>,
    /// How the numeric inputs vary together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<PrincipalComponents>,
}

/// The reference distribution of one column of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureProfile {
    pub tensor: String,
    /// The place of the column in a row of the tensor, flattened, from 0.
    pub column: usize,
    /// The name of the feature.
    pub feature: String,
    pub role: FeatureRole,
    #[serde(default, skip_serializing_if = "Source::is_value")]
    pub source: Source,
    /// All rows of this column: those in bins, missing and non-finite ones.
    pub rows: u64,
    /// NaN, or an empty string.
    pub missing: u64,
    /// Infinite values.
    pub nonfinite: u64,
    /// The precision that live values are compared at, where it is less than that of the tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    #[serde(rename = "kind")]
    pub distribution: Distribution,
}

/// A distribution as counts by bin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        /// The same rows in more bins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fine: Option<FineBins>,
    },
    Categorical {
        /// Sorted by value.
        categories: Vec<Category>,
        /// Rows of rarer values, pooled: the reference of the bin `other`, or of `unseen` where `rare` is not known.
        other: u64,
        /// The rarer values. Without them they and values that the reference never had are one bin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rare: Option<RareValues>,
        /// The rows of rarer values by the hash of the value, where they are many. Without them these rows are one bin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        buckets: Option<HashBuckets>,
    },
}

/// The rows of a numeric feature in about 128 bins, each within one of its deciles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FineBins {
    /// Inner edges, ascending; all edges of the feature are among them.
    pub edges: Vec<f64>,
    /// Rows by bin: one more than there are edges.
    pub counts: Vec<u64>,
    /// The mean value of each bin's rows, or its middle where it has none.
    pub means: Vec<f64>,
}

/// One value of a categorical feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Category {
    pub value: String,
    pub count: u64,
}

impl Profile {
    /// Format 3 lacks features without any value, `buckets` and `precision`, format 2 also `rare`, format 1 also `fine`,
    /// `source` and `components`; all are read too.
    pub const FORMAT: u32 = 4;

    /// The JSON Schema of the file.
    #[must_use]
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

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
        if !(1..=Self::FORMAT).contains(&format) {
            return Err(ProfileError::Format(format));
        }
        let profile = Self { format: Self::FORMAT, ..serde_json::from_slice(json)? };
        let mut faults = profile.faults();
        if profile.features.is_empty() {
            // It would watch nothing, and every view of it would be green.
            faults.push("it has no features".into());
        }
        if faults.is_empty() { Ok(profile) } else { Err(ProfileError::Inconsistent(faults)) }
    }

    /// The profile as the text of its file: a line for each feature, so that two of them can be compared by `diff`. It has the
    /// lowest format that can say it, for programs that know no later one.
    ///
    /// # Errors
    /// Never for a profile that was parsed or built; the type cannot say so.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        let Self { format: _, rows, learnt_from, features, components } = self;
        let of_feature = |feature: &FeatureProfile| match &feature.distribution {
            Distribution::Categorical { buckets: Some(_), .. } => 4,
            _ if feature.precision.is_some() || feature.is_empty() => 4,
            Distribution::Categorical { rare: Some(_), .. } => 3,
            _ => 2,
        };
        let of_all = if learnt_from.is_some() { 3 } else { 2 };
        let format = features.iter().map(of_feature).fold(of_all, u32::max);
        let mut json = format!("{{\n\"format\": {format},\n\"rows\": {rows},\n");
        if let Some(model) = learnt_from {
            json.push_str("\"learnt_from\": ");
            json.push_str(&serde_json::to_string(model)?);
            json.push_str(",\n");
        }
        json.push_str("\"features\": [");
        for (at, feature) in features.iter().enumerate() {
            json.push_str(if at == 0 { "\n" } else { ",\n" });
            json.push_str(&serde_json::to_string(feature)?);
        }
        json.push_str("\n]");
        if let Some(components) = components {
            json.push_str(",\n\"components\": ");
            json.push_str(&serde_json::to_string(components)?);
        }
        json.push_str("\n}\n");
        Ok(json)
    }

    /// The categorical inputs whose rare values are not known: a value that they never had is not told from those.
    pub fn inputs_of_unknown_values(&self) -> impl Iterator<Item = &str> {
        let is_it = |feature: &&FeatureProfile| {
            feature.role == FeatureRole::Input
                && matches!(feature.distribution, Distribution::Categorical { other: 1.., rare: None, .. })
        };
        self.features.iter().filter(is_it).map(|feature| &*feature.feature)
    }

    /// The profile without the features that are not to be watched, and without the components that one of them is part of.
    #[must_use]
    pub fn without_ignored(mut self, types: &ColumnTypes) -> Self {
        let is_watched = |feature: &FeatureProfile| !types.ignores(&feature.tensor, feature.column_name());
        let ignored: BTreeSet<(String, usize)> = self
            .features
            .iter()
            .filter(|feature| feature.role == FeatureRole::Input && !is_watched(feature))
            .map(|feature| (feature.tensor.clone(), feature.column))
            .collect();
        self.features.retain(is_watched);
        let is_of_ignored = |components: &PrincipalComponents| {
            components.features.iter().any(|part| ignored.contains(&(part.tensor.clone(), part.column)))
        };
        let is_joint = |feature: &FeatureProfile| feature.role == FeatureRole::Joint;
        if self.components.as_ref().is_some_and(is_of_ignored) {
            self.features.retain(|feature| !is_joint(feature));
        }
        self.components = self.components.filter(|_| self.features.iter().any(is_joint));
        self
    }

    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.features.iter().flat_map(FeatureProfile::faults).collect();
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for feature in &self.features {
            if !names.insert((&feature.tensor, &feature.feature)) {
                faults.push(format!("feature '{}' of tensor '{}' is listed twice", feature.feature, feature.tensor));
            }
            if !places.insert((feature.role, &feature.tensor, feature.column, feature.source.name(""))) {
                faults.push(format!("column {} of tensor '{}' is listed twice", feature.column, feature.tensor));
            }
            if (feature.role == FeatureRole::Joint) != (feature.source == Source::ReconstructionError) {
                faults.push(format!("feature '{}' has a role and a source that exclude each other", feature.feature));
            }
        }
        let is_joint = |feature: &FeatureProfile| feature.role == FeatureRole::Joint;
        match &self.components {
            Some(components) => faults.extend(components.faults()),
            None if self.features.iter().any(is_joint) => {
                faults.push("it has a reconstruction error and no components".into());
            }
            None => {}
        }
        faults
    }
}

impl Distribution {
    /// The rows in bins; `None` when they are too many to be counted.
    fn rows(&self) -> Option<u64> {
        match self {
            Self::Numeric { counts, .. } => sum(counts.iter().copied()),
            Self::Categorical { categories, other, .. } => {
                sum(categories.iter().map(|category| category.count).chain([*other]))
            }
        }
    }

    /// That of a numeric column which has no number: one bin, without rows.
    pub(super) fn without_numbers() -> Self {
        let (edges, counts) = (Vec::new(), vec![0]);
        Self::Numeric { min: 0.0, max: 0.0, mean: 0.0, std: 0.0, edges, counts, fine: None }
    }

    /// That of a categorical column which has no value.
    pub(super) fn without_categories() -> Self {
        Self::Categorical { categories: Vec::new(), other: 0, rare: None, buckets: None }
    }

    /// The rows in bins, of a distribution that was built or checked.
    pub(super) fn binned(&self) -> u64 {
        self.rows().unwrap_or(u64::MAX)
    }
}

impl FeatureProfile {
    /// The name of the column, where the feature is what is derived of its values.
    #[must_use]
    pub fn column_name(&self) -> &str {
        self.feature.strip_suffix(&*self.source.name("")).unwrap_or(&self.feature)
    }

    /// Whether no row of the reference has a value: then each that comes is new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.distribution.binned() == 0
    }

    #[must_use]
    pub fn kind(&self) -> FeatureKind {
        match (&self.distribution, self.source) {
            (Distribution::Categorical { categories, other: 0, .. }, _) if is_boolean(categories) => {
                FeatureKind::Boolean
            }
            (Distribution::Categorical { .. }, _) => FeatureKind::Categorical,
            (_, Source::Value) => FeatureKind::Numeric,
            (_, Source::Length | Source::Letters | Source::Digits | Source::Spaces) => FeatureKind::Text,
            (_, Source::Norm | Source::Mean | Source::Projection(_)) => FeatureKind::Embedding,
            (_, Source::ReconstructionError) => FeatureKind::Multivariate,
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = match &self.distribution {
            Distribution::Numeric { min, max, mean, std, edges, counts, fine } => {
                let mut faults = numeric_faults([*min, *max, *mean, *std], edges, counts);
                if let (Some(fine), true) = (fine, faults.is_empty()) {
                    faults.extend(fine.faults(edges, counts));
                }
                faults
            }
            Distribution::Categorical { categories, other, buckets, .. } => {
                let mut faults = categorical_faults(categories, self.nonfinite);
                faults.extend(buckets.as_ref().and_then(|buckets| buckets.faults(*other)));
                faults
            }
        };
        if self.precision.is_some() && !matches!(self.distribution, Distribution::Numeric { .. }) {
            faults.push("only numbers have a precision".into());
        }
        if self.source != Source::Value && !matches!(self.distribution, Distribution::Numeric { .. }) {
            faults.push("what is derived is numeric".into());
        }
        let binned = self.distribution.rows();
        if binned.and_then(|binned| sum([binned, self.missing, self.nonfinite])) != Some(self.rows) {
            faults.push(format!("its counts do not add up to its {} rows", self.rows));
        }
        if binned == Some(0) && (self.rows == 0 || self.source != Source::Value) {
            faults.push("it has no value to compare with".into());
        }
        faults.into_iter().map(|fault| format!("feature '{}' of '{}': {fault}", self.feature, self.tensor)).collect()
    }
}

fn is_boolean(categories: &[Category]) -> bool {
    !categories.is_empty() && categories.iter().all(|category| matches!(&*category.value, "false" | "true"))
}

impl FineBins {
    /// What contradicts the bins that these refine.
    fn faults(&self, edges: &[f64], counts: &[u64]) -> Vec<String> {
        let numbers = numeric_faults([0.0; 4], &self.edges, &self.counts);
        let mut faults: Vec<_> = numbers.into_iter().map(|fault| format!("of its fine bins: {fault}")).collect();
        if self.means.len() != self.counts.len() || !self.means.iter().all(|mean| mean.is_finite()) {
            faults.push("its fine bins do not have a mean each".into());
        }
        if !faults.is_empty() {
            return faults;
        }
        let mut sums = vec![0_u64; counts.len()];
        for (bin, &rows) in self.coarse(edges).into_iter().zip(&self.counts) {
            sums[bin] = sums[bin].saturating_add(rows);
        }
        if !edges.iter().all(|edge| self.edges.contains(edge)) || sums != counts {
            faults.push("its fine bins are not parts of its bins".into());
        }
        faults
    }

    /// The bin, between `edges`, that each fine bin is part of.
    pub(super) fn coarse(&self, edges: &[f64]) -> Vec<usize> {
        let starts = std::iter::once(f64::NEG_INFINITY).chain(self.edges.iter().copied());
        starts.map(|start| edges.partition_point(|edge| *edge <= start)).collect()
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
mod tests;
