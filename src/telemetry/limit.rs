//! A bound on log lines that clients cause: one bad client must not fill the disk, and what is left out is counted.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Lines that are written in each [`WINDOW`].
const LINES: u64 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// Lets a few lines through in every ten seconds. Waits for nobody: threads that meet at the turn of a window may
/// let a line more or less through.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// The number of the current window, from 1; 0 before the first line.
    window: AtomicU64,
    written: AtomicU64,
    left_out: AtomicU64,
}

impl LogLimit {
    #[must_use]
    pub const fn new() -> Self {
        Self { window: AtomicU64::new(0), written: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether to write a line at `now`, a time since any fixed moment: the number of lines that were left out since
    /// the last one that was written, or `None` when this one is left out too.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let window = now.as_secs() / WINDOW.as_secs() + 1;
        if self.window.swap(window, Relaxed) != window {
            self.written.store(0, Relaxed);
        }
        if self.written.fetch_add(1, Relaxed) < LINES {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_and_a_count() {
        let limit = LogLimit::new();
        let first: Vec<_> = (0..1000).map(|at| limit.admit(Duration::from_millis(at))).collect();
        assert_eq!(first[..5], [Some(0); 5]);
        assert!(first[5..].iter().all(Option::is_none));
        assert_eq!(limit.admit(Duration::from_secs(10)), Some(995));
        assert_eq!(limit.admit(Duration::from_secs(11)), Some(0));
    }

    #[test]
    fn rare_lines_are_all_written() {
        let limit = LogLimit::new();
        assert!((0..100).all(|at| limit.admit(Duration::from_secs(3 * at)) == Some(0)));
    }
}
