//! What must survive: releases and the audit log, in one `SQLite` file in the state directory.
//!
//! A change is acknowledged only after [`Store::commit`] has returned: the file is in WAL mode
//! with `synchronous = FULL`, so a committed change survives `kill -9` and a power cut. One
//! process owns the file; a second one is refused at the start.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `migrate` | the tables, and the way from older formats |
//! | `json` | the stored form of a release |
//! | `chain` | the hash chain over the audit log |
//! | `keys` | idempotency keys |
//! | `allowance` | signatures that may differ from the stable one's |
//! | `rollout` | progressive rollouts and what they have counted |
//! | `released` | what the files of released versions were |
//! | `disk` | why nothing can be written, and the reserve for a full disk |
//! | `copy` | what a start reads where the state cannot be written |
//! | `open` | the start, and what becomes of a write that fails |

mod allowance;
mod chain;
mod copy;
mod disk;
mod json;
mod keys;
mod migrate;
mod open;
mod released;
mod rollout;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Row, Transaction, params};

pub use self::{
    allowance::{Allowance, Allowances},
    chain::{Broken, Head, Verification},
    disk::{Cause, StateDisk},
    keys::{KeyEntry, LIFETIME as KEY_LIFETIME},
    released::{ModelFiles, Released, ReleasedRow},
    rollout::RolloutRow,
};
use self::{copy::Copy, disk::Reserve};
use crate::{
    domain::{ModelName, Version},
    fault::{ErrorCode, Fault},
    registry::HistoryEntry,
    release::{Outcome, Release},
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
    #[error("the state file {}: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    /// Nothing can be written there now.
    #[error("{cause} ({}): {detail}", path.display())]
    Write { cause: Cause, path: PathBuf, detail: String },
    #[error("the state file is of format {found}; this program reads format {expected}")]
    Format { found: i64, expected: i64 },
    #[error("the state of model '{model}' cannot be read: {reason}")]
    Corrupt { model: String, reason: String },
}

impl Fault for StoreError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Write { .. } => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        }
    }

    fn message(&self) -> String {
        let what = "the change could not be made durable, and was not made";
        match self {
            Self::Write { cause, path, .. } => {
                format!("{what}: {cause} ({}); {}. Requests are answered as before", path.display(), cause.advice())
            }
            _ => format!("{what}: the gateway's log says why"),
        }
    }
}

/// The open state file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    disk: StateDisk,
    reserve: Reserve,
    /// What is read where the state could not be opened for writing. Nothing is written to it.
    copy: Option<Copy>,
}

/// The name of the state file.
const FILE: &str = "tidegate.db";

/// An attempt at a change, as it goes into the audit log.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    pub model: &'a ModelName,
    pub at: SystemTime,
    pub actor: &'a str,
    pub operation: &'a str,
    /// What the operation was asked with, such as `version 4 at 10%`; may be empty.
    pub asked: &'a str,
    pub outcome: Outcome,
    pub from: &'a Release,
    /// What the release became; as `from` unless the outcome is [`Outcome::Done`].
    pub to: &'a Release,
    /// Why it was refused, or what came of it beside the release.
    pub detail: Option<&'a str>,
    pub reason: Option<&'a str>,
    /// The attempts that the entry stands for: itself, and those like it that were not written.
    pub attempts: u64,
    /// Remembered with the change.
    pub key: Option<KeyEntry<'a>>,
    /// Remembered with the change too.
    pub allowance: Option<Allowance<'a>>,
    /// And the files that were accepted for a released version.
    pub accepted: Option<(Version, &'a ModelFiles)>,
}

