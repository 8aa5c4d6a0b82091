//! Totals of what a version did, with the meaning that Triton's statistics give them.

use std::time::{Duration, SystemTime};

use super::{ModelName, Version};

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub count: u64,
    pub time: Duration,
}

/// What a version did for clients since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatistics {
    pub model: ModelName,
    pub version: Version,
    /// When the last request arrived; `None` before the first.
    pub last_inference: Option<SystemTime>,
    /// Rows answered: a request of a batch of 8 counts 8.
    pub inference_count: u64,
    /// Runs of the model: requests that ran together count as one.
    pub execution_count: u64,
    /// Requests answered, and their whole time.
    pub success: Tally,
    /// Requests that failed or whose caller went away, and their whole time.
    pub fail: Tally,
    /// Time that answered requests waited.
    pub queue: Tally,
    /// Time to gather the inputs of a run, summed over the requests in it.
    pub compute_input: Tally,
    /// Time that the model ran, summed over the requests in each run.
    pub compute_infer: Tally,
    /// Time to hand out the outputs of a run, summed over the requests in it.
    pub compute_output: Tally,
    /// By rows per run, ascending; sizes that never ran are absent, and of very many different ones some that did.
    pub batches: Vec<BatchStatistics>,
}

/// The runs with one number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStatistics {
    pub rows: u64,
    pub compute_input: Tally,
    pub compute_infer: Tally,
    pub compute_output: Tally,
}

/// One version of a model, as the repository index of the protocol lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub model: ModelName,
    pub version: Version,
    pub is_ready: bool,
}
