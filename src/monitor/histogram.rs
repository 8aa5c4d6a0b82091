//! The histogram of a feature: which bins there are, and which bin a value belongs to.
//!
//! The cells of a numeric feature are its bins, then `below`, `above`, `missing`, `nonfinite`;
//! of a categorical one its categories, `other` where its rare values are known, then `unseen`, `missing`. Every row
//! lands in exactly one.

use std::collections::HashMap;

use super::{
    columns::{columns_of, each_whole, read_numbers},
    derived,
    edges::Edges,
    profile::{Distribution, FeatureProfile, Source},
    rare::RareValues,
};
use crate::domain::{DataType, Elements, Tensor};

/// The cells of a feature, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Numeric {
        bins: usize,
    },
    /// `has_other`: the reference's rare values have a cell apart from those that it never had.
    Categorical {
        categories: usize,
        has_other: bool,
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
            Distribution::Categorical { categories, rare, .. } => {
                Self::Categorical { categories: categories.len(), has_other: rare.is_some() }
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
            Self::Categorical { categories, has_other } => categories + usize::from(has_other),
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
            Distribution::Categorical { categories, rare, .. } => {
                let marked = |value: &String| match value.trim_start_matches('=') {
                    word if WORDS.contains(&word) => format!("={value}"),
                    _ => value.clone(),
                };
                let words = rare.iter().map(|_| "other").chain(["unseen", "missing"]).map(String::from);
                categories.iter().map(|category| marked(&category.value)).chain(words).collect()
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
        Distribution::Categorical { categories, other, rare } => {
            let unseen = rare.iter().map(|_| 0);
            categories
                .iter()
                .map(|category| category.count)
                .chain([*other])
                .chain(unseen)
                .chain([feature.missing])
                .collect()
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
    /// The bin that each fine bin is part of.
    coarse: Box<[usize]>,
}

/// How a value finds its cell.
#[derive(Debug)]
enum Classes {
    /// Between the fine bins.
    Numeric(Edges),
    /// Whole numbers and booleans: sorted, with their cells.
    Whole(Box<[(i128, usize)]>),
    Text(HashMap<Box<[u8]>, usize>, Option<RareValues>),
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
            Distribution::Categorical { categories, rare, .. } => {
                let values = categories.iter().map(|category| category.value.as_str());
                (classes_of(values, rare.as_ref(), datatype), Vec::new())
            }
        };
        Self { column: feature.column, source: feature.source, layout, classes, coarse: coarse.into() }
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
                    edges.cells_of(&numbers[..read], &mut cells);
                    cells[..read].iter().for_each(|cell| next(*cell as usize));
                }
            }
            (Classes::Whole(values), Elements::Plain { datatype, bytes }) => {
                let unseen = self.layout.outside();
                each_whole(*datatype, bytes, columns, self.column, |value| {
                    let found = values.binary_search_by_key(&value, |(known, _)| *known);
                    next(found.map_or(unseen, |at| values[at].1));
                });
            }
            (Classes::Text(values, rare), Elements::Text(elements)) => {
                let is_rare = |value: &[u8]| rare.as_ref().is_some_and(|rare| rare.contains(value));
                let unknown = |value: &[u8]| if is_rare(value) { values.len() } else { self.layout.outside() };
                for element in elements.iter().skip(self.column).step_by(columns) {
                    next(match element.as_ref() {
                        [] => self.layout.missing(),
                        value => values.get(value).copied().unwrap_or_else(|| unknown(value)),
                    });
                }
            }
            (Classes::Numeric(_), Elements::Text(elements)) => {
                for element in elements.iter().skip(self.column).step_by(columns) {
                    next(self.cell_of(derived::of_text(self.source, element)));
                }
            }
            (Classes::Whole(_), Elements::Text(_)) | (Classes::Text(..), Elements::Plain { .. }) => {}
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
            Classes::Whole(_) | Classes::Text(..) => self.layout.missing(),
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
fn classes_of<'a>(values: impl Iterator<Item = &'a str>, rare: Option<&RareValues>, datatype: DataType) -> Classes {
    if datatype == DataType::Bytes {
        let cells = values.enumerate().map(|(cell, value)| (value.as_bytes().into(), cell)).collect();
        return Classes::Text(cells, rare.cloned());
    }
    let whole = |value: &str| match value {
        "false" => 0,
        "true" => 1,
        // The profile fits, so this is a number; any other text would never be met.
        _ => value.parse().unwrap_or(i128::MIN),
    };
    let mut wholes: Vec<_> = values.enumerate().map(|(cell, value)| (whole(value), cell)).collect();
    wholes.sort_unstable();
    Classes::Whole(wholes.into())
}

#[cfg(test)]
mod tests;
