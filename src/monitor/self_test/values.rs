//! Values that stand for the bins and categories of a profile, as elements of a tensor.

use bytes::Bytes;

use crate::{
    domain::DataType,
    monitor::{
        buckets::{BUCKETS, bucket_of, hash_of},
        columns::numbers,
        profile::{Category, Distribution, FeatureProfile},
        table::{Cell, Elements},
    },
};

/// Values that stand for a bin, at most.
const POINTS: u32 = 8;

/// What rows of a feature may have, in the order of its cells without `below` and `above`: of each cell some elements,
/// one as likely as the other; none where no element lies in it.
pub(super) enum Values {
    /// The first bytes of each are the element.
    Plain(Vec<Vec<[u8; 8]>>),
    Text(Vec<Bytes>),
}

impl Values {
    /// Elements of this type for each cell that has rows; `None` where one of them has no such element, which is never so
    /// of numbers as FP64 and of categories as BYTES.
    pub(super) fn of(profile: &FeatureProfile, datatype: DataType) -> Option<Self> {
        match &profile.distribution {
            Distribution::Numeric { .. } => numeric(profile, datatype).map(Self::Plain),
            Distribution::Categorical { categories, rare, buckets, .. } if datatype == DataType::Bytes => {
                Some(Self::Text(texts(categories, rare.is_some(), buckets.is_some())))
            }
            // Which number has which hash is not looked for.
            Distribution::Categorical { rare: Some(_), .. } | Distribution::Categorical { buckets: Some(_), .. } => {
                None
            }
            Distribution::Categorical { categories, other, .. } => {
                (profile.missing == 0).then(|| wholes(categories, *other, datatype)).flatten().map(Self::Plain)
            }
        }
    }
}

/// Of each fine bin, then missing, then not finite.
fn numeric(profile: &FeatureProfile, datatype: DataType) -> Option<Vec<Vec<[u8; 8]>>> {
    let Distribution::Numeric { min, max, edges, counts, fine, .. } = &profile.distribution else { return None };
    let (edges, counts, means) = match fine {
        Some(fine) => (&fine.edges, &fine.counts, Some(&fine.means)),
        None => (edges, counts, None),
    };
    let ends: Vec<f64> = [&[*min][..], edges, &[*max]].concat();
    let final_bin = counts.len() - 1;
    let of_bin = |(bin, &rows): (usize, &u64)| {
        let (low, high) = (ends[bin], ends[bin + 1]);
        // A value on an edge belongs to the upper bin.
        let is_within = |value: f64| value >= low && (value < high || (bin == final_bin && value <= high));
        let (lowest, highest) = match (datatype.is_float(), bin == final_bin) {
            (true, _) => (low, high),
            (false, true) => (low.ceil(), high.floor()),
            (false, false) => (low.ceil(), high.ceil() - 1.0),
        };
        let mean = means.map_or(f64::midpoint(lowest, highest), |means| means[bin].min(highest).max(lowest));
        let candidates =
            (0..POINTS).map(|at| point([lowest, mean, highest], (f64::from(at) + 0.5) / f64::from(POINTS)));
        // A value is drawn as it will be compared.
        let rounded = |value| profile.precision.map_or(value, |precision| precision.round(value));
        let elements = |candidates: &mut dyn Iterator<Item = f64>| -> Vec<[u8; 8]> {
            candidates.filter_map(|value| element(datatype, rounded(value), is_within)).collect()
        };
        let mut found = elements(&mut candidates.into_iter());
        if found.is_empty() {
            found = elements(&mut [mean, low].into_iter());
        }
        if found.is_empty() && datatype == DataType::Fp64 {
            // Only a profile made by hand has rows where no number lies.
            found.extend(element(datatype, low, |_| true));
        }
        (rows == 0 || !found.is_empty()).then_some(found)
    };
    let mut values: Vec<_> = counts.iter().enumerate().map(of_bin).collect::<Option<_>>()?;
    for (rows, value) in [(profile.missing, f64::NAN), (profile.nonfinite, f64::INFINITY)] {
        let is_it = |read: f64| if value.is_nan() { read.is_nan() } else { read.is_infinite() };
        let found: Vec<_> = element(datatype, value, is_it).into_iter().collect();
        if rows > 0 && found.is_empty() {
            return None;
        }
        values.push(found);
    }
    Some(values)
}

