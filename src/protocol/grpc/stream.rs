//! `ModelStreamInfer`: many requests on one call, answered in their order.
//!
//! The requests of a stream run at the same time, each on a task of its own, up to a window;
//! one that is slow keeps its place in the order, not the others from running. What is read but
//! not answered is bounded by the window and by bytes, and counts in the budget of all bodies: a
//! request that does not fit there is answered with an error. A client that does not read its
//! answers is not read from. Dropping the stream, as hyper does when the client goes away, cancels what
//! it still runs.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName};
use prost::Message;
use tokio_stream::Stream;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::AbortOnDropHandle,
};
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::{convert, service::Inference, terms::CallTerms, wire};
use crate::{
    domain::Protocol,
    fault::ErrorCode,
    proto::inference::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice,
    },
    protocol::{data_plane::DataPlane, refusal::Refusal, trace},
};

/// Requests of one stream that are read and not answered yet.
pub(super) const WINDOW: usize = 32;
/// Metadata of Triton's: the first error ends the stream, as its gRPC status.
static TRUE_ERRORS: HeaderName = HeaderName::from_static("triton_grpc_error");
/// Triton's mark of the last answer to a request. Here every answer is one.
const FINAL_RESPONSE: &str = "triton_final_response";

type Answer = Result<ModelStreamInferResponse, Status>;

/// The answers of one stream.
pub(super) struct Answers<D> {
    service: Arc<Inference<D>>,
    /// The metadata of the call, with which each request's trace goes on.
    headers: Arc<HeaderMap>,
    terms: CallTerms,
    limit: usize,
    ends_at_error: bool,
    /// `None` once nothing more is read.
    incoming: Option<Streaming<ModelInferRequest>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    /// In the order of the requests.
    running: VecDeque<Running>,
    /// How the stream ends after the last answer, when not well.
    end: Option<Status>,
}

struct Running {
    /// As the client gave it, so that it can tell which request failed.
    id: String,
    bytes: usize,
    task: AbortOnDropHandle<Result<ModelInferResponse, Status>>,
}

impl<D: DataPlane> Answers<D> {
    /// `limit` bounds the bytes of requests that are read and not answered yet, apart from one.
    pub(super) fn new(
        service: Inference<D>,
        headers: HeaderMap,
        incoming: Streaming<ModelInferRequest>,
        limit: usize,
        shutdown: CancellationToken,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            service: Arc::new(service),
            terms: CallTerms::read(&headers)?,
            ends_at_error: headers
                .get(&TRUE_ERRORS)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
            headers: Arc::new(headers),
            limit,
            incoming: Some(incoming),
            stopping: Box::pin(shutdown.cancelled_owned()),
            running: VecDeque::new(),
            end: None,
        })
    }

    /// Reads requests and begins them, while there is room and something to read.
    fn read(&mut self, context: &mut Context<'_>) {
        if self.incoming.is_some() && self.stopping.as_mut().poll(context).is_ready() {
            // What was read is answered; what was not, the client may send elsewhere.
            let stopping = Refusal::new(ErrorCode::Unavailable, "the gateway is stopping: open the stream again");
            self.read_no_more(Some(wire::status(&stopping)));
        }
        while self.has_room() {
            let Some(incoming) = &mut self.incoming else { return };
            match Pin::new(incoming).poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.read_no_more(None),
                Poll::Ready(Some(Ok(message))) => self.begin(message),
                Poll::Ready(Some(Err(status))) => {
                    let status = wire::unreadable(&status, self.limit, self.service.gateway()).unwrap_or(status);
                    self.read_no_more(Some(status));
                }
            }
        }
    }

    fn read_no_more(&mut self, end: Option<Status>) {
        self.incoming = None;
        self.end = end;
    }

    fn has_room(&self) -> bool {
        let bytes: usize = self.running.iter().map(|running| running.bytes).sum();
        self.running.len() < WINDOW && (self.running.is_empty() || bytes < self.limit)
    }

    fn begin(&mut self, message: ModelInferRequest) {
        let (id, bytes) = (message.id.clone(), message.encoded_len());
        let (service, headers) = (Arc::clone(&self.service), Arc::clone(&self.headers));
        let (room, terms) = service.make_room(&message, Ok(self.terms.clone()));
        let task = tokio::spawn(async move {
            let _room = room;
            let span = trace::request_span(Protocol::Grpc, &headers, &message.model_name);
            let reply = service.infer(terms, message, &span).instrument(span.clone()).await;
            reply.map(|reply| convert::response(&reply))
        });
        self.running.push_back(Running { id, bytes, task: AbortOnDropHandle::new(task) });
    }

    fn answer(&mut self, id: String, outcome: Result<ModelInferResponse, Status>) -> Answer {
        let status = match outcome {
            Ok(mut response) => {
                let yes = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                response.parameters.insert(FINAL_RESPONSE.to_owned(), yes);
                return Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) });
            }
            Err(status) => status,
        };
        if self.ends_at_error {
            self.running.clear();
            self.read_no_more(None);
            return Err(status);
        }
        let response = ModelInferResponse { id, ..ModelInferResponse::default() };
        Ok(ModelStreamInferResponse { error_message: status.message().to_owned(), infer_response: Some(response) })
    }
}

impl<D: DataPlane> Stream for Answers<D> {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.read(context);
        let Some(first) = self.running.front_mut() else {
            return if self.incoming.is_some() { Poll::Pending } else { Poll::Ready(self.end.take().map(Err)) };
        };
        let outcome = ready!(Pin::new(&mut first.task).poll(context));
        let id = std::mem::take(&mut first.id);
        self.running.pop_front();
        // The task ends without an outcome only when it panics; that is in the log.
        let failed = || wire::status(&Refusal::new(ErrorCode::Internal, "the gateway failed on this request"));
        let answer = self.answer(id, outcome.unwrap_or_else(|_| Err(failed())));
        Poll::Ready(Some(answer))
    }
}
