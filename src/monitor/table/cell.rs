//! One value of a table, and the elements of a tensor made of such values.

use bytes::Bytes;

use crate::domain::{DataType, Shape, Tensor, TensorError};

/// A value as the file has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::monitor) enum Cell<'a> {
    Missing,
    /// Text of a CSV file, which may spell a number; or a string.
    Text(&'a [u8]),
    Bool(bool),
    Whole(i128),
    Float(f64),
    /// A type that fits no tensor, such as a date.
    Other(&'static str),
}

/// What data frames write for a value that is not there, where a number is wanted.
const MISSING_WORDS: [&str; 8] = ["", "nan", "na", "n/a", "<na>", "null", "none", "#n/a"];

/// The elements of a tensor to be.
pub(in crate::monitor) enum Elements {
    Plain(DataType, Vec<u8>),
    Text(Vec<Bytes>),
}

impl Elements {
    pub(in crate::monitor) fn new(datatype: DataType) -> Self {
        if datatype == DataType::Bytes { Self::Text(Vec::new()) } else { Self::Plain(datatype, Vec::new()) }
    }

    /// Adds a value. Where it is missing: NaN for a float, an empty string for `BYTES`.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(in crate::monitor) fn push(&mut self, cell: Cell<'_>) -> Result<(), String> {
        match self {
            Self::Text(texts) => texts.push(text(cell)?),
            Self::Plain(datatype, bytes) => push_plain(*datatype, bytes, cell)?,
        }
        Ok(())
    }

    pub(in crate::monitor) fn into_tensor(self, name: &str, shape: Shape) -> Result<Tensor, TensorError> {
        match self {
            Self::Plain(datatype, bytes) => Tensor::plain(name, datatype, shape, bytes.into()),
            Self::Text(texts) => Tensor::text(name, shape, texts),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest number of a smaller type is what is wanted")]
fn push_plain(datatype: DataType, bytes: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), String> {
    macro_rules! whole {
        ($type:ty) => {{
            let number = whole(cell, datatype)?;
            let number =
                <$type>::try_from(number).map_err(|_| format!("{number} is out of the range of {datatype}"))?;
            bytes.extend(number.to_le_bytes());
        }};
    }
    match datatype {
        DataType::Bool => bytes.push(u8::from(boolean(cell)?)),
        DataType::Uint8 => whole!(u8),
        DataType::Uint16 => whole!(u16),
        DataType::Uint32 => whole!(u32),
        DataType::Uint64 => whole!(u64),
        DataType::Int8 => whole!(i8),
        DataType::Int16 => whole!(i16),
        DataType::Int32 => whole!(i32),
        DataType::Int64 => whole!(i64),
        DataType::Fp16 => bytes.extend(half::f16::from_f64(float(cell)?).to_le_bytes()),
        DataType::Bf16 => bytes.extend(half::bf16::from_f64(float(cell)?).to_le_bytes()),
        DataType::Fp32 => bytes.extend((float(cell)? as f32).to_le_bytes()),
        DataType::Fp64 => bytes.extend(float(cell)?.to_le_bytes()),
        DataType::Bytes => return Err("a string is no element of fixed size".into()),
    }
    Ok(())
}

fn text(cell: Cell<'_>) -> Result<Bytes, String> {
    Ok(match cell {
        Cell::Missing => Bytes::new(),
        Cell::Text(text) => Bytes::copy_from_slice(text),
        // As pandas writes the same column to CSV: both forms of one table give one profile.
        Cell::Bool(flag) => if flag { "True" } else { "False" }.to_owned().into(),
        Cell::Whole(number) => number.to_string().into(),
        Cell::Float(number) => number.to_string().into(),
        Cell::Other(kind) => return Err(format!("a {kind} cannot be a string; store it as one")),
    })
}

fn float(cell: Cell<'_>) -> Result<f64, String> {
    match cell {
        Cell::Missing => Ok(f64::NAN),
        Cell::Text(text) if is_missing(text) => Ok(f64::NAN),
        Cell::Text(text) => trimmed(text).parse().or_else(|_| match boolean(cell) {
            Ok(flag) => Ok(f64::from(u8::from(flag))),
            Err(_) => Err(not_a(cell, "number")),
        }),
        Cell::Bool(flag) => Ok(f64::from(u8::from(flag))),
        Cell::Whole(number) => Ok(number as f64),
        Cell::Float(number) => Ok(number),
        Cell::Other(_) => Err(not_a(cell, "number")),
    }
}

fn whole(cell: Cell<'_>, datatype: DataType) -> Result<i128, String> {
    if is_absent(cell) {
        return Err(format!("the value is missing, and {datatype} cannot say so"));
    }
    match cell {
        Cell::Whole(number) => Ok(number),
        Cell::Bool(flag) => Ok(i128::from(flag)),
        Cell::Text(text) if trimmed(text).parse::<i128>().is_ok() => {
            trimmed(text).parse().map_err(|_| not_a(cell, "whole number"))
        }
        // Data frames write whole numbers as floats in a column where some are missing.
        _ => match float(cell)? {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^64")]
            number if number.fract() == 0.0 && number.abs() <= 18_446_744_073_709_551_616.0 => Ok(number as i128),
            _ => Err(not_a(cell, "whole number")),
        },
    }
}

fn boolean(cell: Cell<'_>) -> Result<bool, String> {
    if is_absent(cell) {
        return Err("the value is missing, and BOOL cannot say so".into());
    }
    let word = match cell {
        Cell::Bool(flag) => return Ok(flag),
        Cell::Whole(number) => number.to_string(),
        Cell::Float(number) => number.to_string(),
        Cell::Text(text) => trimmed(text).to_ascii_lowercase(),
        Cell::Missing | Cell::Other(_) => String::new(),
    };
    match word.as_str() {
        "true" | "1" | "1.0" => Ok(true),
        "false" | "0" | "0.0" => Ok(false),
        _ => Err(not_a(cell, "boolean")),
    }
}

fn is_absent(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Missing => true,
        Cell::Float(number) => number.is_nan(),
        Cell::Text(text) => is_missing(text),
        _ => false,
    }
}

fn is_missing(text: &[u8]) -> bool {
    MISSING_WORDS.iter().any(|word| word.eq_ignore_ascii_case(trimmed(text)))
}

/// The text without spaces around it; what is not UTF-8 is no number, so any stand-in does.
fn trimmed(text: &[u8]) -> &str {
    std::str::from_utf8(text).map_or("\u{fffd}", str::trim)
}

fn not_a(cell: Cell<'_>, wanted: &str) -> String {
    match cell {
        Cell::Missing => format!("the value is missing, expected a {wanted}"),
        Cell::Text(text) => {
            let shown: String = String::from_utf8_lossy(text).chars().take(40).collect();
            format!("'{}' is not a {wanted}", shown.escape_debug())
        }
        Cell::Bool(flag) => format!("'{flag}' is not a {wanted}"),
        Cell::Whole(number) => format!("'{number}' is not a {wanted}"),
        Cell::Float(number) => format!("'{number}' is not a {wanted}"),
        Cell::Other(kind) => format!("a {kind} is not a {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_many_spellings_are_read() {
        for (text, number) in [("1.5", 1.5), (" -2 ", -2.0), ("1e3", 1000.0), ("True", 1.0), ("inf", f64::INFINITY)] {
            assert_eq!(float(Cell::Text(text.as_bytes())), Ok(number), "{text}");
        }
        for text in ["", " ", "NaN", "NULL", "None", "<NA>"] {
            assert!(float(Cell::Text(text.as_bytes())).unwrap().is_nan(), "{text}");
        }
        assert_eq!(whole(Cell::Text(b"19.0"), DataType::Int8), Ok(19));
        assert_eq!(whole(Cell::Text(b"18446744073709551615"), DataType::Uint64), Ok(i128::from(u64::MAX)));
    }

    #[test]
    fn booleans_of_many_spellings_are_read() {
        for yes in [Cell::Text(b"True"), Cell::Text(b"true"), Cell::Text(b"1"), Cell::Whole(1), Cell::Float(1.0)] {
            assert_eq!(boolean(yes), Ok(true), "{yes:?}");
        }
        assert_eq!(boolean(Cell::Text(b"yes")), Err("'yes' is not a boolean".into()));
    }

    #[test]
    fn value_that_does_not_fit_is_refused_in_words() {
        let push = |datatype, cell| Elements::new(datatype).push(cell).unwrap_err();
        assert_eq!(push(DataType::Int8, Cell::Text(b"300")), "300 is out of the range of INT8");
        assert_eq!(push(DataType::Int64, Cell::Text(b"1.5")), "'1.5' is not a whole number");
        assert_eq!(push(DataType::Int64, Cell::Float(f64::NAN)), "the value is missing, and INT64 cannot say so");
        assert_eq!(push(DataType::Bool, Cell::Text(b"")), "the value is missing, and BOOL cannot say so");
        assert_eq!(push(DataType::Fp32, Cell::Text(b"4O")), "'4O' is not a number");
        assert_eq!(push(DataType::Bytes, Cell::Other("date")), "a date cannot be a string; store it as one");
        assert_eq!(push(DataType::Fp64, Cell::Other("list")), "a list is not a number");
    }

    #[test]
    fn missing_value_becomes_nan_or_the_empty_string() {
        let tensor = |datatype| {
            let mut elements = Elements::new(datatype);
            elements.push(Cell::Missing).unwrap();
            elements.into_tensor("x", Shape::new(vec![1]).unwrap()).unwrap().to_raw()
        };
        assert_eq!(tensor(DataType::Bytes).as_ref(), [0, 0, 0, 0]);
        assert!(f32::from_le_bytes(tensor(DataType::Fp32).as_ref().try_into().unwrap()).is_nan());
    }
}
