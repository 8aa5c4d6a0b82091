//! Compressed bodies: requests inflated within a limit, answers deflated for who asks.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use flate2::{
    Compression,
    bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use tokio::task::spawn_blocking;

use crate::{
    fault::ErrorCode,
    protocol::{budget::BodyPermit, refusal::Refusal},
};

/// An answer smaller than this costs more to deflate than to send.
const WORTH_DEFLATING: usize = 1 << 10;
/// Up to this many bytes, coded or plain, the work is done where the request is.
const SHORT_WORK: usize = 64 << 10;
/// The most that deflate makes of one byte.
const BEST_RATIO: usize = 1032;
/// How far the memory of an inflated body grows at a time, at first.
const STEP: usize = 16 << 10;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// The value of `Content-Encoding`.
    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }
}

/// How the body of a request is coded.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    let is = |name: &str| value.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes());
    if headers.get_all(CONTENT_ENCODING).iter().nth(1).is_some() {
        return Err(Refusal::bad_request("the body is encoded more than once: use gzip or deflate"));
    }
    if is("gzip") || is("x-gzip") {
        Ok(Coding::Gzip)
    } else if is("deflate") {
        Ok(Coding::Deflate)
    } else if is("identity") || is("") {
        Ok(Coding::Identity)
    } else {
        Err(Refusal::bad_request("this Content-Encoding is not supported: use gzip, deflate or identity"))
    }
}

/// The coding that the client likes best for its answer. Of equals: gzip, whose form is agreed on.
pub(super) fn for_answer(headers: &HeaderMap) -> Coding {
    let mut quality = [None; 3];
    let mut others = None;
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let wanted = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        let slot = match &*name.trim().to_ascii_lowercase() {
            "gzip" | "x-gzip" => &mut quality[0],
            "deflate" => &mut quality[1],
            "identity" => &mut quality[2],
            "*" => &mut others,
            _ => continue,
        };
        *slot = Some(wanted);
    }
    let [gzip, deflate] = [quality[0], quality[1]].map(|wanted| wanted.or(others).unwrap_or(0.0));
    let identity = quality[2].unwrap_or(f32::MIN_POSITIVE);
    if gzip >= deflate && gzip >= identity {
        Coding::Gzip
    } else if deflate >= identity {
        Coding::Deflate
    } else {
        Coding::Identity
    }
}

/// The plain body, of `limit` bytes at most, and the permit that now covers it too.
pub(super) async fn inflate(
    body: Bytes,
    coding: Coding,
    limit: usize,
    permit: BodyPermit,
) -> Result<(Bytes, BodyPermit), Refusal> {
    if coding == Coding::Identity {
        return Ok((body, permit));
    }
    // What gzip says of its own length, where that can be true at all.
    if coding == Coding::Gzip
        && let Some(said) = body.last_chunk::<4>()
        && (limit + 1..=body.len() * BEST_RATIO).contains(&(u32::from_le_bytes(*said) as usize))
    {
        return Err(Refusal::too_large(limit));
    }
    let is_short = body.len() <= SHORT_WORK;
    let mut inflation = Inflation { from: decoder(body, coding), to: Vec::new(), limit, permit };
    if !(is_short && inflation.go_on(SHORT_WORK)?) {
        let rest = spawn_blocking(move || inflation.go_on(usize::MAX).map(|_| inflation));
        inflation = rest.await.map_err(|_| Refusal::new(ErrorCode::Internal, "the body could not be inflated"))??;
    }
    Ok((inflation.to.into(), inflation.permit))
}

fn decoder(body: Bytes, coding: Coding) -> Box<dyn Read + Send> {
    // "deflate" is zlib by the standard, and bare deflate from some clients all the same.
    let is_zlib = body.len() >= 2 && body[0] & 0x0f == 8 && u16::from_be_bytes([body[0], body[1]]).is_multiple_of(31);
    let body = body.reader();
    match coding {
        Coding::Identity => Box::new(body),
        Coding::Gzip => Box::new(MultiGzDecoder::new(body)),
        Coding::Deflate if is_zlib => Box::new(ZlibDecoder::new(body)),
        Coding::Deflate => Box::new(DeflateDecoder::new(body)),
    }
}

/// A body being inflated. Memory is taken step by step, within the limit and the budget: a small
/// body that would become a huge one is found out on the way.
struct Inflation {
    from: Box<dyn Read + Send>,
    to: Vec<u8>,
    limit: usize,
    permit: BodyPermit,
}

