//! Inputs and outputs whose shape clients have otherwise than the model: Triton's `reshape`.
//!
//! The elements stay where they are; only what is said of their shape changes. Free sizes are carried over in their order.

use smallvec::SmallVec;

use super::EngineError;
use crate::domain::{Shape, Tensor};

/// Dimensions as the model has them.
pub(super) type OwnShape = SmallVec<[i64; 6]>;

/// The two shapes of an input or output; -1: any size. Both have equally many of those, and hold equally many elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    pub name: String,
    /// As clients have it.
    pub client: Vec<i64>,
    /// As the model has it.
    pub own: Vec<i64>,
}

impl Reshape {
    /// The dimensions of a client's tensor as the model has them.
    pub(super) fn for_model(&self, input: &Tensor) -> Result<OwnShape, EngineError> {
        let given = input.shape().dimensions();
        carried(given, &self.client, &self.own).ok_or_else(|| {
            let (name, client) = (&self.name, &self.client);
            EngineError::Refused(format!("input '{name}' has shape {given:?}, where {client:?} was expected"))
        })
    }

    /// What the model gave, as clients have it.
    pub(super) fn for_client(&self, output: Tensor) -> Result<Tensor, EngineError> {
        let given = output.shape().dimensions();
        let shape = carried(given, &self.own, &self.client).and_then(|dimensions| Shape::new(dimensions.to_vec()).ok());
        let failed = || {
            let (name, own) = (&self.name, &self.own);
            EngineError::Failed(format!("output '{name}' has shape {given:?}, and config.pbtxt reshapes {own:?}"))
        };
        let shape = shape.ok_or_else(failed)?;
        output.reshaped(shape).map_err(|error| EngineError::Failed(error.to_string()))
    }
}

/// `given`, which must fit `from`, in the form of `to`.
fn carried(given: &[i64], from: &[i64], to: &[i64]) -> Option<OwnShape> {
    let fits = |(given, from): (&i64, &i64)| *from == -1 || given == from;
    if given.len() != from.len() || !given.iter().zip(from).all(fits) {
        return None;
    }
    let mut free = given.iter().zip(from).filter(|(_, from)| **from == -1).map(|(given, _)| *given);
    to.iter().map(|&size| if size == -1 { free.next() } else { Some(size) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DataType;

    #[test]
    fn sizes_are_carried_over_in_their_order() {
        type Dims = &'static [i64];
        let cases: [(Dims, Dims, Dims, Option<Dims>); 6] = [
            (&[3, 4], &[3, 4], &[1, 3, 4], Some(&[1, 3, 4])),
            (&[7, 1], &[-1, 1], &[-1], Some(&[7])),
            (&[2, 5, 9], &[-1, 5, -1], &[-1, -1, 5], Some(&[2, 9, 5])),
            (&[1], &[1], &[], Some(&[])),
            (&[3, 5], &[3, 4], &[1, 3, 4], None),
            (&[3], &[3, 4], &[1, 3, 4], None),
        ];
        for (given, from, to, expected) in cases {
            assert_eq!(carried(given, from, to).as_deref(), expected, "{given:?}");
        }
    }

    #[test]
    fn answer_that_is_not_as_declared_is_a_failure_and_no_other_answer() {
        let reshape = Reshape { name: "y".into(), client: vec![2], own: vec![1, 2] };
        let tensor = |dimensions: &[i64]| {
            let shape = Shape::new(dimensions.to_vec()).unwrap();
            let bytes = vec![0; shape.elements()];
            Tensor::plain("y", DataType::Uint8, shape, bytes.into()).unwrap()
        };
        assert_eq!(reshape.for_client(tensor(&[1, 2])).unwrap(), tensor(&[2]));
        assert!(matches!(reshape.for_client(tensor(&[2, 2])), Err(EngineError::Failed(_))));
        assert!(matches!(reshape.for_model(&tensor(&[3])), Err(EngineError::Refused(_))));
    }
}
