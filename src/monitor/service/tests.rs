//! Hand-over, drops, and the end of the thread.

use std::sync::{Mutex, mpsc};

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, Signature, TensorSpec},
    monitor::{MonitorSettings, ProfileBuilder, VersionMonitor},
};

fn tensors(rows: usize) -> Arc<[Tensor]> {
    let shape = Shape::new(vec![i64::try_from(rows).unwrap()]).unwrap();
    let bytes: Vec<u8> = (0..rows).flat_map(|row| (row as f32).to_le_bytes()).collect();
    Arc::from([Tensor::plain("x", DataType::Fp32, shape, bytes.into()).unwrap()])
}

fn observation(rows: usize) -> Observation {
    let mut builder = ProfileBuilder::default();
    builder.add(&tensors(100), &[]);
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: vec![Dim::Any], optional: false };
    let signature = Signature { inputs: vec![spec], outputs: vec![] };
    let settings = MonitorSettings::default();
    let monitor = VersionMonitor::new(builder.finish().profile, &signature, &settings).unwrap();
    Observation::of(Arc::new(monitor), tensors(rows))
}

fn rows_counted(observation: &Observation) -> u64 {
    observation.watch.monitor().unwrap().totals().iter().sum()
}

/// A monitor whose clock stands, and with it the thread, until the sender is used or dropped.
fn held() -> (Monitor, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let clock = move || {
        let _ = wait.lock().unwrap().recv();
        Duration::ZERO
    };
    (Monitor::start(Arc::new(clock), 0).unwrap(), go)
}

const LONG: Duration = Duration::from_mins(1);

#[test]
fn settled_monitor_has_counted_every_row_offered() {
    let monitor = Monitor::start(Arc::new(|| Duration::ZERO), 0).unwrap();
    let observation = observation(10);
    let offerers: Vec<_> = (0..4)
        .map(|_| {
            let (handle, observation) = (monitor.handle(), observation.clone());
            std::thread::spawn(move || (0..100).for_each(|_| handle.offer(observation.clone())))
        })
        .collect();
    for offerer in offerers {
        offerer.join().unwrap();
    }
    assert!(monitor.handle().settle(LONG));
    assert_eq!((rows_counted(&observation), monitor.handle().dropped()), (4000, 0));
}

#[test]
fn observations_beyond_the_channel_are_dropped_and_counted() {
    let (monitor, go) = held();
    let (handle, observation) = (monitor.handle(), observation(1));
    // One may be with the thread already.
    let offered = MAX_WAITING + 11;
    (0..offered).for_each(|_| handle.offer(observation.clone()));
    assert!((10..=11).contains(&handle.dropped()), "{}", handle.dropped());
    assert!(!handle.settle(Duration::from_millis(5)));
    drop(go);
    assert!(handle.settle(LONG));
    assert_eq!(rows_counted(&observation) + handle.dropped(), offered as u64);
}

#[test]
fn observations_beyond_the_memory_are_dropped_but_a_large_one_alone_is_not() {
    let (monitor, go) = held();
    let (handle, large) = (monitor.handle(), observation(MAX_WAITING_BYTES / 4 + 1));
    handle.offer(large.clone());
    handle.offer(observation(1));
    assert_eq!(handle.dropped(), 1);
    drop(go);
    assert!(handle.settle(LONG));
    assert_eq!(rows_counted(&large), (MAX_WAITING_BYTES / 4 + 1) as u64);
    assert_eq!(handle.shared.waiting_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn panic_while_counting_drops_one_observation_and_goes_on() {
    let times = AtomicU64::new(0);
    let clock = move || {
        assert_ne!(times.fetch_add(1, Ordering::Relaxed), 0, "the first reading fails, for the test");
        Duration::ZERO
    };
    let monitor = Monitor::start(Arc::new(clock), 0).unwrap();
    let (handle, observation) = (monitor.handle(), observation(5));
    (0..3).for_each(|_| handle.offer(observation.clone()));
    assert!(handle.settle(LONG));
    assert_eq!((handle.dropped(), rows_counted(&observation)), (1, 10));
}

#[test]
fn shutdown_counts_what_waits_and_drops_what_follows() {
    let monitor = Monitor::start(Arc::new(|| Duration::ZERO), 0).unwrap();
    let (handle, observation) = (monitor.handle(), observation(1));
    (0..1000).for_each(|_| handle.offer(observation.clone()));
    monitor.shutdown();
    assert_eq!(rows_counted(&observation), 1000);
    handle.offer(observation);
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
