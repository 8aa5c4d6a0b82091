//! Plans on simulated machines: what the choices cost against the best that never change.
//!
//! Time is simulated and chance has a seed. A run costs something, and something for each row; all that a machine does besides
//! (a long tail, pauses, a neighbour, a slow minute) shows in what is measured, but not in what the choices are held to:
//! the regret is the undisturbed cost of a row in the runs that were chosen, against that of the best fixed number of rows.

use std::time::Instant;

use super::*;
use crate::{domain::BatchLimits, schedule::target::Controller};

const LIMIT: Duration = Duration::from_micros(250);
const MAX_ROWS: usize = 64;
/// A process that shares the core gets it for so long each time.
const SLICE: f64 = 3_000.0;
const PAUSE: f64 = 100_000.0;
/// What the tail of the noise makes of a run now and then: with it, it must fit.
const TAIL: f64 = 1.25;
/// How far from the best a row may be; and where twice four rows save less than a twentieth: larger batches, each a little better,
/// are then hardly worth their latency.
const REGRET: f64 = 1.05;
const REGRET_WHERE_LITTLE_IS_SAVED: f64 = 1.08;
/// Runs after which a plan has recovered from what disturbed it.
const RECOVERED: usize = 8_192;

/// Chance with a seed, by `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    fn up_to(&mut self, most: usize) -> usize {
        1 + usize::try_from(self.next() % most as u64).unwrap()
    }
}

/// What runs cost, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Model {
    base: f64,
    row: f64,
    /// Rows from which on each costs three times as much: a cache is full.
    cliff: usize,
}

const fn model(base: f64, row: f64) -> Model {
    Model { base, row, cliff: usize::MAX }
}

/// The first is `mlp` of the benchmarks; one's largest batch just fits, one's does not, one gains nothing, one has a cliff.
const MODELS: [Model; 6] = [
    model(20.0, 7.0),
    model(200.0, 1.0),
    model(100.0, 18.0),
    model(5.0, 40.0),
    model(0.0, 10.0),
    Model { base: 20.0, row: 5.0, cliff: 16 },
];

impl Model {
    fn cost(self, rows: usize) -> f64 {
        let dear = rows.saturating_sub(self.cliff);
        self.base + self.row * (rows + 2 * dear) as f64
    }

    /// The cost of a row where up to 64 wait, evenly, and up to `most` run together.
    fn row_at(self, most: usize) -> f64 {
        let runs = (1..=MAX_ROWS).map(|waiting| waiting.min(most));
        let (cost, rows) = runs.fold((0.0, 0), |(cost, all), rows| (cost + self.with_overhead(rows), all + rows));
        cost / rows as f64
    }

    fn allowed_regret(self) -> f64 {
        let saves_little = self.with_overhead(8) / 8.0 > self.with_overhead(4) / 4.0 * 0.95;
        if saves_little && self.cliff > MAX_ROWS { REGRET_WHERE_LITTLE_IS_SAVED } else { REGRET }
    }

    fn with_overhead(self, rows: usize) -> f64 {
        self.cost(rows) + RUN_OVERHEAD.as_secs_f64() * 1e6
    }

    /// The best that a fixed power of two can reach, of those that are let run on the thread of requests.
    fn best_row(self, speed: f64) -> f64 {
        let limit = (LIMIT * GATHERED).as_secs_f64() * 1e6;
        let is_cheap = self.cost(1) * speed <= LIMIT.as_secs_f64() * 1e6;
        let fits = |&rows: &usize| !is_cheap || rows == 1 || self.cost(rows) * speed * TAIL <= limit;
        let sizes = (0..=6).map(|power| 1 << power).filter(fits);
        sizes.map(|rows| self.row_at(rows)).min_by(f64::total_cmp).unwrap()
    }
}

