//! The cells of rows, in runs: of one feature after the other, of many rows at a time.
//!
//! So the edges and the counters of a feature come into the nearest cache once for all these rows, and what is done for
//! each value is a few instructions without a call or a choice.

use std::cell::RefCell;

use super::{
    columns::{columns_of, read_columns},
    edges::Edges,
    feature::MonitoredFeature,
    joint::Joint,
};
use crate::domain::{Elements, Tensor};

/// Rows of a run, at most: the numbers of thirty features in so many fit the nearest cache, and more gain nothing.
const BLOCK: usize = 128;
/// Numbers that are one behind the other in a line of the cache.
const LINE: usize = 8;

/// What rows are worked on in. One for each thread that counts, as there are many monitors.
#[derive(Default)]
struct Room {
    /// By feature, those of all rows.
    numbers: Vec<f64>,
    cells: Vec<u32>,
}

thread_local!(static ROOM: RefCell<Room> = RefCell::default());

/// Takes the cells of rows that follow one another.
pub(super) trait Take {
    /// The number of the first row, the first cell of the feature, and those of the rows, numbered from that.
    fn cells(&mut self, row: usize, first: usize, cells: &[u32]);

    /// The same of rows whose numbers are between these edges. There is room to find their cells in.
    fn numbers(&mut self, row: usize, first: usize, (edges, numbers): (&Edges, &[f64]), room: &mut Vec<u32>) {
        self.cells(row, first, edges.cells_in(numbers, room));
    }
}

/// Gives `take` the cells of features of `tensor`. It must not ask for others meanwhile.
pub(super) fn each_of_tensor(features: &[MonitoredFeature], tensor: &Tensor, take: &mut impl Take) {
    ROOM.with_borrow_mut(|Room { numbers, cells }| {
        let columns = columns_of(tensor.shape());
        for feature in features.iter().filter(|feature| feature.classifier.column_of_numbers(tensor).is_none()) {
            let first = feature.cells.start;
            let mut rows = 0;
            cells.clear();
            feature.classifier.each_cell(tensor, |row, cell| {
                if cells.len() == BLOCK {
                    take.cells(rows, first, cells);
                    cells.clear();
                    rows = row;
                }
                cells.push(u32::try_from(cell).unwrap_or(u32::MAX));
            });
            take.cells(rows, first, cells);
        }
        let Elements::Plain { datatype, bytes } = tensor.elements() else { return };
        let of_numbers = features.iter().filter_map(|feature| {
            let (column, edges) = feature.classifier.column_of_numbers(tensor)?;
            Some((column, edges, feature))
        });
        let count = of_numbers.clone().count();
        if count == 0 {
            return;
        }
        let row = (columns * datatype.size().unwrap_or(1)).max(1);
        for (block, bytes) in bytes.chunks(BLOCK * row).enumerate() {
            let rows = bytes.len() / row;
            // An odd number of lines: columns that lie a power of two apart would push each other out of the cache.
            let stride = (rows.div_ceil(LINE) | 1) * LINE;
            numbers.resize(count * stride, 0.0);
            read_columns(
                (*datatype, bytes),
                columns,
                &of_numbers.clone().map(|(column, ..)| column),
                (numbers, stride),
            );
            for ((_, edges, feature), numbers) in of_numbers.clone().zip(numbers.chunks_mut(stride)) {
                let numbers = &mut numbers[..rows];
                feature.classifier.round(numbers);
                take.numbers(block * BLOCK, feature.cells.start, (edges, numbers), cells);
            }
        }
    });
}

