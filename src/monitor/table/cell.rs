//! One value of a table, and the elements of a tensor made of such values.

use bytes::Bytes;

use super::value::Value;
use crate::domain::{DataType, Shape, Tensor, TensorError};

/// A value as the file has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::monitor) enum Cell<'a> {
    Missing,
    /// Text of a CSV file, which may spell a number; or a string.
    Text(&'a [u8]),
    /// Text of a CSV file whose numbers have a decimal comma.
    Comma(&'a [u8]),
    Bool(bool),
    Whole(i128),
    /// A float of 32 bits: the same number, but a shorter text.
    Single(f32),
    Float(f64),
    /// `unscaled · 10^-scale`, exactly.
    Decimal {
        unscaled: i128,
        scale: u32,
    },
    /// The values of a list, some of them lists in turn.
    List(&'a [Value]),
    /// A value that fits no tensor, such as an object.
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

    /// Repeats the first `rows` rows until there are `wanted`.
    pub(super) fn fill_up(&mut self, rows: usize, wanted: usize) {
        fn repeat<T: Clone>(elements: &mut Vec<T>, rows: usize, wanted: usize) {
            let (length, all) = (elements.len(), elements.len() / rows.max(1) * wanted);
            while length > 0 && elements.len() < all {
                elements.extend_from_within(..length.min(all - elements.len()));
            }
        }
        match self {
            Self::Plain(_, bytes) => repeat(bytes, rows, wanted),
            Self::Text(texts) => repeat(texts, rows, wanted),
        }
    }

    /// The text added last.
    pub(super) fn last_text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(texts) => texts.last().map(AsRef::as_ref),
            Self::Plain(..) => None,
        }
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
    if let Cell::Comma(text) = cell {
        if text.contains(&b'.') {
            return Err(format!("{}: its decimals have a comma", not_a(Cell::Text(text), "number")));
        }
        let text: Vec<u8> = text.iter().map(|byte| if *byte == b',' { b'.' } else { *byte }).collect();
        return push_plain(datatype, bytes, Cell::Text(&text));
    }
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

/// The text of a value: that which Python, and so pandas, writes for it to CSV. All forms of one table give one profile.
fn text(cell: Cell<'_>) -> Result<Bytes, String> {
    Ok(match cell {
        Cell::Missing => Bytes::new(),
        Cell::Text(text) | Cell::Comma(text) => Bytes::copy_from_slice(text),
        Cell::Bool(flag) => if flag { "True" } else { "False" }.to_owned().into(),
        Cell::Whole(number) => number.to_string().into(),
        // As a missing value is written.
        Cell::Single(number) if number.is_nan() => Bytes::new(),
        Cell::Float(number) if number.is_nan() => Bytes::new(),
        Cell::Single(number) => as_python(&format!("{number:?}")).into(),
        Cell::Float(number) => as_python(&format!("{number:?}")).into(),
        Cell::Decimal { unscaled, scale } => decimal_text(unscaled, scale).into(),
        Cell::List(_) => return Err("a list is not a string".into()),
        Cell::Other(kind) => return Err(format!("{kind} cannot be a string; store it as one")),
    })
}

/// The shortest text of a float, where Rust writes another exponent than Python: `1e16` is `1e+16`, `1e-5` is `1e-05`.
fn as_python(text: &str) -> String {
    let Some((number, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{}e{sign}{digits:0>2}", number.strip_suffix(".0").unwrap_or(number))
}

/// All digits of a decimal: `12.50` has two after the point.
fn decimal_text(unscaled: i128, scale: u32) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let places = scale as usize;
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = places + 1);
    match digits.split_at(digits.len() - places) {
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// The nearest float: there is one division where both numbers are exact, and the text is read otherwise.
fn decimal_float(unscaled: i128, scale: u32) -> f64 {
    const EXACT: u128 = 1 << 53;
    if unscaled.unsigned_abs() <= EXACT && scale <= 22 {
        return unscaled as f64 / 10_u128.pow(scale) as f64;
    }
    decimal_text(unscaled, scale).parse().unwrap_or(f64::NAN)
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
        Cell::Single(number) => Ok(number.into()),
        Cell::Float(number) => Ok(number),
        Cell::Decimal { unscaled, scale } => Ok(decimal_float(unscaled, scale)),
        Cell::Comma(_) | Cell::List(_) | Cell::Other(_) => Err(not_a(cell, "number")),
    }
}

fn whole(cell: Cell<'_>, datatype: DataType) -> Result<i128, String> {
    if is_absent(cell) {
        return Err(format!("the value is missing, and {datatype} cannot say so"));
    }
    match cell {
        Cell::Whole(number) => Ok(number),
        Cell::Bool(flag) => Ok(i128::from(flag)),
        Cell::Decimal { unscaled, scale } => match 10_i128.checked_pow(scale) {
            Some(unit) if unscaled % unit == 0 => Ok(unscaled / unit),
            None if unscaled == 0 => Ok(0),
            _ => Err(not_a(cell, "whole number")),
        },
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
        Cell::Single(number) => number.to_string(),
        Cell::Decimal { unscaled, scale } => decimal_float(unscaled, scale).to_string(),
        Cell::Text(text) | Cell::Comma(text) => trimmed(text).to_ascii_lowercase(),
        Cell::Missing | Cell::List(_) | Cell::Other(_) => String::new(),
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
        Cell::Single(number) => number.is_nan(),
        Cell::Text(text) | Cell::Comma(text) => is_missing(text),
        _ => false,
    }
}

pub(super) fn is_missing(text: &[u8]) -> bool {
    MISSING_WORDS.iter().any(|word| word.eq_ignore_ascii_case(trimmed(text)))
}

/// The text without spaces around it; what is not UTF-8 is no number, so any stand-in does.
fn trimmed(text: &[u8]) -> &str {
    std::str::from_utf8(text).map_or("\u{fffd}", str::trim)
}

fn not_a(cell: Cell<'_>, wanted: &str) -> String {
    match cell {
        Cell::Missing => format!("the value is missing, expected a {wanted}"),
        Cell::Text(text) | Cell::Comma(text) => {
            let shown: String = String::from_utf8_lossy(text).chars().take(40).collect();
            let is_comma = is_decimal_comma(text);
            let hint = if is_comma { " (if that is a decimal comma: --decimal=comma)" } else { "" };
            format!("'{}' is not a {wanted}{hint}", shown.escape_debug())
        }
        Cell::Bool(flag) => format!("'{flag}' is not a {wanted}"),
        Cell::Whole(number) => format!("'{number}' is not a {wanted}"),
        Cell::Float(number) => format!("'{number}' is not a {wanted}"),
        Cell::Single(number) => format!("'{number}' is not a {wanted}"),
        Cell::Decimal { unscaled, scale } => format!("'{}' is not a {wanted}", decimal_text(unscaled, scale)),
        Cell::List(_) => format!("a list is not a {wanted}"),
        Cell::Other(kind) => format!("{kind} is not a {wanted}"),
    }
}

/// A number with one comma and no point, such as `-1,5`.
pub(super) fn is_decimal_comma(text: &[u8]) -> bool {
    let text = trimmed(text);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.split_once(',').is_some_and(|(whole, fraction)| {
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        !fraction.is_empty() && is_digits(whole) && is_digits(fraction)
    })
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
        assert_eq!(push(DataType::Bytes, Cell::Other("an object")), "an object cannot be a string; store it as one");
        assert_eq!(push(DataType::Fp64, Cell::List(&[])), "a list is not a number");
        assert_eq!(
            push(DataType::Fp64, Cell::Text(b"1,5")),
            "'1,5' is not a number (if that is a decimal comma: --decimal=comma)"
        );
        assert_eq!(push(DataType::Fp64, Cell::Comma(b"1.234")), "'1.234' is not a number: its decimals have a comma");
        assert_eq!(push(DataType::Int64, Cell::Decimal { unscaled: -125, scale: 1 }), "'-12.5' is not a whole number");
    }

    #[test]
    fn texts_of_numbers_are_those_of_python() {
        let text = |cell| String::from_utf8(text(cell).unwrap().to_vec()).unwrap();
        for (number, expected) in [
            (1.0, "1.0"),
            (-0.5, "-0.5"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
        ] {
            assert_eq!(text(Cell::Float(number)), expected);
        }
        assert_eq!(text(Cell::Float(2.5e-7)), "2.5e-07");
        assert_eq!(text(Cell::Float(f64::INFINITY)), "inf");
        assert_eq!(text(Cell::Float(f64::NAN)), "");
        assert_eq!(text(Cell::Single(0.1)), "0.1");
        assert_eq!(text(Cell::Whole(-7)), "-7");
        assert_eq!(text(Cell::Bool(true)), "True");
        assert_eq!(text(Cell::Text(b"1.0")), "1.0");
        for (unscaled, scale, expected) in [(1250, 2, "12.50"), (-5, 2, "-0.05"), (7, 0, "7"), (0, 1, "0.0")] {
            assert_eq!(text(Cell::Decimal { unscaled, scale }), expected);
        }
    }

    #[test]
    fn decimals_become_the_nearest_number() {
        let decimal = |unscaled, scale| Cell::Decimal { unscaled, scale };
        assert_eq!(float(decimal(-15, 1)), Ok(-1.5));
        assert_eq!(float(decimal(3, 1)), Ok(0.3));
        assert_eq!(float(decimal(123_456_789_012_345_678_901_234_567_890, 20)), Ok(1_234_567_890.123_456_8));
        assert_eq!(whole(decimal(1200, 2), DataType::Int64), Ok(12));
        assert_eq!(boolean(decimal(10, 1)), Ok(true));
        let mut elements = Elements::new(DataType::Fp64);
        elements.push(Cell::Comma(b"-1,5")).unwrap();
        let tensor = elements.into_tensor("x", Shape::new(vec![1]).unwrap()).unwrap();
        assert_eq!(tensor.to_raw().as_ref(), (-1.5_f64).to_le_bytes());
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
