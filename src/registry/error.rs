//! Why an operation on models and releases was refused.

use std::time::Duration;

use super::{memory::Shortage, status::VersionState};
use crate::{
    domain::{ModelName, Version},
    fault::{ErrorCode, Fault},
    monitor::{LearningProgress, SegmentName, window_label},
    release::ReleaseError,
    rollout::RolloutError,
    store::{KeyError, StoreError},
};

/// Why an operation was refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("unknown model '{0}'")]
    UnknownModel(ModelName),
    #[error("model '{model}' has no version {version}")]
    UnknownVersion { model: ModelName, version: Version },
    #[error("version {version} of model '{model}' is {}{}", state.as_str(), because(reason.as_deref()))]
    NotReady { model: ModelName, version: Version, state: VersionState, reason: Option<String> },
    #[error(
        "the release of model '{model}' has generation {found}, not {expected}: somebody changed it meanwhile{since}"
    )]
    Stale {
        model: ModelName,
        expected: u64,
        found: u64,
        /// What they did, where the audit log says it.
        since: String,
    },
    #[error(
        "version {version} of model '{model}' was rolled back from{story}: name the version to go to, \
         `tidegate rollback {model} --to {version}` for this one"
    )]
    RolledBack {
        model: ModelName,
        version: Version,
        /// Who did it, when and why, where the audit log says it.
        story: String,
    },
    #[error("version {version} of model '{model}' is not promoted, since warnings are refused (strict): {}", warnings.join("; "))]
    Strict { model: ModelName, version: Version, warnings: Vec<String> },
    #[error(
        "version {version} of model '{model}' is in use by the release: promote another version or clear the role first"
    )]
    InUse { model: ModelName, version: Version },
    #[error("the files of version {version} of model '{model}' were not taken, it serves what it served: {reason}")]
    NotAccepted { model: ModelName, version: Version, reason: String },
    #[error(
        "model '{0}' still has versions on disk: remove its directory first. What serves goes on until it is forgotten"
    )]
    StillThere(ModelName),
    #[error("there is no room for version {version} of model '{model}': {shortage}")]
    NoMemory { model: ModelName, version: Version, shortage: Shortage },
    #[error("model '{0}' has no stable version")]
    NoStable(ModelName),
    #[error("version {version} of model '{model}' has no profile.json: its drift is not watched")]
    NotMonitored { model: ModelName, version: Version },
    #[error(
        "version {version} of model '{model}' has no profile.json, and its drift is not watched yet: monitor.baseline is \
         \"stable\", and {what}"
    )]
    AwaitsBaseline { model: ModelName, version: Version, what: String },
    #[error("version {version} of model '{model}' is learning its profile from its first rows: {progress}")]
    Learning { model: ModelName, version: Version, progress: LearningProgress },
    #[error("what version {version} of model '{model}' learnt is no profile of any use: the gateway's log says why")]
    NotLearnt { model: ModelName, version: Version },
    #[error("model '{0}' has no canary to compare with stable")]
    NoCanary(ModelName),
    #[error("version {version} of model '{model}' has answered nothing as canary of the present stable version")]
    NotCompared { model: ModelName, version: Version },
    #[error("no row of segment '{segment}' of model '{model}' was counted: see monitor.segments")]
    NoSegment { model: ModelName, segment: SegmentName },
    #[error("the window must be more than 0s and at most {}", window_label(*longest))]
    Window { longest: Duration },
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

impl Fault for RegistryError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownModel(_)
            | Self::UnknownVersion { .. }
            | Self::NotMonitored { .. }
            | Self::AwaitsBaseline { .. }
            | Self::Learning { .. }
            | Self::NotLearnt { .. }
            | Self::NoCanary(_)
            | Self::NotCompared { .. }
            | Self::NoSegment { .. } => ErrorCode::NotFound,
            Self::NotReady { .. }
            | Self::InUse { .. }
            | Self::NoMemory { .. }
            | Self::NoStable(_)
            | Self::NotAccepted { .. }
            | Self::StillThere(_)
            | Self::RolledBack { .. }
            | Self::Strict { .. } => ErrorCode::Conflict,
            Self::Stale { .. } => ErrorCode::Stale,
            Self::Window { .. } => ErrorCode::BadRequest,
            Self::Release(error) => error.code(),
            Self::Rollout(error) => error.code(),
            Self::Key(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Key(error) => error.message(),
            Self::Store(error) => error.message(),
            other => other.to_string(),
        }
    }
}
