//! Why a table cannot be read as a model's inputs.

use std::{fmt, path::PathBuf};

use crate::domain::TensorError;

/// Names that an error lists at most.
const LISTED: usize = 12;

/// Why files cannot be read as a model's inputs.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} {reason}", path.display())]
    Files { path: PathBuf, reason: String },
    #[error("{} is {what}: Parquet, CSV and lines of JSON are read (pandas writes them with to_parquet, to_csv)", path.display())]
    Format { path: PathBuf, what: &'static str },
    #[error("{} is not a CSV file with a header: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    #[error("{}, line {line}: it is not an object of JSON: {fault}", path.display())]
    Json { path: PathBuf, line: u64, fault: String },
    #[error("{} is not a readable Parquet file: {source}", path.display())]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },
    #[error("{0}")]
    MissingColumn(Box<MissingColumn>),
    #[error("{} has the column '{column}' twice: it is its columns {first} and {second}", path.display())]
    DuplicateColumn { path: PathBuf, column: String, first: usize, second: usize },
    #[error("{}, column '{column}': {fault}", path.display())]
    Column { path: PathBuf, column: String, fault: String },
    #[error("{}, row {row}, column '{column}': {fault}", path.display())]
    Cell { path: PathBuf, row: u64, column: String, fault: String },
    #[error("input '{tensor}' cannot be filled from rows of a table: {reason}")]
    Input { tensor: String, reason: String },
    #[error("rows do not make a tensor: {0}")]
    Tensor(#[from] TensorError),
}

/// A column that an input needs, and that a file has not.
#[derive(Debug)]
pub struct MissingColumn {
    pub path: PathBuf,
    pub tensor: String,
    /// The first one that is missing.
    pub column: String,
    /// How many others are missing.
    pub others: usize,
    /// The columns of the file.
    pub has: Vec<String>,
    /// What may help, a sentence.
    pub hint: Option<String>,
}

impl fmt::Display for MissingColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, tensor, column, others, has, hint } = self;
        write!(f, "{} has no column '{column}'", path.display())?;
        if *others > 0 {
            write!(f, " (nor {others} more)")?;
        }
        write!(f, ", which input '{tensor}' needs: it has {}", listed(has))?;
        hint.iter().try_for_each(|hint| write!(f, ". {hint}"))
    }
}

/// The first names, and how many there are beside them.
pub(super) fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no columns at all".into();
    }
    let shown: Vec<_> = names.iter().take(LISTED).map(|name| format!("'{name}'")).collect();
    let more = names.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
