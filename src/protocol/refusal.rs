//! Why a door refused a request, and the words that both protocols share.

use std::fmt;

use crate::{
    domain::{DataType, IdError, TensorError},
    fault::{ErrorCode, Fault},
};

/// A request that never reached the gateway. The message is fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    code: ErrorCode,
    message: String,
    retry_after: Option<u32>,
}

impl Fault for Refusal {
    fn code(&self) -> ErrorCode {
        self.code
    }

    fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: code.retry_after() }
    }

    /// What the client is told of `fault`.
    pub(super) fn of(fault: &impl Fault) -> Self {
        Self { code: fault.code(), message: fault.message(), retry_after: fault.retry_after() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(ErrorCode::TooLarge, format!("the request is larger than the limit of {limit} bytes"))
    }

    /// Something wrong with one input, which the message names.
    pub(super) fn input(name: &str, problem: impl fmt::Display) -> Self {
        Self::bad_request(format!("input '{}': {problem}", shown(name)))
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        // A name that no model can have is the name of no model.
        let code = if matches!(error, IdError::ModelName(_)) { ErrorCode::NotFound } else { ErrorCode::BadRequest };
        Self::new(code, error.to_string())
    }
}

/// Why the values given for a tensor cannot become its elements.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueFault {
    #[error("element {index} is {got}, outside the range of {datatype} ({})", range(*datatype))]
    OutOfRange { index: usize, got: String, datatype: DataType },
    #[error("element {index} is {got}, expected {expected} for {datatype}{}", way_out(got, *datatype))]
    WrongKind { index: usize, got: String, expected: &'static str, datatype: DataType },
    #[error("data is nested deeper than its shape, which has {rank} dimensions")]
    TooDeep { rank: usize },
    #[error("data mixes lists and values at element {index}")]
    Uneven { index: usize },
    #[error("data has a list of {got} where dimension {dimension} of the shape is {expected}")]
    Ragged { dimension: usize, expected: i64, got: usize },
    #[error("data must be a list")]
    NotAList,
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// What to send in place of a value that says "missing" or "not finite" where the type has no such value, or says it in words that
/// are not the protocol's.
fn way_out(got: &str, datatype: DataType) -> String {
    let word = got.trim_matches('"').trim_start_matches(['-', '+']).to_ascii_lowercase();
    let is_missing = matches!(&*word, "null" | "nan" | "none" | "na" | "n/a" | "inf" | "infinity" | "");
    match datatype {
        _ if !is_missing => String::new(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            "; write null or NaN for a missing number, Infinity or -Infinity for an infinite one, without quotes".into()
        }
        DataType::Bytes => "; a missing text is null or \"\"".into(),
        _ => format!(
            "; {datatype} has no value for a missing or infinite number: send the one that the model was trained with in its \
             place, such as -1 or 0, or give the model an input of FP32, where null and NaN are missing"
        ),
    }
}

/// The values that a fixed-size type can hold, for messages.
fn range(datatype: DataType) -> String {
    match datatype {
        DataType::Bool => "0 to 1".into(),
        DataType::Uint8 => format!("0 to {}", u8::MAX),
        DataType::Uint16 => format!("0 to {}", u16::MAX),
        DataType::Uint32 => format!("0 to {}", u32::MAX),
        DataType::Uint64 => format!("0 to {}", u64::MAX),
        DataType::Int8 => format!("{} to {}", i8::MIN, i8::MAX),
        DataType::Int16 => format!("{} to {}", i16::MIN, i16::MAX),
        DataType::Int32 => format!("{} to {}", i32::MIN, i32::MAX),
        DataType::Int64 => format!("{} to {}", i64::MIN, i64::MAX),
        DataType::Fp16 => format!("{} to {}", half::f16::MIN, half::f16::MAX),
        DataType::Bf16 => format!("{:e} to {:e}", half::bf16::MIN.to_f32(), half::bf16::MAX.to_f32()),
        DataType::Fp32 => format!("{:e} to {:e}", f32::MIN, f32::MAX),
        DataType::Fp64 => format!("{:e} to {:e}", f64::MIN, f64::MAX),
        DataType::Bytes => "any bytes".into(),
    }
}

/// A client's text as it may be shown in a message: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(64) {
        match character {
            // Of what `escape_debug` escapes these alone can do no harm in a log or a terminal.
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_the_input_without_control_characters() {
        let refusal = Refusal::input("a\nb", TensorError::NegativeDimension(-1));
        assert_eq!(refusal.message(), "input 'a\\nb': the shape has a negative dimension (-1)");
    }

    #[test]
    fn impossible_model_name_is_not_found_and_other_ids_are_bad_requests() {
        let code = |error: IdError| Refusal::from(error).code();
        assert_eq!(code(IdError::ModelName("..".into())), ErrorCode::NotFound);
        assert_eq!(code(IdError::Version("0".into())), ErrorCode::BadRequest);
        assert_eq!(code(IdError::RequestId), ErrorCode::BadRequest);
    }

    #[test]
    fn value_fault_says_the_range() {
        let fault = ValueFault::OutOfRange { index: 3, got: "300".into(), datatype: DataType::Uint8 };
        assert_eq!(fault.to_string(), "element 3 is 300, outside the range of UINT8 (0 to 255)");
        let fault = ValueFault::OutOfRange { index: 0, got: "1e6".into(), datatype: DataType::Fp16 };
        assert_eq!(fault.to_string(), "element 0 is 1e6, outside the range of FP16 (-65504 to 65504)");
    }
}
