//! Chooses the size and the delay of batches so that a target latency is kept.
//!
//! The latency seen over each short period decides (additive increase, multiplicative decrease, as
//! in congestion control): while 99 % of requests stay well below the target, batches may wait a
//! little longer and grow, which is what throughput wants; when they do not, both are cut.

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

/// The controller of one lane.
#[derive(Debug)]
pub(super) struct Controller {
    target: Duration,
    max_rows: usize,
    max_delay: Duration,
    rows: AtomicUsize,
    delay: AtomicU64,
    period: Mutex<Period>,
}

#[derive(Debug, Default)]
struct Period {
    began: Option<Instant>,
    requests: usize,
    /// Requests that took longer than the target, and longer than three quarters of it.
    late: usize,
    nearly_late: usize,
}

impl Controller {
    pub(super) fn new(target: Duration, limits: &BatchLimits) -> Self {
        // Without a limit of its own, a request may spend half of the target waiting.
        let max_delay = if limits.max_delay.is_zero() { target / 2 } else { limits.max_delay.min(target / 2) };
        Self {
            target,
            max_rows: limits.max_rows,
            max_delay,
            rows: AtomicUsize::new(limits.max_rows),
            delay: AtomicU64::new(0),
            period: Mutex::default(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.load(Relaxed)
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay.load(Relaxed))
    }

    /// A request took `latency` from its arrival to the end of its run.
    pub(super) fn observe(&self, now: Instant, latency: Duration, costs: &Costs) {
        // Whoever finds it taken leaves its request uncounted: a share of them is enough.
        let Ok(mut period) = self.period.try_lock() else { return };
        let began = *period.began.get_or_insert(now);
        period.requests += 1;
        period.late += usize::from(latency > self.target);
        period.nearly_late += usize::from(latency > self.target * 3 / 4);
        let is_over = period.requests >= PERIOD_REQUESTS
            || (now.saturating_duration_since(began) >= PERIOD && period.requests >= ENOUGH);
        if is_over {
            let ended = std::mem::take(&mut *period);
            drop(period);
            self.choose(&ended, costs);
        }
    }

    fn choose(&self, period: &Period, costs: &Costs) {
        let rows = self.rows();
        // A run that alone takes more than half of the target can never keep it: another may be
        // going on when a request arrives.
        let bound = costs.rows_within(self.target / 2, self.max_rows);
        if period.late * 100 > period.requests {
            self.delay.store(self.delay.load(Relaxed) / 2, Relaxed);
            self.rows.store((rows / 2).clamp(1, bound), Relaxed);
        } else if period.nearly_late * 100 <= period.requests {
            let longer = self.delay() + self.target / 20;
            let delay = longer.min(self.max_delay);
            self.delay.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Relaxed);
            self.rows.store((rows * 2).clamp(1, bound), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(20);

    fn controller() -> (Controller, Costs) {
        let costs = Costs::default();
        for (rows, millis) in [(1, 1), (2, 1), (4, 2), (8, 3), (16, 6), (32, 12), (64, 24)] {
            costs.record(rows, Duration::from_millis(millis));
        }
        let limits = BatchLimits { max_rows: 64, max_delay: Duration::ZERO, target_p99: Some(TARGET) };
        (Controller::new(TARGET, &limits), costs)
    }

    fn period(controller: &Controller, costs: &Costs, latency: Duration) {
        let now = Instant::now();
        for _ in 0..PERIOD_REQUESTS {
            controller.observe(now, latency, costs);
        }
    }

    #[test]
    fn late_requests_shrink_batches_and_delay_at_once() {
        let (controller, costs) = controller();
        for _ in 0..4 {
            period(&controller, &costs, Duration::from_millis(5));
        }
        let (rows, delay) = (controller.rows(), controller.delay());
        assert_eq!(
            (rows, delay),
            (16, Duration::from_millis(4)),
            "16 rows are the most that fit into half of the target"
        );
        period(&controller, &costs, Duration::from_millis(30));
        assert_eq!((controller.rows(), controller.delay()), (8, Duration::from_millis(2)));
    }

    #[test]
    fn delay_never_passes_half_of_the_target() {
        let (controller, costs) = controller();
        for _ in 0..50 {
            period(&controller, &costs, Duration::from_millis(1));
        }
        assert_eq!(controller.delay(), TARGET / 2);
    }

    #[test]
    fn latency_close_to_the_target_is_left_alone() {
        let (controller, costs) = controller();
        period(&controller, &costs, Duration::from_millis(1));
        let before = (controller.rows(), controller.delay());
        period(&controller, &costs, Duration::from_millis(17));
        assert_eq!((controller.rows(), controller.delay()), before);
    }

    #[test]
    fn few_requests_are_judged_after_a_while() {
        let (controller, costs) = controller();
        let start = Instant::now();
        for request in 0..60 {
            controller.observe(start + Duration::from_millis(10 * request), Duration::from_millis(1), &costs);
        }
        assert!(controller.delay() > Duration::ZERO);
    }
}
