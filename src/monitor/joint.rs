//! The distance of rows from what principal components keep of them.

use std::sync::{Mutex, PoisonError};

use super::{
    columns::{columns_of, read_numbers},
    pca::{ComponentFeature, LANES, PrincipalComponents, Projector},
};
use crate::domain::{DataType, Elements, Tensor};

/// Rows that are computed at once: their values stay in the nearest cache.
const BLOCK: usize = 64;

/// The components of a version's numeric inputs, with room to compute in.
#[derive(Debug)]
pub(super) struct Joint {
    components: PrincipalComponents,
    projector: Projector,
    /// Feature by feature, the values of some rows. Taken by the thread that counts, never waited for by a request.
    values: Mutex<Vec<f64>>,
}

/// Where the values of a feature are.
struct Column<'a> {
    datatype: DataType,
    bytes: &'a [u8],
    columns: usize,
    place: usize,
}

impl Joint {
    pub(super) fn new(components: PrincipalComponents) -> Self {
        Self { projector: Projector::new(&components), components, values: Mutex::default() }
    }

    pub(super) fn components(&self) -> &PrincipalComponents {
        &self.components
    }

    /// Tells `each` the distances of all rows, in runs: the first row of each, and its distances. Where an input is absent, or
    /// has other rows than the first, there is none.
    pub(super) fn each_errors(&self, inputs: &[Tensor], mut each: impl FnMut(usize, &[f64])) {
        let features = &self.components.features;
        let first = features.first().and_then(|feature| find(inputs, feature));
        let Some(rows) = first.map(|tensor| tensor.shape().rows()) else { return };
        let columns: Option<Vec<_>> = features.iter().map(|feature| Column::of(feature, inputs, rows)).collect();
        let Some(columns) = columns else { return };
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut errors = [0.0; BLOCK];
        for start in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - start);
            let padded = count.next_multiple_of(LANES);
            values.resize(padded * features.len(), f64::NAN);
            for (column, values) in columns.iter().zip(values.chunks_exact_mut(padded)) {
                let (values, behind) = values.split_at_mut(count);
                column.read(start, values);
                behind.fill(f64::NAN);
            }
            self.projector.each_error(&values, padded, |first, eight| {
                errors[first..].iter_mut().zip(eight).for_each(|(place, error)| *place = error);
            });
            each(start, &errors[..count]);
        }
    }
}

fn find<'a>(inputs: &'a [Tensor], feature: &ComponentFeature) -> Option<&'a Tensor> {
    inputs.iter().find(|tensor| tensor.name() == feature.tensor)
}

impl<'a> Column<'a> {
    fn of(feature: &ComponentFeature, inputs: &'a [Tensor], rows: usize) -> Option<Self> {
        let tensor = find(inputs, feature).filter(|tensor| tensor.shape().rows() == rows)?;
        let (Elements::Plain { datatype, bytes }, columns) = (tensor.elements(), columns_of(tensor.shape())) else {
            return None;
        };
        let place = feature.column;
        (place < columns).then_some(Self { datatype: *datatype, bytes, columns, place })
    }

    /// The values from row `start` on.
    fn read(&self, start: usize, values: &mut [f64]) {
        let row = self.columns * self.datatype.size().unwrap_or(0);
        let bytes = self.bytes.get(start * row..(start + values.len()) * row).unwrap_or_default();
        read_numbers(self.datatype, bytes, self.columns, self.place, values);
    }
}
