//! The joining of requests without a lane around it, for `benches/batching.rs` only: it is no
//! public interface.

use std::sync::Arc;

use super::batch;
use crate::domain::Tensor;

/// The inputs of all requests as those of one run.
///
/// # Panics
/// When together they are more than memory can hold.
#[must_use]
pub fn join(requests: &[&[Tensor]]) -> Vec<Tensor> {
    batch::join(requests).expect("what a bench joins fits into memory")
}

/// The outputs of a run, divided among requests of these numbers of rows.
///
/// # Panics
/// When an output has not one row for each row of the requests.
#[must_use]
pub fn split(outputs: &[Tensor], rows: impl Iterator<Item = usize> + Clone) -> Vec<Arc<[Tensor]>> {
    batch::split(outputs, rows).expect("the outputs of a bench have a row for each")
}
