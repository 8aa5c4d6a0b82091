//! The histogram of a feature: which bins there are, and which bin a value belongs to.
//!
//! The cells of a numeric feature are its bins, then `below`, `above`, `missing`, `nonfinite`;
//! of a categorical one its categories, then the buckets of values by hash, or `other` where its rare values are known, then
//! `unseen`, `missing`. Every row lands in exactly one.

use std::{collections::HashMap, fmt, fmt::Write};

use super::{
    buckets::{self, BUCKETS, Grouping, Pool},
    columns::{columns_of, each_number, each_whole, read_numbers},
    derived,
    edges::Edges,
    precision::Precision,
    profile::{Distribution, FeatureProfile, Source},
};
use crate::domain::{DataType, Elements, Tensor};

/// The cells of a feature, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Numeric {
        bins: usize,
    },
    /// `pooled`: cells of the reference's rarer values, apart from those that it never had: one for each bucket; one in all; or
    /// none.
    Categorical {
        categories: usize,
        pooled: usize,
    },
}

/// Numbers that are read at once.
const BLOCK: usize = 64;

/// The cells of a numeric feature that are no bins.
const OUTSIDE: usize = 4;

/// Cells that are labelled by a word; a category of the same text is marked, see [`Layout::labels`].
const WORDS: [&str; 6] = ["below", "above", "missing", "nonfinite", "unseen", "other"];

impl Layout {
    pub(super) fn of(distribution: &Distribution) -> Self {
        match distribution {
            Distribution::Numeric { counts, .. } => Self::Numeric { bins: counts.len() },
            Distribution::Categorical { categories, rare, buckets, .. } => {
                let pooled = if buckets.is_some() { BUCKETS } else { usize::from(rare.is_some()) };
                Self::Categorical { categories: categories.len(), pooled }
            }
        }
    }

    pub(super) fn cells(self) -> usize {
        match self {
            Self::Numeric { bins } => bins + OUTSIDE,
            Self::Categorical { .. } => self.outside() + 2,
        }
    }

    /// The first cell that is none of the reference's own values: `below` of a numeric feature, `unseen` of a categorical
    /// one.
    pub(super) fn outside(self) -> usize {
        match self {
            Self::Numeric { bins } => bins,
            Self::Categorical { categories, pooled } => categories + pooled,
        }
    }

    /// Whether a cell is none of the reference's own values.
    pub(super) fn is_outside(self, cell: usize) -> bool {
        cell >= self.outside()
    }

    /// The cell of missing values.
    pub(super) fn missing(self) -> usize {
        match self {
            Self::Numeric { bins } => bins + 2,
            Self::Categorical { .. } => self.outside() + 1,
        }
    }

    /// The rows that a distance is computed from, bin by bin: values below the reference's range
    /// belong to the first bin and values above to the last; `unseen` is the last bin of a
    /// categorical feature. Missing and non-finite values belong to none.
    pub(super) fn fold(self, cells: &[u64]) -> Vec<u64> {
        match self {
            Self::Numeric { bins } => {
                let mut folded = cells[..bins].to_vec();
                folded[0] += cells[bins];
                folded[bins - 1] += cells[bins + 1];
                folded
            }
            Self::Categorical { .. } => cells[..=self.outside()].to_vec(),
        }
    }

    /// Whether rarer values are counted by bucket.
    pub(super) fn has_buckets(self) -> bool {
        matches!(self, Self::Categorical { pooled: BUCKETS, .. })
    }

    /// Which buckets are judged together where there are `rows` live rows, given the reference's rows by bin.
    pub(super) fn grouping(self, reference: &[u64], rows: u64) -> Grouping {
        match self {
            Self::Categorical { categories, pooled: BUCKETS } => Grouping::new(reference, categories, rows),
            _ => Grouping::NONE,
        }
    }

