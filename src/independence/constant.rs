//! Constants of a model: shapes, and the elements of small ones.

use super::{
    size::{Number, Size},
    value::{MOST_DIMENSIONS, MOST_ELEMENTS, Shape, Tensor},
};
use crate::proto::onnx::{AttributeProto, TensorProto};

/// An initialiser or the value of a `Constant`.
pub(super) fn tensor(proto: &TensorProto) -> Tensor {
    if proto.dims.len() > MOST_DIMENSIONS {
        return Tensor::same(None);
    }
    let shape: Option<Shape> =
        proto.dims.iter().map(|&size| (size >= 0).then(|| Size::fixed(size))).collect::<Option<Vec<_>>>();
    let count = proto.dims.iter().try_fold(1_usize, |count, &size| count.checked_mul(usize::try_from(size).ok()?));
    let is_here = !proto.is_large && proto.external_data.is_empty() && proto.data_location() == 0;
    let count = count.filter(|&count| is_here && count <= MOST_ELEMENTS);
    let elements = count.and_then(|count| elements(proto, count).filter(|elements| elements.len() == count));
    match (shape, elements) {
        (Some(shape), Some(elements)) => Tensor::of_elements(shape, elements),
        (shape, _) => Tensor::same(shape),
    }
}

fn elements(proto: &TensorProto, count: usize) -> Option<Vec<Number>> {
    /// Element types as the format numbers them.
    const FLOAT: i32 = 1;
    const UINT8: i32 = 2;
    const INT8: i32 = 3;
    const INT32: i32 = 6;
    const INT64: i32 = 7;
    const BOOL: i32 = 9;
    const FLOAT16: i32 = 10;
    const DOUBLE: i32 = 11;
    if count == 0 {
        return Some(Vec::new());
    }
    let raw = proto.raw_data.as_deref().filter(|raw| !raw.is_empty());
    Some(match (proto.data_type(), raw) {
        (FLOAT, Some(raw)) => chunks(raw).map(|bytes| real(f64::from(f32::from_le_bytes(bytes)))).collect(),
        (FLOAT16, Some(raw)) => chunks(raw).map(|bytes| real(half::f16::from_le_bytes(bytes).into())).collect(),
        (DOUBLE, Some(raw)) => chunks(raw).map(|bytes| real(f64::from_le_bytes(bytes))).collect(),
        (INT32, Some(raw)) => chunks(raw).map(|bytes| Number::fixed(i32::from_le_bytes(bytes).into())).collect(),
        (INT64, Some(raw)) => chunks(raw).map(|bytes| Number::fixed(i64::from_le_bytes(bytes))).collect(),
        (INT8, Some(raw)) => chunks(raw).map(|bytes| Number::fixed(i8::from_le_bytes(bytes).into())).collect(),
        (UINT8 | BOOL, Some(raw)) => raw.iter().map(|&byte| Number::fixed(byte.into())).collect(),
        (FLOAT, None) => proto.float_data.iter().map(|&value| real(value.into())).collect(),
        (DOUBLE, None) => proto.double_data.iter().map(|&value| real(value)).collect(),
        (INT64, None) => proto.int64_data.iter().map(|&value| Number::fixed(value)).collect(),
        (INT32 | INT8 | UINT8 | BOOL, None) => {
            proto.int32_data.iter().map(|&value| Number::fixed(value.into())).collect()
        }
        _ => return None,
    })
}

fn chunks<const SIZE: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    raw.as_chunks().0.iter().copied()
}

/// A number of a float tensor: a whole one where it is.
pub(super) fn real(value: f64) -> Number {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
    if value.fract() == 0.0 && value.abs() < f64::from(1 << 24) {
        Number::fixed(value as i64)
    } else {
        Number::Real(value)
    }
}

/// The value of a `Constant` node.
pub(super) fn attribute(attribute: &AttributeProto) -> Tensor {
    let vector = |numbers: Vec<Number>| Tensor::vector(numbers);
    match attribute.name() {
        "value" => attribute.t.as_ref().map_or(Tensor::same(None), tensor),
        "value_int" => Tensor::of_elements(Vec::new(), vec![Number::fixed(attribute.i())]),
        "value_ints" if attribute.ints.len() <= MOST_ELEMENTS => {
            vector(attribute.ints.iter().copied().map(Number::fixed).collect())
        }
        "value_float" => Tensor::of_elements(Vec::new(), vec![real(attribute.f().into())]),
        "value_string" => Tensor::same(Some(Vec::new())),
        "value_strings" => {
            Tensor::same(Some(vec![Size::fixed(i64::try_from(attribute.strings.len()).unwrap_or(i64::MAX))]))
        }
        _ => Tensor::same(None),
    }
}
