//! `InferTensorContents`: the typed fields that an input may carry its elements in.

use std::fmt;

use crate::{
    domain::{DataType, Shape, Tensor, TensorError},
    proto::inference::InferTensorContents,
    protocol::refusal::ValueFault,
};

/// Why typed contents cannot become the elements of an input.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentsFault {
    #[error("{datatype} cannot be sent in typed contents: send raw_input_contents")]
    OnlyRaw { datatype: DataType },
    #[error("{datatype} belongs in {expected}, but {got} is filled")]
    WrongField { datatype: DataType, expected: &'static str, got: &'static str },
    #[error("no data: fill {expected}, or send raw_input_contents")]
    Nothing { expected: &'static str },
    #[error(transparent)]
    Value(#[from] ValueFault),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The tensor whose elements `contents` holds.
pub(super) fn tensor(
    name: &str,
    datatype: DataType,
    shape: Shape,
    contents: InferTensorContents,
) -> Result<Tensor, ContentsFault> {
    check_field(datatype, &shape, &contents)?;
    if datatype == DataType::Bytes {
        return Ok(Tensor::text(name, shape, contents.bytes_contents)?);
    }
    let (bytes, got) = plain(datatype, &contents)?;
    let expected = shape.elements();
    if got != expected {
        return Err(TensorError::ElementCount { shape, expected, got }.into());
    }
    Ok(Tensor::plain(name, datatype, shape, bytes.into())?)
}

/// The one field that may be filled, and is unless the tensor is empty.
fn check_field(datatype: DataType, shape: &Shape, contents: &InferTensorContents) -> Result<(), ContentsFault> {
    let expected = field(datatype);
    let filled = filled(contents);
    let Some(expected) = expected else {
        let empty = shape.elements() == 0 && filled.iter().all(|(_, is_filled)| !is_filled);
        return if empty { Ok(()) } else { Err(ContentsFault::OnlyRaw { datatype }) };
    };
    if let Some(&(got, _)) = filled.iter().find(|(name, is_filled)| *is_filled && *name != expected) {
        return Err(ContentsFault::WrongField { datatype, expected, got });
    }
    if shape.elements() > 0 && filled.iter().all(|(_, is_filled)| !is_filled) {
        return Err(ContentsFault::Nothing { expected });
    }
    Ok(())
}

fn field(datatype: DataType) -> Option<&'static str> {
    match datatype {
        DataType::Bool => Some("bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some("int_contents"),
        DataType::Int64 => Some("int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some("uint_contents"),
        DataType::Uint64 => Some("uint64_contents"),
        DataType::Fp32 => Some("fp32_contents"),
        DataType::Fp64 => Some("fp64_contents"),
        DataType::Bytes => Some("bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => None,
    }
}

fn filled(contents: &InferTensorContents) -> [(&'static str, bool); 8] {
    [
        ("bool_contents", !contents.bool_contents.is_empty()),
        ("int_contents", !contents.int_contents.is_empty()),
        ("int64_contents", !contents.int64_contents.is_empty()),
        ("uint_contents", !contents.uint_contents.is_empty()),
        ("uint64_contents", !contents.uint64_contents.is_empty()),
        ("fp32_contents", !contents.fp32_contents.is_empty()),
        ("fp64_contents", !contents.fp64_contents.is_empty()),
        ("bytes_contents", !contents.bytes_contents.is_empty()),
    ]
}

/// The little-endian bytes of the elements, and how many there are.
fn plain(datatype: DataType, from: &InferTensorContents) -> Result<(Vec<u8>, usize), ValueFault> {
    Ok(match datatype {
        DataType::Bool => (from.bool_contents.iter().map(|&value| u8::from(value)).collect(), from.bool_contents.len()),
        DataType::Int8 => narrowed(datatype, &from.int_contents, i8::to_le_bytes)?,
        DataType::Int16 => narrowed(datatype, &from.int_contents, i16::to_le_bytes)?,
        DataType::Int32 => narrowed(datatype, &from.int_contents, i32::to_le_bytes)?,
        DataType::Int64 => narrowed(datatype, &from.int64_contents, i64::to_le_bytes)?,
        DataType::Uint8 => narrowed(datatype, &from.uint_contents, u8::to_le_bytes)?,
        DataType::Uint16 => narrowed(datatype, &from.uint_contents, u16::to_le_bytes)?,
        DataType::Uint32 => narrowed(datatype, &from.uint_contents, u32::to_le_bytes)?,
        DataType::Uint64 => narrowed(datatype, &from.uint64_contents, u64::to_le_bytes)?,
        DataType::Fp32 => narrowed(datatype, &from.fp32_contents, f32::to_le_bytes)?,
        DataType::Fp64 => narrowed(datatype, &from.fp64_contents, f64::to_le_bytes)?,
        // Raw only: by now known to have no elements.
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => (Vec::new(), 0),
    })
}

/// Wire values, each as a narrower (or the same) type that it must fit into.
fn narrowed<W, T, const SIZE: usize>(
    datatype: DataType,
    values: &[W],
    bytes: fn(T) -> [u8; SIZE],
) -> Result<(Vec<u8>, usize), ValueFault>
where
    W: Copy + fmt::Display + TryInto<T>,
{
    let mut all = Vec::with_capacity(values.len() * SIZE);
    for (index, &value) in values.iter().enumerate() {
        let element =
            value.try_into().map_err(|_| ValueFault::OutOfRange { index, got: value.to_string(), datatype })?;
        all.extend_from_slice(&bytes(element));
    }
    Ok((all, values.len()))
}