    /// The value of the label `bin` of each cell.
    ///
    /// A category that is spelt like one of the words for other cells gets a `=` in front, and one
    /// more than it already has, so that no two cells of a feature have one label.
    pub(super) fn labels(distribution: &Distribution) -> Vec<String> {
        match distribution {
            Distribution::Numeric { counts, .. } => {
                let words = ["below", "above", "missing", "nonfinite"].map(String::from);
                (0..counts.len()).map(|bin| bin.to_string()).chain(words).collect()
            }
            Distribution::Categorical { categories, rare, buckets, .. } => {
                let is_word = |word: &str| WORDS.contains(&word) || (buckets.is_some() && buckets::is_label(word));
                let marked = |value: &String| match value.trim_start_matches('=') {
                    word if is_word(word) => format!("={value}"),
                    _ => value.clone(),
                };
                let pooled: Vec<String> = match (buckets, rare) {
                    (Some(_), _) => (0..BUCKETS).map(buckets::label).collect(),
                    (None, Some(_)) => vec!["other".into()],
                    (None, None) => Vec::new(),
                };
                let words = ["unseen", "missing"].map(String::from);
                categories.iter().map(|category| marked(&category.value)).chain(pooled).chain(words).collect()
            }
        }
    }
}

/// The reference's rows, cell by cell.
pub(super) fn reference_cells(feature: &FeatureProfile) -> Vec<u64> {
    match &feature.distribution {
        Distribution::Numeric { counts, .. } => {
            counts.iter().copied().chain([0, 0, feature.missing, feature.nonfinite]).collect()
        }
        Distribution::Categorical { categories, other, rare, buckets } => {
            let pooled = match (buckets, rare) {
                (Some(buckets), _) => [&*buckets.counts, &[buckets.once]].concat(),
                (None, Some(_)) => vec![*other, 0],
                (None, None) => vec![*other],
            };
            categories.iter().map(|category| category.count).chain(pooled).chain([feature.missing]).collect()
        }
    }
}

/// Tells the cell of every row of a feature. Numbers have cells finer than those of [`Layout`], each within one
/// of them: [`Classifier::coarse`] adds them up.
#[derive(Debug)]
pub(super) struct Classifier {
    column: usize,
    source: Source,
    layout: Layout,
    classes: Classes,
    /// What numbers are rounded to first.
    precision: Option<Precision>,
    /// The bin that each fine bin is part of.
    coarse: Box<[usize]>,
}

/// How a value finds its cell.
#[derive(Debug)]
enum Classes {
    /// Between the fine bins.
    Numeric(Edges),
    /// Whole numbers and booleans: sorted, with their cells.
    Whole(Box<[(i128, usize)]>, Pool),
    /// Numbers that stand for classes, the same way.
    Float(Box<[(f64, usize)]>, Pool),
    Text(HashMap<Box<[u8]>, usize>, Pool),
}

/// Room for the text of a number: the longest one that is read has fewer bytes.
struct NumberText {
    bytes: [u8; 400],
    length: usize,
}

impl NumberText {
    fn new() -> Self {
        Self { bytes: [0; 400], length: 0 }
    }

    /// The text of a number.
    fn of(&mut self, number: impl fmt::Display) -> &[u8] {
        self.length = 0;
        // What does not fit is cut off, the same way each time.
        let _ = write!(self, "{number}");
        &self.bytes[..self.length]
    }
}

impl Write for NumberText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Hands `each` every element of a column of numbers as the text that a category has, empty where it is NaN. Nothing is
/// allocated for an element.
pub(super) fn each_text(datatype: DataType, bytes: &[u8], columns: usize, column: usize, mut each: impl FnMut(&[u8])) {
    let mut text = NumberText::new();
    if datatype.is_float() {
        each_number(datatype, bytes, columns, column, |number| each(float_text(&mut text, datatype, number)));
    } else {
        each_whole(datatype, bytes, columns, column, |whole| match (datatype, whole) {
            (DataType::Bool, 0) => each(b"false"),
            (DataType::Bool, _) => each(b"true"),
            _ => each(text.of(whole)),
        });
    }
}

/// The shortest text that means the number in its datatype: one spelling for one number.
fn float_text(text: &mut NumberText, datatype: DataType, number: f64) -> &[u8] {
    if number.is_nan() {
        return &[];
    }
    // Without the sign of zero.
    let number = number + 0.0;
    #[expect(clippy::cast_possible_truncation, reason = "the number is one of 32 bits, or of fewer")]
    if datatype == DataType::Fp64 { text.of(number) } else { text.of(number as f32) }
}

