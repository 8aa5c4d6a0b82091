//! Rows by cell: since the start, and over sliding windows.

use std::{
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    edges::Edges,
    saved::SavedCounts,
    verdict::Series,
    window::{Start, Windows},
};

/// Counters of cells. One thread counts at a time; any thread may read, and sees every cell at some moment of late.
#[derive(Debug)]
pub(super) struct Counts {
    cells: Box<[AtomicU64]>,
    /// Held while counting, so that a reader of a window sees whole requests.
    windows: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    windows: Windows,
    /// How often the counters were given to somebody who changes them.
    changes: u64,
    /// What the counters began with, of what was counted before; empty: nothing.
    started: Box<[u64]>,
}

/// Tells whether the rows of a window may have changed since.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    changes: u64,
    start: Start,
}

impl Mark {
    /// Whether the rows are certainly the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.changes == other.changes && self.start.is_same(&other.start)
    }

    /// The rows of the window, given the totals of the same moment.
    pub(super) fn rows(&self, totals: &[u64]) -> Vec<u64> {
        self.start.rows(totals.to_vec())
    }
}

/// Counters and windows at one moment.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) totals: Vec<u64>,
    /// By window.
    pub(super) marks: Vec<Mark>,
}

/// The right to count, at one time.
pub(super) struct Counting<'a> {
    cells: &'a [AtomicU64],
    _windows: MutexGuard<'a, Watched>,
}

impl Counting<'_> {
    /// Counts rows of these cells, numbered from `first` on: those that are `chosen`, all where that is `None`.
    pub(super) fn add_all(&self, first: usize, chosen: Option<&[bool]>, cells: &[u32]) {
        let counters = self.cells.get(first..).unwrap_or_default();
        match chosen {
            None => cells.iter().for_each(|cell| add(counters, *cell as usize)),
            Some(chosen) => {
                let chosen = cells.iter().zip(chosen).filter(|(_, chosen)| **chosen);
                chosen.for_each(|(cell, _)| add(counters, *cell as usize));
            }
        }
    }

    /// Counts a row of the cell of each of these numbers, numbered from `first` on. Where rows are alike, each waits for the
    /// counter that the one before has just written: so the next cell is found meanwhile.
    pub(super) fn add_numbers(&self, first: usize, edges: &Edges, numbers: &[f64]) {
        let counters = self.cells.get(first..).unwrap_or_default();
        edges.each_cell(numbers, |cell| add(counters, cell));
    }
}

/// Counts a row. Nobody else writes while the lock is held, so this needs no atomic addition.
#[inline]
fn add(counters: &[AtomicU64], cell: usize) {
    let counter = &counters[cell];
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Counts {
    pub(super) fn new(cells: usize, windows: &[Duration], sub_windows: usize) -> Self {
        let windows = Mutex::new(Watched {
            windows: Windows::new(windows, sub_windows, cells),
            changes: 0,
            started: Box::default(),
        });
        Self { cells: (0..cells).map(|_| AtomicU64::new(0)).collect(), windows }
    }

    /// Begins to count rows of the time `now`.
    pub(super) fn begin(&self, now: Duration) -> Counting<'_> {
        let mut windows = self.windows();
        windows.changes += 1;
        windows.windows.advance(now, || self.totals());
        Counting { cells: &self.cells, _windows: windows }
    }

    /// The rows of all cells since the start.
    pub(super) fn totals(&self) -> Vec<u64> {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect()
    }

    /// The rows of all cells that were there when counting began here: what was restored.
    pub(super) fn started(&self) -> Vec<u64> {
        let windows = self.windows();
        if windows.started.is_empty() { vec![0; self.cells.len()] } else { windows.started.to_vec() }
    }

    /// The rows of all cells in the last `window`.
    pub(super) fn within(&self, window: Duration, now: Duration) -> Vec<u64> {
        let (start, totals) = {
            let windows = self.windows();
            (windows.windows.start(now, window), self.totals())
        };
        start.rows(totals)
    }

    /// The rows of these windows, all of one moment; `None` when none of them has changed since these marks.
    ///
    /// Who counts waits for the totals to be copied, and for nothing else.
    pub(super) fn moment(&self, windows: &[Duration], now: Duration, known: &[Mark]) -> Option<Moment> {
        let watched = self.windows();
        let mark = |window: &Duration| Mark { changes: watched.changes, start: watched.windows.start(now, *window) };
        let marks: Vec<_> = windows.iter().map(mark).collect();
        let is_known = marks.len() == known.len() && marks.iter().zip(known).all(|(mark, known)| mark.is_same(known));
        (!is_known).then(|| Moment { totals: self.totals(), marks })
    }

    /// The rows of these cells by sub-window, see [`Windows::over_time`]. Who counts waits as long as it takes to read them,
    /// so they are those of one feature.
    pub(super) fn over_time(&self, cells: Range<usize>, window: Duration, now: Duration) -> Vec<Series> {
        let watched = self.windows();
        let totals: Vec<u64> = self.cells[cells.clone()].iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        watched.windows.over_time(now, window, &cells, &totals)
    }

    /// All that is needed to go on counting later.
    pub(super) fn save(&self) -> SavedCounts {
        let windows = self.windows();
        SavedCounts { totals: self.totals(), rings: windows.windows.save() }
    }

    /// Goes on from what was saved; false, and nothing changes, when that is of other cells or windows.
    pub(super) fn restore(&self, saved: SavedCounts, now: Duration) -> bool {
        let mut windows = self.windows();
        if saved.totals.len() != self.cells.len() || !windows.windows.restore(saved.rings, &saved.totals, now) {
            return false;
        }
        windows.changes += 1;
        for (cell, total) in self.cells.iter().zip(&saved.totals) {
            cell.store(*total, Ordering::Relaxed);
        }
        windows.started = saved.totals.into();
        true
    }

    fn windows(&self) -> MutexGuard<'_, Watched> {
        // A panic while counting leaves the windows as they were: they hold only noted totals.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
