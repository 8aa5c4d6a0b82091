//! The gRPC door of the admin plane.

mod convert;

use std::{borrow::Cow, net::SocketAddr, pin::Pin, time::Duration};

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, metadata::MetadataValue, service::Routes};

use super::{
    AdminError, AdminService, EventFilter, RolloutChange,
    request::{ACTOR_HEADER, KEY_HEADER},
    rest::REPLAYED_HEADER,
    value, wire as json,
};
use crate::{
    domain::Version,
    fault::Fault,
    monitor::DriftQuery,
    proto::{self, admin as wire, admin::admin_service_server},
    registry::ChangeOptions,
    release::{Change, Split},
};

const SERVICE: &str = "tidegate.admin.v1.AdminService";
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The admin service and gRPC reflection.
#[must_use]
pub fn routes(service: AdminService) -> Routes {
    let admin = admin_service_server::AdminServiceServer::new(GrpcDoor { service })
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    with_reflection(Routes::new(admin)).prepare()
}

fn with_reflection(routes: Routes) -> Routes {
    routes
        .add_service(reflection().build_v1().expect("the descriptors are made by our own build"))
        .add_service(reflection().build_v1alpha().expect("the descriptors are made by our own build"))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .with_service_name(SERVICE)
}

/// Answers gRPC calls through an [`AdminService`].
struct GrpcDoor {
    service: AdminService,
}

impl GrpcDoor {
    async fn change(
        &self,
        model: &str,
        change: Change,
        options: ChangeOptions,
    ) -> Result<Response<wire::Release>, Status> {
        let model = value::model(model).map_err(status)?;
        let changed = self.service.change(model, change, options).await.map_err(status)?;
        Ok(replayed(wire::Release::from(&changed), changed.is_repeated))
    }

    async fn change_rollout(
        &self,
        request: Request<wire::RolloutRequest>,
        change: RolloutChange,
    ) -> Result<Response<wire::Rollout>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let rollout = self.service.change_rollout(model, change, options).await.map_err(status)?;
        Ok(replayed(wire::Rollout::from(&rollout), rollout.is_repeated))
    }
}

