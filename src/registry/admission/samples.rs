//! Requests that a version should be able to answer, for its warm-up and its trial: those that other versions have answered,
//! its golden requests, those of its configuration, and rows as its profile has seen them.
//!
//! Made-up rows will not do for every model: an encoder may refuse categories that it does not know.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};

use super::{Candidate, RequestDecoder, golden, listing::Listing, warmup};
use crate::{
    domain::{DataType, Dim, Dimensions, Shape, Signature, Tensor, TensorSpec},
    monitor::{Category, Distribution, FeatureProfile, FeatureRole, Profile, Source},
    schedule::Sample,
};

/// Golden requests that are read for this.
const MOST_GOLDEN: usize = 16;
/// Rows made after a profile, each with other values.
const PROFILE_ROWS: usize = 4;

/// What there is for this version, the best known first.
pub(super) fn of(
    candidate: &Candidate<'_>,
    listing: &Listing,
    decode: RequestDecoder,
    signature: &Signature,
    profile: Option<&Profile>,
) -> Vec<Sample> {
    let sample = |origin: &'static str| move |inputs: Arc<[Tensor]>| Sample { origin, inputs };
    let mut samples: Vec<Sample> = candidate.recent.iter().cloned().map(sample("recent requests")).collect();
    samples.extend(of_files(listing, decode));
    if let Ok(config) = candidate.config {
        let configured =
            config.warmup.iter().filter_map(|known| warmup::inputs(known, signature, candidate.directory).ok());
        samples.extend(configured.map(Arc::from).map(sample("warm-up requests")));
    }
    let rows = profile.map(|profile| (0..PROFILE_ROWS).filter_map(|row| of_profile(profile, signature, row)));
    samples.extend(rows.into_iter().flatten().map(sample("the profile")));
    samples
}

/// The golden requests.
pub(super) fn of_files(listing: &Listing, decode: RequestDecoder) -> Vec<Sample> {
    let requests = golden::requests(listing, decode, MOST_GOLDEN).into_iter();
    requests.map(|inputs| Sample { origin: "golden requests", inputs: inputs.into() }).collect()
}

/// A row whose values the profile has seen. `None` where it does not say what a column is like.
fn of_profile(profile: &Profile, signature: &Signature, row: usize) -> Option<Arc<[Tensor]>> {
    signature.inputs.iter().filter(|spec| !spec.optional).map(|spec| of_input(profile, spec, row)).collect()
}

fn of_input(profile: &Profile, spec: &TensorSpec, row: usize) -> Option<Tensor> {
    let sizes = spec.shape.iter().enumerate().map(|(axis, dim)| match dim {
        Dim::Fixed(size) => i64::try_from(*size).ok(),
        Dim::Any if axis == 0 => Some(1),
        Dim::Any | Dim::Unranked => None,
    });
    let shape = Shape::new(sizes.collect::<Option<Dimensions>>()?).ok()?;
    let mut raw = Vec::new();
    for column in 0..shape.elements() {
        let feature = profile.features.iter().find(|feature| {
            feature.role == FeatureRole::Input
                && feature.source == Source::Value
                && (&*feature.tensor, feature.column) == (&*spec.name, column)
        })?;
        // Columns go through their values at different paces.
        put(&value(feature, row * (column % 3 + 1) + column)?, spec.datatype, &mut raw)?;
    }
    Tensor::from_raw(spec.name.as_str(), spec.datatype, shape, raw.into()).ok()
}

/// A value of a profile.
enum Value<'a> {
    Number(f64),
    Text(&'a str),
}

fn value(feature: &FeatureProfile, turn: usize) -> Option<Value<'_>> {
    match &feature.distribution {
        Distribution::Numeric { min, max, edges, fine, .. } => {
            let known: Vec<f64> = match fine {
                Some(fine) => fine.means.clone(),
                None => std::iter::once(*min).chain(edges.iter().copied()).chain([*max]).collect(),
            };
            // From the middle outwards: what is common first.
            let middle = known.len() / 2;
            let number = known.get((middle + turn * 7) % known.len().max(1))?;
            Some(Value::Number(number.clamp(*min, *max)))
        }
        Distribution::Categorical { categories, .. } => {
            let mut common: Vec<&Category> = categories.iter().collect();
            common.sort_by_key(|category| std::cmp::Reverse(category.count));
            Some(Value::Text(&common.get(turn % common.len().max(1))?.value))
        }
    }
}

