//! `labels.txt` and the label files that a `config.pbtxt` names: class names, one a line.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path},
    sync::Arc,
};

use crate::domain::Labels;

/// The class names of the whole model.
const LABELS_FILE: &str = "labels.txt";

/// Far above the largest vocabulary; a guard against a file that is something else.
const LARGEST: u64 = 64 << 20;

/// Reads the labels of the model in `directory`; `files` are those named for outputs.
pub(super) fn read(directory: &Path, files: BTreeMap<String, String>) -> Result<Labels, String> {
    let all = match fs::metadata(directory.join(LABELS_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        _ => Some(lines(directory, LABELS_FILE)?),
    };
    let mut labels = Labels { all, ..Labels::default() };
    for (output, file) in &files {
        labels.by_output.insert(output.clone(), lines(directory, file)?);
    }
    labels.files = files;
    Ok(labels)
}

fn lines(directory: &Path, file: &str) -> Result<Arc<[String]>, String> {
    let fault = |words: &dyn std::fmt::Display| format!("label file '{}': {words}", file.escape_debug());
    let relative = Path::new(file);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) || file.contains('\0') {
        return Err(fault(&"points outside the model's directory"));
    }
    let path = directory.join(relative).canonicalize().map_err(|error| fault(&error))?;
    let root = directory.canonicalize().map_err(|error| fault(&error))?;
    // Labels are told to clients: a link must not make them the lines of another file.
    if !path.starts_with(root) {
        return Err(fault(&"points outside the model's directory"));
    }
    let metadata = fs::metadata(&path).map_err(|error| fault(&error))?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(fault(&"is not a file of at most 64 MiB"));
    }
    let text = fs::read_to_string(&path).map_err(|error| fault(&error))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_file_of_an_output_wins_over_the_models() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("labels.txt"), "cat\r\ndog\n").unwrap();
        fs::write(directory.path().join("sizes.txt"), "small\n\nlarge").unwrap();
        let labels = read(directory.path(), BTreeMap::from([("size".into(), "sizes.txt".into())])).unwrap();
        assert_eq!(labels.of("animal").unwrap(), ["cat", "dog"]);
        assert_eq!(labels.of("size").unwrap(), ["small", "", "large"]);
    }

    #[test]
    fn without_files_nothing_has_labels() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path(), BTreeMap::new()).unwrap(), Labels::default());
    }

    #[test]
    fn file_that_is_missing_or_outside_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("m");
        fs::create_dir(&directory).unwrap();
        fs::write(root.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), directory.join("link")).unwrap();
        for file in ["missing", "../secret", "/etc/hostname", "link", ""] {
            let files = BTreeMap::from([("y".into(), file.into())]);
            assert!(read(&directory, files).unwrap_err().contains("label file"), "{file}");
        }
    }
}
