//! Columns: how a tensor splits into rows and columns, what its columns are called, and their values.
//!
//! A shape `[]` is one row of one column, `[N]` N rows of one column, `[N, a, b, …]` N rows of
//! `a·b·…` columns, row-major. A column is a feature.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{DataType, Dim, Shape};

/// The names of the columns of tensors, by the name of the tensor.
pub type ColumnNames = BTreeMap<String, Vec<String>>;

/// Tensors with more columns than this (images, embeddings) are not profiled column by column.
pub const MAX_COLUMNS: usize = 64;

/// Rows that are read column by column while they are in the nearest cache.
const PIECE: usize = 32;

/// The columns of an actual tensor.
#[must_use]
pub(super) fn columns_of(shape: &Shape) -> usize {
    // No overflow: `Shape` has checked the product of all dimensions, zeros counted as one.
    shape.dimensions().iter().skip(1).map(|&size| usize::try_from(size).unwrap_or(0)).product()
}

/// The columns of a declared tensor; `None` when a dimension after the first can be of any size.
#[must_use]
pub(super) fn declared_columns(shape: &[Dim]) -> Option<usize> {
    let rows = usize::from(shape != [Dim::Unranked]);
    shape.iter().skip(rows).try_fold(1_usize, |columns, dim| match dim {
        Dim::Fixed(size) => Some(columns.saturating_mul(usize::try_from(*size).unwrap_or(usize::MAX))),
        Dim::Any | Dim::Unranked => None,
    })
}

/// The features of a tensor with `columns` columns, in order: the tensor's own name for a single
/// column, the given names where there is one for each column, else `tensor[i]`. Names that are
/// empty or repeat are as good as none.
#[must_use]
pub fn feature_names(tensor: &str, columns: usize, names: &ColumnNames) -> Vec<String> {
    if columns == 1 {
        return vec![tensor.to_owned()];
    }
    let given = names.get(tensor).filter(|given| {
        given.len() == columns
            && given.iter().all(|name| !name.is_empty())
            && given.iter().collect::<BTreeSet<_>>().len() == columns
    });
    given.cloned().unwrap_or_else(|| (0..columns).map(|column| format!("{tensor}[{column}]")).collect())
}

/// The elements of one column, each as its little-endian bytes.
fn strided<const SIZE: usize>(bytes: &[u8], columns: usize, column: usize) -> impl Iterator<Item = &[u8; SIZE]> {
    bytes.as_chunks().0.iter().skip(column).step_by(columns.max(1))
}

/// Hands every element of a column to `each`, as a number. `column` must be under `columns`.
///
/// Whole numbers beyond 2^53 lose their last digits: a histogram does not see the difference.
/// `BYTES` has no numbers.
pub(super) fn each_number(datatype: DataType, bytes: &[u8], columns: usize, column: usize, mut each: impl FnMut(f64)) {
    macro_rules! numbers {
        ($type:ty, $convert:expr) => {
            for element in strided(bytes, columns, column) {
                each($convert(<$type>::from_le_bytes(*element)));
            }
        };
    }
    match datatype {
        DataType::Bool | DataType::Uint8 => numbers!(u8, f64::from),
        DataType::Uint16 => numbers!(u16, f64::from),
        DataType::Uint32 => numbers!(u32, f64::from),
        DataType::Uint64 => numbers!(u64, |number| number as f64),
        DataType::Int8 => numbers!(i8, f64::from),
        DataType::Int16 => numbers!(i16, f64::from),
        DataType::Int32 => numbers!(i32, f64::from),
        DataType::Int64 => numbers!(i64, |number| number as f64),
        DataType::Fp16 => numbers!(half::f16, f64::from),
        DataType::Bf16 => numbers!(half::bf16, f64::from),
        DataType::Fp32 => numbers!(f32, f64::from),
        DataType::Fp64 => numbers!(f64, f64::from),
        DataType::Bytes => {}
    }
}

/// Reads a column as [`each_number`] does, as far as `numbers` has room; how many there are.
pub(super) fn read_numbers(
    datatype: DataType,
    bytes: &[u8],
    columns: usize,
    column: usize,
    numbers: &mut [f64],
) -> usize {
    let mut read = 0;
    macro_rules! numbers {
        ($type:ty, $convert:expr) => {
            for (place, row) in numbers.iter_mut().zip(bytes.as_chunks().0.chunks_exact(columns.max(1))) {
                *place = $convert(<$type>::from_le_bytes(row[column]));
                read += 1;
            }
        };
    }
    match datatype {
        // Most columns of numbers are of these: without a call for each value a column is read in half the time.
        DataType::Fp32 => numbers!(f32, f64::from),
        DataType::Fp64 => numbers!(f64, f64::from),
        _ => each_number(datatype, bytes, columns, column, |number| {
            if let Some(place) = numbers.get_mut(read) {
                *place = number;
                read += 1;
            }
        }),
    }
    read
}

