//! The classification extension: the highest values of each row, with their places and names.
//!
//! A pure function of an output tensor. `[n]` becomes `[k]`, and `[rows, …]` becomes `[rows, k]`,
//! the elements of a row counted row-major; `k` is never more than there are. Values are written
//! as Triton writes them: floats with six decimals, whole numbers as they are.

use std::{cmp::Ordering, fmt::Display, num::NonZeroUsize};

use bytes::Bytes;

use crate::domain::{DataType, Elements, Shape, Tensor, TensorError};

/// Why an output cannot be answered with classes. The messages are fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassifyError {
    #[error("output '{name}' cannot be classified: it is {datatype}, and classes are chosen by their number")]
    DataType { name: String, datatype: DataType },
    #[error("output '{name}' cannot be classified: {reason}")]
    Shape { name: String, reason: TensorError },
}

/// The `classes` highest values of each row of `output`, as `value:index[:label]`, the highest
/// first; among equals the lower index first, and what is not a number last.
///
/// # Errors
/// When the output does not hold numbers.
pub fn classify(output: &Tensor, classes: NonZeroUsize, labels: Option<&[String]>) -> Result<Tensor, ClassifyError> {
    let refused = |datatype| ClassifyError::DataType { name: output.name().into(), datatype };
    let Elements::Plain { datatype, bytes } = output.elements() else { return Err(refused(DataType::Bytes)) };
    let (rows, width) = rows_and_width(output.shape());
    let top = classes.get().min(width);
    let plan = Plan { rows, width, top, labels };
    macro_rules! numbers {
        ($type:ty, $convert:expr) => {
            plan.strings(bytes, <$type>::from_le_bytes, $convert)
        };
    }
    let strings = match datatype {
        DataType::Uint8 => numbers!(u8, u64::from),
        DataType::Uint16 => numbers!(u16, u64::from),
        DataType::Uint32 => numbers!(u32, u64::from),
        DataType::Uint64 => numbers!(u64, u64::from),
        DataType::Int8 => numbers!(i8, i64::from),
        DataType::Int16 => numbers!(i16, i64::from),
        DataType::Int32 => numbers!(i32, i64::from),
        DataType::Int64 => numbers!(i64, i64::from),
        DataType::Fp16 => numbers!(half::f16, |number| Decimal(f64::from(number))),
        DataType::Bf16 => numbers!(half::bf16, |number| Decimal(f64::from(number))),
        DataType::Fp32 => numbers!(f32, |number| Decimal(f64::from(number))),
        DataType::Fp64 => numbers!(f64, Decimal),
        DataType::Bool | DataType::Bytes => return Err(refused(*datatype)),
    };
    let wire = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    let dimensions = if output.shape().dimensions().len() < 2 { vec![wire(top)] } else { vec![wire(rows), wire(top)] };
    Shape::new(dimensions)
        .and_then(|shape| Tensor::text(output.name(), shape, strings))
        .map_err(|reason| ClassifyError::Shape { name: output.name().into(), reason })
}

/// One row of all elements when there is no dimension for rows.
fn rows_and_width(shape: &Shape) -> (usize, usize) {
    if shape.dimensions().len() < 2 {
        return (1, shape.elements());
    }
    let sizes = shape.dimensions()[1..].iter().map(|size| usize::try_from(*size).unwrap_or(0));
    // No overflow: `Shape` has checked the product of all dimensions, zeros counted as one.
    (shape.rows(), sizes.product())
}

struct Plan<'a> {
    rows: usize,
    width: usize,
    top: usize,
    labels: Option<&'a [String]>,
}

impl Plan<'_> {
    fn strings<const SIZE: usize, T, N: PartialOrd + Display>(
        &self,
        bytes: &[u8],
        read: impl Fn([u8; SIZE]) -> T,
        convert: impl Fn(T) -> N,
    ) -> Vec<Bytes> {
        let mut strings = Vec::with_capacity(self.rows * self.top);
        let (elements, _) = bytes.as_chunks::<SIZE>();
        let mut row: Vec<(usize, N)> = Vec::with_capacity(self.width);
        for elements in elements.chunks(self.width.max(1)) {
            row.clear();
            row.extend(elements.iter().map(|element| convert(read(*element))).enumerate());
            if self.top < row.len() {
                row.select_nth_unstable_by(self.top, |left, right| highest_first(left, right));
            }
            let highest = &mut row[..self.top];
            highest.sort_unstable_by(highest_first);
            strings.extend(highest.iter().map(|(index, value)| self.written(*index, value)));
        }
        strings
    }

    fn written(&self, index: usize, value: &impl Display) -> Bytes {
        let label = self.labels.and_then(|labels| labels.get(index)).filter(|label| !label.is_empty());
        label.map_or_else(|| format!("{value}:{index}"), |label| format!("{value}:{index}:{label}")).into()
    }
}

fn highest_first<N: PartialOrd>(left: &(usize, N), right: &(usize, N)) -> Ordering {
    let is_number = |number: &N| number.partial_cmp(number).is_some();
    let by_value = right.1.partial_cmp(&left.1);
    by_value.unwrap_or_else(|| is_number(&right.1).cmp(&is_number(&left.1))).then(left.0.cmp(&right.0))
}

/// A float as C's `%f` writes it.
#[derive(PartialEq, PartialOrd)]
struct Decimal(f64);

