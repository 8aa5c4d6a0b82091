//! The files of a version, as they are before anything in them is believed.
//!
//! Only plain files that lie in the version's directory are ever opened. A repository may be
//! filled by a program that unpacks archives of strangers, and an archive can hold links.
//!
//! - A symbolic link may lead to another place in the same directory, and to the directories of `admission.link_roots` (a cache
//!   of Hugging Face keeps its files as links to others), nowhere else. Where a file really lies is asked of the system once it
//!   is open, so that no link can be exchanged between the look and the reading.
//! - A file with several names (hard links) may have them in the directory of the same model: who
//!   writes one version of a model may as well write the others, and deploy tools share equal
//!   files between versions this way. A name elsewhere means that the file may be somebody
//!   else's (CVE-2026-34446); `admission.allow_hard_links` permits it.
//! - What is neither a file nor a directory (a pipe, a socket, a device) is refused unread.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::report::Faults;

/// A file at one moment. While it stays the same, so do the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Print {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// In nanoseconds since 1970, as all times here.
    pub(super) modified: i128,
    /// Set by the system at every change, also of the other times.
    pub(super) changed: i128,
}

impl Print {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The plain files of a version's directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The directory, links resolved.
    pub(super) root: PathBuf,
    /// By their path in the directory, written with `/`.
    pub(super) files: BTreeMap<String, Print>,
    /// What is there and must not be.
    pub(super) faults: Vec<String>,
    /// Where files really lie that links out of the directory lead to, by their names in `files`.
    pub(super) links: BTreeMap<String, PathBuf>,
    /// Directories outside that links may lead to, links resolved.
    roots: Vec<PathBuf>,
    /// Files with several names, by device and inode.
    hard_links: BTreeMap<(u64, u64), HardLink>,
}

/// A file with several names.
#[derive(Debug)]
struct HardLink {
    /// One of them, in the version.
    name: String,
    /// How many of them are in the version.
    here: u64,
    everywhere: u64,
}

/// Directories within directories: more is nobody's model.
const MAX_DEPTH: usize = 16;

/// Bytes that are read at once. Many kernels let nobody else on the processor within a call, however urgent: one
/// that reads a whole model would hold requests up for milliseconds.
const PIECE: usize = 64 << 10;

