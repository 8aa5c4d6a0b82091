//! What a model's configuration says of it to clients, beside its signature and its settings.

use std::{collections::BTreeMap, sync::Arc};

/// Which versions of a model are loaded by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VersionPolicy {
    #[default]
    All,
    /// This many of the highest.
    Latest(usize),
    /// These, where they exist.
    Specific(Vec<u64>),
}

/// The facts that clients are shown of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// The rows that a request may have; 0: the model's tensors have no batch dimension.
    /// `None`: the configuration says nothing of it.
    pub max_batch_size: Option<u32>,
    /// Kept for clients to see; the scheduler takes what waits.
    pub preferred_batch_sizes: Vec<i32>,
    pub versions: VersionPolicy,
    pub parameters: BTreeMap<String, String>,
    pub labels: Labels,
}

/// Names of the classes of outputs: the names of an output's own, otherwise those of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// For outputs without names of their own.
    pub all: Option<Arc<[String]>>,
    pub by_output: BTreeMap<String, Arc<[String]>>,
    /// The file that an output's own names came from.
    pub files: BTreeMap<String, String>,
}

impl Labels {
    /// The class names of an output, by index.
    #[must_use]
    pub fn of(&self, output: &str) -> Option<&[String]> {
        self.by_output.get(output).or(self.all.as_ref()).map(AsRef::as_ref)
    }
}
