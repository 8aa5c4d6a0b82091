//! Shadow runs: copies of answered requests, run on another version and compared with the answer.
//!
//! A request hands its copy over once it is answered, with one `try_send`, and is done with it: a copy
//! cannot delay or fail it. Copies wait in a bounded queue of their own and run one after the other on
//! threads of the lowest priority, beside the lanes that requests wait in. What does not fit is
//! dropped and counted by its reason; so is what cannot be compared.
//!
//! - `compare` tells how far two answers are from each other (pure),
//! - `scores` counts the distribution of both versions' scores,
//! - `report` sums that up by pair of versions,
//! - `metrics` exports it.

mod compare;
mod metrics;
mod report;
mod scores;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use self::report::Comparisons;
pub use self::report::{OutputReport, ShadowReport};
use crate::{
    domain::{ModelName, OutputRequest, Places, Protocol, ShadowDrop, Tensor, Version},
    fault::{ErrorCode, Fault},
    monitor::{MonitorHandle, Observation},
    route::Servable,
    schedule::{Executed, Work},
    telemetry::Metrics,
};

/// How much is done at most.
#[derive(Debug, Clone, Copy)]
pub struct ShadowOptions {
    /// Copies that run at the same time.
    pub threads: usize,
    /// Copies that may wait.
    pub max_queue: usize,
    /// Bytes of their tensors.
    pub max_queue_bytes: usize,
}

/// A copy of an answered request.
#[derive(Debug)]
pub struct Copied {
    pub model: ModelName,
    /// The version that is to run it.
    pub shadow: Arc<Servable>,
    /// The version that answered.
    pub live: Version,
    pub protocol: Protocol,
    pub inputs: Arc<[Tensor]>,
    /// What it answered, as the model gave it.
    pub outputs: Arc<[Tensor]>,
    /// Of the run that answered.
    pub inference: Duration,
}

/// Takes copies, and tells what came of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shadow {
    sender: SyncSender<Copied>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: ShadowOptions,
    waiting_bytes: AtomicUsize,
    comparisons: Comparisons,
    metrics: Arc<Metrics>,
}

impl Shadow {
    /// Starts the threads. They end with the last handle.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(options: ShadowOptions, monitor: &MonitorHandle, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(options.max_queue);
        let receiver = Arc::new(Mutex::new(receiver));
        let shared = Arc::new(Shared {
            options,
            waiting_bytes: AtomicUsize::new(0),
            comparisons: Comparisons::default(),
            metrics: Arc::clone(metrics),
        });
        for number in 0..options.threads {
            let (receiver, shared, monitor) = (Arc::clone(&receiver), Arc::clone(&shared), monitor.clone());
            thread::Builder::new()
                .name(format!("shadow {number}"))
                .spawn(move || work(&receiver, &shared, &monitor))?;
        }
        metrics.register(Box::new(metrics::ShadowCollector::new(&shared)));
        Ok(Self { sender, shared })
    }

    /// Hands over a copy. Never waits: what does not fit is dropped and counted.
    pub fn offer(&self, copied: Copied) {
        let bytes = weight(&copied);
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is too large for any room is let into an empty one.
        let fits = waiting == 0 || waiting.saturating_add(bytes) <= self.shared.options.max_queue_bytes;
        let refused = if fits { self.sender.try_send(copied).err().map(into_copied) } else { Some(copied) };
        if let Some(copied) = refused {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            copied.shadow.metrics.shadow_dropped(ShadowDrop::QueueFull);
        }
    }

    /// What the comparisons of a version with those that answered found, the newest pair first.
    #[must_use]
    pub fn reports(&self, model: &ModelName, shadow: Version) -> Vec<ShadowReport> {
        self.shared.comparisons.reports(model, shadow)
    }
}

fn into_copied(error: std::sync::mpsc::TrySendError<Copied>) -> Copied {
    match error {
        std::sync::mpsc::TrySendError::Full(copied) | std::sync::mpsc::TrySendError::Disconnected(copied) => copied,
    }
}

/// The memory that a copy keeps alive, about.
fn weight(copied: &Copied) -> usize {
    let tensors = copied.inputs.iter().chain(&*copied.outputs);
    tensors.map(|tensor| size_of::<Tensor>() + tensor.byte_size()).sum()
}

/// How long a thread looks away while there are copies: to be woken for every request would cost the
/// requests more than it brings.
const NAP: Duration = Duration::from_millis(2);

fn work(receiver: &Mutex<Receiver<Copied>>, shared: &Shared, monitor: &MonitorHandle) {
    take_lowest_priority();
    loop {
        let next = {
            let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            match receiver.try_recv() {
                Ok(copied) => Some(copied),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    thread::sleep(NAP);
                    match receiver.try_recv() {
                        Ok(copied) => Some(copied),
                        Err(_) => receiver.recv().ok(),
                    }
                }
            }
        };
        let Some(copied) = next else { return };
        shared.waiting_bytes.fetch_sub(weight(&copied), Ordering::Relaxed);
        // The counts are added one by one: a panic leaves none half-made.
        if catch_unwind(AssertUnwindSafe(|| shared.run(&copied, monitor))).is_err() {
            copied.shadow.metrics.shadow_dropped(ShadowDrop::Failed);
            tracing::error!(model = %copied.model, "a shadow copy could not be compared: this is a bug");
        }
    }
}

/// The requests' threads go first wherever both want a processor.
fn take_lowest_priority() {
    const LOWEST: i32 = 19;
    // On Linux this is the priority of the calling thread alone.
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::setpriority_process(None, LOWEST)
    {
        tracing::warn!(%error, "shadow copies run at the priority of requests");
    }
}

impl Shared {
    fn run(&self, copied: &Copied, monitor: &MonitorHandle) {
        let Copied { model, shadow, live, protocol, inputs, outputs, inference } = copied;
        let metrics = &shadow.metrics;
        let Some(places) = common_outputs(shadow, inputs, outputs) else {
            metrics.shadow_dropped(ShadowDrop::Incompatible);
            return metrics.shadowed(&self.metrics, *protocol, Err(ErrorCode::BadRequest));
        };
        let work =
            Work { inputs: Arc::clone(inputs), outputs: places, priority: None, deadline: None, is_background: true };
        let Some(answer) = shadow.lane.run_aside(&work) else { return metrics.shadow_dropped(ShadowDrop::Busy) };
        metrics.shadowed(&self.metrics, *protocol, answer.as_ref().map_err(Fault::code));
        let Ok(executed) = answer else { return metrics.shadow_dropped(ShadowDrop::Failed) };
        let Executed { outputs: produced, inference: own, .. } = executed;
        let comparison = self.comparisons.of(model, *live, shadow.version);
        comparison.add(outputs, &produced, [*inference, own], metrics);
        if shadow.watch.wants_rows() {
            let (watch, version, outputs) = (&shadow.watch, shadow.version, &produced);
            monitor.offer(Observation { watch, stable: None, version, inputs, outputs, parameters: &[] });
        }
    }
}

/// The places of the answered outputs in the shadow's signature; `None` when it has none of them, or
/// takes other inputs.
fn common_outputs(shadow: &Servable, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Places> {
    let signature = &shadow.signature;
    let names = outputs.iter().map(Tensor::name).filter(|name| signature.output(name).is_some());
    let common: Vec<_> = names.map(OutputRequest::plain).collect();
    if common.is_empty() {
        return None;
    }
    signature.check(inputs, &common).ok()
}

#[cfg(test)]
mod tests;
