//! `ModelInfer`, the call that this plane exists for: from the frames of its body to the frames of
//! its answer, without the layers between. Compressed calls take the long way through tonic.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either};
use prost::{Message, encoding::decode_varint};

use super::{encode, service::Inference, terms::CallTerms, wire};
use crate::{
    domain::{ModelName, Protocol, Target},
    fault::Fault,
    proto::inference::ModelInferRequest,
    protocol::{
        DoorOptions, budget::BodyPermit, data_plane::DataPlane, deadline::within, gathered::Gathered,
        http::server::PlaneBody, naming, refusal::Refusal, trace,
    },
    telemetry::in_span,
};

/// gRPC's prefix of a message: a flag for compression, and the length.
const PREFIX: usize = 5;
/// Room made for a message before its bytes arrive; a claimed length alone takes no more.
const FIRST_ALLOCATION: usize = 1 << 20;

/// The number of the field `raw_input_contents`.
const RAW_CONTENTS: u64 = 7;

/// Answers a call of `ModelInfer` whose message is not compressed.
pub(super) async fn answer<D: DataPlane, B>(
    service: &Inference<D>,
    options: &DoorOptions,
    request: Request<B>,
) -> Response<PlaneBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, mut body) = request.into_parts();
    let mut named = None;
    let is_wanted = |start: &[u8]| {
        let Some((model, target)) = beginning(start) else { return Ok(()) };
        let accepted = service.gateway().accepts(&model, &target).map_err(|fault| Refusal::of(&fault));
        named = Some(model);
        accepted
    };
    let read = read(&mut body, options, is_wanted).await.and_then(|(bytes, permit)| Ok((decode(&bytes)?, permit)));
    // The room that the message takes is given back when the answer is made.
    let (message, _permit) = match read {
        Ok(message) => message,
        Err(refusal) => {
            service.gateway().refuse(named.as_ref().map(ModelName::as_str), Protocol::Grpc, refusal.code());
            return refusal.to_status().into_http().map(Either::Right);
        }
    };
    let span = trace::request_span(Protocol::Grpc, &parts.headers, &message.model_name);
    let terms = CallTerms::read(&parts.headers);
    match in_span!(span, service.infer(terms, message, &span)) {
        Ok(reply) => answered(encode::message(&reply)),
        Err(status) => status.into_http().map(Either::Right),
    }
}

fn decode(message: &Bytes) -> Result<ModelInferRequest, Refusal> {
    ModelInferRequest::decode(message.clone()).map_err(|error| wire::garbled(&error.to_string()))
}

/// The model and the version that a message names, where they stand first, as every encoder that
/// we know writes them. `None` when they do not, or are not fit to be names.
fn beginning(message: &[u8]) -> Option<(ModelName, Target)> {
    let (model, rest) = text_field(1, message)?;
    let version = text_field(2, rest).map_or("", |(version, _)| version);
    Some((naming::model(model).ok()?, naming::target(version).ok()?))
}