/// Reads several columns, each as [`read_numbers`] does: to the places from `stride` times its number on, which ascends
/// from 0. So all are read while the rows are in the nearest cache.
pub(super) fn read_columns(
    (datatype, bytes): (DataType, &[u8]),
    columns: usize,
    wanted: &(impl Iterator<Item = usize> + Clone),
    (numbers, stride): (&mut [f64], usize),
) {
    let row = (columns * datatype.size().unwrap_or(1)).max(1);
    for (piece, bytes) in bytes.chunks(PIECE * row).enumerate() {
        for (column, numbers) in wanted.clone().zip(numbers.chunks_mut(stride.max(1))) {
            read_numbers(datatype, bytes, columns, column, numbers.get_mut(piece * PIECE..).unwrap_or_default());
        }
    }
}

/// All elements as numbers, as `each_number` reads them.
#[must_use]
pub fn numbers(datatype: DataType, bytes: &[u8]) -> Vec<f64> {
    let mut numbers = Vec::with_capacity(bytes.len() / datatype.size().unwrap_or(1));
    each_number(datatype, bytes, 1, 0, |number| numbers.push(number));
    numbers
}

/// Hands every element of a column of whole numbers or booleans (0, 1) to `each`, exactly.
/// Floats and `BYTES` have none.
pub(super) fn each_whole(datatype: DataType, bytes: &[u8], columns: usize, column: usize, mut each: impl FnMut(i128)) {
    macro_rules! wholes {
        ($type:ty) => {
            for element in strided(bytes, columns, column) {
                each(i128::from(<$type>::from_le_bytes(*element)));
            }
        };
    }
    match datatype {
        DataType::Bool | DataType::Uint8 => wholes!(u8),
        DataType::Uint16 => wholes!(u16),
        DataType::Uint32 => wholes!(u32),
        DataType::Uint64 => wholes!(u64),
        DataType::Int8 => wholes!(i8),
        DataType::Int16 => wholes!(i16),
        DataType::Int32 => wholes!(i32),
        DataType::Int64 => wholes!(i64),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 | DataType::Bytes => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(dimensions: &[i64]) -> usize {
        columns_of(&Shape::new(dimensions.to_vec()).unwrap())
    }

    #[test]
    fn columns_of_a_shape_are_all_dimensions_but_the_first() {
        assert_eq!([columns(&[]), columns(&[5]), columns(&[5, 1]), columns(&[0, 2, 3])], [1, 1, 1, 6]);
        assert_eq!(declared_columns(&[Dim::Any, Dim::Fixed(4)]), Some(4));
        assert_eq!(declared_columns(&[Dim::Any, Dim::Any]), None);
        assert_eq!(declared_columns(&[]), Some(1));
    }

    #[test]
    fn feature_names_prefer_the_tensor_then_the_given_names_then_the_index() {
        let names = |given: &[&str]| ColumnNames::from([("x".into(), given.iter().map(|&n| n.into()).collect())]);
        assert_eq!(feature_names("x", 1, &names(&["a"])), ["x"]);
        assert_eq!(feature_names("x", 2, &names(&["a", "b"])), ["a", "b"]);
        for useless in [&["a"][..], &["a", "a"], &["a", ""], &["a", "b", "c"]] {
            assert_eq!(feature_names("x", 2, &names(useless)), ["x[0]", "x[1]"], "{useless:?}");
        }
    }

    #[test]
    fn column_of_each_datatype_reads_its_numbers() {
        let read = |datatype, bytes: &[u8]| {
            let mut numbers = Vec::new();
            each_number(datatype, bytes, 2, 1, |number| numbers.push(number));
            numbers
        };
        assert_eq!(read(DataType::Uint8, &[1, 2, 3, 4]), [2.0, 4.0]);
        assert_eq!(read(DataType::Int8, &[1, 0xff]), [-1.0]);
        assert_eq!(read(DataType::Fp16, &[0, 0, 0x00, 0x3c]), [1.0]);
        assert_eq!(read(DataType::Bf16, &[0, 0, 0x80, 0x3f]), [1.0]);
        assert_eq!(read(DataType::Int16, &[0, 0, 0xfe, 0xff]), [-2.0]);
        let halves: Vec<u8> = [0.5_f64, 2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(DataType::Fp64, &halves), [2.5]);
        let mut exact = Vec::new();
        each_whole(DataType::Uint64, &u64::MAX.to_le_bytes(), 1, 0, |whole| exact.push(whole));
        assert_eq!(exact, [i128::from(u64::MAX)]);
    }
}
