//! What a column of a Parquet file is, by its schema: what can be read, and what fits no tensor.
//!
//! A column is judged before it is read: the reader of rows panics at types that it does not know, such as intervals.

use parquet::{
    basic::{ConvertedType, LogicalType, Repetition, Type as Physical},
    schema::types::Type,
};

/// What a column has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// Texts, bytes and booleans.
    Plain,
    Uuid,
    List(Box<Kind>),
    /// Fits no tensor, and why.
    Unusable(&'static str),
}

const STRUCT: &str = "it is a struct, which no tensor is: write its fields as columns of their own";
const MAP: &str = "it is a map, which no tensor is: write its values as columns of their own";
const UNKNOWN: &str = "it has a type that cannot be read: write it as a number or as text";

impl Kind {
    pub(super) fn of(field: &Type) -> Self {
        let is_repeated =
            field.get_basic_info().has_repetition() && field.get_basic_info().repetition() == Repetition::REPEATED;
        let kind = if field.is_primitive() { of_primitive(field) } else { of_group(field) };
        match kind {
            Self::Unusable(why) => Self::Unusable(why),
            // Without the annotation of a list, as some writers have it.
            kind if is_repeated => Self::List(Box::new(kind)),
            kind => kind,
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }
}

fn of_group(field: &Type) -> Kind {
    let info = field.get_basic_info();
    match info.converted_type() {
        ConvertedType::LIST => {}
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => return Kind::Unusable(MAP),
        _ => return Kind::Unusable(STRUCT),
    }
    let [repeated] = field.get_fields() else { return Kind::Unusable(UNKNOWN) };
    let is_repeated =
        repeated.get_basic_info().has_repetition() && repeated.get_basic_info().repetition() == Repetition::REPEATED;
    if !is_repeated {
        return Kind::Unusable(UNKNOWN);
    }
    if repeated.is_primitive() {
        // A list of two levels, as old writers have it; `Kind::of` makes the list of it.
        return Kind::of(repeated);
    }
    let is_element = repeated.name() == "array" || repeated.name() == format!("{}_tuple", field.name());
    match repeated.get_fields() {
        [element] if !is_element => match Kind::of(element) {
            Kind::Unusable(why) => Kind::Unusable(why),
            kind => Kind::List(Box::new(kind)),
        },
        _ => Kind::Unusable(STRUCT),
    }
}

fn of_primitive(field: &Type) -> Kind {
    const DATE: &str = "it is a date, which no tensor has: write it as the number or the text that clients send";
    const TIME: &str = "it is a time of day, which no tensor has: write it as the number or the text that clients send";
    const STAMP: &str = "it is a timestamp, which no tensor has: write it as the number or the text that clients send";
    const INTERVAL: &str =
        "it is an interval, which no tensor has: write it as the number or the text that clients send";
    let info = field.get_basic_info();
    match info.logical_type_ref() {
        Some(LogicalType::Date) => return Kind::Unusable(DATE),
        Some(LogicalType::Time { .. }) => return Kind::Unusable(TIME),
        Some(LogicalType::Timestamp { .. }) => return Kind::Unusable(STAMP),
        Some(LogicalType::Uuid) => return Kind::Uuid,
        _ => {}
    }
    let converted = info.converted_type();
    match converted {
        ConvertedType::DATE => return Kind::Unusable(DATE),
        ConvertedType::TIME_MILLIS | ConvertedType::TIME_MICROS => return Kind::Unusable(TIME),
        ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIMESTAMP_MICROS => return Kind::Unusable(STAMP),
        ConvertedType::INTERVAL => return Kind::Unusable(INTERVAL),
        _ => {}
    }
    let is_decimal = converted == ConvertedType::DECIMAL;
    // What the reader of rows knows.
    match (field.get_physical_type(), converted) {
        (Physical::INT96, _) => Kind::Unusable(STAMP),
        (Physical::FLOAT | Physical::DOUBLE, _)
        | (
            Physical::INT32,
            ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::DECIMAL,
        )
        | (
            Physical::INT64,
            ConvertedType::NONE | ConvertedType::INT_64 | ConvertedType::UINT_64 | ConvertedType::DECIMAL,
        ) => Kind::Number,
        (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, _) if is_decimal => Kind::Number,
        (Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::NONE)
            if info.logical_type_ref() == Some(&LogicalType::Float16) =>
        {
            Kind::Number
        }
        (
            Physical::BYTE_ARRAY,
            ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON | ConvertedType::BSON | ConvertedType::NONE,
        )
        | (Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::NONE)
        | (Physical::BOOLEAN, _) => Kind::Plain,
        _ => Kind::Unusable(UNKNOWN),
    }
}
