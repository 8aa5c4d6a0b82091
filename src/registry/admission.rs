//! What a version must pass before it is ready: read, contained, loadable, its profile fitting.
//! The same steps serve the gateway and `tidegate check`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    declared, disk::MODEL_FILE, external::external_files, facts::COLUMNS_KEY, warmup::warm_up_samples, zipmap,
};
use crate::{
    config::{ModelConfig, ModelConfigError},
    domain::{Dim, Signature, TensorSpec},
    engine::{EngineOptions, Model, ModelFile, OnnxModel, Runtime},
    monitor::{ColumnNames, Profile},
};

/// A version that passed: loaded, not yet tried out.
pub struct Admitted {
    pub model: OnnxModel,
    /// `sha256:` and the hex digest of `model.onnx`.
    pub digest: String,
    /// Bytes of `model.onnx` and of the files it refers to.
    pub memory_bytes: u64,
    pub profile: Option<Profile>,
}

/// Why a version cannot be served: everything found, in words for an operator.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Refusal(pub Vec<String>);

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self(vec![reason])
    }
}

/// Admits the version in `directory`. Blocks: reads files, loads and runs the model.
pub fn admit(
    runtime: &Runtime,
    options: EngineOptions,
    config: &Result<ModelConfig, ModelConfigError>,
    directory: &Path,
) -> Result<Admitted, Refusal> {
    let mut faults = Vec::new();
    if let Err(error) = config {
        faults.push(error.to_string());
    }
    let profile = read_profile(directory).unwrap_or_else(|error| {
        faults.push(error);
        None
    });
    let loaded = load(runtime, options, config.as_ref().ok(), directory);
    let (model, digest, memory_bytes) = match loaded {
        Ok(loaded) => loaded,
        Err(Refusal(reasons)) => {
            faults.extend(reasons);
            return Err(Refusal(faults));
        }
    };
    if let Ok(config) = config {
        let named = columns(config, model.metadata(), model.signature());
        faults.extend(named.err().unwrap_or_default());
        let triton = config.triton.as_ref();
        faults.extend(triton.into_iter().flat_map(|declared| declared::faults(declared, model.signature())));
    }
    if let Some(profile) = &profile {
        faults.extend(profile.fit(model.signature()).into_iter().map(|fault| format!("profile.json: {fault}")));
    }
    if !faults.is_empty() {
        return Err(Refusal(faults));
    }
    if let Ok(config) = config {
        warm_up_samples(&model, config, directory).map_err(Refusal)?;
    }
    Ok(Admitted { model, digest, memory_bytes, profile })
}

fn load(
    runtime: &Runtime,
    options: EngineOptions,
    config: Option<&ModelConfig>,
    directory: &Path,
) -> Result<(OnnxModel, String, u64), Refusal> {
    let named = config.and_then(|config| config.triton.as_ref()?.model_file.as_deref());
    let model_file = named.unwrap_or(MODEL_FILE);
    let path = directory.join(model_file);
    let bytes = read_model(&path, model_file)?;
    let external = external_files(&bytes, directory).map_err(Refusal)?;
    let sizes = external.iter().map(|file| fs::metadata(file).map_or(0, |metadata| metadata.len()));
    let memory_bytes = bytes.len() as u64 + sizes.sum::<u64>();
    let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
    // A model in one file is loaded from the bytes that were checked, so that nobody can swap
    // the file in between; one with weights beside it must be opened by its path.
    let flat = if external.is_empty() { zipmap::flatten(&bytes) } else { None };
    let file = match &flat {
        Some(flat) => ModelFile::Bytes(flat),
        None if external.is_empty() => ModelFile::Bytes(&bytes),
        None => ModelFile::Path(&path),
    };
    let model = runtime.open(&file, options).map_err(|error| Refusal::from(format!("{model_file}: {error}")))?;
    Ok((model, digest, memory_bytes))
}

/// Opens the version in `directory` without its profile: for building one.
pub fn open_version(
    runtime: &Runtime,
    options: EngineOptions,
    config: &ModelConfig,
    directory: &Path,
) -> Result<OnnxModel, Refusal> {
    load(runtime, options, Some(config), directory).map(|(model, ..)| model)
}

fn read_model(path: &Path, name: &str) -> Result<Vec<u8>, Refusal> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(format!("{name} is not a file").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(format!("{name} is missing").into()),
        Err(error) => return Err(format!("{name}: {error}").into()),
    }
    fs::read(path).map_err(|error| format!("{name}: {error}").into())
}

fn read_profile(directory: &Path) -> Result<Option<Profile>, String> {
    match fs::read(directory.join("profile.json")) {
        Ok(bytes) => Profile::parse(&bytes).map(Some).map_err(|error| format!("profile.json: {error}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("profile.json: {error}")),
    }
}

/// The names of tensor columns: from `model.toml`, otherwise from the model's own metadata.
pub fn columns(
    config: &ModelConfig,
    metadata: &BTreeMap<String, String>,
    signature: &Signature,
) -> Result<ColumnNames, Vec<String>> {
    let mut names = ColumnNames::default();
    let mut faults = Vec::new();
    for (key, value) in metadata {
        let Some(tensor) = key.strip_prefix(COLUMNS_KEY) else { continue };
        match serde_json::from_str(value) {
            Ok(list) => drop(names.insert(tensor.into(), list)),
            Err(error) => faults.push(format!("metadata {key}: not a JSON list of names: {error}")),
        }
    }
    names.extend(config.columns.clone());
    for (tensor, list) in &names {
        match signature.input(tensor).or_else(|| signature.output(tensor)) {
            None => faults.push(format!("columns: the model has no tensor '{tensor}'")),
            Some(spec) => faults.extend(column_fault(spec, list)),
        }
    }
    if faults.is_empty() { Ok(names) } else { Err(faults) }
}

fn column_fault(spec: &TensorSpec, list: &[String]) -> Option<String> {
    let rows = usize::from(spec.shape != [Dim::Unranked]);
    let width: Option<u64> = spec
        .shape
        .iter()
        .skip(rows)
        .map(|dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Any | Dim::Unranked => None,
        })
        .product();
    let fits = width.is_none_or(|width| width == list.len() as u64);
    (!fits).then(|| {
        format!("columns: tensor '{}' has {} columns, {} are named", spec.name, width.unwrap_or(0), list.len())
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The directory of a version.
pub(super) fn version_directory(model: &Path, version: crate::domain::Version) -> PathBuf {
    model.join(version.to_string())
}
