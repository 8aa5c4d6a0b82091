//! Between domain tensors and ONNX Runtime values.
//!
//! Inputs are lent to ONNX Runtime in place when their bytes are aligned for the element type,
//! and copied once when not; outputs are copied once into the answer.

use bytemuck::{AnyBitPattern, NoUninit, checked::CheckedBitPattern};
use bytes::Bytes;
use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef, ValueType},
};

use super::{EngineError, strings};
use crate::domain::{DataType, Elements, Shape, Tensor};

/// The tensor as an input value, which borrows its bytes where it can.
pub(super) fn to_value(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    let shape = tensor.shape();
    let (datatype, bytes) = match tensor.elements() {
        Elements::Plain { datatype, bytes } => (*datatype, bytes),
        Elements::Text(elements) => return strings::to_value(shape, elements).map(SessionInputValue::Owned),
    };
    match datatype {
        DataType::Bool => to_bool(shape, bytes),
        DataType::Uint8 => lend::<u8>(shape, bytes),
        DataType::Uint16 => lend::<u16>(shape, bytes),
        DataType::Uint32 => lend::<u32>(shape, bytes),
        DataType::Uint64 => lend::<u64>(shape, bytes),
        DataType::Int8 => lend::<i8>(shape, bytes),
        DataType::Int16 => lend::<i16>(shape, bytes),
        DataType::Int32 => lend::<i32>(shape, bytes),
        DataType::Int64 => lend::<i64>(shape, bytes),
        DataType::Fp16 => lend::<f16>(shape, bytes),
        DataType::Bf16 => lend::<bf16>(shape, bytes),
        DataType::Fp32 => lend::<f32>(shape, bytes),
        DataType::Fp64 => lend::<f64>(shape, bytes),
        DataType::Bytes => Err(ort::Error::new("BYTES elements cannot be of fixed size")),
    }
}

fn lend<'a, T>(shape: &'a Shape, bytes: &'a [u8]) -> ort::Result<SessionInputValue<'a>>
where
    T: PrimitiveTensorElementType + AnyBitPattern + NoUninit + std::fmt::Debug,
{
    match bytemuck::try_cast_slice::<u8, T>(bytes) {
        Ok(elements) => Ok(TensorRef::from_array_view((shape.dimensions(), elements))?.into()),
        Err(_) => Ok(OrtTensor::from_array((shape.dimensions(), bytemuck::pod_collect_to_vec::<u8, T>(bytes)))?.into()),
    }
}

/// Bytes other than 0 and 1 are not a `bool`: they are refused, as ONNX Runtime would read them.
fn to_bool<'a>(shape: &'a Shape, bytes: &'a [u8]) -> ort::Result<SessionInputValue<'a>> {
    let elements: &[bool] = bytemuck::checked::try_cast_slice(bytes)
        .map_err(|_| ort::Error::new_with_code(ort::ErrorCode::InvalidArgument, "a BOOL element is neither 0 nor 1"))?;
    Ok(TensorRef::from_array_view((shape.dimensions(), elements))?.into())
}

/// A produced value as a tensor of the domain.
pub(super) fn from_value(name: &str, value: &DynValue) -> Result<Tensor, EngineError> {
    let failed = |error: &dyn std::fmt::Display| EngineError::Failed(format!("output '{name}': {error}"));
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(failed(&"is not a tensor"));
    };
    let shape = Shape::new(shape.to_vec()).map_err(|error| failed(&error))?;
    let tensor = match ty {
        TensorElementType::String => {
            let elements = strings::from_value(value, shape.elements()).map_err(|error| failed(&error))?;
            Tensor::text(name, shape, elements)
        }
        element => {
            let (datatype, bytes) = copy(*element, value).map_err(|error| failed(&error))?;
            Tensor::plain(name, datatype, shape, bytes)
        }
    };
    tensor.map_err(|error| failed(&error))
}

fn copy(element: TensorElementType, value: &DynValue) -> ort::Result<(DataType, Bytes)> {
    Ok(match element {
        TensorElementType::Bool => (DataType::Bool, bytes_of::<bool>(value)?),
        TensorElementType::Uint8 => (DataType::Uint8, bytes_of::<u8>(value)?),
        TensorElementType::Uint16 => (DataType::Uint16, bytes_of::<u16>(value)?),
        TensorElementType::Uint32 => (DataType::Uint32, bytes_of::<u32>(value)?),
        TensorElementType::Uint64 => (DataType::Uint64, bytes_of::<u64>(value)?),
        TensorElementType::Int8 => (DataType::Int8, bytes_of::<i8>(value)?),
        TensorElementType::Int16 => (DataType::Int16, bytes_of::<i16>(value)?),
        TensorElementType::Int32 => (DataType::Int32, bytes_of::<i32>(value)?),
        TensorElementType::Int64 => (DataType::Int64, bytes_of::<i64>(value)?),
        TensorElementType::Float16 => (DataType::Fp16, bytes_of::<f16>(value)?),
        TensorElementType::Bfloat16 => (DataType::Bf16, bytes_of::<bf16>(value)?),
        TensorElementType::Float32 => (DataType::Fp32, bytes_of::<f32>(value)?),
        TensorElementType::Float64 => (DataType::Fp64, bytes_of::<f64>(value)?),
        other => return Err(ort::Error::new(format!("element type {other} has no form on the wire"))),
    })
}

fn bytes_of<T>(value: &DynValue) -> ort::Result<Bytes>
where
    T: PrimitiveTensorElementType + NoUninit + CheckedBitPattern,
{
    let (_, elements) = value.try_extract_tensor::<T>()?;
    Ok(Bytes::copy_from_slice(bytemuck::cast_slice(elements)))
}
