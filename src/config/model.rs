//! `model.toml`: what a model wants different from the gateway's defaults.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Span};

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
    pub scheduler: ModelSchedulerConfig,
    pub batching: ModelBatchingConfig,
    pub runtime: ModelRuntimeConfig,
    pub monitor: ModelMonitorConfig,
    /// Names of the columns of a `[rows, columns]` tensor, by tensor.
    pub columns: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelReleaseConfig {
    /// Absent: the gateway's `release.policy`.
    pub policy: Option<Policy>,
}

/// `[scheduler]` of one model; what is absent is as the gateway's `[scheduler]` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSchedulerConfig {
    pub max_queue: Option<usize>,
    pub max_queue_size: Option<ByteSize>,
    pub max_wait: Option<Span>,
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
    /// `true` batches even a model that could not be tried out at load.
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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelMonitorConfig {
    /// Absent: the gateway's `monitor.enabled`.
    pub enabled: Option<bool>,
}

/// Why a `model.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Wrong { path: PathBuf, reason: String },
}

impl ModelConfig {
    /// The `model.toml` of the model in `directory`; the defaults when there is none.
    pub fn read(directory: &Path) -> Result<Self, ModelConfigError> {
        let path = directory.join("model.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ModelConfigError::Read { path, source }),
        };
        let config: Self = toml::from_str(&text)
            .map_err(|error| ModelConfigError::Wrong { path: path.clone(), reason: error.to_string() })?;
        if config.scheduler.max_queue == Some(0) {
            return Err(ModelConfigError::Wrong { path, reason: "scheduler.max_queue must be at least 1".into() });
        }
        Ok(config)
    }
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
}
