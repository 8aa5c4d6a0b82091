//! Reference data in files, CSV, lines of JSON or Parquet: reads them row by row, and makes input tensors of the rows.
//!
//! The columns of the files are matched with the features of the model's inputs by name; others are left alone. No file is
//! held in memory: of Parquet a page of each wanted column is, of text a line.

mod batches;
mod cell;
mod error;
mod parquet_kind;
mod parts;
mod source;
mod text;
mod value;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use batches::{Batch, Batches};
use batches::{Filling, Input};
pub(super) use cell::{Cell, Elements};
pub use error::{MissingColumn, TableError};
use source::Part;
use text::Format;
pub use text::TableOptions;

use super::columns::{ColumnNames, declared_columns, feature_names};
use crate::domain::{Dim, Signature, TensorSpec};

/// Names that a line to paste has at most.
const MOST_PASTED: usize = 64;

/// Files with the same columns. Rows are read when asked for, not kept.
#[derive(Debug)]
pub struct Table {
    parts: Arc<[Part]>,
    columns: Vec<String>,
}

impl Table {
    /// Opens a file; see [`open_all`](Self::open_all).
    ///
    /// # Errors
    /// Likewise.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        Self::open_all(&[path.into()], TableOptions::default())
    }

    /// Opens files, all those of directories, and those that match patterns such as `part-*.parquet`; reads the names of their
    /// columns, and counts their rows. Directories called `key=value` are columns too.
    ///
    /// # Errors
    /// When a file cannot be read, or is none of the known forms; the error names the file and,
    /// for a CSV file with lines of different lengths, the line.
    pub fn open_all(paths: &[PathBuf], options: TableOptions) -> Result<Self, TableError> {
        let files = parts::files(paths)?;
        let parts = files.iter().map(|file| Part::open(file, options)).collect::<Result<Vec<_>, _>>()?;
        let columns = parts.first().map(|part| part.columns.iter().map(|column| column.name.clone()).collect());
        Ok(Self { columns: columns.unwrap_or_default(), parts: parts.into() })
    }

    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// The names of the columns, in the order of the first file.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What was found out of the files and may be wrong, a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let of_dialect = |part: &Part| match part.format {
            Format::Csv(dialect) if dialect.delimiter != b',' || dialect.decimal_comma => {
                let delimiter = char::from(dialect.delimiter).escape_debug().to_string();
                let decimal = if dialect.decimal_comma { "comma" } else { "point" };
                let path = part.path.display();
                Some(format!("{path}: fields are separated by '{delimiter}', decimals have a {decimal}"))
            }
            _ => None,
        };
        notes.extend(self.parts.iter().find_map(of_dialect));
        if self.parts.len() > 1 {
            notes.push(format!("{} files, {} rows", self.parts.len(), self.row_count()));
        }
        notes
    }

    /// The rows as input tensors of a model, some rows at a time: fewer where rows are very wide.
    ///
    /// A column is wanted for each feature of each input: named like the tensor where it has one
    /// column, else by `names`, else `tensor[i]`. A column of lists that is named like the tensor fills it alone: nested as the
    /// input is, or flat. An optional input with no column in the file is
    /// left out. Where a model's first dimension is fixed, a batch has as many rows; the last is filled up with repeated ones.
    ///
    /// # Errors
    /// When a column is missing in a file, is there twice or fits no tensor, or an input has no rows (a scalar) or no known
    /// number of columns.
    pub fn batches(
        &self,
        signature: &Signature,
        names: &ColumnNames,
        rows_per_batch: usize,
    ) -> Result<Batches, TableError> {
        let mut wanted: Vec<String> = Vec::new();
        let mut inputs = Vec::new();
        let mut fixed_rows: Option<(usize, &str)> = None;
        for spec in &signature.inputs {
            let features = self.features_of(spec, names)?;
            let missing = features.iter().filter(|feature| !self.columns.contains(feature)).count();
            if spec.optional && missing == features.len() {
                continue;
            }
            for part in &*self.parts {
                missing_in(part, spec, &features, signature)?;
            }
            if let Some(&Dim::Fixed(rows)) = spec.shape.first() {
                let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                if let Some((other, tensor)) = fixed_rows.filter(|(other, _)| *other != rows) {
                    let reason = format!("it takes {rows} rows at a time, input '{tensor}' takes {other}");
                    return Err(TableError::Input { tensor: spec.name.clone(), reason });
                }
                fixed_rows = Some((rows, &spec.name));
            }
            let filling = if self.has_list(&spec.name) {
                Filling::List { column: wanted.len(), row: None }
            } else {
                Filling::Columns { first: wanted.len(), count: features.len() }
            };
            inputs.push(Input { spec: spec.clone(), filling });
            wanted.extend(features);
        }
        let rows = fixed_rows.map_or(rows_per_batch, |(rows, _)| rows).max(1);
        Batches::new(&self.parts, wanted, inputs, (rows, fixed_rows.is_some()))
    }

    fn has_list(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.column(name).is_some_and(|column| column.is_list))
    }

    /// The names of the columns that fill a row of an input.
    fn features_of(&self, spec: &TensorSpec, names: &ColumnNames) -> Result<Vec<String>, TableError> {
        let refused = |reason: &str| TableError::Input { tensor: spec.name.clone(), reason: reason.into() };
        if spec.shape.is_empty() {
            return Err(refused("it is a scalar, one value for all rows"));
        }
        if self.has_list(&spec.name) {
            return Ok(vec![spec.name.clone()]);
        }
        let is_indexed = |i: &usize| self.columns.contains(&format!("{}[{i}]", spec.name));
        let indexed = || (0..self.columns.len()).take_while(is_indexed).count();
        let columns = match declared_columns(&spec.shape) {
            Some(columns) => columns,
            // One open dimension is as long as the columns say.
            None if spec.shape.len() == 2 => names.get(&spec.name).map_or_else(indexed, Vec::len),
            None => {
                return Err(refused(
                    "it has dimensions of any size after the first, which only a column of lists fills",
                ));
            }
        };
        if columns == 0 {
            return Err(refused(
                "the number of its columns is not known: name them, or call them tensor[0], tensor[1], …, or have one column \
                 of lists that is named like the input",
            ));
        }
        Ok(feature_names(&spec.name, columns, names))
    }
}

