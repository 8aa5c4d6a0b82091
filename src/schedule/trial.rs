//! A model tried out before it serves: warmed, timed, and looked at whether its requests can run
//! together.
//!
//! Requests can be joined along axis 0 only if no row of the outputs depends on another row of the
//! inputs. Shapes alone do not tell (a softmax over axis 0 has the shape of one over axis 1), so
//! different rows are run alone and joined, and the outputs compared. Then ever larger batches are
//! run, which warms them and measures what they cost; where larger ones gain nothing, requests are
//! better served one by one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use half::{bf16, f16};

use super::{
    batch,
    cost::Costs,
    plan::{RUN_OVERHEAD, WORTHWHILE},
};
use crate::{
    domain::{Batching, DataType, Dim, Dimensions, Elements, ServingSettings, Shape, Signature, Tensor, TensorSpec},
    engine::{EngineError, Model},
};

/// The largest inputs made up for one run, in bytes.
const INPUT_LIMIT: usize = 64 << 20;
/// A batch that takes longer is not tried: loading must not last for ever.
const RUN_LIMIT: Duration = Duration::from_millis(400);
/// Runs of each size, of which the fastest counts, or of many the fastest but for a quarter: a loaded machine makes runs
/// slower, never faster.
const REPEATS: usize = 3;
/// Short runs are timed more often, up to [`MORE_REPEATS`] times, until they took so long together.
const ENOUGH: Duration = Duration::from_micros(400);
const MORE_REPEATS: usize = 16;
/// Where runs are shorter than this, all sizes are tried, whatever the smaller ones said: one that was disturbed must not
/// decide on all larger ones.
const SHORT: Duration = Duration::from_millis(2);
/// Outputs of the same row may differ by this much, relative to the larger: other kernels compute
/// other batch sizes.
const TOLERANCE: f64 = 1e-3;
/// Sizes tried for dimensions that may have any, other than the rows.
const FREE_SIZES: [i64; 3] = [1, 8, 32];

/// A time that goes on, from any moment.
pub type Stopwatch = fn() -> Duration;

/// Time as it passes.
#[must_use]
pub fn wall_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// What this thread has used of a processor: the time of a run on a thread that others go before.
#[must_use]
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// What was found out.
#[derive(Debug)]
pub struct Trial {
    pub(super) costs: Costs,
    /// The largest batch that is faster per row than smaller ones; 1 when requests run alone.
    pub(super) useful_rows: usize,
    /// Requests may run together, whether or not it paid when it was tried.
    pub(super) can_join: bool,
    /// Why requests run alone; for operators.
    pub alone: Option<String>,
}

impl Trial {
    /// Nothing tried: every request runs alone.
    #[must_use]
    pub fn none() -> Self {
        Self { costs: Costs::default(), useful_rows: 1, can_join: false, alone: Some("not tried".into()) }
    }

    /// Tries `model` out. Blocks for as long as its runs take.
    ///
    /// The time of a run is the difference between what `stopwatch` says after it and before.
    ///
    /// A model that refuses made-up inputs is no fault: it is then neither warm nor batched,
    /// unless `is_forced`, which an operator says who knows that its rows are independent.
    #[must_use]
    pub fn of(model: &dyn Model, settings: &ServingSettings, is_forced: bool, stopwatch: Stopwatch) -> Self {
        let mut trial = Self::none();
        trial.alone = trial.run(model, settings, is_forced, stopwatch).err();
        trim(model);
        if let Some(reason) = &trial.alone {
            trial.useful_rows = 1;
            tracing::debug!(reason, "requests run alone");
        }
        trial
    }

