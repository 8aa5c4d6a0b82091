//! What a REST request asks for: from its head and body to an [`AdminRequest`], without doing it.

mod place;

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, time::Duration};

use http::{HeaderValue, Method, header::IF_MATCH, request::Parts};
use serde::de::DeserializeOwned;

use super::{
    AdminError, EventFilter, RolloutChange, value,
    wire::{
        LogChangeBody, ReasonBody, RepositoryIndexBody, RepositoryModelBody, RollbackBody, RolloutBody, SplitBody,
        VersionBody,
    },
};
use crate::{
    domain::{ModelName, Version},
    monitor::DriftQuery,
    registry::{ChangeOptions, RolloutAsk},
    release::{Change, Split},
};
use place::{Part, Place};

/// The header that names who asks, in UTF-8.
pub(super) const ACTOR_HEADER: &str = "tidegate-actor";
/// The header under which a change is made once (draft-ietf-httpapi-idempotency-key-header).
pub(super) const KEY_HEADER: &str = "idempotency-key";

/// A REST request, understood and checked.
#[derive(Debug, Clone)]
pub enum AdminRequest {
    /// The list of what is here.
    Endpoints,
    OpenApi,
    Events(EventFilter),
    RepositoryIndex {
        only_ready: bool,
    },
    /// Triton's load of a model: all of its versions.
    RepositoryLoad {
        model: ModelName,
        options: ChangeOptions,
    },
    RepositoryUnload {
        model: ModelName,
        options: ChangeOptions,
    },
    LogSettings,
    ChangeLogSettings {
        change: LogChangeBody,
        actor: String,
    },
    Models,
    Model(ModelName),
    Load {
        model: ModelName,
        version: Version,
        options: ChangeOptions,
    },
    Unload {
        model: ModelName,
        version: Version,
        options: ChangeOptions,
    },
    Change {
        model: ModelName,
        change: Change,
        options: ChangeOptions,
    },
    Rollout(ModelName),
    StartRollout {
        model: ModelName,
        ask: RolloutAsk,
        options: ChangeOptions,
    },
    ChangeRollout {
        model: ModelName,
        change: RolloutChange,
        options: ChangeOptions,
    },
    History {
        model: ModelName,
        limit: usize,
        verify: bool,
    },
    Drift {
        model: ModelName,
        query: DriftQuery,
    },
    DriftSelfTest {
        model: ModelName,
        version: Option<Version>,
        window: Option<Duration>,
    },
}

impl AdminRequest {
    /// Reads a request. The plane puts the peer's [`SocketAddr`] into the extensions; it stands
    /// for the actor when no header names one.
    pub fn parse(head: &Parts, body: &[u8]) -> Result<Self, AdminError> {
        let path = head.uri.path();
        let unknown = || AdminError::UnknownPath(value::shown(path));
        let segments = place::segments(path).ok_or_else(unknown)?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let place = Place::find(&segments).ok_or_else(unknown)?;
        place.check_method(&head.method)?;
        Reader { head, body, query: query(head.uri.query().unwrap_or_default())? }.read(&place)
    }
}

/// The query parameters of every change.
const COMMON: &[&str] = &["dry_run", "reason"];
/// Those of a load.
const OF_A_LOAD: &[&str] = &["dry_run", "reason", "evict_previous", "allow_signature_change", "accept_changed"];
/// Those of a promotion.
const OF_A_PROMOTION: &[&str] = &["dry_run", "reason", "evict_previous", "strict"];

