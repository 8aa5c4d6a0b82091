//! String tensors, through the C API: the elements may hold any bytes, NUL and invalid UTF-8
//! included, which the safe functions of `ort` do not allow.
//!
//! The argument for the `unsafe` code, the same for every call: the value
//! pointer comes from a live `ort` value that is borrowed for the whole call and is a string
//! tensor of `elements` elements; every index is below that number; every buffer is used only
//! within the length that was agreed with ONNX Runtime in the same step.
#![allow(unsafe_code, reason = "see above")]

use std::ptr;

use bytes::Bytes;
use ort::{
    AsPointer,
    memory::Allocator,
    ortsys,
    value::{DynTensor, DynValue, TensorElementType},
};

use crate::domain::Shape;

/// A string tensor with these elements.
pub(super) fn to_value(shape: &Shape, elements: &[Bytes]) -> ort::Result<DynValue> {
    if elements.len() != shape.elements() {
        return Err(ort::Error::new("the elements do not fill the shape"));
    }
    let mut tensor = DynTensor::new(&Allocator::default(), TensorElementType::String, shape.dimensions().to_vec())?;
    for (index, element) in elements.iter().enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: `tensor` is a string tensor that holds `elements.len()` elements (checked above).
        ortsys![unsafe GetResizedStringTensorElementBuffer(tensor.ptr_mut(), index, element.len(), &raw mut buffer)?];
        if !element.is_empty() {
            // SAFETY: on success `buffer` points to `element.len()` bytes owned by the tensor,
            // which nothing else refers to.
            unsafe { ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast::<u8>(), element.len()) };
        }
    }
    Ok(tensor.into_dyn())
}

/// The elements of a string tensor that holds `count` elements.
pub(super) fn from_value(value: &DynValue, count: usize) -> ort::Result<Vec<Bytes>> {
    let mut elements = Vec::with_capacity(count);
    for index in 0..count {
        let mut length = 0;
        // SAFETY: `value` is a string tensor with `count` elements; `length` outlives the call.
        ortsys![unsafe GetStringTensorElementLength(value.ptr(), index, &raw mut length)?];
        let mut element = vec![0_u8; length];
        // SAFETY: `element` has exactly `length` writable bytes.
        ortsys![unsafe GetStringTensorElement(value.ptr(), length, index, element.as_mut_ptr().cast())?];
        elements.push(element.into());
    }
    Ok(elements)
}
