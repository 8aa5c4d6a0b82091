//! The inside of a worker: it reads jobs, tries models out, and answers.

use std::{
    io::{BufRead, Write},
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
};

use super::{
    job::{Job, Reply},
    limits,
};
use crate::{
    engine::{EngineError, EngineOptions, PoolOptions, Runtime},
    registry::{
        admission::{
            digest::{self, DigestCache},
            listing::Listing,
            load,
        },
        priority,
    },
    schedule,
};

/// Serves jobs from stdin until it ends. What the gateway starts as `admission-worker`.
#[must_use]
pub fn serve(library: &Path) -> ExitCode {
    limits::at_start();
    let Ok(jobs) = jobs() else { return ExitCode::FAILURE };
    let runtime = Runtime::load(library, PoolOptions { threads: 1, spinning: false }, usize::MAX);
    for job in jobs {
        let reply = match (&runtime, serde_json::from_str::<Job>(&job)) {
            (Ok(runtime), Ok(job)) => try_out(runtime, &job),
            (Err(error), _) => Reply::Unable(error.to_string()),
            (_, Err(error)) => Reply::Unable(error.to_string()),
        };
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        let mut out = std::io::stdout();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The lines of stdin, read on a thread of its own: when the gateway is gone, so is the worker,
/// whatever the model that it runs is doing.
fn jobs() -> std::io::Result<mpsc::Receiver<String>> {
    let (sender, jobs) = mpsc::channel();
    thread::Builder::new().name("jobs".into()).stack_size(128 << 10).spawn(move || {
        let lines = std::io::stdin().lock().lines();
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        // Not `exit`: what that would run on the way out may wait for the model.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    })?;
    Ok(jobs)
}

/// What an operator should know of an allocation that failed.
const LIMITED: &str = " (it may allocate what admission.memory_limit says beside four times its size)";

fn try_out(runtime: &Runtime, job: &Job) -> Reply {
    if !job.is_urgent {
        priority::step_back();
    }
    limits::for_job(job.memory, job.seconds);
    let Ok(listing) = Listing::with_links(&job.directory, &job.link_roots) else { return Reply::Changed };
    let model_file = &job.model_file;
    let Some(print) = listing.files.get(model_file) else { return Reply::Changed };
    let is_same = |found: &digest::FileDigest| digest::in_words(found) == job.digest;
    match DigestCache::default().one(&listing, model_file, print) {
        Ok(found) if is_same(&found) => {}
        _ => return Reply::Changed,
    }
    let Ok(Some(bytes)) = listing.read(model_file) else { return Reply::Changed };
    let source = match load::contained(bytes, model_file, &listing) {
        Ok(source) => source,
        Err(load::Fault::Outside(faults)) => return Reply::Outside(faults),
        Err(load::Fault::Refused(fault)) => return Reply::Refused(vec![format!("{model_file}: {fault}")]),
    };
    let refused = |error: &EngineError| {
        let limit = if error.is_out_of_memory() { LIMITED } else { "" };
        Reply::Refused(vec![format!("{model_file}: {error}{limit}")])
    };
    match source.open(runtime, EngineOptions::default(), &listing) {
        Ok(model) => match schedule::run_once(&model) {
            Err(error) if error.is_out_of_memory() => refused(&error),
            // That a model takes no made-up inputs is no fault.
            _ => Reply::Passed,
        },
        Err(error) => refused(&error),
    }
}