/// The parts of a request that go into an [`AdminRequest`] once its place is known.
struct Reader<'a> {
    head: &'a Parts,
    body: &'a [u8],
    query: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn read(&self, place: &Place<'_>) -> Result<AdminRequest, AdminError> {
        Ok(match *place {
            Place::Endpoints => AdminRequest::Endpoints,
            Place::OpenApi => {
                self.only(&[])?;
                AdminRequest::OpenApi
            }
            Place::Events => {
                self.only(&["model", "topic"])?;
                let model = self.query.get("model").map(|text| value::model(text)).transpose()?;
                let topic = self.query.get("topic").map(|text| value::topic(text)).transpose()?;
                AdminRequest::Events(EventFilter { model, topic })
            }
            Place::RepositoryIndex => {
                let body: RepositoryIndexBody = self.body_or_default(r#"{"ready": true}"#)?;
                AdminRequest::RepositoryIndex { only_ready: body.ready }
            }
            Place::RepositoryLoad(model) => {
                let model = value::model(model)?;
                AdminRequest::RepositoryLoad { model, options: self.repository_options(&[])? }
            }
            Place::RepositoryUnload(model) => {
                let model = value::model(model)?;
                // No model here depends on another.
                AdminRequest::RepositoryUnload { model, options: self.repository_options(&["unload_dependents"])? }
            }
            Place::Logging if self.head.method == Method::POST => {
                self.only(&[])?;
                let change = self.body(r#"{"log_verbose_level": 1}, or log_info, log_warning, log_error"#)?;
                AdminRequest::ChangeLogSettings { change, actor: self.actor()? }
            }
            Place::Logging => {
                self.only(&[])?;
                AdminRequest::LogSettings
            }
            Place::Models => {
                self.only(&[])?;
                AdminRequest::Models
            }
            Place::Model(model) if self.head.method == Method::DELETE => {
                let (model, change) = (value::model(model)?, Change::Forget);
                AdminRequest::Change { model, change, options: self.options_alone()? }
            }
            Place::Model(model) => {
                self.only(&[])?;
                AdminRequest::Model(value::model(model)?)
            }
            Place::Load(model, version) => AdminRequest::Load {
                model: value::model(model)?,
                version: value::version_text(version)?,
                options: self.options_of(self.reason_body()?, OF_A_LOAD)?,
            },
            Place::Unload(model, version) => AdminRequest::Unload {
                model: value::model(model)?,
                version: value::version_text(version)?,
                options: self.options_alone()?,
            },
            Place::Release(model, part) => {
                let (change, options) = self.change(part)?;
                AdminRequest::Change { model: value::model(model)?, change, options }
            }
            Place::Rollout(model) => self.rollout(value::model(model)?)?,
            Place::RolloutPause(model) => self.rollout_change(value::model(model)?, RolloutChange::Pause)?,
            Place::RolloutResume(model) => self.rollout_change(value::model(model)?, RolloutChange::Resume)?,
            Place::History(model) => {
                self.only(&["limit", "verify"])?;
                let limit = value::history_limit(self.number("limit")?)?;
                AdminRequest::History { model: value::model(model)?, limit, verify: self.flag("verify")? }
            }
            Place::Drift(model) => self.drift(model)?,
            Place::DriftSelfTest(model) => self.drift_self_test(model)?,
        })
    }

    fn rollout(&self, model: ModelName) -> Result<AdminRequest, AdminError> {
        if self.head.method == Method::DELETE {
            return self.rollout_change(model, RolloutChange::Abort);
        }
        if self.head.method != Method::POST {
            self.only(&[])?;
            return Ok(AdminRequest::Rollout(model));
        }
        let body: RolloutBody = self.body(r#"{"version": 4}, with optional "steps", "interval", "alpha" and more"#)?;
        let ask = value::rollout(&body)?;
        Ok(AdminRequest::StartRollout { model, ask, options: self.options(body.reason)? })
    }

    fn rollout_change(&self, model: ModelName, change: RolloutChange) -> Result<AdminRequest, AdminError> {
        Ok(AdminRequest::ChangeRollout { model, change, options: self.options_alone()? })
    }

    fn drift_self_test(&self, model: &str) -> Result<AdminRequest, AdminError> {
        self.only(&["version", "window"])?;
        let (version, window) = self.version_and_window()?;
        Ok(AdminRequest::DriftSelfTest { model: value::model(model)?, version, window })
    }

    fn version_and_window(&self) -> Result<(Option<Version>, Option<Duration>), AdminError> {
        let version = self.query.get("version").map(|text| value::version_text(text)).transpose()?;
        Ok((version, self.query.get("window").map(|text| value::window(text)).transpose()?))
    }

    fn drift(&self, model: &str) -> Result<AdminRequest, AdminError> {
        self.only(&["version", "window", "against", "segment"])?;
        let (version, window) = self.version_and_window()?;
        let against = self.query.get("against").map(|text| value::against(text)).transpose()?.unwrap_or_default();
        let segment = self.query.get("segment").map(|text| value::segment(text)).transpose()?;
        let query = value::drift_query(DriftQuery { version, window, against, segment })?;
        Ok(AdminRequest::Drift { model: value::model(model)?, query })
    }

    fn change(&self, part: Part<'_>) -> Result<(Change, ChangeOptions), AdminError> {
        let clear = self.head.method == Method::DELETE;
        Ok(match part {
            Part::Promote => {
                let (version, options) = self.version_body(OF_A_PROMOTION)?;
                (Change::Promote(version), options)
            }
            Part::Rollback => {
                let body: RollbackBody = self.body_or_default(r#"no body, {"to": 3} or {"reason": "why"}"#)?;
                let to = body.to.map(value::version).transpose()?;
                (Change::Rollback(to), self.options(body.reason)?)
            }
            Part::Canary if clear => (Change::ClearCanary, self.options_alone()?),
            Part::Canary => {
                let (split, options) = self.split_body()?;
                (Change::SetCanary(split), options)
            }
            Part::Shadow if clear => (Change::ClearShadow, self.options_alone()?),
            Part::Shadow => {
                let (split, options) = self.split_body()?;
                (Change::SetShadow(split), options)
            }
            Part::Label(label) if clear => (Change::ClearLabel(value::label(label)?), self.options_alone()?),
            Part::Label(label) => {
                let (version, options) = self.version_body(COMMON)?;
                (Change::SetLabel(value::label(label)?, version), options)
            }
        })
    }

    fn version_body(&self, accepted: &[&str]) -> Result<(Version, ChangeOptions), AdminError> {
        let body: VersionBody = self.body(r#"{"version": 4}, with an optional "reason""#)?;
        Ok((value::version(body.version)?, self.options_of(body.reason, accepted)?))
    }

    fn split_body(&self) -> Result<(Split, ChangeOptions), AdminError> {
        let body: SplitBody = self.body(r#"{"version": 4, "percent": 10}, with an optional "reason""#)?;
        let split = Split { version: value::version(body.version)?, percent: value::percent(body.percent.0)? };
        Ok((split, self.options(body.reason)?))
    }

    /// The options of a change that needs no body.
    fn options_alone(&self) -> Result<ChangeOptions, AdminError> {
        self.options(self.reason_body()?)
    }

    fn reason_body(&self) -> Result<Option<String>, AdminError> {
        Ok(self.body_or_default::<ReasonBody>(r#"no body, or {"reason": "why"}"#)?.reason)
    }

    fn options(&self, reason: Option<String>) -> Result<ChangeOptions, AdminError> {
        self.options_of(reason, COMMON)
    }

    fn options_of(&self, reason: Option<String>, accepted: &[&str]) -> Result<ChangeOptions, AdminError> {
        self.only(accepted)?;
        Ok(ChangeOptions {
            dry_run: self.flag("dry_run")?,
            if_generation: self.if_generation()?,
            reason: value::reason(reason.or_else(|| self.query.get("reason").cloned()))?,
            actor: self.actor()?,
            idempotency_key: self.idempotency_key()?,
            evict_previous: self.flag("evict_previous")?,
            allow_signature_change: self.flag("allow_signature_change")?,
            strict: self.flag("strict")?,
            accept_changed: self.flag("accept_changed")?,
        })
    }

    fn idempotency_key(&self) -> Result<Option<String>, AdminError> {
        let mut given = self.head.headers.get_all(KEY_HEADER).iter();
        let key = given.next().map(|key| value::idempotency_key(&lossy(key))).transpose()?;
        if given.next().is_some() {
            return Err(AdminError::BadRequest("the header Idempotency-Key is given twice".to_owned()));
        }
        Ok(key)
    }

    /// The options of Triton's load and unload, whose body may have `accepted` parameters.
    fn repository_options(&self, accepted: &[&str]) -> Result<ChangeOptions, AdminError> {
        let body: RepositoryModelBody = self.body_or_default("no body, or {}")?;
        if let Some(name) = body.parameters.keys().find(|name| !accepted.contains(&name.as_str())) {
            let shown = value::shown(name);
            let words = "a model's configuration and files are those in the repository";
            return Err(AdminError::BadRequest(format!("the parameter '{shown}' is not taken: {words}")));
        }
        if self.head.headers.contains_key(KEY_HEADER) {
            let words = "the header Idempotency-Key is not taken here, where one request is many operations: use";
            return Err(AdminError::BadRequest(format!(
                "{words} /admin/v1/models/{{model}}/versions/{{version}}/load"
            )));
        }
        self.options(None)
    }

    fn flag(&self, name: &str) -> Result<bool, AdminError> {
        match self.query.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let shown = value::shown(other);
                Err(AdminError::BadRequest(format!("'{name}' is '{shown}': use true or false")))
            }
        }
    }

    fn if_generation(&self) -> Result<Option<u64>, AdminError> {
        let mut given = self.head.headers.get_all(IF_MATCH).iter();
        let Some(first) = given.next() else { return Ok(None) };
        let text = lossy(first);
        let text = text.trim();
        let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let generation = number.parse().ok().filter(|_| digits && given.next().is_none());
        generation.map(Some).ok_or_else(|| {
            let accepted = "use the release's generation, such as 7 or \"7\"";
            AdminError::BadRequest(format!("the header If-Match is '{}': {accepted}", value::shown(text)))
        })
    }

    fn actor(&self) -> Result<String, AdminError> {
        let Some(header) = self.head.headers.get(ACTOR_HEADER) else {
            let peer = self.head.extensions.get::<SocketAddr>();
            return Ok(peer.map_or_else(|| "anonymous".to_owned(), |peer| peer.ip().to_string()));
        };
        let name = std::str::from_utf8(header.as_bytes()).map_err(|_| {
            let shown = value::shown(&lossy(header));
            AdminError::BadRequest(format!("the header {ACTOR_HEADER} is '{shown}', which is not UTF-8"))
        })?;
        value::actor(name)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, AdminError> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            AdminError::BadRequest(format!("'{name}' is '{}': use a whole number from 1", value::shown(text)))
        })?;
        Ok(Some(number))
    }

    /// Refuses query parameters other than `accepted`: a misspelt `dry_run` must not become a change.
    fn only(&self, accepted: &[&str]) -> Result<(), AdminError> {
        let Some(unknown) = self.query.keys().find(|key| !accepted.contains(&key.as_str())) else { return Ok(()) };
        let shown = value::shown(unknown);
        let accepted = if accepted.is_empty() { "none".to_owned() } else { accepted.join(", ") };
        Err(AdminError::BadRequest(format!("unknown query parameter '{shown}': accepted here: {accepted}")))
    }

    fn body_or_default<T: DeserializeOwned + Default>(&self, accepted: &str) -> Result<T, AdminError> {
        if self.body.trim_ascii().is_empty() { Ok(T::default()) } else { self.body(accepted) }
    }

    fn body<T: DeserializeOwned>(&self, accepted: &str) -> Result<T, AdminError> {
        let refused = |cause: &str| AdminError::BadRequest(format!("the request body {cause}; send {accepted}"));
        match self.body.trim_ascii().first() {
            None => return Err(refused("is empty")),
            // serde would read an array as the fields in their order.
            Some(b'{') => {}
            Some(_) => return Err(refused("is not a JSON object")),
        }
        serde_json::from_slice(self.body).map_err(|error| {
            let cause: String = error.to_string().chars().take(256).collect();
            refused(&format!("is refused: {cause}"))
        })
    }
}

/// The text of a header; what is not UTF-8 in it is replaced.
fn lossy(header: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(header.as_bytes())
}

fn query(text: &str) -> Result<BTreeMap<String, String>, AdminError> {
    let mut query = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if query.insert(name.to_string(), value.into_owned()).is_some() {
            let shown = value::shown(&name);
            return Err(AdminError::BadRequest(format!("the query parameter '{shown}' is given twice")));
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests;
