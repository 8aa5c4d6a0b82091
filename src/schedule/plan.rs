//! Where runs happen and how many rows they have, as far as measured costs decide it.
//!
//! Whoever decides by what was measured measures only what was decided: a size that was once left out would never run again,
//! however wrong the measurement was. So a few runs try what would otherwise not run ([`TRY_EVERY`]), and what pays is looked at
//! again and again: a machine that was busy while a model was loaded, or for a minute, does not slow it for good.

use std::{
    sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use super::cost::{Costs, FRESH};

/// One run in so many may have other rows than those that are best known. In turn: more, one, more, half. A prime: requests
/// that come in bursts of some even number must not always be one short.
const TRY_EVERY: u64 = 127;
/// One try in so many may have more rows than the target latency is known to allow.
const BEYOND_EVERY: u64 = 16;
/// What larger batches must save per row to be taken up.
const PAYS: f64 = 0.98;
/// No larger batch is tried where it is expected to take longer.
const LONGEST_TRY: Duration = Duration::from_millis(100);
/// A gathered batch may take this many times the limit of a run in place: it is the work of many.
const GATHERED: u32 = 6;
/// What a size must save per row against half of it to be worth its latency.
pub(super) const WORTHWHILE: f64 = 0.95;
/// How often in a row other batches must be seen to do better.
const AGREE: i32 = 3;
/// What a run costs besides, about, whatever its size: to gather its requests, join their rows and tell them the end.
pub(super) const RUN_OVERHEAD: Duration = Duration::from_micros(3);

/// What a lane has learned of its runs, and what it decides by that.
#[derive(Debug)]
pub(super) struct Plan {
    costs: Costs,
    /// Runs that take no longer happen on the thread of a request.
    inline_limit: Duration,
    /// The most rows that may run together; 1 when requests are never joined.
    max_rows: usize,
    /// As many of them as pay.
    useful_rows: AtomicUsize,
    /// How often it was seen, one after the other, that more pay (above zero) or that less do as well.
    leaning: AtomicI32,
}

/// What the next run tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    /// Within the target latency.
    More,
    Beyond,
    Half,
    One,
}

impl Plan {
    pub(super) fn new(costs: Costs, inline_limit: Duration, max_rows: usize, useful_rows: usize) -> Self {
        let max_rows = max_rows.max(1);
        Self {
            costs,
            inline_limit,
            max_rows,
            useful_rows: AtomicUsize::new(useful_rows.clamp(1, max_rows)),
            leaning: AtomicI32::new(0),
        }
    }

    pub(super) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// A run of `rows` rows took `time`.
    pub(super) fn record(&self, rows: usize, time: Duration) {
        if self.costs.record(rows, time).is_multiple_of(FRESH) {
            self.costs.age();
            self.review();
        }
    }

    /// True when a run of one row belongs on the thread of a request.
    pub(super) fn is_cheap(&self) -> bool {
        self.is_cheap_for(1)
    }

    /// True when a run of `rows` rows belongs on the thread of a request.
    pub(super) fn is_cheap_for(&self, rows: usize) -> bool {
        self.costs.expected(rows) <= self.inline_limit
    }

    /// The most rows that pay in one run.
    pub(super) fn useful_rows(&self) -> usize {
        self.useful_rows.load(Relaxed)
    }

    /// The most rows that the next run may have, where nobody wants more than `wanted`: what is worth waiting for.
    pub(super) fn most_rows(&self, wanted: usize) -> usize {
        let rows = self.useful_rows().min(wanted);
        match self.next_try() {
            Some(Try::More) => self.more_than(rows, wanted),
            Some(Try::Beyond) => self.more_than(rows, usize::MAX),
            _ => rows,
        }
    }

    /// The rows of a run that begins now, where nobody wants more than `wanted`.
    pub(super) fn rows_of_next_run(&self, wanted: usize) -> usize {
        let rows = self.best_rows(wanted);
        match self.next_try() {
            Some(Try::More) => self.more_than(rows, wanted),
            Some(Try::Beyond) => self.more_than(rows, usize::MAX),
            Some(Try::Half) => (rows / 2).max(1),
            Some(Try::One) if !self.is_cheap() => 1,
            _ => rows,
        }
    }

    /// As far as is known.
    fn best_rows(&self, wanted: usize) -> usize {
        let most = self.useful_rows().min(wanted);
        if self.is_cheap() { self.costs.rows_within(self.inline_limit * GATHERED, most) } else { most }
    }

    /// What a row takes on average in the best of the runs that are chosen, where nobody wants more than `wanted` rows.
    pub(super) fn per_row(&self, wanted: usize) -> Duration {
        self.costs.per_row(self.best_rows(wanted))
    }

    fn more_than(&self, rows: usize, wanted: usize) -> usize {
        let more = rows.saturating_mul(2).min(self.max_rows).min(wanted);
        if self.costs.expected(more) <= LONGEST_TRY { more } else { rows }
    }

    fn next_try(&self) -> Option<Try> {
        let run = self.costs.runs() + 1;
        if !run.is_multiple_of(TRY_EVERY) {
            return None;
        }
        let number = run / TRY_EVERY;
        Some(match number % 4 {
            1 => Try::One,
            3 => Try::Half,
            _ if number.is_multiple_of(BEYOND_EVERY) => Try::Beyond,
            _ => Try::More,
        })
    }

    /// Whether larger or smaller batches pay by now. Chance says so too, but seldom [`AGREE`] times one after the other.
    fn review(&self) {
        let rows = self.useful_rows();
        let (larger, smaller) = (rows.saturating_mul(2).min(self.max_rows), rows / 2);
        // Measured lately: what was held between others says nothing of its own.
        let per_row = |rows| self.costs.per_row_of(rows, RUN_OVERHEAD).filter(|_| self.costs.is_known(rows));
        let Some(here) = per_row(rows) else { return };
        let more = per_row(larger).filter(|_| larger > rows).map(|there| there < here * PAYS);
        let less = per_row(smaller).filter(|_| smaller > 0).map(|there| there <= here);
        let leaning = self.leaning.load(Relaxed);
        let leaning = match (more, less) {
            (Some(true), _) => leaning.max(0) + 1,
            (_, Some(true)) => leaning.min(0) - 1,
            (None, None) => return,
            // Nothing was seen of what it leans to.
            (None, _) if leaning > 0 => leaning,
            (_, None) if leaning < 0 => leaning,
            _ => 0,
        };
        let is_enough = leaning.abs() >= AGREE;
        self.leaning.store(if is_enough { 0 } else { leaning }, Relaxed);
        if is_enough {
            self.useful_rows.store(if leaning > 0 { larger } else { smaller }, Relaxed);
        }
    }
}

#[cfg(test)]
mod simulation;
