//! The totals behind the protocol's statistics: atomics, so that counting waits for nobody.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    domain::{BatchStatistics, ModelName, ModelStatistics, Tally, Version, coarse_time_of_day},
    schedule::Executed,
};

/// Runs with up to this many rows are told apart; larger ones are counted together with it.
const LARGEST: usize = 128;

#[derive(Debug, Default)]
struct Sum {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Sum {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn tally(&self) -> Tally {
        Tally { count: self.count.load(Relaxed), time: Duration::from_nanos(self.nanoseconds.load(Relaxed)) }
    }
}

#[derive(Debug, Default)]
struct Runs {
    input: Sum,
    inference: Sum,
    output: Sum,
}

/// The totals of one version.
#[derive(Debug)]
pub(super) struct Totals {
    last: AtomicU64,
    rows: AtomicU64,
    runs: AtomicU64,
    success: Sum,
    fail: Sum,
    queue: Sum,
    each: Runs,
    /// By rows per run, from 1; made when first used, since most sizes never are.
    by_rows: Vec<std::sync::OnceLock<Box<Runs>>>,
}

impl Totals {
    pub(super) fn new() -> Self {
        Self {
            last: AtomicU64::default(),
            rows: AtomicU64::default(),
            runs: AtomicU64::default(),
            success: Sum::default(),
            fail: Sum::default(),
            queue: Sum::default(),
            each: Runs::default(),
            by_rows: (0..LARGEST).map(|_| std::sync::OnceLock::new()).collect(),
        }
    }

    /// A request of `rows` rows ran.
    pub(super) fn executed(&self, rows: usize, executed: &Executed) {
        self.rows.fetch_add(rows as u64, Relaxed);
        self.queue.add(executed.queue);
        self.each.add(executed);
        if executed.is_first_of_run {
            self.runs.fetch_add(1, Relaxed);
            let slot = &self.by_rows[executed.run_rows.clamp(1, LARGEST) - 1];
            slot.get_or_init(Box::default).add(executed);
        }
    }

    /// A request is over.
    pub(super) fn ended(&self, is_success: bool, total: Duration) {
        let sum = if is_success { &self.success } else { &self.fail };
        sum.add(total);
        let now = coarse_time_of_day();
        self.last.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn statistics(&self, model: &ModelName, version: Version) -> ModelStatistics {
        let last = self.last.load(Relaxed);
        let batch = |(index, slot): (usize, &std::sync::OnceLock<Box<Runs>>)| {
            slot.get().map(|runs| BatchStatistics {
                rows: index as u64 + 1,
                compute_input: runs.input.tally(),
                compute_infer: runs.inference.tally(),
                compute_output: runs.output.tally(),
            })
        };
        ModelStatistics {
            model: model.clone(),
            version,
            last_inference: (last > 0).then(|| UNIX_EPOCH + Duration::from_millis(last)),
            inference_count: self.rows.load(Relaxed),
            execution_count: self.runs.load(Relaxed),
            success: self.success.tally(),
            fail: self.fail.tally(),
            queue: self.queue.tally(),
            compute_input: self.each.input.tally(),
            compute_infer: self.each.inference.tally(),
            compute_output: self.each.output.tally(),
            batches: self.by_rows.iter().enumerate().filter_map(batch).collect(),
        }
    }
}

impl Runs {
    fn add(&self, executed: &Executed) {
        self.input.add(executed.input);
        self.inference.add(executed.inference);
        self.output.add(executed.output);
    }
}