/// A machine on which a model runs. Times in microseconds.
struct Machine {
    model: Model,
    chance: Chance,
    now: f64,
    next_pause: f64,
    /// How much longer runs take than when it is at its usual speed.
    speed: f64,
    has_neighbour: bool,
    /// What is left of our turn on the core.
    slice: f64,
}

impl Machine {
    fn new(model: Model, seed: u64) -> Self {
        Self { model, chance: Chance(seed), now: 0.0, next_pause: 1e6, speed: 1.0, has_neighbour: false, slice: SLICE }
    }

    /// How long a run takes, as a lane would measure it.
    fn run(&mut self, rows: usize) -> Duration {
        // Pareto: one run in forty takes twice as long or more.
        let tail = 1.0 + 0.1 * (self.chance.share().powf(-1.0 / 1.5) - 1.0);
        let cost = self.model.cost(rows) * self.speed * tail;
        let mut time = cost;
        self.slice -= cost;
        while self.has_neighbour && self.slice < 0.0 {
            (self.slice, time) = (self.slice + SLICE, time + SLICE);
        }
        while self.now + time >= self.next_pause {
            time += PAUSE;
            self.next_pause += PAUSE - 2e6 * self.chance.share().ln();
        }
        self.now += time;
        Duration::from_secs_f64(time / 1e6)
    }
}

/// A plan as a trial on a quiet machine leaves it.
fn tried(model: Model) -> Plan {
    let costs = Costs::default();
    let mut best = (1, f64::INFINITY);
    for rows in (0..=6).map(|power| 1 << power) {
        costs.record(rows, Duration::from_secs_f64(model.cost(rows) / 1e6));
        let row = model.with_overhead(rows) / rows as f64;
        if row < best.1 * WORTHWHILE {
            best = (rows, row);
        }
    }
    Plan::new(costs, LIMIT, MAX_ROWS, best.0)
}

/// The cost of a row in the runs of `seconds`, or of `runs` runs: 1 is that of the best fixed number of rows.
fn regret(plan: &Plan, machine: &mut Machine, seconds: f64, runs: usize) -> f64 {
    let (until, mut cost, mut rows) = (machine.now + seconds * 1e6, 0.0, 0);
    for _ in 0..runs {
        if machine.now >= until {
            break;
        }
        let waiting = machine.chance.up_to(MAX_ROWS);
        let run = waiting.min(plan.rows_of_next_run(usize::MAX));
        plan.record(run, machine.run(run));
        cost += machine.model.with_overhead(run);
        rows += run;
    }
    cost / rows as f64 / machine.model.best_row(machine.speed)
}

const NO_END: usize = usize::MAX;

/// What a plan must be like once nothing disturbs it any more, and has not for [`RECOVERED`] runs or half a minute.
fn assert_recovered(plan: &Plan, machine: &mut Machine, told: &str) {
    let model = machine.model;
    regret(plan, machine, 30.0, RECOVERED);
    let regret = regret(plan, machine, 20.0, 20_000);
    assert!(
        regret <= model.allowed_regret(),
        "{told}, {model:?}: {regret}, {} rows: {:?}",
        plan.useful_rows(),
        plan.costs
    );
    let is_cheap = model.cost(1) * machine.speed <= LIMIT.as_secs_f64() * 1e6 / 1.25;
    assert!(plan.is_cheap() || !is_cheap, "{told}, {model:?}: {:?}", plan.costs);
    // The mean, with its tail and pauses, of a row in the largest runs.
    let row = plan.per_row(usize::MAX).as_secs_f64() * 1e6;
    let best = model.best_row(1.0) * machine.speed;
    assert!(row >= best * 0.7 && row <= best * 2.0, "{told}, {model:?}: {row} µs for {best}: {:?}", plan.costs);
}

fn for_each_model(mut one: impl FnMut(Model, &mut Machine, &Plan)) {
    for model in MODELS {
        for seed in 0..3 {
            one(model, &mut Machine::new(model, seed), &tried(model));
        }
    }
}

