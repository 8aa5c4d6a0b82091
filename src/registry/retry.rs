//! When a load that failed for a reason that may pass is tried again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use crate::domain::{ModelName, Version};

/// Before the second try.
const FIRST: Duration = Duration::from_secs(1);
/// However often it has failed: a disk that comes back must not be waited for in vain.
const LONGEST: Duration = Duration::from_secs(60);

/// Tries so far that failed in a row, and when the next one is due, by the registry's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) failures: u32,
    pub(super) due: Option<Duration>,
}

impl Retry {
    /// After a failure at `now`; `jitter` is from 0 to 1.
    pub(super) fn failed(self, now: Duration, jitter: f64) -> Self {
        let failures = self.failures.saturating_add(1);
        Self { failures, due: Some(now + delay(failures, jitter)) }
    }

    pub(super) fn is_due(self, now: Duration) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

/// Twice as long after each failure, of which the half is left to chance: what failed together must
/// not be tried again together.
fn delay(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Chance, from 0 to 1.
pub(super) fn jitter(model: &ModelName, version: Version) -> f64 {
    // Each `RandomState` has keys of its own.
    let bits = RandomState::new().hash_one((model.as_str(), version.get())) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_half_of_each_is_chance() {
        let seconds = |failures, jitter| delay(failures, jitter).as_secs();
        assert_eq!([1, 2, 3, 6].map(|failures| seconds(failures, 1.0)), [1, 2, 4, 32]);
        assert_eq!([7, 8, 40, u32::MAX].map(|failures| seconds(failures, 1.0)), [60; 4]);
        assert_eq!(seconds(3, 0.0), 2);
        let jitter = jitter(&"m".parse().unwrap(), Version::new(1).unwrap());
        assert!((0.0..1.0).contains(&jitter));
    }

    #[test]
    fn retry_is_due_when_its_time_has_come() {
        let at = Duration::from_secs;
        let retry = Retry::default();
        assert!(!retry.is_due(at(1000)), "nothing has failed");
        let retry = retry.failed(at(10), 1.0);
        assert!(!retry.is_due(Duration::from_millis(10_999)) && retry.is_due(at(11)));
        let retry = retry.failed(at(11), 1.0);
        assert_eq!((retry.failures, retry.due), (2, Some(at(13))));
    }
}