impl Listing {
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        Self::with_links(directory, &[])
    }

    /// Of a directory whose links may lead to these directories too.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn with_links(directory: &Path, roots: &[PathBuf]) -> io::Result<Self> {
        let root = directory.canonicalize()?;
        let mut listing = Self { root: root.clone(), roots: roots.to_vec(), ..Self::default() };
        listing.add(&root, "", 0, false)?;
        Ok(listing)
    }

    /// `is_outside`: the directory is one that a link leads to.
    fn add(&mut self, directory: &Path, within: &str, depth: usize, is_outside: bool) -> io::Result<()> {
        if depth > MAX_DEPTH {
            self.faults.push(format!("{within} lies deeper than {MAX_DEPTH} directories"));
            return Ok(());
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(|name| format!("{within}{name}")) else {
                self.faults.push(format!("the name '{}' is not UTF-8", entry.path().display()));
                continue;
            };
            let metadata = entry.metadata()?;
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.add(&entry.path(), &format!("{name}/"), depth + 1, is_outside)?;
            } else if kind.is_file() {
                let print = Print::of(&metadata);
                if is_outside {
                    self.links.insert(name.clone(), entry.path());
                } else if metadata.nlink() > 1 {
                    let link = HardLink { name: name.clone(), here: 0, everywhere: metadata.nlink() };
                    self.hard_links.entry((print.device, print.inode)).or_insert(link).here += 1;
                }
                self.files.insert(name, print);
            } else if kind.is_symlink() {
                self.add_link(name, &entry.path(), depth, is_outside)?;
            } else {
                self.faults.push(format!("{name} is not a plain file"));
            }
        }
        Ok(())
    }

    fn add_link(&mut self, name: String, path: &Path, depth: usize, is_outside: bool) -> io::Result<()> {
        let target = path.canonicalize().and_then(|target| Ok((fs::metadata(&target)?, target)));
        match target {
            Ok((metadata, target)) if !target.starts_with(&self.root) => {
                if !self.may_hold(&target) {
                    self.faults.push(leads_out(&name, &target));
                } else if metadata.is_file() {
                    self.files.insert(name.clone(), Print::of(&metadata));
                    self.links.insert(name, target);
                } else if metadata.is_dir() && !is_outside {
                    self.add(&target, &format!("{name}/"), depth + 1, true)?;
                } else {
                    self.faults.push(format!("{name} is a link to what is neither a file nor, from here, a directory"));
                }
            }
            Ok((metadata, _)) if metadata.is_file() => drop(self.files.insert(name, Print::of(&metadata))),
            // Its files are listed where they are.
            Ok((metadata, _)) if metadata.is_dir() => {}
            Ok(_) => self.faults.push(format!("{name} is a link to what is not a plain file")),
            Err(error) => self.faults.push(format!("{name} is a link that leads nowhere: {error}")),
        }
        Ok(())
    }

    /// Whether links may lead there.
    fn may_hold(&self, target: &Path) -> bool {
        self.roots.iter().any(|root| target.starts_with(root))
    }

    /// The files that have a name outside the model's directory.
    pub(super) fn hard_link_faults(&self) -> Vec<String> {
        if self.hard_links.values().all(|link| link.here == link.everywhere) {
            return Vec::new();
        }
        let model = self.root.parent().unwrap_or(&self.root);
        let siblings: Vec<Self> = subdirectories(model)
            .filter(|sibling| *sibling != self.root)
            .filter_map(|sibling| Self::of(&sibling).ok())
            .collect();
        let is_foreign = |(file, link): &(&(u64, u64), &HardLink)| {
            let beside = siblings.iter().filter_map(|sibling| sibling.hard_links.get(*file));
            link.here + beside.map(|link| link.here).sum::<u64>() < link.everywhere
        };
        let foreign = self.hard_links.iter().filter(is_foreign);
        foreign
            .map(|(_, HardLink { name, .. })| {
                format!(
                    "{name} is a hard link to a file that has a name outside the model's directory: it may belong \
                     to somebody else (admission.allow_hard_links permits it)"
                )
            })
            .collect()
    }

    /// The bytes of a file as it was listed; `None` when there is none of this name.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Faults> {
        let Some(print) = self.files.get(name) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(usize::try_from(print.size).unwrap_or_default());
        self.read_pieces(name, print, |piece| bytes.extend_from_slice(piece))?;
        Ok(Some(bytes))
    }

    /// Reads a file piece by piece, and checks that it did not change meanwhile.
    pub(super) fn read_pieces(&self, name: &str, print: &Print, mut take: impl FnMut(&[u8])) -> Result<(), Faults> {
        let mut file = self.open(name, print)?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece).map_err(|error| unreadable(name, &error))? {
                0 => break,
                length => take(&piece[..length]),
            }
        }
        self.check_unchanged(name, &file)
    }

    /// Opens a file, and checks that it is still the one that was listed.
    pub(super) fn open(&self, name: &str, print: &Print) -> Result<fs::File, Faults> {
        let path = self.links.get(name).cloned().unwrap_or_else(|| self.root.join(name));
        // Should the file have become a pipe meanwhile, opening it must not wait for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let file = file.map_err(|error| unreadable(name, &error))?;
        let metadata = file.metadata().map_err(|error| unreadable(name, &error))?;
        // A link may have been exchanged on the way there: what counts is where the open file lies.
        let is_contained =
            real_path(&file, &path).is_ok_and(|real| real.starts_with(&self.root) || self.may_hold(&real));
        let is_same = metadata.is_file() && Print::of(&metadata) == *print;
        if is_same && is_contained { Ok(file) } else { Err(changed(name)) }
    }

    /// Checks that a file which has been read was not written meanwhile.
    pub(super) fn check_unchanged(&self, name: &str, file: &fs::File) -> Result<(), Faults> {
        let metadata = file.metadata().map_err(|error| unreadable(name, &error))?;
        if self.files.get(name) == Some(&Print::of(&metadata)) { Ok(()) } else { Err(changed(name)) }
    }

    /// Checks that every file is still as it was listed.
    pub(super) fn check_all_unchanged(&self) -> Result<(), Faults> {
        let now = Self::with_links(&self.root, &self.roots).map_err(|error| unreadable("the directory", &error))?;
        match self.files.iter().find(|(name, print)| now.files.get(*name) != Some(print)) {
            None => Ok(()),
            Some((name, _)) => Err(changed(name)),
        }
    }

    /// The bytes of all files.
    pub(super) fn size(&self) -> u64 {
        self.files.values().map(|print| print.size).sum()
    }
}

