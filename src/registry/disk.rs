//! The repository on disk: which models and versions are there, and whether a version has
//! stopped changing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::domain::{ModelName, Version};

/// The file that makes a directory a version, where the configuration names no other.
pub(super) const MODEL_FILE: &str = "model.onnx";

/// A version directory at one moment: compared to notice changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    /// Path within the directory, size, inode and change time of each file, sorted.
    files: Vec<(PathBuf, u64, u64, i128)>,
    /// The latest change of a file or directory, in nanoseconds since 1970. The change time, not
    /// the modification time: copying tools set the latter back.
    newest: i128,
}

impl Fingerprint {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut print = Self::default();
        print.add(directory, Path::new(""))?;
        print.files.sort();
        Ok(print)
    }

    fn add(&mut self, directory: &Path, within: &Path) -> io::Result<()> {
        self.newest = self.newest.max(changed(&fs::symlink_metadata(directory)?));
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let within = within.join(entry.file_name());
            if metadata.is_dir() {
                self.add(&entry.path(), &within)?;
            } else {
                self.newest = self.newest.max(changed(&metadata));
                self.files.push((within, metadata.len(), metadata.ino(), changed(&metadata)));
            }
        }
        Ok(())
    }

    /// True when nothing in the directory changed for `settle`.
    pub(super) fn is_settled(&self, settle: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let age = i128::try_from(now).unwrap_or(i128::MAX) - self.newest;
        age >= i128::try_from(settle.as_nanos()).unwrap_or(i128::MAX)
    }

    /// True when there is no such directory.
    pub(super) fn is_missing(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn has_model(&self) -> bool {
        // Which file it is, the configuration knows; the admission says when it is not there.
        let is_model = |path: &Path| path.components().count() == 1 && path.extension().is_some_and(|it| it == "onnx");
        self.files.iter().any(|(path, ..)| is_model(path))
    }

    /// Bytes of the files that a model is made of: all but golden requests, warm-up data and JSON.
    pub(super) fn model_bytes(&self) -> u64 {
        let is_beside = |path: &Path| {
            path.starts_with("golden") || path.starts_with("warmup") || path.extension().is_some_and(|it| it == "json")
        };
        self.files.iter().filter(|(path, ..)| !is_beside(path)).map(|(_, size, ..)| size).sum()
    }

    /// The same files, whatever the directory's own change time (a rename moves only that).
    pub(super) fn same_files(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

fn changed(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
}

/// What one reading of the repository found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) models: BTreeMap<ModelName, FoundModel>,
    /// Entries that are no models or versions, with the reason.
    pub(super) ignored: Vec<String>,
}

/// Name, size and change time of the plain files beside the versions, in order.
pub(super) type ConfigPrint = Vec<(std::ffi::OsString, u64, i128)>;

#[derive(Debug)]
pub(super) struct FoundModel {
    pub(super) directory: PathBuf,
    pub(super) versions: BTreeMap<Version, Fingerprint>,
    /// Changes when `model.toml`, `config.pbtxt` or a label file does.
    pub(super) config: Option<ConfigPrint>,
}

/// Reads the repository. What vanishes while it is read is skipped: the next reading will tell.
pub(super) fn scan(models: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for (name, directory) in directories(models)? {
        if is_hidden(&name) {
            continue;
        }
        match name.parse::<ModelName>() {
            Ok(model) => {
                let listed = scan_model(&directory, &mut found.ignored);
                if !listed.versions.is_empty() {
                    found.models.insert(model, listed);
                }
            }
            Err(error) => found.ignored.push(format!("{}: {error}", directory.display())),
        }
    }
    Ok(found)
}

fn scan_model(directory: &Path, ignored: &mut Vec<String>) -> FoundModel {
    let config = Some(config_print(directory));
    let mut versions = BTreeMap::new();
    for (name, path) in directories(directory).unwrap_or_default() {
        match name.parse::<Version>() {
            Ok(version) => {
                if let Ok(print) = Fingerprint::of(&path) {
                    versions.insert(version, print);
                }
            }
            Err(_) => ignored.extend(stray(&name).map(|why| format!("{}: {why}", path.display()))),
        }
    }
    FoundModel { directory: directory.into(), versions, config }
}

/// Why a directory of this name beside versions is ignored; `None` when it is a version or nobody's mistake: what is
/// hidden, Python's caches, and data of warm-up requests.
#[must_use]
pub fn stray(name: &str) -> Option<&'static str> {
    let is_known = is_hidden(name) || name.starts_with('_') || name == "warmup" || name.parse::<Version>().is_ok();
    (!is_known).then_some("not a version: versions are whole numbers from 1")
}

/// Such a directory is no model, whatever is in it.
#[must_use]
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

fn config_print(directory: &Path) -> ConfigPrint {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let files = entries.filter_map(|entry| {
        // The target of a link: configurations are often mounted as links.
        let metadata = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        Some((entry.file_name(), metadata.len(), changed(&metadata)))
    });
    let mut print: ConfigPrint = files.collect();
    print.sort();
    print
}

fn directories(parent: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let path = entry.path();
        // The listing says what is a directory; only where a link leads must be asked.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && path.is_dir());
        if let Ok(name) = entry.file_name().into_string()
            && is_directory
        {
            directories.push((name, path));
        }
    }
    directories.sort();
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn only_integer_directories_are_versions() {
        let root = tempfile::tempdir().unwrap();
        for path in
            ["m/1/model.onnx", "m/02/model.onnx", "m/3.tmp/model.onnx", "m/__pycache__/x", "m/warmup/x", ".hidden/1/x"]
        {
            write(&root.path().join(path), b"x");
        }
        let found = scan(root.path()).unwrap();
        let model = &found.models[&"m".parse::<ModelName>().unwrap()];
        assert_eq!(model.versions.keys().map(|version| version.get()).collect::<Vec<_>>(), [1]);
        assert_eq!((found.models.len(), found.ignored.len()), (1, 2), "{:?}", found.ignored);
    }

    #[test]
    fn fresh_directory_is_not_settled_even_with_old_modification_times() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("model.onnx");
        write(&file, b"x");
        fs::File::open(&file).unwrap().set_modified(UNIX_EPOCH).unwrap();
        let print = Fingerprint::of(root.path()).unwrap();
        assert!(print.has_model() && !print.is_settled(Duration::from_secs(60)));
        assert!(print.is_settled(Duration::ZERO));
    }

    #[test]
    fn every_file_beside_the_versions_changes_the_print_of_the_configuration() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("1/model.onnx"), b"x");
        let mut prints = vec![config_print(root.path())];
        for (file, text) in [("model.toml", "a"), ("config.pbtxt", "a"), ("labels.txt", "a"), ("labels.txt", "ab")] {
            write(&root.path().join(file), text.as_bytes());
            prints.push(config_print(root.path()));
        }
        prints.dedup();
        assert_eq!(prints.len(), 5);
    }

    #[test]
    fn growing_file_changes_the_fingerprint() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("model.onnx");
        write(&file, b"x");
        let before = Fingerprint::of(root.path()).unwrap();
        write(&file, b"xy");
        assert!(!before.same_files(&Fingerprint::of(root.path()).unwrap()));
    }
}
