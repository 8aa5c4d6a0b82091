//! Sliding windows over counters, at a cost that does not depend on the traffic.
//!
//! A window is cut into sub-windows. When a sub-window begins, the counters' totals are noted; the
//! counts of a window are today's totals less those noted at its start. So counting a row costs
//! nothing here, and an old sub-window leaves by being overwritten.

use std::{ops::Range, sync::Arc, time::Duration};

use super::{saved::SavedRing, verdict::Series};

/// Windows of several lengths over the same counters.
///
/// Time is handed in, since some moment that is the same for all runs of the program; it is never read here.
#[derive(Debug)]
pub(super) struct Windows {
    /// Shortest first.
    rings: Vec<Ring>,
}

/// What is taken off the totals to have the rows of a window.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// Nothing: there are no windows.
    Ever,
    /// The totals at its start.
    Noted(Arc<[u64]>),
    /// All: nothing was counted since.
    Empty,
}

impl Start {
    /// The rows of the window, cell by cell, given the totals of the same moment.
    pub(super) fn rows(&self, mut totals: Vec<u64>) -> Vec<u64> {
        match self {
            Self::Ever => {}
            Self::Noted(before) => totals.iter_mut().zip(&**before).for_each(|(total, before)| *total -= before),
            Self::Empty => totals.fill(0),
        }
        totals
    }

    /// Whether the same is taken off. True only where that is cheap to see.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ever, Self::Ever) | (Self::Empty, Self::Empty) => true,
            (Self::Noted(own), Self::Noted(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
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
            let totals: Arc<[u64]> = totals().into();
            for ring in &mut self.rings {
                ring.advance(now, &totals);
            }
        }
    }

    /// Where the last `window` starts: none of its rows is older, and those within one sub-window of that age may be
    /// left out already.
    ///
    /// A window longer than the longest configured is cut to that.
    pub(super) fn start(&self, now: Duration, window: Duration) -> Start {
        let ring = self.rings.iter().find(|ring| ring.length >= window).or(self.rings.last());
        ring.map_or(Start::Ever, |ring| ring.start(now, window))
    }

    /// The rows of these cells by sub-window, the oldest first: of the last `window`; of the next longer one before that
    /// (empty where there is none); of the shorter ones, the longest first. `totals` are theirs of `now`.
    pub(super) fn over_time(
        &self,
        now: Duration,
        window: Duration,
        cells: &Range<usize>,
        totals: &[u64],
    ) -> Vec<Series> {
        let at = self.rings.iter().position(|ring| ring.length >= window).unwrap_or(self.rings.len().saturating_sub(1));
        let whole = |ring: &Ring, window: Duration| ring.series(now, window, u64::MAX, cells, totals);
        let before = |ring: &Ring| {
            let end = ring.index(now.saturating_sub(window));
            ring.series(now, ring.length, end, cells, totals)
        };
        let own = self.rings.get(at).map(|ring| whole(ring, window)).unwrap_or_default();
        let longer = self.rings.get(at + 1).map(before).unwrap_or_default();
        let shorter = self.rings.iter().take(at).rev().map(|ring| whole(ring, ring.length));
        [own, longer].into_iter().chain(shorter).collect()
    }

    pub(super) fn save(&self) -> Vec<SavedRing> {
        self.rings.iter().map(Ring::save).collect()
    }

    /// Goes on from what was saved of windows of these lengths, parts and cells; false, and nothing changes, when it
    /// was saved of others, contradicts `totals`, or is of a time after `now`.
    pub(super) fn restore(&mut self, saved: Vec<SavedRing>, totals: &[u64], now: Duration) -> bool {
        let is_like = |(ring, saved): (&Ring, &SavedRing)| ring.is_like(saved, totals, now);
        if saved.len() != self.rings.len() || !self.rings.iter().zip(&saved).all(is_like) {
            return false;
        }
        for (ring, saved) in self.rings.iter_mut().zip(saved) {
            let cells = ring.cells;
            let noted = |sub_window: usize| saved.starts[sub_window * cells..][..cells].into();
            (ring.latest, ring.starts) = (saved.latest, (0..ring.sub_windows).map(noted).collect());
        }
        true
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
    /// Sub-window `i` at `i % sub_windows`, `cells` totals each. Those between which nothing was counted are shared.
    starts: Box<[Arc<[u64]>]>,
}

impl Ring {
    fn new(length: Duration, sub_windows: usize, cells: usize) -> Self {
        let starts = vec![vec![0; cells].into(); sub_windows].into();
        Self { length, sub_windows, cells, latest: 0, starts }
    }

    fn save(&self) -> SavedRing {
        let Self { length, latest, starts, .. } = self;
        let length_millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        SavedRing { length_millis, latest: *latest, starts: starts.concat() }
    }

    fn is_like(&self, saved: &SavedRing, totals: &[u64], now: Duration) -> bool {
        let noted = || saved.starts.chunks_exact(self.cells.max(1));
        u128::from(saved.length_millis) == self.length.as_millis()
            && saved.starts.len() == self.sub_windows * self.cells
            && saved.latest <= self.index(now)
            && noted().all(|noted| noted.iter().zip(totals).all(|(before, total)| before <= total))
    }

    /// The sub-window that `now` is in.
    fn index(&self, now: Duration) -> u64 {
        let index = now.as_nanos() * self.sub_windows as u128 / self.length.as_nanos();
        u64::try_from(index).unwrap_or(u64::MAX)
    }

    fn advance(&mut self, now: Duration, totals: &Arc<[u64]>) {
        let index = self.index(now);
        // Nothing was counted since `latest` was: all sub-windows since begin with these totals.
        let begun = index.saturating_sub(self.latest).min(self.sub_windows as u64);
        for sub_window in index + 1 - begun..=index {
            self.starts[self.place(sub_window)] = Arc::clone(totals);
        }
        self.latest = self.latest.max(index);
    }

    /// The start of a window that ends at `now`.
    fn start(&self, now: Duration, window: Duration) -> Start {
        let first = self.first(now, window);
        if first > self.latest { Start::Empty } else { Start::Noted(Arc::clone(&self.starts[self.place(first)])) }
    }

    /// The rows of these cells by sub-window of a window that ends at `now`, of those before the sub-window `end`.
    fn series(&self, now: Duration, window: Duration, end: u64, cells: &Range<usize>, totals: &[u64]) -> Series {
        let start = |sub_window: u64| &self.noted(sub_window)[cells.clone()];
        let rows = |sub_window: u64| {
            let end = if sub_window < self.latest { start(sub_window + 1) } else { totals };
            end.iter().zip(start(sub_window)).map(|(end, start)| end - start).collect()
        };
        (self.first(now, window)..(self.latest + 1).min(end)).map(rows).collect()
    }

    /// The first sub-window of a window that ends at `now`.
    fn first(&self, now: Duration, window: Duration) -> u64 {
        let parts = (window.as_nanos() * self.sub_windows as u128).div_ceil(self.length.as_nanos());
        let parts = u64::try_from(parts).unwrap_or(u64::MAX).clamp(1, self.sub_windows as u64);
        (self.index(now).max(self.latest) + 1).saturating_sub(parts)
    }

    /// The totals at the start of one of the latest sub-windows.
    fn noted(&self, sub_window: u64) -> &[u64] {
        &self.starts[self.place(sub_window)]
    }

    fn place(&self, sub_window: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a usize")]
        let place = (sub_window % self.sub_windows as u64) as usize;
        place
    }
}

#[cfg(test)]
mod tests;
