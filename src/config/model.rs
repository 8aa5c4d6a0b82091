//! `model.toml`: what a model wants different from the gateway's defaults. Without one, Triton's
//! `config.pbtxt` is read in its place (see `triton`).

use std::{
    collections::BTreeMap,
    io,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, ReloadChanged, Span, TritonModel, labels, triton};
use crate::domain::{Labels, ModelFacts, VersionPolicy, WarmupElements, WarmupFacts};

/// What a new version becomes once it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It gets no traffic until an operator promotes it.
    #[default]
    Manual,
    /// The highest ready version is promoted by itself.
    Latest,
}

/// The configuration of one model, from `model.toml` in its directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    pub release: ModelReleaseConfig,
    /// Which versions are loaded by themselves; those that the release names always are. Absent: all.
    pub version_policy: Option<VersionPolicyConfig>,
    pub scheduler: ModelSchedulerConfig,
    pub batching: ModelBatchingConfig,
    pub runtime: ModelRuntimeConfig,
    pub monitor: ModelMonitorConfig,
    /// Names of the columns of a `[rows, columns]` tensor, by tensor.
    pub columns: BTreeMap<String, Vec<String>>,
    /// Shown to clients with the model's configuration; they change nothing.
    pub parameters: BTreeMap<String, String>,
    /// Requests that each version answers before it is ready.
    pub warmup: Vec<WarmupSample>,
    /// What only a `config.pbtxt` can say.
    #[serde(skip)]
    pub triton: Option<TritonModel>,
    /// From `labels.txt`, and the files that a `config.pbtxt` names.
    #[serde(skip)]
    pub labels: Labels,
    /// What an operator should know of the files that this was read from.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// `"all"`, `{ latest = 2 }` or `{ specific = [3, 5] }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VersionPolicyConfig {
    All,
    /// This many of the highest.
    Latest(NonZeroUsize),
    /// These, where they exist.
    Specific(Vec<NonZeroU64>),
}

impl From<&VersionPolicyConfig> for VersionPolicy {
    fn from(config: &VersionPolicyConfig) -> Self {
        match config {
            VersionPolicyConfig::All => Self::All,
            VersionPolicyConfig::Latest(count) => Self::Latest(count.get()),
            VersionPolicyConfig::Specific(versions) => {
                Self::Specific(versions.iter().map(|version| version.get()).collect())
            }
        }
    }
}

/// `[[warmup]]`: one request, run before a version is ready.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmupSample {
    pub name: String,
    /// Rows of inputs whose shape is not given. Absent: 1.
    pub rows: Option<NonZeroUsize>,
    /// How often it is run. Absent: once.
    pub count: Option<NonZeroUsize>,
    /// Inputs that are not named here are zeros.
    pub inputs: BTreeMap<String, WarmupInput>,
}

impl WarmupSample {
    fn facts(&self) -> WarmupFacts {
        let number = |number: Option<NonZeroUsize>| number.map_or(1, NonZeroUsize::get);
        let input = |(name, input): (&String, &WarmupInput)| {
            let elements = match &input.data {
                WarmupData::Zeros => WarmupElements::Zeros,
                WarmupData::Random => WarmupElements::Random,
                WarmupData::File(name) => WarmupElements::File(name.clone()),
            };
            (name.clone(), input.shape.clone().unwrap_or_default(), elements)
        };
        let inputs = self.inputs.iter().map(input).collect();
        WarmupFacts { name: self.name.clone(), rows: number(self.rows), count: number(self.count), inputs }
    }
}

/// One input of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmupInput {
    /// Absent: as the model declares it, with `rows` for the first free dimension and 1 for others.
    pub shape: Option<Vec<i64>>,
    pub data: WarmupData,
}

/// Where the elements of a sample's input come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WarmupData {
    Zeros,
    /// The same at every load.
    Random,
    /// A file in the directory `warmup` of the version or of the model: the protocol's raw form.
    File(String),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelReleaseConfig {
    /// Absent: the gateway's `release.policy`.
    pub policy: Option<Policy>,
    /// Absent: the gateway's `release.allow_pinning`.
    pub allow_pinning: Option<bool>,
    /// Absent: the gateway's `release.evict_previous`.
    pub evict_previous: Option<bool>,
    /// New versions may break clients of the stable one.
    pub allow_signature_change: bool,
    /// Absent: the gateway's `release.reload_changed`.
    pub reload_changed: Option<ReloadChanged>,
}

