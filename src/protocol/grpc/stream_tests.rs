//! Tests of streams over real connections, with a stand-in behind the door.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, codec::CompressionEncoding};

use super::{
    stream::WINDOW,
    wire_tests::{BytesCodec, LIMIT, Plane, noise, raw},
};
use crate::{
    fault::ErrorCode,
    proto::inference::{ModelInferRequest, ModelStreamInferResponse, infer_parameter::ParameterChoice},
};

struct Stream {
    requests: mpsc::Sender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Stream {
    async fn open(plane: &Plane, metadata: &[(&'static str, &'static str)]) -> Self {
        let (requests, receiver) = mpsc::channel(256);
        let mut call = Request::new(ReceiverStream::new(receiver));
        for (name, value) in metadata {
            call.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let answers = plane.client().model_stream_infer(call).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn send(&self, model: &str, id: &str) {
        self.requests.send(ModelInferRequest { id: id.into(), ..raw(model, 1) }).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<ModelStreamInferResponse>, Status> {
        timeout(Duration::from_secs(10), self.answers.message()).await.expect("an answer in time")
    }

    /// The id and the error of the next answer.
    async fn told(&mut self) -> (String, String) {
        let answer = self.next().await.unwrap().expect("an answer");
        (answer.infer_response.unwrap().id, answer.error_message)
    }
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), met).await.expect("the condition in time");
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_which_run_at_the_same_time() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, &[]).await;
    stream.send("slow", "first").await;
    stream.send("echo", "second").await;
    until(|| plane.gateway.begun_requests() == 2).await;
    assert!(timeout(Duration::from_millis(50), stream.answers.message()).await.is_err(), "the first is still running");
    plane.gateway.let_go.notify_one();

    let first = stream.next().await.unwrap().unwrap().infer_response.unwrap();
    assert_eq!((first.id.as_str(), &first.raw_output_contents[..]), ("first", &[Bytes::from_static(&[7])][..]));
    let flag = first.parameters["triton_final_response"].parameter_choice.clone();
    assert_eq!(flag, Some(ParameterChoice::BoolParam(true)));
    assert_eq!(stream.told().await, ("second".into(), String::new()));
    drop(stream.requests);
    assert_eq!(stream.answers.message().await.unwrap(), None);
    plane.stop().await;
}

#[tokio::test]
async fn error_is_told_in_the_stream_which_goes_on() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, &[("tidegate-routing-key", "k")]).await;
    for (model, id) in [("nobody", "a"), ("", "b"), ("panic", "c"), ("busy", "d"), ("echo", "e")] {
        stream.send(model, id).await;
    }
    for (id, error) in [
        ("a", "model 'nobody' is unknown"),
        ("b", "the request names no model"),
        ("c", "the gateway failed on this request"),
        ("d", "too many requests are waiting"),
        ("e", ""),
    ] {
        assert_eq!(stream.told().await, (id.to_owned(), error.to_owned()));
    }
    assert_eq!(plane.gateway.last_request().routing_key.as_deref(), Some("k"));
    assert_eq!(plane.gateway.refusals(), [(Some(String::new()), ErrorCode::BadRequest)]);
    drop(stream);
    plane.stop().await;
}

#[tokio::test]
async fn first_error_is_the_end_when_the_client_wants_true_errors() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, &[("triton_grpc_error", "true")]).await;
    for (model, id) in [("echo", "a"), ("nobody", "b"), ("echo", "c")] {
        stream.send(model, id).await;
    }
    assert_eq!(stream.told().await, ("a".into(), String::new()));
    let status = stream.next().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "model 'nobody' is unknown"));
    plane.stop().await;
}

#[tokio::test]
async fn window_bounds_what_is_begun_and_leaving_cancels_it() {
    let plane = Plane::start().await;
    let stream = Stream::open(&plane, &[]).await;
    for index in 0..100 {
        stream.send("slow", &index.to_string()).await;
    }
    until(|| plane.gateway.waiting_requests() == WINDOW).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(plane.gateway.begun_requests(), WINDOW);
    drop(stream);
    until(|| plane.gateway.waiting_requests() == 0).await;
    assert_eq!(plane.gateway.begun_requests(), WINDOW);
    plane.stop().await;
}

#[tokio::test]
async fn requests_of_a_stream_take_room_until_they_are_answered() {
    const FULL: &str = "too many bytes of requests are in flight: try again later";
    let plane = Plane::with_budget(50_000).await;
    let mut stream = Stream::open(&plane, &[]).await;
    stream.requests.send(raw("slow", 30_000)).await.unwrap();
    plane.gateway.begun.notified().await;
    assert!((30_000..31_000).contains(&plane.budget.used()), "{}", plane.budget.used());
    assert_eq!(plane.client().model_infer(raw("echo", 30_000)).await.unwrap_err().message(), FULL);
    plane.gateway.let_go.notify_one();
    assert_eq!(stream.told().await, ("r1".into(), String::new()));
    assert_eq!(plane.budget.used(), 0);
    plane.stop().await;
}

