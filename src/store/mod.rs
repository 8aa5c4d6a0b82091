//! What must survive: releases and the audit log, in one `SQLite` file in the state directory.
//!
//! A change is acknowledged only after [`Store::commit`] has returned: the file is in WAL mode
//! with `synchronous = FULL`, so a committed change survives `kill -9` and a power cut. One
//! process owns the file; a second one is refused at the start.

mod json;
mod rollout;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use self::rollout::RolloutRow;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{
    domain::ModelName,
    fault::{ErrorCode, Fault},
    registry::HistoryEntry,
    release::Release,
    rollout::Rollout,
};

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot create the state directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the state in {} is in use: is another tidegate running with this --state?", .0.display())]
    InUse(PathBuf),
    #[error("the state file: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the state file is of format {found}; this program reads format {expected}")]
    Format { found: i64, expected: i64 },
    #[error("the state of model '{model}' cannot be read: {reason}")]
    Corrupt { model: String, reason: String },
}

impl Fault for StoreError {
    fn code(&self) -> ErrorCode {
        ErrorCode::Internal
    }

    fn message(&self) -> String {
        "the change could not be made durable, and was not made".into()
    }
}

/// The file format; raised with each change of the tables.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE release (
        model TEXT PRIMARY KEY,
        body  TEXT NOT NULL
    ) STRICT;
    CREATE TABLE history (
        sequence  INTEGER PRIMARY KEY AUTOINCREMENT,
        model     TEXT NOT NULL,
        at_micros INTEGER NOT NULL,
        actor     TEXT NOT NULL,
        operation TEXT NOT NULL,
        before    TEXT NOT NULL,
        after     TEXT NOT NULL,
        reason    TEXT
    ) STRICT;
    CREATE INDEX history_by_model ON history (model, sequence);
";

/// The open state file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// A change of a release, as it goes into the audit log.
#[derive(Debug)]
pub struct Entry<'a> {
    pub model: &'a ModelName,
    pub at: SystemTime,
    pub actor: &'a str,
    pub operation: &'a str,
    pub from: &'a Release,
    pub to: &'a Release,
    pub reason: Option<&'a str>,
}