/// `[scheduler]` of one model; what is absent is as the gateway's `[scheduler]` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSchedulerConfig {
    pub max_queue: Option<usize>,
    pub max_queue_size: Option<ByteSize>,
    pub max_wait: Option<Span>,
    pub max_run_memory: Option<ByteSize>,
    pub instances: Option<usize>,
    pub inline_limit: Option<Span>,
    /// The priority of requests that give none, from 1, the most urgent. Absent: 10.
    pub default_priority: Option<std::num::NonZeroU32>,
    /// How long a request that gives no timeout may take. Absent: as long as it takes.
    pub default_timeout: Option<Span>,
}

/// `[batching]` of one model; what is absent is as the gateway's `[batching]` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelBatchingConfig {
    /// `true` lets a trial decide where the graph leaves it unknown whether rows are independent, and batches a model that
    /// is proven though it could not be tried out at load. Rows that depend on each other are never joined.
    pub enabled: Option<bool>,
    pub max_size: Option<usize>,
    pub max_delay: Option<Span>,
    pub target_p99: Option<Span>,
}

/// `[runtime]` of one model. With any of these it gets a thread pool of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelRuntimeConfig {
    pub intra_op_threads: Option<usize>,
    pub spinning: Option<bool>,
}

/// `[monitor]` of one model: what is absent is as the gateway has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelMonitorConfig {
    /// Absent: the gateway's `monitor.enabled`.
    pub enabled: Option<bool>,
    /// The sliding windows that live rows are compared over.
    pub windows: Option<Vec<super::Span>>,
    /// Corrected PSI from which a feature is in state `warning`. Absent: the gateway's, or `drift` where that is less.
    pub warning: Option<f64>,
    /// Corrected PSI from which a feature is in state `drift`. Absent: the gateway's, or `warning` where that is more.
    pub drift: Option<f64>,
    /// Rows in the window below which no verdict is given.
    pub min_rows: Option<u64>,
    /// Input features and request parameters by whose values rows are counted apart too.
    pub segments: Option<Vec<String>>,
    /// Where a version without a profile gets what its live rows are compared with.
    pub baseline: Option<super::Baseline>,
    /// What happens to a request with values that the profile has never seen.
    pub contract: Option<super::Contract>,
    /// What columns are taken for, by the name of the column, or of a tensor for all its columns. Absent: what their values
    /// look like.
    pub features: BTreeMap<String, ColumnType>,
}

/// What a column is taken for when a profile is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Values that are told apart: classes, codes.
    Categorical,
    Numeric,
    /// Free text: its length and its characters are watched.
    Text,
    /// Not watched at all, also where a profile has it.
    Ignore,
}

impl ModelMonitorConfig {
    fn fault(&self) -> Option<String> {
        for (key, value) in [("warning", self.warning), ("drift", self.drift)] {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value <= 0.0) {
                return Some(format!("monitor.{key} ({value}) must be more than 0"));
            }
        }
        if let (Some(warning), Some(drift)) = (self.warning, self.drift)
            && drift < warning
        {
            return Some(format!("monitor.drift ({drift}) must be at least monitor.warning ({warning})"));
        }
        if let Some(fault) = self.windows.as_deref().and_then(super::monitor::fault_of_windows) {
            return Some(fault);
        }
        if matches!(self.baseline, Some(super::Baseline::Learn(span)) if span.0.is_zero()) {
            return Some("monitor.baseline.learn must be more than 0s".into());
        }
        None
    }
}

/// Why a model's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Wrong { path: PathBuf, reason: String },
}

impl ModelConfig {
    /// The configuration of the model in `directory`: `model.toml`, otherwise `config.pbtxt`,
    /// otherwise the defaults; and its labels.
    pub fn read(directory: &Path) -> Result<Self, ModelConfigError> {
        let (own, foreign) = (directory.join("model.toml"), directory.join("config.pbtxt"));
        let mut config = match (text(&own)?, text(&foreign)?) {
            (Some(text), other) => {
                let mut config = parse(&own, &text)?;
                if other.is_some() {
                    config.warnings.push("config.pbtxt is not read: model.toml is there".into());
                }
                config
            }
            (None, Some(text)) => triton::parse(&text, &directory_name(directory))
                .map_err(|reason| ModelConfigError::Wrong { path: foreign, reason })?,
            (None, None) => Self::default(),
        };
        config.labels = labels::read(directory, std::mem::take(&mut config.labels.files))
            .map_err(|reason| ModelConfigError::Wrong { path: directory.into(), reason })?;
        Ok(config)
    }

    /// Which versions are loaded by themselves.
    #[must_use]
    pub fn versions(&self) -> VersionPolicy {
        self.version_policy.as_ref().map(VersionPolicy::from).unwrap_or_default()
    }

