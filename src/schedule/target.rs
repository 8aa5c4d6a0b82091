//! Chooses the size and the delay of batches, and how much may wait, so that a target latency is kept.
//!
//! A batch has as many rows as run within a quarter of the target. What is seen of requests over each short period decides
//! the rest (additive increase, multiplicative decrease, as in congestion control): while 99 % of them take less
//! than a quarter of the target from their arrival at the lane, a batch may wait a little longer for more rows, which spares
//! the processor runs. When they take more than three eighths, that delay is cut; when there is none left to cut, more comes
//! than can be done, and less may wait. Batches are never cut for that: small ones would make the rate fall,
//! and the queue grow.
//!
//! The rest of the target is for what a lane does not see: the reading of requests, the writing of answers, and
//! what waits in sockets while the thread of requests is busy. Where requests come faster than they can be read, they wait
//! there and with the client, and no target is kept.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::cost::Costs;
use crate::domain::BatchLimits;

/// Requests after which, at the latest, the choice is looked at again.
const PERIOD_REQUESTS: usize = 500;
/// The time after which it is, however few requests came; and the least number that says anything.
const PERIOD: Duration = Duration::from_millis(500);
const ENOUGH: usize = 50;
/// A shorter delay is none.
const LEAST_DELAY: Duration = Duration::from_micros(50);

/// The controller of one lane.
#[derive(Debug)]
pub(super) struct Controller {
    target: Duration,
    max_rows: usize,
    max_delay: Duration,
    rows: AtomicUsize,
    delay: AtomicU64,
    room: AtomicUsize,
    period: Mutex<Period>,
}

#[derive(Debug, Default)]
struct Period {
    began: Option<Instant>,
    requests: usize,
    /// Requests that took longer than three eighths of the target, and longer than a quarter of it.
    late: usize,
    nearly_late: usize,
}

impl Controller {
    pub(super) fn new(target: Duration, limits: &BatchLimits, costs: &Costs) -> Self {
        // Without a limit of its own, a request may spend a quarter of the target waiting for others.
        let max_delay = if limits.max_delay.is_zero() { target / 4 } else { limits.max_delay.min(target / 4) };
        let controller = Self {
            target,
            max_rows: limits.max_rows,
            max_delay,
            rows: AtomicUsize::new(limits.max_rows),
            delay: AtomicU64::new(0),
            room: AtomicUsize::new(0),
            period: Mutex::default(),
        };
        let rows = controller.choose_rows(costs);
        controller.room.store(controller.most_room(rows, costs), Relaxed);
        controller
    }

    /// The rows that a batch may have.
    pub(super) fn rows(&self) -> usize {
        self.rows.load(Relaxed)
    }

    /// How long a batch waits for more.
    pub(super) fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay.load(Relaxed))
    }

    /// The rows that may wait.
    pub(super) fn room(&self) -> usize {
        self.room.load(Relaxed)
    }

    /// A request took `latency` from its arrival to the end of its run.
    pub(super) fn observe(&self, now: Instant, latency: Duration, costs: &Costs) {
        // Whoever finds it taken leaves its request uncounted: a share of them is enough.
        let Ok(mut period) = self.period.try_lock() else { return };
        let began = *period.began.get_or_insert(now);
        period.requests += 1;
        period.late += usize::from(latency > self.target * 3 / 8);
        period.nearly_late += usize::from(latency > self.target / 4);
        let is_over = period.requests >= PERIOD_REQUESTS
            || (now.saturating_duration_since(began) >= PERIOD && period.requests >= ENOUGH);
        if is_over {
            let ended = std::mem::take(&mut *period);
            drop(period);
            self.choose(&ended, costs);
        }
    }

    fn choose(&self, period: &Period, costs: &Costs) {
        let rows = self.choose_rows(costs);
        let most_room = self.most_room(rows, costs);
        let (delay, room) = (self.delay(), self.room().min(most_room));
        let (mut next_delay, mut next_room) = (delay, room);
        if period.late * 100 > period.requests {
            if delay.is_zero() {
                // A whole batch that waits keeps the lane busy.
                next_room = (room / 4 * 3).max(rows);
            } else {
                next_delay = Some(delay / 2).filter(|delay| *delay >= LEAST_DELAY).unwrap_or_default();
            }
        } else if period.nearly_late * 100 <= period.requests {
            if room < most_room {
                next_room = (room + room / 8 + 1).min(most_room);
            } else {
                next_delay = (delay + self.target / 20).min(self.max_delay);
            }
        }
        self.delay.store(u64::try_from(next_delay.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.room.store(next_room, Relaxed);
    }

    /// A run that takes more than a quarter of the target leaves too little for the one before it, which may be going on
    /// when a request arrives, and for all else.
    fn choose_rows(&self, costs: &Costs) -> usize {
        let rows = costs.rows_within(self.target / 4, self.max_rows);
        self.rows.store(rows, Relaxed);
        rows
    }

    /// More rows than this cannot be done in time, whatever else is quick.
    fn most_room(&self, rows: usize, costs: &Costs) -> usize {
        let per_row = costs.per_row(rows).as_nanos().max(1);
        usize::try_from(self.target.as_nanos() / per_row).unwrap_or(usize::MAX).max(rows)
    }
}

#[cfg(test)]
mod tests;
