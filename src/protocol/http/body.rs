//! Request bodies: read up to a limit, or thrown away so that the client sees the answer.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{
    fault::ErrorCode,
    protocol::{
        budget::{BodyBudget, BodyPermit},
        deadline::within,
        gathered::Gathered,
        refusal::Refusal,
    },
};

/// Room made for a body before its bytes arrive; a claimed length alone takes no more.
const FIRST_ALLOCATION: usize = 1 << 20;
/// How much of a refused body is read and thrown away, and for how long.
const DRAIN_BYTES: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// A body of no more is copied.
const SHORT: usize = 4 << 10;
/// A body that is slower than this on the whole holds memory for no good.
const LEAST_RATE: usize = 16 << 10;

/// What the body of an inference request may take.
pub(super) struct Bounds<'a> {
    pub(super) limit: usize,
    pub(super) budget: &'a Arc<BodyBudget>,
    /// How long the client may send nothing.
    pub(super) patience: Duration,
    /// When the answer is of no use any more.
    pub(super) deadline: Option<Instant>,
    /// Where in the body elements of tensors begin; 0 where there are none.
    pub(super) elements: usize,
}

/// Reads the whole body, with a permit for the memory that it occupies. What is sure not to fit
/// is refused before any byte is read.
pub(super) async fn read<B>(body: &mut B, bounds: &Bounds<'_>) -> Result<(Bytes, BodyPermit), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = || Refusal::too_large(bounds.limit);
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > bounds.limit {
        return Err(too_large());
    }
    // A body is refused for its claimed length, but takes room for what has really arrived.
    bounds.budget.check(expected)?;
    let mut permit = bounds.budget.reserve(expected.min(FIRST_ALLOCATION))?;
    let mut pieces = Pieces { body, bounds, begun: None, received: 0 };
    let Some(first) = pieces.next().await? else { return Ok((Bytes::new(), permit)) };
    permit.grow_to(first.len())?;
    if first.len() > bounds.limit {
        return Err(too_large());
    }
    // Small bodies come in one piece.
    let Some(second) = pieces.next().await? else { return Ok((detached(first, bounds.elements), permit)) };
    let room = expected.min(FIRST_ALLOCATION).max(first.len() + second.len());
    permit.grow_to(room)?;
    let mut all = Gathered::new(room, bounds.elements);
    all.append(&first);
    drop(first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        let length = all.len() + bytes.len();
        if length > bounds.limit {
            return Err(too_large());
        }
        if length > all.room() {
            let room = length.max(2 * all.room()).min(bounds.limit.max(length));
            permit.grow_to(room)?;
            all.grow_to(room);
        }
        all.append(&bytes);
        piece = pieces.next().await?;
    }
    Ok((all.into_bytes(), permit))
}

/// A body that does not hold the memory which its connection reads into: a few bytes are copied more cheaply than
/// the connection gets new memory for the next request.
fn detached(body: Bytes, elements: usize) -> Bytes {
    if body.len() <= SHORT { Gathered::copy_of(&body, elements) } else { body }
}

/// The pieces of a body, each in time.
struct Pieces<'a, 'b, B> {
    body: &'a mut B,
    bounds: &'a Bounds<'b>,
    /// When something was waited for first.
    begun: Option<Instant>,
    received: usize,
}

impl<B> Pieces<'_, '_, B>
where
    B: Body<Data = Bytes> + Unpin,
{
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.body.is_end_stream() {
            return Ok(None);
        }
        let Bounds { patience, deadline, .. } = *self.bounds;
        // Bytes that trickle in buy time only at a fair rate.
        let earned = Duration::from_secs((self.received / LEAST_RATE) as u64);
        let mut is_late = false;
        let limit = || {
            let now = Instant::now();
            let begun = *self.begun.get_or_insert(now);
            let slow = patience.min(patience.saturating_add(earned).saturating_sub(now - begun));
            let late = deadline.map(|deadline| deadline.saturating_duration_since(now));
            is_late = late.is_some_and(|late| late < slow);
            late.map_or(slow, |late| late.min(slow))
        };
        let piece = within(limit, next(self.body)).await.map_err(|_| {
            if is_late {
                Refusal::new(ErrorCode::DeadlineExceeded, "the deadline passed before the body had arrived")
            } else {
                Refusal::bad_request("the body did not arrive in time")
            }
        })?;
        let piece = piece?;
        self.received += piece.as_ref().map_or(0, Bytes::len);
        Ok(piece)
    }
}

