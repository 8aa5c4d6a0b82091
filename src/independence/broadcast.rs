//! Operators that work element by element, on tensors that are broadcast to one shape: dimensions are matched from the
//! last one backwards, and one of size 1 goes with any.
//!
//! The rows must lie along the same dimension of every tensor that has them, counted from the back; a tensor without
//! rows must have no more than one element there.

use super::{
    rule::{Call, Outcome, Outputs, Stop, Symbols, one},
    size::Size,
    value::{Tensor, Value},
};

/// One output, element by element of all inputs.
pub(super) fn elementwise(call: &Call<'_>) -> Outputs {
    let tensors = (0..call.inputs.len()).filter(|&place| call.has(place)).map(|place| call.tensor(place));
    one(broadcast(call.symbols, &tensors.collect::<Outcome<Vec<_>>>()?)?)
}

/// Every output, element by element of the first input; the others are settings that are the same for all.
pub(super) fn of_first(call: &Call<'_>) -> Outputs {
    call.demand_same(1..call.inputs.len(), "settings")?;
    call.alike(&plain(call.tensor(0)?))
}

/// Only the type of the second input matters.
pub(super) fn like(call: &Call<'_>) -> Outputs {
    one(plain(call.tensor(0)?))
}

/// The tensor without what is known of its elements.
pub(super) fn plain(tensor: &Tensor) -> Tensor {
    Tensor { elements: None, padding: None, ..tensor.clone() }
}

/// What comes out where all are brought to one shape.
pub(super) fn broadcast(symbols: &Symbols, tensors: &[&Tensor]) -> Outcome<Tensor> {
    if let [only] = tensors {
        return Ok(plain(only));
    }
    let has_rows = tensors.iter().any(|tensor| tensor.axis().is_some());
    if !has_rows && tensors.iter().any(|tensor| tensor.shape.is_none()) {
        return Ok(Tensor::same(None));
    }
    let shapes = tensors.iter().map(|tensor| tensor.shape().map(Vec::as_slice)).collect::<Outcome<Vec<_>>>()?;
    let Some(rank) = shapes.iter().map(|shape| shape.len()).max() else { return Ok(Tensor::same(None)) };
    let meeting = tensors.iter().zip(&shapes).map(|(tensor, shape)| Some(rank - shape.len() + tensor.axis()?));
    let axis = meeting_axis(meeting)?;
    let mut merged = Vec::with_capacity(rank);
    for place in 0..rank {
        let sizes = shapes.iter().filter_map(|shape| shape.get((place + shape.len()).checked_sub(rank)?));
        let size = if Some(place) == axis { rows_size(sizes) } else { Ok(free_size(symbols, sizes)) };
        merged.push(size?);
    }
    Tensor::with_axis(merged, axis)
}

/// The one axis at which all tensors with rows have them.
pub(super) fn meeting_axis(axes: impl IntoIterator<Item = Option<usize>>) -> Outcome<Option<usize>> {
    let mut meeting = None;
    for axis in axes.into_iter().flatten() {
        if *meeting.get_or_insert(axis) != axis {
            return Err(Stop::dependent("brings rows together with other rows"));
        }
    }
    Ok(meeting)
}

/// The size along the axis of the rows. `sizes` are all that meet there.
pub(super) fn rows_size<'a>(sizes: impl IntoIterator<Item = &'a Size>) -> Outcome<Size> {
    let mut rows: Option<&Size> = None;
    let mut others = Vec::new();
    for size in sizes {
        if !size.is_rows() {
            others.push(size);
        } else if *rows.get_or_insert(size) != size {
            return Err(Stop::unknown("brings tensors together that have different numbers of elements for a row"));
        }
    }
    for other in others {
        match other.known() {
            Some(1) => {}
            Some(_) => return Err(Stop::dependent("gives the rows values by their place")),
            None => return Err(Stop::unknown("may give the rows values by their place")),
        }
    }
    rows.cloned().ok_or_else(|| Stop::unknown("gives a shape that cannot be followed"))
}

/// The size where no rows are.
pub(super) fn free_size<'a>(symbols: &Symbols, sizes: impl IntoIterator<Item = &'a Size>) -> Size {
    let mut merged = Size::ONE;
    for size in sizes {
        let is_decided = merged.known().is_some_and(|known| known != 1);
        if merged.is(1) || (!is_decided && size.known().is_some_and(|known| known != 1)) {
            merged = size.clone();
        } else if !is_decided && *size != merged && !size.is(1) {
            merged = symbols.next();
        }
    }
    merged
}

/// A value that is handed through as it is.
pub(super) fn identity(call: &Call<'_>) -> Outputs {
    let value: Option<&&Value> = call.inputs.first();
    Ok(vec![value.map(|value| (*value).clone()).ok_or_else(|| Stop::unknown("lacks an input"))])
}

/// `Dropout`: nothing, unless the model was exported for training.
pub(super) fn dropout(call: &Call<'_>) -> Outputs {
    if let Some(training) = call.optional(2)? {
        match training.scalar().and_then(super::size::Number::known) {
            Some(0) => {}
            Some(_) => {
                return Err(Stop::dependent("is active (training mode): it draws new random numbers in each run"));
            }
            None => return Err(Stop::unknown("may be active: whether it trains is computed while it runs")),
        }
    }
    call.alike(&plain(call.tensor(0)?))
}
