//! Which web pages may ask this plane: cross-origin resource sharing, as the Fetch standard has it. Off unless configured.
//!
//! A browser names the page's origin on each request, asks first (`OPTIONS`) where a page sends JSON, and shows the page an
//! answer only where the headers allow it. Nothing here keeps a request away: other clients send no origin, or any.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};
use http_body_util::{Either, Full};

use super::{answer, server::PlaneBody};
use crate::fault::ErrorCode;

/// What a page may do.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
/// The headers of answers that a page may read, beside the few that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("inference-header-content-length, retry-after");
/// How long a browser may keep the answer to a preflight: two hours, the most that one of them takes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins that may ask.
#[derive(Debug, Clone)]
pub struct Cors {
    /// `None`: all.
    origins: Option<Vec<HeaderValue>>,
}

/// Whether `text` is `*`, or an origin as browsers send it: a scheme and a host in lower case, a port where it is not the
/// scheme's own, and no path.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let is_in_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
    text == "*"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && is_scheme(scheme) && !host.is_empty() && host.bytes().all(is_in_host)
        })
}

impl Cors {
    /// `None` where nobody may ask.
    #[must_use]
    pub fn new(origins: &[String]) -> Option<Self> {
        if origins.iter().any(|origin| origin == "*") {
            return Some(Self { origins: None });
        }
        let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        (!origins.is_empty()).then_some(Self { origins: Some(origins) })
    }

    /// What `door` answers, with what a browser needs; to a preflight the answer is given here.
    pub(super) async fn answer<B, F>(
        &self,
        request: Request<B>,
        door: impl FnOnce(Request<B>) -> F,
    ) -> Response<PlaneBody>
    where
        F: Future<Output = Response<PlaneBody>>,
    {
        let origin = request.headers().get(ORIGIN).cloned();
        let is_preflight =
            request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let mut response = match &origin {
            Some(origin) if is_preflight => self.preflight(origin, request.headers()),
            _ => door(request).await,
        };
        self.mark(origin.as_ref(), response.headers_mut());
        response
    }

    fn preflight(&self, origin: &HeaderValue, asked: &HeaderMap) -> Response<PlaneBody> {
        if self.allowed(origin).is_none() {
            return answer::error(ErrorCode::PermissionDenied, "web pages of this origin may not ask here");
        }
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            headers.append(VARY, ACCESS_CONTROL_REQUEST_HEADERS.into());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        response
    }

    fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.origins.is_some() {
            // Also where there is no origin: a cache must not give that answer to a page.
            headers.append(VARY, ORIGIN.into());
        }
        if let Some(allowed) = origin.and_then(|origin| self.allowed(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// What an answer to a page of `origin` says of who may read it; `None` where the page may not.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => origins.contains(origin).then(|| origin.clone()),
        }
    }
}
