//! The paths of the admin plane and their methods.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::admin::AdminError;

/// Where a request goes. Names and numbers are as they came, not checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Endpoints,
    OpenApi,
    Events,
    RepositoryIndex,
    RepositoryLoad(&'a str),
    RepositoryUnload(&'a str),
    Logging,
    Models,
    Model(&'a str),
    Load(&'a str, &'a str),
    Unload(&'a str, &'a str),
    /// What is changed of a model's release.
    Release(&'a str, Part<'a>),
    Rollout(&'a str),
    RolloutPause(&'a str),
    RolloutResume(&'a str),
    History(&'a str),
    Drift(&'a str),
    DriftSelfTest(&'a str),
}

/// A part of a release that can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Promote,
    Rollback,
    Canary,
    Shadow,
    Label(&'a str),
}

/// The decoded segments of a path; `None` when they are no text.
pub(super) fn segments(path: &str) -> Option<Vec<Cow<'_, str>>> {
    path.strip_prefix('/')?.split('/').map(|segment| percent_decode_str(segment).decode_utf8().ok()).collect()
}

impl<'a> Place<'a> {
    pub(super) fn find(segments: &[&'a str]) -> Option<Self> {
        Some(match segments {
            [""] => Self::Endpoints,
            ["v2", "repository", "index"] => Self::RepositoryIndex,
            ["v2", "repository", "models", model, "load"] => Self::RepositoryLoad(model),
            ["v2", "repository", "models", model, "unload"] => Self::RepositoryUnload(model),
            ["v2", "logging"] => Self::Logging,
            ["admin", "v1", "openapi.json"] => Self::OpenApi,
            ["admin", "v1", "events"] => Self::Events,
            ["admin", "v1", "models"] => Self::Models,
            ["admin", "v1", "models", model] if !model.is_empty() => Self::Model(model),
            ["admin", "v1", "models", model, "versions", version, "load"] => Self::Load(model, version),
            ["admin", "v1", "models", model, "versions", version, "unload"] => Self::Unload(model, version),
            ["admin", "v1", "models", model, "promote"] => Self::Release(model, Part::Promote),
            ["admin", "v1", "models", model, "rollback"] => Self::Release(model, Part::Rollback),
            ["admin", "v1", "models", model, "canary"] => Self::Release(model, Part::Canary),
            ["admin", "v1", "models", model, "shadow"] => Self::Release(model, Part::Shadow),
            ["admin", "v1", "models", model, "labels", label] => Self::Release(model, Part::Label(label)),
            ["admin", "v1", "models", model, "rollout"] => Self::Rollout(model),
            ["admin", "v1", "models", model, "rollout", "pause"] => Self::RolloutPause(model),
            ["admin", "v1", "models", model, "rollout", "resume"] => Self::RolloutResume(model),
            ["admin", "v1", "models", model, "history"] => Self::History(model),
            ["admin", "v1", "models", model, "drift"] => Self::Drift(model),
            ["admin", "v1", "models", model, "drift", "self-test"] => Self::DriftSelfTest(model),
            _ => return None,
        })
    }

    pub(super) fn check_method(&self, method: &Method) -> Result<(), AdminError> {
        let allow = self.methods();
        if allow.split(", ").any(|allowed| allowed == method.as_str()) {
            return Ok(());
        }
        Err(AdminError::Method { method: method.to_string(), allow })
    }

    /// The methods, as the header `Allow` lists them.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Endpoints
            | Self::OpenApi
            | Self::Models
            | Self::History(_)
            | Self::Drift(_)
            | Self::DriftSelfTest(_) => "GET, HEAD",
            Self::Events => "GET",
            Self::Model(_) => "GET, HEAD, DELETE",
            Self::Logging => "GET, HEAD, POST",
            Self::Rollout(_) => "GET, HEAD, POST, DELETE",
            Self::RepositoryIndex
            | Self::RepositoryLoad(_)
            | Self::RepositoryUnload(_)
            | Self::Load(..)
            | Self::Unload(..)
            | Self::RolloutPause(_)
            | Self::RolloutResume(_)
            | Self::Release(_, Part::Promote | Part::Rollback) => "POST",
            Self::Release(_, Part::Canary | Part::Shadow | Part::Label(_)) => "PUT, DELETE",
        }
    }
}
