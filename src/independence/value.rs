//! What is known of a value in a graph, whatever the requests are.

use super::{
    rule::{Outcome, Stop},
    size::{Number, Size},
};

/// The sizes of a tensor's dimensions.
pub(super) type Shape = Vec<Size>;

/// Tensors of more elements, or of more dimensions, are not looked into.
pub(super) const MOST_ELEMENTS: usize = 256;
pub(super) const MOST_DIMENSIONS: usize = 32;

/// How a tensor hangs together with the rows that run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// It is the same, in shape and elements, whatever rows run together, and however many.
    Same,
    /// Along this axis, of N × k elements, each row has its k, one row behind the other; they depend on that row only,
    /// and not on where it stands. The other dimensions do not depend on the rows.
    Rows(usize),
    /// It depends on how many rows run together, not on what is in them: shapes, mostly.
    Counted,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    /// `None` where even the number of dimensions is unknown; never so for `Rows`.
    pub(super) shape: Option<Shape>,
    pub(super) spread: Spread,
    /// In row-major order; of `Same` and `Counted` tensors that are small.
    pub(super) elements: Option<Vec<Number>>,
    /// The text that fills every row up behind its own elements, along the last axis, to the length of the longest one.
    pub(super) padding: Option<Vec<u8>>,
    /// The rows do not stand one behind the other but so often, each time with a part of every row: `[time × N, …]` for
    /// time. `None` where it is once.
    pub(super) interleaved: Option<Size>,
}

/// Whether it can be the size of a dimension that does not depend on the rows.
fn is_free(size: &Size) -> bool {
    size.is_size() && !size.counts_rows()
}

impl Tensor {
    pub(super) fn same(shape: Option<Shape>) -> Self {
        let shape = shape.filter(|shape| shape.len() <= MOST_DIMENSIONS && shape.iter().all(is_free));
        Self { shape, spread: Spread::Same, elements: None, padding: None, interleaved: None }
    }

    /// With these elements, and what they make of it.
    pub(super) fn of_elements(shape: Shape, elements: Vec<Number>) -> Self {
        let counts_rows = elements.iter().any(Number::counts_rows) || shape.iter().any(Size::counts_rows);
        let spread = if counts_rows { Spread::Counted } else { Spread::Same };
        let is_small = elements.len() <= MOST_ELEMENTS && shape.len() <= MOST_DIMENSIONS;
        Self { shape: Some(shape), spread, elements: is_small.then_some(elements), padding: None, interleaved: None }
    }

    pub(super) fn vector(elements: Vec<Number>) -> Self {
        Self::of_elements(vec![Size::fixed(i64::try_from(elements.len()).unwrap_or(i64::MAX))], elements)
    }

    pub(super) fn counted() -> Self {
        Self { shape: None, spread: Spread::Counted, elements: None, padding: None, interleaved: None }
    }

    /// Rows along `axis`: what every rule ends with, so that no rule can break what [`Spread::Rows`] says of shapes.
    pub(super) fn rows(shape: Shape, axis: usize) -> Outcome<Self> {
        let is_batch = |(place, size): (usize, &Size)| if place == axis { size.is_rows() } else { is_free(size) };
        if shape.len() > MOST_DIMENSIONS {
            return Err(Stop::unknown("has too many dimensions to be followed"));
        }
        if axis >= shape.len() || !shape.iter().enumerate().all(is_batch) {
            return Err(Stop::unknown("gives a shape that cannot be followed"));
        }
        Ok(Self { shape: Some(shape), spread: Spread::Rows(axis), elements: None, padding: None, interleaved: None })
    }

    /// `Rows` or `Same`, by whether there is an axis.
    pub(super) fn with_axis(shape: Shape, axis: Option<usize>) -> Outcome<Self> {
        match axis {
            Some(axis) => Self::rows(shape, axis),
            None => Ok(Self::same(Some(shape))),
        }
    }

    /// The axis of the rows.
    pub(super) fn axis(&self) -> Option<usize> {
        match self.spread {
            Spread::Rows(axis) => Some(axis),
            Spread::Same | Spread::Counted => None,
        }
    }

    pub(super) fn is_same(&self) -> bool {
        self.spread == Spread::Same
    }

    /// The shape, without which a rule cannot go on.
    pub(super) fn shape(&self) -> Outcome<&Shape> {
        self.shape.as_ref().ok_or_else(|| Stop::unknown("takes a tensor whose shape cannot be followed"))
    }

    pub(super) fn rank(&self) -> Outcome<usize> {
        Ok(self.shape()?.len())
    }

    /// Whether it is one element, as scales mostly are.
    pub(super) fn is_single(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.iter().all(|size| size.is(1)))
    }

    /// All elements, where each is a known whole number.
    pub(super) fn known(&self) -> Option<Vec<i64>> {
        self.elements.as_ref()?.iter().map(Number::known).collect()
    }

    /// The only element.
    pub(super) fn scalar(&self) -> Option<&Number> {
        match self.elements.as_deref() {
            Some([only]) => Some(only),
            _ => None,
        }
    }
}

/// A value of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Tensor(Tensor),
    /// Tensors one behind the other, as many whatever runs together.
    Sequence(Vec<Tensor>),
    /// A map for each row.
    Maps,
    /// An optional input or output that is not there.
    Absent,
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}
