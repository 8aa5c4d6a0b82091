//! The calls of `inference.GRPCInferenceService`.

use std::sync::Arc;

use http::HeaderMap;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};

use super::{convert, wire};
use crate::{
    domain::{Protocol, TensorSpec},
    fault::{ErrorCode, Fault},
    gateway::ModelView,
    proto::inference::{
        ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
        ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
        grpc_inference_service_server::GrpcInferenceService, model_metadata_response::TensorMetadata,
    },
    protocol::{
        EXTENSIONS, PLATFORM, ROUTING_KEY_HEADER, SERVER_NAME, data_plane::DataPlane, model_config, naming,
        refusal::Refusal, trace,
    },
};

/// The gRPC door of one gateway.
pub(super) struct Inference<D> {
    gateway: Arc<D>,
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
        self.infer(headers, message, &span).instrument(span.clone()).await.map(Response::new)
    }
}

impl<D: DataPlane> Inference<D> {
    pub(super) fn new(gateway: Arc<D>) -> Self {
        Self { gateway }
    }

    async fn infer(
        &self,
        headers: &HeaderMap,
        mut message: ModelInferRequest,
        span: &Span,
    ) -> Result<ModelInferResponse, Status> {
        // The name is needed once more when the rest is refused.
        let name = std::mem::take(&mut message.model_name);
        let request = routing_key(headers).and_then(|key| convert::request(&name, message, key));
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
        Ok(convert::response(&reply))
    }

    fn view(&self, name: &str, version: &str) -> Result<ModelView, (ErrorCode, Status)> {
        let named = naming::model(name).and_then(|name| Ok((name, naming::target(version)?)));
        let (name, target) = named.map_err(|refusal| {
            self.gateway.refuse(Some(name), Protocol::Grpc, refusal.code());
            (refusal.code(), wire::status(&refusal))
        })?;
        self.gateway.model(&name, &target).map_err(|fault| (fault.code(), wire::status(&fault)))
    }
}

fn routing_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(ROUTING_KEY_HEADER) else { return Ok(None) };
    let key = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Refusal::bad_request(format!("the metadata {ROUTING_KEY_HEADER} is not UTF-8 text")))?;
    Ok((!key.is_empty()).then(|| key.to_owned()))
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
