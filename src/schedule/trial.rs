//! A model tried out before it serves: warmed, timed, and looked at whether its requests can run
//! together.
//!
//! Requests can be joined along axis 0 only if no row of the outputs depends on another row of the
//! inputs. The room `independence` proves that from the graph; a trial only shows the opposite. So both
//! are asked. The trial runs ordinary rows alone, and joined with others of very different magnitude,
//! length and text, and compares the outputs. Then ever larger batches are run, which warms them and
//! measures what they cost; where larger ones gain nothing, requests are better served one by one.
//!
//! | proof | `batching.enabled = true` written for the model | requests are joined |
//! | --- | --- | --- |
//! | independent | no | where the trial agrees |
//! | independent | yes | unless the trial disagrees |
//! | unknown | no | never |
//! | unknown | yes | where the trial agrees; some joined runs are compared with runs alone for ever |
//! | dependent | either | never |

mod compare;
mod rows;
mod shapes;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

pub use self::rows::Sample;
use self::rows::{Kind, RealRows};
use super::{
    agreement::Rigour,
    batch,
    cost::Costs,
    plan::{RUN_OVERHEAD, WORTHWHILE},
};
use crate::{
    domain::{Batching, Dim, Dimensions, ServingSettings, Signature, Tensor},
    engine::{EngineError, Model},
    independence::{BatchAxis, Reason, Verdict},
};

/// A batch that takes longer is not tried: loading must not last for ever.
const RUN_LIMIT: Duration = Duration::from_millis(400);
/// Where a run of one row takes longer, fewer are run.
const SLOW: Duration = Duration::from_millis(50);
/// Runs of each size, of which the fastest counts, or of many the fastest but for a quarter: a loaded machine makes runs
/// slower, never faster.
const REPEATS: usize = 3;
/// Short runs are timed more often, up to [`MORE_REPEATS`] times, until they took so long together.
const ENOUGH: Duration = Duration::from_micros(400);
const MORE_REPEATS: usize = 16;
/// Where runs are shorter than this, all sizes are tried, whatever the smaller ones said: one that was disturbed must not
/// decide on all larger ones.
const SHORT: Duration = Duration::from_millis(2);

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

/// What is known of a model before it is tried out.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// What its graph says of its rows.
    pub verdict: Arc<Verdict>,
    /// The model's own configuration says that its requests are to be joined.
    pub is_asked_for: bool,
    /// Requests that it should be able to answer, the best known first: used beside made-up rows, and in their place where
    /// it refuses those.
    pub samples: &'a [Sample],
}

/// What was found out.
#[derive(Debug)]
pub struct Trial {
    pub(super) costs: Costs,
    /// The largest batch that is faster per row than smaller ones; 1 when requests run alone.
    pub(super) useful_rows: usize,
    /// Requests may run together, whether or not it paid when it was tried.
    pub(super) can_join: bool,
    /// What the graph says of the rows.
    pub verdict: Arc<Verdict>,
    /// Why requests run alone; for operators.
    pub alone: Option<String>,
    /// It ran on some row: it is warm.
    pub(super) is_tried: bool,
    /// The dimensions of each output after the first, where no run gives others; empty where nothing is known.
    pub(super) widths: Vec<Option<Dimensions>>,
    /// The output that differs between two runs on the same rows.
    pub unsteady: Option<String>,
    /// What an operator should know: sentences.
    pub warnings: Vec<String>,
}

impl Trial {
    /// Nothing tried: every request runs alone.
    #[must_use]
    pub fn none() -> Self {
        Self {
            costs: Costs::default(),
            useful_rows: 1,
            can_join: false,
            verdict: Arc::new(Verdict::Unknown(Reason::of_model("the model was not looked at"))),
            alone: Some("not tried".into()),
            is_tried: true,
            widths: Vec::new(),
            unsteady: None,
            warnings: Vec::new(),
        }
    }

    /// Tries `model` out. Blocks for as long as its runs take.
    ///
    /// The time of a run is the difference between what `stopwatch` says after it and before.
    ///
    /// A model that refuses made-up inputs is no fault: it is tried on samples, and where there are none
    /// it is neither warm nor batched, unless it is proven and asked for.
    #[must_use]
    pub fn of(model: &dyn Model, settings: &ServingSettings, known: &Known<'_>, stopwatch: Stopwatch) -> Self {
        let mut trial = Self { verdict: Arc::clone(&known.verdict), ..Self::none() };
        let signature = model.signature().clone();
        let all = all_outputs(&signature);
        let probes = Probes::new(model, &signature, &all, known.samples, stopwatch);
        trial.alone = trial.run(&probes, settings, known).err();
        probes.trim();
        if let Verdict::Independent(proof) = &*known.verdict {
            trial.warnings.extend(proof.warnings.iter().cloned());
        }
        if let Some(reason) = &trial.alone {
            trial.useful_rows = 1;
            tracing::debug!(reason, "requests run alone");
        }
        trial
    }

