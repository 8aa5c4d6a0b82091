//! The calls of `inference.GRPCInferenceService`.

use std::sync::Arc;

use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span};

use super::{convert, extensions, stream::Answers, terms::CallTerms, wire};
use crate::{
    domain::{InferReply, ModelName, Protocol, Target, TensorSpec},
    fault::{ErrorCode, Fault},
    gateway::ModelView,
    proto::inference::{
        self as message, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
        ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest,
        ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
        grpc_inference_service_server::GrpcInferenceService, model_metadata_response::TensorMetadata,
    },
    protocol::{
        DoorOptions, EXTENSIONS, PLATFORM, SERVER_NAME,
        budget::BodyPermit,
        data_plane::DataPlane,
        elsewhere, model_config, naming,
        refusal::Refusal,
        settings::{log_is_read_only, trace_is_read_only},
        trace,
    },
};

/// The gRPC door of one gateway.
pub(super) struct Inference<D> {
    gateway: Arc<D>,
    options: DoorOptions,
    /// Ends the streams, which would otherwise hold up the drain.
    shutdown: CancellationToken,
}

impl<D> Clone for Inference<D> {
    fn clone(&self) -> Self {
        let Self { gateway, options, shutdown } = self;
        Self { gateway: Arc::clone(gateway), options: options.clone(), shutdown: shutdown.clone() }
    }
}