    /// What was found, in words for an operator.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.alone {
            Some(reason) => format!("requests run alone: {reason}"),
            None => format!("up to {} rows run together", self.useful_rows),
        }
    }

    fn run(
        &mut self,
        model: &dyn Model,
        settings: &ServingSettings,
        is_forced: bool,
        stopwatch: Stopwatch,
    ) -> Result<(), String> {
        let signature = model.signature().clone();
        let all: Vec<usize> = (0..signature.outputs.len()).collect();
        let probes = Probes { model, signature: &signature, outputs: &all, stopwatch };
        let free_size = probes.first_that_runs();
        if let Some(size) = free_size {
            self.time(&probes, size, 1);
        }
        let Batching::On(limits) = &settings.batching else { return Err("batching is off".into()) };
        if let Some(tensor) = without_free_rows(&signature) {
            return Err(format!("'{tensor}' has no first dimension of any size"));
        }
        let Some(free_size) = free_size else {
            self.useful_rows = limits.max_rows;
            return if is_forced { Ok(()) } else { Err("the model does not run on made-up inputs".into()) };
        };
        if !is_forced {
            probes.rows_are_independent(free_size)?;
        }
        self.can_join = true;
        self.useful_rows = self.largest_worthwhile(&probes, free_size, limits.max_rows);
        if is_forced {
            self.useful_rows = limits.max_rows;
        }
        if self.useful_rows > 1 { Ok(()) } else { Err("larger batches are no faster per row".into()) }
    }

    fn largest_worthwhile(&self, probes: &Probes<'_>, free_size: i64, max_rows: usize) -> usize {
        let per_row = |time: Duration, rows: usize| (time + RUN_OVERHEAD).as_secs_f64() / rows as f64;
        let mut best = (1, per_row(self.costs.expected(1), 1));
        let mut misses = 0;
        let sizes = std::iter::successors(Some(2_usize), |rows| rows.checked_mul(2));
        for rows in sizes.map(|rows| rows.min(max_rows)) {
            if self.costs.expected(rows) > RUN_LIMIT {
                break;
            }
            let Some(time) = self.time(probes, free_size, rows) else { break };
            let per_row = per_row(time, rows);
            if per_row < best.1 * WORTHWHILE {
                (best, misses) = ((rows, per_row), 0);
            } else {
                misses += 1;
            }
            if misses >= 2 && time > SHORT || rows == max_rows {
                break;
            }
        }
        best.0
    }

    /// Times a run of `rows` rows, after one to warm it; `None` when it fails.
    fn time(&self, probes: &Probes<'_>, free_size: i64, rows: usize) -> Option<Duration> {
        let mut inputs = probes.inputs(free_size, rows, 0)?;
        probes.run(&inputs).ok()?;
        let mut times = Vec::with_capacity(MORE_REPEATS);
        for run in 1..=MORE_REPEATS {
            let started = (probes.stopwatch)();
            probes.run(&inputs).ok()?;
            let time = (probes.stopwatch)().saturating_sub(started);
            times.push(time);
            if time > RUN_LIMIT / 20 || (run >= REPEATS && times.iter().sum::<Duration>() >= ENOUGH) {
                break;
            }
            if time <= SHORT {
                // Other rows: a processor learns the branches of a few that come again and again.
                inputs = probes.inputs(free_size, rows, run * rows)?;
            }
        }
        times.sort_unstable();
        let time = times[times.len() / 4];
        self.costs.record(rows, time);
        Some(time)
    }
}

/// Runs a model once on made-up inputs of one row, for what may happen then.
///
/// # Errors
/// Why it ran on none of them, which is no fault as such.
pub fn run_once(model: &dyn Model) -> Result<(), EngineError> {
    let signature = model.signature().clone();
    let outputs: Vec<usize> = (0..signature.outputs.len()).collect();
    let probes = Probes { model, signature: &signature, outputs: &outputs, stopwatch: wall_time };
    let mut outcome = Ok(());
    for inputs in probes.free_sizes().iter().filter_map(|&size| probes.inputs(size, 1, 0)) {
        outcome = probes.run(&inputs).map(drop);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Large batches may never come: their memory is given back.
fn trim(model: &dyn Model) {
    let signature = model.signature().clone();
    let outputs: Vec<usize> = (0..signature.outputs.len()).collect();
    let probes = Probes { model, signature: &signature, outputs: &outputs, stopwatch: wall_time };
    if let Some(inputs) = probes.first_that_runs().and_then(|size| probes.inputs(size, 1, 0)) {
        // It ran a moment ago; should it fail now, the memory stays where it is.
        let _ = catch_unwind(AssertUnwindSafe(|| model.run_and_trim(&inputs, &outputs)));
    }
}

/// The name of an input or output whose first dimension is fixed, or which has none.
fn without_free_rows(signature: &Signature) -> Option<&str> {
    let mut specs = signature.inputs.iter().filter(|spec| !spec.optional).chain(&signature.outputs);
    let fixed = specs.find(|spec| spec.shape.first() != Some(&Dim::Any));
    if signature.inputs.iter().all(|spec| spec.optional) {
        return Some(signature.outputs.first().map_or("", |spec| &spec.name));
    }
    fixed.map(|spec| spec.name.as_str())
}

/// Made-up inputs for a model, and its runs on them.
struct Probes<'a> {
    model: &'a dyn Model,
    signature: &'a Signature,
    outputs: &'a [usize],
    stopwatch: Stopwatch,
}

impl Probes<'_> {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        catch_unwind(AssertUnwindSafe(|| self.model.run(inputs, self.outputs)))
            .unwrap_or_else(|_| Err(EngineError::Failed("the engine panicked".into())))
    }

    /// The first size of free dimensions that the model runs on.
    fn first_that_runs(&self) -> Option<i64> {
        let mut sizes = self.free_sizes().iter().copied();
        sizes.find(|&size| self.inputs(size, 1, 0).is_some_and(|inputs| self.run(&inputs).is_ok()))
    }

    /// The sizes worth trying.
    fn free_sizes(&self) -> &'static [i64] {
        let has_free = self.signature.inputs.iter().any(|spec| spec.shape.iter().skip(1).any(|dim| *dim == Dim::Any));
        if has_free { &FREE_SIZES } else { &FREE_SIZES[..1] }
    }

    /// Inputs of `rows` rows, of which the first is the row number `first`: rows of different
    /// numbers differ. `None` when they would be too large.
    fn inputs(&self, free_size: i64, rows: usize, first: usize) -> Option<Vec<Tensor>> {
        let required = self.signature.inputs.iter().filter(|spec| !spec.optional);
        required.map(|spec| made_up(spec, free_size, rows, first)).collect()
    }

    /// # Errors
    /// What shows that the outputs of a row depend on other rows.
    fn rows_are_independent(&self, free_size: i64) -> Result<(), String> {
        const ROWS: usize = 3;
        let run = |rows, first| {
            let inputs = self.inputs(free_size, rows, first).ok_or("its inputs are too large to be made up")?;
            self.run(&inputs).map_err(|error| format!("it does not run on {rows} made-up rows: {error}"))
        };
        let joined = run(ROWS, 0)?;
        let joined = batch::split(&joined, std::iter::repeat_n(1, ROWS))
            .map_err(|_| "its outputs have not one row for each row of the inputs".to_owned())?;
        for (row, together) in joined.iter().enumerate() {
            for (alone, together) in run(1, row)?.iter().zip(together.iter()) {
                if !are_close(alone, together) {
                    return Err(format!("output '{}' of a row depends on other rows", alone.name()));
                }
            }
        }
        Ok(())
    }
}