impl Inflation {
    /// True at the end, false when there are `enough` bytes for now.
    fn go_on(&mut self, enough: usize) -> Result<bool, Refusal> {
        while self.to.len() < enough {
            let start = self.to.len();
            if start == self.to.capacity() {
                // One byte over the limit is enough to know.
                let more = start.max(STEP).min(self.limit + 1 - start);
                self.permit.grow_by(more)?;
                self.to.reserve_exact(more);
            }
            self.to.resize(self.to.capacity().min(start + STEP), 0);
            let broken = |_| Refusal::bad_request("the body is not what its Content-Encoding says");
            let read = self.from.read(&mut self.to[start..]).map_err(broken)?;
            self.to.truncate(start + read);
            if self.to.len() > self.limit {
                return Err(Refusal::too_large(self.limit));
            }
            if read == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The frames of an answer, deflated into one; `None` when they better stay as they are.
pub(super) async fn deflate(first: &Bytes, rest: &[Bytes], coding: Coding) -> Option<Bytes> {
    let size = first.len() + rest.iter().map(Bytes::len).sum::<usize>();
    if coding == Coding::Identity || size < WORTH_DEFLATING {
        return None;
    }
    let mut frames = vec![first.clone()];
    frames.extend_from_slice(rest);
    if size <= SHORT_WORK {
        return deflated(&frames, coding).ok();
    }
    spawn_blocking(move || deflated(&frames, coding).ok()).await.ok().flatten()
}

/// At the fastest level: a tensor seldom gets much smaller at the others.
fn deflated(frames: &[Bytes], coding: Coding) -> io::Result<Bytes> {
    fn all<W: Write>(mut to: W, frames: &[Bytes]) -> io::Result<W> {
        frames.iter().try_for_each(|frame| to.write_all(frame)).map(|()| to)
    }
    let level = Compression::fast();
    let body = match coding {
        Coding::Gzip => all(GzEncoder::new(Vec::new(), level), frames)?.finish()?,
        _ => all(ZlibEncoder::new(Vec::new(), level), frames)?.finish()?,
    };
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use flate2::write::DeflateEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::{fault::Fault, protocol::budget::BodyBudget};

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Runtime::new().unwrap().block_on(future)
    }

    fn inflated(body: Bytes, coding: Coding, limit: usize) -> Result<Bytes, ErrorCode> {
        let permit = BodyBudget::new(1 << 30).reserve(body.len()).unwrap();
        block_on(inflate(body, coding, limit, permit)).map(|(bytes, _)| bytes).map_err(|refusal| refusal.code())
    }

    #[test]
    fn coding_of_a_request_is_known_or_refused() {
        let coding = |value| of_request(&headers(CONTENT_ENCODING, value));
        assert_eq!(of_request(&HeaderMap::new()), Ok(Coding::Identity));
        assert_eq!(coding("GZip"), Ok(Coding::Gzip));
        assert_eq!(coding("deflate"), Ok(Coding::Deflate));
        for bad in ["br", "zstd", "gzip, deflate"] {
            assert_eq!(coding(bad).unwrap_err().code(), ErrorCode::BadRequest, "{bad}");
        }
    }

    #[test]
    fn coding_of_an_answer_is_what_the_client_likes_best() {
        for (accepted, coding) in [
            ("gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("gzip, deflate", Coding::Gzip),
            ("deflate;q=1.0, gzip; q=0.5, br", Coding::Deflate),
            ("gzip;q=0", Coding::Identity),
            ("*", Coding::Gzip),
            ("gzip;q=0, *;q=0.1", Coding::Deflate),
            ("identity, gzip;q=0.5", Coding::Identity),
            ("br", Coding::Identity),
            ("", Coding::Identity),
        ] {
            assert_eq!(for_answer(&headers(ACCEPT_ENCODING, accepted)), coding, "{accepted}");
        }
        assert_eq!(for_answer(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn bare_deflate_and_gzip_of_several_members_are_read() {
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(b"abc").unwrap();
        assert_eq!(inflated(bare.finish().unwrap().into(), Coding::Deflate, 10).unwrap(), "abc");
        let member = deflated(&[Bytes::from("abc")], Coding::Gzip).unwrap();
        assert_eq!(inflated([&member[..], &member].concat().into(), Coding::Gzip, 10).unwrap(), "abcabc");
    }

    #[test]
    fn bomb_is_refused_within_the_limit_and_the_budget() {
        let zeros = Bytes::from(vec![0; 64 << 20]);
        for coding in [Coding::Gzip, Coding::Deflate] {
            let bomb = deflated(std::slice::from_ref(&zeros), coding).unwrap();
            assert_eq!(inflated(bomb.clone(), coding, 1 << 20), Err(ErrorCode::TooLarge));
            let budget = BodyBudget::new(2 << 20);
            let permit = budget.reserve(bomb.len()).unwrap();
            let refusal = block_on(inflate(bomb, coding, 128 << 20, permit)).unwrap_err();
            assert_eq!((refusal.code(), budget.used()), (ErrorCode::Overloaded, 0));
        }
    }

    #[test]
    fn small_answers_stay_as_they_are() {
        assert_eq!(block_on(deflate(&Bytes::from_static(b"{}"), &[], Coding::Gzip)), None);
        assert_eq!(block_on(deflate(&Bytes::from(vec![0; 5000]), &[], Coding::Identity)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn body_of_any_size_round_trips(size in 0_usize..300_000, byte in any::<u8>(), is_gzip in any::<bool>()) {
            let coding = if is_gzip { Coding::Gzip } else { Coding::Deflate };
            let plain: Vec<u8> = (0..size).map(|at| byte.wrapping_mul(at.to_le_bytes()[1])).collect();
            let coded = deflated(&[Bytes::from(plain.clone())], coding).unwrap();
            prop_assert_eq!(inflated(coded.clone(), coding, size).unwrap(), plain);
            if size > 0 {
                prop_assert_eq!(inflated(coded.clone(), coding, size - 1), Err(ErrorCode::TooLarge));
                prop_assert!(inflated(coded.slice(..coded.len() / 2), coding, size).is_err());
            }
        }

        #[test]
        fn any_bytes_inflate_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for coding in [Coding::Gzip, Coding::Deflate] {
                let _ = inflated(bytes.clone().into(), coding, 1000);
            }
        }
    }
}
