//! Requests joined along axis 0 for one run, and its outputs split again.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::queue::Job;
use crate::domain::{Dimensions, Elements, Shape, Tensor, TensorError};

/// True when `job` can run with `first`: the same inputs in the same order, of the same types
/// and shapes but for the rows, and the same outputs wanted, of inputs that rows were looked at for.
pub(super) fn fits(first: &Job, job: &Job) -> bool {
    first.is_joinable
        && job.is_joinable
        && first.outputs == job.outputs
        && first.inputs.len() == job.inputs.len()
        && first.inputs.iter().zip(job.inputs.iter()).all(|(left, right)| {
            left.name() == right.name()
                && left.datatype() == right.datatype()
                && has_rows(right, job.rows)
                && has_rows(left, first.rows)
                && left.shape().dimensions()[1..] == right.shape().dimensions()[1..]
        })
}

/// Every input of a request has as many rows as its first: otherwise axis 0 is no batch of rows.
fn has_rows(tensor: &Tensor, rows: usize) -> bool {
    !tensor.shape().dimensions().is_empty() && tensor.shape().rows() == rows
}

/// The inputs of all `parts`, one after the other along axis 0. The parts fit each other.
///
/// # Errors
/// When together they are more than memory can hold.
pub(super) fn join(parts: &[&[Tensor]]) -> Result<Vec<Tensor>, TensorError> {
    let first = parts.first().copied().unwrap_or_default();
    first.iter().enumerate().map(|(index, like)| join_one(like, parts.iter().map(|part| &part[index]))).collect()
}

fn join_one<'a>(like: &Tensor, parts: impl Iterator<Item = &'a Tensor> + Clone) -> Result<Tensor, TensorError> {
    let rows: usize = parts.clone().map(|part| part.shape().rows()).sum();
    let mut dimensions = Dimensions::from_slice(like.shape().dimensions());
    dimensions[0] = i64::try_from(rows).map_err(|_| TensorError::TooManyElements)?;
    let shape = Shape::new(dimensions)?;
    match like.elements() {
        Elements::Plain { datatype, .. } => {
            let mut all = BytesMut::with_capacity(shape.elements() * datatype.size().unwrap_or(1));
            for part in parts {
                if let Elements::Plain { bytes, .. } = part.elements() {
                    all.extend_from_slice(bytes);
                }
            }
            Tensor::plain(like.shared_name(), *datatype, shape, all.freeze())
        }
        Elements::Text(_) => {
            let mut all: Vec<Bytes> = Vec::with_capacity(shape.elements());
            for part in parts {
                if let Elements::Text(elements) = part.elements() {
                    all.extend_from_slice(elements);
                }
            }
            Tensor::text(like.shared_name(), shape, all)
        }
    }
}

/// The outputs of a joined run, divided among requests of these numbers of rows.
///
/// # Errors
/// When an output has not one row for each row of the inputs: then the model does not treat axis 0
/// as a batch.
pub(super) fn split(
    outputs: &[Tensor],
    rows: impl Iterator<Item = usize> + Clone,
) -> Result<Vec<Arc<[Tensor]>>, TensorError> {
    let all = rows.clone().sum();
    let has_all = |output: &Tensor| !output.shape().dimensions().is_empty() && output.shape().rows() == all;
    if let Some(output) = outputs.iter().find(|output| !has_all(output)) {
        return Err(TensorError::NoSuchRows { shape: output.shape().clone(), start: 0, end: all });
    }
    let mut start = 0;
    let parts = rows.map(|rows| {
        let range = start..start + rows;
        start = range.end;
        let part = |output: &Tensor| output.rows(range.clone()).expect("the output has the rows of all parts");
        outputs.iter().map(part).collect()
    });
    Ok(parts.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::DataType;

    fn plain(rows: usize, width: usize, first: u8) -> Tensor {
        let shape = Shape::new(vec![i64::try_from(rows).unwrap(), i64::try_from(width).unwrap()]).unwrap();
        let bytes: Vec<u8> =
            (0..rows * width).map(|index| first.wrapping_add(u8::try_from(index % 251).unwrap())).collect();
        Tensor::plain("x", DataType::Uint8, shape, bytes.into()).unwrap()
    }

    fn text(rows: usize) -> Tensor {
        let elements = (0..rows).map(|row| Bytes::from(format!("row {row}"))).collect();
        Tensor::text("t", Shape::new(vec![i64::try_from(rows).unwrap()]).unwrap(), elements).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_joined_splits_into_the_same(
            parts in prop::collection::vec((0..5_usize, any::<u8>()), 1..8), width in 0..4_usize
        ) {
            let requests: Vec<[Tensor; 2]> =
                parts.iter().map(|&(rows, first)| [plain(rows, width, first), text(rows)]).collect();
            let lent: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
            let joined = join(&lent).unwrap();
            let back = split(&joined, parts.iter().map(|part| part.0)).unwrap();
            for (before, after) in requests.iter().zip(&back) {
                prop_assert_eq!(&before[..], &after[..]);
            }
        }
    }

    #[test]
    fn output_without_a_row_for_each_row_is_refused() {
        for rows in [2, 4] {
            assert!(split(&[plain(rows, 2, 0)], [1, 2].into_iter()).is_err());
        }
        let scalar =
            Tensor::plain("s", DataType::Uint8, Shape::new(vec![]).unwrap(), Bytes::from_static(&[1])).unwrap();
        assert!(split(&[scalar], [1].into_iter()).is_err());
    }
}
