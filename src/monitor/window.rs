//! Sliding windows over counters, at a cost that does not depend on the traffic.
//!
//! A window is cut into sub-windows. When a sub-window begins, the counters' totals are noted; the
//! counts of a window are today's totals less those noted at its start. So counting a row costs
//! nothing here, and an old sub-window leaves by being overwritten.

use std::time::Duration;

/// Windows of several lengths over the same counters.
///
/// Time is handed in, since the start of the program; it is never read here.
#[derive(Debug)]
pub(super) struct Windows {
    /// Shortest first.
    rings: Vec<Ring>,
}

impl Windows {
    /// Windows of the given lengths (at least a millisecond), each of `sub_windows` parts, over
    /// `cells` counters at 0.
    pub(super) fn new(lengths: &[Duration], sub_windows: usize, cells: usize) -> Self {
        let mut lengths: Vec<_> = lengths.iter().map(|length| Duration::from_millis(1).max(*length)).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { rings: lengths.into_iter().map(|length| Ring::new(length, sub_windows.max(1), cells)).collect() }
    }

    /// Must be called before rows of the time `now` are counted. `totals` is asked for the
    /// counters only when a sub-window has begun since.
    pub(super) fn advance(&mut self, now: Duration, totals: impl Fn() -> Vec<u64>) {
        if self.rings.iter().any(|ring| ring.index(now) > ring.latest) {
            let totals = totals();
            for ring in &mut self.rings {
                ring.advance(now, &totals);
            }
        }
    }

    /// The rows counted in the last `window`, cell by cell, given the totals of `now`: none is
    /// older than `window`, and those within one sub-window of that age may be left out already.
    ///
    /// A window longer than the longest configured is cut to that.
    pub(super) fn counts(&self, now: Duration, window: Duration, mut totals: Vec<u64>) -> Vec<u64> {
        let Some(ring) = self.rings.iter().find(|ring| ring.length >= window).or(self.rings.last()) else {
            return totals;
        };
        if let Some(start) = ring.start(now, window) {
            for (total, before) in totals.iter_mut().zip(start) {
                *total -= before;
            }
        } else {
            totals.fill(0);
        }
        totals
    }
}

/// The totals at the starts of the latest sub-windows.
#[derive(Debug)]
struct Ring {
    length: Duration,
    sub_windows: usize,
    cells: usize,
    /// The latest sub-window whose start is noted.
    latest: u64,
    /// Sub-window `i` at `i % sub_windows`, `cells` totals each.
    starts: Box<[u64]>,
}

impl Ring {
    fn new(length: Duration, sub_windows: usize, cells: usize) -> Self {
        let starts = vec![0; sub_windows * cells].into();
        Self { length, sub_windows, cells, latest: 0, starts }
    }

    /// The sub-window that `now` is in, counted from the start of the program.
    fn index(&self, now: Duration) -> u64 {
        let index = now.as_nanos() * self.sub_windows as u128 / self.length.as_nanos();
        u64::try_from(index).unwrap_or(u64::MAX)
    }

    fn advance(&mut self, now: Duration, totals: &[u64]) {
        let index = self.index(now);
        // Nothing was counted since `latest` was: all sub-windows since begin with these totals.
        let begun = index.saturating_sub(self.latest).min(self.sub_windows as u64);
        for sub_window in index + 1 - begun..=index {
            let at = self.offset(sub_window);
            self.starts[at..at + self.cells].copy_from_slice(totals);
        }
        self.latest = self.latest.max(index);
    }

    /// The totals at the start of a window that ends at `now`; `None` when nothing was counted since.
    fn start(&self, now: Duration, window: Duration) -> Option<&[u64]> {
        let parts = (window.as_nanos() * self.sub_windows as u128).div_ceil(self.length.as_nanos());
        let parts = u64::try_from(parts).unwrap_or(u64::MAX).clamp(1, self.sub_windows as u64);
        let first = (self.index(now).max(self.latest) + 1).saturating_sub(parts);
        let at = self.offset(first);
        (first <= self.latest).then(|| &self.starts[at..at + self.cells])
    }

    fn offset(&self, sub_window: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a usize")]
        let slot = (sub_window % self.sub_windows as u64) as usize;
        slot * self.cells
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn window_forgets_rows_older_than_itself() {
        let mut windows = Windows::new(&[seconds(60)], 60, 1);
        windows.advance(seconds(10), || vec![0]);
        // Seven rows at 10 s.
        assert_eq!(windows.counts(seconds(10), seconds(60), vec![7]), [7]);
        assert_eq!(windows.counts(seconds(69), seconds(60), vec![7]), [7]);
        assert_eq!(windows.counts(seconds(70), seconds(60), vec![7]), [0]);
        assert_eq!(windows.counts(seconds(69), seconds(30), vec![7]), [0]);
    }

    #[test]
    fn window_before_its_length_has_passed_counts_all() {
        let mut windows = Windows::new(&[seconds(60), seconds(3600)], 60, 2);
        windows.advance(seconds(0), || vec![0, 0]);
        assert_eq!(windows.counts(seconds(1), seconds(3600), vec![1, 2]), [1, 2]);
        assert_eq!(windows.counts(seconds(1), seconds(99_999), vec![1, 2]), [1, 2]);
    }

    #[test]
    fn totals_are_read_only_when_a_sub_window_begins() {
        let mut windows = Windows::new(&[seconds(60)], 60, 1);
        windows.advance(seconds(5), || vec![0]);
        windows.advance(seconds(5), || unreachable!("the same second"));
        // Time that goes back stands still.
        windows.advance(seconds(3), || unreachable!("an earlier second"));
    }

    proptest! {
        /// Against the definition: a row counts when its sub-window is one of the last `k`, where
        /// `k` sub-windows are the window asked for.
        #[test]
        fn window_sums_equal_a_naive_model(
            steps in prop::collection::vec((0_u64..40, 0_u64..5), 1..60),
            sub_windows in 1_usize..12,
            lengths in prop::collection::vec(1_u64..50, 1..4),
            asked in 1_u64..60,
        ) {
            let lengths: Vec<_> = lengths.into_iter().map(seconds).collect();
            let mut windows = Windows::new(&lengths, sub_windows, 1);
            let (mut now, mut total, mut rows) = (seconds(0), 0, Vec::new());
            for (pause, count) in steps {
                now += seconds(pause);
                windows.advance(now, || vec![total]);
                total += count;
                rows.push((now, count));

                let longest = *lengths.iter().max().unwrap();
                let length = lengths.iter().filter(|length| **length >= seconds(asked)).min().unwrap_or(&longest).as_secs();
                let parts = (asked.min(length) * sub_windows as u64).div_ceil(length);
                let index = |time: Duration| time.as_secs() * sub_windows as u64 / length;
                let naive: u64 = rows.iter().filter(|(time, _)| index(*time) + parts > index(now)).map(|(_, count)| count).sum();
                prop_assert_eq!(windows.counts(now, seconds(asked), vec![total]), vec![naive]);
            }
        }
    }
}
