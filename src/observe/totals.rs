//! The totals behind the protocol's statistics: atomics, so that counting waits for nobody.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    domain::{BatchStatistics, ModelName, ModelStatistics, Tally, Version, coarse_time_of_day},
    fault::ErrorCode,
    schedule::Executed,
};

/// Runs of up to this many rows have a place each.
const SMALL: usize = 128;
/// Larger runs have this many places, the first sizes that come along. Runs of further sizes are counted in all
/// totals but those by size.
const LARGE: usize = 256;

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

/// Why a request failed, as Triton tells reasons apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was refused, or given up, while it waited.
    Rejected,
    /// Its caller went away.
    Cancelled,
    /// The model failed.
    Backend,
    Other,
}

impl Failure {
    pub(super) const ALL: [Self; 4] = [Self::Rejected, Self::Cancelled, Self::Backend, Self::Other];

    pub(super) fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Overloaded | ErrorCode::DeadlineExceeded => Self::Rejected,
            ErrorCode::Internal => Self::Backend,
            _ => Self::Other,
        }
    }

    /// The value of Triton's label `reason`.
    pub(super) fn triton(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Cancelled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

#[derive(Debug, Default)]
struct Runs {
    input: Sum,
    inference: Sum,
    output: Sum,
}

/// The runs of one of the larger sizes.
#[derive(Debug, Default)]
struct Place {
    /// 0: nobody's yet. Once taken it stays.
    rows: AtomicU64,
    runs: Runs,
}

/// The totals of one version.
#[derive(Debug)]
pub(super) struct Totals {
    last: AtomicU64,
    rows: AtomicU64,
    runs: AtomicU64,
    success: Sum,
    fail: Sum,
    /// By [`Failure`].
    failures: [AtomicU64; Failure::ALL.len()],
    queue: Sum,
    each: Runs,
    /// By rows per run, from 0; made when first used, since most sizes never are.
    small: Vec<OnceLock<Box<Runs>>>,
    /// A hash table of the larger ones.
    large: OnceLock<Box<[Place]>>,
}

impl Totals {
    pub(super) fn new() -> Self {
        Self {
            last: AtomicU64::default(),
            rows: AtomicU64::default(),
            runs: AtomicU64::default(),
            success: Sum::default(),
            fail: Sum::default(),
            failures: Default::default(),
            queue: Sum::default(),
            each: Runs::default(),
            small: (0..=SMALL).map(|_| OnceLock::new()).collect(),
            large: OnceLock::new(),
        }
    }

    /// A request of `rows` rows ran.
    pub(super) fn executed(&self, rows: usize, executed: &Executed) {
        self.rows.fetch_add(rows as u64, Relaxed);
        self.queue.add(executed.queue);
        self.each.add(executed);
        if executed.is_first_of_run {
            self.runs.fetch_add(1, Relaxed);
            if let Some(runs) = self.of_size(executed.run_rows) {
                runs.add(executed);
            }
        }
    }

    /// The runs of one size; `None` when too many sizes are told apart already.
    fn of_size(&self, rows: usize) -> Option<&Runs> {
        if let Some(slot) = self.small.get(rows) {
            return Some(slot.get_or_init(Box::default));
        }
        let places = self.large.get_or_init(|| (0..LARGE).map(|_| Place::default()).collect());
        let rows = rows as u64;
        // Sizes are often multiples of a power of two: the product's upper bits differ all the same.
        let first = (rows.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % LARGE as u64;
        let (before, from) = places.split_at(usize::try_from(first).unwrap_or_default());
        let is_own = |place: &&Place| match place.rows.load(Relaxed) {
            0 => place.rows.compare_exchange(0, rows, Relaxed, Relaxed).map_or_else(|found| found == rows, |_| true),
            found => found == rows,
        };
        from.iter().chain(before).find(is_own).map(|place| &place.runs)
    }

    /// A request is over.
    pub(super) fn ended(&self, outcome: Result<(), Failure>, total: Duration) {
        match outcome {
            Ok(()) => self.success.add(total),
            Err(failure) => {
                self.fail.add(total);
                self.failures[failure as usize].fetch_add(1, Relaxed);
            }
        }
        let now = coarse_time_of_day();
        self.last.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Requests that failed, by reason.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        Failure::ALL.into_iter().zip(self.failures.iter().map(|count| count.load(Relaxed)))
    }

    pub(super) fn statistics(&self, model: &ModelName, version: Version) -> ModelStatistics {
        let last = self.last.load(Relaxed);
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
            batches: self.batches(),
        }
    }

    fn batches(&self) -> Vec<BatchStatistics> {
        let of_small = |(rows, slot): (usize, &OnceLock<Box<Runs>>)| Some(slot.get()?.told(rows as u64));
        let small = self.small.iter().enumerate().filter_map(of_small);
        let places = self.large.get().into_iter().flatten();
        let mut large: Vec<_> = places.map(|place| place.runs.told(place.rows.load(Relaxed))).collect();
        large.retain(|batch| batch.rows > 0);
        large.sort_by_key(|batch| batch.rows);
        small.chain(large).collect()
    }
}

impl Runs {
    fn add(&self, executed: &Executed) {
        self.input.add(executed.input);
        self.inference.add(executed.inference);
        self.output.add(executed.output);
    }

    fn told(&self, rows: u64) -> BatchStatistics {
        BatchStatistics {
            rows,
            compute_input: self.input.tally(),
            compute_infer: self.inference.tally(),
            compute_output: self.output.tally(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(totals: &Totals, rows: usize) {
        let inference = Duration::from_nanos(rows as u64);
        totals.executed(rows, &Executed { inference, run_rows: rows, is_first_of_run: true, ..Executed::default() });
    }

    fn batches(totals: &Totals) -> Vec<(u64, u64)> {
        totals.batches().iter().map(|batch| (batch.rows, batch.compute_infer.count)).collect()
    }

    #[test]
    fn runs_are_told_by_the_rows_that_they_had() {
        let totals = Totals::new();
        for rows in [4096, 0, 1, 128, 129, 256, 129, 1 << 40] {
            run(&totals, rows);
        }
        assert_eq!(batches(&totals), [(0, 1), (1, 1), (128, 1), (129, 2), (256, 1), (4096, 1), (1 << 40, 1)]);
        let of_129 = totals.batches()[3].compute_infer;
        assert_eq!(of_129.time, Duration::from_nanos(258));
    }

    #[test]
    fn sizes_told_apart_are_bounded_and_the_others_are_in_the_totals() {
        let totals = Totals::new();
        for rows in 129..=129 + LARGE {
            run(&totals, rows);
        }
        run(&totals, 200);
        let told = batches(&totals);
        assert_eq!((told.len(), told[71]), (LARGE, (200, 2)));
        let executions: u64 = told.iter().map(|(_, runs)| runs).sum();
        let statistics = totals.statistics(&"m".parse().unwrap(), Version::new(1).unwrap());
        assert_eq!((statistics.execution_count, executions), (LARGE as u64 + 2, LARGE as u64 + 1));
    }

    #[test]
    fn threads_that_meet_at_a_new_size_count_into_one_place() {
        let totals = Totals::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (200..300).for_each(|rows| run(&totals, rows)));
            }
        });
        assert_eq!(batches(&totals), (200..300).map(|rows| (rows, 4)).collect::<Vec<_>>());
    }
}
