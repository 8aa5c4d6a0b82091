//! The files that a table is made of: a file, a directory of them, or a pattern such as `part-*.parquet`.
//!
//! Directories called `key=value` are columns too, as Hive, Spark and `DuckDB` partition tables.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::TableError;

/// Endings of the files of a directory that are tables, before `.gz` or `.zst`.
const ENDINGS: [&str; 8] = ["parquet", "pq", "parq", "csv", "tsv", "jsonl", "ndjson", "txt"];
/// How Hive writes a partition whose value is missing.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The files that the paths mean, in the order of the paths; those of a directory or a pattern by name.
///
/// # Errors
/// When a path means no file at all, or a directory cannot be read.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, TableError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            of_directory(path, &mut files)?;
        } else if path.exists() || !is_pattern(path) {
            files.push(path.clone());
        } else {
            of_pattern(path, &mut files)?;
        }
    }
    Ok(files)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

fn refused(path: &Path, reason: impl Into<String>) -> TableError {
    TableError::Files { path: path.into(), reason: reason.into() }
}

fn of_pattern(pattern: &Path, files: &mut Vec<PathBuf>) -> Result<(), TableError> {
    let text = pattern.to_str().ok_or_else(|| refused(pattern, "is no pattern: it is not UTF-8"))?;
    let paths = glob::glob(text).map_err(|error| refused(pattern, format!("is no pattern of files: {error}")))?;
    let before = files.len();
    for path in paths {
        let path = path.map_err(|error| TableError::Read { path: error.path().into(), source: error.into() })?;
        if path.is_dir() { of_directory(&path, files)? } else { files.push(path) }
    }
    if files.len() == before { Err(refused(pattern, "matches no file")) } else { Ok(()) }
}

/// The tables under a directory, without those that writers hide (`_SUCCESS`, `.part.crc`).
fn of_directory(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), TableError> {
    let before = files.len();
    collect(directory, files)?;
    if files.len() == before {
        return Err(refused(directory, format!("has no file of a table in it (.{})", ENDINGS.join(", ."))));
    }
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), TableError> {
    let read = |source| TableError::Read { path: directory.into(), source };
    let entries = fs::read_dir(directory).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        // A link to a directory may lead back here.
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
        } else if path.is_file() && is_table(&name) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_table(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    ENDINGS.iter().any(|ending| name.rsplit_once('.').is_some_and(|(_, is)| is == *ending))
}

/// The columns that the directories of a path are: name and value, `None` where it is missing.
pub(super) fn partitions(path: &Path) -> Vec<(String, Option<String>)> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let directories = path.parent().into_iter().flat_map(Path::components);
    let pairs = directories.filter_map(|component| {
        let Component::Normal(name) = component else { return None };
        let (key, value) = name.to_str()?.split_once('=')?;
        Some((decoded(key), (value != NULL && !value.is_empty()).then(|| decoded(value))))
    });
    pairs.filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_and_pattern_mean_their_tables_by_name() {
        let root = tempfile::tempdir().unwrap();
        let names = ["model=m/date=2026-01-02/b.parquet", "model=m/date=2026-01-02/a.csv.gz", "model=m/_SUCCESS"];
        for name in names.iter().chain(&["model=m/.hidden.csv", "README.md", "z.jsonl"]) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = |path: &str| {
            let files = files(&[root.path().join(path)]).map_err(|error| error.to_string())?;
            let name = |file: &PathBuf| file.strip_prefix(root.path()).unwrap().display().to_string();
            Ok::<_, String>(files.iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(found("").unwrap(), [names[1], names[0], "z.jsonl"]);
        assert_eq!(found("model=*/*/*.parquet").unwrap(), [names[0]]);
        assert_eq!(found("model=*").unwrap(), [names[1], names[0]]);
        assert_eq!(found("README.md").unwrap(), ["README.md"], "a file that is named is taken");
        assert!(found("*.parquet").unwrap_err().ends_with("/*.parquet matches no file"));
        fs::create_dir(root.path().join("empty")).unwrap();
        assert!(found("empty").unwrap_err().contains("empty has no file of a table in it (.parquet, "));
    }

    #[test]
    fn directories_with_a_key_are_columns() {
        let found = partitions(Path::new("/data/model=m/city=S%C3%A3o%20Paulo/day=__HIVE_DEFAULT_PARTITION__/x=1.csv"));
        let expected = [("model", Some("m")), ("city", Some("São Paulo")), ("day", None)];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
    }
}
