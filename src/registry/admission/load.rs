//! A model's bytes, checked to refer to nothing outside, and opened. Done twice: in a worker, where
//! it may go wrong in any way, and then here.

use super::{external::external_files, listing::Listing, zipmap};
use crate::engine::{EngineError, EngineOptions, ModelFile, OnnxModel, Runtime};

/// The bytes of a model that may be opened.
pub(super) struct Source {
    bytes: Vec<u8>,
    /// The same with its maps as tensors.
    flat: Option<Vec<u8>>,
    /// It has weights in other files.
    is_spread: bool,
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
    let flat = if external.is_empty() { zipmap::flatten(&bytes) } else { None };
    Ok(Source { bytes, flat, is_spread: !external.is_empty(), size })
}

impl Source {
    /// A model in one file is loaded from the bytes that were checked, so that nobody can swap the
    /// file in between; one with weights beside it must be opened by its path, and the files are
    /// looked at again afterwards.
    pub(super) fn open(
        &self,
        runtime: &Runtime,
        options: EngineOptions,
        listing: &Listing,
        model_file: &str,
    ) -> Result<OnnxModel, EngineError> {
        let path = listing.root.join(model_file);
        let file = match &self.flat {
            Some(flat) => ModelFile::Bytes(flat),
            None if !self.is_spread => ModelFile::Bytes(&self.bytes),
            None => ModelFile::Path(&path),
        };
        runtime.open(&file, options)
    }
}
