//! Rows drawn from the laws of features, as tensors of a model's signature.

use std::sync::Arc;

use bytes::Bytes;

use super::{law::Law, values::Values};
use crate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec},
    monitor::{
        RareValues,
        columns::declared_columns,
        profile::{Distribution, FeatureProfile, FeatureRole, Source},
        simulation::Random,
    },
};

/// A feature of a tensor with more columns gets a tensor of its own: rows of an image are not made for one of its pixels.
const MAX_COLUMNS: usize = 64;

/// Draws rows, each value by the law of its feature and whatever the others are.
pub(super) struct Rows {
    tensors: Vec<DrawnTensor>,
    random: Random,
}

/// A tensor of the rows.
struct DrawnTensor {
    name: Arc<str>,
    role: FeatureRole,
    datatype: DataType,
    /// The dimensions behind the first.
    row: Vec<i64>,
    columns: usize,
    features: Vec<DrawnFeature>,
}

/// A column of a tensor.
struct DrawnFeature {
    /// Its place among all features.
    place: usize,
    column: usize,
    values: Values,
    lots: Lots,
    /// Rows drawn, by what they have.
    drawn: Vec<u64>,
}

impl Rows {
    /// Rows of these features, and the profile and the signature that they are counted by. A feature that is derived of
    /// a row, or has values that its tensor cannot hold, is there as a tensor of its values.
    pub(super) fn new(
        laws: &[Law<'_>],
        signature: &Signature,
        random: Random,
    ) -> (Self, Vec<FeatureProfile>, Signature) {
        let mut tensors: Vec<DrawnTensor> = Vec::new();
        let (mut profiles, mut extended) = (Vec::new(), signature.clone());
        for (place, law) in laws.iter().enumerate() {
            let mut profile = law.feature.profile.clone();
            let drawn = drawn(&profile, signature).map(|(spec, values)| (spec.clone(), values));
            let (spec, values) = drawn.unwrap_or_else(|| {
                let (spec, values) = of_its_own(&mut profile, signature, place);
                extended.inputs.push(spec.clone());
                (spec, values)
            });
            if let (Distribution::Categorical { categories, rare: Some(rare), .. }, Values::Text(texts)) =
                (&mut profile.distribution, &values)
            {
                // Hashes give no values back: ours stand for all, one in each bucket.
                let pooled = &texts[categories.len()..texts.len() - 2];
                *rare = RareValues::of(pooled.iter().map(|text| &**text)).expect("few values, and at least one");
            }
            let weights = law.weights(&law.shares);
            let (lots, drawn) = (Lots::new(&weights), vec![0; weights.len()]);
            let feature = DrawnFeature { place, column: profile.column, values, lots, drawn };
            let is_it = |tensor: &&mut DrawnTensor| *tensor.name == *profile.tensor && tensor.role == profile.role;
            if let Some(tensor) = tensors.iter_mut().find(is_it) {
                tensor.features.push(feature);
            } else {
                tensors.push(DrawnTensor::new(&spec, profile.role, feature));
            }
            profiles.push(profile);
        }
        for tensor in &mut tensors {
            tensor.widen();
        }
        (Self { tensors, random }, profiles, extended)
    }

    /// Draws from now on with these shares of cells, feature by feature.
    pub(super) fn shift(&mut self, laws: &[Law<'_>], shares: &[Vec<f64>]) {
        for feature in self.tensors.iter_mut().flat_map(|tensor| &mut tensor.features) {
            feature.lots = Lots::new(&laws[feature.place].weights(&shares[feature.place]));
        }
    }

    /// Inputs and outputs of so many rows.
    pub(super) fn draw(&mut self, rows: usize) -> (Vec<Tensor>, Vec<Tensor>) {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for tensor in &mut self.tensors {
            let side = if tensor.role == FeatureRole::Output { &mut outputs } else { &mut inputs };
            side.push(tensor.draw(rows, &mut self.random));
        }
        (inputs, outputs)
    }

    /// The rows drawn so far of each feature, with its place: by cell, then missing, then not finite where it is a number.
    pub(super) fn drawn(&self) -> impl Iterator<Item = (usize, &[u64])> {
        let features = self.tensors.iter().flat_map(|tensor| &tensor.features);
        features.map(|feature| (feature.place, &*feature.drawn))
    }
}

/// The tensor that has the feature, and its values there.
fn drawn<'a>(profile: &FeatureProfile, signature: &'a Signature) -> Option<(&'a TensorSpec, Values)> {
    let spec = match profile.role {
        FeatureRole::Input => signature.input(&profile.tensor),
        FeatureRole::Output => signature.output(&profile.tensor),
        FeatureRole::Joint => None,
    }?;
    let columns = declared_columns(&spec.shape).unwrap_or(profile.column + 1);
    let is_drawn = profile.source == Source::Value && columns <= MAX_COLUMNS;
    Some((spec, is_drawn.then(|| Values::of(profile, spec.datatype)).flatten()?))
}

/// Makes the feature the only column of an input that can hold all its values.
fn of_its_own(profile: &mut FeatureProfile, signature: &Signature, place: usize) -> (TensorSpec, Values) {
    let mut name = format!("{} ({place})", profile.feature);
    while signature.input(&name).is_some() {
        name.push('\'');
    }
    let datatype = match profile.distribution {
        Distribution::Numeric { .. } => DataType::Fp64,
        Distribution::Categorical { .. } => DataType::Bytes,
    };
    (profile.tensor, profile.column) = (name.clone(), 0);
    (profile.role, profile.source) = (FeatureRole::Input, Source::Value);
    let values = Values::of(profile, datatype).expect("numbers are FP64 and categories BYTES");
    (TensorSpec { name, datatype, shape: vec![Dim::Any], optional: false }, values)
}

impl DrawnTensor {
    fn new(spec: &TensorSpec, role: FeatureRole, feature: DrawnFeature) -> Self {
        let row: Option<Vec<i64>> = match &*spec.shape {
            [] | [Dim::Unranked] => None,
            [_, row @ ..] => row
                .iter()
                .map(|dim| if let Dim::Fixed(size) = dim { i64::try_from(*size).ok() } else { None })
                .collect(),
        };
        let columns = row.as_ref().and(declared_columns(&spec.shape)).unwrap_or(1);
        let (name, row) = (spec.name.as_str().into(), row.unwrap_or_default());
        Self { name, role, datatype: spec.datatype, row, columns, features: vec![feature] }
    }

