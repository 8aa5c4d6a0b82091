//! What goes to a worker and comes back: one line of JSON each.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A model to be tried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::registry::admission) struct Job {
    pub(in crate::registry::admission) directory: PathBuf,
    /// Directories outside that its links may lead to.
    pub(in crate::registry::admission) link_roots: Vec<PathBuf>,
    /// The model's file in it.
    pub(in crate::registry::admission) model_file: String,
    /// SHA-256 that the file must have.
    pub(in crate::registry::admission) digest: String,
    /// Bytes of the version's files.
    pub(in crate::registry::admission) size: u64,
    /// Seconds of processor time.
    pub(in crate::registry::admission) seconds: u64,
    /// Bytes that may be allocated.
    pub(in crate::registry::admission) memory: u64,
    /// Nothing else needs the processor more.
    pub(in crate::registry::admission) is_urgent: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry::admission) enum Reply {
    /// It was read, contained, loaded, and run where made-up inputs allow.
    Passed,
    /// It refers to files that it must not; it was not loaded.
    Outside(Vec<String>),
    /// It cannot be read or loaded.
    Refused(Vec<String>),
    /// Its file is not what it was a moment ago.
    Changed,
    /// The worker cannot try out anything.
    Unable(String),
}