/// The same of the distances of rows from the components of `joint`, which are a feature.
pub(super) fn each_of_joint(feature: &MonitoredFeature, joint: &Joint, inputs: &[Tensor], take: &mut impl Take) {
    let Some(edges) = feature.classifier.edges() else { return };
    ROOM.with_borrow_mut(|Room { cells, .. }| {
        joint.each_errors(inputs, |row, errors| take.numbers(row, feature.cells.start, (edges, errors), cells));
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        domain::{DataType, Dim, Labels, Shape, Signature, TensorSpec},
        monitor::{ProfileBuilder, version_monitor::tests::words},
    };

    fn tensor(rows: usize, columns: usize, value: impl Fn(usize) -> f32) -> Tensor {
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|at| value(at).to_le_bytes()).collect();
        let dimensions = [rows, columns].map(|size| i64::try_from(size).unwrap()).to_vec();
        Tensor::plain("x", DataType::Fp32, Shape::new(dimensions).unwrap(), bytes.into()).unwrap()
    }

    /// The features of tensors like this one, numbered from 0 on.
    fn features(tensor: &Tensor) -> Vec<MonitoredFeature> {
        let mut builder = ProfileBuilder::default();
        builder.add(std::slice::from_ref(tensor), &[]);
        let shape = std::iter::once(Dim::Any)
            .chain(tensor.shape().dimensions()[1..].iter().map(|&columns| Dim::Fixed(u64::try_from(columns).unwrap())));
        let (name, datatype) = (tensor.name().to_owned(), tensor.datatype());
        let spec = TensorSpec { name, datatype, shape: shape.collect(), optional: false };
        let signature = Signature { inputs: vec![spec], outputs: vec![] };
        let mut first = 0;
        let feature = |profile| {
            let feature = MonitoredFeature::new(profile, &signature, &Labels::default(), first);
            first = feature.cells.end;
            feature
        };
        builder.finish().profile.features.into_iter().map(feature).collect()
    }

    /// By feature, the cells of all rows.
    fn cells(features: &[MonitoredFeature], tensor: &Tensor) -> Vec<Vec<usize>> {
        let mut found = Found { features, cells: vec![Vec::new(); features.len()] };
        each_of_tensor(features, tensor, &mut found);
        found.cells
    }

    struct Found<'a> {
        features: &'a [MonitoredFeature],
        cells: Vec<Vec<usize>>,
    }

    impl Take for Found<'_> {
        fn cells(&mut self, row: usize, first: usize, cells: &[u32]) {
            let at = self.features.iter().position(|feature| feature.cells.start == first).unwrap();
            assert_eq!(row, self.cells[at].len());
            self.cells[at].extend(cells.iter().map(|cell| *cell as usize));
        }
    }

    fn one_by_one(features: &[MonitoredFeature], tensor: &Tensor) -> Vec<Vec<usize>> {
        let of_feature = |feature: &MonitoredFeature| {
            let mut found = Vec::new();
            feature.classifier.each_cell(tensor, |_, cell| found.push(cell));
            found
        };
        features.iter().map(of_feature).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn runs_have_the_cells_of_each_feature_alone(
            rows in prop_oneof![1..20_usize, BLOCK - 1..BLOCK + 2, 1..3 * BLOCK],
            columns in 1..7_usize,
            values in prop::collection::vec(prop_oneof![-3.0..30.0_f32, prop::num::f32::ANY], 101),
            without in 0..7_usize,
        ) {
            let mut features = features(&tensor(200, columns, |at| (at * 7 % 23) as f32));
            // Not all columns have a feature.
            features.retain(|feature| feature.profile.column != without || columns == 1);
            features.retain(|feature| feature.profile.tensor == "x");
            let live = tensor(rows, columns, |at| values[at % values.len()]);
            let found = cells(&features, &live);
            prop_assert!(found.iter().all(|cells| cells.len() == rows));
            prop_assert_eq!(found, one_by_one(&features, &live));
        }
    }

    #[test]
    fn runs_of_text_are_its_cells_too() {
        let features = features(&words(&["a", "b", "a"]));
        let live = words(&["b", "", "c", "a"].repeat(BLOCK));
        let found = cells(&features, &live);
        assert_eq!(found[0].len(), 4 * BLOCK);
        assert_eq!(found, one_by_one(&features, &live));
    }
}
