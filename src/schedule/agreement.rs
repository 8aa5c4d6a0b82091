//! Whether an answer is the same alone and among others, but for rounding.
//!
//! Other sizes of a run use other kernels, which add up in another order. So floats may differ by a part of their own size,
//! and by a smaller part of the largest value in the same row of the output: what cancels out there keeps the rounding of
//! what it was made of. NaN is equal to NaN. Rows that are mixed differ by far more than this where their neighbours are of
//! another magnitude.

use half::{bf16, f16};

use crate::domain::{DataType, Elements, Tensor};

/// How much may be put down to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rigour {
    /// The rows are proven to be independent: what is left may also be a quantum, or a tie of classes.
    Proven,
    /// Nothing is known: whole numbers and texts must be equal.
    Unproven,
}

/// Parts of the value, of the largest value in its row, and of 1 by which floats may differ.
struct Tolerance {
    of_value: f64,
    of_row: f64,
    absolute: f64,
}

impl Tolerance {
    fn of(datatype: DataType, rigour: Rigour) -> Self {
        // Outputs of FP64 are no more exact: many are cast from FP32 at the end of the model.
        let (of_value, of_row) = match (datatype, rigour) {
            (DataType::Fp16, _) => (2e-2, 1e-2),
            (DataType::Bf16, _) => (5e-2, 3e-2),
            (_, Rigour::Proven) => (1e-2, 1e-2),
            (_, Rigour::Unproven) => (1e-3, 1e-5),
        };
        Self { of_value, of_row, absolute: 1e-6 }
    }
}

/// What quantised outputs must span for a step of them to be rounding: classes are smaller numbers.
const SPAN: u16 = 32;

/// True when two answers to the same rows are the same but for rounding.
pub(super) fn is_same(alone: &Tensor, together: &Tensor, rigour: Rigour) -> bool {
    if alone.shape() != together.shape() || alone.datatype() != together.datatype() {
        return false;
    }
    match (floats(alone), floats(together)) {
        (Some(left), Some(right)) => {
            let tolerance = Tolerance::of(alone.datatype(), rigour);
            let width = left.len().checked_div(alone.shape().rows()).unwrap_or(0).max(1);
            left.chunks(width).zip(right.chunks(width)).all(|(left, right)| are_close(left, right, &tolerance))
        }
        _ if alone.elements() == together.elements() => true,
        _ => rigour == Rigour::Proven && is_a_quantum_off(alone, together),
    }
}

/// True for outputs whose elements are equal or not: a tie between classes may fall either way.
pub(super) fn is_discrete(output: &Tensor) -> bool {
    !output.datatype().is_float()
}

/// The elements of one row.
fn are_close(left: &[f64], right: &[f64], tolerance: &Tolerance) -> bool {
    let finite = left.iter().chain(right).filter(|value| value.is_finite());
    let largest = finite.fold(0.0_f64, |largest, value| largest.max(value.abs()));
    left.iter().zip(right).all(|(left, right)| {
        if left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan()) {
            return true;
        }
        let of_value = tolerance.of_value * left.abs().max(right.abs());
        let is_finite = left.is_finite() && right.is_finite();
        is_finite && (left - right).abs() <= of_value.max(tolerance.of_row * largest).max(tolerance.absolute)
    })
}

