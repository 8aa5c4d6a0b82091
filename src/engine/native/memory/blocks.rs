//! What a session keeps of its runs' memory for the next ones.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use super::{ALL, Fresh, HELD, RUN, Run, Shortage, block::Block};

/// What is kept follows what the runs of this many runs held.
pub(super) const WINDOW: u32 = 64;

/// The large blocks of one session's runs.
pub(in crate::engine) struct Blocks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    /// By size.
    free: BTreeMap<usize, Vec<Block>>,
    pub(super) free_bytes: usize,
    pub(super) in_use: usize,
    /// The most that was in use at once in this window of runs, and in the one before.
    peak: usize,
    previous_peak: usize,
    runs: u32,
    /// The same in this while and in the one before, whatever the number of runs.
    peak_of_while: usize,
    previous_peak_of_while: usize,
    /// The session is gone: nothing is kept any more.
    is_closed: bool,
}

impl Blocks {
    pub(in crate::engine) fn new() -> Arc<Self> {
        let blocks = Arc::new(Self { kept: Mutex::default() });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&blocks));
        blocks
    }

    /// Does `work` as a run that may hold `limit` bytes. Says whether it was short of memory.
    pub(in crate::engine) fn during<T>(
        self: &Arc<Self>,
        limit: usize,
        work: impl FnOnce() -> T,
    ) -> (T, Option<Shortage>) {
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                RUN.take();
            }
        }
        RUN.set(Some(Run { blocks: Arc::as_ptr(self), limit, held: 0, has_taken: false, shortage: None }));
        let guard = Guard;
        let done = work();
        let run = RUN.take();
        mem::forget(guard);
        if run.as_ref().is_some_and(|run| run.has_taken) {
            self.end_of_run();
        }
        (done, run.and_then(|run| run.shortage))
    }

    /// Gives back all that is kept.
    pub(in crate::engine) fn trim(&self) {
        let mut kept = self.lock();
        (kept.peak, kept.previous_peak) = (kept.in_use, 0);
        (kept.peak_of_while, kept.previous_peak_of_while) = (kept.in_use, 0);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
    }

    /// As [`Blocks::trim`], and keeps nothing from here on.
    pub(in crate::engine) fn close(&self) {
        self.lock().is_closed = true;
        self.trim();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept block that is not much too large.
    pub(super) fn take(&self, size: usize) -> Option<Block> {
        let mut kept = self.lock();
        let (_, blocks) = kept.free.range_mut(size..=size + size / 4).find(|(_, blocks)| !blocks.is_empty())?;
        let block = blocks.pop()?;
        kept.free_bytes -= block.size();
        kept.uses(block.size());
        Some(block)
    }

    /// A block that is counted, and not yet allocated. What it pushes over what was ever held at
    /// once is given back before.
    pub(super) fn fresh(self: Arc<Self>, size: usize) -> Fresh {
        let mut kept = self.lock();
        kept.uses(size);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
        Fresh { size, owner: Some(self) }
    }

    pub(super) fn give_back(&self, block: Block) {
        let mut kept = self.lock();
        kept.in_use -= block.size();
        kept.free_bytes += block.size();
        kept.free.entry(block.size()).or_default().push(block);
        let surplus = if kept.is_closed { kept.surplus_over(0) } else { Vec::new() };
        drop(kept);
        free_all(surplus);
    }

    /// See [`super::age`].
    pub(super) fn age(&self) {
        let mut kept = self.lock();
        (kept.previous_peak_of_while, kept.peak_of_while) = (kept.peak_of_while, kept.in_use);
        let allowed = kept.previous_peak_of_while;
        kept.peak = kept.peak.min(allowed);
        kept.previous_peak = kept.previous_peak.min(allowed);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
    }

    fn end_of_run(&self) {
        let mut kept = self.lock();
        kept.runs += 1;
        if kept.runs < WINDOW {
            return;
        }
        (kept.runs, kept.previous_peak, kept.peak) = (0, kept.peak, kept.in_use);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
    }
}

impl Kept {
    fn uses(&mut self, size: usize) {
        self.in_use += size;
        self.peak = self.peak.max(self.in_use);
        self.peak_of_while = self.peak_of_while.max(self.in_use);
    }

    /// What is kept beyond what recent runs held at once, taken off the lists.
    fn surplus(&mut self) -> Vec<Block> {
        let allowed = self.peak.max(self.previous_peak).saturating_sub(self.in_use);
        self.surplus_over(allowed)
    }

    /// The largest first: the fewest calls.
    fn surplus_over(&mut self, allowed: usize) -> Vec<Block> {
        let mut surplus = Vec::new();
        while self.free_bytes > allowed {
            let Some(mut largest) = self.free.last_entry() else { break };
            match largest.get_mut().pop() {
                Some(block) => {
                    self.free_bytes -= block.size();
                    surplus.push(block);
                }
                None => drop(largest.remove()),
            }
        }
        surplus
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let surplus = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).surplus_over(0);
        free_all(surplus);
    }
}

fn free_all(blocks: Vec<Block>) {
    for block in blocks {
        HELD.fetch_sub(block.size(), Relaxed);
        block.free();
    }
}
