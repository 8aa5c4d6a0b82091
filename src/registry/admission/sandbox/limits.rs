//! What a worker takes from itself before it touches a model.
//!
//! Memory is limited as data (`RLIMIT_DATA`: what is mapped privately and writable), not as address
//! space (`RLIMIT_AS`): allocators and libraries reserve far more addresses than they ever use.
//! Processor time is limited rather than time, since a worker runs behind everything else and may
//! wait long for its turn on a busy machine.

use std::{fs, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Once, at the start: no core dumps, and the first to be ended when the machine is out of memory.
pub(super) fn at_start() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Only on Linux, where any process may offer itself.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// For one job: so many bytes and seconds from here on.
pub(super) fn for_job(memory: u64, seconds: u64) {
    if let Some(used) = data_in_use() {
        limit(Resource::Data, used.saturating_add(memory));
    }
    limit(Resource::Cpu, processor_time().as_secs().saturating_add(seconds).saturating_add(1));
}

fn limit(resource: Resource, soft: u64) {
    let hard = getrlimit(resource).maximum;
    let soft = hard.map_or(soft, |hard| soft.min(hard));
    let _ = setrlimit(resource, Rlimit { current: Some(soft), maximum: hard });
}

/// Bytes that count towards `RLIMIT_DATA` now.
fn data_in_use() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