/// The number that a category of a column of floats means; `None` where it is not spelt as [`each_text`] does.
pub(super) fn float_of_text(text: &str, datatype: DataType) -> Option<f64> {
    let number = if datatype == DataType::Fp64 { text.parse::<f64>().ok()? } else { text.parse::<f32>().ok()?.into() };
    (float_text(&mut NumberText::new(), datatype, number) == text.as_bytes()).then_some(number)
}

impl Classifier {
    /// A classifier for a feature of a tensor of `datatype`, which the profile must fit.
    pub(super) fn new(feature: &FeatureProfile, datatype: DataType) -> Self {
        let layout = Layout::of(&feature.distribution);
        let (classes, coarse) = match &feature.distribution {
            Distribution::Numeric { edges, min, max, fine, counts, .. } => {
                let (fine_edges, coarse) = match fine {
                    Some(fine) => (&fine.edges, fine.coarse(edges)),
                    None => (edges, (0..counts.len()).collect()),
                };
                (Classes::Numeric(Edges::new(fine_edges, *min, *max)), coarse)
            }
            Distribution::Categorical { categories, rare, buckets, .. } => {
                let values = categories.iter().map(|category| category.value.as_str());
                let pool = Pool::new(categories.len(), layout.outside(), buckets.is_some(), rare.clone());
                (classes_of(values, pool, datatype), Vec::new())
            }
        };
        let (column, source, precision) = (feature.column, feature.source, feature.precision);
        Self { column, source, layout, classes, precision, coarse: coarse.into() }
    }

    /// Tells `each` the row and the cell of the feature in every row of `tensor`. A tensor that has no such column,
    /// or is of another kind of datatype, has no cells: requests are checked at the door.
    pub(super) fn each_cell(&self, tensor: &Tensor, mut each: impl FnMut(usize, usize)) {
        let columns = columns_of(tensor.shape());
        if self.column >= columns {
            return;
        }
        let mut rows = 0..;
        let mut next = |cell: usize| each(rows.next().unwrap_or(usize::MAX), cell);
        match (&self.classes, tensor.elements()) {
            (Classes::Numeric(_), Elements::Plain { .. }) if self.source != Source::Value => {
                derived::each_of_wide(self.source, tensor, |_, value| next(self.cell_of(value)));
            }
            (Classes::Numeric(edges), Elements::Plain { datatype, bytes }) => {
                // One loop for each datatype that only reads, and one for all that finds cells.
                let (mut numbers, mut cells) = ([0.0; BLOCK], [0; BLOCK]);
                for rows in bytes.chunks((BLOCK * columns * datatype.size().unwrap_or(1)).max(1)) {
                    let read = read_numbers(*datatype, rows, columns, self.column, &mut numbers);
                    self.round(&mut numbers[..read]);
                    edges.cells_of(&numbers[..read], &mut cells);
                    cells[..read].iter().for_each(|cell| next(*cell as usize));
                }
            }
            (Classes::Whole(values, pool), Elements::Plain { datatype, bytes }) => {
                let (only, mut text) = (pool.only_cell(), NumberText::new());
                each_whole(*datatype, bytes, columns, self.column, |value| {
                    let found = values.binary_search_by_key(&value, |(known, _)| *known).ok().map(|at| values[at].1);
                    next(found.or(only).unwrap_or_else(|| pool.cell_of(text.of(value))));
                });
            }
            (Classes::Float(values, pool), Elements::Plain { datatype, bytes }) => {
                let mut text = NumberText::new();
                each_number(*datatype, bytes, columns, self.column, |value| {
                    let found = values.binary_search_by(|(known, _)| known.total_cmp(&(value + 0.0)));
                    next(match found {
                        Ok(at) => values[at].1,
                        Err(_) if value.is_nan() => self.layout.missing(),
                        Err(_) => pool.cell_of(float_text(&mut text, *datatype, value)),
                    });
                });
            }
            (Classes::Text(values, pool), Elements::Text(elements)) => {
                for element in elements.iter().skip(self.column).step_by(columns) {
                    next(match element.as_ref() {
                        [] => self.layout.missing(),
                        value => values.get(value).copied().unwrap_or_else(|| pool.cell_of(value)),
                    });
                }
            }
            (Classes::Numeric(_), Elements::Text(elements)) => {
                for element in elements.iter().skip(self.column).step_by(columns) {
                    next(self.cell_of(derived::of_text(self.source, element)));
                }
            }
            (Classes::Whole(..) | Classes::Float(..), Elements::Text(_))
            | (Classes::Text(..), Elements::Plain { .. }) => {}
        }
    }

