//! Changes, their audit log and its chain, in a real file.

use std::path::Path;

use super::*;
use crate::{domain::Version, release::Change};

fn entry<'a>(model: &'a ModelName, from: &'a Release, to: &'a Release) -> Entry<'a> {
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Entry {
        model,
        at,
        actor: "ann",
        operation: "promote",
        asked: "version 3",
        outcome: Outcome::Done,
        from,
        to,
        detail: None,
        reason: Some("better"),
        attempts: 1,
        key: None,
        allowance: None,
        accepted: None,
    }
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

/// A file with the promotions of versions 1 to 5.
fn five_promotions(directory: &Path) -> Store {
    let mut store = Store::open(directory).unwrap();
    let model: ModelName = "fraud".parse().unwrap();
    let mut before = Release::default();
    for number in 1..=5 {
        let after = before.apply(&Change::Promote(Version::new(number).unwrap())).unwrap();
        store.commit(&[entry(&model, &before, &after)]).unwrap();
        before = after;
    }
    store
}

#[test]
fn chain_of_an_untouched_log_holds() {
    let directory = tempfile::tempdir().unwrap();
    let store = five_promotions(directory.path());
    let found = store.verify().unwrap();
    assert_eq!((found.entries, &found.broken), (5, &None));
    let newest = store.history(&"fraud".parse().unwrap(), 1).unwrap().remove(0);
    assert_eq!(found.head, Some(Head { sequence: 5, hash: newest.hash }));
}

#[test]
fn first_entry_that_is_not_as_written_is_named() {
    for (tampering, broken) in [
        ("UPDATE history SET actor = 'bob' WHERE sequence = 3", 3),
        ("UPDATE history SET reason = NULL WHERE sequence = 2", 2),
        ("UPDATE history SET outcome = 'refused' WHERE sequence = 5", 5),
        ("UPDATE history SET at_micros = at_micros + 1 WHERE sequence = 1", 1),
        ("DELETE FROM history WHERE sequence = 1", 1),
        ("DELETE FROM history WHERE sequence = 3", 3),
        ("DELETE FROM history WHERE sequence >= 4", 4),
        ("UPDATE history SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE sequence = 4", 4),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = five_promotions(directory.path());
        store.connection.execute_batch(tampering).unwrap();
        let found = store.verify().unwrap();
        assert_eq!(found.broken.map(|broken| broken.sequence), Some(broken), "{tampering}");
        assert_eq!(found.entries, broken - 1, "{tampering}");
    }
}

#[test]
fn entry_written_after_the_newest_were_removed_does_not_hide_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = five_promotions(directory.path());
    store.connection.execute_batch("DELETE FROM history WHERE sequence >= 4").unwrap();
    let (model, release) = ("fraud".parse().unwrap(), Release::default());
    store.commit(&[entry(&model, &release, &release)]).unwrap();
    assert_eq!(store.verify().unwrap().broken.unwrap().sequence, 4);
}

#[test]
fn refused_attempt_is_in_the_log_and_leaves_no_release() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let (model, release) = ("fraud".parse().unwrap(), Release::default());
    let refused = Entry { outcome: Outcome::Refused, detail: Some("not ready"), ..entry(&model, &release, &release) };
    store.commit(&[refused]).unwrap();
    assert!(store.releases().unwrap().is_empty() && store.knows(&model).unwrap());
    let entry = store.history(&model, 1).unwrap().remove(0);
    assert_eq!((entry.outcome, entry.detail.as_deref()), (Outcome::Refused, Some("not ready")));
}

#[test]
fn key_answers_after_reopening_and_only_for_the_same_content() {
    let directory = tempfile::tempdir().unwrap();
    let model: ModelName = "fraud".parse().unwrap();
    let before = Release::default();
    let after = before.apply(&Change::Promote(Version::new(3).unwrap())).unwrap();
    let key = KeyEntry { key: "k-1", content: "fraud promote 3" };
    let with_key = Entry { key: Some(key), ..entry(&model, &before, &after) };
    let at = with_key.at;
    Store::open(directory.path()).unwrap().commit(&[with_key]).unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.answered(key, at).unwrap(), Some(after));
    let other = KeyEntry { content: "fraud promote 4", ..key };
    assert!(matches!(store.answered(other, at), Err(KeyError::OtherContent)));
    assert_eq!(store.answered(KeyEntry { key: "k-2", ..key }, at).unwrap(), None);
    assert_eq!(store.answered(key, at + KEY_LIFETIME).unwrap(), None);
}

