//! Request bodies: read up to a limit, or thrown away so that the client sees the answer.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

/// Room made for a body before its bytes arrive; a claimed length alone takes no more.
const FIRST_ALLOCATION: usize = 1 << 20;
/// How much of a refused body is read and thrown away, and for how long.
const DRAIN_BYTES: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFault {
    TooLarge,
    /// The client went away, or broke the framing.
    Broken,
}

/// Reads the whole body. A `Content-Length` over the limit is refused before any byte is read.
pub(crate) async fn read<B>(body: &mut B, limit: usize) -> Result<Bytes, BodyFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > limit {
        return Err(BodyFault::TooLarge);
    }
    let Some(first) = next(body).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(BodyFault::TooLarge);
    }
    // Small bodies come in one piece and are never copied.
    let Some(second) = next(body).await? else { return Ok(first) };
    let mut all = Vec::with_capacity(expected.min(FIRST_ALLOCATION).max(first.len() + second.len()));
    all.extend_from_slice(&first);
    drop(first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        if bytes.len() > limit - all.len() {
            return Err(BodyFault::TooLarge);
        }
        all.extend_from_slice(&bytes);
        piece = next(body).await?;
    }
    Ok(all.into())
}

/// Reads what is left of a body and throws it away. A client that sends before it reads would
/// otherwise see its connection reset, and not the answer. False when it gave up before the end.
pub(crate) async fn drain<B>(body: &mut B) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    let emptied = pin!(async {
        let mut left = DRAIN_BYTES;
        while let Ok(Some(bytes)) = next(body).await {
            let Some(still) = left.checked_sub(bytes.len()) else { return false };
            left = still;
        }
        true
    });
    timeout(DRAIN_TIME, emptied).await.unwrap_or(false)
}

/// The next piece of data; trailers mean nothing here.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, BodyFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyFault::Broken)?;
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

    fn pieces(sizes: &[usize]) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
        let frames: Vec<_> = sizes.iter().map(|&size| Ok(Frame::data(Bytes::from(vec![7; size])))).collect();
        StreamBody::new(tokio_stream::iter(frames))
    }

    #[tokio::test]
    async fn read_within_the_limit_gives_all_bytes() {
        for sizes in [&[][..], &[5], &[3, 2], &[0, 4, 0, 1], &[1; 10], &[2_000_000, 1, 2_000_000]] {
            let all = read(&mut pieces(sizes), 5_000_000).await.unwrap();
            assert_eq!(all.len(), sizes.iter().sum::<usize>());
            assert!(all.iter().all(|&byte| byte == 7));
        }
    }

    #[tokio::test]
    async fn read_of_one_piece_copies_nothing() {
        let whole = Bytes::from(vec![1; 100]);
        let read = read(&mut Full::new(whole.clone()), 100).await.unwrap();
        assert_eq!(read.as_ptr(), whole.as_ptr());
    }

    #[tokio::test]
    async fn read_over_the_limit_is_refused_with_and_without_a_length() {
        assert_eq!(read(&mut Full::new(Bytes::from(vec![0; 11])), 10).await, Err(BodyFault::TooLarge));
        for sizes in [&[11][..], &[10, 1], &[5, 5, 5]] {
            assert_eq!(read(&mut pieces(sizes), 10).await, Err(BodyFault::TooLarge), "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn drain_ends_at_its_bound() {
        assert!(drain(&mut pieces(&[1 << 20; 3])).await);
        let endless = tokio_stream::iter(std::iter::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![0; 1 << 20])))
        }));
        assert!(!drain(&mut StreamBody::new(endless)).await);
    }
}