#[tonic::async_trait]
impl<D: DataPlane> GrpcInferenceService for Inference<D> {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.gateway.is_ready() }))
    }

    /// As Triton answers: what cannot serve now is not ready, and so is what does not exist.
    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = match self.view(&name, &version) {
            Ok(_) => true,
            Err((ErrorCode::Unavailable | ErrorCode::NotFound, _)) => false,
            Err((_, status)) => return Err(status),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: SERVER_NAME.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: EXTENSIONS.map(String::from).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let view = self.view(&name, &version).map_err(|(_, status)| status)?;
        Ok(Response::new(metadata(&view)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let view = self.view(&name, &version).map_err(|(_, status)| status)?;
        Ok(Response::new(ModelConfigResponse { config: Some(model_config::of(&view)) }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.as_ref();
        let span = trace::request_span(Protocol::Grpc, headers, &message.model_name);
        let (_room, terms) = self.make_room(&message, CallTerms::read(headers));
        let reply = self.infer(terms, message, &span).instrument(span.clone()).await?;
        Ok(Response::new(convert::response(&reply)))
    }

    type ModelStreamInferStream = Answers<D>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Answers<D>>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let (limit, shutdown) = (self.options.max_body_bytes, self.shutdown.clone());
        let answers = Answers::new(self.clone(), metadata.into_headers(), incoming, limit, shutdown);
        answers.map(Response::new).map_err(|refusal| self.refused(None, &refusal).1)
    }

    async fn model_statistics(
        &self,
        request: Request<message::ModelStatisticsRequest>,
    ) -> Result<Response<message::ModelStatisticsResponse>, Status> {
        let message::ModelStatisticsRequest { name, version } = request.into_inner();
        let all = if name.is_empty() {
            self.gateway.statistics(None, &Target::Release)
        } else {
            let (name, target) = self.named(&name, &version).map_err(|(_, status)| status)?;
            self.gateway.statistics(Some(&name), &target)
        };
        all.map(|all| Response::new(extensions::statistics(&all))).map_err(|fault| wire::status(&fault))
    }

    async fn repository_index(
        &self,
        request: Request<message::RepositoryIndexRequest>,
    ) -> Result<Response<message::RepositoryIndexResponse>, Status> {
        Ok(Response::new(extensions::index(self.gateway.index(), request.into_inner().ready)))
    }

    async fn trace_setting(
        &self,
        request: Request<message::TraceSettingRequest>,
    ) -> Result<Response<message::TraceSettingResponse>, Status> {
        let message::TraceSettingRequest { settings, model_name } = request.into_inner();
        if !settings.is_empty() {
            return Err(wire::status(&trace_is_read_only()));
        }
        if !model_name.is_empty() {
            self.view(&model_name, "").map_err(|(_, status)| status)?;
        }
        Ok(Response::new(extensions::trace_settings(self.options.settings.trace())))
    }

    async fn log_settings(
        &self,
        request: Request<message::LogSettingsRequest>,
    ) -> Result<Response<message::LogSettingsResponse>, Status> {
        if !request.into_inner().settings.is_empty() {
            return Err(wire::status(&log_is_read_only()));
        }
        Ok(Response::new(extensions::log_settings(&self.options.settings.log())))
    }

    async fn repository_model_load(
        &self,
        _: Request<message::RepositoryModelLoadRequest>,
    ) -> Result<Response<message::RepositoryModelLoadResponse>, Status> {
        Err(wire::status(&elsewhere::load_and_unload()))
    }

    async fn repository_model_unload(
        &self,
        _: Request<message::RepositoryModelUnloadRequest>,
    ) -> Result<Response<message::RepositoryModelUnloadResponse>, Status> {
        Err(wire::status(&elsewhere::load_and_unload()))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<message::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<message::SystemSharedMemoryStatusResponse>, Status> {
        Err(wire::status(&elsewhere::shared_memory()))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<message::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<message::SystemSharedMemoryRegisterResponse>, Status> {
        Err(wire::status(&elsewhere::shared_memory()))
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<message::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<message::SystemSharedMemoryUnregisterResponse>, Status> {
        Err(wire::status(&elsewhere::shared_memory()))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<message::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<message::CudaSharedMemoryStatusResponse>, Status> {
        Err(wire::status(&elsewhere::shared_memory()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<message::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<message::CudaSharedMemoryRegisterResponse>, Status> {
        Err(wire::status(&elsewhere::shared_memory()))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<message::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<message::CudaSharedMemoryUnregisterResponse>, Status> {
        Err(wire::status(&elsewhere::shared_memory()))
    }
}

impl<D: DataPlane> Inference<D> {
    pub(super) fn new(gateway: Arc<D>, options: DoorOptions, shutdown: CancellationToken) -> Self {
        Self { gateway, options, shutdown }
    }

    pub(super) fn shared_gateway(&self) -> Arc<D> {
        Arc::clone(&self.gateway)
    }

    pub(super) fn options(&self) -> &DoorOptions {
        &self.options
    }

    pub(super) fn gateway(&self) -> &D {
        &self.gateway
    }

    /// Room for a message that tonic has read, to be held until it is answered; without it, the
    /// terms of its call become the refusal.
    pub(super) fn make_room(
        &self,
        message: &ModelInferRequest,
        terms: Result<CallTerms, Refusal>,
    ) -> (Option<BodyPermit>, Result<CallTerms, Refusal>) {
        match self.options.budget.reserve(message.encoded_len()) {
            Ok(room) => (Some(room), terms),
            Err(refusal) => (None, Err(refusal)),
        }
    }

    /// Answers one request, alone on its call or one of a stream.
    pub(super) async fn infer(
        &self,
        terms: Result<CallTerms, Refusal>,
        mut message: ModelInferRequest,
        span: &Span,
    ) -> Result<InferReply, Status> {
        // The name is needed once more when the rest is refused.
        let name = std::mem::take(&mut message.model_name);
        let request = terms.and_then(|terms| convert::request(&name, message, terms));
        let request = request.map_err(|refusal| {
            trace::record_failure(span, refusal.code());
            self.gateway.refuse(Some(&name), Protocol::Grpc, refusal.code());
            wire::status(&refusal)
        })?;
        let reply = self.gateway.infer(request).await.map_err(|fault| {
            trace::record_failure(span, fault.code());
            wire::status(&fault)
        })?;
        trace::record_reply(span, &reply);
        Ok(reply)
    }

    fn view(&self, name: &str, version: &str) -> Result<ModelView, (ErrorCode, Status)> {
        let (name, target) = self.named(name, version)?;
        self.gateway.model(&name, &target).map_err(|fault| (fault.code(), wire::status(&fault)))
    }

    fn named(&self, name: &str, version: &str) -> Result<(ModelName, Target), (ErrorCode, Status)> {
        let named = naming::model(name).and_then(|name| Ok((name, naming::target(version)?)));
        named.map_err(|refusal| self.refused(Some(name), &refusal))
    }

    /// Counts a refusal, and answers it.
    fn refused(&self, model: Option<&str>, refusal: &Refusal) -> (ErrorCode, Status) {
        self.gateway.refuse(model, Protocol::Grpc, refusal.code());
        (refusal.code(), wire::status(refusal))
    }
}

fn metadata(view: &ModelView) -> ModelMetadataResponse {
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.to_string(),
        shape: spec.wire_shape(),
    };
    ModelMetadataResponse {
        name: view.name.to_string(),
        versions: view.versions.iter().map(ToString::to_string).collect(),
        platform: PLATFORM.into(),
        inputs: view.signature.inputs.iter().map(tensor).collect(),
        outputs: view.signature.outputs.iter().map(tensor).collect(),
        properties: std::collections::HashMap::default(),
    }
}