impl Store {
    /// Opens or creates the state file in `directory`.
    ///
    /// # Errors
    /// When it cannot be created or read, or another process has it open.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| StoreError::Directory { path: directory.into(), source })?;
        let mut connection = Connection::open(directory.join("tidegate.db"))?;
        connection.busy_timeout(Duration::from_millis(200))?;
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        let in_use = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                StoreError::InUse(directory.into())
            }
            _ => error.into(),
        };
        connection.pragma_update(None, "journal_mode", "wal").map_err(in_use)?;
        connection.pragma_update(None, "synchronous", "full")?;
        // The exclusive lock is taken by the first write, and kept.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(in_use)?;
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match found {
            FORMAT => {}
            0 => transaction.execute_batch(TABLES)?,
            _ => return Err(StoreError::Format { found, expected: FORMAT }),
        }
        transaction.execute_batch(rollout::TABLE)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
        Ok(Self { connection })
    }

    /// The releases of all models that ever had one.
    pub fn releases(&self) -> Result<BTreeMap<ModelName, Release>, StoreError> {
        let mut statement = self.connection.prepare("SELECT model, body FROM release")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let mut releases = BTreeMap::new();
        for row in rows {
            let (model, body) = row?;
            let corrupt = |reason: String| StoreError::Corrupt { model: model.clone(), reason };
            let name = model.parse().map_err(|error: crate::domain::IdError| corrupt(error.to_string()))?;
            releases.insert(name, json::decode(&body).map_err(corrupt)?);
        }
        Ok(releases)
    }

    /// Makes changes durable, the releases and their audit entries: all or none of them. What
    /// takes long is waiting for the disk, once per call.
    pub fn commit(&mut self, entries: &[Entry<'_>]) -> Result<(), StoreError> {
        self.commit_with(entries, &[])
    }

    /// The same, and rollouts as they are then.
    pub fn commit_with(&mut self, entries: &[Entry<'_>], rollouts: &[RolloutRow<'_>]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for entry in entries {
            write(&transaction, entry)?;
        }
        for row in rollouts {
            rollout::write(&transaction, row)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The last rollout of every model that had one, with the keys counted in the step that goes on.
    pub fn rollouts(&self) -> Result<BTreeMap<ModelName, (Rollout, Vec<u8>)>, StoreError> {
        rollout::read_all(&self.connection)
    }

    /// The audit log of a model, newest first.
    pub fn history(&self, model: &ModelName, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT sequence, at_micros, actor, operation, before, after, reason FROM history
             WHERE model = ?1 ORDER BY sequence DESC LIMIT ?2",
        )?;
        let mut rows = statement.query(params![model.as_str(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let release = |body: String| {
                json::decode(&body).map_err(|reason| StoreError::Corrupt { model: model.to_string(), reason })
            };
            entries.push(HistoryEntry {
                sequence: row.get::<_, i64>(0)?.unsigned_abs(),
                at: UNIX_EPOCH + Duration::from_micros(row.get::<_, i64>(1)?.unsigned_abs()),
                actor: row.get(2)?,
                operation: row.get(3)?,
                from: release(row.get(4)?)?,
                to: release(row.get(5)?)?,
                reason: row.get(6)?,
            });
        }
        Ok(entries)
    }

    /// True when the model has a stored release.
    pub fn knows(&self, model: &ModelName) -> Result<bool, StoreError> {
        let found: Option<i64> = self
            .connection
            .query_row("SELECT 1 FROM release WHERE model = ?1", [model.as_str()], |row| row.get(0))
            .optional()?;
        Ok(found.is_some())
    }
}

fn write(transaction: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<()> {
    let (before, after) = (json::encode(entry.from), json::encode(entry.to));
    let micros = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let mut release = transaction.prepare_cached(
        "INSERT INTO release (model, body) VALUES (?1, ?2) ON CONFLICT (model) DO UPDATE SET body = ?2",
    )?;
    release.execute(params![entry.model.as_str(), after])?;
    let mut history = transaction.prepare_cached(
        "INSERT INTO history (model, at_micros, actor, operation, before, after, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    history.execute(params![
        entry.model.as_str(),
        i64::try_from(micros).unwrap_or(i64::MAX),
        entry.actor,
        entry.operation,
        before,
        after,
        entry.reason,
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::Version, release::Change};

    fn entry<'a>(model: &'a ModelName, from: &'a Release, to: &'a Release) -> Entry<'a> {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Entry { model, at, actor: "ann", operation: "promote", from, to, reason: Some("better") }
    }

    #[test]
    fn committed_release_is_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let model: ModelName = "fraud".parse().unwrap();
        let before = Release::default();
        let after = before.apply(&Change::Promote(Version::new(3).unwrap())).unwrap();
        Store::open(directory.path()).unwrap().commit(&[entry(&model, &before, &after)]).unwrap();

        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.releases().unwrap(), BTreeMap::from([(model.clone(), after.clone())]));
        let history = store.history(&model, 10).unwrap();
        assert_eq!((history.len(), history[0].actor.as_str(), &history[0].to), (1, "ann", &after));
    }

    #[test]
    fn changes_committed_together_are_there_all_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let models: [ModelName; 2] = ["fraud".parse().unwrap(), "churn".parse().unwrap()];
        let before = Release::default();
        let after = before.apply(&Change::Promote(Version::new(1).unwrap())).unwrap();
        let entries = models.each_ref().map(|model| entry(model, &before, &after));
        store.commit(&entries).unwrap();
        assert_eq!(store.releases().unwrap().len(), 2);

        store.connection.execute_batch("DELETE FROM release; DROP TABLE history").unwrap();
        store.commit(&entries).unwrap_err();
        assert_eq!(store.releases().unwrap().len(), 0);
    }

    #[test]
    fn second_process_is_refused_with_a_clear_reason() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn newer_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let connection = Connection::open(directory.path().join("tidegate.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(Store::open(directory.path()), Err(StoreError::Format { found: 99, .. })));
    }
}
