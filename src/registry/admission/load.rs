//! A model's bytes, checked to refer to nothing outside, and opened. Done twice: in a worker, where
//! it may go wrong in any way, and then here.

use std::collections::BTreeSet;

use prost::Message;

use super::{external::external_files, listing::Listing, zipmap};
use crate::{
    engine::{EngineError, EngineOptions, ModelFile, OnnxModel, Runtime},
    proto::onnx::ModelProto,
};

/// The bytes of a model that may be opened.
pub(super) struct Source {
    /// With its maps as tensors.
    bytes: Vec<u8>,
    /// The files of its weights, by their names in the listing.
    pub(super) external: BTreeSet<String>,
    /// Bytes of the model and of the files that it refers to.
    pub(super) size: u64,
}

/// Why it may not be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It refers to files that it must not.
    Outside(Vec<String>),
    /// It is no model.
    Refused(String),
}

/// Checks that a model refers to files of its version only.
pub(super) fn contained(bytes: Vec<u8>, listing: &Listing) -> Result<Source, Fault> {
    let external = external_files(&bytes, listing)?;
    let sizes = external.iter().filter_map(|name| listing.files.get(name)).map(|print| print.size);
    let size = bytes.len() as u64 + sizes.sum::<u64>();
    // One of the two is enough.
    let bytes = zipmap::flatten(&bytes).unwrap_or(bytes);
    Ok(Source { bytes, external, size })
}

impl Source {
    /// The graph, for looking at it.
    pub(super) fn graph(&self) -> Option<ModelProto> {
        ModelProto::decode(&self.bytes[..]).ok()
    }

    /// A model is loaded from the bytes that were checked, so that nobody can swap the file in between. The
    /// files of its weights are opened by their names, and looked at again afterwards.
    pub(super) fn open(
        &self,
        runtime: &Runtime,
        options: EngineOptions,
        listing: &Listing,
    ) -> Result<OnnxModel, EngineError> {
        let weights = (!self.external.is_empty()).then_some(listing.root.as_path());
        runtime.open(&ModelFile { bytes: &self.bytes, weights }, options)
    }
}
