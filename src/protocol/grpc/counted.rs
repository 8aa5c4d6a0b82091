//! The bodies of calls that go through tonic, counted while they arrive.
//!
//! tonic gathers a message until it is whole. What it holds of one that is not takes room in the
//! budget of bodies like that of a plain call; a message that is whole is given up here, for the
//! handler to count as what it inflated to. The two meet on one thread in one poll, so what
//! nobody counts is at most one message a thread.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::wire;
use crate::protocol::{
    budget::{BodyBudget, BodyPermit},
    refusal::Refusal,
};

/// gRPC's prefix of a message: a flag for compression, and the length.
const PREFIX: usize = 5;

/// A body whose messages take room in a budget while they arrive, and must go on arriving.
pub(super) struct Counted<B> {
    body: B,
    budget: Arc<BodyBudget>,
    /// How long nothing may come while something is due.
    patience: Duration,
    /// Between messages nothing is due: the client sends as many as it likes, when it likes.
    may_rest: bool,
    messages: Messages,
    /// For what has arrived of a message that is not whole.
    room: Option<BodyPermit>,
    silence: Pin<Box<Sleep>>,
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, budget: &Arc<BodyBudget>, patience: Duration, may_rest: bool) -> Self {
        Self {
            body,
            budget: Arc::clone(budget),
            patience,
            may_rest,
            messages: Messages::default(),
            room: None,
            silence: Box::pin(sleep(patience)),
        }
    }

    fn arrived(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        if self.messages.advance(piece) {
            self.room = None;
        }
        match (&mut self.room, self.messages.arrived) {
            (_, 0) => {}
            (Some(room), arrived) => room.grow_to(arrived)?,
            (room @ None, arrived) => *room = Some(self.budget.reserve(arrived)?),
        }
        // One that is sure not to fit is refused before it has all arrived.
        self.budget.check(self.messages.missing())
    }

    /// Too long a silence in the middle of a message holds memory for no good, and one of a call with a
    /// single message its place.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.may_rest && self.messages.arrived == 0 {
            return Poll::Pending;
        }
        ready!(self.silence.as_mut().poll(context));
        Poll::Ready(Refusal::bad_request("the message did not arrive in time"))
    }

    fn end<T>(&mut self, refusal: Refusal) -> Poll<Option<Result<T, Status>>> {
        self.room = None;
        self.messages = Messages::default();
        Poll::Ready(Some(Err(wire::refused_on_arrival(refusal))))
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let refusal = ready!(self.poll_silence(context));
            return self.end(refusal);
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        if let Some(piece) = frame.data_ref() {
            let until = Instant::now() + self.patience;
            self.silence.as_mut().reset(until);
            if let Err(refusal) = self.arrived(piece) {
                return self.end(refusal);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in its messages a body is.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// Of the message that is not whole, its prefix included.
    arrived: usize,
}

impl Messages {
    /// Follows the next piece of the body; true when a message ended in it.
    fn advance(&mut self, mut piece: &[u8]) -> bool {
        let mut has_ended = false;
        while !piece.is_empty() {
            if self.arrived < PREFIX {
                let (begun, rest) = piece.split_at(piece.len().min(PREFIX - self.arrived));
                self.prefix[self.arrived..self.arrived + begun.len()].copy_from_slice(begun);
                (self.arrived, piece) = (self.arrived + begun.len(), rest);
            }
            let taken = piece.len().min(self.missing());
            (self.arrived, piece) = (self.arrived + taken, &piece[taken..]);
            if self.arrived >= PREFIX && self.missing() == 0 {
                (self.arrived, has_ended) = (0, true);
            }
        }
        has_ended
    }

    /// What is still to come of the message, once its prefix is there.
    fn missing(&self) -> usize {
        if self.arrived < PREFIX {
            return 0;
        }
        let [_, length @ ..] = self.prefix;
        (u32::from_be_bytes(length) as usize).saturating_sub(self.arrived - PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic::Code;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    fn message(length: u8) -> Vec<u8> {
        let mut message = vec![1, 0, 0, 0, length];
        message.resize(PREFIX + usize::from(length), 7);
        message
    }

    type Piece = Result<Frame<Bytes>, Infallible>;

    /// A body that arrives as the test sends it, and the budget that it counts in.
    fn arriving(
        limit: usize,
    ) -> (mpsc::UnboundedSender<Piece>, Counted<StreamBody<UnboundedReceiverStream<Piece>>>, Arc<BodyBudget>) {
        let budget = BodyBudget::new(limit);
        let (pieces, receiver) = mpsc::unbounded_channel();
        let body = Counted::new(StreamBody::new(UnboundedReceiverStream::new(receiver)), &budget, PATIENCE, true);
        (pieces, body, budget)
    }

    fn send(pieces: &mpsc::UnboundedSender<Piece>, bytes: &[u8]) {
        pieces.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).unwrap();
    }

    #[tokio::test]
    async fn what_has_arrived_of_a_message_takes_room_until_it_is_whole() {
        let (pieces, mut body, budget) = arriving(100);
        let whole = message(20);
        for (range, used) in [(0..3, 3), (3..9, 9), (9..24, 24), (24..25, 0)] {
            send(&pieces, &whole[range]);
            body.frame().await.unwrap().unwrap();
            assert_eq!(budget.used(), used);
        }
        send(&pieces, &[&message(0)[..], &message(2), &whole[..8]].concat());
        body.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), 8);
        drop(body);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn message_that_does_not_fit_is_refused_when_its_length_is_known() {
        let (pieces, mut body, budget) = arriving(30);
        send(&pieces, &message(40)[..6]);
        let status = body.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.metadata().get("retry-after").is_some(), "{status:?}");
        assert_eq!(budget.used(), 0, "what is refused holds nothing");
    }

    #[tokio::test]
    async fn others_may_take_the_room_while_a_message_arrives() {
        let (pieces, mut body, budget) = arriving(30);
        send(&pieces, &message(20)[..6]);
        body.frame().await.unwrap().unwrap();
        let _other = budget.reserve(15).unwrap();
        send(&pieces, &message(20)[6..17]);
        assert_eq!(body.frame().await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(budget.used(), 15);
    }

    #[tokio::test]
    async fn silence_is_borne_between_messages_and_not_within_one() {
        let (pieces, mut idle, _) = arriving(100);
        send(&pieces, &message(3));
        idle.frame().await.unwrap().unwrap();
        let (pieces, mut silent, budget) = arriving(100);
        send(&pieces, &message(3)[..6]);
        silent.frame().await.unwrap().unwrap();
        let status = silent.frame().await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "the message did not arrive in time"));
        assert_eq!(budget.used(), 0);
        // It has been silent for longer.
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut idle).poll_frame(&mut context).is_pending());
    }

    proptest! {
        #[test]
        fn messages_are_followed_however_they_are_cut(lengths in prop::collection::vec(0..40_u8, 0..6), cuts in prop::collection::vec(1..30_usize, 1..20)) {
            let all: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let ends: Vec<usize> = lengths.iter().scan(0, |end, length| {
                *end += PREFIX + usize::from(*length);
                Some(*end)
            }).collect();
            let (mut messages, mut at) = (Messages::default(), 0);
            for cut in cuts.iter().cycle() {
                if at == all.len() {
                    break;
                }
                let to = (at + cut).min(all.len());
                let has_ended = messages.advance(&all[at..to]);
                let last = ends.iter().rfind(|end| **end <= to).copied().unwrap_or(0);
                prop_assert_eq!(has_ended, last > at);
                prop_assert_eq!(messages.arrived, to - last);
                at = to;
            }
        }
    }
}
