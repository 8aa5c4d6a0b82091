//! Versions that may break clients of the stable one, because an operator said so when they were loaded.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};

use super::{Store, StoreError};
use crate::domain::{IdError, ModelName, Version};

/// Beside the tables of the file's format, as that of the rollouts: older programs do not mind it.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS allowance (
        model   TEXT NOT NULL,
        version INTEGER NOT NULL,
        digest  TEXT NOT NULL,
        PRIMARY KEY (model, version)
    ) STRICT;
";

/// The digest for which each version was allowed: another model under the same number was not.
pub type Allowances = BTreeMap<(ModelName, Version), String>;

/// An allowance as it is made durable with the load that needed it.
#[derive(Debug, Clone, Copy)]
pub struct Allowance<'a> {
    pub version: Version,
    /// Of the version's model file.
    pub digest: &'a str,
}

pub(super) fn write(transaction: &Transaction<'_>, model: &str, allowance: Allowance<'_>) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO allowance (model, version, digest) VALUES (?1, ?2, ?3)
         ON CONFLICT (model, version) DO UPDATE SET digest = ?3",
    )?;
    statement.execute(params![model, allowance.version.get().cast_signed(), allowance.digest])?;
    Ok(())
}

fn read_all(connection: &Connection) -> Result<Allowances, StoreError> {
    let mut statement = connection.prepare("SELECT model, version, digest FROM allowance")?;
    let mut rows = statement.query([])?;
    let mut allowances = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (model, version): (String, i64) = (row.get(0)?, row.get(1)?);
        let corrupt = |reason: String| StoreError::Corrupt { model: model.clone(), reason };
        let name = model.parse().map_err(|error: IdError| corrupt(error.to_string()))?;
        let version = Version::new(version.cast_unsigned()).ok_or_else(|| corrupt("version 0 is allowed".into()))?;
        allowances.insert((name, version), row.get(2)?);
    }
    Ok(allowances)
}

impl Store {
    /// What was allowed, of all models.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn allowances(&self) -> Result<Allowances, StoreError> {
        read_all(&self.connection)
    }
}