/// Reads what is left of a body and throws it away. A client that sends before it reads would
/// otherwise see its connection reset, and not the answer. False when it gave up before the end,
/// or did not begin since more than `most` bytes are sure to come.
pub(super) async fn drain<B>(body: &mut B, most: usize) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let most = most.min(DRAIN_BYTES);
    if body.size_hint().lower() > most as u64 {
        return false;
    }
    let emptied = pin!(async {
        let mut left = most;
        while let Ok(Some(bytes)) = next(body).await {
            let Some(still) = left.checked_sub(bytes.len()) else { return false };
            left = still;
        }
        true
    });
    timeout(DRAIN_TIME, emptied).await.unwrap_or(false)
}

/// The next piece of data; trailers mean nothing here.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::bad_request("the body ended early or its framing is broken");
        let frame = frame.map_err(broken)?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::fault::Fault;

    fn pieces(sizes: &[usize]) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
        let frames: Vec<_> = sizes.iter().map(|&size| Ok(Frame::data(Bytes::from(vec![7; size])))).collect();
        StreamBody::new(tokio_stream::iter(frames))
    }

    async fn within<B: Body<Data = Bytes> + Unpin>(body: &mut B, limit: usize) -> Result<Bytes, ErrorCode> {
        let budget = &BodyBudget::new(usize::MAX);
        let bounds = Bounds { limit, budget, patience: Duration::from_secs(30), deadline: None, elements: 0 };
        read(body, &bounds).await.map(|(bytes, _)| bytes).map_err(|refusal| refusal.code())
    }

    #[tokio::test]
    async fn read_within_the_limit_gives_all_bytes() {
        for sizes in [&[][..], &[5], &[3, 2], &[0, 4, 0, 1], &[1; 10], &[2_000_000, 1, 2_000_000]] {
            let all = within(&mut pieces(sizes), 5_000_000).await.unwrap();
            assert_eq!(all.len(), sizes.iter().sum::<usize>());
            assert!(all.iter().all(|&byte| byte == 7));
        }
    }

    #[tokio::test]
    async fn read_of_one_piece_copies_nothing_but_a_short_body() {
        for (length, is_shared) in [(SHORT, false), (SHORT + 1, true)] {
            let whole = Bytes::from(vec![1; length]);
            let read = within(&mut Full::new(whole.clone()), length).await.unwrap();
            assert_eq!((read.as_ptr() == whole.as_ptr(), read == whole), (is_shared, true));
        }
    }

    #[tokio::test]
    async fn read_over_the_limit_is_refused_with_and_without_a_length() {
        let too_large = Err(ErrorCode::TooLarge);
        assert_eq!(within(&mut Full::new(Bytes::from(vec![0; 11])), 10).await, too_large);
        for sizes in [&[11][..], &[10, 1], &[5, 5, 5]] {
            assert_eq!(within(&mut pieces(sizes), 10).await, too_large, "{sizes:?}");
        }
    }

    async fn bounded<B: Body<Data = Bytes> + Unpin>(
        body: &mut B,
        budget: &Arc<BodyBudget>,
        deadline: Option<Instant>,
    ) -> Result<usize, ErrorCode> {
        let bounds = Bounds { limit: 5_000_000, budget, patience: Duration::from_millis(100), deadline, elements: 0 };
        let read = read(body, &bounds).await;
        read.map(|(bytes, _)| bytes.len()).map_err(|refusal| refusal.code())
    }

    #[tokio::test]
    async fn read_beyond_the_budget_is_refused_and_gives_all_back() {
        let budget = BodyBudget::new(3_000_000);
        assert_eq!(bounded(&mut pieces(&[1_000_000; 2]), &budget, None).await, Ok(2_000_000));
        assert_eq!(bounded(&mut pieces(&[1_000_000; 4]), &budget, None).await, Err(ErrorCode::Overloaded));
        let claimed = &mut Full::new(Bytes::from(vec![0; 3_000_001]));
        assert_eq!(bounded(claimed, &budget, None).await, Err(ErrorCode::Overloaded));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn read_of_a_body_that_stalls_ends() {
        let budget = BodyBudget::new(3_000_000);
        let stalled = || StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>());
        assert_eq!(bounded(&mut stalled(), &budget, None).await, Err(ErrorCode::BadRequest));
        let soon = Instant::now() + Duration::from_millis(10);
        assert_eq!(bounded(&mut stalled(), &budget, Some(soon)).await, Err(ErrorCode::DeadlineExceeded));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn drain_does_not_begin_on_more_than_it_may() {
        assert!(!drain(&mut Full::new(Bytes::from(vec![0; 11])), 10).await);
        assert!(drain(&mut Full::new(Bytes::from(vec![0; 10])), 10).await);
    }

    #[tokio::test]
    async fn drain_ends_at_its_bound() {
        assert!(drain(&mut pieces(&[1 << 20; 3]), usize::MAX).await);
        let endless = tokio_stream::iter(std::iter::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![0; 1 << 20])))
        }));
        assert!(!drain(&mut StreamBody::new(endless), usize::MAX).await);
    }
}
