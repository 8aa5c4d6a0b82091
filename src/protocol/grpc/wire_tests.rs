//! Tests of the gRPC door over real connections, with a stand-in behind it.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    fault::ErrorCode,
    proto::inference::{
        InferTensorContents, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest,
        ServerMetadataRequest, ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    protocol::{
        BodyBudget, DoorOptions, EXTENSIONS,
        stand_in::{self, StandIn},
    },
};

pub(super) const LIMIT: usize = 1 << 20;

pub(super) struct Plane {
    pub(super) gateway: Arc<StandIn>,
    pub(super) budget: Arc<BodyBudget>,
    pub(super) channel: Channel,
    address: std::net::SocketAddr,
    pub(super) shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Plane {
    pub(super) async fn start() -> Self {
        Self::start_with(stand_in::options(LIMIT)).await
    }

    /// A plane on which all bodies together may have `bytes`.
    pub(super) async fn with_budget(bytes: usize) -> Self {
        Self::start_with(DoorOptions { budget: BodyBudget::new(bytes), ..stand_in::options(LIMIT) }).await
    }

    async fn start_with(options: DoorOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gateway, shutdown) = (Arc::new(StandIn::default()), CancellationToken::new());
        let budget = Arc::clone(&options.budget);
        let served = tokio::spawn(super::serve(listener.into(), Arc::clone(&gateway), options, shutdown.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { gateway, budget, channel, address, shutdown, served }
    }

    pub(super) fn client(&self) -> GrpcInferenceServiceClient<Channel> {
        GrpcInferenceServiceClient::new(self.channel.clone())
    }

    async fn infer_fails(&self, message: ModelInferRequest) -> Status {
        self.client().model_infer(message).await.unwrap_err()
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(10), self.served).await.unwrap().unwrap();
    }
}

pub(super) fn raw(model: &str, bytes: usize) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "UINT8".into(),
        shape: vec![i64::try_from(bytes).unwrap()],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.into(),
        id: "r1".into(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from(vec![7; bytes])],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn server_and_models_tell_about_themselves() {
    let plane = Plane::start().await;
    let mut client = plane.client();
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((server.name.as_str(), server.extensions), ("tidegate", EXTENSIONS.map(String::from).to_vec()));
    let model = ModelMetadataRequest { name: "echo".into(), version: "1".into() };
    let model = client.model_metadata(model).await.unwrap().into_inner();
    assert_eq!((model.platform.as_str(), model.versions), ("onnxruntime_onnx", vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!((model.inputs[0].datatype.as_str(), &model.inputs[0].shape), ("FP32", &vec![-1, 3]));

    for (name, version, ready) in [
        ("echo", "", Ok(true)),
        ("echo", "champion", Ok(true)),
        ("loading", "", Ok(false)),
        ("nobody", "", Ok(false)),
        ("../etc", "", Ok(false)),
        ("", "", Err(Code::InvalidArgument)),
        ("echo", "0", Err(Code::InvalidArgument)),
    ] {
        let asked = ModelReadyRequest { name: name.into(), version: version.into() };
        let answer = client.model_ready(asked).await;
        assert_eq!(answer.map(|answer| answer.into_inner().ready).map_err(|status| status.code()), ready, "{name}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn inference_is_answered_with_raw_contents() {
    let plane = Plane::start().await;
    let answer = plane.client().model_infer(raw("echo", 3)).await.unwrap().into_inner();
    assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("r1", "2"));
    assert_eq!(answer.raw_output_contents, [Bytes::from_static(&[7, 7, 7])]);

    let mut typed = raw("echo", 2);
    typed.raw_input_contents.clear();
    typed.inputs[0].contents =
        Some(InferTensorContents { uint_contents: vec![1, 2], ..InferTensorContents::default() });
    let mut request = Request::new(typed);
    request.metadata_mut().insert("tidegate-routing-key", "k".parse().unwrap());
    let mut compressing = plane.client().send_compressed(CompressionEncoding::Gzip);
    let answer = compressing.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, [Bytes::from_static(&[1, 2])]);
    assert_eq!(plane.gateway.last_request().routing_key.as_deref(), Some("k"));
    plane.stop().await;
}

#[tokio::test]
async fn fault_has_the_code_of_the_contract() {
    let plane = Plane::start().await;
    for (model, code, message) in [
        ("nobody", Code::NotFound, "model 'nobody' is unknown"),
        ("busy", Code::ResourceExhausted, "too many requests are waiting"),
        ("loading", Code::Unavailable, "model 'loading' is not ready"),
        ("", Code::InvalidArgument, "the request names no model"),
        ("panic", Code::Internal, "the gateway failed on this request"),
    ] {
        let status = plane.infer_fails(raw(model, 1)).await;
        assert_eq!((status.code(), status.message()), (code, message));
    }
    let mut short = raw("echo", 1);
    short.inputs[0].shape = vec![2];
    let status = plane.infer_fails(short).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "input 'x': the shape [2] of UINT8 needs 2 bytes, got 1");
    assert_eq!(
        plane.gateway.refusals(),
        [(Some(String::new()), ErrorCode::BadRequest), (Some("echo".into()), ErrorCode::BadRequest)]
    );
    plane.stop().await;
}

#[tokio::test]
async fn message_over_the_limit_is_refused_by_its_length_and_by_what_it_inflates_to() {
    let plane = Plane::start().await;
    plane.client().model_infer(raw("echo", LIMIT - 100)).await.unwrap();
    for mut client in [plane.client(), plane.client().send_compressed(CompressionEncoding::Gzip)] {
        let status = client.model_infer(raw("echo", 2 * LIMIT)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "the request is larger than the limit of 1048576 bytes");
    }
    assert_eq!(plane.gateway.refusals(), vec![(None, ErrorCode::TooLarge); 2]);
    plane.stop().await;
}

/// A request whose tensor cannot be compressed.
pub(super) fn noise(model: &str, bytes: usize) -> ModelInferRequest {
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let noise = (0..bytes).map(|_| byte()).collect::<Vec<u8>>();
    ModelInferRequest { raw_input_contents: vec![noise.into()], ..raw(model, bytes) }
}

#[tokio::test]
async fn compressed_call_takes_room_for_what_it_inflates_to_until_it_is_answered() {
    let plane = Plane::with_budget(50_000).await;
    let compressing = || plane.client().send_compressed(CompressionEncoding::Gzip);
    let mut client = compressing();
    let call = tokio::spawn(async move { client.model_infer(raw("slow", 30_000)).await });
    plane.gateway.begun.notified().await;
    assert!((30_000..31_000).contains(&plane.budget.used()), "{}", plane.budget.used());
    for mut client in [compressing(), plane.client()] {
        let status = client.model_infer(raw("echo", 30_000)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    }
    assert_eq!(plane.gateway.begun_requests(), 1);
    plane.gateway.let_go.notify_one();
    call.await.unwrap().unwrap();
    assert_eq!(plane.budget.used(), 0);
    compressing().model_infer(raw("echo", 30_000)).await.unwrap();
    // What could not even be read names no model.
    let refusals = [(Some("echo".into()), ErrorCode::Overloaded), (None, ErrorCode::Overloaded)];
    assert_eq!(plane.gateway.refusals(), refusals);
    plane.stop().await;
}

#[tokio::test]
async fn compressed_message_that_does_not_fit_is_refused_while_it_arrives() {
    let plane = Plane::with_budget(50_000).await;
    let mut client = plane.client().send_compressed(CompressionEncoding::Deflate);
    let status = client.model_infer(noise("echo", 60_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "too many bytes of requests are in flight: try again later");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert_eq!((plane.budget.used(), plane.gateway.begun_requests()), (0, 0));
    assert_eq!(plane.gateway.refusals(), [(None, ErrorCode::Overloaded)]);
    plane.stop().await;
}

#[tokio::test]
async fn message_that_is_not_protobuf_is_an_invalid_argument() {
    let plane = Plane::start().await;
    let mut client = tonic::client::Grpc::new(plane.channel.clone());
    client.ready().await.unwrap();
    let path = "/inference.GRPCInferenceService/ModelInfer".parse().unwrap();
    let garbage = Request::new(Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f"));
    let status = client.unary(garbage, path, BytesCodec).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("the message cannot be read: failed to decode"), "{status}");
    assert_eq!(plane.gateway.refusals(), [(None, ErrorCode::BadRequest)]);
    plane.stop().await;
}

#[tokio::test]
async fn health_follows_the_gateway_until_the_end() {
    let plane = Plane::start().await;
    let mut client = HealthClient::new(plane.channel.clone());
    let asked = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "inference.GRPCInferenceService"] {
        let answer = client.check(asked(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert_eq!(client.check(asked("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = client.watch(asked("nobody")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    let mut watch = client.watch(asked("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    plane.gateway.set_ready(false);
    assert_eq!(client.check(asked("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    plane.stop().await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none(), "a watch does not hold up the drain");
}

#[tokio::test]
async fn reflection_lists_what_this_plane_serves() {
    let plane = Plane::start().await;
    let mut client = ServerReflectionClient::new(plane.channel.clone());
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("inference.ModelInferRequest".into())),
        ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into())),
    ];
    let mut answers = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
    let listed = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("a list of services") };
    let names: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, super::SERVICES);
    for _ in 0..2 {
        let file = answers.message().await.unwrap().unwrap().message_response.unwrap();
        assert!(matches!(file, MessageResponse::FileDescriptorResponse(_)));
    }
    drop(answers);
    plane.stop().await;
}

#[tokio::test]
async fn request_that_is_not_grpc_is_told_so() {
    let plane = Plane::start().await;
    let mut stream = TcpStream::connect(plane.address).await.unwrap();
    stream.write_all(b"GET /v2 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks gRPC"), "{answer}");
    plane.stop().await;
}

#[tokio::test]
async fn shutdown_finishes_the_calls_that_had_begun() {
    let plane = Plane::start().await;
    let mut client = plane.client();
    let call = tokio::spawn(async move { client.model_infer(raw("slow", 1)).await });
    plane.gateway.begun.notified().await;
    plane.shutdown.cancel();
    tokio::task::yield_now().await;
    assert!(!plane.served.is_finished());
    plane.gateway.let_go.notify_one();
    assert_eq!(call.await.unwrap().unwrap().into_inner().id, "r1");
    plane.stop().await;
}

/// Sends bytes as they are, protobuf or not.
pub(super) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