    /// Makes room for all features where the signature does not say how many columns there are.
    fn widen(&mut self) {
        let columns = self.features.iter().map(|feature| feature.column + 1).max().unwrap_or(0);
        if columns > self.columns {
            (self.columns, self.row) = (columns, vec![i64::try_from(columns).unwrap_or(i64::MAX)]);
        }
    }

    fn draw(&mut self, rows: usize, random: &mut Random) -> Tensor {
        let (size, columns) = (self.datatype.size().unwrap_or(0), self.columns);
        let mut bytes = vec![0; rows * columns * size];
        let mut texts = vec![Bytes::new(); if self.datatype == DataType::Bytes { rows * columns } else { 0 }];
        for DrawnFeature { column, values, lots, drawn, .. } in &mut self.features {
            match values {
                Values::Plain(values) => {
                    for element in bytes.chunks_exact_mut(size.max(1)).skip(*column).step_by(columns) {
                        let (cell, lot) = lots.draw(random);
                        drawn[cell] += 1;
                        if let Some(value) =
                            values.get(cell).and_then(|of_cell| of_cell.get(lot % of_cell.len().max(1)))
                        {
                            element.copy_from_slice(&value[..size]);
                        }
                    }
                }
                Values::Text(values) => {
                    for element in texts.iter_mut().skip(*column).step_by(columns) {
                        let (cell, _) = lots.draw(random);
                        drawn[cell] += 1;
                        element.clone_from(&values[cell]);
                    }
                }
            }
        }
        let shape = Shape::new([&[i64::try_from(rows).unwrap_or(i64::MAX)], &*self.row].concat());
        let tensor = shape.and_then(|shape| match self.datatype {
            DataType::Bytes => Tensor::text(Arc::clone(&self.name), shape, texts),
            datatype => Tensor::plain(Arc::clone(&self.name), datatype, shape, bytes.into()),
        });
        tensor.expect("as many elements as the shape has, of a width that is bounded")
    }
}

/// Draws a place by its weight in one step (Walker, 1977; Vose, 1991).
struct Lots {
    /// By place: below which part of a throw it stays with this place, and the place that it is otherwise.
    places: Vec<(u32, u32)>,
}

impl Lots {
    fn new(weights: &[f64]) -> Self {
        let sum: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight / sum * weights.len() as f64).collect();
        let mut places: Vec<(u32, u32)> = (0..).take(weights.len()).map(|own| (u32::MAX, own)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|at| scaled[*at] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.pop()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of the numbers of 32 bits"
            )]
            let threshold = (scaled[less] * f64::from(u32::MAX)) as u32;
            places[less] = (threshold, u32::try_from(more).unwrap_or(u32::MAX));
            scaled[more] -= 1.0 - scaled[less];
            if scaled[more] < 1.0 { small.push(more) } else { large.push(more) }
        }
        Self { places }
    }

    /// A place, and a number besides.
    fn draw(&self, random: &mut Random) -> (usize, usize) {
        let thrown = random.whole();
        // The upper half chooses a place, and what that leaves of it whether to stay.
        let scaled = (thrown >> 32) * self.places.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "halves of a number of 64 bits")]
        let (place, part, rest) = ((scaled >> 32) as usize, scaled as u32, (thrown & 0xffff_ffff) as usize);
        let (threshold, other) = self.places[place];
        (if part < threshold { place } else { other as usize }, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_fall_by_their_weights() {
        let weights = [0.5, 0.0, 3.0, 1.0, 0.001, 5.499];
        let (lots, mut random) = (Lots::new(&weights), Random::new(1));
        let mut drawn = [0.0; 6];
        (0..1_000_000).for_each(|_| drawn[lots.draw(&mut random).0] += 1.0);
        for (drawn, weight) in drawn.into_iter().zip(weights) {
            let expected = weight * 100_000.0;
            assert!(f64::abs(drawn - expected) <= 4.0 * expected.sqrt(), "{drawn} for {expected}");
        }
    }
}