impl Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            number if number.is_nan() => f.write_str(if number.is_sign_negative() { "-nan" } else { "nan" }),
            number => write!(f, "{number:.6}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn top(classes: usize) -> NonZeroUsize {
        NonZeroUsize::new(classes).unwrap()
    }

    fn tensor(datatype: DataType, dimensions: &[i64], bytes: Vec<u8>) -> Tensor {
        Tensor::plain("y", datatype, Shape::new(dimensions.to_vec()).unwrap(), bytes.into()).unwrap()
    }

    fn floats(dimensions: &[i64], values: &[f32]) -> Tensor {
        tensor(DataType::Fp32, dimensions, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn read(tensor: &Tensor) -> (Vec<i64>, Vec<String>) {
        let Elements::Text(elements) = tensor.elements() else { panic!("not BYTES") };
        let strings = elements.iter().map(|element| String::from_utf8(element.to_vec()).unwrap());
        (tensor.shape().dimensions().to_vec(), strings.collect())
    }

    fn classified(tensor: &Tensor, classes: usize) -> (Vec<i64>, Vec<String>) {
        read(&classify(tensor, top(classes), None).unwrap())
    }

    #[test]
    fn highest_of_each_row_come_first_with_their_names() {
        let labels = ["cat".to_owned(), String::new()];
        let output = floats(&[2, 3], &[0.25, 0.5, -1.0, 3.0, 1.0, 2.0]);
        let (shape, strings) = read(&classify(&output, top(2), Some(&labels)).unwrap());
        assert_eq!(shape, [2, 2]);
        assert_eq!(strings, ["0.500000:1", "0.250000:0:cat", "3.000000:0:cat", "2.000000:2"]);
    }

    #[test]
    fn shape_follows_that_of_the_output() {
        assert_eq!(classified(&floats(&[3], &[1.0, 3.0, 2.0]), 2).0, [2]);
        assert_eq!(classified(&floats(&[], &[7.0]), 5), (vec![1], vec!["7.000000:0".to_owned()]));
        assert_eq!(classified(&floats(&[1, 2, 2], &[1.0, 2.0, 4.0, 3.0]), 1), (vec![1, 1], vec!["4.000000:2".into()]));
        assert_eq!(classified(&floats(&[2, 2], &[1.0, 2.0, 4.0, 3.0]), 9).0, [2, 2], "no more than there are");
        assert_eq!(classified(&floats(&[0, 3], &[]), 2), (vec![0, 2], vec![]));
        assert_eq!(classified(&floats(&[2, 0], &[]), 2), (vec![2, 0], vec![]));
        assert_eq!(classified(&floats(&[0], &[]), 2), (vec![0], vec![]));
    }

    #[test]
    fn equals_keep_their_order_and_what_is_no_number_comes_last() {
        let output = floats(&[1, 5], &[f32::NAN, 1.0, f32::INFINITY, 1.0, -0.0]);
        let expected = ["inf:2", "1.000000:1", "1.000000:3", "-0.000000:4", "nan:0"];
        assert_eq!(classified(&output, 5).1, expected);
    }

    #[test]
    fn every_number_is_written_as_it_is() {
        use DataType as D;
        let cases = [
            (D::Uint8, vec![200, 7], "200:0"),
            (D::Int8, vec![200, 7], "7:1"),
            (D::Uint16, vec![0, 1, 255, 0], "256:0"),
            (D::Int16, vec![0xff, 0xff, 2, 0], "2:1"),
            (D::Uint32, [1_u32, u32::MAX].iter().flat_map(|n| n.to_le_bytes()).collect(), "4294967295:1"),
            (D::Int32, [i32::MIN, -1].iter().flat_map(|n| n.to_le_bytes()).collect(), "-1:1"),
            (
                D::Uint64,
                [u64::MAX, u64::MAX - 1].iter().flat_map(|n| n.to_le_bytes()).collect(),
                "18446744073709551615:0",
            ),
            (D::Int64, [i64::MIN, i64::MAX].iter().flat_map(|n| n.to_le_bytes()).collect(), "9223372036854775807:1"),
            (D::Fp16, vec![0x00, 0x3c, 0x00, 0xc0], "1.000000:0"),
            (D::Bf16, vec![0x80, 0x3f, 0x00, 0x40], "2.000000:1"),
            (D::Fp64, [0.1_f64, 1e-9].iter().flat_map(|n| n.to_le_bytes()).collect(), "0.100000:0"),
        ];
        for (datatype, bytes, expected) in cases {
            assert_eq!(classified(&tensor(datatype, &[1, 2], bytes), 1).1, [expected], "{datatype}");
        }
    }

    #[test]
    fn what_has_no_order_is_refused_by_name() {
        let text = Tensor::text("t", Shape::new(vec![1]).unwrap(), vec![Bytes::new()]).unwrap();
        for output in [text, tensor(DataType::Bool, &[1], vec![1])] {
            let words = classify(&output, top(1), None).unwrap_err().to_string();
            assert!(words.contains(output.name()) && words.contains(output.datatype().name()), "{words}");
        }
    }

    proptest! {
        #[test]
        fn every_row_is_sorted_and_complete(values in prop::collection::vec(-5_i8..5, 1..60), width in 1_usize..9, classes in 1_usize..12) {
            let rows = values.len() / width;
            let bytes: Vec<u8> = values[..rows * width].iter().map(|value| value.to_le_bytes()[0]).collect();
            let output = tensor(DataType::Int8, &[i64::try_from(rows).unwrap(), i64::try_from(width).unwrap()], bytes);
            let (_, strings) = classified(&output, classes);
            for (row, strings) in strings.chunks(classes.min(width)).enumerate() {
                let mut expected: Vec<(i8, usize)> =
                    (0..width).map(|index| (values[row * width + index], index)).collect();
                expected.sort_by_key(|(value, index)| (-value, *index));
                let expected: Vec<_> = expected.iter().take(classes).map(|(value, index)| format!("{value}:{index}")).collect();
                prop_assert_eq!(strings, &expected[..]);
            }
        }
    }
}
