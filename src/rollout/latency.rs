//! A histogram of latencies whose buckets are an eighth of a power of two wide.

use std::time::Duration;

use super::Pair;

/// Buckets within one power of two.
const PARTS: u32 = 8;
/// From 2^10 ns (1 µs) to 2^40 ns (18 min): what is shorter or longer belongs to the first or last.
const LOWEST: u32 = 10;
const HIGHEST: u32 = 40;

/// How many buckets there are.
pub const BUCKETS: usize = ((HIGHEST - LOWEST) * PARTS) as usize;

/// The bucket of a latency.
#[must_use]
pub fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).clamp(1 << LOWEST, (1 << HIGHEST) - 1);
    let power = nanos.ilog2();
    let part = (nanos >> (power - PARTS.ilog2())) - u64::from(PARTS);
    ((power - LOWEST) * PARTS) as usize + usize::try_from(part).unwrap_or(0)
}

/// The upper bound of a bucket.
fn bound(bucket: usize) -> Duration {
    let (power, part) = (LOWEST as usize + bucket / PARTS as usize, bucket as u64 % u64::from(PARTS));
    Duration::from_nanos((u64::from(PARTS) + part + 1) << (power - PARTS.ilog2() as usize))
}

/// The latency that a share `q` of the requests of one arm did not exceed: the upper bound of its bucket,
/// which is at most an eighth more. `None` without a request.
#[must_use]
pub fn quantile(latencies: &[Pair], arm: impl Fn(&Pair) -> u64, q: f64) -> Option<Duration> {
    let all: u64 = latencies.iter().map(&arm).sum();
    if all == 0 {
        return None;
    }
    let wanted = (q * all as f64).ceil().max(1.0);
    let mut below = 0;
    let found = latencies.iter().position(|pair| {
        below += arm(pair);
        below as f64 >= wanted
    });
    found.map(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_holds_what_is_below_its_bound_and_not_below_the_one_before() {
        for nanos in [1_024, 1_151, 1_152, 5_000, 123_456, 1_000_000, 999_999_999, 60_000_000_000] {
            let latency = Duration::from_nanos(nanos);
            let at = bucket(latency);
            assert!(latency < bound(at), "{nanos}");
            assert!(at == 0 || latency >= bound(at - 1), "{nanos}");
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn quantile_is_at_most_an_eighth_too_high() {
        let mut latencies = vec![Pair::default(); BUCKETS];
        for millis in 1..=1000 {
            latencies[bucket(Duration::from_millis(millis))].canary += 1;
        }
        for (q, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = quantile(&latencies, |pair| pair.canary, q).unwrap().as_secs_f64() * 1000.0;
            assert!((exact..=exact * 1.125 + 1.0).contains(&found), "{q}: {found}");
        }
        assert_eq!(quantile(&latencies, |pair| pair.stable, 0.5), None);
    }
}
