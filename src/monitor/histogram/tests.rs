//! Which cell each value lands in.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    domain::Shape,
    monitor::{
        RareValues,
        profile::{Category, FeatureRole},
    },
};

fn feature(column: usize, distribution: Distribution) -> FeatureProfile {
    let (tensor, feature) = ("x".into(), "x".into());
    FeatureProfile {
        tensor,
        column,
        feature,
        role: FeatureRole::Input,
        source: Source::Value,
        rows: 0,
        missing: 3,
        nonfinite: 0,
        precision: None,
        distribution,
    }
}

fn numeric(edges: &[f64]) -> Distribution {
    let counts = vec![1; edges.len() + 1];
    Distribution::Numeric { min: 0.0, max: 10.0, mean: 5.0, std: 2.0, edges: edges.to_vec(), counts, fine: None }
}

fn categorical(values: &[&str]) -> Distribution {
    let categories = values.iter().map(|&value| Category { value: value.into(), count: 1 }).collect();
    Distribution::Categorical { categories, other: 4, rare: None, buckets: None }
}

fn floats(values: &[f64], columns: i64) -> Tensor {
    let rows = i64::try_from(values.len()).unwrap() / columns;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::plain("x", DataType::Fp64, Shape::new(vec![rows, columns]).unwrap(), bytes.into()).unwrap()
}

fn counted(feature: &FeatureProfile, tensor: &Tensor) -> Vec<u64> {
    let classifier = Classifier::new(feature, tensor.datatype());
    let mut cells = vec![0; classifier.cells()];
    let mut rows = 0..;
    classifier.each_cell(tensor, |row, cell| {
        assert_eq!(Some(row), rows.next());
        cells[cell] += 1;
    });
    cells
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
fn rare_value_is_told_from_one_that_the_reference_never_had() {
    let rare = [&b"rare"[..], b"\xff", &[b'x'; 200]];
    let distribution = match categorical(&["a", "b"]) {
        Distribution::Categorical { categories, other, .. } => {
            Distribution::Categorical { categories, other, rare: RareValues::of(rare.into_iter()), buckets: None }
        }
        numeric @ Distribution::Numeric { .. } => numeric,
    };
    let values = [&b"b"[..], b"new", b"rare", b"\xff", &[b'x'; 200], b"", b"Rare"].map(Bytes::copy_from_slice);
    let tensor = Tensor::text("x", Shape::new(vec![7]).unwrap(), values.to_vec()).unwrap();
    let feature = feature(0, distribution);
    assert_eq!(counted(&feature, &tensor), [0, 1, 3, 2, 1]);
    assert_eq!(Layout::labels(&feature.distribution), ["a", "b", "other", "unseen", "missing"]);
    assert_eq!(reference_cells(&feature), [1, 1, 4, 0, 3]);
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
    assert_eq!(Layout::Categorical { categories: 2, pooled: 0 }.fold(&[1, 2, 3, 4]), [1, 2, 3]);
    assert_eq!(Layout::Categorical { categories: 2, pooled: 1 }.fold(&[1, 2, 3, 4, 5]), [1, 2, 3, 4]);
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