#[tonic::async_trait]
impl admin_service_server::AdminService for GrpcDoor {
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<wire::Event, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let wire::WatchEventsRequest { model, topic } = request.get_ref();
        let given = |text: &str| !text.is_empty();
        let model =
            Some(model).filter(|text| given(text)).map(|text| value::model(text)).transpose().map_err(status)?;
        let topic =
            Some(topic).filter(|text| given(text)).map(|text| value::topic(text)).transpose().map_err(status)?;
        let told = self.service.follow(EventFilter { model, topic }).map_err(status)?;
        // gRPC has its own word for a connection that is alive.
        Ok(Response::new(Box::pin(told.filter_map(|told| wire::Event::of(&told).map(Ok)))))
    }

    async fn list_models(
        &self,
        _request: Request<wire::ListModelsRequest>,
    ) -> Result<Response<wire::ListModelsResponse>, Status> {
        let models = self.service.models().await.map_err(status)?;
        let models = models.iter().map(wire::ModelStatus::from).collect();
        Ok(Response::new(wire::ListModelsResponse { models, warnings: self.service.warnings() }))
    }

    async fn get_model(&self, request: Request<wire::GetModelRequest>) -> Result<Response<wire::ModelStatus>, Status> {
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let model = self.service.model(model).await.map_err(status)?;
        Ok(Response::new(wire::ModelStatus::from(&model)))
    }

    async fn forget_model(&self, request: Request<wire::ClearRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        self.change(&request.get_ref().model, Change::Forget, options).await
    }

    async fn load_version(
        &self,
        request: Request<wire::LoadVersionRequest>,
    ) -> Result<Response<wire::VersionStatus>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let version = value::version(request.get_ref().version).map_err(status)?;
        let wire::LoadVersionRequest { allow_signature_change, accept_changed, .. } = *request.get_ref();
        let options = ChangeOptions { allow_signature_change, accept_changed, ..options };
        let version = self.service.load(model, version, options).await.map_err(status)?;
        Ok(Response::new(wire::VersionStatus::from(&version)))
    }

    async fn unload_version(
        &self,
        request: Request<wire::VersionRequest>,
    ) -> Result<Response<wire::VersionStatus>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let version = value::version(request.get_ref().version).map_err(status)?;
        let version = self.service.unload(model, version, options).await.map_err(status)?;
        Ok(Response::new(wire::VersionStatus::from(&version)))
    }

    async fn promote(&self, request: Request<wire::PromoteRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let version = value::version(request.get_ref().version).map_err(status)?;
        let options = ChangeOptions { strict: request.get_ref().strict, ..options };
        self.change(&request.get_ref().model, Change::Promote(version), options).await
    }

    async fn rollback(&self, request: Request<wire::RollbackRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let to = Some(request.get_ref().to).filter(|to| *to > 0).map(value::version).transpose().map_err(status)?;
        self.change(&request.get_ref().model, Change::Rollback(to), options).await
    }

    async fn set_canary(&self, request: Request<wire::SplitRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let split = split(request.get_ref()).map_err(status)?;
        self.change(&request.get_ref().model, Change::SetCanary(split), options).await
    }

    async fn clear_canary(&self, request: Request<wire::ClearRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        self.change(&request.get_ref().model, Change::ClearCanary, options).await
    }

    async fn set_shadow(&self, request: Request<wire::SplitRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let split = split(request.get_ref()).map_err(status)?;
        self.change(&request.get_ref().model, Change::SetShadow(split), options).await
    }

    async fn clear_shadow(&self, request: Request<wire::ClearRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        self.change(&request.get_ref().model, Change::ClearShadow, options).await
    }

    async fn set_label(&self, request: Request<wire::LabelRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let label = value::label(&request.get_ref().label).map_err(status)?;
        let version = value::version(request.get_ref().version).map_err(status)?;
        self.change(&request.get_ref().model, Change::SetLabel(label, version), options).await
    }

    async fn clear_label(&self, request: Request<wire::LabelRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let label = value::label(&request.get_ref().label).map_err(status)?;
        self.change(&request.get_ref().model, Change::ClearLabel(label), options).await
    }

    async fn start_rollout(
        &self,
        request: Request<wire::StartRolloutRequest>,
    ) -> Result<Response<wire::Rollout>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let request = request.into_inner();
        let model = value::model(&request.model).map_err(status)?;
        let ask = value::rollout(&json::RolloutBody::from(request)).map_err(status)?;
        let rollout = self.service.start_rollout(model, ask, options).await.map_err(status)?;
        Ok(replayed(wire::Rollout::from(&rollout), rollout.is_repeated))
    }

    async fn get_rollout(&self, request: Request<wire::GetRolloutRequest>) -> Result<Response<wire::Rollout>, Status> {
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let rollout = self.service.rollout(model).await.map_err(status)?;
        Ok(Response::new(wire::Rollout::from(&rollout)))
    }

    async fn pause_rollout(&self, request: Request<wire::RolloutRequest>) -> Result<Response<wire::Rollout>, Status> {
        self.change_rollout(request, RolloutChange::Pause).await
    }

    async fn resume_rollout(&self, request: Request<wire::RolloutRequest>) -> Result<Response<wire::Rollout>, Status> {
        self.change_rollout(request, RolloutChange::Resume).await
    }

    async fn abort_rollout(&self, request: Request<wire::RolloutRequest>) -> Result<Response<wire::Rollout>, Status> {
        self.change_rollout(request, RolloutChange::Abort).await
    }

    async fn get_history(
        &self,
        request: Request<wire::GetHistoryRequest>,
    ) -> Result<Response<wire::GetHistoryResponse>, Status> {
        let request = request.into_inner();
        let limit = Some(u64::from(request.limit)).filter(|limit| *limit > 0);
        let limit = value::history_limit(limit).map_err(status)?;
        let model = value::model(&request.model).map_err(status)?;
        let (entries, verification) = self.service.history(model, limit, request.verify).await.map_err(status)?;
        let entries = entries.iter().map(wire::HistoryEntry::from).collect();
        let verification = verification.as_ref().map(wire::Verification::from);
        Ok(Response::new(wire::GetHistoryResponse { entries, verification }))
    }

    async fn get_drift(&self, request: Request<wire::GetDriftRequest>) -> Result<Response<wire::DriftReport>, Status> {
        let request = request.into_inner();
        let model = value::model(&request.model).map_err(status)?;
        let (version, window) = version_and_window(request.version, &request.window).map_err(status)?;
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let against = text(request.against).map(|text| value::against(&text)).transpose().map_err(status)?;
        let segment = text(request.segment).map(|text| value::segment(&text)).transpose().map_err(status)?;
        let query = DriftQuery { version, window, against: against.unwrap_or_default(), segment };
        let query = value::drift_query(query).map_err(status)?;
        let report = self.service.drift(model, query).await.map_err(status)?;
        Ok(Response::new(wire::DriftReport::from(&report)))
    }

    async fn get_drift_self_test(
        &self,
        request: Request<wire::GetDriftSelfTestRequest>,
    ) -> Result<Response<wire::DriftSelfTest>, Status> {
        let request = request.into_inner();
        let model = value::model(&request.model).map_err(status)?;
        let (version, window) = version_and_window(request.version, &request.window).map_err(status)?;
        let test = self.service.drift_self_test(model, version, window).await.map_err(status)?;
        Ok(Response::new(wire::DriftSelfTest::from(&test)))
    }
}

