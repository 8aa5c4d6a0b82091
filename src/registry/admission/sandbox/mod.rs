//! Trials of models in processes of their own, so that a broken or hostile model cannot take the
//! gateway down: a crash, an endless loop or a huge allocation ends a worker, and says so in the
//! report.
//!
//! A worker is this very program, started with the hidden command `admission-worker`: without the
//! gateway's environment, with limits of its own (`limits`), fed with jobs through a pipe
//! (`job`). Loading ONNX Runtime into it costs more than trying out a small model, so it serves many
//! jobs one after the other. What an earlier model may have left broken is not held against the
//! next one: when a worker dies on a job that was not its first, the job is given to a fresh one, and
//! that verdict counts. Workers without work are ended after a moment; they end by themselves when
//! the gateway does.

mod job;
mod limits;
mod pool;
mod worker;

use std::{path::PathBuf, time::Duration};

pub use self::worker::serve;
pub(super) use self::{
    job::{Job, Reply},
    pool::Sandbox,
};

/// How workers are started, and what a trial may use.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// The program and the arguments before the library's path.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The ONNX Runtime library.
    pub library: PathBuf,
    /// Processor time of one trial.
    pub time_limit: Duration,
    /// Bytes that a trial may allocate beyond four times the size of the model's files.
    pub memory_limit: u64,
}

impl SandboxOptions {
    /// Workers that are this program.
    #[must_use]
    pub fn of_this_program(library: PathBuf, time_limit: Duration, memory_limit: u64) -> Self {
        // The link leads to the running program even after an upgrade has replaced its file.
        let own = PathBuf::from("/proc/self/exe");
        let program = if own.exists() { own } else { std::env::current_exe().unwrap_or(own) };
        Self { program, arguments: vec!["admission-worker".into()], library, time_limit, memory_limit }
    }
}