/// Appends the value in the protocol's raw form.
#[expect(clippy::cast_possible_truncation, reason = "the nearest value will do: it is one of many that are common")]
fn put(value: &Value<'_>, datatype: DataType, raw: &mut Vec<u8>) -> Option<()> {
    let number = || match value {
        Value::Number(number) => Some(*number),
        Value::Text("true") => Some(1.0),
        Value::Text("false") => Some(0.0),
        Value::Text(text) => text.parse::<f64>().ok(),
    };
    let whole = || number().map(|number| number.round() as i64);
    match datatype {
        DataType::Bytes => {
            let text = match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => (*text).to_owned(),
            };
            raw.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
            raw.extend(Bytes::from(text));
        }
        DataType::Bool => raw.push(u8::from(number()? != 0.0)),
        DataType::Uint8 => raw.extend(u8::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Uint16 => raw.extend(u16::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Uint32 => raw.extend(u32::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Uint64 => raw.extend(u64::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Int8 => raw.extend(i8::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Int16 => raw.extend(i16::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Int32 => raw.extend(i32::try_from(whole()?).ok()?.to_le_bytes()),
        DataType::Int64 => raw.extend(whole()?.to_le_bytes()),
        DataType::Fp16 => raw.extend(f16::from_f64(number()?).to_le_bytes()),
        DataType::Bf16 => raw.extend(bf16::from_f64(number()?).to_le_bytes()),
        DataType::Fp32 => raw.extend((number()? as f32).to_le_bytes()),
        DataType::Fp64 => raw.extend(number()?.to_le_bytes()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_profile_have_values_that_it_has_seen() {
        let profile = br#"{"format": 2, "rows": 4, "features": [
            {"tensor": "c", "column": 0, "feature": "c", "role": "input", "rows": 4, "missing": 0, "nonfinite": 0,
             "kind": {"categorical": {"categories": [{"value": "red", "count": 1}, {"value": "tea", "count": 3}], "other": 0}}},
            {"tensor": "n", "column": 0, "feature": "a", "role": "input", "rows": 4, "missing": 0, "nonfinite": 0,
             "kind": {"numeric": {"min": 5, "max": 9, "mean": 7, "std": 1, "edges": [7.4], "counts": [2, 2]}}},
            {"tensor": "n", "column": 1, "feature": "b", "role": "input", "rows": 4, "missing": 0, "nonfinite": 0,
             "kind": {"categorical": {"categories": [{"value": "3", "count": 4}], "other": 0}}}
        ]}"#;
        let profile = Profile::parse(profile).unwrap();
        let spec = |name: &str, datatype, width| TensorSpec {
            name: name.into(),
            datatype,
            shape: vec![Dim::Any, Dim::Fixed(width)],
            optional: false,
        };
        let inputs = vec![spec("c", DataType::Bytes, 1), spec("n", DataType::Int64, 2)];
        let signature = Signature { inputs, outputs: vec![] };
        let rows: Vec<_> = (0..4).map(|row| of_profile(&profile, &signature, row).unwrap()).collect();
        let raw = |row: &Arc<[Tensor]>| (row[0].to_raw()[4..].to_vec(), row[1].to_raw().to_vec());
        assert_eq!(raw(&rows[0]).0, b"tea", "what is common comes first");
        assert_eq!(raw(&rows[1]).0, b"red");
        for row in &rows {
            let numbers: Vec<i64> = raw(row).1.as_chunks::<8>().0.iter().map(|it| i64::from_le_bytes(*it)).collect();
            assert!([5, 7, 9].contains(&numbers[0]) && numbers[1] == 3, "{numbers:?}");
        }
        assert_ne!(rows[0], rows[1]);
        let unknown = Signature { inputs: vec![spec("n", DataType::Int64, 3)], outputs: vec![] };
        assert!(of_profile(&profile, &unknown, 0).is_none(), "column 2 is not in the profile");
    }
}
