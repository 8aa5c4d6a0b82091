//! The operations of the admin plane, as both doors call them.

use std::time::Duration;

use tokio::task::JoinError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    EventFilter,
    events::{self, Told},
    wire::LogChangeBody,
};
use crate::{
    domain::{ModelName, Version},
    events::Events,
    fault::{ErrorCode, Fault},
    monitor::{Drift, DriftQuery, SelfTest},
    protocol::LogSettings,
    registry::{
        ChangeOptions, Changed, HistoryEntry, ModelStatus, Registry, RegistryError, RolloutAsk, RolloutStatus,
        VersionStatus,
    },
    release::Change,
    store::Verification,
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
    #[error("{0} readers follow the events already: try again later")]
    TooManyReaders(usize),
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
            Self::TooManyReaders(_) => ErrorCode::Overloaded,
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

/// What is done to a rollout that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutChange {
    Pause,
    Resume,
    Abort,
}

/// The operations on models and releases. The registry blocks (disk, loads), so each call
/// runs on a thread that may block; it runs to its end even if the caller goes away.
#[derive(Clone)]
pub struct AdminService {
    registry: Registry,
    logs: LogControl,
    events: Events,
    stopping: CancellationToken,
}

impl AdminService {
    /// Streams of events end when `stopping` is cancelled.
    #[must_use]
    pub fn new(registry: Registry, logs: LogControl, events: Events, stopping: CancellationToken) -> Self {
        Self { registry, logs, events, stopping }
    }

    /// What happens from now on.
    pub(super) fn follow(&self, filter: EventFilter) -> Result<ReceiverStream<Told>, AdminError> {
        events::follow(&self.events, filter, self.stopping.clone())
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

    /// What concerns all models.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.registry.state_disk().warning().into_iter().collect()
    }

    pub async fn model(&self, name: ModelName) -> Result<ModelStatus, AdminError> {
        self.blocking(move |registry| registry.model(&name)).await
    }

    /// Makes a change and answers with the new release, or with what it would be.
    pub async fn change(&self, name: ModelName, change: Change, options: ChangeOptions) -> Result<Changed, AdminError> {
        self.blocking(move |registry| registry.attempt(&name, &change, &options)).await
    }

    pub async fn load(
        &self,
        name: ModelName,
        version: Version,
        options: ChangeOptions,
    ) -> Result<VersionStatus, AdminError> {
        self.blocking(move |registry| registry.load(&name, version, &options)).await
    }

    pub async fn unload(
        &self,
        name: ModelName,
        version: Version,
        options: ChangeOptions,
    ) -> Result<VersionStatus, AdminError> {
        self.blocking(move |registry| registry.unload(&name, version, &options)).await
    }

    /// The rollout that goes on, or the last one.
    pub async fn rollout(&self, name: ModelName) -> Result<RolloutStatus, AdminError> {
        self.blocking(move |registry| registry.rollout(&name)).await
    }

    pub async fn start_rollout(
        &self,
        name: ModelName,
        ask: RolloutAsk,
        options: ChangeOptions,
    ) -> Result<RolloutStatus, AdminError> {
        self.blocking(move |registry| registry.start_rollout(&name, ask, &options)).await
    }

    pub async fn change_rollout(
        &self,
        name: ModelName,
        change: RolloutChange,
        options: ChangeOptions,
    ) -> Result<RolloutStatus, AdminError> {
        self.blocking(move |registry| match change {
            RolloutChange::Pause => registry.pause_rollout(&name, &options),
            RolloutChange::Resume => registry.resume_rollout(&name, &options),
            RolloutChange::Abort => registry.abort_rollout(&name, &options),
        })
        .await
    }

    /// Loads every version of a model that is not loaded, which is Triton's load.
    pub async fn load_model(&self, name: ModelName, options: ChangeOptions) -> Result<(), AdminError> {
        self.blocking(move |registry| {
            // A model that was only just copied is to be found too.
            let _ = registry.scan();
            let versions = registry.model(&name)?.versions;
            let loads = versions.iter().map(|status| registry.load(&name, status.version, &options).map(drop));
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

    /// The audit log, newest first; when asked, with what a check of its hash chain found.
    pub async fn history(
        &self,
        name: ModelName,
        limit: usize,
        verify: bool,
    ) -> Result<(Vec<HistoryEntry>, Option<Verification>), AdminError> {
        self.blocking(move |registry| {
            let verification = verify.then(|| registry.verify_history()).transpose()?;
            let entries = match registry.history(&name, limit) {
                // What was tampered with may be unreadable, and that it was is what was asked.
                Err(RegistryError::Store(_)) if verification.as_ref().is_some_and(|found| found.broken.is_some()) => {
                    Vec::new()
                }
                entries => entries?,
            };
            Ok((entries, verification))
        })
        .await
    }

    pub async fn drift(&self, name: ModelName, query: DriftQuery) -> Result<Drift, AdminError> {
        self.blocking(move |registry| registry.drift(&name, &query)).await
    }

    /// What the monitor of a version, or of the stable one, says of rows drawn from its own profile.
    pub async fn drift_self_test(
        &self,
        name: ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    ) -> Result<SelfTest, AdminError> {
        self.blocking(move |registry| registry.drift_self_test(&name, version, window)).await
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
