//! What runs of a version cost, by rows: measured at load and on every run since.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Runs of 1, 2, 4, … rows are told apart; the last bucket holds all larger ones.
const BUCKETS: usize = 12;
/// The weight of a new measurement in the moving average.
const WEIGHT: u64 = 8;

/// Moving averages of the time of a run; zero is not measured yet.
#[derive(Debug, Default)]
pub(super) struct Costs {
    nanoseconds: [AtomicU64; BUCKETS],
}

/// The rows that a bucket stands for.
fn rows_of(bucket: usize) -> u64 {
    1 << bucket
}

fn bucket(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

impl Costs {
    /// A run of `rows` rows took `time`.
    pub(super) fn record(&self, rows: usize, time: Duration) {
        let slot = &self.nanoseconds[bucket(rows)];
        let (new, old) = (nanoseconds(time).max(1), slot.load(Relaxed));
        // Two runs may overwrite each other's share: an average bears that.
        let average = if old == 0 { new } else { old - old / WEIGHT + new / WEIGHT };
        slot.store(average.max(1), Relaxed);
    }

    /// What a run of `rows` rows will take: as measured, or in proportion to the nearest size that
    /// was. Zero when nothing was measured.
    pub(super) fn expected(&self, rows: usize) -> Duration {
        let wanted = bucket(rows);
        let measured = |bucket: usize| Some(self.nanoseconds[bucket].load(Relaxed)).filter(|&time| time > 0);
        let below = (0..=wanted).rev().find_map(|bucket| Some((bucket, measured(bucket)?)));
        let nearest = below.or_else(|| (wanted + 1..BUCKETS).find_map(|bucket| Some((bucket, measured(bucket)?))));
        let Some((bucket, time)) = nearest else { return Duration::ZERO };
        if bucket >= wanted && rows <= usize::try_from(rows_of(bucket)).unwrap_or(usize::MAX) {
            return Duration::from_nanos(time);
        }
        Duration::from_nanos(time.saturating_mul(rows as u64) / rows_of(bucket))
    }

    /// The least time per row of all sizes up to `max_rows`.
    pub(super) fn per_row(&self, max_rows: usize) -> Duration {
        let sizes = (0..=bucket(max_rows)).filter_map(|bucket| {
            let time = self.nanoseconds[bucket].load(Relaxed);
            (time > 0).then(|| time / rows_of(bucket))
        });
        Duration::from_nanos(sizes.min().unwrap_or(0))
    }

    /// The most rows, up to `max_rows`, that a run can have and be expected to end within `limit`;
    /// at least 1.
    pub(super) fn rows_within(&self, limit: Duration, max_rows: usize) -> usize {
        let sizes = (0..=bucket(max_rows)).map(|bucket| (1_usize << bucket).min(max_rows.max(1)));
        sizes.take_while(|&rows| rows == 1 || self.expected(rows) <= limit).last().unwrap_or(1)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(value: u64) -> Duration {
        Duration::from_micros(value)
    }

    #[test]
    fn unmeasured_sizes_are_expected_in_proportion() {
        let costs = Costs::default();
        assert_eq!(costs.expected(4), Duration::ZERO);
        costs.record(2, micros(20));
        assert_eq!(costs.expected(2), micros(20));
        assert_eq!(costs.expected(16), micros(160));
        // A smaller run takes at most as long as the next larger one.
        assert_eq!(costs.expected(1), micros(20));
    }

    #[test]
    fn average_follows_what_is_measured() {
        let costs = Costs::default();
        costs.record(1, micros(100));
        for _ in 0..100 {
            costs.record(1, micros(10));
        }
        assert!(costs.expected(1) < micros(12), "{:?}", costs.expected(1));
    }

    #[test]
    fn rows_within_a_limit_follow_the_measurements() {
        let costs = Costs::default();
        for (rows, time) in [(1, 10), (2, 12), (4, 16), (8, 80)] {
            costs.record(rows, micros(time));
        }
        assert_eq!(costs.rows_within(micros(20), 64), 4);
        assert_eq!(costs.rows_within(micros(20), 3), 3);
        assert_eq!(costs.rows_within(micros(1), 64), 1);
        assert_eq!(costs.per_row(64), micros(4));
    }
}
