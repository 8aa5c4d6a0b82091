//! Models and versions: discovery, admission, release state, publication.

mod status;

pub use status::{HistoryEntry, ModelStatus, VersionState, VersionStatus};

use std::{sync::Arc, time::Duration};

use crate::{
    domain::{ModelName, Version},
    fault::{ErrorCode, Fault},
    monitor::DriftReport,
    release::{Change, Release},
};

/// How a change is to be made.
#[derive(Debug, Clone, Default)]
pub struct ChangeOptions {
    /// Check and answer with the release as it would be; change nothing.
    pub dry_run: bool,
    /// Refuse unless the release has this generation.
    pub if_generation: Option<u64>,
    /// Kept in the audit log.
    pub reason: Option<String>,
    /// Who asks; kept in the audit log.
    pub actor: String,
}

/// Why an operation on the registry was refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RegistryError {
    code: ErrorCode,
    message: String,
}

impl Fault for RegistryError {
    fn code(&self) -> ErrorCode {
        self.code
    }
}

/// The models and their releases. All methods block (disk, loads): never call them on an async thread.
#[derive(Clone)]
pub struct Registry {
    _inner: Arc<()>,
}

impl Registry {
    /// All models, by name.
    pub fn models(&self) -> Vec<ModelStatus> {
        todo!()
    }

    pub fn model(&self, _name: &ModelName) -> Result<ModelStatus, RegistryError> {
        todo!()
    }

    /// Makes a change durable, publishes it, and answers with the new release.
    pub fn change(
        &self,
        _name: &ModelName,
        _change: &Change,
        _options: &ChangeOptions,
    ) -> Result<Release, RegistryError> {
        todo!()
    }

    /// Loads a version that is on disk; returns when it is ready or has failed.
    pub fn load(
        &self,
        _name: &ModelName,
        _version: Version,
        _options: &ChangeOptions,
    ) -> Result<VersionStatus, RegistryError> {
        todo!()
    }

    /// Drains and drops a version that the release does not use.
    pub fn unload(
        &self,
        _name: &ModelName,
        _version: Version,
        _options: &ChangeOptions,
    ) -> Result<VersionStatus, RegistryError> {
        todo!()
    }

    /// The audit log of a model, newest first.
    pub fn history(&self, _name: &ModelName, _limit: usize) -> Result<Vec<HistoryEntry>, RegistryError> {
        todo!()
    }

    /// The drift of a version (`None`: the stable one) over a window (`None`: the configured one).
    pub fn drift(
        &self,
        _name: &ModelName,
        _version: Option<Version>,
        _window: Option<Duration>,
    ) -> Result<DriftReport, RegistryError> {
        todo!()
    }
}
