//! Domain tensors to arguments of a run and produced values back.
//!
//! Elements of fixed size are lent to ONNX Runtime in place when they are aligned for their type,
//! otherwise copied once. Small outputs are copied once into the answer; large ones stay where
//! ONNX Runtime wrote them, and go back to it when the answer is sent.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    EngineError,
    native::{Argument, ElementType, Value, is_aligned},
};
use crate::domain::{DataType, Elements, Shape, Tensor};

/// Outputs of at most this many bytes are copied: cheaper than keeping their value alive.
const SMALL: usize = 4 << 10;

/// A copy of elements that were not aligned for their type.
pub(super) struct AlignedCopy(Vec<u64>);

/// The copy that `tensor` needs before it can be lent; `None` when it can be lent as it is.
pub(super) fn aligned_copy(tensor: &Tensor) -> Option<AlignedCopy> {
    let Elements::Plain { datatype, bytes } = tensor.elements() else { return None };
    if is_aligned(bytes, datatype.size().unwrap_or(1)) {
        return None;
    }
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    Some(AlignedCopy(words))
}

/// The tensor as the argument at `index` in this shape, with its elements from `copy` where there is one.
pub(super) fn argument<'a>(
    index: usize,
    tensor: &'a Tensor,
    shape: &'a [i64],
    copy: Option<&'a AlignedCopy>,
) -> Result<Argument<'a>, EngineError> {
    let (datatype, bytes) = match tensor.elements() {
        Elements::Plain { datatype, bytes } => (*datatype, bytes),
        Elements::Text(elements) => return Ok(Argument::text(index, shape, elements)),
    };
    // ONNX Runtime would read such a byte as a C++ bool, for which it is no value.
    if datatype == DataType::Bool && bytes.iter().any(|&byte| byte > 1) {
        return Err(EngineError::Refused(format!("input '{}': a BOOL element is neither 0 nor 1", tensor.name())));
    }
    let bytes = copy.map_or(&bytes[..], |copy| &bytemuck::cast_slice(&copy.0)[..bytes.len()]);
    let size = datatype.size().unwrap_or(1);
    Argument::plain(index, element(datatype), size, shape, bytes)
        .map_err(|error| EngineError::Failed(format!("input '{}': {error}", tensor.name())))
}

fn element(datatype: DataType) -> ElementType {
    match datatype {
        DataType::Bool => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Fp32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bf16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Bytes => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// A produced value as a tensor of the domain.
pub(super) fn to_tensor(name: &Arc<str>, datatype: DataType, value: Value) -> Result<Tensor, EngineError> {
    let failed = |error: &dyn std::fmt::Display| EngineError::Failed(format!("output '{name}': {error}"));
    let dimensions = value.dimensions().map_err(|error| failed(&error))?;
    let shape = Shape::new(dimensions).map_err(|error| failed(&error))?;
    let tensor = match datatype {
        DataType::Bytes => {
            let elements = value.strings().map_err(|error| failed(&error))?;
            Tensor::text(Arc::clone(name), shape, elements)
        }
        datatype => {
            let bytes = copy_or_keep(value).map_err(|error| failed(&error))?;
            Tensor::plain(Arc::clone(name), datatype, shape, bytes)
        }
    };
    tensor.map_err(|error| failed(&error))
}

fn copy_or_keep(value: Value) -> ort::Result<Bytes> {
    let bytes = value.bytes()?;
    if bytes.len() <= SMALL { Ok(Bytes::copy_from_slice(bytes)) } else { value.into_bytes() }
}
