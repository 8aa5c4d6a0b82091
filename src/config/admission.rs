//! `[admission]` and `[warmup]`: what a version must pass before it serves.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Span};

/// `[admission]`: what is checked of a version's files, and how far its trial may go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// PEM files with the Ed25519 public keys whose signatures of `manifest.json` count.
    pub keys: Vec<PathBuf>,
    /// Refuse versions without a manifest that one of the keys has signed.
    pub require_signature: bool,
    /// Take files that have names (hard links) outside the model's directory.
    pub allow_hard_links: bool,
    /// Directories outside the repository that symbolic links of a version may lead to, such as a cache of Hugging Face.
    pub link_roots: Vec<PathBuf>,
    /// Load and run each model in a process of its own first.
    pub isolated: bool,
    /// Processor time that the trial in that process may take.
    pub time_limit: Span,
    /// Memory that the trial may allocate, beyond four times the size of the version's files.
    pub memory_limit: ByteSize,
    /// What becomes of a version whose answers to one request differ between two runs.
    pub nondeterministic: Nondeterministic,
}

/// What becomes of a version whose answers to one request differ between two runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nondeterministic {
    /// It is admitted with a warning.
    #[default]
    Warn,
    /// It fails.
    Refuse,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            require_signature: false,
            allow_hard_links: false,
            link_roots: Vec::new(),
            isolated: true,
            time_limit: Span(Duration::from_secs(60)),
            memory_limit: ByteSize(2 << 30),
            nondeterministic: Nondeterministic::default(),
        }
    }
}

impl AdmissionConfig {
    pub(super) fn faults(&self, check: &mut impl FnMut(bool, &str)) {
        check(
            !self.require_signature || !self.keys.is_empty(),
            "admission.require_signature needs a key in admission.keys: nothing could be admitted",
        );
        check(
            self.link_roots.iter().all(|root| root.is_absolute()),
            "admission.link_roots must be absolute paths, such as \"/var/cache/huggingface/hub\"",
        );
        check(self.time_limit.0 >= Duration::from_secs(1), "admission.time_limit must be at least 1s");
        check(self.memory_limit.0 >= 64 << 20, "admission.memory_limit must be at least 64MiB");
    }
}

/// `[warmup]`: what versions answer before they are ready, beside what `model.toml` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmupConfig {
    /// Requests of each model that are kept in memory for the warm-up of its next version; 0: none.
    pub recent_requests: usize,
}

impl Default for WarmupConfig {
    fn default() -> Self {
        Self { recent_requests: 8 }
    }
}
