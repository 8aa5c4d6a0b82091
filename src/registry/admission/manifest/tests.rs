//! Manifests that are right, and every way in which they are not. The signatures are those of
//! `openssl`, where it is installed.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::*;
use crate::registry::admission::digest::DigestCache;

struct Version {
    root: tempfile::TempDir,
}

impl Version {
    fn new() -> Self {
        let version = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(version.path().join("golden")).unwrap();
        version.write("model.onnx", b"abc");
        version.write("golden/a.json", b"{}");
        version
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("fraud/4")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).unwrap();
    }

    fn write_manifest(&self, more: &str) {
        let listing = Listing::of(&self.path()).unwrap();
        let digests = DigestCache::default().of(&listing).unwrap();
        let files = digests.iter().map(|(name, digest)| format!("\"{name}\": \"{}\"", digest::in_words(digest)));
        let files = files.collect::<Vec<_>>().join(", ");
        self.write(MANIFEST, format!("{{\"files\": {{{files}}}{more}}}").as_bytes());
    }

    fn check(&self, policy: &SignaturePolicy) -> Result<String, String> {
        let listing = Listing::of(&self.path()).unwrap();
        let digests = DigestCache::default().of(&listing).unwrap();
        check(&listing, &digests, policy).map_err(|faults| faults.reasons.join("; "))
    }

    fn openssl(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("openssl");
        let command = command.args(arguments).current_dir(self.root.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// A key pair; the public half of it.
    fn key(&self, name: &str) -> Option<SigningKey> {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        let is_made = self.openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private])
            && self.openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        is_made.then(|| SigningKey::read(&self.root.path().join(public)).unwrap())
    }

    fn sign(&self, key: &str) {
        let (key, manifest) = (format!("{key}.pem"), "fraud/4/manifest.json");
        let signature = "fraud/4/manifest.json.sig";
        assert!(
            self.openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", manifest, "-out", signature]),
            "openssl made keys but no signature"
        );
    }
}

fn open() -> SignaturePolicy {
    SignaturePolicy::default()
}

#[test]
fn manifest_is_optional_and_must_be_true() {
    let version = Version::new();
    assert_eq!(version.check(&open()).unwrap(), "2 files, no manifest.json");
    version.write_manifest(", \"model\": \"fraud\", \"version\": 4, \"annotations\": {\"commit\": \"1a2b\"}");
    assert_eq!(version.check(&open()).unwrap(), "3 files as manifest.json says, not signed");
}

#[test]
fn every_difference_is_told() {
    let version = Version::new();
    version.write("gone", b"x");
    version.write_manifest(", \"model\": \"other\", \"version\": 5");
    version.write("model.onnx", b"abd");
    version.write("extra", b"x");
    fs::remove_file(version.path().join("gone")).unwrap();
    let faults = version.check(&open()).unwrap_err();
    for words in [
        "is of version 5, not of 4",
        "is of model 'other', not of 'fraud'",
        "gone is missing",
        "model.onnx was changed: it has sha256:a52d",
        "says sha256:ba78",
        "extra is not named",
    ] {
        assert!(faults.contains(words), "{words}: {faults}");
    }
}

#[test]
fn manifest_that_cannot_be_read_is_a_fault() {
    let version = Version::new();
    for (text, words) in [
        ("{", "EOF"),
        ("{}", "files"),
        ("{\"files\": {}, \"file\": 1}", "unknown field"),
        ("{\"files\": {\"model.onnx\": \"md5\"}}", "no SHA-256"),
    ] {
        version.write(MANIFEST, text.as_bytes());
        assert!(version.check(&open()).unwrap_err().contains(words), "{text}");
    }
}

#[test]
fn signature_can_be_required() {
    let version = Version::new();
    let required = SignaturePolicy { is_required: true, ..open() };
    assert!(version.check(&required).unwrap_err().contains("manifest.json is missing"));
    version.write_manifest("");
    assert!(version.check(&required).unwrap_err().contains("manifest.json.sig is missing"));
}

#[test]
fn signature_of_openssl_is_checked_against_every_key() {
    let version = Version::new();
    let (Some(ours), Some(theirs)) = (version.key("ours"), version.key("theirs")) else {
        eprintln!("openssl with Ed25519 is not installed: its signatures are not tried");
        return;
    };
    version.write_manifest("");
    version.sign("ours");
    assert!(version.check(&open()).unwrap().contains("signature not checked"));
    let both = SignaturePolicy { keys: vec![theirs.clone(), ours], is_required: true };
    assert!(version.check(&both).unwrap().ends_with("ours.pub"), "{:?}", version.check(&both));
    let other = SignaturePolicy { keys: vec![theirs], is_required: false };
    assert!(version.check(&other).unwrap_err().contains("not the signature of manifest.json by any of"));
    version.write_manifest(" ");
    assert!(version.check(&both).unwrap_err().contains("not the signature"), "another manifest");
    version.write(SIGNATURE, b"short");
    assert!(version.check(&both).unwrap_err().contains("5 bytes, not 64"));
}

#[test]
fn file_without_a_key_is_no_key() {
    let version = Version::new();
    version.write("key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    assert!(SigningKey::read(&version.path().join("key")).unwrap_err().contains("no Ed25519 public key"));
    assert!(SigningKey::read(&version.path().join("none")).unwrap_err().contains("cannot read the key"));
}
