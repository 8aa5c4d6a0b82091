//! A value of a table that owns what it has: from Parquet, or from a line of JSON.

use parquet::{data_type::Decimal, record::Field};

use super::{cell::Cell, parquet_kind::Kind};

/// A value as the file has it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::monitor) enum Value {
    Missing,
    Text(Vec<u8>),
    Bool(bool),
    Whole(i128),
    Single(f32),
    Float(f64),
    Decimal {
        unscaled: i128,
        scale: u32,
    },
    List(Vec<Value>),
    /// What fits no tensor.
    Other(&'static str),
}

impl Value {
    pub(super) fn cell(&self) -> Cell<'_> {
        match self {
            Self::Missing => Cell::Missing,
            Self::Text(text) => Cell::Text(text),
            Self::Bool(flag) => Cell::Bool(*flag),
            Self::Whole(number) => Cell::Whole(*number),
            Self::Single(number) => Cell::Single(*number),
            Self::Float(number) => Cell::Float(*number),
            Self::Decimal { unscaled, scale } => Cell::Decimal { unscaled: *unscaled, scale: *scale },
            Self::List(values) => Cell::List(values),
            Self::Other(kind) => Cell::Other(kind),
        }
    }

    /// A value of a Parquet column of this kind.
    pub(super) fn of_parquet(field: Field, kind: &Kind) -> Self {
        match field {
            Field::Null => Self::Missing,
            Field::Bool(flag) => Self::Bool(flag),
            Field::Byte(number) => Self::Whole(number.into()),
            Field::Short(number) => Self::Whole(number.into()),
            Field::Int(number) => Self::Whole(number.into()),
            Field::Long(number) => Self::Whole(number.into()),
            Field::UByte(number) => Self::Whole(number.into()),
            Field::UShort(number) => Self::Whole(number.into()),
            Field::UInt(number) => Self::Whole(number.into()),
            Field::ULong(number) => Self::Whole(number.into()),
            Field::Float16(number) => Self::Single(number.to_f32()),
            Field::Float(number) => Self::Single(number),
            Field::Double(number) => Self::Float(number),
            Field::Str(text) => Self::Text(text.into_bytes()),
            Field::Bytes(bytes) => match (kind, <[u8; 16]>::try_from(bytes.data())) {
                (Kind::Uuid, Ok(bytes)) => Self::Text(uuid::Uuid::from_bytes(bytes).to_string().into_bytes()),
                _ => Self::Text(bytes.data().to_vec()),
            },
            Field::Decimal(decimal) => of_decimal(&decimal),
            Field::ListInternal(list) => {
                let kind = if let Kind::List(element) = kind { element } else { kind };
                let values = list.elements().iter().map(|field| Self::of_parquet(field.clone(), kind));
                // The reader puts a list of two levels, as old writers have it, into one more list.
                let mut flat = Vec::with_capacity(values.len());
                for value in values {
                    match value {
                        Self::List(inner) if !kind.is_list() => flat.extend(inner),
                        value => flat.push(value),
                    }
                }
                Self::List(flat)
            }
            // Columns of these kinds are refused before they are read.
            Field::Date(_) | Field::TimeMillis(_) | Field::TimeMicros(_) => Self::Other("a date or time"),
            Field::TimestampMillis(_) | Field::TimestampMicros(_) => Self::Other("a timestamp"),
            Field::Group(_) | Field::MapInternal(_) => Self::Other("a struct"),
        }
    }

    /// A value of a line of JSON.
    pub(super) fn of_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Missing,
            serde_json::Value::Bool(flag) => Self::Bool(flag),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(whole) => Self::Whole(whole),
                None => number.as_f64().map_or(Self::Other("a number out of range"), Self::Float),
            },
            serde_json::Value::String(text) => Self::Text(text.into_bytes()),
            serde_json::Value::Array(values) => Self::List(values.into_iter().map(Self::of_json).collect()),
            serde_json::Value::Object(_) => Self::Other("an object"),
        }
    }
}

/// The unscaled number is big-endian, in two's complement, of any length.
fn of_decimal(decimal: &Decimal) -> Value {
    let scale = u32::try_from(decimal.scale()).unwrap_or(0);
    let bytes = decimal.data();
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [sign; 16];
    all[16 - low.len()..].copy_from_slice(low);
    let unscaled = i128::from_be_bytes(all);
    if high.iter().any(|byte| *byte != sign) || (unscaled < 0) != (sign != 0) {
        return Value::Other("a decimal of more than 38 digits");
    }
    Value::Decimal { unscaled, scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_of_any_length_is_read_exactly() {
        let read = |bytes: &[u8]| of_decimal(&Decimal::from_bytes(bytes.to_vec().into(), 76, 2));
        let decimal = |unscaled| Value::Decimal { unscaled, scale: 2 };
        assert_eq!(read(&[]), decimal(0));
        assert_eq!(read(&[0xff]), decimal(-1));
        assert_eq!(read(&[0x00, 0xff]), decimal(255));
        assert_eq!(read(&[[0xff; 31].as_slice(), &[0x85]].concat()), decimal(-123));
        assert_eq!(read(&i128::MIN.to_be_bytes()), decimal(i128::MIN));
        let beyond = Value::Other("a decimal of more than 38 digits");
        assert_eq!(read(&[[1; 1].as_slice(), &[0; 16]].concat()), beyond);
        assert_eq!(read(&[[0; 1].as_slice(), &[0xff; 16]].concat()), beyond, "2^128 - 1 is no negative number");
    }
}
