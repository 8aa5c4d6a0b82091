//! Hand-over, drops, and the end of the thread.

use std::sync::{Mutex, mpsc};

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, Signature, TensorSpec},
    monitor::{
        MonitorSettings, ProfileBuilder, VersionMonitor,
        intake::{MAX_BATCHED_BYTES, MAX_SHARED, MAX_SHARED_BYTES},
    },
};

fn tensors(rows: usize) -> Arc<[Tensor]> {
    let shape = Shape::new(vec![i64::try_from(rows).unwrap()]).unwrap();
    let bytes: Vec<u8> = (0..rows).flat_map(|row| (row as f32).to_le_bytes()).collect();
    Arc::from([Tensor::plain("x", DataType::Fp32, shape, bytes.into()).unwrap()])
}

/// What an observation is of.
#[derive(Debug, Clone)]
pub(in crate::monitor) struct Observed {
    watch: Arc<Watch>,
    inputs: Arc<[Tensor]>,
    outputs: Arc<[Tensor]>,
    parameters: Vec<(Arc<str>, String)>,
}

impl Observed {
    /// Of the stable version, with no outputs.
    pub(in crate::monitor) fn of(monitor: Arc<VersionMonitor>, inputs: Arc<[Tensor]>) -> Self {
        let watch = Arc::new(Watch::with(Some(monitor)));
        Self { watch, inputs, outputs: Arc::from([]), parameters: Vec::new() }
    }

    pub(in crate::monitor) fn offer_to(&self, handle: &MonitorHandle) {
        let Self { watch, inputs, outputs, parameters } = self;
        let version = Version::new(1).unwrap();
        handle.offer(Observation { watch, stable: None, version, inputs, outputs, parameters });
    }

    fn rows_counted(&self) -> u64 {
        self.watch.monitor().unwrap().totals().iter().sum()
    }
}

fn observed(rows: usize) -> Observed {
    let mut builder = ProfileBuilder::default();
    builder.add(&tensors(100), &[]);
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![Dim::Any], optional: false };
    let signature = Signature { inputs: vec![spec], outputs: vec![] };
    let settings = MonitorSettings::default();
    let monitor = VersionMonitor::new(builder.finish().profile, &signature, &settings).unwrap();
    Observed::of(Arc::new(monitor), tensors(rows))
}

/// A monitor whose clock stands, and with it the thread, until the sender is used or dropped. The thread stands already.
fn held() -> (Monitor, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel();
    let (stands, is_standing) = mpsc::channel();
    let held = Mutex::new((stands, wait));
    let clock = move || {
        let held = held.lock().unwrap();
        let _ = held.0.send(());
        let _ = held.1.recv();
        Duration::ZERO
    };
    let monitor = Monitor::start(Arc::new(clock), 0).unwrap();
    observed(1).offer_to(&monitor.handle());
    is_standing.recv().unwrap();
    (monitor, go)
}

const LONG: Duration = Duration::from_mins(1);

#[test]
fn settled_monitor_has_counted_every_row_offered() {
    let monitor = Monitor::start(Arc::new(|| Duration::ZERO), 0).unwrap();
    let observed = observed(10);
    let offerers: Vec<_> = (0..4)
        .map(|_| {
            let (handle, observed) = (monitor.handle(), observed.clone());
            std::thread::spawn(move || (0..100).for_each(|_| observed.offer_to(&handle)))
        })
        .collect();
    for offerer in offerers {
        offerer.join().unwrap();
    }
    assert!(monitor.handle().settle(LONG));
    assert_eq!((observed.rows_counted(), monitor.handle().dropped()), (4000, 0));
}

#[test]
fn small_requests_beyond_the_room_are_dropped_and_counted() {
    let (monitor, go) = held();
    let (handle, observed) = (monitor.handle(), observed(1));
    let room = MAX_BATCHED_BYTES / size_of::<f32>();
    (0..room + 11).for_each(|_| observed.offer_to(&handle));
    assert_eq!(handle.dropped(), 11);
    assert!(!handle.settle(Duration::from_millis(5)));
    drop(go);
    assert!(handle.settle(LONG));
    assert_eq!((observed.rows_counted(), handle.dropped()), (room as u64, 11));
}

#[test]
fn large_requests_beyond_the_number_are_dropped_and_counted() {
    let (monitor, go) = held();
    let (handle, observed) = (monitor.handle(), observed(2000));
    (0..MAX_SHARED + 11).for_each(|_| observed.offer_to(&handle));
    assert_eq!(handle.dropped(), 11);
    drop(go);
    assert!(handle.settle(LONG));
    assert_eq!(observed.rows_counted(), 2000 * MAX_SHARED as u64);
}

#[test]
fn requests_beyond_the_memory_are_dropped_but_a_large_one_alone_is_not() {
    let (monitor, go) = held();
    let (handle, large) = (monitor.handle(), observed(MAX_SHARED_BYTES / 4 + 1));
    large.offer_to(&handle);
    observed(2000).offer_to(&handle);
    assert_eq!(handle.dropped(), 1);
    drop(go);
    assert!(handle.settle(LONG));
    assert_eq!(large.rows_counted(), (MAX_SHARED_BYTES / 4 + 1) as u64);
    // The room is free again.
    observed(2000).offer_to(&handle);
    assert_eq!(handle.dropped(), 1);
}

#[test]
fn panic_while_counting_drops_what_it_was_about_and_goes_on() {
    let times = AtomicU64::new(0);
    let clock = move || {
        assert_ne!(times.fetch_add(1, Ordering::Relaxed), 0, "the first reading fails, for the test");
        Duration::ZERO
    };
    let monitor = Monitor::start(Arc::new(clock), 0).unwrap();
    let (handle, observed) = (monitor.handle(), observed(5));
    for _ in 0..3 {
        observed.offer_to(&handle);
        assert!(handle.settle(LONG));
    }
    assert_eq!((handle.dropped(), observed.rows_counted()), (1, 10));
}

#[test]
fn shutdown_counts_what_waits_and_drops_what_follows() {
    let monitor = Monitor::start(Arc::new(|| Duration::ZERO), 0).unwrap();
    let (handle, observed) = (monitor.handle(), observed(1));
    (0..1000).for_each(|_| observed.offer_to(&handle));
    monitor.shutdown();
    assert_eq!(observed.rows_counted(), 1000);
    observed.offer_to(&handle);
    assert_eq!(handle.dropped(), 1);
    assert!(!handle.settle(LONG));
}

#[test]
fn thread_ends_when_the_last_handle_is_dropped() {
    let monitor = Monitor::start(Arc::new(|| Duration::ZERO), 0).unwrap();
    let Monitor { handle, thread } = monitor;
    drop(handle);
    thread.join().unwrap();
}
