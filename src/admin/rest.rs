//! The REST door of the admin plane.

use std::error::Error;

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use serde::Serialize;

use super::{
    AdminError, AdminRequest, AdminService, events, openapi,
    wire::{self, ErrorBody},
};
use crate::{fault::Fault, protocol::http::server::PlaneBody, registry::RolloutStatus};

/// Says that an answer is that of an earlier request with the same idempotency key.
pub(super) const REPLAYED_HEADER: &str = "idempotency-replayed";
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Answers REST requests through an [`AdminService`].
#[derive(Clone)]
pub struct RestDoor {
    service: AdminService,
}

impl RestDoor {
    #[must_use]
    pub fn new(service: AdminService) -> Self {
        Self { service }
    }

    /// Answers one request. The peer's `SocketAddr` is expected in its extensions.
    pub(crate) async fn handle<B>(&self, request: Request<B>) -> Response<PlaneBody>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.answer(request).await.unwrap_or_else(|error| refusal(&error).map(Either::Left))
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<PlaneBody>, AdminError>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let has_body = head.method != Method::GET && head.method != Method::HEAD;
        let body = if has_body { read(body).await? } else { Bytes::new() };
        self.execute(AdminRequest::parse(&head, &body)?).await
    }

    async fn execute(&self, request: AdminRequest) -> Result<Response<PlaneBody>, AdminError> {
        let answer = match request {
            AdminRequest::Endpoints => json(StatusCode::OK, &Index::new()),
            AdminRequest::OpenApi => json(StatusCode::OK, &openapi::document()),
            AdminRequest::Events(filter) => return Ok(events::answer(self.service.follow(filter)?)),
            AdminRequest::RepositoryIndex { only_ready } => {
                json(StatusCode::OK, &wire::repository_index(&self.service.models().await?, only_ready))
            }
            AdminRequest::RepositoryLoad { model, options } => {
                self.service.load_model(model, options).await?;
                json(StatusCode::OK, &Done {})
            }
            AdminRequest::RepositoryUnload { model, options } => {
                self.service.unload_model(model, options).await?;
                json(StatusCode::OK, &Done {})
            }
            AdminRequest::LogSettings => json(StatusCode::OK, &self.service.log_settings()),
            AdminRequest::ChangeLogSettings { change, actor } => {
                json(StatusCode::OK, &self.service.change_log_settings(&change, &actor))
            }
            AdminRequest::Models => {
                let models = self.service.models().await?.iter().map(wire::ModelStatus::from).collect();
                json(StatusCode::OK, &wire::ModelList { models, warnings: self.service.warnings() })
            }
            AdminRequest::Model(model) => {
                json(StatusCode::OK, &wire::ModelStatus::from(&self.service.model(model).await?))
            }
            AdminRequest::Load { model, version, options } => {
                json(StatusCode::OK, &wire::VersionStatus::from(&self.service.load(model, version, options).await?))
            }
            AdminRequest::Unload { model, version, options } => {
                json(StatusCode::OK, &wire::VersionStatus::from(&self.service.unload(model, version, options).await?))
            }
            AdminRequest::Change { model, change, options } => {
                let changed = self.service.change(model, change, options).await?;
                replayed(json(StatusCode::OK, &wire::Release::from(&changed)), changed.is_repeated)
            }
            AdminRequest::Rollout(model) => {
                json(StatusCode::OK, &wire::RolloutStatus::from(&self.service.rollout(model).await?))
            }
            AdminRequest::StartRollout { model, ask, options } => {
                rollout(&self.service.start_rollout(model, ask, options).await?)
            }
            AdminRequest::ChangeRollout { model, change, options } => {
                rollout(&self.service.change_rollout(model, change, options).await?)
            }
            AdminRequest::History { model, limit, verify } => {
                let (entries, verification) = self.service.history(model.clone(), limit, verify).await?;
                json(StatusCode::OK, &wire::History::new(&model, &entries, verification.as_ref()))
            }
            AdminRequest::Drift { model, query } => {
                json(StatusCode::OK, &wire::DriftReport::from(&self.service.drift(model, query).await?))
            }
            AdminRequest::DriftSelfTest { model, version, window } => {
                let test = self.service.drift_self_test(model, version, window).await?;
                json(StatusCode::OK, &wire::DriftSelfTest::from(&test))
            }
        };
        Ok(answer.map(Either::Left))
    }
}

fn rollout(status: &RolloutStatus) -> Response<Full<Bytes>> {
    replayed(json(StatusCode::OK, &wire::RolloutStatus::from(status)), status.is_repeated)
}

/// Marks an answer to a change that an earlier request has made.
fn replayed(mut response: Response<Full<Bytes>>, is_repeated: bool) -> Response<Full<Bytes>> {
    if is_repeated {
        response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    response
}

/// Triton's answer to a load or an unload.
#[derive(Serialize)]
struct Done {}

/// What `GET /` answers.
#[derive(Serialize)]
struct Index {
    name: &'static str,
    version: &'static str,
    endpoints: Vec<String>,
}

impl Index {
    fn new() -> Self {
        Self { name: "tidegate", version: env!("CARGO_PKG_VERSION"), endpoints: openapi::endpoints() }
    }
}

async fn read<B>(body: B) -> Result<Bytes, AdminError>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AdminError::TooLarge(MAX_BODY_BYTES)),
        Err(error) => Err(AdminError::BadRequest(format!("the request body ended early: {error}"))),
    }
}

fn refusal(error: &AdminError) -> Response<Full<Bytes>> {
    if let AdminError::Crashed(cause) = error {
        tracing::error!(%cause, "an admin operation ended without an answer");
    }
    let mut response = json(error.code().http(), &ErrorBody { error: error.message() });
    if let AdminError::Method { allow, .. } = error {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = error.code().retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("wire types have text keys and no failing serializer");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response<Full<Bytes>>) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn body_above_the_limit_is_too_large() {
        let error = read(Full::new(Bytes::from(vec![b' '; MAX_BODY_BYTES + 1]))).await.unwrap_err();
        assert_eq!(refusal(&error).status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Full::new(Bytes::from(vec![b' '; MAX_BODY_BYTES]))).await.unwrap().len(), MAX_BODY_BYTES);
    }

    #[tokio::test]
    async fn wrong_method_is_refused_with_the_right_ones() {
        let response = refusal(&AdminError::Method { method: "PATCH".to_owned(), allow: "PUT, DELETE" });
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "PUT, DELETE");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(text(response).await, r#"{"error":"PATCH is not possible here: use PUT, DELETE"}"#);
    }

    #[tokio::test]
    async fn crashed_operation_hides_its_cause() {
        let cause = tokio::spawn(async { panic!("secret") }).await.unwrap_err();
        let response = refusal(&AdminError::Crashed(cause));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!text(response).await.contains("secret"));
    }

    #[tokio::test]
    async fn root_lists_the_endpoints() {
        let listed = text(json(StatusCode::OK, &Index::new())).await;
        assert!(listed.contains("GET /admin/v1/models/{model}"), "{listed}");
    }
}