#[test]
fn allowance_is_there_after_reopening_for_the_last_digest() {
    let directory = tempfile::tempdir().unwrap();
    let (model, release): (ModelName, _) = ("fraud".parse().unwrap(), Release::default());
    let version = Version::new(3).unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    for digest in ["sha256:1", "sha256:2"] {
        let allowance = Some(Allowance { version, digest });
        store.commit(&[Entry { allowance, ..entry(&model, &release, &release) }]).unwrap();
    }
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.allowances().unwrap(), Allowances::from([((model, version), "sha256:2".into())]));
}

/// SQLite says of a file that may not grow what it says of a full disk.
fn allow_no_more_pages(store: &Store) {
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
}

#[test]
fn change_on_a_full_disk_is_refused_with_the_cause_and_the_place_and_costs_the_reserve() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open_with_reserve(directory.path(), 4096).unwrap();
    let disk = store.disk();
    assert_eq!((disk.reserve_bytes(), disk.fault()), (4096, None));
    allow_no_more_pages(&store);
    let model: ModelName = "fraud".parse().unwrap();
    let before = Release::default();
    let after = before.apply(&Change::Promote(Version::new(1).unwrap())).unwrap();
    let long = "x".repeat(1 << 20);
    let refused = Entry { outcome: Outcome::Refused, reason: Some(&long), ..entry(&model, &before, &before) };
    store.commit(&[refused]).unwrap_err();
    assert_eq!(disk.reserve_bytes(), 4096, "an attempt that changes nothing is not worth it");
    let change = Entry { reason: Some(&long), ..entry(&model, &before, &after) };
    let error = store.commit(&[change]).unwrap_err();
    assert_eq!((error.code(), disk.fault(), disk.reserve_bytes()), (ErrorCode::Unavailable, Some(Cause::Full), 0));
    for words in ["is full", directory.path().to_str().unwrap(), "free some space"] {
        assert!(error.message().contains(words), "{words}: {}", error.message());
    }
    assert!(store.releases().unwrap().is_empty(), "nothing of it was made");
    store.look();
    assert_eq!((disk.fault(), disk.reserve_bytes()), (None, 4096), "there is room in truth");
}

#[test]
fn files_of_released_versions_are_there_after_reopening_until_they_are_not_released() {
    let directory = tempfile::tempdir().unwrap();
    let (model, version): (ModelName, _) = ("fraud".parse().unwrap(), Version::new(3).unwrap());
    let files = |digest: &str| ModelFiles { digest: digest.into(), identity: format!("{digest} and weights") };
    let (first, second) = (files("sha256:1"), files("sha256:2"));
    let mut store = Store::open(directory.path()).unwrap();
    store.commit_all(&[], &[], &[ReleasedRow { model: &model, version, files: Some(&first) }]).unwrap();
    let release = Release::default();
    store.commit(&[Entry { accepted: Some((version, &second)), ..entry(&model, &release, &release) }]).unwrap();
    drop(store);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.released().unwrap(), Released::from([((model.clone(), version), second)]));
    store.commit_all(&[], &[], &[ReleasedRow { model: &model, version, files: None }]).unwrap();
    assert!(store.released().unwrap().is_empty());
}

#[test]
fn state_of_this_format_is_opened_without_a_write() {
    let directory = tempfile::tempdir().unwrap();
    drop(five_promotions(directory.path()));
    let print = || std::fs::read(directory.path().join(FILE)).unwrap();
    let before = print();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(std::fs::metadata(directory.path().join("tidegate.db-wal")).map_or(0, |log| log.len()), 0);
    assert_eq!(store.verify().unwrap().entries, 5);
    drop(store);
    assert!(print() == before);
}

#[test]
fn copy_has_what_a_killed_process_left_in_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut killed = five_promotions(directory.path());
    let (model, release) = ("churn".parse().unwrap(), Release::default());
    let after = release.apply(&Change::Promote(Version::new(7).unwrap())).unwrap();
    killed.commit(&[entry(&model, &release, &after)]).unwrap();
    // Not closed: what it wrote last is in the log only.
    let copy = Copy::of(directory.path()).unwrap();
    let (place, found) = (copy.directory().to_owned(), Store::open(copy.directory()).unwrap().releases().unwrap());
    assert_eq!(found, killed.releases().unwrap());
    assert_eq!(found[&model].stable, Version::new(7));
    drop(copy);
    assert!(!place.exists());
}
