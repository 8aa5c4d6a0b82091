//! Runs of several requests at once, and what ends them for good.
//!
//! Whether rows are independent is known before a lane begins. What a joined run shows here is looked at all the same, since
//! an answer must never be touched by a stranger's row:
//!
//! - each output has one row for each row of the run;
//! - each row of an output is as wide as the trial has seen it, where its width is no choice of the client's;
//! - where the rows are not proven to be independent, one request in some runs is run alone too, and must get the same.
//!
//! What fails a check ends the joining for as long as the version is loaded. Its requests are then run again, alone, before
//! anybody is answered.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{Core, Executed, Job, batch};
use crate::{
    domain::{Dimensions, Tensor},
    schedule::agreement::{self, Rigour},
};

/// Joined runs of unproven models that are looked at: the first, then one in so many.
const FIRST_AUDITS: u64 = 32;
const AUDIT_EVERY: u64 = 64;

type Teller = Box<dyn Fn(&str) + Send + Sync>;

/// Whether requests of a lane are still joined.
pub(super) struct Merging {
    is_stopped: AtomicBool,
    why_stopped: OnceLock<String>,
    teller: OnceLock<Teller>,
    /// As in [`super::Trial`].
    widths: Vec<Option<Dimensions>>,
    rigour: Rigour,
    /// Joined runs so far, of a model whose rows are not proven to be independent.
    runs: AtomicU64,
}

impl Merging {
    pub(super) fn new(widths: Vec<Option<Dimensions>>, rigour: Rigour) -> Self {
        Self {
            is_stopped: AtomicBool::new(false),
            why_stopped: OnceLock::new(),
            teller: OnceLock::new(),
            widths,
            rigour,
            runs: AtomicU64::new(0),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
    }

    pub(super) fn why_stopped(&self) -> Option<&str> {
        self.why_stopped.get().map(String::as_str)
    }

    /// `teller` hears why, once.
    pub(super) fn tell_stop_to(&self, teller: Teller) {
        // One is enough.
        let _ = self.teller.set(teller);
    }

    fn stop(&self, why: String) {
        self.is_stopped.store(true, Relaxed);
        if self.why_stopped.set(why).is_ok()
            && let (Some(teller), Some(why)) = (self.teller.get(), self.why_stopped())
        {
            teller(why);
        }
    }

    /// The first output whose rows are not as wide as they always are.
    fn strange_width<'a>(&self, places: &[usize], outputs: &'a [Tensor]) -> Option<&'a Tensor> {
        let is_strange = |(place, output): &(&usize, &Tensor)| {
            let known = self.widths.get(**place).and_then(Option::as_ref);
            known.is_some_and(|known| output.shape().dimensions().get(1..) != Some(&known[..]))
        };
        places.iter().zip(outputs).find(is_strange).map(|(_, output)| output)
    }

    /// Which of so many requests is to be run alone too.
    fn audited(&self, jobs: usize) -> Option<usize> {
        if self.rigour == Rigour::Proven {
            return None;
        }
        let run = self.runs.fetch_add(1, Relaxed);
        let is_due = run < FIRST_AUDITS || run.is_multiple_of(AUDIT_EVERY);
        let turn = if run < FIRST_AUDITS { run } else { run / AUDIT_EVERY };
        is_due.then(|| usize::try_from(turn).unwrap_or(0) % jobs.max(1))
    }
}

impl fmt::Debug for Merging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merging").field("why_stopped", &self.why_stopped).finish_non_exhaustive()
    }
}

impl Core {
    fn stop_merging(&self, why: String) {
        self.merging.stop(why);
        // Who waits for others to join need not.
        self.is_full.notify_one();
    }

    pub(super) fn run_together(&self, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
        let started = Instant::now();
        let parts: Vec<&[Tensor]> = jobs.iter().map(|job| &job.inputs[..]).collect();
        let Ok(inputs) = batch::join(&parts) else { return Err(jobs) };
        let joined = Instant::now();
        let rows = jobs.iter().map(|job| job.rows).sum();
        let Ok(outputs) = self.call(&inputs, &jobs[0].outputs) else { return Err(jobs) };
        let ran = self.ended(rows, joined);
        if let Some(output) = self.merging.strange_width(&jobs[0].outputs, &outputs) {
            let (name, shape) = (output.name(), output.shape());
            self.stop_merging(format!(
                "output '{name}' of a joined run has the shape {shape}: its rows alone have another width"
            ));
            return Err(jobs);
        }
        let Ok(parts) = batch::split(&outputs, jobs.iter().map(|job| job.rows)) else {
            self.stop_merging(format!("the outputs of a joined run of {rows} rows have not one row for each"));
            return Err(jobs);
        };
        if let Some(index) = self.merging.audited(jobs.len())
            && let Some(output) = self.differs_alone(&jobs[index], &parts[index])
        {
            self.stop_merging(format!("output '{output}' of a request differs alone and beside others"));
            return Err(jobs);
        }
        let (input, inference) = (joined - started, ran - joined);
        let output = ran.elapsed();
        for (index, (job, outputs)) in jobs.into_iter().zip(parts).enumerate() {
            let queue = started.saturating_duration_since(job.queued_at);
            let is_first_of_run = index == 0;
            let executed = Executed { outputs, queue, input, inference, output, run_rows: rows, is_first_of_run };
            let _ = job.reply.send(Ok(executed));
        }
        Ok(())
    }

    /// The output of a request that is another alone than `together`. A run that fails, such as for want of memory, tells
    /// nothing.
    fn differs_alone(&self, job: &Job, together: &[Tensor]) -> Option<String> {
        let alone = self.call(&job.inputs, &job.outputs).ok()?;
        let mut pairs = alone.iter().zip(together);
        let differing = pairs.find(|(alone, together)| !agreement::is_same(alone, together, self.merging.rigour))?;
        Some(differing.0.name().to_owned())
    }
}