fn made_up(spec: &TensorSpec, free_size: i64, rows: usize, first: usize) -> Option<Tensor> {
    let dimensions = spec.shape.iter().enumerate().map(|(axis, dim)| match dim {
        Dim::Fixed(size) => i64::try_from(*size).ok(),
        Dim::Any if axis == 0 => i64::try_from(rows).ok(),
        Dim::Any | Dim::Unranked => Some(free_size),
    });
    let shape = Shape::new(dimensions.collect::<Option<Dimensions>>()?).ok()?;
    let size = spec.datatype.size().unwrap_or(size_of::<Bytes>());
    if shape.elements().checked_mul(size)? > INPUT_LIMIT {
        return None;
    }
    let width = shape.elements().checked_div(rows).unwrap_or(0).max(1);
    // Whole numbers stay small: they may be categories or places.
    let whole = |index: usize| u8::try_from((index % width * 3 + (index / width + first) * 5) % 3).unwrap_or(0);
    let real = |index: usize| {
        let step = u8::try_from((index % width * 7 + (index / width + first) * 11) % 17).unwrap_or(0);
        f32::from(step) / 8.0 - 1.0
    };
    let count = shape.elements();
    let name = spec.name.as_str();
    let bytes: Vec<u8> = match spec.datatype {
        DataType::Bytes => {
            let elements = (0..count).map(|index| Bytes::from(whole(index).to_string())).collect();
            return Tensor::text(name, shape, elements).ok();
        }
        DataType::Bool => (0..count).map(|index| whole(index) & 1).collect(),
        DataType::Uint8 | DataType::Int8 => (0..count).map(whole).collect(),
        DataType::Uint16 | DataType::Int16 => (0..count).flat_map(|at| u16::from(whole(at)).to_le_bytes()).collect(),
        DataType::Uint32 | DataType::Int32 => (0..count).flat_map(|at| u32::from(whole(at)).to_le_bytes()).collect(),
        DataType::Uint64 | DataType::Int64 => (0..count).flat_map(|at| u64::from(whole(at)).to_le_bytes()).collect(),
        DataType::Fp16 => (0..count).flat_map(|at| f16::from_f32(real(at)).to_le_bytes()).collect(),
        DataType::Bf16 => (0..count).flat_map(|at| bf16::from_f32(real(at)).to_le_bytes()).collect(),
        DataType::Fp32 => (0..count).flat_map(|at| real(at).to_le_bytes()).collect(),
        DataType::Fp64 => (0..count).flat_map(|at| f64::from(real(at)).to_le_bytes()).collect(),
    };
    Tensor::plain(name, spec.datatype, shape, bytes.into()).ok()
}

/// True when the tensors are the same but for the rounding of other kernels.
fn are_close(left: &Tensor, right: &Tensor) -> bool {
    if left.shape() != right.shape() || left.datatype() != right.datatype() {
        return false;
    }
    match (floats(left), floats(right)) {
        (Some(left), Some(right)) => left.iter().zip(&right).all(|(left, right)| {
            let scale = left.abs().max(right.abs()).max(1e-3);
            let is_same = left.total_cmp(right).is_eq() || (left.is_nan() && right.is_nan());
            is_same || (left - right).abs() <= TOLERANCE * scale
        }),
        _ => left.elements() == right.elements(),
    }
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let Elements::Plain { datatype, bytes } = tensor.elements() else { return None };
    match datatype {
        DataType::Fp16 => Some(read(bytes, |element| f16::from_le_bytes(element).to_f64())),
        DataType::Bf16 => Some(read(bytes, |element| bf16::from_le_bytes(element).to_f64())),
        DataType::Fp32 => Some(read(bytes, |element| f64::from(f32::from_le_bytes(element)))),
        DataType::Fp64 => Some(read(bytes, f64::from_le_bytes)),
        _ => None,
    }
}

fn read<const SIZE: usize>(bytes: &[u8], one: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<SIZE>().0.iter().map(|element| one(*element)).collect()
}
