//! What runs of a version cost, by rows: measured at load and on every run since.
//!
//! No measurement is believed for ever. A run that was disturbed moves an average by a small factor at most, however long it
//! took; and a size that has not run for a while is held between what the sizes that did run allow ([`Costs::age`]): a run of
//! fewer rows takes no longer, and a row of a larger run no more.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Runs of 1, 2, 4, … rows are told apart; the last bucket holds all larger ones.
const BUCKETS: usize = 12;
/// The weight of a new measurement in what is usual: one in so many.
const WEIGHT: u64 = 8;
/// And where the old one is no longer fresh.
const STALE_WEIGHT: u64 = 2;
/// A run counts as at most so many times what is usual: one that was disturbed makes it an eighth more.
const BOUND: u64 = 2;
/// The mean is to tell how long what waits will take, long runs included: they weigh less, but are cut later.
const MEAN_WEIGHT: u64 = 16;
const STALE_MEAN_WEIGHT: u64 = 4;
const MEAN_BOUND: u64 = 16;
/// A size that ran within so many runs of the version is fresh.
pub(super) const FRESH: u64 = 64;
/// The unit of average rows.
const ROW: u64 = 256;

/// Moving averages of the time of a run, by rows.
#[derive(Debug, Default)]
pub(super) struct Costs {
    sizes: [Size; BUCKETS],
    /// Runs so far. Two at once may count as one.
    runs: AtomicU64,
}

/// What was measured of runs of about the same rows. Two runs may overwrite each other's share: averages bear that.
#[derive(Debug, Default)]
struct Size {
    /// What a run usually takes, in nanoseconds: what disturbs a few runs hardly shows. Zero when none was measured.
    usual: AtomicU64,
    /// What a run takes on average, in nanoseconds.
    mean: AtomicU64,
    /// The rows of these runs on average, in parts of [`ROW`].
    rows: AtomicU64,
    /// The number of the last of these runs.
    last: AtomicU64,
}

/// One of the averages.
type Average = fn(&Size) -> &AtomicU64;

fn usual(size: &Size) -> &AtomicU64 {
    &size.usual
}

fn mean(size: &Size) -> &AtomicU64 {
    &size.mean
}

