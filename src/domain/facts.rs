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
    /// The priorities that the configuration declares; 0: none. Any number is taken all the same.
    pub priority_levels: u64,
    /// The file in a version's directory that is the model, when not `model.onnx`.
    pub model_file: Option<String>,
    /// The requests that the configuration has run before a version is ready.
    pub warmup: Vec<WarmupFacts>,
    pub versions: VersionPolicy,
    pub parameters: BTreeMap<String, String>,
    pub labels: Labels,
}

/// A declared warm-up request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupFacts {
    pub name: String,
    /// Rows of the request.
    pub rows: usize,
    /// How often it is run.
    pub count: usize,
    /// Shapes as declared, and where the elements come from, by input.
    pub inputs: Vec<(String, Vec<i64>, WarmupElements)>,
}

/// Where the elements of a warm-up request come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmupElements {
    Zeros,
    Random,
    /// The name of a file in the directory `warmup`.
    File(String),
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
