//! The gateway's side: workers started, asked, timed, replaced and ended.

use std::{
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Job, Reply, SandboxOptions};
use crate::registry::admission::report::Faults;

/// A worker without work is kept this long.
const IDLE: Duration = Duration::from_secs(3);
/// A trial may take this many times its processor time before it is given up: it runs behind
/// everything else.
const PATIENCE: u32 = 10;
/// A worker that tried out files of this many bytes ends: it would keep some of their memory.
const LARGE: u64 = 64 << 20;
/// The longest answer that is read.
const LONGEST_REPLY: usize = 1 << 20;

/// The variables that workers get of the gateway's: where libraries are. No secrets.
const VARIABLES: [&str; 3] = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"];

/// Tries models out in workers. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::registry::admission) struct Sandbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: SandboxOptions,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<(Worker, Instant)>,
    /// A thread waits to end them.
    is_watched: bool,
}

impl Sandbox {
    pub(in crate::registry::admission) fn new(options: SandboxOptions) -> Self {
        Self(Arc::new(Shared { options, pool: Mutex::default() }))
    }

    /// Limits of a trial of files of this many bytes: bytes, and seconds of processor time.
    pub(in crate::registry::admission) fn limits(&self, size: u64) -> (u64, u64) {
        let options = &self.0.options;
        let seconds = options.time_limit.as_secs().max(1);
        (options.memory_limit.saturating_add(size.saturating_mul(4)), seconds)
    }

    /// Tries a model out. Blocks until it is done, dead, or given up.
    pub(in crate::registry::admission) fn try_out(&self, job: &Job) -> Result<Reply, Faults> {
        let mut line = serde_json::to_vec(job).map_err(|error| Faults::lasting(error.to_string()))?;
        line.push(b'\n');
        let idle = self.0.lock().idle.pop();
        if let Some((mut worker, _)) = idle
            && let Ok(reply) = worker.ask(&line, patience(job))
        {
            self.keep(worker, job, &reply);
            return Ok(reply);
        }
        // The worker may have been dead already, or an earlier model may have harmed it.
        let unable =
            |error: std::io::Error| Faults::transient(format!("cannot start a process for the trial: {error}"));
        let mut worker = Worker::start(&self.0.options).map_err(unable)?;
        let outcome = worker.ask(&line, patience(job));
        match outcome {
            Ok(reply) => {
                self.keep(worker, job, &reply);
                Ok(reply)
            }
            Err(death) => Err(death.faults(job)),
        }
    }

    fn keep(&self, worker: Worker, job: &Job, reply: &Reply) {
        if job.size > LARGE || matches!(reply, Reply::Unable(_)) {
            return;
        }
        let mut pool = self.0.lock();
        pool.idle.push((worker, Instant::now()));
        if !pool.is_watched {
            let shared = Arc::downgrade(&self.0);
            // Without the thread the workers stay; they cost memory, and nothing else.
            pool.is_watched = thread::Builder::new().name("trial-end".into()).spawn(move || end_idle(&shared)).is_ok();
        }
    }
}