/// Bytes of quantised outputs: each at most a step away, where steps are small beside what the bytes span.
fn is_a_quantum_off(left: &Tensor, right: &Tensor) -> bool {
    let (Elements::Plain { datatype, bytes: left }, Elements::Plain { bytes: right, .. }) =
        (left.elements(), right.elements())
    else {
        return false;
    };
    let whole: fn(&u8) -> i16 = match datatype {
        DataType::Uint8 => |byte| i16::from(*byte),
        DataType::Int8 => |byte| i16::from(byte.cast_signed()),
        _ => return false,
    };
    let largest_step = left.iter().zip(right).map(|(left, right)| whole(left).abs_diff(whole(right))).max();
    let (least, most) = (left.iter().map(whole).min(), left.iter().map(whole).max());
    let span = least.zip(most).map_or(0, |(least, most)| least.abs_diff(most));
    largest_step.is_none_or(|step| step <= 1 && span >= SPAN)
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let Elements::Plain { datatype, bytes } = tensor.elements() else { return None };
    match datatype {
        DataType::Fp16 => Some(read(bytes, |element| f16::from_le_bytes(element).to_f64())),
        DataType::Bf16 => Some(read(bytes, |element| bf16::from_le_bytes(element).to_f64())),
        DataType::Fp32 => Some(read(bytes, |element| f64::from(f32::from_le_bytes(element)))),
        DataType::Fp64 => Some(read(bytes, f64::from_le_bytes)),
        _ => None,
    }
}

fn read<const SIZE: usize>(bytes: &[u8], one: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<SIZE>().0.iter().map(|element| one(*element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Shape;

    fn tensor(rows: i64, values: &[f32]) -> Tensor {
        let shape = Shape::new(vec![rows, i64::try_from(values.len()).unwrap() / rows]).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::plain("y", DataType::Fp32, shape, bytes.into()).unwrap()
    }

    fn same(left: &[f32], right: &[f32], rigour: Rigour) -> bool {
        is_same(&tensor(1, left), &tensor(1, right), rigour)
    }

    #[test]
    fn rounding_is_tolerated_and_mixing_is_not() {
        let unproven = Rigour::Unproven;
        assert!(same(&[0.7, 1.5e-6], &[0.700_01, 3.5e-6], unproven), "2e-6 beside a probability of 0.7");
        assert!(same(&[1e9], &[1.000_1e9], unproven));
        assert!(!same(&[0.7, 0.3], &[0.7, 0.302], unproven));
        assert!(same(&[0.7, 0.3], &[0.7, 0.302], Rigour::Proven), "a quantum of 1/256");
        assert!(!same(&[0.7, 0.3], &[0.7, 0.4], Rigour::Proven));
        assert!(!same(&[1.0, 0.5], &[1e-6, 5e-7], Rigour::Proven), "next to a row of a million");
    }

    #[test]
    fn small_rows_are_not_excused_by_large_ones() {
        let (left, right) = ([1e6, 1e6, 0.5, 0.5], [1e6, 1e6, 0.5, 0.4]);
        assert!(!is_same(&tensor(2, &left), &tensor(2, &right), Rigour::Unproven));
        let bytes = |bytes: [i8; 2]| {
            let bytes = bytes.map(i8::cast_unsigned).to_vec();
            Tensor::plain("y", DataType::Int8, Shape::new(vec![2]).unwrap(), bytes.into()).unwrap()
        };
        assert!(is_same(&bytes([-1, 60]), &bytes([0, 59]), Rigour::Proven), "a step of a quantised output");
        assert!(!is_same(&bytes([-1, 60]), &bytes([0, 59]), Rigour::Unproven));
        assert!(!is_same(&bytes([-1, 60]), &bytes([2, 60]), Rigour::Proven), "three steps");
        assert!(!is_same(&bytes([0, 1]), &bytes([1, 1]), Rigour::Proven), "another class");
    }

    #[test]
    fn what_is_no_number_is_equal_to_itself_only() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for rigour in [Rigour::Proven, Rigour::Unproven] {
            assert!(same(&[nan, inf, -inf], &[-nan, inf, -inf], rigour));
            for (left, right) in [(nan, 1.0), (inf, 1.0), (inf, -inf), (nan, inf), (inf, f32::MAX)] {
                assert!(!same(&[left], &[right], rigour), "{left} {right}");
            }
        }
        assert!(!is_same(&tensor(1, &[1.0, 1.0]), &tensor(2, &[1.0, 1.0]), Rigour::Proven), "another width");
    }
}
