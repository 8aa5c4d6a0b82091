//! The tables, and how a file of an older format becomes one of this format.
//!
//! `user_version` counts the steps that a file has been through. A step is never changed once it was
//! released; what comes new is a new step.

use rusqlite::{Connection, Transaction, params};

use super::{StoreError, allowance, chain, released, rollout};

type Step = fn(&Transaction<'_>) -> rusqlite::Result<()>;

const STEPS: [Step; 2] = [releases_and_history, chain_and_keys];

/// The file format: the number of steps.
#[expect(clippy::cast_possible_wrap, reason = "a handful")]
pub(super) const FORMAT: i64 = STEPS.len() as i64;

/// Brings the file to this format.
pub(super) fn migrate(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found).ok().filter(|done| *done <= STEPS.len());
    let done = done.ok_or(StoreError::Format { found, expected: FORMAT })?;
    for step in &STEPS[done..] {
        step(transaction)?;
    }
    transaction.execute_batch(rollout::TABLE)?;
    transaction.execute_batch(allowance::TABLE)?;
    transaction.execute_batch(released::TABLE)?;
    if found != FORMAT {
        // A start on a full disk has nothing to write.
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    Ok(())
}

fn releases_and_history(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE release (
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
        CREATE INDEX history_by_model ON history (model, sequence);",
    )
}

/// The audit log becomes a chain, and has more to say. What an older program wrote is chained as it is
/// found: from here on it cannot be changed unnoticed.
fn chain_and_keys(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE history ADD COLUMN asked    TEXT NOT NULL DEFAULT '';
        ALTER TABLE history ADD COLUMN outcome  TEXT NOT NULL DEFAULT 'ok';
        ALTER TABLE history ADD COLUMN detail   TEXT;
        ALTER TABLE history ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1;
        ALTER TABLE history ADD COLUMN hash     TEXT NOT NULL DEFAULT '';
        CREATE TABLE idempotency (
            key       TEXT PRIMARY KEY,
            at_micros INTEGER NOT NULL,
            content   TEXT NOT NULL,
            answer    TEXT NOT NULL
        ) STRICT;
        CREATE INDEX idempotency_by_age ON idempotency (at_micros);",
    )?;
    number_again(transaction)?;
    chain_all(transaction)
}

/// Numbers without gaps, which the chain looks for: an older program left none, but a restored copy may.
fn number_again(connection: &Connection) -> rusqlite::Result<()> {
    let entries: i64 = connection.query_row("SELECT count(*) FROM history", [], |row| row.get(0))?;
    connection.execute(
        "UPDATE history SET sequence = -(SELECT count(*) FROM history AS older WHERE older.sequence <= history.sequence)
         WHERE (SELECT coalesce(max(sequence), 0) FROM history) <> ?1",
        [entries],
    )?;
    connection.execute("UPDATE history SET sequence = -sequence WHERE sequence < 0", [])?;
    connection.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'history'", [entries])?;
    Ok(())
}

fn chain_all(connection: &Connection) -> rusqlite::Result<()> {
    let mut rows = connection.prepare(
        "SELECT sequence, model, at_micros, actor, operation, before, after, reason FROM history ORDER BY sequence",
    )?;
    let mut rows = rows.query([])?;
    let mut set = connection.prepare("UPDATE history SET hash = ?2 WHERE sequence = ?1")?;
    let mut previous = chain::NOTHING.to_owned();
    while let Some(row) = rows.next()? {
        let (model, actor, operation): (String, String, String) = (row.get(1)?, row.get(3)?, row.get(4)?);
        let (before, after, reason): (String, String, Option<String>) = (row.get(5)?, row.get(6)?, row.get(7)?);
        let entry = chain::Row {
            sequence: row.get(0)?,
            model: &model,
            at_micros: row.get(2)?,
            actor: &actor,
            operation: &operation,
            asked: "",
            outcome: "ok",
            before: &before,
            after: &after,
            detail: None,
            reason: reason.as_deref(),
            attempts: 1,
        };
        previous = entry.hash(&previous);
        set.execute(params![entry.sequence, previous])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::TransactionBehavior;

    use super::*;

    /// A file as the first format's program left it.
    fn first_format() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        releases_and_history(&transaction).unwrap();
        transaction.pragma_update(None, "user_version", 1).unwrap();
        let release = r#"{"generation":0,"stable":null,"previous":null,"canary":null,"shadow":null,"labels":{}}"#;
        for (number, operation) in ["promote", "canary", "rollback"].into_iter().enumerate() {
            let add = "INSERT INTO history (model, at_micros, actor, operation, before, after, reason)
                       VALUES ('fraud', ?1, 'ann', ?2, ?3, ?3, NULL)";
            transaction.execute(add, params![i64::try_from(number).unwrap(), operation, release]).unwrap();
        }
        transaction.execute("INSERT INTO release VALUES ('fraud', ?1)", [release]).unwrap();
        transaction.commit().unwrap();
        connection
    }

    fn migrated(connection: &mut Connection) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        migrate(&transaction).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn history_of_the_first_format_is_kept_and_chained() {
        let mut connection = first_format();
        migrated(&mut connection);
        let found = chain::verify(&connection).unwrap();
        assert_eq!((found.entries, found.broken), (3, None));
        let operations: Vec<String> = connection
            .prepare("SELECT operation FROM history ORDER BY sequence")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(operations, ["promote", "canary", "rollback"]);
        let releases: i64 = connection.query_row("SELECT count(*) FROM release", [], |row| row.get(0)).unwrap();
        assert_eq!(releases, 1);
    }

    #[test]
    fn gaps_of_an_older_history_are_closed() {
        let mut connection = first_format();
        connection.execute("DELETE FROM history WHERE sequence = 2", []).unwrap();
        migrated(&mut connection);
        let found = chain::verify(&connection).unwrap();
        assert_eq!((found.entries, found.broken, chain::head(&connection).unwrap().0), (2, None, 2));
    }

    #[test]
    fn file_of_this_format_stays_as_it_is() {
        let mut connection = first_format();
        migrated(&mut connection);
        let before = chain::verify(&connection).unwrap();
        migrated(&mut connection);
        assert_eq!(chain::verify(&connection).unwrap(), before);
    }
}
