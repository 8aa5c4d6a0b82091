//! `manifest.json`: which files a version has, with their digests; and its signature.
//!
//! The manifest names every file of the version but itself and its signature. So whoever signs it
//! signs the whole version: a file that is missing, changed or added is a fault. `model` and
//! `version` may be named too; then the signed files cannot be published in another's place.
//!
//! The signature (`manifest.json.sig`) is a plain Ed25519 signature over the bytes of the
//! manifest (RFC 8032, 64 bytes), as `openssl pkeyutl -sign -rawin` writes it.

use std::{collections::BTreeMap, path::Path};

use ed25519_dalek::{Signature, VerifyingKey, pkcs8::DecodePublicKey};
use serde::Deserialize;

use super::{
    digest::{self, FileDigest},
    listing::Listing,
    report::Faults,
};

const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.json.sig";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: BTreeMap<String, String>,
    model: Option<String>,
    version: Option<u64>,
    /// Whatever its author wants to be signed with the files.
    #[serde(default, rename = "annotations")]
    _annotations: serde_json::Value,
}

/// A public key whose signatures count, with the name it goes by.
#[derive(Debug, Clone)]
pub struct SigningKey {
    name: String,
    key: VerifyingKey,
}

impl SigningKey {
    /// The Ed25519 public key in a PEM file.
    ///
    /// # Errors
    /// In words: the file cannot be read, or holds no such key.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the key {name}: {error}"))?;
        let key = VerifyingKey::from_public_key_pem(&text)
            .map_err(|error| format!("{name} holds no Ed25519 public key in PEM form: {error}"))?;
        Ok(Self { name, key })
    }
}

/// Which signatures count, and whether there must be one.
#[derive(Debug, Clone, Default)]
pub struct SignaturePolicy {
    pub keys: Vec<SigningKey>,
    pub is_required: bool,
}

/// Holds the files against the manifest, and the manifest against its signature. Says what was
/// checked.
pub(super) fn check(
    listing: &Listing,
    digests: &BTreeMap<String, FileDigest>,
    policy: &SignaturePolicy,
) -> Result<String, Faults> {
    let Some(bytes) = listing.read(MANIFEST)? else {
        return match (policy.is_required, listing.files.contains_key(SIGNATURE)) {
            (true, _) => Err(Faults::lasting(format!("{MANIFEST} is missing: admission.require_signature is true"))),
            (false, true) => Err(Faults::lasting(format!("{SIGNATURE} is there, {MANIFEST} is missing"))),
            (false, false) => Ok(format!("{}, no {MANIFEST}", files(digests.len()))),
        };
    };
    let mut faults = Faults::default();
    let mut signed = String::from("not signed");
    match check_signature(listing, &bytes, policy) {
        Ok(note) => signed = note,
        Err(fault) => faults = fault,
    }
    match serde_json::from_slice::<Manifest>(&bytes) {
        Ok(manifest) => faults.reasons.extend(differences(&manifest, listing, digests)),
        Err(error) => faults.reasons.push(format!("{MANIFEST}: {error}")),
    }
    if faults.reasons.is_empty() {
        return Ok(format!("{} as {MANIFEST} says, {signed}", files(digests.len())));
    }
    Err(faults)
}

fn check_signature(listing: &Listing, manifest: &[u8], policy: &SignaturePolicy) -> Result<String, Faults> {
    let Some(bytes) = listing.read(SIGNATURE)? else {
        return if policy.is_required {
            Err(Faults::lasting(format!("{SIGNATURE} is missing: admission.require_signature is true")))
        } else {
            Ok("not signed".into())
        };
    };
    if policy.keys.is_empty() {
        return Ok("its signature not checked: admission.keys names no key".into());
    }
    let signature = Signature::from_slice(&bytes).map_err(|_| {
        Faults::lasting(format!("{SIGNATURE} is no Ed25519 signature: it has {} bytes, not 64", bytes.len()))
    })?;
    // Strict: refuses keys and signatures for which a second message could be found.
    let signer = policy.keys.iter().find(|known| known.key.verify_strict(manifest, &signature).is_ok());
    signer.map(|known| format!("signed by {}", known.name)).ok_or_else(|| {
        let names: Vec<_> = policy.keys.iter().map(|known| known.name.as_str()).collect();
        Faults::lasting(format!("{SIGNATURE} is not the signature of {MANIFEST} by any of {}", names.join(", ")))
    })
}

fn differences(manifest: &Manifest, listing: &Listing, digests: &BTreeMap<String, FileDigest>) -> Vec<String> {
    let mut faults = place_faults(manifest, &listing.root);
    for (name, expected) in &manifest.files {
        let Some(wanted) = digest::parse(expected) else {
            faults.push(format!("{MANIFEST}: the digest of {name} is no SHA-256 in hex"));
            continue;
        };
        match digests.get(name) {
            None => faults.push(format!("{name} is missing: {MANIFEST} names it")),
            Some(found) if *found != wanted => {
                let (found, wanted) = (digest::in_words(found), digest::in_words(&wanted));
                faults.push(format!("{name} was changed: it has {found}, {MANIFEST} says {wanted}"));
            }
            Some(_) => {}
        }
    }
    let is_extra = |name: &&String| !manifest.files.contains_key(*name) && *name != MANIFEST && *name != SIGNATURE;
    faults.extend(digests.keys().filter(is_extra).map(|name| format!("{name} is not named by {MANIFEST}")));
    faults
}

/// A manifest of another model or version.
fn place_faults(manifest: &Manifest, root: &Path) -> Vec<String> {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let (version, model) = (name(Some(root)), name(root.parent()));
    let mut faults = Vec::new();
    if let Some(named) = manifest.version.filter(|named| version != Some(named.to_string())) {
        faults.push(format!("{MANIFEST} is of version {named}, not of {}", version.unwrap_or_default()));
    }
    if let Some(named) = manifest.model.as_ref().filter(|named| model.as_ref() != Some(named)) {
        faults.push(format!("{MANIFEST} is of model '{named}', not of '{}'", model.unwrap_or_default()));
    }
    faults
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

#[cfg(test)]
mod tests;