    /// Rounds numbers of the feature to the precision of its reference.
    pub(super) fn round(&self, numbers: &mut [f64]) {
        if let Some(precision) = self.precision {
            for number in numbers {
                *number = precision.round(*number);
            }
        }
    }

    /// The column of a tensor whose numbers the feature is, and the edges of their cells; `None` where they are something else.
    pub(super) fn column_of_numbers(&self, tensor: &Tensor) -> Option<(usize, &Edges)> {
        match (&self.classes, tensor.elements()) {
            (Classes::Numeric(edges), Elements::Plain { .. }) if self.source == Source::Value => {
                (self.column < columns_of(tensor.shape())).then_some((self.column, edges))
            }
            _ => None,
        }
    }

    /// The edges between the cells of a numeric feature.
    pub(super) fn edges(&self) -> Option<&Edges> {
        if let Classes::Numeric(edges) = &self.classes { Some(edges) } else { None }
    }

    /// The cell of a number, of a numeric feature.
    pub(super) fn cell_of(&self, value: f64) -> usize {
        match &self.classes {
            Classes::Numeric(edges) => edges.cell_of(value),
            Classes::Whole(..) | Classes::Float(..) | Classes::Text(..) => self.layout.missing(),
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The number of cells.
    pub(super) fn cells(&self) -> usize {
        match self.layout {
            Layout::Numeric { .. } => self.coarse.len() + OUTSIDE,
            Layout::Categorical { .. } => self.layout.cells(),
        }
    }

    /// The bin, as [`Layout`] has them, that a cell is part of.
    pub(super) fn bin_of_cell(&self, cell: usize) -> usize {
        match self.layout {
            Layout::Numeric { bins } => {
                self.coarse.get(cell).copied().unwrap_or_else(|| bins + cell.saturating_sub(self.coarse.len()))
            }
            Layout::Categorical { .. } => cell,
        }
    }

    /// Rows by cell, added up to the cells of [`Layout`].
    pub(super) fn coarse(&self, cells: &[u64]) -> Vec<u64> {
        let Layout::Numeric { bins } = self.layout else { return cells.to_vec() };
        let mut coarse = vec![0; self.layout.cells()];
        for (bin, rows) in self.coarse.iter().zip(cells) {
            coarse[*bin] += rows;
        }
        coarse[bins..].copy_from_slice(&cells[self.coarse.len()..]);
        coarse
    }

    /// Rows by fine bin of a numeric feature, values out of range in the outer ones.
    pub(super) fn fine(&self, cells: &[u64]) -> Vec<u64> {
        Layout::Numeric { bins: self.coarse.len() }.fold(cells)
    }
}

/// The categories with their cells, in the form that the tensor's values have.
fn classes_of<'a>(values: impl Iterator<Item = &'a str>, pool: Pool, datatype: DataType) -> Classes {
    if datatype == DataType::Bytes {
        let cells = values.enumerate().map(|(cell, value)| (value.as_bytes().into(), cell)).collect();
        return Classes::Text(cells, pool);
    }
    if datatype.is_float() {
        let float = |(cell, value): (usize, &str)| Some((float_of_text(value, datatype)?, cell));
        let mut floats: Vec<_> = values.enumerate().filter_map(float).collect();
        floats.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        return Classes::Float(floats.into(), pool);
    }
    let whole = |value: &str| match value {
        "false" => 0,
        "true" => 1,
        // The profile fits, so this is a number; any other text would never be met.
        _ => value.parse().unwrap_or(i128::MIN),
    };
    let mut wholes: Vec<_> = values.enumerate().map(|(cell, value)| (whole(value), cell)).collect();
    wholes.sort_unstable();
    Classes::Whole(wholes.into(), pool)
}

#[cfg(test)]
mod tests;