#[tokio::test]
async fn request_of_a_stream_without_room_is_told_so_and_the_stream_goes_on() {
    let plane = Plane::with_budget(50_000).await;
    let mut client = plane.client();
    let holds = tokio::spawn(async move { client.model_infer(raw("slow", 30_000)).await });
    plane.gateway.begun.notified().await;
    let mut client = plane.client().send_compressed(CompressionEncoding::Gzip);
    let (requests, receiver) = mpsc::channel(1);
    let answers = client.model_stream_infer(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut stream = Stream { requests, answers };
    // Few bytes on the way, too many when they are inflated.
    stream.requests.send(raw("echo", 30_000)).await.unwrap();
    assert_eq!(stream.told().await, ("r1".into(), "too many bytes of requests are in flight: try again later".into()));
    plane.gateway.let_go.notify_one();
    holds.await.unwrap().unwrap();
    stream.requests.send(raw("echo", 30_000)).await.unwrap();
    assert_eq!(stream.told().await, ("r1".into(), String::new()));
    assert_eq!(plane.gateway.refusals(), [(Some("echo".into()), ErrorCode::Overloaded)]);
    // One that cannot even be read leaves nothing to go on with.
    stream.requests.send(noise("echo", 60_000)).await.unwrap();
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert_eq!(plane.gateway.refusals()[1..], [(None, ErrorCode::Overloaded)]);
    assert_eq!(plane.budget.used(), 0);
    plane.stop().await;
}

#[tokio::test]
async fn shutdown_answers_what_was_read_and_then_says_so() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, &[]).await;
    let mut idle = Stream::open(&plane, &[]).await;
    stream.send("slow", "a").await;
    stream.send("echo", "b").await;
    until(|| plane.gateway.begun_requests() == 2).await;
    plane.shutdown.cancel();
    let status = idle.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the gateway is stopping: open the stream again")
    );
    plane.gateway.let_go.notify_one();
    assert_eq!(stream.told().await.0, "a");
    assert_eq!(stream.told().await.0, "b");
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    plane.stop().await;
}

#[tokio::test]
async fn message_that_cannot_be_read_ends_the_stream_after_the_answers_before_it() {
    let plane = Plane::start().await;
    let mut stream = Stream::open(&plane, &[]).await;
    stream.send("echo", "a").await;
    stream.requests.send(raw("echo", 2 * LIMIT)).await.unwrap();
    assert_eq!(stream.told().await.0, "a");
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "the request is larger than the limit of 1048576 bytes");

    let mut client = tonic::client::Grpc::new(plane.channel.clone());
    client.ready().await.unwrap();
    let path = "/inference.GRPCInferenceService/ModelStreamInfer".parse().unwrap();
    let messages = [Bytes::from(raw("echo", 1).encode_to_vec()), Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f")];
    let call = Request::new(tokio_stream::iter(messages));
    let mut answers = client.streaming(call, path, BytesCodec).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("the message cannot be read: "), "{status}");
    assert_eq!(plane.gateway.refusals(), [(None, ErrorCode::TooLarge), (None, ErrorCode::BadRequest)]);
    plane.stop().await;
}

#[tokio::test]
async fn metadata_that_cannot_be_read_refuses_the_stream() {
    let plane = Plane::start().await;
    let mut call = Request::new(tokio_stream::empty());
    call.metadata_mut().insert("tidegate-timeout", "soon".parse().unwrap());
    let status = plane.client().model_stream_infer(call).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn compressed_messages_are_taken_and_given() {
    let plane = Plane::start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = plane.client().send_compressed(encoding).accept_compressed(encoding);
        let requests = tokio_stream::iter([raw("echo", 10_000), raw("echo", 3)]);
        let answer = client.model_stream_infer(requests).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), encoding.to_string().as_str());
        let mut answers = answer.into_inner();
        for length in [10_000, 3] {
            let answer = answers.message().await.unwrap().unwrap().infer_response.unwrap();
            assert_eq!(answer.raw_output_contents[0].len(), length);
        }
        // One who only offers to take them gets tensors as they are.
        let mut client = plane.client().accept_compressed(encoding);
        let answer = client.model_infer(raw("echo", 10_000)).await.unwrap();
        assert!(answer.metadata().get("grpc-encoding").is_none());
    }
    plane.stop().await;
}