/// What is absent as 0 or as an empty text.
fn version_and_window(version: u64, window: &str) -> Result<(Option<Version>, Option<Duration>), AdminError> {
    let version = Some(version).filter(|version| *version > 0).map(value::version).transpose()?;
    let window = Some(window).filter(|window| !window.is_empty()).map(value::window).transpose()?;
    Ok((version, window))
}

fn split(request: &wire::SplitRequest) -> Result<Split, AdminError> {
    Ok(Split { version: value::version(request.version)?, percent: value::percent(request.percent)? })
}

/// An answer, marked when an earlier request has made the change.
fn replayed<T>(answer: T, is_repeated: bool) -> Response<T> {
    let mut response = Response::new(answer);
    if is_repeated {
        response.metadata_mut().insert(REPLAYED_HEADER, MetadataValue::from_static("true"));
    }
    response
}

/// The options of a change. The actor is the message's, or else the metadata's, or else the peer.
fn options<T>(request: &Request<T>, options: Option<&wire::ChangeOptions>) -> Result<ChangeOptions, AdminError> {
    let given = options.cloned().unwrap_or_default();
    let metadata = |name| request.metadata().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let actor = match (given.actor.as_str(), metadata(ACTOR_HEADER)) {
        ("", None) => peer(request),
        // What is no UTF-8 cannot be kept as it is.
        ("", Some(Cow::Owned(actor))) => {
            return Err(AdminError::BadRequest(format!(
                "the actor '{}' is refused: it is not UTF-8",
                value::shown(&actor)
            )));
        }
        ("", Some(actor)) => value::actor(&actor)?,
        (actor, _) => value::actor(actor)?,
    };
    let own = Some(given.idempotency_key).filter(|key| !key.is_empty());
    let key = own.or_else(|| metadata(KEY_HEADER).map(Cow::into_owned));
    Ok(ChangeOptions {
        dry_run: given.dry_run,
        if_generation: given.if_generation,
        reason: value::reason(Some(given.reason))?,
        actor,
        idempotency_key: key.as_deref().map(value::idempotency_key).transpose()?,
        evict_previous: given.evict_previous,
        // A load and a promotion say theirs beside their options.
        allow_signature_change: false,
        accept_changed: false,
        strict: false,
    })
}

fn peer<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<SocketAddr>().copied().or_else(|| request.remote_addr());
    peer.map_or_else(|| "anonymous".to_owned(), |peer| peer.ip().to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn status(error: AdminError) -> Status {
    if let AdminError::Crashed(cause) = &error {
        tracing::error!(%cause, "an admin operation ended without an answer");
    }
    error.to_status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_has_descriptors_that_it_can_read() {
        assert!(reflection().build_v1().is_ok());
        assert!(reflection().build_v1alpha().is_ok());
    }

    #[test]
    fn actor_is_the_messages_or_the_metadatas_or_the_peer() {
        let mut request = Request::new(());
        assert_eq!(options(&request, None).unwrap().actor, "anonymous");
        request.extensions_mut().insert(SocketAddr::from(([10, 0, 0, 7], 4711)));
        assert_eq!(options(&request, None).unwrap().actor, "10.0.0.7");
        request.metadata_mut().insert(ACTOR_HEADER, "ci".parse().unwrap());
        assert_eq!(options(&request, None).unwrap().actor, "ci");
        let given = wire::ChangeOptions { actor: "ada".to_owned(), ..Default::default() };
        assert_eq!(options(&request, Some(&given)).unwrap().actor, "ada");
    }

    #[test]
    fn options_keep_the_precondition_and_the_reason() {
        let given = wire::ChangeOptions {
            dry_run: true,
            if_generation: Some(0),
            reason: "better".to_owned(),
            ..wire::ChangeOptions::default()
        };
        let options = options(&Request::new(()), Some(&given)).unwrap();
        assert!(options.dry_run);
        assert_eq!((options.if_generation, options.reason.as_deref()), (Some(0), Some("better")));
    }

    #[test]
    fn split_outside_the_range_is_an_invalid_argument() {
        for (version, percent) in [(0, 10.0), (1, 100.5), (1, f64::NAN)] {
            let request = wire::SplitRequest { version, percent, ..Default::default() };
            assert_eq!(status(split(&request).unwrap_err()).code(), tonic::Code::InvalidArgument);
        }
    }
}
