//! The audit log as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Release, timestamp};
use crate::{domain::ModelName, registry, store};

/// An attempt at a change, made or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    pub sequence: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub actor: String,
    pub operation: String,
    /// What the operation was asked with, such as `version 4 at 10%`; may be empty.
    pub asked: String,
    /// `ok`, `unchanged`, `refused` or `failed`.
    pub outcome: String,
    pub from: Release,
    pub to: Release,
    /// Why it was refused, or what came of it beside the release.
    pub detail: Option<String>,
    pub reason: Option<String>,
    /// The attempts that the entry stands for: repetitions that change nothing are counted, not listed.
    pub attempts: u64,
    /// The entry's place in the hash chain: SHA-256, in hex.
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    pub model: String,
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
    /// Absent unless asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// What a check of the hash chain over the whole audit log found, of all models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    pub intact: bool,
    /// Entries that are as they were written, counted from the first.
    pub entries: u64,
    /// The last of them; note its hash elsewhere to be able to prove the log later.
    pub head: Option<Head>,
    /// The first entry that is not as it was written.
    pub broken: Option<Broken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    pub sequence: u64,
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Broken {
    pub sequence: u64,
    pub why: String,
}

impl History {
    pub(crate) fn new(
        model: &ModelName,
        entries: &[registry::HistoryEntry],
        verification: Option<&store::Verification>,
    ) -> Self {
        Self {
            model: model.to_string(),
            entries: entries.iter().map(HistoryEntry::from).collect(),
            verification: verification.map(Verification::from),
        }
    }
}

impl From<&registry::HistoryEntry> for HistoryEntry {
    fn from(entry: &registry::HistoryEntry) -> Self {
        Self {
            sequence: entry.sequence,
            at: timestamp(entry.at),
            actor: entry.actor.clone(),
            operation: entry.operation.clone(),
            asked: entry.asked.clone(),
            outcome: entry.outcome.as_str().to_owned(),
            from: Release::from(&entry.from),
            to: Release::from(&entry.to),
            detail: entry.detail.clone(),
            reason: entry.reason.clone(),
            attempts: entry.attempts,
            hash: entry.hash.clone(),
        }
    }
}

impl From<&store::Verification> for Verification {
    fn from(found: &store::Verification) -> Self {
        Self {
            intact: found.broken.is_none(),
            entries: found.entries,
            head: found.head.as_ref().map(|head| Head { sequence: head.sequence, hash: head.hash.clone() }),
            broken: found.broken.as_ref().map(|broken| Broken { sequence: broken.sequence, why: broken.why.clone() }),
        }
    }
}
