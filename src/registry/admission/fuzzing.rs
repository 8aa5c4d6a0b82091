//! The scanners of ONNX models as a function of bytes: see [`crate::fuzzing`].

use prost::Message;

use super::{external::external_files, listing::Listing, zipmap};
use crate::proto::onnx::ModelProto;

/// `model.onnx`. A model without its maps is a model, and names the same files.
pub(crate) fn onnx(bytes: &[u8]) {
    let empty = Listing::default();
    let external = external_files(bytes, "", &empty);
    if let Some(flat) = zipmap::flatten(bytes) {
        assert!(ModelProto::decode(flat.as_slice()).is_ok());
        assert_eq!(external_files(&flat, "", &empty), external);
    }
}