    /// What clients are shown of it.
    #[must_use]
    pub fn facts(&self) -> ModelFacts {
        let triton = self.triton.as_ref();
        ModelFacts {
            max_batch_size: triton.map(|triton| triton.max_batch_size),
            preferred_batch_sizes: triton.map(|triton| triton.preferred_batch_sizes.clone()).unwrap_or_default(),
            priority_levels: triton.map_or(0, |triton| triton.priority_levels),
            model_file: triton.and_then(|triton| triton.model_file.clone()),
            warmup: self.warmup.iter().map(WarmupSample::facts).collect(),
            versions: self.versions(),
            parameters: self.parameters.clone(),
            labels: self.labels.clone(),
        }
    }
}

pub(super) fn parse(path: &Path, text: &str) -> Result<ModelConfig, ModelConfigError> {
    let wrong = |reason: String| ModelConfigError::Wrong { path: path.into(), reason };
    let config: ModelConfig = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if config.scheduler.max_queue == Some(0) {
        return Err(wrong("scheduler.max_queue must be at least 1".into()));
    }
    if let Some(fault) = config.monitor.fault() {
        return Err(wrong(fault));
    }
    Ok(config)
}

/// The file's text; `None` when there is no such file.
fn text(path: &Path) -> Result<Option<String>, ModelConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelConfigError::Read { path: path.into(), source }),
    }
}

/// The model's name; `..` and links resolved.
fn directory_name(directory: &Path) -> String {
    let real = directory.canonicalize().unwrap_or_else(|_| directory.into());
    real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ModelConfig, ModelConfigError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("model.toml"), text).unwrap();
        ModelConfig::read(directory.path())
    }

    #[test]
    fn absent_file_means_defaults() {
        assert_eq!(ModelConfig::read(tempfile::tempdir().unwrap().path()).unwrap(), ModelConfig::default());
    }

    #[test]
    fn keys_are_read_and_unknown_ones_refused() {
        let config = read("[release]\npolicy = \"latest\"\n[columns]\nx = [\"a\", \"b\"]\n").unwrap();
        assert_eq!((config.release.policy, config.columns["x"].len()), (Some(Policy::Latest), 2));
        let error = read("[release]\npolcy = \"latest\"\n").unwrap_err().to_string();
        assert!(error.contains("polcy") && error.contains("line 2"), "{error}");
        assert!(read("[release]\npolicy = \"newest\"\n").unwrap_err().to_string().contains("latest"));
    }

    #[test]
    fn thresholds_in_the_wrong_order_and_out_of_range_are_refused() {
        for (text, words) in [
            (
                "warning = 0.05\ndrift = 0.02",
                "model.toml: monitor.drift (0.02) must be at least monitor.warning (0.05)",
            ),
            ("warning = 0.0", "monitor.warning (0) must be more than 0"),
            ("windows = []", "monitor.windows must have at least one window"),
            ("windows = [\"0s\"]", "monitor.windows must be more than 0s each"),
            ("windows = [\"1d\", \"24h\"]", "monitor.windows has 1d twice"),
            ("drift = -1.0", "monitor.drift (-1) must be more than 0"),
            ("drift = nan", "monitor.drift (NaN) must be more than 0"),
            ("baseline = { learn = \"0s\" }", "monitor.baseline.learn must be more than 0s"),
        ] {
            let error = read(&format!("[monitor]\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(read("[monitor]\nwarning = 0.05\ndrift = 0.05\n").is_ok());
    }

    #[test]
    fn types_of_columns_are_read_by_name() {
        let config = read("[monitor.features]\nid = \"ignore\"\n\"x[0]\" = \"categorical\"\n").unwrap();
        let types: Vec<_> = config.monitor.features.into_iter().collect();
        assert_eq!(types, [("id".into(), ColumnType::Ignore), ("x[0]".into(), ColumnType::Categorical)]);
        let error = read("[monitor.features]\nid = \"none\"\n").unwrap_err().to_string();
        assert!(error.contains("ignore") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn version_policy_is_read_in_its_three_forms() {
        let policy = |text: &str| read(&format!("version_policy = {text}\n")).map(|config| config.versions());
        assert_eq!(policy("\"all\"").unwrap(), VersionPolicy::All);
        assert_eq!(policy("{ latest = 2 }").unwrap(), VersionPolicy::Latest(2));
        assert_eq!(policy("{ specific = [3, 5] }").unwrap(), VersionPolicy::Specific(vec![3, 5]));
        for bad in ["{ latest = 0 }", "{ specific = [0] }", "\"newest\"", "{ latest = 1, specific = [1] }"] {
            assert!(policy(bad).is_err(), "{bad}");
        }
        assert_eq!(read("").unwrap().versions(), VersionPolicy::All);
    }
}