/// Where an open file lies, links resolved.
fn real_path(file: &fs::File, path: &Path) -> io::Result<PathBuf> {
    let known = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    // Elsewhere than on Linux the name is asked again.
    fs::read_link(known).or_else(|_| path.canonicalize())
}

/// Says which setting permits it.
fn leads_out(name: &str, target: &Path) -> String {
    let folder = target.parent().unwrap_or(target);
    // A cache of Hugging Face: the model's directory there holds `blobs` and `snapshots`.
    let root = if folder.ends_with("blobs") { folder.parent().unwrap_or(folder) } else { folder };
    format!(
        "{name} is a link that leads out of the version directory, to {}: if those files may be served, set \
         admission.link_roots = [{:?}]",
        target.display(),
        root.display().to_string()
    )
}

fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn changed(name: &str) -> Faults {
    Faults::transient(format!("{name} changed while it was read"))
}

/// A file that cannot be read: for good, or only now.
pub(super) fn unreadable(name: &str, error: &io::Error) -> Faults {
    let reason = format!("{name}: {error}");
    match error.kind() {
        // A refusal stays one until somebody mends it, which changes the file.
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Faults::lasting(reason)
        }
        // The disk, a network file system, memory; or a file that is being replaced right now.
        _ => Faults::transient(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn model() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let version = root.path().join("models/m/1");
        fs::create_dir_all(version.join("golden")).unwrap();
        fs::write(version.join("model.onnx"), b"model").unwrap();
        fs::write(version.join("golden/a.json"), b"{}").unwrap();
        (root, version)
    }

    #[test]
    fn plain_files_are_listed_and_read() {
        let (_root, version) = model();
        let listing = Listing::of(&version).unwrap();
        assert_eq!(listing.files.keys().collect::<Vec<_>>(), ["golden/a.json", "model.onnx"]);
        assert_eq!((listing.read("model.onnx").unwrap().unwrap(), listing.size()), (b"model".to_vec(), 7));
        assert!(listing.faults.is_empty() && listing.hard_link_faults().is_empty());
        assert_eq!(listing.read("other").unwrap(), None);
    }

    #[test]
    fn links_may_stay_inside_and_not_lead_out() {
        let (root, version) = model();
        fs::write(root.path().join("secret"), b"x").unwrap();
        symlink("model.onnx", version.join("inside")).unwrap();
        assert!(Listing::of(&version).unwrap().faults.is_empty());
        symlink(root.path().join("secret"), version.join("outside")).unwrap();
        symlink("../../..", version.join("above")).unwrap();
        symlink("nowhere", version.join("dangling")).unwrap();
        let listing = Listing::of(&version).unwrap();
        assert_eq!(listing.faults.len(), 3, "{:?}", listing.faults);
        assert!(listing.files.contains_key("inside") && !listing.files.contains_key("outside"));
    }

    #[test]
    fn links_may_lead_to_the_directories_that_are_named() {
        let (root, version) = model();
        let cache = root.path().join("cache/models--org--m");
        fs::create_dir_all(cache.join("blobs")).unwrap();
        fs::create_dir_all(cache.join("snapshots/abc/more")).unwrap();
        fs::write(cache.join("blobs/123"), b"weights").unwrap();
        fs::write(cache.join("snapshots/abc/more/x"), b"x").unwrap();
        fs::write(root.path().join("secret"), b"secret").unwrap();
        symlink("../../blobs/123", cache.join("snapshots/abc/data")).unwrap();
        symlink(cache.join("snapshots/abc/data"), version.join("data")).unwrap();
        symlink(cache.join("snapshots/abc"), version.join("folder")).unwrap();
        let refused = Listing::of(&version).unwrap();
        let setting = format!("admission.link_roots = [{:?}]", cache.canonicalize().unwrap().display().to_string());
        assert!(refused.faults.len() == 2 && refused.faults[0].contains(&setting), "{:?}", refused.faults);
        let roots = [cache.canonicalize().unwrap()];
        let listing = Listing::with_links(&version, &roots).unwrap();
        assert!(listing.faults.is_empty(), "{:?}", listing.faults);
        for name in ["data", "folder/data"] {
            assert_eq!(listing.read(name).unwrap().unwrap(), b"weights", "{name}");
        }
        assert_eq!(listing.read("folder/more/x").unwrap().unwrap(), b"x");
        listing.check_all_unchanged().unwrap();
        // What is reached through an allowed directory must lie in one.
        symlink(root.path().join("secret"), cache.join("snapshots/abc/out")).unwrap();
        let faults = Listing::with_links(&version, &roots).unwrap().faults;
        assert!(faults.len() == 1 && faults[0].starts_with("folder/out is a link"), "{faults:?}");
    }

    #[test]
    fn link_that_is_exchanged_after_the_look_is_not_followed() {
        let (root, version) = model();
        let (cache, secret) = (root.path().join("cache"), root.path().join("secret"));
        fs::create_dir(&cache).unwrap();
        fs::create_dir(&secret).unwrap();
        for place in [&cache, &secret] {
            fs::write(place.join("data"), b"weights").unwrap();
        }
        symlink(cache.join("data"), version.join("data")).unwrap();
        let listing = Listing::with_links(&version, &[cache.canonicalize().unwrap()]).unwrap();
        // The same file, in every respect that a look can tell, in a place that nobody allowed.
        fs::rename(cache.join("data"), secret.join("moved")).unwrap();
        symlink(secret.join("moved"), cache.join("data")).unwrap();
        let print = Print::of(&fs::metadata(secret.join("moved")).unwrap());
        assert!(listing.open("data", &print).is_err());
    }

    #[test]
    fn hard_links_may_stay_within_the_model() {
        let (root, version) = model();
        fs::hard_link(version.join("model.onnx"), version.join("again.onnx")).unwrap();
        fs::create_dir(version.with_file_name("2")).unwrap();
        fs::hard_link(version.join("model.onnx"), version.with_file_name("2").join("model.onnx")).unwrap();
        assert!(Listing::of(&version).unwrap().hard_link_faults().is_empty());
        fs::hard_link(version.join("model.onnx"), root.path().join("elsewhere")).unwrap();
        // A symbolic link is no name of the file.
        symlink("model.onnx", version.join("link")).unwrap();
        let faults = Listing::of(&version).unwrap().hard_link_faults();
        assert!(faults.len() == 1 && faults[0].contains("hard link"), "{faults:?}");
    }

    #[test]
    fn pipe_is_refused_unread() {
        let (_root, version) = model();
        let status = std::process::Command::new("mkfifo").arg(version.join("pipe")).status().unwrap();
        assert!(status.success());
        assert_eq!(Listing::of(&version).unwrap().faults, ["pipe is not a plain file"]);
    }

    #[test]
    fn large_file_is_read_in_pieces() {
        let (_root, version) = model();
        let whole: Vec<u8> = (0..3 * PIECE + 7).map(|place| u8::try_from(place % 251).unwrap()).collect();
        fs::write(version.join("weights"), &whole).unwrap();
        let listing = Listing::of(&version).unwrap();
        let (mut all, mut largest) = (Vec::new(), 0);
        let take = |piece: &[u8]| {
            largest = largest.max(piece.len());
            all.extend_from_slice(piece);
        };
        listing.read_pieces("weights", &listing.files["weights"], take).unwrap();
        assert!(all == whole && largest <= PIECE);
        assert!(listing.read("weights").unwrap().unwrap() == whole);
    }

    #[test]
    fn file_that_changes_after_the_listing_may_be_whole_later() {
        let (_root, version) = model();
        let listing = Listing::of(&version).unwrap();
        fs::write(version.join("model.onnx"), b"another").unwrap();
        assert!(listing.read("model.onnx").unwrap_err().is_transient);
        assert!(listing.check_all_unchanged().unwrap_err().is_transient);
        fs::remove_file(version.join("model.onnx")).unwrap();
        assert!(listing.read("model.onnx").unwrap_err().is_transient);
    }
}