/// The text of the field `number` when it comes next, and what follows it.
fn text_field(number: u8, message: &[u8]) -> Option<(&str, &[u8])> {
    // The number, and 2 for a field that tells its length.
    let mut rest = message.strip_prefix(&[number << 3 | 2])?;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Where the elements of the first raw tensor begin in a message of which this is the beginning; `None` where there is none, or
/// it has not come yet.
fn raw_contents(message: &[u8]) -> Option<usize> {
    let mut rest = message;
    loop {
        let key = decode_varint(&mut rest).ok()?;
        // All fields of the message have a length before them.
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok().filter(|_| key & 7 == 2)?;
        if key >> 3 == RAW_CONTENTS {
            return Some(message.len() - rest.len());
        }
        rest = rest.get(length..)?;
    }
}

/// The one message of the call, with a permit for the memory that it occupies. One that comes in
/// pieces is read only if `is_wanted`, which is shown its first piece.
async fn read<B>(
    body: &mut B,
    options: &DoorOptions,
    is_wanted: impl FnOnce(&[u8]) -> Result<(), Refusal>,
) -> Result<(Bytes, BodyPermit), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let patience = options.body_timeout;
    let early = || Refusal::bad_request("the message ended early");
    let mut first = next(body, patience).await?.ok_or_else(early)?;
    let mut permit = options.budget.reserve(first.len())?;
    if first.len() < PREFIX {
        let mut all = BytesMut::from(&first[..]);
        while all.len() < PREFIX {
            all.extend_from_slice(&next(body, patience).await?.ok_or_else(early)?);
        }
        first = all.freeze();
    }
    if first.get_u8() != 0 {
        return Err(Refusal::bad_request("the message is compressed, but grpc-encoding does not say how"));
    }
    let length = first.get_u32() as usize;
    if length > options.max_body_bytes {
        return Err(Refusal::too_large(options.max_body_bytes));
    }
    if first.len() < length {
        // Small messages come in one piece and are never copied.
        options.budget.check(length)?;
        // What is sure to be refused is refused before most of it costs anything.
        is_wanted(&first)?;
        let room = length.min(FIRST_ALLOCATION).max(first.len());
        let mut all = Gathered::new(room, raw_contents(&first).unwrap_or(0));
        all.append(&first);
        while all.len() < length {
            let piece = next(body, patience).await?.ok_or_else(early)?;
            permit.grow_to(all.len() + piece.len())?;
            all.append(&piece);
        }
        first = all.into_bytes();
    }
    if first.len() > length || next(body, patience).await?.is_some() {
        return Err(Refusal::bad_request("the call has more than one message: use ModelStreamInfer for many"));
    }
    Ok((first, permit))
}

