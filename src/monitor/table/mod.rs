//! Reference data in a file, CSV or Parquet: reads it row by row, and makes input tensors of it.
//!
//! The columns of the file are matched with the features of the model's inputs by name; others are
//! left alone.

mod cell;
mod source;

use std::path::{Path, PathBuf};

pub(super) use cell::{Cell, Elements};
use source::{Format, Source};

use super::columns::{ColumnNames, declared_columns, feature_names};
use crate::domain::{Dim, Dimensions, Shape, Signature, Tensor, TensorError, TensorSpec};

/// Why a file cannot be read as a model's inputs.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a CSV file with a header: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    #[error("{} is not a readable Parquet file: {source}", path.display())]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },
    #[error("{} has no column '{column}', which input '{tensor}' needs: it has {}", path.display(), listed(has))]
    MissingColumn { path: PathBuf, tensor: String, column: String, has: Vec<String> },
    #[error("{} has the column '{column}' twice", path.display())]
    DuplicateColumn { path: PathBuf, column: String },
    #[error("{}, row {row}, column '{column}': {fault}", path.display())]
    Cell { path: PathBuf, row: u64, column: String, fault: String },
    #[error("input '{tensor}' cannot be filled from rows of a table: {reason}")]
    Input { tensor: String, reason: String },
    #[error("rows do not make a tensor: {0}")]
    Tensor(#[from] TensorError),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no columns at all".into();
    }
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// A CSV file with a header, or a Parquet file. Rows are read when asked for, not kept.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    format: Format,
    columns: Vec<String>,
    rows: u64,
}

impl Table {
    /// Opens the file, reads the names of its columns, and counts its rows.
    ///
    /// # Errors
    /// When the file cannot be read, or is neither CSV nor Parquet; the error names the file and,
    /// for a CSV file with lines of different lengths, the line.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let format = Format::of(path)?;
        let (columns, rows) = source::inspect(path, format)?;
        let mut sorted = columns.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(TableError::DuplicateColumn { path: path.into(), column: pair[0].clone() });
        }
        Ok(Self { path: path.into(), format, columns, rows })
    }

    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.rows
    }

    /// The names of the columns, in the order of the file.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows as input tensors of a model, some rows at a time.
    ///
    /// A column is wanted for each feature of each input: named like the tensor where it has one
    /// column, else by `names`, else `tensor[i]`. An optional input with no column in the file is
    /// left out. Where a model's first dimension is fixed, a batch has as many rows, and rows left
    /// over at the end are not read.
    ///
    /// # Errors
    /// When a column is missing, or an input has no rows (a scalar) or no known number of columns.
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
            let missing: Vec<_> = features.iter().filter(|feature| !self.columns.contains(feature)).collect();
            if spec.optional && missing.len() == features.len() {
                continue;
            }
            if let Some(&column) = missing.first() {
                let (path, tensor, column) = (self.path.clone(), spec.name.clone(), column.clone());
                return Err(TableError::MissingColumn { path, tensor, column, has: self.columns.clone() });
            }
            if let Some(&Dim::Fixed(rows)) = spec.shape.first() {
                let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                if let Some((other, tensor)) = fixed_rows.filter(|(other, _)| *other != rows) {
                    let reason = format!("it takes {rows} rows at a time, input '{tensor}' takes {other}");
                    return Err(TableError::Input { tensor: spec.name.clone(), reason });
                }
                fixed_rows = Some((rows, &spec.name));
            }
            inputs.push(Input { spec: spec.clone(), first: wanted.len(), columns: features.len() });
            wanted.extend(features);
        }
        let rows = fixed_rows.map_or(rows_per_batch, |(rows, _)| rows).max(1);
        let source = Source::open(&self.path, self.format, &wanted)?;
        let whole = fixed_rows.is_some();
        Ok(Batches { path: self.path.clone(), source, wanted, inputs, rows, whole, row: 0, ended: false })
    }

    /// The names of the columns that fill a row of an input.
    fn features_of(&self, spec: &TensorSpec, names: &ColumnNames) -> Result<Vec<String>, TableError> {
        let refused = |reason: &str| TableError::Input { tensor: spec.name.clone(), reason: reason.into() };
        if spec.shape.is_empty() {
            return Err(refused("it is a scalar, one value for all rows"));
        }
        let is_indexed = |i: &usize| self.columns.contains(&format!("{}[{i}]", spec.name));
        let indexed = || (0..self.columns.len()).take_while(is_indexed).count();
        let columns = match declared_columns(&spec.shape) {
            Some(columns) => columns,
            // One open dimension is as long as the columns say.
            None if spec.shape.len() == 2 => names.get(&spec.name).map_or_else(indexed, Vec::len),
            None => return Err(refused("it has dimensions of any size after the first")),
        };
        if columns == 0 {
            return Err(refused(
                "the number of its columns is not known: name them, or call them tensor[0], tensor[1], …",
            ));
        }
        Ok(feature_names(&spec.name, columns, names))
    }
}

/// An input, and where its columns are among those wanted.
#[derive(Debug)]
struct Input {
    spec: TensorSpec,
    first: usize,
    columns: usize,
}

/// Input tensors, batch by batch. Ends after the first error.
pub struct Batches {
    path: PathBuf,
    source: Source,
    wanted: Vec<String>,
    inputs: Vec<Input>,
    rows: usize,
    /// Whether the model takes nothing but batches of exactly `rows`.
    whole: bool,
    /// The row read last, from 1.
    row: u64,
    ended: bool,
}

impl Iterator for Batches {
    type Item = Result<Vec<Tensor>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.read().transpose();
        self.ended = !matches!(batch, Some(Ok(_)));
        batch
    }
}

impl Batches {
    fn read(&mut self) -> Result<Option<Vec<Tensor>>, TableError> {
        let mut elements: Vec<_> = self.inputs.iter().map(|input| Elements::new(input.spec.datatype)).collect();
        let mut rows = 0;
        while rows < self.rows && self.source.advance(&self.path)? {
            self.row += 1;
            rows += 1;
            for (input, elements) in self.inputs.iter().zip(&mut elements) {
                for column in input.first..input.first + input.columns {
                    let cell = self.source.cell(column);
                    elements.push(cell).map_err(|fault| self.fault(column, fault))?;
                }
            }
        }
        if rows == 0 || (self.whole && rows < self.rows) {
            return Ok(None);
        }
        let tensors = self.inputs.iter().zip(elements).map(|(input, elements)| {
            Ok(elements.into_tensor(&input.spec.name, shape(&input.spec, rows, input.columns)?)?)
        });
        tensors.collect::<Result<_, TableError>>().map(Some)
    }

    fn fault(&self, column: usize, fault: String) -> TableError {
        TableError::Cell { path: self.path.clone(), row: self.row, column: self.wanted[column].clone(), fault }
    }
}

/// The declared shape with `rows` for the first dimension and `columns` for an open one after it.
fn shape(spec: &TensorSpec, rows: usize, columns: usize) -> Result<Shape, TensorError> {
    let sizes = spec.shape.iter().enumerate().map(|(at, dim)| match dim {
        _ if at == 0 => i64::try_from(rows).unwrap_or(i64::MAX),
        Dim::Any | Dim::Unranked => i64::try_from(columns).unwrap_or(i64::MAX),
        Dim::Fixed(_) => dim.to_wire(),
    });
    Shape::new(sizes.collect::<Dimensions>())
}

#[cfg(test)]
mod tests;
