//! The disk under the state: why it cannot be written, and the reserve that makes room for a change when it is full.

use std::{
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::ErrorCode;
use rustix::{
    fs::{Access, StatVfsMountFlags},
    io::Errno,
};

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Full,
    ReadOnly,
    Permission,
    Io,
}

impl Cause {
    /// The value in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "disk_full",
            Self::ReadOnly => "read_only",
            Self::Permission => "permission",
            Self::Io => "io",
        }
    }

    /// What may help.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Full => "free some space there, then try again",
            Self::ReadOnly => "mount it for writing, then try again",
            Self::Permission => "let the gateway's user write there, then try again",
            Self::Io => "look at the system's log (dmesg) and at the disk, then try again",
        }
    }

    /// Of a failed statement; `None` when that has nothing to do with the disk.
    pub(super) fn of(error: &rusqlite::Error, directory: &Path) -> Option<Self> {
        match error.sqlite_error_code()? {
            ErrorCode::DiskFull => Some(Self::Full),
            // SQLite says no more than that: what the system says to a file of ours is plainer.
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure => {
                Some(probe(directory).err().map_or(Self::Io, |error| Self::of_system(&error)))
            }
            _ => None,
        }
    }

    fn of_system(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            Some(Errno::ROFS) => Self::ReadOnly,
            Some(Errno::ACCESS | Errno::PERM) => Self::Permission,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the disk of the state directory is full",
            Self::ReadOnly => "the file system of the state directory is read-only",
            Self::Permission => "the state directory may not be written by this user",
            Self::Io => "the disk of the state directory has an input/output error",
        })
    }
}

/// Writes a small file and removes it again.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join("probe.tmp");
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&[0x5a; 4096])?;
        file.sync_all()
    });
    // Half a file must not stay on a full disk.
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// How the disk under the state is, as last known. Cheap to clone; read without waiting for a write.
#[derive(Debug, Clone)]
pub struct StateDisk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    fault: Mutex<Option<Cause>>,
}

impl StateDisk {
    pub(super) fn new(directory: &Path, fault: Option<Cause>) -> Self {
        Self(Arc::new(Inner { directory: directory.into(), fault: Mutex::new(fault) }))
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Why nothing can be written now; `None`: it can, as far as is known.
    #[must_use]
    pub fn fault(&self) -> Option<Cause> {
        *self.lock()
    }

    /// The fault in words, with the directory and what may help.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let cause = self.fault()?;
        Some(format!(
            "the state is read-only: {cause} ({}); requests are answered by the last release known, and changes are refused: {}",
            self.directory().display(),
            cause.advice()
        ))
    }

    /// Bytes that this user may still write.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.directory()).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Bytes that are held back for a change on a full disk.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        fs::metadata(Reserve::place(self.directory())).map_or(0, |metadata| metadata.len())
    }

    /// Enters what a write has found, and says it once.
    pub(super) fn set(&self, fault: Option<Cause>) {
        let before = std::mem::replace(&mut *self.lock(), fault);
        let directory = self.directory().display();
        match (before, fault) {
            (before, Some(cause)) if before != fault => tracing::error!(
                cause = cause.as_str(), %directory,
                "{cause}: the state is read-only, changes of releases are refused; {}", cause.advice()
            ),
            (Some(_), None) => tracing::info!(%directory, "the state can be written again"),
            _ => {}
        }
    }

    /// Looks whether it is still so. A disk that nobody writes to is not asked more than how it is mounted, whose
    /// it is and whether there is room.
    pub(super) fn look(&self) {
        let found = if self.fault().is_some() {
            probe(self.directory()).err().map(|error| Cause::of_system(&error))
        } else {
            self.seen()
        };
        self.set(found);
    }

    fn seen(&self) -> Option<Cause> {
        let system = rustix::fs::statvfs(self.directory()).ok()?;
        if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Some(Cause::ReadOnly);
        }
        if rustix::fs::access(self.directory(), Access::WRITE_OK) == Err(Errno::ACCESS) {
            return Some(Cause::Permission);
        }
        // The reserve is room for a change.
        (system.f_bavail.saturating_mul(system.f_frsize) < LEAST && self.reserve_bytes() == 0).then_some(Cause::Full)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cause>> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change takes less.