/// The quantile of values that are evenly spread on both sides of their mean, as many under it as the mean asks for.
fn point([low, mean, high]: [f64; 3], quantile: f64) -> f64 {
    let under = (high - mean) / (high - low);
    if quantile < under {
        low + (mean - low) * quantile / under
    } else if under < 1.0 {
        mean + (high - mean) * (quantile - under) / (1.0 - under)
    } else {
        low
    }
}

/// The element that is read as a number like `value`, if it is one that is wanted.
fn element(datatype: DataType, value: f64, is_wanted: impl Fn(f64) -> bool) -> Option<[u8; 8]> {
    let value = if datatype.is_float() { value } else { value.round() };
    let element = bytes_of(datatype, Cell::Float(value))?;
    let read = numbers(datatype, &element[..datatype.size()?]);
    is_wanted(*read.first()?).then_some(element)
}

fn bytes_of(datatype: DataType, cell: Cell<'_>) -> Option<[u8; 8]> {
    let mut elements = Elements::new(datatype);
    elements.push(cell).ok()?;
    let Elements::Plain(_, bytes) = elements else { return None };
    let mut element = [0; 8];
    element.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    Some(element)
}

/// Of each category, then of none of them (where rare values are known: one that stands for them, or one of each bucket, and
/// one that is new), then missing.
fn texts(categories: &[Category], has_rare: bool, has_buckets: bool) -> Vec<Bytes> {
    let unlike = |word: &str| {
        let mut text = word.to_owned();
        while categories.iter().any(|category| category.value == text) {
            text.push('\'');
        }
        Bytes::from(text)
    };
    let known = categories.iter().map(|category| Bytes::copy_from_slice(category.value.as_bytes()));
    if has_buckets {
        let of_buckets = (0..BUCKETS).map(|bucket| {
            let mut texts = (0_u64..).map(|number| format!("in {number}"));
            let is_it = |text: &String| {
                bucket_of(hash_of(text.as_bytes())) == bucket
                    && !categories.iter().any(|category| category.value == *text)
            };
            texts.find(is_it).map(Bytes::from).unwrap_or_default()
        });
        return known.chain(of_buckets).chain([unlike("unseen"), Bytes::new()]).collect();
    }
    let unseen = has_rare.then(|| unlike("unseen"));
    known.chain([unlike("other")]).chain(unseen).chain([Bytes::new()]).collect()
}

