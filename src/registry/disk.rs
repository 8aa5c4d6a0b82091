//! The repository on disk: which models and versions are there, and whether a version has
//! stopped changing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::layout::{Misplaced, loose, misplaced_in, stray};
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

    /// Of a file or of a directory.
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        if metadata.is_dir() {
            return Self::of(path);
        }
        let newest = changed(&metadata);
        Ok(Self { files: vec![(PathBuf::new(), metadata.len(), metadata.ino(), newest)], newest })
    }

    fn add(&mut self, directory: &Path, within: &Path) -> io::Result<()> {
        self.newest = self.newest.max(changed(&fs::symlink_metadata(directory)?));
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let mut metadata = entry.metadata()?;
            let within = within.join(entry.file_name());
            // A link to a file stands for the file: its size, and that it changes. One to a directory is not followed.
            if metadata.is_symlink() {
                self.newest = self.newest.max(changed(&metadata));
                metadata = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file).unwrap_or(metadata);
            }
            if metadata.is_dir() {
                self.add(&entry.path(), &within)?;
            } else {
                self.newest = self.newest.max(changed(&metadata));
                self.files.push((within, metadata.len(), metadata.ino(), changed(&metadata)));
            }
        }
        Ok(())
    }

    /// True when nothing in the directory changed for so long that a copy which goes on is unlikely: only then it is told
    /// that something is wrong with it. A false alarm ends by itself when the files change.
    pub(super) fn is_at_rest(&self, settle: Duration) -> bool {
        self.is_settled(settle.saturating_mul(PATIENCE))
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
        // Triton's form is a directory of the file's name, with the file and its weights in it.
        let is_model = |path: &Path| {
            let is_onnx = path.extension().is_some_and(|it| it == "onnx");
            let is_in_its_own =
                || path.components().count() == 2 && path.parent().and_then(Path::file_name) == path.file_name();
            is_onnx && (path.components().count() == 1 || is_in_its_own())
        };
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
    /// Something that may be misplaced still changes.
    pub(super) is_unsettled: bool,
}

/// Name, size and change time of the plain files beside the versions, in order.
pub(super) type ConfigPrint = Vec<(std::ffi::OsString, u64, i128)>;

#[derive(Debug)]
pub(super) struct FoundModel {
    pub(super) directory: PathBuf,
    pub(super) versions: BTreeMap<Version, Fingerprint>,
    /// Changes when `model.toml`, `config.pbtxt` or a label file does.
    pub(super) config: Option<ConfigPrint>,
    /// What was meant to be a version of it, and is none.
    pub(super) misplaced: Vec<Misplaced>,
    /// Something that may be misplaced still changes.
    is_unsettled: bool,
}

/// How many times the settle time nothing must change before something is called misplaced or incomplete.
const PATIENCE: u32 = 10;

/// Reads the repository. What vanishes while it is read is skipped: the next reading will tell.
pub(super) fn scan(models: &Path, settle: Duration) -> io::Result<Found> {
    let mut found = Found::default();
    for (name, directory) in directories(models)? {
        if is_hidden(&name) {
            continue;
        }
        match name.parse::<ModelName>() {
            Ok(model) => {
                let listed = scan_model(&directory, settle, &mut found.ignored);
                found.models.insert(model, listed);
            }
            Err(error) => found.ignored.push(format!("{}: {error}", directory.display())),
        }
    }
    for (name, misplaced) in loose(models) {
        let directory = models.join(name.as_str());
        let model = found.models.entry(name).or_insert_with(|| FoundModel::without_versions(directory));
        model.add(models, misplaced, settle);
    }
    found.is_unsettled = found.models.values().any(|model| model.is_unsettled);
    // An empty directory may be about to be filled: until that is clear there is nothing to say of it.
    found.models.retain(|_, model| !model.versions.is_empty() || !model.misplaced.is_empty());
    Ok(found)
}

impl FoundModel {
    fn without_versions(directory: PathBuf) -> Self {
        let (versions, misplaced) = (BTreeMap::new(), Vec::new());
        Self { directory, versions, config: Some(ConfigPrint::new()), misplaced, is_unsettled: false }
    }

    /// Enters what is misplaced in the repository, once it is at rest.
    fn add(&mut self, models: &Path, misplaced: Misplaced, settle: Duration) {
        match Fingerprint::at(&models.join(&misplaced.path)) {
            Ok(print) if print.is_at_rest(settle) => self.misplaced.push(misplaced),
            Ok(_) => self.is_unsettled = true,
            // It is gone by now.
            Err(_) => {}
        }
    }
}

fn scan_model(directory: &Path, settle: Duration, ignored: &mut Vec<String>) -> FoundModel {
    let config = Some(config_print(directory));
    let misplaced = misplaced_in(directory);
    let mut versions = BTreeMap::new();
    for (name, path) in directories(directory).unwrap_or_default() {
        if let Ok(version) = name.parse::<Version>() {
            if let Ok(print) = Fingerprint::of(&path) {
                versions.insert(version, print);
            }
            continue;
        }
        let is_told = misplaced.iter().any(|told| told.path.ends_with(&format!("/{name}")));
        let why = stray(&name).filter(|_| !is_told);
        ignored.extend(why.map(|why| format!("{}: {why}", path.display())));
    }
    let mut found = FoundModel { versions, config, ..FoundModel::without_versions(directory.into()) };
    let models = directory.parent().unwrap_or(directory);
    for misplaced in misplaced {
        found.add(models, misplaced, settle);
    }
    found
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
        let found = scan(root.path(), Duration::ZERO).unwrap();
        let model = &found.models[&"m".parse::<ModelName>().unwrap()];
        assert_eq!(model.versions.keys().map(|version| version.get()).collect::<Vec<_>>(), [1]);
        let misplaced: Vec<_> = model.misplaced.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(misplaced, ["m/02", "m/3.tmp"], "each holds a model");
        assert_eq!((found.models.len(), found.ignored.len()), (1, 0), "{:?}", found.ignored);
    }

    #[test]
    fn what_still_changes_is_not_called_misplaced() {
        let root = tempfile::tempdir().unwrap();
        for path in ["flat/model.onnx", "loose.onnx", "m/1/model.onnx", "m/3.tmp/model.onnx"] {
            write(&root.path().join(path), b"x");
        }
        let paths = |settle| -> Vec<String> {
            let found = scan(root.path(), settle).unwrap();
            assert!(found.is_unsettled != (settle == Duration::ZERO), "{found:?}");
            found.models.values().flat_map(|model| &model.misplaced).map(|it| it.path.clone()).collect()
        };
        assert_eq!(paths(Duration::from_secs(60)), [""; 0]);
        assert_eq!(paths(Duration::ZERO), ["flat/model.onnx", "loose.onnx", "m/3.tmp"]);
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
