//! What tonic refuses before a handler runs, in the contract's codes and words.
//!
//! tonic reads and decodes a message by itself, and answers what it cannot read with codes
//! of its own: `OUT_OF_RANGE` for one over the limit, `INTERNAL` for one that is not
//! protobuf. Its answer carries the `Status` as an extension. A `Status` of our handlers has
//! [`Answered`] as its source, one of ours that goes through tonic [`OnArrival`]; one without
//! them comes from tonic.

use std::{error::Error, sync::Arc};

use http::Response;
use tonic::{Code, Status, body::Body};

use crate::{
    domain::Protocol,
    fault::Fault,
    protocol::{data_plane::DataPlane, refusal::Refusal},
};

const SERVICE_PREFIX: &str = "/inference.GRPCInferenceService/";

/// What a call is to this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Infer,
    /// `ModelStreamInfer`, which counts what it refuses by itself.
    Stream,
    /// Another method of the inference service.
    Ask,
    /// Health and reflection, whose answers are their own business.
    Foreign,
}

impl Call {
    pub(super) fn of(path: &str) -> Self {
        match path.strip_prefix(SERVICE_PREFIX) {
            Some("ModelInfer") => Self::Infer,
            Some("ModelStreamInfer") => Self::Stream,
            Some(_) => Self::Ask,
            None => Self::Foreign,
        }
    }

    pub(super) fn carries_tensors(self) -> bool {
        matches!(self, Self::Infer | Self::Stream)
    }
}

/// True for the calls in which the client may send any number of messages.
pub(super) fn has_many_messages(path: &str) -> bool {
    Call::of(path) == Call::Stream || path.ends_with(".ServerReflection/ServerReflectionInfo")
}

/// Marks a `Status` as the deliberate answer of a handler.
#[derive(Debug, thiserror::Error)]
#[error("answered by a handler")]
struct Answered;

/// Marks a `Status` as our refusal of a message that was still arriving: tonic only passes it on.
#[derive(Debug, thiserror::Error)]
#[error("refused on arrival")]
struct OnArrival(Refusal);

/// The status with which a body ends whose message is refused before it is whole.
pub(super) fn refused_on_arrival(refusal: Refusal) -> Status {
    let mut status = refusal.to_status();
    status.set_source(Arc::new(OnArrival(refusal)));
    status
}

/// The status with which a handler answers a fault.
pub(super) fn status(fault: &impl Fault) -> Status {
    let mut status = fault.to_status();
    status.set_source(Arc::new(Answered));
    status
}

/// `response`, with tonic's own refusal of a message said in our words and counted.
pub(super) fn in_our_words(
    call: Call,
    response: Response<Body>,
    limit: usize,
    gateway: &impl DataPlane,
) -> Response<Body> {
    let refusal = match response.extensions().get::<Status>() {
        Some(status) if call != Call::Foreign && !is_answered(status) => refusal(status, limit),
        _ => None,
    };
    let Some(refusal) = refusal else { return response };
    if call == Call::Infer {
        gateway.refuse(None, Protocol::Grpc, refusal.code());
    }
    refusal.to_status().into_http()
}

/// `status`, with which tonic ended a stream of messages, in our words and counted; `None` when
/// it does not come from tonic's reading.
pub(super) fn unreadable(status: &Status, limit: usize, gateway: &impl DataPlane) -> Option<Status> {
    let refusal = refusal(status, limit)?;
    gateway.refuse(None, Protocol::Grpc, refusal.code());
    Some(self::status(&refusal))
}

fn is_answered(status: &Status) -> bool {
    status.source().is_some_and(<dyn Error>::is::<Answered>)
}

fn refusal(status: &Status, limit: usize) -> Option<Refusal> {
    // On its way through tonic an error is wrapped, more than once.
    let mut causes = std::iter::successors(status.source(), |&error| error.source());
    if let Some(OnArrival(refusal)) = causes.find_map(|cause| cause.downcast_ref()) {
        return Some(refusal.clone());
    }
    match status.code() {
        // By its length, or while it was decompressed.
        Code::OutOfRange | Code::ResourceExhausted => Some(Refusal::too_large(limit)),
        Code::Internal => Some(garbled(status.message())),
        // A compression that we do not know; tonic says so well, and which ones we do.
        _ => None,
    }
}

/// The refusal of a message that is not protobuf; `reason` is the decoder's.
pub(super) fn garbled(reason: &str) -> Refusal {
    Refusal::bad_request(format!("the message cannot be read: {}", lowercase_start(reason)))
}

fn lowercase_start(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_lowercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fault::ErrorCode, protocol::stand_in::StandIn};

    fn answer(call: Call, status: Status) -> (Status, Vec<ErrorCode>) {
        let gateway = StandIn::default();
        let response = in_our_words(call, status.into_http(), 100, &gateway);
        let status = Status::from_header_map(response.headers()).unwrap();
        (status, gateway.refusals().into_iter().map(|(_, code)| code).collect())
    }

    #[test]
    fn refusal_of_tonic_is_said_in_the_contracts_codes_and_counted() {
        let (status, counted) = answer(Call::Infer, Status::out_of_range("Error, decoded message length too large"));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "the request is larger than the limit of 100 bytes");
        assert_eq!(counted, [ErrorCode::TooLarge]);

        let (status, counted) = answer(Call::Infer, Status::internal("Unexpected EOF decoding stream."));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "the message cannot be read: unexpected EOF decoding stream.");
        assert_eq!(counted, [ErrorCode::BadRequest]);

        let (status, counted) = answer(Call::Ask, Status::internal("x"));
        assert_eq!((status.code(), counted.len()), (Code::InvalidArgument, 0));
    }

    #[test]
    fn answer_of_a_handler_is_left_alone() {
        for code in ErrorCode::ALL {
            let (answered, counted) = answer(Call::Infer, status(&Refusal::new(code, "why")));
            assert_eq!((answered.code(), answered.message()), (code.grpc(), "why"));
            assert!(counted.is_empty());
        }
    }

    #[test]
    fn answer_of_another_service_is_left_alone() {
        assert!(has_many_messages("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"));
        let call = Call::of("/grpc.health.v1.Health/Check");
        assert!(!has_many_messages("/grpc.health.v1.Health/Watch"));
        let (status, counted) = answer(call, Status::internal("theirs"));
        assert_eq!((status.code(), status.message(), counted.len()), (Code::Internal, "theirs", 0));
    }
}
