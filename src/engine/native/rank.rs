//! Whether a model declares a shape for an input or output at all, through the C API: `ort` shows
//! an undeclared shape as that of a scalar.
//!
//! The argument for the `unsafe` code: the session is borrowed for the whole call, so its pointer
//! is valid; each pointer that ONNX Runtime hands out is used only after the call that fills it
//! has succeeded, and before `Release`.
use std::ptr;

use ort::{AsPointer, ortsys, session::Session};

/// Which of a session's values is meant, by its place among those of its kind.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) enum Place {
    Input(usize),
    OverridableInitializer(usize),
    Output(usize),
}

/// False for a tensor of any number of dimensions.
pub(in crate::engine) fn has_shape(session: &Session, place: Place) -> ort::Result<bool> {
    let mut kind = ptr::null_mut();
    // SAFETY: see above. On success `kind` is ours to release.
    match place {
        Place::Input(index) => ortsys![unsafe SessionGetInputTypeInfo(session.ptr(), index, &raw mut kind)?],
        Place::OverridableInitializer(index) => {
            ortsys![unsafe SessionGetOverridableInitializerTypeInfo(session.ptr(), index, &raw mut kind)?];
        }
        Place::Output(index) => ortsys![unsafe SessionGetOutputTypeInfo(session.ptr(), index, &raw mut kind)?],
    }
    let mut tensor = ptr::null();
    // SAFETY: `kind` is valid. `tensor` becomes a part of it, or null when it is no tensor.
    let outcome = (|| {
        ortsys![unsafe CastTypeInfoToTensorInfo(kind, &raw mut tensor)?];
        Ok(tensor.is_null() || ortsys![unsafe TensorTypeAndShape_HasShape(tensor)])
    })();
    // SAFETY: `kind` is valid, and neither it nor its part `tensor` is used from here on.
    ortsys![unsafe ReleaseTypeInfo(kind)];
    outcome
}
