//! The distance of rows from what principal components keep of them.

use std::sync::{Mutex, PoisonError};

use super::{
    columns::{columns_of, each_number},
    pca::{PrincipalComponents, Projector},
};
use crate::domain::{Elements, Tensor};

/// The components of a version's numeric inputs, with room to compute in.
#[derive(Debug)]
pub(super) struct Joint {
    components: PrincipalComponents,
    projector: Projector,
    /// Taken by the thread that counts, never waited for by a request.
    scratch: Mutex<Scratch>,
}

#[derive(Debug, Default)]
struct Scratch {
    /// Row by row, the values of all features.
    values: Vec<f64>,
    room: Vec<f64>,
}

impl Joint {
    pub(super) fn new(components: PrincipalComponents) -> Self {
        Self { projector: Projector::new(&components), components, scratch: Mutex::default() }
    }

    pub(super) fn components(&self) -> &PrincipalComponents {
        &self.components
    }

    /// Tells `each` the distance of every row. Where an input is absent, or has other rows than the first, there is none.
    pub(super) fn each_error(&self, inputs: &[Tensor], mut each: impl FnMut(usize, f64)) {
        let features = &self.components.features;
        let find = |name: &str| inputs.iter().find(|tensor| tensor.name() == name);
        let Some(rows) = features.first().and_then(|feature| find(&feature.tensor)).map(|tensor| tensor.shape().rows())
        else {
            return;
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let Scratch { values, room } = &mut *scratch;
        values.clear();
        values.resize(rows * features.len(), f64::NAN);
        for (at, feature) in features.iter().enumerate() {
            let Some(tensor) = find(&feature.tensor).filter(|tensor| tensor.shape().rows() == rows) else { return };
            let (Elements::Plain { datatype, bytes }, columns) = (tensor.elements(), columns_of(tensor.shape())) else {
                return;
            };
            if feature.column >= columns {
                return;
            }
            let mut cells = values.iter_mut().skip(at).step_by(features.len());
            each_number(*datatype, bytes, columns, feature.column, |number| {
                if let Some(cell) = cells.next() {
                    *cell = number;
                }
            });
        }
        for (row, values) in values.chunks_exact(features.len()).enumerate() {
            each(row, self.projector.error(values, room));
        }
    }
}