    /// What was found, in words for an operator.
    #[must_use]
    pub fn in_words(&self) -> String {
        let runs = match &self.alone {
            Some(reason) => format!("requests run alone: {reason}"),
            None => format!("up to {} rows run together", self.useful_rows),
        };
        let is_told = self.is_tried || runs.contains(NOTHING_TO_RUN);
        if is_told { runs } else { format!("{runs}; it is not warm: {NOTHING_TO_RUN}") }
    }

    pub(super) fn rigour(&self) -> Rigour {
        rigour(&self.verdict)
    }

    fn run(&mut self, probes: &Probes<'_>, settings: &ServingSettings, known: &Known<'_>) -> Result<(), String> {
        let first = self.time(probes, 1);
        let is_slow = first.is_some_and(|time| time > SLOW);
        self.is_tried = first.is_some();
        if first.is_some() {
            self.unsteady = compare::differs_between_runs(probes, if is_slow { 1 } else { 3 });
        }
        let Batching::On(limits) = &settings.batching else { return Err("batching is off".into()) };
        self.allowed(known)?;
        if let Some(tensor) = without_free_rows(probes.signature) {
            return Err(format!("'{tensor}' has no first dimension of any size"));
        }
        if first.is_none() {
            // Where it is proven, whoever asks for it may do without the trial.
            if known.is_asked_for && matches!(*known.verdict, Verdict::Independent(_)) {
                self.useful_rows = limits.max_rows;
                return Ok(());
            }
            return Err(NOTHING_TO_RUN.into());
        }
        if let Some(output) = &self.unsteady {
            return Err(format!("output '{output}' differs between two runs on the same rows"));
        }
        if !known.is_asked_for && first.is_some_and(|time| time > RUN_LIMIT) {
            return Err("a run of one row takes so long that larger batches are not tried".into());
        }
        self.widths = compare::independent(probes, self.rigour(), is_slow)?;
        self.can_join = true;
        self.useful_rows = self.largest_worthwhile(probes, limits.max_rows);
        if known.is_asked_for {
            self.useful_rows = limits.max_rows;
        }
        if self.useful_rows > 1 { Ok(()) } else { Err("larger batches are no faster per row".into()) }
    }

    /// What the proof allows.
    fn allowed(&mut self, known: &Known<'_>) -> Result<(), String> {
        match &*known.verdict {
            Verdict::Dependent(reason) => {
                if known.is_asked_for {
                    self.warnings.push(format!(
                        "batching is asked for in the model's configuration and stays off: an answer would depend on the \
                         requests beside it ({reason})"
                    ));
                }
                Err(format!("rows depend on each other: {reason}"))
            }
            Verdict::Unknown(reason) if !known.is_asked_for => Err(format!(
                "it is not proven that rows are independent: {reason} (batching.enabled = true in model.toml lets a \
                 trial decide)"
            )),
            Verdict::Unknown(_) => Ok(()),
            Verdict::Independent(proof) => {
                let lies_elsewhere = |axis: &&BatchAxis| axis.axis != 0;
                match proof.inputs.iter().chain(&proof.outputs).find(lies_elsewhere) {
                    Some(BatchAxis { name, axis }) => Err(format!(
                        "the rows of '{name}' lie along axis {axis}: requests are joined along axis 0 only"
                    )),
                    None => Ok(()),
                }
            }
        }
    }

    fn largest_worthwhile(&self, probes: &Probes<'_>, max_rows: usize) -> usize {
        let per_row = |time: Duration, rows: usize| (time + RUN_OVERHEAD).as_secs_f64() / rows as f64;
        let mut best = (1, per_row(self.costs.expected(1), 1));
        let mut misses = 0;
        let sizes = std::iter::successors(Some(2_usize), |rows| rows.checked_mul(2));
        for rows in sizes.map(|rows| rows.min(max_rows)) {
            if self.costs.expected(rows) > RUN_LIMIT {
                break;
            }
            let Some(time) = self.time(probes, rows) else { break };
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
    fn time(&self, probes: &Probes<'_>, rows: usize) -> Option<Duration> {
        let mut inputs = probes.inputs(rows, 0)?;
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
                inputs = probes.inputs(rows, run * rows)?;
            }
        }
        times.sort_unstable();
        let time = times[times.len() / 4];
        self.costs.record(rows, time);
        Some(time)
    }
}

/// Why a model that takes no made-up rows is not tried, and what would help.
const NOTHING_TO_RUN: &str = "the model takes no made-up rows (an encoder may refuse categories that it does not know), and \
                              there are no real ones: golden requests (golden/*.json), [[warmup]] with data, or a \
                              profile.json would do";

