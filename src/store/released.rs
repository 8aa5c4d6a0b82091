//! What the files of released versions were: a version that a release names does not become another model unless somebody
//! says so, over restarts too.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};

use super::{Store, StoreError};
use crate::domain::{IdError, ModelName, Version};

/// Beside the tables of the file's format, as that of the rollouts: older programs do not mind it.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS released (
        model    TEXT NOT NULL,
        version  INTEGER NOT NULL,
        digest   TEXT NOT NULL,
        identity TEXT NOT NULL,
        PRIMARY KEY (model, version)
    ) STRICT;
";

/// The model of a version, told apart from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// `sha256:` and the hex digest of the model file.
    pub digest: String,
    /// The same over the model file and the files of its weights; the digest itself where there are none.
    pub identity: String,
}

/// By model and version.
pub type Released = BTreeMap<(ModelName, Version), ModelFiles>;

/// What is noted of a version with a change; `None`: it is not released any more.
#[derive(Debug, Clone, Copy)]
pub struct ReleasedRow<'a> {
    pub model: &'a ModelName,
    pub version: Version,
    pub files: Option<&'a ModelFiles>,
}

pub(super) fn write(transaction: &Transaction<'_>, row: &ReleasedRow<'_>) -> rusqlite::Result<()> {
    let (model, version) = (row.model.as_str(), row.version.get().cast_signed());
    let Some(files) = row.files else {
        let mut forget = transaction.prepare_cached("DELETE FROM released WHERE model = ?1 AND version = ?2")?;
        forget.execute(params![model, version])?;
        return Ok(());
    };
    let mut note = transaction.prepare_cached(
        "INSERT INTO released (model, version, digest, identity) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (model, version) DO UPDATE SET digest = ?3, identity = ?4",
    )?;
    note.execute(params![model, version, files.digest, files.identity])?;
    Ok(())
}

fn read_all(connection: &Connection) -> Result<Released, StoreError> {
    let mut statement = connection.prepare("SELECT model, version, digest, identity FROM released")?;
    let mut rows = statement.query([])?;
    let mut released = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (model, version): (String, i64) = (row.get(0)?, row.get(1)?);
        let corrupt = |reason: String| StoreError::Corrupt { model: model.clone(), reason };
        let name = model.parse().map_err(|error: IdError| corrupt(error.to_string()))?;
        let version = Version::new(version.cast_unsigned()).ok_or_else(|| corrupt("version 0 is released".into()))?;
        released.insert((name, version), ModelFiles { digest: row.get(2)?, identity: row.get(3)? });
    }
    Ok(released)
}

impl Store {
    /// The files of all released versions, as far as they were loaded once.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn released(&self) -> Result<Released, StoreError> {
        read_all(&self.connection)
    }
}
