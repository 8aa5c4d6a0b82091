//! The digest of every file of a version, read once per change of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

use super::{
    listing::{Listing, Print},
    report::Faults,
};

/// The SHA-256 of a file.
pub(super) type FileDigest = [u8; 32];

/// Digests by the file that they are of: a version that is loaded again is not read again for them.
#[derive(Debug, Default)]
pub(super) struct DigestCache(Mutex<BTreeMap<(u64, u64), (Print, FileDigest)>>);

/// Inodes of files long gone stay until there are this many.
const MAX_CACHED: usize = 100_000;
/// A file changed this recently may change again without its times telling: systems count them in
/// steps of some milliseconds.
const TOO_FRESH: Duration = Duration::from_millis(100);

impl DigestCache {
    /// The digests of all files, by name.
    pub(super) fn of(&self, listing: &Listing) -> Result<BTreeMap<String, FileDigest>, Faults> {
        listing.files.iter().map(|(name, print)| Ok((name.clone(), self.one(listing, name, print)?))).collect()
    }

    pub(super) fn one(&self, listing: &Listing, name: &str, print: &Print) -> Result<FileDigest, Faults> {
        let key = (print.device, print.inode);
        if let Some((_, digest)) = self.lock().get(&key).filter(|(known, _)| known == print) {
            return Ok(*digest);
        }
        let digest = read(listing, name, print)?;
        if is_settled(print) {
            let mut known = self.lock();
            if known.len() >= MAX_CACHED {
                known.clear();
            }
            known.insert(key, (*print, digest));
        }
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u64, u64), (Print, FileDigest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(listing: &Listing, name: &str, print: &Print) -> Result<FileDigest, Faults> {
    let mut hasher = Sha256::new();
    listing.read_pieces(name, print, |piece| hasher.update(piece))?;
    Ok(hasher.finalize().into())
}

fn is_settled(print: &Print) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let age = i128::try_from(now).unwrap_or(i128::MAX) - print.changed.max(print.modified);
    age >= i128::try_from(TOO_FRESH.as_nanos()).unwrap_or(i128::MAX)
}

/// Tells a model apart by its file and those of its weights, in words: the digest of its file where it has no others,
/// otherwise a digest of the digests of all of them and their names. `None` when one of them is not among `digests`.
pub(super) fn of_model(
    model_file: &str,
    external: &BTreeSet<String>,
    digests: &BTreeMap<String, FileDigest>,
) -> Option<String> {
    let model = digests.get(model_file)?;
    if external.is_empty() {
        return Some(in_words(model));
    }
    let mut hasher = Sha256::new_with_prefix(model);
    for name in external {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(digests.get(name)?);
    }
    Some(in_words(&hasher.finalize().into()))
}

/// `sha256:` and the digest in hex.
pub(super) fn in_words(digest: &FileDigest) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest in `text`, with or without `sha256:`.
pub(super) fn parse(text: &str) -> Option<FileDigest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, place) in digest.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digest_is_that_of_the_bytes_and_follows_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("model.onnx");
        let cache = DigestCache::default();
        let digest = || in_words(&cache.of(&Listing::of(directory.path()).unwrap()).unwrap()["model.onnx"]);
        fs::write(&file, b"abc").unwrap();
        assert_eq!(digest(), ABC);
        // The same size, at once: too fresh to be remembered.
        fs::write(&file, b"abd").unwrap();
        assert_ne!(digest(), ABC);
        assert_eq!(parse(ABC), parse(&ABC["sha256:".len()..]));
        assert_eq!((parse("sha256:ba78"), parse(&"g".repeat(64))), (None, None));
    }

    #[test]
    fn model_is_told_apart_by_its_weights_too_and_by_no_other_file() {
        let digests = |weights: u8, notes: u8| -> BTreeMap<String, FileDigest> {
            let files = [("model.onnx", 1), ("a.bin", weights), ("b.bin", 3), ("notes.txt", notes)];
            files.map(|(name, byte)| (name.to_owned(), [byte; 32])).into()
        };
        let of = |external: &[&str], weights, notes| {
            let external = external.iter().map(|name| (*name).to_owned()).collect();
            of_model("model.onnx", &external, &digests(weights, notes))
        };
        assert_eq!(of(&[], 2, 4), Some(in_words(&[1; 32])), "the digest of the file alone, as it always was");
        let both = of(&["a.bin", "b.bin"], 2, 4);
        assert_eq!(both, of(&["b.bin", "a.bin"], 2, 5));
        let others = [of(&["a.bin", "b.bin"], 9, 4), of(&["a.bin"], 2, 4), of(&["b.bin"], 2, 4), of(&[], 2, 4)];
        assert!(both.is_some() && others.iter().all(|other| other.is_some() && *other != both), "{others:?}");
        assert_eq!(of(&["c.bin"], 2, 4), None);
    }

    #[test]
    fn known_file_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("model.onnx"), b"abc").unwrap();
        let listing = Listing::of(directory.path()).unwrap();
        let cache = DigestCache::default();
        let print = listing.files["model.onnx"];
        cache.lock().insert((print.device, print.inode), (print, [7; 32]));
        assert_eq!(cache.of(&listing).unwrap()["model.onnx"], [7; 32]);
        let other = Print { modified: 0, ..print };
        cache.lock().insert((print.device, print.inode), (other, [7; 32]));
        assert_eq!(in_words(&cache.of(&listing).unwrap()["model.onnx"]), ABC);
    }
}