/// The error of columns that a file has not.
fn missing_in(part: &Part, spec: &TensorSpec, features: &[String], signature: &Signature) -> Result<(), TableError> {
    let missing: Vec<_> = features.iter().filter(|feature| part.column(feature).is_none()).collect();
    let Some(&column) = missing.first() else { return Ok(()) };
    let hint = near(part, column).or_else(|| unnamed(part, spec, features, signature));
    Err(TableError::MissingColumn(Box::new(MissingColumn {
        path: part.path.clone(),
        tensor: spec.name.clone(),
        column: column.clone(),
        others: missing.len() - 1,
        has: part.columns.iter().map(|column| column.name.clone()).collect(),
        hint,
    })))
}

/// A column that was probably meant: in other letters, or misspelt.
fn near(part: &Part, column: &str) -> Option<String> {
    let plain = |name: &str| name.trim().to_lowercase().replace(['_', '-', ' '], "");
    let wanted = plain(column);
    // `x[0]` is no misspelt `x`: that is another matter.
    let names = part.columns.iter().map(|column| &column.name).filter(|name| !column.starts_with(&format!("{name}[")));
    let scored = names.map(|name| (strsim::jaro_winkler(&plain(name), &wanted), name));
    let best = scored.filter(|(score, _)| *score > 0.9).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, name)| format!("Did you mean '{name}'? Names must be the same in every letter"))
}

/// How to say which columns a matrix has, where it has no names for them.
fn unnamed(part: &Part, spec: &TensorSpec, features: &[String], signature: &Signature) -> Option<String> {
    let count = features.len();
    let is_unnamed = count > 1 && features.first().is_some_and(|first| *first == format!("{}[0]", spec.name));
    if !is_unnamed {
        return None;
    }
    let name = &spec.name;
    if count > MOST_PASTED {
        return Some(format!(
            "Input '{name}' has {count} columns: a column of lists named '{name}' (in Parquet or JSON) fills it"
        ));
    }
    let is_free = |name: &str| signature.inputs.iter().all(|input| input.name != name);
    let numbers = part.columns.iter().filter(|column| column.is_number && is_free(&column.name));
    let numbers: Vec<_> = numbers.map(|column| column.name.as_str()).collect();
    let is_exact = numbers.len() == count;
    let shown = if is_exact { numbers } else { vec!["…"] };
    let quoted: Vec<_> = shown.iter().map(|name| format!("{name:?}")).collect();
    let key = if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        name.clone()
    } else {
        format!("{name:?}")
    };
    let flag = if shown.iter().any(|name| name.contains([',', '\''])) {
        String::new()
    } else {
        format!("--columns '{name}={}', or for good ", shown.join(","))
    };
    let which = if is_exact { " (these are the numeric ones of the file, in its order)" } else { "" };
    Some(format!(
        "Say which {count} columns input '{name}' has, in the order that the model was trained on{which}: {flag}in model.toml:\n\
         [columns]\n{key} = [{}]",
        quoted.join(", ")
    ))
}

#[cfg(test)]
mod tests;
