//! The claim of a lane, modelled: in every order of its steps, no job is left behind and no two parties form
//! a batch at once.
//!
//! The model has the atomics of `lane::Core` and the steps of `execute`, `queue`, `dispatch_next` and
//! `run_claimed` in their order, and nothing else: jobs are a count, runs take no time, and whoever is told to
//! form the next batch (a collector, or a thread of the pool) is a thread of its own or the one that tells.

use std::sync::Arc;

use loom::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

#[derive(Default)]
struct Lane {
    waiting: AtomicUsize,
    inbox: AtomicUsize,
    running: AtomicUsize,
    is_claimed: AtomicBool,
    /// Parties that form a batch right now: more than one would take jobs out of order.
    forming: AtomicUsize,
    ran: AtomicUsize,
}

const INSTANCES: usize = 1;

impl Lane {
    fn free_instance(&self) -> bool {
        self.running.fetch_update(SeqCst, SeqCst, |running| (running < INSTANCES).then_some(running + 1)).is_ok()
    }

    fn claim(&self) -> bool {
        !self.is_claimed.swap(true, SeqCst)
    }

    fn has_next(&self) -> bool {
        self.waiting.load(SeqCst) > 0 && self.running.load(SeqCst) < INSTANCES
    }

    /// A request whose run is cheap: in place where an instance is free, otherwise queued.
    fn execute(&self) {
        if self.waiting.load(SeqCst) == 0 && self.free_instance() {
            self.ran.fetch_add(1, SeqCst);
            self.running.fetch_sub(1, SeqCst);
            return self.dispatch_next();
        }
        self.queue();
    }

    fn queue(&self) {
        self.waiting.fetch_add(1, SeqCst);
        self.inbox.fetch_add(1, SeqCst);
        self.dispatch_next();
    }

    fn dispatch_next(&self) {
        if self.has_next() && self.claim() {
            while self.run_claimed() {}
        }
    }

    fn run_claimed(&self) -> bool {
        if !self.free_instance() {
            self.is_claimed.store(false, SeqCst);
            return self.has_next() && self.claim();
        }
        assert_eq!(self.forming.fetch_add(1, SeqCst), 0, "two parties form a batch");
        let taken = self.inbox.swap(0, SeqCst);
        self.forming.fetch_sub(1, SeqCst);
        self.is_claimed.store(false, SeqCst);
        self.waiting.fetch_sub(taken, SeqCst);
        self.dispatch_next();
        self.ran.fetch_add(taken, SeqCst);
        self.running.fetch_sub(1, SeqCst);
        self.has_next() && self.claim()
    }
}

#[test]
fn no_job_is_left_behind_in_any_order_of_steps() {
    let mut model = loom::model::Builder::new();
    // All orders with so many switches between threads: what is wrong shows with fewer.
    model.preemption_bound = Some(3);
    model.check(|| {
        let lane = Arc::new(Lane::default());
        let other = Arc::clone(&lane);
        let requests = thread::spawn(move || other.execute());
        let other = Arc::clone(&lane);
        let background = thread::spawn(move || other.queue());
        lane.execute();
        requests.join().unwrap();
        background.join().unwrap();
        assert_eq!((lane.ran.load(SeqCst), lane.waiting.load(SeqCst)), (3, 0));
        assert!(!lane.is_claimed.load(SeqCst) && lane.running.load(SeqCst) == 0);
    });
}
