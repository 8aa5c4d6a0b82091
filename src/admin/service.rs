//! The operations of the admin plane, as both doors call them.

use std::time::Duration;

use tokio::task::JoinError;

use super::wire::LogChangeBody;
use crate::{
    domain::{ModelName, Version},
    fault::{ErrorCode, Fault},
    monitor::DriftReport,
    protocol::LogSettings,
    registry::{ChangeOptions, HistoryEntry, ModelStatus, Registry, RegistryError, VersionStatus},
    release::{Change, Release},
    telemetry::LogControl,
};

/// Why an admin request was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The message names the value and what is accepted instead.
    #[error("{0}")]
    BadRequest(String),
    #[error("there is nothing at '{0}': GET / lists what is here")]
    UnknownPath(String),
    #[error("{method} is not possible here: use {allow}")]
    Method { method: String, allow: &'static str },
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the operation ended without an answer: {0}")]
    Crashed(#[from] JoinError),
}

impl Fault for AdminError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::BadRequest(_) => ErrorCode::BadRequest,
            Self::UnknownPath(_) => ErrorCode::NotFound,
            Self::Method { .. } => ErrorCode::MethodNotAllowed,
            Self::TooLarge(_) => ErrorCode::TooLarge,
            Self::Registry(error) => error.code(),
            Self::Crashed(_) => ErrorCode::Internal,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Registry(error) => error.message(),
            Self::Crashed(_) => "the operation ended without an answer: the gateway's log says more".to_owned(),
            other => other.to_string(),
        }
    }
}

/// The operations on models and releases. The registry blocks (disk, loads), so each call
/// runs on a thread that may block; it runs to its end even if the caller goes away.
#[derive(Clone)]
pub struct AdminService {
    registry: Registry,
    logs: LogControl,
}

impl AdminService {
    #[must_use]
    pub fn new(registry: Registry, logs: LogControl) -> Self {
        Self { registry, logs }
    }

    pub(super) fn log_settings(&self) -> LogSettings {
        LogSettings::of(&self.logs)
    }

    /// Changes what is logged until the next start, and answers with what is logged now.
    pub(super) fn change_log_settings(&self, change: &LogChangeBody, actor: &str) -> LogSettings {
        let levels = self.logs.change(|levels| {
            levels.info = change.log_info.unwrap_or(levels.info);
            levels.warning = change.log_warning.unwrap_or(levels.warning);
            levels.error = change.log_error.unwrap_or(levels.error);
            levels.verbose = change.log_verbose_level.unwrap_or(levels.verbose);
        });
        tracing::warn!(actor, ?levels, "log settings changed, until the next start");
        self.log_settings()
    }

    pub async fn models(&self) -> Result<Vec<ModelStatus>, AdminError> {
        self.blocking(|registry| Ok(registry.models())).await
    }

    pub async fn model(&self, name: ModelName) -> Result<ModelStatus, AdminError> {
        self.blocking(move |registry| registry.model(&name)).await
    }

    /// Makes a change and answers with the new release, or with what it would be.
    pub async fn change(&self, name: ModelName, change: Change, options: ChangeOptions) -> Result<Release, AdminError> {
        self.blocking(move |registry| registry.change(&name, &change, &options)).await
    }

    pub async fn load(
        &self,
        name: ModelName,
        version: Version,
        allow_signature_change: bool,
        options: ChangeOptions,
    ) -> Result<VersionStatus, AdminError> {
        self.blocking(move |registry| registry.load(&name, version, allow_signature_change, &options)).await
    }

    pub async fn unload(
        &self,
        name: ModelName,
        version: Version,
        options: ChangeOptions,
    ) -> Result<VersionStatus, AdminError> {
        self.blocking(move |registry| registry.unload(&name, version, &options)).await
    }

    /// Loads every version of a model that is not loaded, which is Triton's load.
    pub async fn load_model(&self, name: ModelName, options: ChangeOptions) -> Result<(), AdminError> {
        self.blocking(move |registry| {
            // A model that was only just copied is to be found too.
            let _ = registry.scan();
            let versions = registry.model(&name)?.versions;
            let loads = versions.iter().map(|status| registry.load(&name, status.version, false, &options).map(drop));
            // All are tried before the first that failed is told.
            loads.collect::<Vec<_>>().into_iter().collect()
        })
        .await
    }

    /// Unloads all versions of a model, which is Triton's unload. As with a single version, one
    /// that the release uses is not unloaded; then none is.
    pub async fn unload_model(&self, name: ModelName, options: ChangeOptions) -> Result<(), AdminError> {
        self.blocking(move |registry| {
            let status = registry.model(&name)?;
            if let Some(version) = status.release.versions().next() {
                return Err(RegistryError::InUse { model: name, version });
            }
            status.versions.iter().try_for_each(|status| registry.unload(&name, status.version, &options).map(drop))
        })
        .await
    }

    /// The audit log, newest first.
    pub async fn history(&self, name: ModelName, limit: usize) -> Result<Vec<HistoryEntry>, AdminError> {
        self.blocking(move |registry| registry.history(&name, limit)).await
    }

    pub async fn drift(
        &self,
        name: ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    ) -> Result<DriftReport, AdminError> {
        self.blocking(move |registry| registry.drift(&name, version, window)).await
    }

    async fn blocking<T, F>(&self, operation: F) -> Result<T, AdminError>
    where
        T: Send + 'static,
        F: FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
    {
        let registry = self.registry.clone();
        Ok(tokio::task::spawn_blocking(move || operation(&registry)).await??)
    }
}
