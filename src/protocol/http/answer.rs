//! Answers: JSON bodies, errors as `{"error": "…"}`, and the headers that go with them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use serde::Serialize;

use super::server::PlaneBody;
use crate::fault::{ErrorCode, Fault};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer whose body is JSON already.
pub(crate) fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response<PlaneBody> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The body of an answer: these frames, each written as it is.
pub(super) fn frames(first: Bytes, rest: Vec<Bytes>) -> PlaneBody {
    if rest.is_empty() {
        return Either::Left(Full::new(first));
    }
    let mut frames = VecDeque::from(rest);
    frames.push_front(first);
    Either::Right(tonic::body::Body::new(Frames(frames)))
}

/// A body in several pieces of known length: nothing is copied into one.
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|bytes| bytes.len() as u64).sum())
    }
}

/// `value` as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<PlaneBody> {
    let body = serde_json::to_vec(value).expect("our own answers have string keys and serialise");
    json_bytes(status, body)
}

/// What a client is told when `fault` is why it gets nothing else.
pub(crate) fn fault(fault: &impl Fault) -> Response<PlaneBody> {
    say(fault.code(), &fault.message(), fault.retry_after())
}

pub(crate) fn error(code: ErrorCode, message: &str) -> Response<PlaneBody> {
    say(code, message, code.retry_after())
}

fn say(code: ErrorCode, message: &str, retry_after: Option<u32>) -> Response<PlaneBody> {
    #[derive(Serialize)]
    struct Words<'a> {
        error: &'a str,
    }
    let mut response = json(code.http(), &Words { error: message });
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer to `HEAD` where `GET` would have answered `response`.
pub(crate) fn head_only(mut response: Response<PlaneBody>) -> Response<PlaneBody> {
    let length = response.body().size_hint().exact();
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Either::Left(Full::default());
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn error_of_every_code_is_json_with_its_status() {
        for code in ErrorCode::ALL {
            let response = error(code, "a \"quoted\" reason");
            assert_eq!(response.status(), code.http());
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            let retry = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().parse().unwrap());
            assert_eq!(retry, code.retry_after());
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, r#"{"error":"a \"quoted\" reason"}"#);
        }
    }

    #[tokio::test]
    async fn frames_have_the_length_of_all_and_are_not_copied() {
        let pieces = vec![Bytes::from("ab"), Bytes::from(vec![1; 20_000])];
        let mut body = frames(pieces[0].clone(), pieces[1..].to_vec());
        assert_eq!(body.size_hint().exact(), Some(20_002));
        for piece in pieces {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame.as_ptr(), piece.as_ptr());
        }
        assert!(body.frame().await.is_none());
        assert_eq!(frames(Bytes::new(), vec![]).size_hint().exact(), Some(0));
    }

    #[tokio::test]
    async fn head_keeps_the_length_and_drops_the_body() {
        let response = head_only(json_bytes(StatusCode::OK, "{}"));
        assert_eq!(response.headers()[CONTENT_LENGTH], "2");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
