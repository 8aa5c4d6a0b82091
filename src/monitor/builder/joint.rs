//! How the numeric inputs vary together: their principal components, and how far rows are from these.

use super::{Collected, Described, FEW_WHOLE_CATEGORIES, Parts, Values};
use crate::monitor::{
    pca::{ComponentFeature, LANES, MAX_COMPONENT_FEATURES, Moments, PrincipalComponents, Projector},
    profile::{FeatureProfile, FeatureRole, JOINT_FEATURE, JOINT_TENSOR, Source},
};

/// The components, and the reference of the distances; `None` where there are not several numeric inputs with a value
/// for each of the rows (an optional one may be absent).
pub(super) fn describe(inputs: &[Collected], rows: u64) -> Option<(PrincipalComponents, FeatureProfile)> {
    let columns: Vec<_> =
        inputs.iter().flat_map(|input| numbers_of(input, rows)).take(MAX_COMPONENT_FEATURES).collect();
    let (features, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let rows = columns.first()?.len();
    let mut row = vec![0.0; columns.len()];
    let mut moments = Moments::new(columns.len());
    for at in 0..rows {
        row.iter_mut().zip(&columns).for_each(|(value, column)| *value = column[at]);
        moments.add(&row);
    }
    let components = moments.principal_components(features)?;
    let (projector, mut errors) = (Projector::new(&components), Vec::with_capacity(rows));
    let mut block = vec![0.0; LANES * columns.len()];
    for first in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - first);
        for (values, column) in block.chunks_exact_mut(LANES).zip(&columns) {
            values[..count].copy_from_slice(&column[first..first + count]);
        }
        projector.each_error(&block, LANES, |_, found| errors.extend_from_slice(&found[..count]));
    }
    let described: Described = Values::Numbers(errors).of(Source::ReconstructionError)?;
    let error = described.feature(JOINT_TENSOR, 0, JOINT_FEATURE, FeatureRole::Joint);
    Some((components, error))
}

/// The numeric columns of an input that have a number, or none, in each of the rows.
fn numbers_of<'inputs>(input: &'inputs Collected, rows: u64) -> Vec<(ComponentFeature, &'inputs [f64])> {
    let Ok(Parts::Columns(columns)) = &input.parts else { return Vec::new() };
    let of_column = |(column, values): (usize, &'inputs Values)| match values {
        Values::Wholes(_, Some(counts)) if counts.len() <= FEW_WHOLE_CATEGORIES => None,
        Values::Numbers(numbers) | Values::Wholes(numbers, _) if numbers.len() as u64 == rows => {
            Some((ComponentFeature { tensor: input.tensor.clone(), column }, numbers.as_slice()))
        }
        _ => None,
    };
    columns.iter().enumerate().filter_map(of_column).collect()
}