fn patience(job: &Job) -> Duration {
    Duration::from_secs(job.seconds) * PATIENCE
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends workers that have no work, and itself when there are none left.
fn end_idle(shared: &Weak<Shared>) {
    loop {
        thread::sleep(IDLE);
        let Some(shared) = shared.upgrade() else { return };
        let mut pool = shared.lock();
        let idle = std::mem::take(&mut pool.idle);
        let (ended, kept): (Vec<_>, Vec<_>) = idle.into_iter().partition(|(_, since)| since.elapsed() >= IDLE);
        pool.idle = kept;
        pool.is_watched = !pool.idle.is_empty();
        let is_done = !pool.is_watched;
        drop(pool);
        // Outside the lock: a worker is waited for.
        drop(ended);
        if is_done {
            return;
        }
    }
}

/// A running worker. Dropping it ends it.
#[derive(Debug)]
struct Worker {
    child: Child,
    jobs: ChildStdin,
    replies: ChildStdout,
    complaints: ChildStderr,
}

impl Worker {
    fn start(options: &SandboxOptions) -> std::io::Result<Self> {
        let mut command = Command::new(&options.program);
        command.arg0("tidegate").args(&options.arguments).arg(&options.library).env_clear();
        command.envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(jobs), Some(replies), Some(complaints)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::Error::other("no pipe to it"));
        };
        Ok(Self { child, jobs, replies, complaints })
    }

    fn ask(&mut self, job: &[u8], patience: Duration) -> Result<Reply, Death> {
        let deadline = Instant::now() + patience;
        let mut complaints = Vec::new();
        // A worker that is gone says so by what it cannot be asked.
        let asked = self.jobs.write_all(job).and_then(|()| self.jobs.flush());
        let reply = asked.ok().and_then(|()| self.read(deadline, &mut complaints));
        match reply.map(|line| serde_json::from_slice(&line)) {
            Some(Ok(reply)) => Ok(reply),
            _ => Err(self.death(deadline, &complaints)),
        }
    }

    /// The line of the reply; `None` when there is none in time.
    fn read(&mut self, deadline: Instant, complaints: &mut Vec<u8>) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        while line.len() < LONGEST_REPLY {
            let wait = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok()?;
            let mut ends = [PollFd::new(&self.replies, PollFlags::IN), PollFd::new(&self.complaints, PollFlags::IN)];
            match poll(&mut ends, Some(&wait)) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
            }
            let [replies, said] = ends.map(|end| !end.revents().is_empty());
            if said {
                let length = self.complaints.read(&mut buffer).ok()?;
                complaints.extend_from_slice(&buffer[..length.min(LONGEST_REPLY.saturating_sub(complaints.len()))]);
            }
            if replies {
                match self.replies.read(&mut buffer) {
                    Ok(length) if length > 0 => line.extend_from_slice(&buffer[..length]),
                    _ => return None,
                }
            }
            if line.ends_with(b"\n") {
                return Some(line);
            }
        }
        None
    }

    /// Why there is no reply.
    fn death(&mut self, deadline: Instant, complaints: &[u8]) -> Death {
        let is_late = Instant::now() >= deadline;
        if is_late {
            let _ = self.child.kill();
        }
        let mut said = complaints.to_vec();
        let status = self.child.wait().ok();
        let _ = (&mut self.complaints).take(LONGEST_REPLY as u64).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let said =
            said.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().chars().take(256).collect());
        Death { status, is_late, said }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a worker ended in the middle of a job.
struct Death {
    status: Option<ExitStatus>,
    /// It was ended from here, since it took too long.
    is_late: bool,
    /// The last line that it wrote to stderr.
    said: Option<String>,
}

impl Death {
    fn faults(&self, job: &Job) -> Faults {
        let signal = self.status.and_then(|status| status.signal());
        let said = self.said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        match signal {
            _ if self.is_late => {
                let seconds = patience(job).as_secs();
                Faults::transient(format!("the trial did not end within {seconds} s: the machine may be too busy"))
            }
            Some(number) if number == Signal::XCPU => {
                let seconds = job.seconds;
                Faults::lasting(format!(
                    "loading and running it once takes more than {seconds} s of processor time (admission.time_limit)"
                ))
            }
            // Nobody here does that: the system is out of memory, or an operator was faster.
            Some(number) if number == Signal::KILL => {
                Faults::transient("the trial's process was killed (SIGKILL): the machine may be out of memory")
            }
            Some(number) => {
                let name = Signal::name(number);
                Faults::lasting(format!("it crashes the process that loads and runs it (signal {number}{name}){said}"))
            }
            None => {
                let code =
                    self.status.and_then(|status| status.code()).map_or("unknown".into(), |code| code.to_string());
                Faults::lasting(format!("it ends the process that loads and runs it (exit code {code}){said}"))
            }
        }
    }
}

/// Signals by their numbers on this system.
struct Signal;

impl Signal {
    const KILL: i32 = rustix::process::Signal::KILL.as_raw();
    const XCPU: i32 = rustix::process::Signal::XCPU.as_raw();

    fn name(number: i32) -> String {
        use rustix::process::Signal as Named;
        let known = [
            (Named::SEGV, "SIGSEGV"),
            (Named::ABORT, "SIGABRT"),
            (Named::BUS, "SIGBUS"),
            (Named::ILL, "SIGILL"),
            (Named::FPE, "SIGFPE"),
        ];
        let name = known.iter().find(|(signal, _)| signal.as_raw() == number);
        name.map(|(_, name)| format!(", {name}")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