impl Store {
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
        self.commit_all(entries, rollouts, &[])
    }

    /// The last rollout of every model that had one, with the keys counted in the step that goes on.
    pub fn rollouts(&self) -> Result<BTreeMap<ModelName, (Rollout, Vec<u8>)>, StoreError> {
        rollout::read_all(&self.connection)
    }

    /// The audit log of a model, newest first.
    pub fn history(&self, model: &ModelName, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let columns = chain::COLUMNS;
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {columns} FROM history WHERE model = ?1 ORDER BY sequence DESC LIMIT ?2"))?;
        let mut rows = statement.query(params![model.as_str(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(history_entry(model, row)?);
        }
        Ok(entries)
    }

    /// Checks the hash chain over the whole audit log. The chain is one for all models, so that
    /// the removal of a model's last entries shows too.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        chain::verify(&self.connection)
    }

    /// What a change with this key answered, while the key is remembered.
    ///
    /// # Errors
    /// [`KeyError::OtherContent`] when something else was asked with it.
    pub fn answered(&self, key: KeyEntry<'_>, now: SystemTime) -> Result<Option<Release>, KeyError> {
        let Some(found) = keys::find(&self.connection, key.key, now).map_err(StoreError::from)? else {
            return Ok(None);
        };
        if found.content != key.content {
            return Err(KeyError::OtherContent);
        }
        let corrupt = |reason| StoreError::Corrupt { model: "(an idempotency key)".into(), reason };
        Ok(Some(json::decode(&found.answer).map_err(corrupt)?))
    }

    /// True when the model has a stored release or an audit log.
    pub fn knows(&self, model: &ModelName) -> Result<bool, StoreError> {
        let is_known = "SELECT EXISTS (SELECT 1 FROM release WHERE model = ?1)
                        OR EXISTS (SELECT 1 FROM history WHERE model = ?1)";
        Ok(self.connection.query_row(is_known, [model.as_str()], |row| row.get(0))?)
    }
}

/// Why a key does not answer.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("this Idempotency-Key was used for another request: use a new key for a new change")]
    OtherContent,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault for KeyError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::OtherContent => ErrorCode::Unprocessable,
            Self::Store(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::OtherContent => self.to_string(),
            Self::Store(error) => error.message(),
        }
    }
}

fn history_entry(model: &ModelName, row: &Row<'_>) -> Result<HistoryEntry, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { model: model.to_string(), reason };
    let release = |body: String| json::decode(&body).map_err(corrupt);
    let outcome: String = row.get(6)?;
    Ok(HistoryEntry {
        sequence: row.get::<_, i64>(0)?.unsigned_abs(),
        at: UNIX_EPOCH + Duration::from_micros(row.get::<_, i64>(2)?.unsigned_abs()),
        actor: row.get(3)?,
        operation: row.get(4)?,
        asked: row.get(5)?,
        outcome: Outcome::parse(&outcome).ok_or_else(|| corrupt(format!("the outcome '{outcome}'")))?,
        from: release(row.get(7)?)?,
        to: release(row.get(8)?)?,
        detail: row.get(9)?,
        reason: row.get(10)?,
        attempts: row.get::<_, i64>(11)?.unsigned_abs(),
        hash: row.get(12)?,
    })
}

fn micros(at: SystemTime) -> i64 {
    let micros = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    i64::try_from(micros).unwrap_or(i64::MAX)
}

fn write(transaction: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<()> {
    let (before, after) = (json::encode(entry.from), json::encode(entry.to));
    if entry.from != entry.to {
        let mut release = transaction.prepare_cached(
            "INSERT INTO release (model, body) VALUES (?1, ?2) ON CONFLICT (model) DO UPDATE SET body = ?2",
        )?;
        release.execute(params![entry.model.as_str(), after])?;
    }
    if let Some(key) = entry.key {
        keys::remember(transaction, key, &after, entry.at)?;
    }
    if let Some(allowance) = entry.allowance {
        allowance::write(transaction, entry.model.as_str(), allowance)?;
    }
    if let Some((version, files)) = entry.accepted {
        released::write(transaction, &ReleasedRow { model: entry.model, version, files: Some(files) })?;
    }
    let (last, previous) = chain::head(transaction)?;
    let row = chain::Row {
        sequence: last + 1,
        model: entry.model.as_str(),
        at_micros: micros(entry.at),
        actor: entry.actor,
        operation: entry.operation,
        asked: entry.asked,
        outcome: entry.outcome.as_str(),
        before: &before,
        after: &after,
        detail: entry.detail,
        reason: entry.reason,
        attempts: i64::try_from(entry.attempts).unwrap_or(i64::MAX),
    };
    let mut history = transaction.prepare_cached(&format!(
        "INSERT INTO history ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        chain::COLUMNS
    ))?;
    history.execute(params![
        row.sequence,
        row.model,
        row.at_micros,
        row.actor,
        row.operation,
        row.asked,
        row.outcome,
        row.before,
        row.after,
        row.detail,
        row.reason,
        row.attempts,
        row.hash(&previous),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests;
