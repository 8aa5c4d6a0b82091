//! The gRPC door of the admin plane.

mod convert;

use std::net::SocketAddr;

use tonic::{Request, Response, Status, service::Routes};

use super::{AdminError, AdminService, request::ACTOR_HEADER, value};
use crate::{
    fault::Fault,
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
        let release = self.service.change(model, change, options).await.map_err(status)?;
        Ok(Response::new(wire::Release::from(&release)))
    }
}

#[tonic::async_trait]
impl admin_service_server::AdminService for GrpcDoor {
    async fn list_models(
        &self,
        _request: Request<wire::ListModelsRequest>,
    ) -> Result<Response<wire::ListModelsResponse>, Status> {
        let models = self.service.models().await.map_err(status)?;
        Ok(Response::new(wire::ListModelsResponse { models: models.iter().map(wire::ModelStatus::from).collect() }))
    }

    async fn get_model(&self, request: Request<wire::GetModelRequest>) -> Result<Response<wire::ModelStatus>, Status> {
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let model = self.service.model(model).await.map_err(status)?;
        Ok(Response::new(wire::ModelStatus::from(&model)))
    }

    async fn load_version(
        &self,
        request: Request<wire::LoadVersionRequest>,
    ) -> Result<Response<wire::VersionStatus>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        let model = value::model(&request.get_ref().model).map_err(status)?;
        let version = value::version(request.get_ref().version).map_err(status)?;
        let is_allowed = request.get_ref().allow_signature_change;
        let version = self.service.load(model, version, is_allowed, options).await.map_err(status)?;
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
        self.change(&request.get_ref().model, Change::Promote(version), options).await
    }

    async fn rollback(&self, request: Request<wire::RollbackRequest>) -> Result<Response<wire::Release>, Status> {
        let options = options(&request, request.get_ref().options.as_ref()).map_err(status)?;
        self.change(&request.get_ref().model, Change::Rollback, options).await
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

    async fn get_history(
        &self,
        request: Request<wire::GetHistoryRequest>,
    ) -> Result<Response<wire::GetHistoryResponse>, Status> {
        let request = request.into_inner();
        let limit = Some(u64::from(request.limit)).filter(|limit| *limit > 0);
        let limit = value::history_limit(limit).map_err(status)?;
        let model = value::model(&request.model).map_err(status)?;
        let entries = self.service.history(model, limit).await.map_err(status)?;
        Ok(Response::new(wire::GetHistoryResponse { entries: entries.iter().map(wire::HistoryEntry::from).collect() }))
    }

    async fn get_drift(&self, request: Request<wire::GetDriftRequest>) -> Result<Response<wire::DriftReport>, Status> {
        let request = request.into_inner();
        let model = value::model(&request.model).map_err(status)?;
        let version = Some(request.version).filter(|version| *version > 0);
        let version = version.map(value::version).transpose().map_err(status)?;
        let window = Some(request.window.as_str()).filter(|window| !window.is_empty());
        let window = window.map(value::window).transpose().map_err(status)?;
        let report = self.service.drift(model, version, window).await.map_err(status)?;
        Ok(Response::new(wire::DriftReport::from(&report)))
    }
}

fn split(request: &wire::SplitRequest) -> Result<Split, AdminError> {
    Ok(Split { version: value::version(request.version)?, percent: value::percent(request.percent)? })
}

/// The options of a change. The actor is the message's, or else the metadata's, or else the peer.
fn options<T>(request: &Request<T>, options: Option<&wire::ChangeOptions>) -> Result<ChangeOptions, AdminError> {
    let given = options.cloned().unwrap_or_default();
    let metadata = request.metadata().get(ACTOR_HEADER).map(|actor| actor.to_str().unwrap_or_default());
    let actor = match (given.actor.as_str(), metadata) {
        ("", None) => peer(request),
        ("", Some(actor)) | (actor, _) => value::actor(actor)?,
    };
    Ok(ChangeOptions {
        dry_run: given.dry_run,
        if_generation: given.if_generation,
        reason: value::reason(Some(given.reason))?,
        actor,
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
            actor: String::new(),
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
