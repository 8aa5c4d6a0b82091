//! Runs for which nobody waits, on the caller's own thread.

use std::time::Instant;

use super::{Core, Executed, LaneError, Work};
use crate::domain::Tensor;

impl Core {
    /// Runs `work` here and now. `None` when that would take an instance from a request: the model
    /// allows one run at a time, and is running.
    ///
    /// The caller's thread may be one of low priority: what its runs cost says nothing of the runs of
    /// requests, so it does not enter the measured costs.
    pub(in crate::schedule) fn run_aside(&self, work: &Work) -> Option<Result<Executed, LaneError>> {
        let instance = if self.model().is_concurrent() { None } else { Some(self.free_instance()?) };
        let started = Instant::now();
        let outputs = self.call(&work.inputs, &work.outputs);
        drop(instance);
        let executed = |outputs: Vec<Tensor>| Executed {
            outputs: outputs.into(),
            inference: started.elapsed(),
            run_rows: work.rows(),
            is_first_of_run: true,
            ..Executed::default()
        };
        Some(outputs.map(executed).map_err(LaneError::from))
    }
}
