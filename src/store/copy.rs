//! A copy of the state in memory or elsewhere, for a start where the state itself cannot be opened for writing: `SQLite`
//! wants to write even to read what a killed process has left.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::FILE;

/// A directory with the copy; gone with this value.
#[derive(Debug)]
pub(super) struct Copy {
    directory: PathBuf,
}

impl Copy {
    /// Copies the file and its write-ahead log to the first place that takes them.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let name = format!("tidegate-state-{}", std::process::id());
        let places = [std::env::temp_dir(), "/dev/shm".into(), "/tmp".into()];
        let mut outcome = Err(io::Error::other("there is no place for a copy"));
        for place in places {
            let copy = Self { directory: place.join(&name) };
            outcome = copy.fill(directory).map(|()| copy);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn fill(&self, from: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        // What an earlier process of this number has left.
        let _ = fs::remove_dir_all(&self.directory);
        fs::DirBuilder::new().mode(0o700).create(&self.directory)?;
        copy(&from.join(FILE), &self.directory.join(FILE))?;
        let log = format!("{FILE}-wal");
        match copy(&from.join(&log), &self.directory.join(&log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The bytes alone: the copy may be written though the original may not.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = fs::File::open(from)?;
    let mut target = fs::File::create_new(to)?;
    io::copy(&mut source, &mut target).map(drop)
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
