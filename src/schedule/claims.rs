//! The claim of a lane, modelled: in whatever order its steps happen, no job is left behind and no two
//! parties hold it at once.
//!
//! The model has the atomics of `lane::Core` and the steps of `execute`, `queue`, `dispatch_next` and `run_claimed` in
//! their order, and nothing else: jobs are a count, runs take no time, whoever is told to form the next batch
//! does so on its own thread, and two jobs are a full batch. All accesses are `SeqCst`, so the orders of steps are all
//! that can happen; shuttle tries tens of thousands of them: at random, and those with few switches between threads.

use std::sync::Arc;

use shuttle::{
    sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::SeqCst},
    thread,
};

#[derive(Default)]
struct Lane {
    waiting: AtomicIsize,
    inbox: AtomicUsize,
    running: AtomicUsize,
    is_claimed: AtomicBool,
    /// Parties that form a batch because they hold the claim.
    forming: AtomicUsize,
    ran: AtomicUsize,
    /// Does not look again after it has given up the claim: the mistake that the model must find.
    is_hasty: bool,
}

const INSTANCES: usize = 1;
const FULL: isize = 2;

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
        if self.waiting.load(SeqCst) <= 0 && self.free_instance() {
            self.ran.fetch_add(1, SeqCst);
            self.running.fetch_sub(1, SeqCst);
            return self.dispatch_next();
        }
        self.queue();
    }

    fn queue(&self) {
        self.inbox.fetch_add(1, SeqCst);
        if self.waiting.fetch_add(1, SeqCst) + 1 >= FULL {
            self.run_here();
        } else {
            self.dispatch_next();
        }
    }

    /// Without a claim: who fills a batch, and who would be refused.
    fn run_here(&self) {
        if self.waiting.load(SeqCst) > 0 && self.free_instance() {
            let taken = self.take();
            self.ran.fetch_add(taken, SeqCst);
            self.running.fetch_sub(1, SeqCst);
        }
        self.dispatch_next();
    }

    /// Jobs are taken in one piece, and may be taken before they are counted.
    fn take(&self) -> usize {
        let taken = self.inbox.swap(0, SeqCst);
        self.waiting.fetch_sub(taken.cast_signed(), SeqCst);
        taken
    }

    fn dispatch_next(&self) {
        if self.has_next() && self.claim() {
            // As the collector, but it never needs to step aside: a job that is counted is there.
            while self.run_claimed() {}
        }
    }

    fn run_claimed(&self) -> bool {
        if !self.free_instance() {
            self.is_claimed.store(false, SeqCst);
            return !self.is_hasty && self.has_next() && self.claim();
        }
        assert_eq!(self.forming.fetch_add(1, SeqCst), 0, "two parties hold the claim");
        let taken = self.take();
        self.forming.fetch_sub(1, SeqCst);
        self.is_claimed.store(false, SeqCst);
        self.dispatch_next();
        self.ran.fetch_add(taken, SeqCst);
        self.running.fetch_sub(1, SeqCst);
        self.has_next() && self.claim()
    }
}

/// Three requests at once, one of them for the background, and one that goes away after it was let in at the door; then all three
/// must have run, and the lane must be free.
fn requests(is_hasty: bool) {
    const COUNT: usize = 3;
    let lane = Arc::new(Lane { is_hasty, ..Lane::default() });
    let request = |number| {
        let lane = Arc::clone(&lane);
        thread::spawn(move || if number == 1 { lane.queue() } else { lane.execute() })
    };
    let mut threads: Vec<_> = (1..COUNT).map(request).collect();
    let at_the_door = Arc::clone(&lane);
    threads.push(thread::spawn(move || at_the_door.run_here()));
    lane.execute();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((lane.ran.load(SeqCst), lane.waiting.load(SeqCst)), (COUNT, 0));
    assert_eq!((lane.is_claimed.load(SeqCst), lane.running.load(SeqCst)), (false, 0));
}

#[test]
fn no_job_is_left_behind_and_no_two_parties_hold_the_claim() {
    shuttle::check_pct(|| requests(false), 20_000, 3);
    shuttle::check_random(|| requests(false), 20_000);
}

/// One order in about a thousand shows the mistake.
#[test]
#[should_panic(expected = "left == right")]
fn model_finds_the_job_that_a_hasty_party_leaves_behind() {
    shuttle::check_random(|| requests(true), 100_000);
}
