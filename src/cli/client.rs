//! A client of the admin API over REST.

use std::{fmt::Display, io::ErrorKind, net::IpAddr, time::Duration};

use http::{
    Method, Request, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH},
};
use serde::Serialize;
use ureq::{Agent, Timeout};

use super::operator::{ChangeArgs, GatewayArgs};
use crate::{admin::wire::ErrorBody, protocol::METRICS_PATHS};

/// A drift report of thousands of features fits.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;

/// Why the gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot reach the gateway at {0}: is `tidegate serve` running?")]
    Unreachable(String),
    #[error("the request to the gateway at {url} failed: {cause}")]
    Failed {
        url: String,
        #[source]
        cause: Box<ureq::Error>,
    },
    /// In the gateway's own words.
    #[error("{0}")]
    Refused(String),
    #[error(
        "{url} answered {status}, and not as tidegate's admin plane does: the admin plane is on a port of its own, 8003 unless \
         server.admin says otherwise (--admin-url, TIDEGATE_ADMIN_URL)"
    )]
    Foreign { url: String, status: u16 },
    #[error("the gateway's answer cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// The gateway answered, and there is no place for what it said.
    #[error("cannot write {path}: {cause}")]
    Unwritable {
        path: String,
        #[source]
        cause: std::io::Error,
    },
}

/// One request of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

impl Call {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: None }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Display) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        self.headers.push((CONTENT_TYPE.as_str(), "application/json".to_owned()));
        self.body = Some(serde_json::to_string(body).expect("bodies have text keys and no failing serializer"));
        self
    }

    pub(super) fn options(mut self, options: &ChangeArgs) -> Self {
        if options.dry_run {
            self = self.query("dry_run", true);
        }
        if let Some(reason) = &options.reason {
            self = self.query("reason", reason);
        }
        if let Some(generation) = options.if_generation {
            self.headers.push((IF_MATCH.as_str(), format!("\"{generation}\"")));
        }
        if let Some(actor) = options.who(std::env::var("USER").ok().into_iter().chain([system_user()])) {
            self.headers.push(("tidegate-actor", actor));
        }
        if let Some(key) = &options.idempotency_key {
            self.headers.push(("idempotency-key", format!("\"{key}\"")));
        }
        self
    }

    /// Lets the rollback target make room.
    pub(super) fn evict_previous(self, is_wanted: bool) -> Self {
        if is_wanted { self.query("evict_previous", true) } else { self }
    }

    fn url(&self, base: &str) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{base}{}{mark}{query}", self.path)
    }
}

/// A successful answer.
pub(super) struct Answered {
    pub(super) text: String,
    /// It is that of an earlier request with the same idempotency key.
    pub(super) is_repeated: bool,
}

/// Asks one gateway.
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(gateway: &GatewayArgs) -> Self {
        // A load may take minutes; only the connection must not.
        Self::with_limits(gateway, Duration::from_secs(5), None)
    }

    /// A client that gives up after `limit`.
    pub(super) fn within(gateway: &GatewayArgs, limit: Duration) -> Self {
        Self::with_limits(gateway, limit, Some(limit))
    }

    fn with_limits(gateway: &GatewayArgs, connect: Duration, whole: Option<Duration>) -> Self {
        let base = gateway.admin_url.as_str().to_owned();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(connect))
            .timeout_global(whole);
        if is_local(&base) {
            config = config.proxy(None);
        }
        Self { agent: config.build().into(), base, token: gateway.token.clone() }
    }

    /// The text of a successful answer.
    pub(super) fn call(&self, call: &Call) -> Result<String, ClientError> {
        self.ask(call).map(|answer| answer.text)
    }

    pub(super) fn ask(&self, call: &Call) -> Result<Answered, ClientError> {
        let failed = |cause| self.failure(cause);
        let mut request = Request::builder().method(&call.method).uri(call.url(&self.base));
        for (name, value) in &call.headers {
            // Names are not all ASCII.
            request = request.header(*name, value.as_bytes());
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(call.body.clone().unwrap_or_default()).map_err(|error| failed(error.into()))?;
        let mut response = self.agent.run(request).map_err(failed)?;
        let status = response.status();
        let is_repeated = response.headers().contains_key("idempotency-replayed");
        let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string().map_err(failed)?;
        if status.is_success() {
            return Ok(Answered { text, is_repeated });
        }
        Err(match serde_json::from_str(&text) {
            Ok(ErrorBody { error }) if is_of_another_plane(&error) => {
                ClientError::Foreign { url: self.base.clone(), status: status.as_u16() }
            }
            Ok(ErrorBody { error }) => ClientError::Refused(error),
            Err(_) => ClientError::Foreign { url: self.base.clone(), status: status.as_u16() },
        })
    }

    fn failure(&self, cause: ureq::Error) -> ClientError {
        let unreachable = match &cause {
            ureq::Error::Io(error) => matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ),
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Timeout(Timeout::Connect) => true,
            _ => false,
        };
        let url = self.base.clone();
        if unreachable { ClientError::Unreachable(url) } else { ClientError::Failed { url, cause: Box::new(cause) } }
    }
}