/// The same of whole numbers and booleans, which cannot be missing.
fn wholes(categories: &[Category], other: u64, datatype: DataType) -> Option<Vec<Vec<[u8; 8]>>> {
    let element = |text: &str| bytes_of(datatype, Cell::Text(text.as_bytes()));
    let known = categories.iter().map(|category| Some(vec![element(&category.value)?]));
    let mut values: Vec<_> = known.collect::<Option<_>>()?;
    let mut strangers = (0..=categories.len()).map(|number| number.to_string());
    let is_known = |text: &String| categories.iter().any(|category| category.value == *text);
    let stranger = strangers.find(|text| !is_known(text)).filter(|_| datatype != DataType::Bool);
    let unknown: Vec<_> = stranger.and_then(|text| element(&text)).into_iter().collect();
    (other == 0 || !unknown.is_empty()).then(|| {
        values.extend([unknown, Vec::new()]);
        values
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{FeatureRole, Source, histogram::Classifier, profile::FineBins};

    fn profile(distribution: Distribution, rows: u64, missing: u64, nonfinite: u64) -> FeatureProfile {
        FeatureProfile {
            tensor: "x".into(),
            column: 0,
            feature: "x".into(),
            role: FeatureRole::Input,
            source: Source::Value,
            rows,
            missing,
            nonfinite,
            precision: None,
            distribution,
        }
    }

    /// Three coarse bins, the middle one in two parts; the last holds one value.
    fn numbers_profile(missing: u64) -> FeatureProfile {
        let fine = FineBins {
            edges: vec![10.0, 15.0, 20.0],
            counts: vec![50, 20, 30, 40],
            means: vec![2.0, 12.5, 19.5, 20.0],
        };
        let distribution = Distribution::Numeric {
            min: 1.0,
            max: 20.0,
            mean: 10.0,
            std: 5.0,
            edges: vec![10.0, 20.0],
            counts: vec![50, 50, 40],
            fine: Some(fine),
        };
        profile(distribution, 140 + missing, missing, 0)
    }

    fn plain(profile: &FeatureProfile, datatype: DataType) -> Vec<Vec<f64>> {
        let Some(Values::Plain(values)) = Values::of(profile, datatype) else { panic!("no values of {datatype}") };
        let size = datatype.size().unwrap();
        values
            .iter()
            .map(|of_cell| of_cell.iter().map(|value| numbers(datatype, &value[..size])[0]).collect())
            .collect()
    }

    #[test]
    fn values_of_a_bin_lie_in_it_around_its_mean_whatever_the_datatype() {
        let profile = numbers_profile(0);
        for datatype in
            [DataType::Fp64, DataType::Fp32, DataType::Fp16, DataType::Bf16, DataType::Int8, DataType::Uint64]
        {
            let classifier = Classifier::new(&profile, datatype);
            let values = plain(&profile, datatype);
            for (bin, (values, mean)) in values.iter().zip([2.0, 12.5, 19.5, 20.0]).enumerate() {
                assert!(values.iter().all(|value| classifier.cell_of(*value) == bin), "{datatype} {bin} {values:?}");
                let found = values.iter().sum::<f64>() / values.len() as f64;
                let error = if datatype.is_float() { 0.1 } else { 0.7 };
                assert!((found - mean).abs() < error, "{datatype} {bin}: {values:?} for {mean}");
            }
            assert_eq!(values.len(), 6);
        }
        assert_eq!(plain(&profile, DataType::Fp64)[3], [20.0; 8], "all rows of a bin may have one value");
    }

    #[test]
    fn what_no_element_can_say_has_no_values() {
        let profile = numbers_profile(10);
        assert!(plain(&profile, DataType::Fp32)[4][0].is_nan());
        assert!(Values::of(&profile, DataType::Int32).is_none(), "a whole number cannot be missing");
        let categories =
            |names: &[&str]| names.iter().map(|name| Category { value: (*name).into(), count: 5 }).collect();
        let known =
            Distribution::Categorical { categories: categories(&["0", "1"]), other: 3, rare: None, buckets: None };
        let of = |datatype| Values::of(&self::profile(known.clone(), 13, 0, 0), datatype);
        let Some(Values::Plain(values)) = of(DataType::Uint8) else { panic!("of whole numbers") };
        assert_eq!(
            values.iter().map(|of_cell| of_cell.iter().map(|value| value[0]).collect()).collect::<Vec<Vec<_>>>(),
            [vec![0], vec![1], vec![2], vec![]]
        );
        let flags = Distribution::Categorical {
            categories: categories(&["false", "true"]),
            other: 3,
            rare: None,
            buckets: None,
        };
        assert!(Values::of(&self::profile(flags, 13, 0, 0), DataType::Bool).is_none(), "there is no third one");
        let words =
            Distribution::Categorical { categories: categories(&["a", "other"]), other: 3, rare: None, buckets: None };
        let Some(Values::Text(texts)) = Values::of(&self::profile(words, 13, 0, 0), DataType::Bytes) else { panic!() };
        assert_eq!(texts, ["a", "other", "other'", ""]);
        assert_eq!(super::texts(&categories(&["unseen"]), true, false), ["unseen", "other", "unseen'", ""]);
    }
}
