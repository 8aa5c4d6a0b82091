//! The choices of a controller, and what they do to a simulated queue.

use std::collections::VecDeque;

use super::*;

const TARGET: Duration = Duration::from_millis(20);

/// Runs of 40 µs, and 12 µs for each row.
fn run(rows: usize) -> Duration {
    Duration::from_micros(40 + 12 * rows as u64)
}

fn controller(target: Duration) -> (Controller, Costs) {
    let costs = Costs::default();
    for rows in [1, 2, 4, 8, 16, 32, 64] {
        costs.record(rows, run(rows));
    }
    let limits = BatchLimits { max_rows: 64, max_delay: Duration::ZERO, target_p99: Some(target) };
    (Controller::new(target, &limits, &costs), costs)
}

fn period(controller: &Controller, costs: &Costs, latency: Duration) {
    let now = Instant::now();
    for _ in 0..PERIOD_REQUESTS {
        controller.observe(now, latency, costs);
    }
}

#[test]
fn batch_runs_within_a_quarter_of_the_target() {
    assert_eq!(controller(TARGET).0.rows(), 64);
    assert_eq!(controller(Duration::from_millis(1)).0.rows(), 16, "16 rows take 232 µs");
    assert_eq!(controller(Duration::from_micros(50)).0.rows(), 1);
}

#[test]
fn late_requests_cut_the_delay_and_then_the_room_but_never_the_batch() {
    let (controller, costs) = controller(TARGET);
    let room = controller.room();
    for _ in 0..4 {
        period(&controller, &costs, Duration::from_millis(4));
    }
    assert_eq!((controller.delay(), controller.room()), (Duration::from_millis(4), room));
    period(&controller, &costs, Duration::from_millis(30));
    assert_eq!((controller.delay(), controller.room()), (Duration::from_millis(2), room));
    for _ in 0..100 {
        period(&controller, &costs, Duration::from_millis(30));
    }
    assert_eq!((controller.delay(), controller.room(), controller.rows()), (Duration::ZERO, 64, 64));
    for _ in 0..100 {
        period(&controller, &costs, Duration::from_millis(1));
    }
    assert_eq!((controller.delay(), controller.room()), (TARGET / 4, room));
}

#[test]
fn latency_close_to_the_goal_is_left_alone() {
    let (controller, costs) = controller(TARGET);
    period(&controller, &costs, Duration::from_millis(1));
    let before = (controller.rows(), controller.delay(), controller.room());
    period(&controller, &costs, Duration::from_millis(6));
    assert_eq!((controller.rows(), controller.delay(), controller.room()), before);
}

#[test]
fn few_requests_are_judged_after_a_while() {
    let (controller, costs) = controller(TARGET);
    let start = Instant::now();
    for request in 0..60 {
        controller.observe(start + Duration::from_millis(10 * request), Duration::from_millis(1), &costs);
    }
    assert!(controller.delay() > Duration::ZERO);
}

/// What a lane did whose thread also reads and writes: 20 µs for each request, which the costs of runs do not show.
struct Served {
    answered: usize,
    refused: usize,
    /// From arrival to answer.
    p99: Duration,
    rows_per_run: f64,
}

/// Ten seconds of requests that come at random at `rate` per second, after as many to settle.
fn serve(target: Duration, rate: f64) -> Served {
    let (controller, costs) = controller(target);
    let started = Instant::now();
    let (settled, end) = (Duration::from_secs(10), Duration::from_secs(20));
    let mut random = 1_u64;
    let mut interval = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_secs_f64(-(((random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64).ln() / rate)
    };
    let (mut next, mut now) = (interval(), Duration::ZERO);
    let mut waiting = VecDeque::new();
    let (mut latencies, mut refused, mut runs) = (Vec::new(), 0, 0);
    while now < end {
        let is_due = |oldest: &Duration| *oldest + controller.delay();
        let begins = if waiting.len() >= controller.rows() { Some(now) } else { waiting.front().map(is_due) };
        if begins.is_none_or(|begins| next <= begins.max(now)) {
            // Comes before the next run begins.
            if waiting.len() < controller.room() {
                waiting.push_back(next);
            } else {
                refused += usize::from(next >= settled);
            }
            now = now.max(next);
            next += interval();
            continue;
        }
        let batch: Vec<Duration> = waiting.drain(..waiting.len().min(controller.rows())).collect();
        now = now.max(begins.unwrap_or(now)) + run(batch.len()) + Duration::from_micros(20 * batch.len() as u64);
        costs.record(batch.len(), run(batch.len()));
        runs += usize::from(now >= settled);
        for arrived in batch {
            let latency = now.saturating_sub(arrived);
            controller.observe(started + now, latency, &costs);
            if now >= settled {
                latencies.push(latency);
            }
        }
    }
    latencies.sort_unstable();
    let (answered, p99) = (latencies.len(), latencies[latencies.len() * 99 / 100]);
    Served { answered, refused, p99, rows_per_run: answered as f64 / runs as f64 }
}

/// With batches of 64, 30,600 requests a second can be done.
#[test]
fn target_is_kept_under_any_load_and_the_rate_with_it() {
    for target in [5, 20, 100].map(Duration::from_millis) {
        for (rate, least, most_refused) in
            [(1_000.0, 0.99, 0.0), (9_000.0, 0.99, 0.0), (27_000.0, 0.99, 0.01), (90_000.0, 0.31, 0.69)]
        {
            let served = serve(target, rate);
            let all = (served.answered + served.refused) as f64;
            let told = format!("{target:?} at {rate}: {:?}, {} of {all}", served.p99, served.answered);
            assert!(served.p99 <= target, "{told}");
            assert!(served.answered as f64 >= least * all && served.refused as f64 <= most_refused * all, "{told}");
            assert!(
                rate > 1_000.0 || target.as_millis() < 100 || served.rows_per_run > 4.0,
                "{told}, {}",
                served.rows_per_run
            );
        }
    }
}
