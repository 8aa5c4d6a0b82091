//! The hash chain over the audit log.
//!
//! Each entry carries the SHA-256 of its canonical form, in which the hash of the entry before it
//! stands: whoever changes, removes or inserts an entry must make every later hash again. The
//! chain therefore proves that the log is the one whose newest hash somebody noted elsewhere. It
//! does not keep a writer of the file from making the whole chain anew, and cannot: a hash noted
//! outside is what finds that.
//!
//! The canonical form is a JSON array without spaces: the columns in the order of [`Row`], then the
//! previous hash. Anybody can compute it from the file.

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::StoreError;

/// The hash before the first entry.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A row of the table `history`, less its hash. The order is that of the canonical form.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) sequence: i64,
    pub(super) model: &'a str,
    pub(super) at_micros: i64,
    pub(super) actor: &'a str,
    pub(super) operation: &'a str,
    pub(super) asked: &'a str,
    pub(super) outcome: &'a str,
    pub(super) before: &'a str,
    pub(super) after: &'a str,
    pub(super) detail: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
    pub(super) attempts: i64,
}

impl Row<'_> {
    /// The hash of the row, in hex.
    pub(super) fn hash(&self, previous: &str) -> String {
        let row = self;
        let form = serde_json::json!([
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
            previous,
        ]);
        hex(&Sha256::digest(form.to_string()))
    }
}

/// The newest entry: its number and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub sequence: u64,
    pub hash: String,
}

/// What walking the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Entries whose hash is right, counted from the first.
    pub entries: u64,
    /// The last of them.
    pub head: Option<Head>,
    /// The first entry that is not as it was written; `None`: all are.
    pub broken: Option<Broken>,
}

/// The first entry at which the chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub sequence: u64,
    pub why: String,
}

pub(super) const COLUMNS: &str =
    "sequence, model, at_micros, actor, operation, asked, outcome, before, after, detail, reason, attempts, hash";

/// The number and the hash of the entry that was written last, as the next one needs them. Numbers are
/// never given twice, even if the newest entries are gone.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<(i64, String)> {
    let mut counter = connection.prepare_cached(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'history'), 0),
                coalesce((SELECT hash FROM history ORDER BY sequence DESC LIMIT 1), ?1)",
    )?;
    counter.query_row([NOTHING], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Walks the whole chain, from the first entry to the newest, up to the first that is broken.
pub(super) fn verify(connection: &Connection) -> Result<Verification, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM history ORDER BY sequence"))?;
    let mut rows = statement.query([])?;
    let mut found = Verification { entries: 0, head: None, broken: None };
    let mut previous = NOTHING.to_owned();
    let mut expected = 1;
    while let Some(row) = rows.next()? {
        let text = |index| row.get_ref(index).and_then(|value| value.as_str().map_err(Into::into));
        let optional = |index| row.get_ref(index).and_then(|value| value.as_str_or_null().map_err(Into::into));
        let sequence: i64 = row.get(0)?;
        let entry = Row {
            sequence,
            model: text(1)?,
            at_micros: row.get(2)?,
            actor: text(3)?,
            operation: text(4)?,
            asked: text(5)?,
            outcome: text(6)?,
            before: text(7)?,
            after: text(8)?,
            detail: optional(9)?,
            reason: optional(10)?,
            attempts: row.get(11)?,
        };
        if sequence != expected {
            found.broken = Some(missing(expected, sequence - 1));
            return Ok(found);
        }
        let hash = entry.hash(&previous);
        if hash != text(12)? {
            let why = "its hash is not that of its content after the entry before it: one of the two was changed";
            found.broken = Some(Broken { sequence: sequence.unsigned_abs(), why: why.to_owned() });
            return Ok(found);
        }
        found.entries += 1;
        found.head = Some(Head { sequence: sequence.unsigned_abs(), hash: hash.clone() });
        (previous, expected) = (hash, expected + 1);
    }
    let (last, _) = head(connection)?;
    if last >= expected {
        found.broken = Some(missing(expected, last));
    }
    Ok(found)
}

fn missing(first: i64, last: i64) -> Broken {
    let why = if first == last { "it is missing".to_owned() } else { format!("it is missing, up to entry {last}") };
    Broken { sequence: first.unsigned_abs(), why }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
