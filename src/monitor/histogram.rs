//! The histogram of a feature: which bins there are, which bin a value belongs to, and the counts.
//!
//! The cells of a numeric feature are its bins, then `below`, `above`, `missing`, `nonfinite`;
//! of a categorical one its categories, then `unseen`, `missing`. Every row lands in exactly one.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    columns::{columns_of, each_number, each_whole},
    profile::{Distribution, FeatureProfile},
};
use crate::domain::{DataType, Elements, Tensor};

/// The cells of a feature, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Numeric { bins: usize },
    Categorical { categories: usize },
}

/// Cells that are labelled by a word; a category of the same text is marked, see [`Layout::labels`].
const WORDS: [&str; 6] = ["below", "above", "missing", "nonfinite", "unseen", "other"];

impl Layout {
    pub(super) fn of(distribution: &Distribution) -> Self {
        match distribution {
            Distribution::Numeric { counts, .. } => Self::Numeric { bins: counts.len() },
            Distribution::Categorical { categories, .. } => Self::Categorical { categories: categories.len() },
        }
    }

    pub(super) fn cells(self) -> usize {
        match self {
            Self::Numeric { bins } => bins + 4,
            Self::Categorical { categories } => categories + 2,
        }
    }

    /// The cell of missing values.
    pub(super) fn missing(self) -> usize {
        match self {
            Self::Numeric { bins } => bins + 2,
            Self::Categorical { categories } => categories + 1,
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
            Self::Categorical { categories } => cells[..=categories].to_vec(),
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
            Distribution::Categorical { categories, .. } => {
                let marked = |value: &String| match value.trim_start_matches('=') {
                    word if WORDS.contains(&word) => format!("={value}"),
                    _ => value.clone(),
                };
                let words = ["unseen", "missing"].map(String::from);
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
        Distribution::Categorical { categories, other } => {
            categories.iter().map(|category| category.count).chain([*other, feature.missing]).collect()
        }
    }
}

/// Counts the rows of a feature since it was made.
///
/// One thread counts; any thread may read at any time, and sees every cell at some moment of late.
#[derive(Debug)]
pub(super) struct FeatureCounter {
    column: usize,
    layout: Layout,
    classes: Classes,
    cells: Box<[AtomicU64]>,
}

/// How a value finds its cell.
#[derive(Debug)]
enum Classes {
    Numeric {
        edges: Box<[f64]>,
        min: f64,
        max: f64,
    },
    /// Whole numbers and booleans: sorted, with their cells.
    Whole(Box<[(i128, usize)]>),
    Text(HashMap<Box<[u8]>, usize>),
}

impl FeatureCounter {
    /// A counter for a feature of a tensor of `datatype`, which the profile must fit.
    pub(super) fn new(feature: &FeatureProfile, datatype: DataType) -> Self {
        let layout = Layout::of(&feature.distribution);
        let classes = match &feature.distribution {
            Distribution::Numeric { edges, min, max, .. } => {
                Classes::Numeric { edges: edges.as_slice().into(), min: *min, max: *max }
            }
            Distribution::Categorical { categories, .. } => {
                let values = categories.iter().map(|category| category.value.as_str());
                classes_of(values, datatype)
            }
        };
        let cells = (0..layout.cells()).map(|_| AtomicU64::new(0)).collect();
        Self { column: feature.column, layout, classes, cells }
    }

    /// Counts the feature's column of every row of `tensor`. A tensor that has no such column, or
    /// is of another kind of datatype, counts nothing: requests are checked at the door.
    pub(super) fn count(&self, tensor: &Tensor) {
        let columns = columns_of(tensor.shape());
        if self.column >= columns {
            return;
        }
        match (&self.classes, tensor.elements()) {
            (Classes::Numeric { edges, min, max }, Elements::Plain { datatype, bytes }) => {
                each_number(*datatype, bytes, columns, self.column, |value| {
                    self.add(numeric_cell(value, edges, *min, *max));
                });
            }
            (Classes::Whole(values), Elements::Plain { datatype, bytes }) => {
                let unseen = values.len();
                each_whole(*datatype, bytes, columns, self.column, |value| {
                    let found = values.binary_search_by_key(&value, |(known, _)| *known);
                    self.add(found.map_or(unseen, |at| values[at].1));
                });
            }
            (Classes::Text(values), Elements::Text(elements)) => {
                let unseen = values.len();
                for element in elements.iter().skip(self.column).step_by(columns) {
                    self.add(match element.as_ref() {
                        [] => unseen + 1,
                        value => values.get(value).copied().unwrap_or(unseen),
                    });
                }
            }
            (Classes::Numeric { .. } | Classes::Whole(_), Elements::Text(_))
            | (Classes::Text(_), Elements::Plain { .. }) => {}
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The rows of each cell since the counter was made.
    pub(super) fn totals(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed))
    }

    fn add(&self, cell: usize) {
        self.cells[cell].fetch_add(1, Ordering::Relaxed);
    }
}

/// The categories with their cells, in the form that the tensor's values have.
fn classes_of<'a>(values: impl Iterator<Item = &'a str>, datatype: DataType) -> Classes {
    if datatype == DataType::Bytes {
        return Classes::Text(values.enumerate().map(|(cell, value)| (value.as_bytes().into(), cell)).collect());
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

/// The cell of a number. A value equal to an edge belongs to the upper bin.
fn numeric_cell(value: f64, edges: &[f64], min: f64, max: f64) -> usize {
    let bins = edges.len() + 1;
    if value >= min && value <= max {
        return bin_of(value, edges);
    }
    if value.is_nan() {
        bins + 2
    } else if value.is_infinite() {
        bins + 3
    } else {
        bins + usize::from(value > max)
    }
}

/// The number of edges at or under `value`: for a few edges counted one by one, without a branch.
fn bin_of(value: f64, edges: &[f64]) -> usize {
    if edges.len() <= 16 {
        edges.iter().map(|edge| usize::from(value >= *edge)).sum()
    } else {
        edges.partition_point(|edge| *edge <= value)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        domain::Shape,
        monitor::profile::{Category, FeatureRole},
    };

    fn feature(column: usize, distribution: Distribution) -> FeatureProfile {
        let (tensor, feature) = ("x".into(), "x".into());
        FeatureProfile {
            tensor,
            column,
            feature,
            role: FeatureRole::Input,
            rows: 0,
            missing: 3,
            nonfinite: 0,
            distribution,
        }
    }

    fn numeric(edges: &[f64]) -> Distribution {
        let counts = vec![1; edges.len() + 1];
        Distribution::Numeric { min: 0.0, max: 10.0, mean: 5.0, std: 2.0, edges: edges.to_vec(), counts }
    }

    fn categorical(values: &[&str]) -> Distribution {
        let categories = values.iter().map(|&value| Category { value: value.into(), count: 1 }).collect();
        Distribution::Categorical { categories, other: 4 }
    }

    fn floats(values: &[f64], columns: i64) -> Tensor {
        let rows = i64::try_from(values.len()).unwrap() / columns;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::plain("x", DataType::Fp64, Shape::new(vec![rows, columns]).unwrap(), bytes.into()).unwrap()
    }

    fn counted(feature: &FeatureProfile, tensor: &Tensor) -> Vec<u64> {
        let counter = FeatureCounter::new(feature, tensor.datatype());
        counter.count(tensor);
        counter.totals().collect()
    }

    #[test]
    fn number_at_an_edge_belongs_to_the_upper_bin() {
        let feature = feature(0, numeric(&[2.0, 4.0]));
        let values = [0.0, 1.9, 2.0, 4.0, 10.0, -0.1, 10.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(counted(&feature, &floats(&values, 1)), [2, 1, 2, 1, 1, 1, 2]);
    }

    #[test]
    fn column_of_a_matrix_is_counted_alone() {
        let feature = feature(1, numeric(&[5.0]));
        assert_eq!(counted(&feature, &floats(&[0.0, 1.0, 0.0, 9.0, 0.0, 9.0], 2)), [1, 2, 0, 0, 0, 0]);
        assert_eq!(counted(&feature, &floats(&[1.0, 2.0], 1)), [0; 6]);
    }

    #[test]
    fn text_counts_by_category_with_unseen_and_missing() {
        let values = ["b", "", "a", "b", "zz"].map(|text| Bytes::from_static(text.as_bytes()));
        let tensor = Tensor::text("x", Shape::new(vec![5]).unwrap(), values.to_vec()).unwrap();
        assert_eq!(counted(&feature(0, categorical(&["a", "b"])), &tensor), [1, 2, 1, 1]);
    }

    #[test]
    fn whole_numbers_and_booleans_count_by_their_text() {
        let plain = |datatype, bytes: Vec<u8>, rows| {
            Tensor::plain("x", datatype, Shape::new(vec![rows]).unwrap(), bytes.into()).unwrap()
        };
        // Sorted as text, not as numbers.
        let tensor = plain(DataType::Int8, vec![0xff, 10, 2, 2, 7], 5);
        assert_eq!(counted(&feature(0, categorical(&["-1", "10", "2"])), &tensor), [1, 1, 2, 1, 0]);
        let tensor = plain(DataType::Bool, vec![0, 1, 1], 3);
        assert_eq!(counted(&feature(0, categorical(&["false", "true"])), &tensor), [1, 2, 0, 0]);
    }

    #[test]
    fn fold_puts_what_is_out_of_range_into_the_outer_bins() {
        assert_eq!(Layout::Numeric { bins: 3 }.fold(&[1, 2, 3, 10, 20, 5, 6]), [11, 2, 23]);
        assert_eq!(Layout::Numeric { bins: 1 }.fold(&[1, 10, 20, 5, 6]), [31]);
        assert_eq!(Layout::Categorical { categories: 2 }.fold(&[1, 2, 3, 4]), [1, 2, 3]);
    }

    #[test]
    fn labels_of_categories_never_clash_with_those_of_other_cells() {
        let labels = Layout::labels(&categorical(&["=unseen", "a", "missing", "unseen"]));
        assert_eq!(labels, ["==unseen", "a", "=missing", "=unseen", "unseen", "missing"]);
        assert_eq!(Layout::labels(&numeric(&[1.0])), ["0", "1", "below", "above", "missing", "nonfinite"]);
    }

    #[test]
    fn reference_cells_have_the_layout_of_live_ones() {
        assert_eq!(reference_cells(&feature(0, numeric(&[1.0]))), [1, 1, 0, 0, 3, 0]);
        assert_eq!(reference_cells(&feature(0, categorical(&["a"]))), [1, 4, 3]);
    }

    proptest! {
        #[test]
        fn every_row_lands_in_exactly_one_cell(
            values in prop::collection::vec(prop::num::f64::ANY, 1..200),
            mut edges in prop::collection::vec(0.0..10.0_f64, 0..40),
        ) {
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            let cells = counted(&feature(0, numeric(&edges)), &floats(&values, 1));
            prop_assert_eq!(cells.iter().sum::<u64>(), values.len() as u64);
            // The naive definition: numpy.searchsorted(edges, value, side="right").
            for (bin, &rows) in cells[..=edges.len()].iter().enumerate() {
                let inside = values.iter().filter(|value| (0.0..=10.0).contains(*value)
                    && edges.iter().filter(|edge| *edge <= value).count() == bin);
                prop_assert_eq!(rows, inside.count() as u64);
            }
        }
    }
}
