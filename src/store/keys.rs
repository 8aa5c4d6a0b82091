//! Idempotency keys: what a change with a key answered, so that asking again changes nothing again.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};

use super::micros;

/// How long a key is remembered.
pub const LIFETIME: Duration = Duration::from_hours(24);
/// The keys that are remembered; the oldest make room.
const MOST: i64 = 10_000;

/// A key as it is made durable with a change.
#[derive(Debug, Clone, Copy)]
pub struct KeyEntry<'a> {
    pub key: &'a str,
    /// All that was asked: a repetition must ask the same.
    pub content: &'a str,
}

/// What was asked and answered under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) content: String,
    /// The stored form of the release that was the answer.
    pub(super) answer: String,
}

pub(super) fn find(connection: &Connection, key: &str, now: SystemTime) -> rusqlite::Result<Option<Remembered>> {
    let mut find =
        connection.prepare_cached("SELECT content, answer FROM idempotency WHERE key = ?1 AND at_micros > ?2")?;
    find.query_row(params![key, oldest(now)], |row| Ok(Remembered { content: row.get(0)?, answer: row.get(1)? }))
        .optional()
}

pub(super) fn remember(
    connection: &Connection,
    entry: KeyEntry<'_>,
    answer: &str,
    now: SystemTime,
) -> rusqlite::Result<()> {
    let mut forget = connection.prepare_cached(
        "DELETE FROM idempotency WHERE at_micros <= ?1
         OR key IN (SELECT key FROM idempotency ORDER BY at_micros DESC LIMIT -1 OFFSET ?2)",
    )?;
    forget.execute(params![oldest(now), MOST - 1])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO idempotency (key, at_micros, content, answer) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO NOTHING",
    )?;
    insert.execute(params![entry.key, micros(now), entry.content, answer])?;
    Ok(())
}

fn oldest(now: SystemTime) -> i64 {
    now.checked_sub(LIFETIME).map_or(0, micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrate;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn file() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        migrate::migrate(&transaction).unwrap();
        transaction.commit().unwrap();
        connection
    }

    #[test]
    fn key_is_remembered_for_its_lifetime() {
        let connection = file();
        remember(&connection, KeyEntry { key: "k", content: "promote 4" }, "answer", at(0)).unwrap();
        let found = find(&connection, "k", at(LIFETIME.as_secs() - 1)).unwrap();
        assert_eq!(found, Some(Remembered { content: "promote 4".into(), answer: "answer".into() }));
        assert_eq!(find(&connection, "k", at(LIFETIME.as_secs())).unwrap(), None);
    }

    #[test]
    fn number_of_keys_is_bounded_and_the_oldest_go_first() {
        let connection = file();
        let transaction = connection.unchecked_transaction().unwrap();
        for number in 0..u64::try_from(MOST).unwrap() + 5 {
            let key = number.to_string();
            remember(&connection, KeyEntry { key: &key, content: "" }, "", at(number)).unwrap();
        }
        transaction.commit().unwrap();
        let kept: i64 = connection.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, MOST);
        assert_eq!(find(&connection, "4", at(20_000)).unwrap(), None);
        assert!(find(&connection, "5", at(20_000)).unwrap().is_some());
    }
}
