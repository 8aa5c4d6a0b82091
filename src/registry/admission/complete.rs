//! Whether a version's directory has what a version needs, in a form that can be read.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    listing::{Listing, unreadable},
    report::{Faults, Verdict},
};
use crate::{
    config::{ModelConfig, ModelConfigError},
    monitor::Profile,
    registry::{disk::MODEL_FILE, layout},
};

/// A version's files, and what was read of them.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) listing: Listing,
    /// Its name in the listing; `None` when it is not there.
    pub(super) model_file: Option<String>,
    pub(super) profile: Option<Profile>,
}

/// Looks at all of it. What can be told of the other steps is told though something is missing.
pub(super) fn check(
    directory: &Path,
    link_roots: &[PathBuf],
    config: &Result<ModelConfig, ModelConfigError>,
) -> Verdict<Parts> {
    let listing = match list(directory, link_roots) {
        Ok(listing) => listing,
        Err(faults) => return Verdict::failed(faults),
    };
    let mut faults = Faults::default();
    if let Err(error) = config {
        faults.add(Faults::lasting(error.to_string()));
    }
    let model_file = model_file(&listing, config.as_ref().ok()).map_err(|fault| faults.add(fault)).ok();
    let profile = read_profile(&listing).map_err(|fault| faults.add(fault)).ok().flatten();
    let parts = Parts { listing, model_file, profile };
    if faults.reasons.is_empty() {
        return Verdict::passed(parts, None);
    }
    Verdict { value: Some(parts), ..Verdict::failed(faults) }
}

/// The files alone.
pub(super) fn files(directory: &Path, link_roots: &[PathBuf], config: Option<&ModelConfig>) -> Result<Parts, Faults> {
    let listing = list(directory, link_roots)?;
    let model_file = Some(model_file(&listing, config)?);
    Ok(Parts { listing, model_file, profile: None })
}

fn list(directory: &Path, link_roots: &[PathBuf]) -> Result<Listing, Faults> {
    Listing::with_links(directory, link_roots).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Faults::transient("the directory is gone"),
        _ => unreadable("the directory", &error),
    })
}

fn model_file(listing: &Listing, config: Option<&ModelConfig>) -> Result<String, Faults> {
    let name = config.and_then(|config| config.triton.as_ref()?.model_file.as_deref()).unwrap_or(MODEL_FILE);
    if listing.files.contains_key(name) {
        return Ok(name.to_owned());
    }
    // Triton's form: a directory of that name, which holds the model and its weights.
    let inner = format!("{name}/{name}");
    if listing.files.contains_key(&inner) {
        return Ok(inner);
    }
    let is_model = |path: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let mut inside = listing.files.keys().filter(|path| is_model(path) && layout::is_onnx(path));
    if let Some(other) = inside.next() {
        return Err(Faults::lasting(format!("{inner} is missing: {other} is there: rename it to {inner}")));
    }
    // A link that leads elsewhere is told of by the step for that.
    let is_there = std::fs::symlink_metadata(listing.root.join(name)).is_ok();
    Err(Faults::lasting(if is_there {
        format!("{name} is not a file")
    } else {
        layout::missing(name, listing.files.keys().map(String::as_str))
    }))
}

fn read_profile(listing: &Listing) -> Result<Option<Profile>, Faults> {
    let Some(bytes) = listing.read("profile.json")? else { return Ok(None) };
    Profile::parse(&bytes).map(Some).map_err(|error| Faults::lasting(format!("profile.json: {error}")))
}