fn rigour(verdict: &Verdict) -> Rigour {
    if matches!(verdict, Verdict::Independent(_)) { Rigour::Proven } else { Rigour::Unproven }
}

fn all_outputs(signature: &Signature) -> Vec<usize> {
    (0..signature.outputs.len()).collect()
}

/// Runs a model on made-up inputs of one row, for what may happen then: on an ordinary one, and where requests may be joined
/// on rows of other magnitude, as clients may send them and as the trial will.
///
/// # Errors
/// Why it did not run on an ordinary one, which is no fault as such.
pub fn run_once(model: &dyn Model) -> Result<(), EngineError> {
    let signature = model.signature().clone();
    let outputs = all_outputs(&signature);
    let probes = Probes { model, signature: &signature, outputs: &outputs, stopwatch: wall_time, source: Source::None };
    let mut outcome = Ok(());
    for inputs in rows::free_sizes(&signature).iter().filter_map(|&size| rows::inputs(&signature, size, 1, 0)) {
        let started = thread_time();
        outcome = probes.run(&inputs).map(drop);
        if outcome.is_ok() {
            let is_quick = thread_time().saturating_sub(started) <= RUN_LIMIT;
            if is_quick && without_free_rows(&signature).is_none() {
                compare::run_extremes(&probes, &inputs);
            }
            break;
        }
    }
    outcome
}

/// The shapes of `model`'s outputs, and what of them its file declares otherwise, in words. What runs on `samples`, or on
/// made-up rows, show wins over what is declared.
#[must_use]
pub fn seen_outputs(model: &dyn Model, samples: &[Sample]) -> (Vec<Vec<Dim>>, Vec<String>) {
    let signature = model.signature().clone();
    let all = all_outputs(&signature);
    let seen = shapes::outputs(&Probes::new(model, &signature, &all, samples, wall_time));
    let differences = shapes::differences(&signature, &seen);
    (seen, differences)
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

/// The rows that a model is run on.
enum Source {
    /// It runs on none.
    None,
    /// Made up, with this size for free dimensions; and real ones, of which there may be none.
    MadeUp(i64, RealRows),
    /// It takes no made-up ones.
    Real(RealRows),
}

/// A model, and what it can be run on.
struct Probes<'a> {
    model: &'a dyn Model,
    signature: &'a Signature,
    outputs: &'a [usize],
    stopwatch: Stopwatch,
    source: Source,
}

impl<'a> Probes<'a> {
    /// Looks what the model runs on.
    fn new(
        model: &'a dyn Model,
        signature: &'a Signature,
        outputs: &'a [usize],
        samples: &[Sample],
        stopwatch: Stopwatch,
    ) -> Self {
        let mut probes = Self { model, signature, outputs, stopwatch, source: Source::None };
        let mut real = RealRows::of(signature, samples);
        real.rows.retain(|row| probes.run(row).is_ok());
        let runs = |size: &i64| rows::inputs(signature, *size, 1, 0).is_some_and(|inputs| probes.run(&inputs).is_ok());
        probes.source = match rows::free_sizes(signature).iter().copied().find(runs) {
            Some(size) => Source::MadeUp(size, real),
            None if real.rows.is_empty() => Source::None,
            None => Source::Real(real),
        };
        probes
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let outputs = catch_unwind(AssertUnwindSafe(|| self.model.run(inputs, self.outputs)))
            .unwrap_or_else(|_| Err(EngineError::Failed("the engine panicked".into())))?;
        if outputs.len() == self.outputs.len() {
            Ok(outputs)
        } else {
            Err(EngineError::Failed("an output is left out".into()))
        }
    }

    /// Inputs of `rows` rows, of which the first is the row number `first`: rows of different numbers differ, as far as
    /// there are real ones. `None` when there are none or they would be too large.
    fn inputs(&self, rows: usize, first: usize) -> Option<Vec<Tensor>> {
        match &self.source {
            Source::None => None,
            Source::MadeUp(size, _) => rows::inputs(self.signature, *size, rows, first),
            Source::Real(real) => {
                let parts: Vec<&[Tensor]> =
                    real.rows.iter().map(Vec::as_slice).cycle().skip(first % real.rows.len()).take(rows).collect();
                batch::join(&parts).ok()
            }
        }
    }

    /// Large batches may never come: their memory is given back.
    fn trim(&self) {
        if let Some(inputs) = self.inputs(1, 0) {
            // It ran a moment ago; should it fail now, the memory stays where it is.
            let _ = catch_unwind(AssertUnwindSafe(|| self.model.run_and_trim(&inputs, self.outputs)));
        }
    }
}
