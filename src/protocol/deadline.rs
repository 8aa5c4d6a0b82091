//! How long the caller will wait, as the headers of a request say.

use std::time::Duration;

use http::HeaderMap;

use super::{ENVOY_TIMEOUT_HEADER, TIMEOUT_HEADER, refusal::Refusal};

/// The shortest time that the headers allow; `None` when they say nothing of it.
///
/// Our own header is a duration with its unit, and wrong is wrong. Envoy's is set by a proxy
/// and not by the caller: what cannot be read there is passed over. Zero means no limit.
pub(super) fn header_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let ours = match headers.get(TIMEOUT_HEADER) {
        None => None,
        Some(value) => {
            let duration = value.to_str().ok().and_then(|text| humantime::parse_duration(text).ok());
            let wrong = || {
                Refusal::bad_request(format!(
                    "{TIMEOUT_HEADER} is not a duration: write a number with a unit, such as 250ms or 5s"
                ))
            };
            Some(duration.ok_or_else(wrong)?)
        }
    };
    let millis = headers.get(ENVOY_TIMEOUT_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let envoys = millis.map(Duration::from_millis);
    Ok(ours.into_iter().chain(envoys).filter(|timeout| !timeout.is_zero()).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(headers: &[(&'static str, &str)]) -> Result<Option<Duration>, Refusal> {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        header_timeout(&pairs.collect())
    }

    #[test]
    fn shortest_of_the_headers_wins() {
        let millis = |millis| Ok(Some(Duration::from_millis(millis)));
        assert_eq!(timeout(&[]), Ok(None));
        assert_eq!(timeout(&[("tidegate-timeout", "250ms")]), millis(250));
        assert_eq!(timeout(&[("tidegate-timeout", "1s 500ms")]), millis(1500));
        assert_eq!(timeout(&[("x-envoy-expected-rq-timeout-ms", "15000")]), millis(15_000));
        let both = |ours| timeout(&[("tidegate-timeout", ours), ("x-envoy-expected-rq-timeout-ms", "15000")]);
        assert_eq!(both("2s"), millis(2000));
        assert_eq!(both("1h"), millis(15_000));
        assert_eq!(both("0s"), millis(15_000), "zero is no limit");
    }

    #[test]
    fn timeout_that_cannot_be_read_is_refused_if_it_is_the_callers() {
        for bad in ["", "5", "-5s", "5 parsecs", "99999999999999999999s"] {
            assert!(timeout(&[("tidegate-timeout", bad)]).is_err(), "{bad}");
            assert!(timeout(&[("x-envoy-expected-rq-timeout-ms", bad)]).is_ok(), "{bad}");
        }
    }
}