const LEAST: u64 = 64 << 10;

/// A file that only takes room, to be given up when a change finds none.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// 0: none is wanted.
    bytes: u64,
}

impl Reserve {
    pub(super) fn new(directory: &Path, bytes: u64) -> Self {
        Self { path: Self::place(directory), bytes }
    }

    fn place(directory: &Path) -> PathBuf {
        directory.join("reserve")
    }

    /// Makes it where it is wanted, not there, and there is room for several of its kind: it must not be what fills the
    /// disk.
    pub(super) fn keep(&self, free: Option<u64>) {
        let is_there = fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.bytes);
        if is_there || self.bytes == 0 || free.is_none_or(|free| free < self.bytes.saturating_mul(4)) {
            return;
        }
        if let Err(error) = self.make() {
            tracing::warn!(path = %self.path.display(), %error, "no reserve for changes on a full disk could be made");
            let _ = fs::remove_file(&self.path);
        }
    }

    fn make(&self) -> io::Result<()> {
        let mut file = fs::File::create(&self.path)?;
        // Chance, which no file system compresses.
        let (mut state, mut left) = (0x9e37_79b9_7f4a_7c15_u64, self.bytes);
        let mut piece = Vec::with_capacity(1 << 16);
        while left > 0 {
            piece.clear();
            while piece.len() < 1 << 16 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                piece.extend_from_slice(&state.to_le_bytes());
            }
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            file.write_all(&piece[..part])?;
            left -= part as u64;
        }
        file.sync_all()
    }

    /// Gives it up. False when there was none.
    pub(super) fn release(&self) -> bool {
        let is_released = fs::remove_file(&self.path).is_ok();
        if is_released {
            tracing::warn!(path = %self.path.display(), "the disk is full: the reserve was given up for a change");
        }
        is_released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_takes_room_until_it_is_given_up_and_is_made_again_where_there_is_plenty() {
        let directory = tempfile::tempdir().unwrap();
        let disk = StateDisk::new(directory.path(), None);
        let reserve = Reserve::new(directory.path(), 100_000);
        reserve.keep(Some(399_999));
        assert_eq!(disk.reserve_bytes(), 0, "it would fill the disk");
        reserve.keep(None);
        assert_eq!(disk.reserve_bytes(), 0);
        reserve.keep(Some(400_000));
        assert_eq!(disk.reserve_bytes(), 100_000);
        assert!(reserve.release() && !reserve.release());
        assert_eq!(disk.reserve_bytes(), 0);
        let none = Reserve::new(directory.path(), 0);
        none.keep(Some(u64::MAX));
        assert!(!none.release());
    }

    #[test]
    fn cause_is_what_the_system_says() {
        let of = |errno: Errno| Cause::of_system(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert_eq!([Errno::NOSPC, Errno::DQUOT].map(of), [Cause::Full; 2]);
        assert_eq!(
            [Errno::ROFS, Errno::ACCESS, Errno::PERM].map(of),
            [Cause::ReadOnly, Cause::Permission, Cause::Permission]
        );
        assert_eq!(of(Errno::IO), Cause::Io);
    }

    #[test]
    fn fault_is_told_with_its_directory_and_goes_when_it_can_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let disk = StateDisk::new(directory.path(), Some(Cause::Full));
        let warning = disk.warning().unwrap();
        for words in ["is full", directory.path().to_str().unwrap(), "free some space"] {
            assert!(warning.contains(words), "{words}: {warning}");
        }
        disk.look();
        assert_eq!((disk.fault(), disk.warning()), (None, None));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the probe leaves nothing");
    }
}
