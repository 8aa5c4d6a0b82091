//! How a version is served: the gateway's settings, with what `model.toml` says instead.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    config::{BatchingConfig, ByteSize, ModelConfig, SchedulerConfig},
    domain::{BatchLimits, Batching, Priority, ServingSettings},
    engine::{EngineOptions, PoolOptions},
    lifecycle::usable_memory,
};

/// The priority of requests that give none, where the model sets no other: so that there are
/// more urgent ones and less urgent ones.
const DEFAULT_PRIORITY: Priority = Priority(NonZeroU32::new(10).expect("10 is not 0"));

/// What the gateway's configuration says of all models.
#[derive(Debug, Clone, Default)]
pub struct ServingDefaults {
    pub scheduler: SchedulerConfig,
    pub batching: BatchingConfig,
}

impl ServingDefaults {
    /// The settings of one model.
    #[must_use]
    pub fn for_model(&self, model: Option<&ModelConfig>) -> Arc<ServingSettings> {
        let none = ModelConfig::default();
        let model = model.unwrap_or(&none);
        let (common, own) = (&self.scheduler, &model.scheduler);
        let instances = own.instances.unwrap_or(common.instances);
        let bytes = own.max_queue_size.unwrap_or(common.max_queue_size).0;
        Arc::new(ServingSettings {
            max_queue: own.max_queue.unwrap_or(common.max_queue),
            max_queue_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            max_wait: own.max_wait.unwrap_or(common.max_wait).0,
            instances: if instances == 0 { cores() } else { instances },
            inline_limit: own.inline_limit.unwrap_or(common.inline_limit).0,
            default_priority: own.default_priority.map_or(DEFAULT_PRIORITY, Priority),
            default_timeout: own.default_timeout.map(|span| span.0).filter(|span| !span.is_zero()),
            batching: self.batching(model),
        })
    }

    /// How the session of one model is made: with the thread pool that it asks for, by default the
    /// one that all share.
    #[must_use]
    pub fn engine_options(&self, model: Option<&ModelConfig>) -> EngineOptions {
        let own = model.map(|model| model.runtime.clone()).unwrap_or_default();
        let wants_own = own.intra_op_threads.is_some() || own.spinning.is_some();
        let threads = own.intra_op_threads.filter(|&threads| threads > 0).unwrap_or_else(cores);
        let memory = model.and_then(|model| model.scheduler.max_run_memory).unwrap_or(self.scheduler.max_run_memory);
        EngineOptions {
            max_run_bytes: bytes_or_share(memory, 4),
            own_pool: wants_own.then_some(PoolOptions { threads, spinning: own.spinning.unwrap_or(false) }),
        }
    }

    fn batching(&self, model: &ModelConfig) -> Batching {
        let (common, own) = (&self.batching, &model.batching);
        let max_rows = own.max_size.unwrap_or(common.max_size);
        if !own.enabled.unwrap_or(common.enabled) || max_rows < 2 {
            return Batching::Off;
        }
        Batching::On(BatchLimits {
            max_rows,
            max_delay: own.max_delay.unwrap_or(common.max_delay).0,
            target_p99: own.target_p99.or(common.target_p99).map(|span| span.0),
        })
    }
}

/// The configured size; when it is 0, this part of the memory that this process may use.
#[must_use]
pub fn bytes_or_share(configured: ByteSize, part: u64) -> usize {
    let bytes = if configured.0 == 0 { usable_memory().map_or(u64::MAX, |usable| usable / part) } else { configured.0 };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
