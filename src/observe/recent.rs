//! A few requests of each model, kept for the warm-up of its next version.
//!
//! They are in memory only, bounded by count and by bytes, and gone with the process. The first
//! requests are kept, then one in [`EVERY`] takes the place of the oldest, so that a request pays for
//! a counter of its own thread, and nobody waits: who finds the ring taken keeps nothing.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::domain::{Elements, Tensor};

/// Once the ring is full, one request in this many of a thread is kept.
const EVERY: u32 = 256;
/// Requests with more bytes are not kept: copying them would take its time.
const LARGEST: usize = 1 << 20;
/// The bytes that all rings together may keep.
const ALL: usize = 64 << 20;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// The bytes kept for all models.
#[derive(Debug, Clone, Default)]
pub struct RecentBudget(Arc<AtomicUsize>);

/// The recent requests of one model, shared by its versions.
#[derive(Debug)]
pub struct RecentRequests {
    capacity: usize,
    budget: RecentBudget,
    /// True once there are as many as there may be. Seldom written: request threads only read it.
    is_full: AtomicBool,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    inputs: Arc<[Tensor]>,
    bytes: usize,
}

impl RecentRequests {
    /// Keeps at most `capacity` requests.
    #[must_use]
    pub fn new(capacity: usize, budget: RecentBudget) -> Self {
        Self { capacity, budget, is_full: AtomicBool::new(capacity == 0), kept: Mutex::default() }
    }

    /// Keeps the inputs of a request that a model has answered, or not. Never waits.
    pub fn offer(&self, inputs: &[Tensor]) {
        if self.is_full.load(Ordering::Relaxed) && !is_due() {
            return;
        }
        self.keep(inputs);
    }

    #[cold]
    fn keep(&self, inputs: &[Tensor]) {
        let bytes = inputs.iter().map(Tensor::byte_size).sum();
        if self.capacity == 0 || bytes > LARGEST {
            return self.is_full.store(true, Ordering::Relaxed);
        }
        let Ok(mut kept) = self.kept.try_lock() else { return };
        let oldest = if kept.len() >= self.capacity { kept.pop_front() } else { None };
        let freed = oldest.map_or(0, |oldest| oldest.bytes);
        let others = self.budget.0.fetch_sub(freed, Ordering::Relaxed) - freed;
        if others + bytes > ALL {
            return self.is_full.store(true, Ordering::Relaxed);
        }
        self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        // A copy: the request's tensors may be slices of a body that is much larger.
        kept.push_back(Kept { inputs: inputs.iter().map(copied).collect(), bytes });
        if kept.len() >= self.capacity {
            self.is_full.store(true, Ordering::Relaxed);
        }
    }

    /// What is kept, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<[Tensor]>> {
        let kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.iter().map(|kept| Arc::clone(&kept.inputs)).collect()
    }
}

impl Drop for RecentRequests {
    fn drop(&mut self) {
        let kept = self.kept.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.budget.0.fetch_sub(kept.iter().map(|kept| kept.bytes).sum(), Ordering::Relaxed);
    }
}

fn is_due() -> bool {
    COUNT.with(|count| {
        let next = count.get().wrapping_add(1);
        count.set(next);
        next.is_multiple_of(EVERY)
    })
}

fn copied(tensor: &Tensor) -> Tensor {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let (name, shape) = (tensor.shared_name(), tensor.shape().clone());
    let copied = match tensor.elements() {
        Elements::Plain { datatype, bytes } => Tensor::plain(name, *datatype, shape, copy(bytes)),
        Elements::Text(elements) => Tensor::text(name, shape, elements.iter().map(copy).collect()),
    };
    copied.unwrap_or_else(|_| tensor.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DataType, Shape};

    fn tensor(first: u8, bytes: i64) -> Tensor {
        let mut content = vec![0; usize::try_from(bytes).unwrap()];
        content[0] = first;
        Tensor::plain("x", DataType::Uint8, Shape::new(vec![bytes]).unwrap(), content.into()).unwrap()
    }

    fn firsts(recent: &RecentRequests) -> Vec<u8> {
        recent.all().iter().map(|inputs| inputs[0].to_raw()[0]).collect()
    }

    #[test]
    fn first_requests_are_kept_then_one_in_many_replaces_the_oldest() {
        let recent = RecentRequests::new(2, RecentBudget::default());
        recent.offer(&[tensor(1, 4)]);
        recent.offer(&[tensor(2, 4)]);
        assert_eq!(firsts(&recent), [1, 2]);
        for _ in 0..EVERY {
            recent.offer(&[tensor(3, 4)]);
        }
        assert_eq!(firsts(&recent), [2, 3]);
    }

    #[test]
    fn bytes_are_bounded_for_one_request_and_for_all_models() {
        let budget = RecentBudget::default();
        let recent = RecentRequests::new(1000, budget.clone());
        for _ in 0..ALL / LARGEST {
            recent.offer(&[tensor(1, i64::try_from(LARGEST).unwrap())]);
        }
        assert_eq!(recent.all().len(), ALL / LARGEST);
        let other = RecentRequests::new(8, budget.clone());
        other.offer(&[tensor(1, 4)]);
        assert!(other.all().is_empty());
        drop(recent);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        let large = RecentRequests::new(8, budget);
        large.offer(&[tensor(1, 1 + i64::try_from(LARGEST).unwrap())]);
        assert!(large.all().is_empty());
    }

    #[test]
    fn what_is_kept_holds_no_larger_body() {
        let body = Bytes::from(vec![1_u8; 1 << 16]);
        let slice = Tensor::plain("x", DataType::Uint8, Shape::new(vec![4]).unwrap(), body.slice(..4)).unwrap();
        let recent = RecentRequests::new(1, RecentBudget::default());
        recent.offer(&[slice]);
        let kept = recent.all();
        let Elements::Plain { bytes, .. } = kept[0][0].elements() else { panic!("not text") };
        assert!(!body.as_ptr_range().contains(&bytes.as_ptr()));
    }

    #[test]
    fn nothing_is_kept_when_nothing_may_be() {
        let recent = RecentRequests::new(0, RecentBudget::default());
        for _ in 0..2 * EVERY {
            recent.offer(&[tensor(1, 4)]);
        }
        assert!(recent.all().is_empty());
    }
}
