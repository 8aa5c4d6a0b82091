//! The cells of rows, in runs: of one feature after the other, of many rows at a time.
//!
//! So the edges and the counters of a feature come into the nearest cache once for all these rows, and what is done for
//! each value is a few instructions without a call or a choice.

use std::cell::RefCell;

use super::{
    columns::{columns_of, read_columns},
    feature::MonitoredFeature,
    joint::Joint,
};
use crate::domain::{Elements, Tensor};

/// Rows of a run, at most: what they need of a cache is no more than the edges of all features.
const BLOCK: usize = 512;
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

/// Tells `each` the cells of features of `tensor`: the number of the first row, the first cell of the feature, and, numbered
/// from that, those of the rows that follow one another. `each` must count nothing itself.
pub(super) fn each_of_tensor(
    features: &[MonitoredFeature],
    tensor: &Tensor,
    mut each: impl FnMut(usize, usize, &[u32]),
) {
    ROOM.with_borrow_mut(|Room { numbers, cells }| {
        let columns = columns_of(tensor.shape());
        for feature in features.iter().filter(|feature| feature.classifier.column_of_numbers(tensor).is_none()) {
            let first = feature.cells.start;
            let mut rows = 0;
            cells.clear();
            feature.classifier.each_cell(tensor, |row, cell| {
                if cells.len() == BLOCK {
                    each(rows, first, cells);
                    cells.clear();
                    rows = row;
                }
                cells.push(u32::try_from(cell).unwrap_or(u32::MAX));
            });
            each(rows, first, cells);
        }
        let Elements::Plain { datatype, bytes } = tensor.elements() else { return };
        let of_numbers = features.iter().filter_map(|feature| {
            let (column, edges) = feature.classifier.column_of_numbers(tensor)?;
            Some((column, edges, feature.cells.start))
        });
        let row = (columns * datatype.size().unwrap_or(1)).max(1);
        for (block, bytes) in bytes.chunks(BLOCK * row).enumerate() {
            let rows = bytes.len() / row;
            // An odd number of lines: columns that lie a power of two apart would push each other out of the cache.
            let stride = (rows.div_ceil(LINE) | 1) * LINE;
            numbers.resize(of_numbers.clone().count() * stride, 0.0);
            cells.resize(rows, 0);
            read_columns((*datatype, bytes), columns, of_numbers.clone().map(|(column, ..)| column), (numbers, stride));
            for ((_, edges, first), numbers) in of_numbers.clone().zip(numbers.chunks(stride)) {
                edges.cells_of(&numbers[..rows], cells);
                each(block * BLOCK, first, cells);
            }
        }
    });
}

/// The same of the distances of rows from the components of `joint`, which are a feature.
pub(super) fn each_of_joint(
    feature: &MonitoredFeature,
    joint: &Joint,
    inputs: &[Tensor],
    mut each: impl FnMut(usize, usize, &[u32]),
) {
    ROOM.with_borrow_mut(|Room { cells, .. }| {
        joint.each_errors(inputs, |row, errors| {
            cells.resize(errors.len(), 0);
            feature.classifier.cells_of(errors, cells);
            each(row, feature.cells.start, cells);
        });
    });
}
