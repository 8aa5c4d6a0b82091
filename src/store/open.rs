//! The start, and what becomes of a write that fails.
//!
//! A start serves the last release known, whatever the disk is like: where the state cannot be opened for writing, a copy
//! of it is read, and changes are refused until it can. Only a first start, which knows nothing, needs the disk.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

use super::{
    Cause, Copy, Entry, FILE, ReleasedRow, Reserve, RolloutRow, StateDisk, Store, StoreError, migrate, released,
    rollout, write,
};
use crate::release::Outcome;

impl Store {
    /// Opens or creates the state file in `directory`, without a reserve.
    ///
    /// # Errors
    /// As [`Store::open_with_reserve`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with_reserve(directory, 0)
    }

    /// Opens or creates the state file in `directory`, and keeps so many bytes back for changes on a full disk. Where
    /// it cannot be written, it is read, and every change is refused.
    ///
    /// # Errors
    /// When it cannot be read, another process has it open, or it is not there and cannot be created.
    pub fn open_with_reserve(directory: &Path, reserve: u64) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| StoreError::Directory { path: directory.into(), source })?;
        let reserve = Reserve::new(directory, reserve);
        let error = match connect(directory) {
            Ok(connection) => {
                let disk = StateDisk::new(directory, None);
                let mut store = Self { connection, disk, reserve, copy: None };
                store.look();
                return Ok(store);
            }
            Err(error) => error,
        };
        let StoreError::Write { cause, path, detail } = error else { return Err(error) };
        if !directory.join(FILE).exists() {
            let detail = format!("there is no state to go on from, and none can be made: {detail}");
            return Err(StoreError::Write { cause, path, detail });
        }
        let copy = Copy::of(directory).map_err(|error| {
            let detail = format!("{detail}; and no copy of it can be made to read: {error}");
            StoreError::Write { cause, path: path.clone(), detail }
        })?;
        let connection = connect(copy.directory())?;
        let disk = StateDisk::new(directory, None);
        disk.set(Some(cause));
        Ok(Self { connection, disk, reserve, copy: Some(copy) })
    }

    /// How the disk is.
    #[must_use]
    pub fn disk(&self) -> StateDisk {
        self.disk.clone()
    }

    /// Looks now and then whether what could not be written can, and whether the reserve is there.
    pub fn look(&mut self) {
        self.disk.look();
        if self.disk.fault().is_some() {
            return;
        }
        if let Err(error) = self.leave_copy() {
            tracing::debug!(%error, "the state still cannot be opened for writing");
        } else {
            self.reserve.keep(self.disk.free_bytes());
        }
    }

    /// # Errors
    /// When nothing can be written, as far as is known.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        let path = self.disk.directory().to_owned();
        let detail = || "as the last write has found".to_owned();
        self.disk.fault().map_or(Ok(()), |cause| Err(StoreError::Write { cause, path, detail: detail() }))
    }

    /// Makes changes durable, with rollouts and the files of released versions as they are then: all or none. On a
    /// full disk the reserve is given up for a change; what changes nothing does without.
    pub fn commit_all(
        &mut self,
        entries: &[Entry<'_>],
        rollouts: &[RolloutRow<'_>],
        released: &[ReleasedRow<'_>],
    ) -> Result<(), StoreError> {
        self.leave_copy().inspect_err(|error| self.note(error))?;
        let mut outcome = self.try_commit(entries, rollouts, released);
        let is_change = entries.iter().any(|entry| entry.outcome == Outcome::Done);
        if is_change && is_full(&outcome) && self.reserve.release() {
            outcome = self.try_commit(entries, rollouts, released);
        }
        match &outcome {
            Ok(()) => self.disk.set(None),
            Err(error) => self.note(error),
        }
        outcome
    }

    fn try_commit(
        &mut self,
        entries: &[Entry<'_>],
        rollouts: &[RolloutRow<'_>],
        released: &[ReleasedRow<'_>],
    ) -> Result<(), StoreError> {
        let mut commit = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            for entry in entries {
                write(&transaction, entry)?;
            }
            for row in rollouts {
                rollout::write(&transaction, row)?;
            }
            for row in released {
                released::write(&transaction, row)?;
            }
            transaction.commit()
        };
        commit().map_err(|error| failed(error, self.disk.directory()))
    }

    fn note(&self, error: &StoreError) {
        if let StoreError::Write { cause, .. } = error {
            self.disk.set(Some(*cause));
        }
    }

    /// Opens the state itself where only a copy of it is read. Nobody has written to it meanwhile, or it is in use.
    fn leave_copy(&mut self) -> Result<(), StoreError> {
        if self.copy.is_some() {
            self.connection = connect(self.disk.directory())?;
            self.copy = None;
        }
        Ok(())
    }
}

fn is_full(outcome: &Result<(), StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Write { cause: Cause::Full, .. }))
}

fn failed(error: rusqlite::Error, directory: &Path) -> StoreError {
    match Cause::of(&error, directory) {
        Some(cause) => StoreError::Write { cause, path: directory.into(), detail: error.to_string() },
        None => error.into(),
    }
}

/// The file of this format, owned by this process. Writes nothing where all is as it should be.
fn connect(directory: &Path) -> Result<Connection, StoreError> {
    let path = directory.join(FILE);
    let in_words = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            StoreError::InUse(directory.into())
        }
        _ => match failed(error, directory) {
            StoreError::Database(source) => StoreError::Open { path: path.clone(), source },
            error => error,
        },
    };
    let mut connection = Connection::open(&path).map_err(in_words)?;
    let prepare = |connection: &Connection| -> rusqlite::Result<()> {
        connection.busy_timeout(Duration::from_millis(200))?;
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")
    };
    prepare(&connection).map_err(in_words)?;
    // The exclusive lock is taken by the first transaction that may write, and kept.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(in_words)?;
    migrate::migrate(&transaction).map_err(|error| match error {
        StoreError::Database(error) => in_words(error),
        error => error,
    })?;
    transaction.commit().map_err(in_words)?;
    Ok(connection)
}
