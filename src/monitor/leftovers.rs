//! What was kept of versions that are gone from the repository, and is of no use to anybody.
//!
//! A folder may vanish for a moment (a network file system, a copy that goes on), and a learnt profile cannot be learnt
//! again. So a version that is not there is noted with the time, in `gone.json`, and its files are deleted only when it was
//! not there at any look for so long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::keeper::write;
use crate::domain::{ModelName, Version};

/// What follows the version in the name of a file: of counts, of profiles, of rows to learn from, and of those that were
/// being written when the program ended.
const ENDINGS: [&str; 5] = ["counts", "profile.json", "learning", "new", "profile.new"];

/// A version of a model.
pub(super) type Place = (ModelName, Version);

/// By model and version, since when a version is gone, in seconds on the clock of the monitor.
type Gone = BTreeMap<String, BTreeMap<u64, u64>>;

/// Deletes the files of versions that are not among `known` and were not for `grace`; notes which are gone. Both, and what
/// goes wrong, are told in the log.
pub(super) fn sweep(directory: &Path, known: &BTreeSet<Place>, grace: Duration, now: Duration) {
    if let Err(error) = try_sweep(directory, known, grace, now) {
        tracing::warn!(directory = %directory.display(), %error, "files of versions that are gone are not deleted");
    }
}

fn try_sweep(directory: &Path, known: &BTreeSet<Place>, grace: Duration, now: Duration) -> io::Result<()> {
    let note = directory.join("gone.json");
    let before = noted(&note);
    let mut gone = Gone::new();
    for ((model, version), files) in kept(directory)? {
        if known.contains(&(model.clone(), version)) {
            continue;
        }
        let since = before.get(model.as_str()).and_then(|versions| versions.get(&version.get())).copied();
        let since = since.unwrap_or(now.as_secs()).min(now.as_secs());
        if now.saturating_sub(Duration::from_secs(since)) >= grace {
            files.iter().try_for_each(fs::remove_file)?;
            tracing::info!(%model, version = version.get(), "the version is gone: what the monitor kept of it is deleted");
            // Other versions may have files there.
            let _ = fs::remove_dir(directory.join(model.as_str()));
        } else {
            gone.entry(model.to_string()).or_default().insert(version.get(), since);
        }
    }
    if gone == before {
        return Ok(());
    }
    write(&note, &serde_json::to_vec(&gone)?)
}

/// What the last look noted.
fn noted(note: &Path) -> Gone {
    let read = fs::read(note).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    read.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %note.display(), %error, "since when versions are gone is noted anew");
        }
        Gone::new()
    })
}

/// All files that are kept, by version.
fn kept(directory: &Path) -> io::Result<BTreeMap<Place, Vec<PathBuf>>> {
    let mut kept: BTreeMap<Place, Vec<PathBuf>> = BTreeMap::new();
    for (name, path) in entries(directory)? {
        let Ok(model) = name.parse::<ModelName>() else { continue };
        if !path.is_dir() {
            continue;
        }
        for (name, path) in entries(&path)? {
            let Some((version, ending)) = name.split_once('.') else { continue };
            if let Ok(version) = version.parse::<Version>()
                && ENDINGS.contains(&ending)
            {
                kept.entry((model.clone(), version)).or_default().push(path);
            }
        }
    }
    Ok(kept)
}

/// Names and paths of what lies in a directory; nothing when there is none.
fn entries(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
    };
    listing.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn day(day: u64) -> Duration {
        Duration::from_secs(day * DAY)
    }

    /// A directory with files of versions 1 and 2 of `m` and of version 1 of `n`.
    fn state() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in ["m/1.counts", "m/1.profile.json", "m/2.learning", "m/1.profile.new", "m/notes.txt", "n/1.counts"] {
            write(&directory.path().join(file), b"x").unwrap();
        }
        directory
    }

    fn files(directory: &Path) -> Vec<String> {
        let names = |directory: &Path| entries(directory).unwrap_or_default();
        let models = names(directory).into_iter().filter(|(_, path)| path.is_dir());
        let mut files: Vec<_> = models
            .flat_map(|(model, path)| names(&path).into_iter().map(move |(file, _)| format!("{model}/{file}")))
            .collect();
        files.sort();
        files
    }

    fn versions(versions: &[(&str, u64)]) -> BTreeSet<Place> {
        versions.iter().map(|(model, version)| (model.parse().unwrap(), Version::new(*version).unwrap())).collect()
    }

    #[test]
    fn files_are_deleted_when_their_version_was_gone_at_every_look_for_the_grace() {
        let state = state();
        let look = |known: &[(&str, u64)], at: u64| {
            sweep(state.path(), &versions(known), day(8), day(at));
            files(state.path())
        };
        let all = look(&[("m", 1), ("m", 2), ("n", 1)], 100);
        assert_eq!(all.len(), 6);
        assert_eq!(look(&[("m", 2)], 101), all);
        // `m` comes back, `n` does not.
        assert_eq!(look(&[("m", 1), ("m", 2)], 105), all);
        assert_eq!(look(&[("m", 2)], 106), all);
        assert_eq!(look(&[("m", 2)], 108), all);
        let of_m = &all[..5];
        assert_eq!(look(&[("m", 2)], 109), of_m, "the whole model");
        assert!(!state.path().join("n").exists());
        assert_eq!(look(&[("m", 2)], 113), of_m);
        assert_eq!(look(&[("m", 2)], 114), ["m/2.learning", "m/notes.txt"]);
        assert_eq!(fs::read_to_string(state.path().join("gone.json")).unwrap(), "{}");
    }

    #[test]
    fn clock_that_was_set_back_and_a_damaged_note_delete_nothing_early() {
        let state = state();
        let all = files(state.path());
        let look = |at: u64| {
            sweep(state.path(), &BTreeSet::new(), day(8), day(at));
            files(state.path())
        };
        assert_eq!(look(1000), all);
        assert_eq!(look(100), all);
        assert_eq!(look(107), all, "seven days from the earlier time");
        fs::write(state.path().join("gone.json"), "{\"m\": 1").unwrap();
        assert_eq!(look(108), all);
        assert_eq!(look(116), ["m/notes.txt"]);
    }

    #[test]
    fn state_without_anything_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        sweep(&directory.path().join("monitor"), &BTreeSet::new(), day(8), day(1));
        assert!(!directory.path().join("monitor").exists());
    }
}