fn bucket(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

fn in_rows(rows: usize) -> u64 {
    (rows.max(1) as u64).saturating_mul(ROW)
}

fn moved(old: u64, new: u64, weight: u64) -> u64 {
    (old - old / weight).saturating_add(new / weight).max(1)
}

/// `time` of a run of `of` rows, in proportion for `rows`.
fn in_proportion(time: u64, of: u64, rows: u64) -> u64 {
    u64::try_from(u128::from(time) * u128::from(rows) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

impl Costs {
    /// A run of `rows` rows took `time`. The number of runs so far.
    pub(super) fn record(&self, rows: usize, time: Duration) -> u64 {
        let size = &self.sizes[bucket(rows)];
        let (new, rows) = (nanoseconds(time).max(1), in_rows(rows));
        let run = self.runs.load(Relaxed).wrapping_add(1);
        self.runs.store(run, Relaxed);
        let old = size.usual.load(Relaxed);
        if old == 0 {
            size.rows.store(rows, Relaxed);
            size.mean.store(new, Relaxed);
            size.usual.store(new, Relaxed);
        } else {
            let is_fresh = run.wrapping_sub(size.last.load(Relaxed)) <= FRESH;
            let (weight, mean_weight) =
                if is_fresh { (WEIGHT, MEAN_WEIGHT) } else { (STALE_WEIGHT, STALE_MEAN_WEIGHT) };
            size.usual.store(moved(old, new.min(old.saturating_mul(BOUND)), weight), Relaxed);
            let mean = size.mean.load(Relaxed);
            size.mean.store(moved(mean, new.min(mean.saturating_mul(MEAN_BOUND)), mean_weight), Relaxed);
            size.rows.store(moved(size.rows.load(Relaxed), rows, weight), Relaxed);
        }
        size.last.store(run, Relaxed);
        run
    }

    /// Runs so far.
    pub(super) fn runs(&self) -> u64 {
        self.runs.load(Relaxed)
    }

    /// Holds the sizes that have not run for a while between what fresh ones allow.
    pub(super) fn age(&self) {
        for average in [usual as Average, mean] {
            self.age_from(average, 0..BUCKETS, |time, rows, (fresh, fresh_rows)| {
                // A fresh run of fewer rows: this one takes as long at least, and no longer in proportion.
                time.min(in_proportion(fresh, fresh_rows, rows)).max(fresh)
            });
            self.age_from(average, (0..BUCKETS).rev(), |time, rows, (fresh, fresh_rows)| {
                time.max(in_proportion(fresh, fresh_rows, rows)).min(fresh)
            });
        }
    }

    /// Goes over the sizes in an order, and has each that is not fresh `held` by the fresh one before it, as time and rows.
    fn age_from(
        &self,
        average: Average,
        order: impl Iterator<Item = usize>,
        held: impl Fn(u64, u64, (u64, u64)) -> u64,
    ) {
        let mut before = None;
        for bucket in order {
            let size = &self.sizes[bucket];
            let (time, rows) = (average(size).load(Relaxed), size.rows.load(Relaxed));
            if time == 0 {
                continue;
            }
            if self.is_fresh(bucket) {
                before = Some((time, rows));
            } else if let Some(before) = before {
                average(size).store(held(time, rows, before).max(1), Relaxed);
            }
        }
    }

    fn is_fresh(&self, bucket: usize) -> bool {
        let size = &self.sizes[bucket];
        size.usual.load(Relaxed) > 0 && self.runs().wrapping_sub(size.last.load(Relaxed)) <= FRESH
    }

    /// True when runs of about `rows` rows were measured lately.
    pub(super) fn is_known(&self, rows: usize) -> bool {
        self.is_fresh(bucket(rows))
    }

    /// What a run of `rows` rows will usually take: as measured, or in proportion to the nearest size that
    /// was. Zero when nothing was measured.
    pub(super) fn expected(&self, rows: usize) -> Duration {
        let wanted = bucket(rows);
        let measured = |bucket: usize| Some(self.sizes[bucket].usual.load(Relaxed)).filter(|&time| time > 0);
        let below = (0..=wanted).rev().find_map(|bucket| Some((bucket, measured(bucket)?)));
        let nearest = below.or_else(|| (wanted + 1..BUCKETS).find_map(|bucket| Some((bucket, measured(bucket)?))));
        let Some((bucket, time)) = nearest else { return Duration::ZERO };
        let (measured_rows, rows) = (self.sizes[bucket].rows.load(Relaxed), in_rows(rows));
        // A smaller run takes at most as long as a larger one.
        let time = if rows <= measured_rows { time } else { in_proportion(time, measured_rows, rows) };
        Duration::from_nanos(time)
    }

    /// The least time per row of all sizes up to `max_rows`, on average.
    pub(super) fn per_row(&self, max_rows: usize) -> Duration {
        let sizes = self.sizes[..=bucket(max_rows)].iter().filter_map(|size| {
            let time = size.mean.load(Relaxed);
            (time > 0).then(|| time.saturating_mul(ROW) / size.rows.load(Relaxed).max(1))
        });
        Duration::from_nanos(sizes.min().unwrap_or(0))
    }

    /// What a row usually takes in runs of about `rows` rows, when each run takes `overhead` besides. `None` when none was
    /// measured.
    pub(super) fn per_row_of(&self, rows: usize, overhead: Duration) -> Option<f64> {
        let size = &self.sizes[bucket(rows)];
        let (time, rows) = (size.usual.load(Relaxed), size.rows.load(Relaxed));
        (time > 0).then(|| (time as f64 + overhead.as_nanos() as f64) / rows.max(1) as f64)
    }

    /// The most rows, up to `max_rows`, that a run can have and be expected to end within `limit`;
    /// at least 1.
    pub(super) fn rows_within(&self, limit: Duration, max_rows: usize) -> usize {
        let sizes = (0..=bucket(max_rows)).rev().map(|bucket| (1_usize << bucket).min(max_rows.max(1)));
        // The largest that fits: a smaller one whose runs were disturbed says nothing of it.
        sizes.into_iter().find(|&rows| self.expected(rows) <= limit).unwrap_or(1)
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

    #[test]
    fn one_disturbed_run_counts_as_a_little_more_than_usual() {
        let costs = Costs::default();
        costs.record(64, micros(450));
        costs.record(64, Duration::from_secs(3));
        assert!(costs.expected(64) < micros(507), "{:?}", costs.expected(64));
        assert!(costs.per_row(64) < micros(2 * 450 / 64), "{:?}", costs.per_row(64));
    }

    #[test]
    fn long_runs_among_short_ones_count_in_the_mean_and_hardly_in_what_is_usual() {
        let costs = Costs::default();
        for run in 0..20_000 {
            costs.record(1, micros(if run % 10 == 9 { 1_000 } else { 100 }));
        }
        assert!(costs.expected(1) < micros(140), "{:?}", costs.expected(1));
        let mean = costs.per_row(1);
        assert!(mean > micros(150) && mean < micros(260), "190 µs on average, and it moves: {mean:?}");
    }

    #[test]
    fn sizes_that_no_longer_run_are_held_between_what_fresh_ones_allow() {
        let costs = Costs::default();
        // All was disturbed but the run of 4 rows; then only runs of 4 and 16 rows come.
        for (rows, time) in [(1, 900), (2, 5), (4, 40), (8, 700), (16, 4_000), (32, 9_000)] {
            costs.record(rows, micros(time));
        }
        for _ in 0..100 {
            costs.record(4, micros(40));
            costs.record(16, micros(100));
        }
        costs.age();
        let about = |rows, least: u64, most: u64| {
            let time = costs.expected(rows);
            assert!(time >= micros(least) && time <= micros(most), "{rows}: {time:?}");
        };
        about(1, 40, 41);
        about(2, 20, 21);
        about(8, 79, 81);
        about(16, 99, 101);
        about(32, 199, 202);
        // A mean that is too low is as wrong as one too high.
        let cheap = Costs::default();
        cheap.record(8, micros(8));
        for _ in 0..100 {
            cheap.record(1, micros(100));
            cheap.record(16, micros(160));
        }
        cheap.age();
        assert_eq!(cheap.per_row(64), micros(10));
    }

    #[test]
    fn rows_of_runs_are_those_that_ran_and_not_the_most_of_their_bucket() {
        let costs = Costs::default();
        costs.record(20, micros(200));
        assert_eq!((costs.expected(32), costs.per_row(64)), (micros(320), micros(10)));
        assert_eq!(costs.rows_within(micros(300), 64), 16);
    }
}