/// What the inference and the metrics plane say of paths that they do not have, as they do not of any of the admin plane's.
fn is_of_another_plane(error: &str) -> bool {
    error.starts_with("the path '/admin/") || error == METRICS_PATHS
}

/// The user that this process runs as. Where jobs run (cron, containers, pipelines) $USER is often absent.
fn system_user() -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_of(rustix::process::geteuid().as_raw(), &users)
}

/// The name of a user in the form of `/etc/passwd`; of one that is elsewhere, or nowhere, the number.
fn user_of(id: u32, users: &str) -> String {
    let is_it = |line: &&str| line.split(':').nth(2).is_some_and(|number| number.parse() == Ok(id));
    let name = users.lines().find(is_it).and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("uid {id}"), str::to_owned)
}

/// A gateway on this machine is never behind the proxy that the environment names.
fn is_local(base: &str) -> bool {
    let url: Uri = base.parse().unwrap_or_default();
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_writes_options_into_query_and_headers() {
        let options = ChangeArgs {
            dry_run: true,
            if_generation: Some(7),
            reason: Some("p99 & more".to_owned()),
            actor: Some("ada".to_owned()),
            idempotency_key: Some("k-1".to_owned()),
        };
        let call = Call::new(Method::POST, "/admin/v1/models/fraud/rollback").options(&options);
        assert_eq!(
            call.url("http://g:1"),
            "http://g:1/admin/v1/models/fraud/rollback?dry_run=true&reason=p99+%26+more"
        );
        let headers = [("if-match", "\"7\""), ("tidegate-actor", "ada"), ("idempotency-key", "\"k-1\"")];
        assert_eq!(call.headers, headers.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn user_that_no_gateway_takes_is_nobodys_name() {
        for user in ["", "a\nb"] {
            assert_eq!(ChangeArgs::default().who([user.to_owned()]), None, "{user:?}");
            let users = [user.to_owned(), "bob".to_owned()];
            assert_eq!(ChangeArgs::default().who(users).as_deref(), Some("bob"), "{user:?}");
        }
        assert_eq!(ChangeArgs::default().who(["zoë".to_owned()]).as_deref(), Some("zoë"));
        let ada = ChangeArgs { actor: Some("ada".to_owned()), ..ChangeArgs::default() };
        assert_eq!(ada.who(["zoë".to_owned()]).as_deref(), Some("ada"));
    }

    #[test]
    fn user_of_the_system_has_a_name_or_at_least_a_number() {
        let users = "# a comment\nroot:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user_of(1000, users), "ann");
        assert_eq!(user_of(0, users), "root");
        assert_eq!(user_of(4242, users), "uid 4242");
        assert!(!system_user().is_empty());
    }

    #[test]
    fn answers_of_other_planes_are_known() {
        assert!(is_of_another_plane("the path '/admin/v1/models' is unknown: the admin API is on a port of its own"));
        assert!(is_of_another_plane(METRICS_PATHS));
        assert!(!is_of_another_plane("unknown model 'x'"));
    }

    #[test]
    fn proxy_is_not_for_this_machine() {
        for local in ["http://127.0.0.1:8003", "http://localhost:8003", "http://[::1]:8003"] {
            assert!(is_local(local), "{local}");
        }
        assert!(!is_local("http://gateway.example:8003"));
    }
}
