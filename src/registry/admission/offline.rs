//! A version that is opened without being admitted: to build its profile, or to compare with it.

use std::path::{Path, PathBuf};

use super::{OpenError, Opened, RequestDecoder, complete, open, samples, see};
use crate::{
    config::ModelConfig,
    engine::{EngineOptions, OnnxModel, Runtime},
};

/// Opens the version in `directory` without its profile: for building one. The shapes of its outputs are those that runs
/// on made-up rows or golden requests, read by `decode`, show.
///
/// # Errors
/// Everything that is wrong with its files, in words for an operator.
pub fn open_version(
    runtime: &Runtime,
    options: EngineOptions,
    config: &ModelConfig,
    directory: &Path,
    link_roots: &[PathBuf],
    decode: RequestDecoder,
) -> Result<OnnxModel, Refusal> {
    let parts = complete::files(directory, link_roots, Some(config));
    let parts = parts.map_err(|faults| Refusal(faults.reasons))?;
    match open(runtime, options, &parts, Some(config)) {
        Ok(Opened { mut model, .. }) => {
            see(&mut model, &samples::of_files(&parts.listing, decode));
            Ok(model)
        }
        Err(OpenError::Outside(faults)) => Err(Refusal(faults)),
        Err(OpenError::Faults(faults)) => Err(Refusal(faults.reasons)),
    }
}

/// Why a version cannot be used: everything found, in words for an operator.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refusal(pub Vec<String>);