/// The next piece of data, if it comes in time; trailers mean nothing here.
async fn next<B>(body: &mut B, patience: Duration) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    while !body.is_end_stream() {
        let frame = within(|| patience, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Refusal::bad_request("the message did not arrive in time"))? else { break };
        let frame = frame.map_err(|_| Refusal::bad_request("the call ended early"))?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn answered(pieces: encode::Pieces) -> Response<PlaneBody> {
    let mut response = Response::new(Either::Right(tonic::body::Body::new(Answer { pieces, is_ended: false })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The frames of an answer: its message, then the trailers that say that all went well.
struct Answer {
    pieces: encode::Pieces,
    is_ended: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.pieces.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.pieces.remove(0)))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        self.is_ended = true;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;
    use crate::{
        fault::ErrorCode,
        protocol::{BodyBudget, stand_in},
    };

    async fn read_pieces(pieces: &[&'static [u8]], limit: usize) -> Result<Bytes, String> {
        let frames: Vec<Result<_, Infallible>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece)))).collect();
        let mut body = StreamBody::new(tokio_stream::iter(frames));
        let read = read(&mut body, &stand_in::options(limit), |_| Ok(())).await;
        read.map(|(message, _)| message).map_err(|refusal| refusal.to_string())
    }

    #[tokio::test]
    async fn message_is_read_however_it_is_cut() {
        let cuts: [&[&[u8]]; 4] = [
            &[b"\0\0\0\0\x03abc"],
            &[b"\0\0", b"\0\0\x03", b"abc"],
            &[b"\0\0\0\0\x03a", b"", b"bc"],
            &[b"\0", b"\0", b"\0", b"\0", b"\x03", b"a", b"b", b"c"],
        ];
        for cut in cuts {
            assert_eq!(read_pieces(cut, 3).await.unwrap(), "abc", "{cut:?}");
        }
        assert_eq!(read_pieces(&[b"\0\0\0\0\0"], 3).await.unwrap(), "");
    }

    #[tokio::test]
    async fn message_that_is_not_one_whole_message_is_refused() {
        let cases: [(&[&[u8]], &str); 7] = [
            (&[], "ended early"),
            (&[b"\0\0\0\0"], "ended early"),
            (&[b"\0\0\0\0\x03ab"], "ended early"),
            (&[b"\0\0\0\0\x04abcd"], "larger than the limit of 3 bytes"),
            (&[b"\x01\0\0\0\x03abc"], "compressed"),
            (&[b"\0\0\0\0\x03abcd"], "more than one message"),
            (&[b"\0\0\0\0\x03abc", b"\0\0\0\0\0"], "more than one message"),
        ];
        for (pieces, words) in cases {
            let refusal = read_pieces(pieces, 3).await.unwrap_err();
            assert!(refusal.contains(words), "{pieces:?}: {refusal}");
        }
    }

    #[tokio::test]
    async fn message_in_one_piece_is_not_copied() {
        let whole = Bytes::from(b"\0\0\0\0\x03abc".to_vec());
        let options = stand_in::options(10);
        let unasked = |_: &[u8]| panic!("a message in one piece is there already");
        let (read, permit) = read(&mut http_body_util::Full::new(whole.clone()), &options, unasked).await.unwrap();
        assert_eq!((read.as_ptr(), options.budget.used()), (whole[PREFIX..].as_ptr(), whole.len()));
        drop(permit);
        assert_eq!(options.budget.used(), 0);
    }

    #[tokio::test]
    async fn raw_elements_of_a_message_in_pieces_are_aligned() {
        for name in ["a", "ab", "abc", "a rather long name of a model"] {
            let contents = vec![7; 1000];
            let message = ModelInferRequest {
                model_name: name.into(),
                raw_input_contents: vec![contents.into()],
                ..Default::default()
            };
            let whole = message.encode_to_vec();
            let prefixed = [&[0], &u32::try_from(whole.len()).unwrap().to_be_bytes()[..], &whole].concat();
            let frames: Vec<_> = prefixed
                .chunks(300)
                .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
                .collect();
            let mut body = StreamBody::new(tokio_stream::iter(frames));
            let (read, _permit) = read(&mut body, &stand_in::options(2000), |_| Ok(())).await.unwrap();
            assert_eq!(read, whole);
            let decoded = decode(&read).unwrap();
            assert_eq!(decoded.raw_input_contents[0].as_ptr().align_offset(8), 0, "{name}");
            for end in 0..6 {
                assert_eq!(raw_contents(&whole[..end]), None);
            }
        }
    }

    #[tokio::test]
    async fn message_that_is_not_wanted_is_not_read_to_its_end() {
        let frames = [&b"\0\0\0\0\x06ab"[..], b"cd", b"ef"].map(|piece| Ok::<_, Infallible>(Frame::data(piece.into())));
        let mut body = StreamBody::new(tokio_stream::iter(frames));
        let options = stand_in::options(10);
        let full = |start: &[u8]| Err(Refusal::new(ErrorCode::Overloaded, String::from_utf8_lossy(start)));
        let refusal = read(&mut body, &options, full).await.unwrap_err();
        assert_eq!((refusal.to_string().as_str(), options.budget.used()), ("ab", 0));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "cd");
    }

    #[test]
    fn beginning_of_a_message_tells_the_model_and_the_version() {
        let message = |model: &str, version: &str| {
            let (model_name, model_version) = (model.into(), version.into());
            ModelInferRequest { model_name, model_version, id: "7".into(), ..Default::default() }.encode_to_vec()
        };
        let told = |model: &str, version: &str| {
            beginning(&message(model, version)).map(|(model, target)| (model.to_string(), target))
        };
        assert_eq!(told("m", ""), Some(("m".into(), Target::Release)));
        assert_eq!(told("fraud", "3"), Some(("fraud".into(), Target::Version("3".parse().unwrap()))));
        assert_eq!(told("fraud", "new"), Some(("fraud".into(), Target::Label("new".parse().unwrap()))));
        assert_eq!((told("", ""), told("../m", ""), told("m", "0")), (None, None, None));
        // However much of it is there, nothing is made up.
        let whole = message("fraud", "3");
        for end in 0..7 {
            assert_eq!(beginning(&whole[..end]), None, "{end}");
        }
    }

    #[tokio::test]
    async fn message_beyond_the_bound_on_all_bodies_is_refused() {
        let options = DoorOptions { budget: BodyBudget::new(5), ..stand_in::options(10) };
        let body = &mut http_body_util::Full::new(Bytes::from_static(b"\0\0\0\0\x03abc"));
        assert_eq!(read(body, &options, |_| Ok(())).await.unwrap_err().code(), ErrorCode::Overloaded);
        assert_eq!(options.budget.used(), 0);
    }
}