#[test]
fn noise_and_pauses_do_not_change_the_choice() {
    for_each_model(|model, machine, plan| {
        for part in 0..6 {
            let regret = regret(plan, machine, 10.0, NO_END);
            assert!(regret <= model.allowed_regret(), "{model:?}, {part}: {regret}, {:?}", plan.costs);
        }
        assert_recovered(plan, machine, "noise");
    });
}

#[test]
fn size_that_was_disturbed_once_runs_again() {
    for_each_model(|_, machine, plan| {
        for rows in (0..=6).rev().map(|power| 1 << power) {
            plan.record(rows, Duration::from_secs(1));
        }
        assert_recovered(plan, machine, "each size disturbed once");
        for rows in (0..=6).rev().flat_map(|power| std::iter::repeat_n(1 << power, 100)) {
            plan.record(rows, Duration::from_millis(100));
        }
        assert_recovered(plan, machine, "each size disturbed a hundred times");
    });
}

#[test]
fn slow_minute_is_forgotten() {
    for_each_model(|_, machine, plan| {
        regret(plan, machine, 5.0, NO_END);
        machine.speed = 3.0;
        regret(plan, machine, 60.0, NO_END);
        machine.speed = 1.0;
        assert_recovered(plan, machine, "three times slower");
    });
}

#[test]
fn minute_beside_a_busy_process_is_forgotten_and_costs_little_meanwhile() {
    for_each_model(|model, machine, plan| {
        machine.has_neighbour = true;
        regret(plan, machine, 10.0, NO_END);
        let beside = regret(plan, machine, 50.0, NO_END);
        assert!(beside <= 1.2, "{model:?}: {beside}, {:?}", plan.costs);
        machine.has_neighbour = false;
        assert_recovered(plan, machine, "beside a busy process");
    });
}

#[test]
fn machine_that_became_faster_or_slower_is_followed() {
    for speed in [0.25, 0.5, 2.0, 4.0] {
        for_each_model(|_, machine, plan| {
            regret(plan, machine, 5.0, NO_END);
            machine.speed = speed;
            assert_recovered(plan, machine, &format!("{speed} times as long"));
            machine.speed = 1.0;
            assert_recovered(plan, machine, &format!("back from {speed} times as long"));
        });
    }
}

/// Whatever a trial on a busy machine made of the costs and of what pays.
#[test]
fn disturbed_trial_does_not_decide_for_good() {
    for model in MODELS {
        for seed in 0..20 {
            let mut machine = Machine::new(model, seed);
            let costs = Costs::default();
            for rows in (0..=6).map(|power| 1 << power) {
                let disturbed = 1.0 + 5.0 * machine.chance.share();
                costs.record(rows, Duration::from_secs_f64(model.cost(rows) * disturbed / 1e6));
            }
            let useful_rows = 1 << (seed % 7);
            let plan = Plan::new(costs, LIMIT, MAX_ROWS, useful_rows);
            assert_recovered(&plan, &mut machine, &format!("trial {seed}"));
        }
    }
}

/// Costly runs happen on the pool, at a tenth of the pace: batches that pay are found there too.
#[test]
fn costly_model_finds_its_batches_on_the_pool() {
    for costly in [model(2_000.0, 300.0), model(300.0, 300.0)] {
        for useful_rows in [1, 8, 64] {
            let costs = Costs::default();
            costs.record(1, Duration::from_secs_f64(costly.cost(1) / 1e6));
            let plan = Plan::new(costs, LIMIT, MAX_ROWS, useful_rows);
            let mut machine = Machine::new(costly, 1);
            regret(&plan, &mut machine, 3_600.0, RECOVERED);
            let regret = regret(&plan, &mut machine, 3_600.0, RECOVERED);
            assert!(regret <= costly.allowed_regret(), "{costly:?} from {useful_rows}: {regret}, {:?}", plan.costs);
            assert!(!plan.is_cheap());
        }
    }
}

