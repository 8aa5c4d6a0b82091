//! The bound on the memory of all request bodies in flight, over both doors.
//!
//! A request takes a permit for what its body occupies, lets it grow as bytes arrive, and drops
//! it when its answer is made. What does not fit is refused at once: nobody waits for memory,
//! since those who hold it may be waiting for the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::refusal::Refusal;
use crate::fault::ErrorCode;

/// How much all bodies together may occupy, and how much they do.
#[derive(Debug)]
pub struct BodyBudget {
    limit: usize,
    used: AtomicUsize,
}

impl BodyBudget {
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// The bytes that bodies occupy now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A permit for `bytes`, given back when it is dropped.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Result<BodyPermit, Refusal> {
        let mut permit = BodyPermit { budget: Arc::clone(self), bytes: 0 };
        permit.grow_to(bytes)?;
        Ok(permit)
    }

    /// Refuses a body of `bytes` that would not fit now, without taking anything.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes <= self.limit.saturating_sub(self.used()) { Ok(()) } else { Err(Self::full()) }
    }

    fn full() -> Refusal {
        Refusal::new(ErrorCode::Overloaded, "too many bytes of requests are in flight: try again later")
    }
}

/// Room for the body of one request.
#[derive(Debug)]
#[must_use = "the room is given back when the permit is dropped"]
pub(super) struct BodyPermit {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

impl BodyPermit {
    /// Makes room for `bytes` more.
    pub(super) fn grow_by(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.grow_to(self.bytes.saturating_add(bytes))
    }

    /// Makes room for `bytes` in all; less than there is already changes nothing.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let BodyBudget { limit, used } = &*self.budget;
        // Relaxed: the counter guards no other memory.
        let before = used.fetch_add(more, Ordering::Relaxed);
        if before.checked_add(more).is_none_or(|sum| sum > *limit) {
            used.fetch_sub(more, Ordering::Relaxed);
            return Err(BodyBudget::full());
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn permits_share_the_limit_and_give_their_room_back() {
        let budget = BodyBudget::new(100);
        let mut first = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).unwrap_err().code(), ErrorCode::Overloaded);
        assert!(budget.check(41).is_err() && budget.check(40).is_ok());
        let second = budget.reserve(40).unwrap();
        assert!(first.grow_to(61).is_err());
        assert_eq!(budget.used(), 100, "a refusal takes nothing");
        drop(second);
        first.grow_to(100).unwrap();
        first.grow_to(5).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn refusal_says_when_to_try_again() {
        assert_eq!(BodyBudget::new(0).reserve(1).unwrap_err().retry_after(), Some(1));
        assert!(BodyBudget::new(10).reserve(usize::MAX).is_err());
    }

    #[test]
    fn permits_of_many_threads_never_exceed_the_limit() {
        let budget = BodyBudget::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for size in 0..2000 {
                        let _permit = budget.reserve(size % 600);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
