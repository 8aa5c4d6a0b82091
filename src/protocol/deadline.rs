//! How long the caller will wait, as the headers of a request say, and how long we wait for the caller.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use http::HeaderMap;
use tokio::time::{error::Elapsed, timeout};

use super::{ENVOY_TIMEOUT_HEADER, TIMEOUT_HEADER, refusal::Refusal};

/// The shortest time that the headers allow; `None` when they say nothing of it.
///
/// Our own header is a duration with its unit, and wrong is wrong. Envoy's is set by a proxy
/// and not by the caller: what cannot be read there is passed over. Zero means no limit.
pub(super) fn header_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let ours = match headers.get(&TIMEOUT_HEADER) {
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
    let millis = headers.get(&ENVOY_TIMEOUT_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let envoys = millis.map(Duration::from_millis);
    Ok(ours.into_iter().chain(envoys).filter(|timeout| !timeout.is_zero()).min())
}

/// What comes of `future` in time. Most of what is waited for is there already, and then no clock is read and no
/// timer made: `limit` is asked only when it is not.
pub(super) async fn within<T>(limit: impl FnOnce() -> Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = pin!(future);
    match poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => timeout(limit(), future).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_is_taken_whatever_the_limit_and_what_is_not_in_time() {
        assert_eq!(within(|| panic!("nobody waits"), async { 1 }).await, Ok(1));
        let soon = async {
            tokio::task::yield_now().await;
            2
        };
        assert_eq!(within(|| Duration::from_mins(1), soon).await, Ok(2));
        assert!(within(|| Duration::from_millis(1), std::future::pending::<()>()).await.is_err());
    }

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<Duration>, Refusal> {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        header_timeout(&pairs.collect())
    }

    #[test]
    fn shortest_of_the_headers_wins() {
        let millis = |millis| Ok(Some(Duration::from_millis(millis)));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("tidegate-timeout", "250ms")]), millis(250));
        assert_eq!(read(&[("tidegate-timeout", "1s 500ms")]), millis(1500));
        assert_eq!(read(&[("x-envoy-expected-rq-timeout-ms", "15000")]), millis(15_000));
        let both = |ours| read(&[("tidegate-timeout", ours), ("x-envoy-expected-rq-timeout-ms", "15000")]);
        assert_eq!(both("2s"), millis(2000));
        assert_eq!(both("1h"), millis(15_000));
        assert_eq!(both("0s"), millis(15_000), "zero is no limit");
    }

    #[test]
    fn timeout_that_cannot_be_read_is_refused_if_it_is_the_callers() {
        for bad in ["", "5", "-5s", "5 parsecs", "99999999999999999999s"] {
            assert!(read(&[("tidegate-timeout", bad)]).is_err(), "{bad}");
            assert!(read(&[("x-envoy-expected-rq-timeout-ms", bad)]).is_ok(), "{bad}");
        }
    }
}
