//! Spans, as a real OTLP receiver gets them.

use std::{net::SocketAddr, sync::mpsc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use serde_json::json;
use tidegate::proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
};

use crate::{
    harness::{Gateway, PATIENCE, Repository},
    onnx,
};

struct Receiver(mpsc::Sender<Span>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in spans.flat_map(|scope| scope.spans) {
            let _ = self.0.send(span);
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn receiver() -> (SocketAddr, mpsc::Receiver<Span>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, spans) = mpsc::channel();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Receiver(sender)))
            .serve_with_incoming(incoming),
    );
    (address, spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// The spans of one trace: the request and the run in it.
fn trace(spans: &mpsc::Receiver<Span>, id: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while found.len() < 2 {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let span = spans.recv_timeout(left.max(Duration::from_millis(1))).expect("the spans of the request");
        if hex(&span.trace_id) == id {
            found.push(span);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_carry_the_callers_context_over_both_protocols() {
    let (address, spans) = receiver().await;
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start_with(&repository, |command| {
        command
            .env("TIDEGATE_TELEMETRY__OTLP_ENDPOINT", format!("http://{address}"))
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    });
    let (http_trace, grpc_trace) = ("0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319d");
    let parent = "b7ad6b7169203331";

    let url = format!("http://{}/v2/models/m/infer", gateway.addresses.http);
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]});
    let body = json!({"id": "traced", "inputs": [input]}).to_string();
    tokio::task::spawn_blocking(move || {
        let context = format!("00-{http_trace}-{parent}-01");
        ureq::post(&url).header("traceparent", &context).send(body).unwrap();
    })
    .await
    .unwrap();

    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap();
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 1],
        ..InferInputTensor::default()
    };
    let message = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input],
        raw_input_contents: vec![vec![0; 4].into()],
        ..ModelInferRequest::default()
    };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{grpc_trace}-{parent}-01").parse().unwrap());
    client.model_infer(request).await.unwrap();

    for (id, protocol) in [(http_trace, "http"), (grpc_trace, "grpc")] {
        let found = tokio::task::block_in_place(|| trace(&spans, id));
        let request = found.iter().find(|span| span.name == "infer").expect("the span of the request");
        let run = found.iter().find(|span| span.name == "run").expect("the span of the run");
        assert_eq!(hex(&request.parent_span_id), parent);
        assert_eq!(run.parent_span_id, request.span_id);
        assert_eq!(attribute(request, "protocol").as_deref(), Some(protocol));
        assert_eq!(attribute(request, "model").as_deref(), Some("m"));
        assert_eq!(attribute(request, "version").as_deref(), Some("1"));
    }
}
