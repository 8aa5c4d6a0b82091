//! What the metadata of a call says of the requests in it: the routing key and the deadlines.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

use crate::protocol::{
    ROUTING_KEY_HEADER, deadline,
    refusal::{Refusal, shown},
};

/// gRPC's own deadline of a call, which its libraries send by themselves.
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The terms of a call. A stream reads them once, for all of its requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CallTerms {
    pub(super) routing_key: Option<String>,
    /// The end of the whole call.
    call_ends: Option<Instant>,
    /// How long one request may take.
    timeout: Option<Duration>,
}

impl CallTerms {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let call_ends = text(headers, &GRPC_TIMEOUT)?.map(grpc_timeout).transpose()?;
        let timeout = deadline::header_timeout(headers)?;
        Ok(Self {
            routing_key: text(headers, &ROUTING_KEY_HEADER)?.map(String::from),
            call_ends: call_ends.and_then(|timeout| Instant::now().checked_add(timeout)),
            timeout,
        })
    }

    #[cfg(test)]
    pub(super) fn with_routing_key(key: &str) -> Self {
        Self { routing_key: Some(key.to_owned()), ..Self::default() }
    }

    /// When the answer to a request that arrives now is of no use any more; `parameter` is the
    /// request's own timeout. The earliest limit wins.
    pub(super) fn deadline(&self, parameter: Option<Duration>) -> Option<Instant> {
        let timeout = self.timeout.into_iter().chain(parameter).min();
        let request_ends = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.call_ends.into_iter().chain(request_ends).min()
    }
}

/// The value of a header; an empty one is none.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Refusal::bad_request(format!("the metadata {name} is not UTF-8 text")))?;
    Ok((!text.is_empty()).then_some(text))
}

/// gRPC's form: up to eight digits and one letter for the unit.
fn grpc_timeout(text: &str) -> Result<Duration, Refusal> {
    let wrong = || {
        let shown = shown(text);
        Refusal::bad_request(format!(
            "the metadata {GRPC_TIMEOUT} is '{shown}': use at most 8 digits and a unit of H, M, S, m, u or n"
        ))
    };
    let (digits, unit) = text.split_at_checked(text.len() - 1).ok_or_else(wrong)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::fault::{ErrorCode, Fault};

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = given
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        pairs.collect()
    }

    /// How many seconds are left, the one that has begun included.
    fn left(terms: &CallTerms, parameter: Option<Duration>) -> Option<u64> {
        let deadline = terms.deadline(parameter)?;
        Some((deadline - Instant::now()).as_secs() + 1)
    }

    #[test]
    fn grpc_timeout_of_every_unit_is_read() {
        for (text, duration) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("00000009n", Duration::from_nanos(9)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(grpc_timeout(text).unwrap(), duration, "{text}");
        }
    }

    #[test]
    fn timeout_that_cannot_be_read_is_a_bad_request() {
        for text in ["S", "1", "1s", "1ms", "123456789S", "-1S", "+1S", "1.5S", " 1S", "1é", "é"] {
            let refusal = CallTerms::read(&headers(&[("grpc-timeout", text)])).unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::BadRequest);
            assert!(refusal.message().contains("grpc-timeout") && refusal.message().contains(text), "{refusal}");
        }
        for text in ["5", "ms", "-1s", "soon"] {
            let refusal = CallTerms::read(&headers(&[("tidegate-timeout", text)])).unwrap_err();
            assert!(refusal.message().contains("such as 250ms"), "{refusal}");
        }
    }

    #[test]
    fn earliest_deadline_wins() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let none = CallTerms::read(&HeaderMap::new()).unwrap();
        assert_eq!((none.deadline(None), left(&none, seconds(60))), (None, Some(60)));
        let both = CallTerms::read(&headers(&[("grpc-timeout", "2M"), ("tidegate-timeout", "90s")])).unwrap();
        assert_eq!(
            (left(&both, None), left(&both, seconds(60)), left(&both, seconds(100))),
            (Some(90), Some(60), Some(90))
        );
        let call = CallTerms::read(&headers(&[("grpc-timeout", "60S")])).unwrap();
        assert_eq!(left(&call, seconds(100)), Some(60));
        assert_eq!(none.deadline(Some(Duration::MAX)), None, "a time that never comes is no deadline");
    }

    #[test]
    fn empty_metadata_is_none() {
        let empty = headers(&[("grpc-timeout", ""), ("tidegate-routing-key", "")]);
        assert_eq!(CallTerms::read(&empty).unwrap(), CallTerms::default());
        let broken: HeaderMap =
            [(HeaderName::from_static("tidegate-routing-key"), HeaderValue::from_bytes(b"\xff").unwrap())]
                .into_iter()
                .collect();
        assert!(CallTerms::read(&broken).unwrap_err().message().contains("not UTF-8"));
    }

    proptest! {
        #[test]
        fn any_timeout_is_read_without_panic(text in "\\PC{0,12}|[0-9]{0,10}[HMSmun]") {
            if !text.is_empty() {
                let _ = grpc_timeout(&text);
            }
        }
    }
}