/// No run of more than one request in a hundred is spent on finding out.
#[test]
fn few_runs_are_tries() {
    let plan = tried(MODELS[0]);
    let mut machine = Machine::new(MODELS[0], 7);
    let mut others = 0;
    for _ in 0..100_000 {
        let rows = plan.rows_of_next_run(32);
        others += usize::from(rows != 32);
        let run = rows.min(machine.chance.up_to(MAX_ROWS));
        plan.record(run, machine.run(run));
    }
    assert!(others > 100 && others < 1_000, "{others}");
}

/// What requests saw of a lane with a target latency.
#[derive(Default)]
struct Served {
    latencies: Vec<f64>,
    refused: usize,
}

impl Served {
    fn p99(&mut self) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

/// Requests at random, `rate` a second, for `seconds`; 20 µs of reading and writing for each.
fn serve(plan: &Plan, controller: &Controller, machine: &mut Machine, rate: f64, seconds: f64) -> Served {
    let (start, origin) = (Instant::now(), machine.now);
    let mut served = Served::default();
    let mut waiting = std::collections::VecDeque::new();
    let mut next = machine.now;
    while machine.now < origin + seconds * 1e6 {
        let rows = plan.rows_of_next_run(controller.rows());
        let due = waiting.front().map(|oldest: &f64| oldest + controller.delay().as_secs_f64() * 1e6);
        let begins = if waiting.len() >= rows { Some(machine.now) } else { due };
        if begins.is_none_or(|begins| next <= begins.max(machine.now)) {
            if waiting.len() < controller.room() {
                waiting.push_back(next);
            } else {
                served.refused += 1;
            }
            machine.now = machine.now.max(next);
            next -= 1e6 / rate * machine.chance.share().ln();
            continue;
        }
        machine.now = machine.now.max(begins.unwrap_or(machine.now));
        let batch: Vec<f64> = waiting.drain(..waiting.len().min(rows)).collect();
        plan.record(batch.len(), machine.run(batch.len()));
        machine.now += 20.0 * batch.len() as f64;
        for arrived in batch {
            let latency = machine.now - arrived;
            let now = start + Duration::from_secs_f64((machine.now - origin) / 1e6);
            controller.observe(now, Duration::from_secs_f64(latency / 1e6), &plan.costs);
            served.latencies.push(latency);
        }
    }
    served
}

#[test]
fn target_latency_is_kept_again_after_a_slow_minute_and_nobody_is_refused() {
    for target in [5, 20].map(Duration::from_millis) {
        let plan = tried(MODELS[0]);
        let limits = BatchLimits { max_rows: MAX_ROWS, max_delay: Duration::ZERO, target_p99: Some(target) };
        let controller = Controller::new(target, &limits, &plan.costs);
        let mut machine = Machine::new(MODELS[0], 3);
        machine.next_pause = f64::INFINITY;
        serve(&plan, &controller, &mut machine, 15_000.0, 10.0);
        let before = (controller.rows(), controller.room());
        machine.speed = 5.0;
        let slow = serve(&plan, &controller, &mut machine, 15_000.0, 60.0);
        assert!(slow.refused > 0 || target.as_millis() > 5, "the minute must have disturbed it");
        machine.speed = 1.0;
        serve(&plan, &controller, &mut machine, 15_000.0, 30.0);
        let mut after = serve(&plan, &controller, &mut machine, 15_000.0, 10.0);
        let p99 = after.p99();
        assert!(p99 <= target.as_secs_f64() * 1e6, "{target:?}: {p99} µs");
        let share = after.refused as f64 / after.latencies.len() as f64;
        assert!(share < 0.001, "{target:?}: {share} refused");
        assert_eq!(controller.rows(), before.0, "{target:?}");
        assert!(
            controller.room() * 2 > before.1,
            "{target:?}: {} rows may wait, {} before",
            controller.room(),
            before.1
        );
    }
}
