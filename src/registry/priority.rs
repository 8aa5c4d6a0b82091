//! The priority of loads.

/// Puts this thread, and the threads and processes that it starts from now on, behind all others: a
/// load may take longer, a request may not. There is no way back.
pub(super) fn step_back() {
    // Elsewhere the call would mean the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::warn!(%error, "loads run at the priority of requests");
    }
}
