//! Builds a reference profile from rows of a model's inputs and outputs.
//!
//! Floats are numeric; whole numbers too, unless they have ten values or fewer; strings and
//! booleans are categorical. Of a categorical feature the hundred most frequent values of at most
//! 128 bytes of UTF-8 are its categories, all others are pooled: each category is a bin, and each
//! bin a time series. Where one number makes up nearly all of a feature it gets
//! a bin of its own, so that any change of it shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    columns::{ColumnNames, MAX_COLUMNS, columns_of, each_number, each_whole, feature_names},
    profile::{Category, Distribution, FeatureProfile, FeatureRole, Profile},
    quantile::inner_edges,
};
use crate::domain::{DataType, Elements, Tensor};

/// Whole numbers with more values than this are numeric.
const MAX_WHOLE_CATEGORIES: usize = 10;
/// Values of a categorical feature beyond the most frequent hundred are pooled.
const MAX_CATEGORIES: usize = 100;
/// Longer texts are no categories: they are pooled.
const MAX_CATEGORY_BYTES: usize = 128;

/// A tensor or feature that is not in the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The tensor, or the feature of it.
    pub name: String,
    pub reason: String,
}

/// What came of building.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    pub profile: Profile,
    pub skipped: Vec<Skipped>,
}

/// Collects rows and makes a [`Profile`] of them. Keeps every number in memory: 8 bytes each.
#[derive(Debug, Default)]
pub struct ProfileBuilder {
    names: ColumnNames,
    rows: u64,
    /// In order of first appearance, inputs and outputs apart.
    inputs: Vec<Collected>,
    outputs: Vec<Collected>,
}

/// The values of one tensor.
#[derive(Debug)]
struct Collected {
    tensor: String,
    /// One per column, or why there are none.
    columns: Result<Vec<Values>, String>,
}

/// The values of one column.
#[derive(Debug)]
struct Values {
    missing: u64,
    nonfinite: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Numbers(Vec<f64>),
    /// Numbers, and how often each occurs until there are too many.
    Wholes(Vec<f64>, Option<BTreeMap<i128, u64>>),
    Flags([u64; 2]),
    Texts(HashMap<Box<[u8]>, u64>),
}

impl ProfileBuilder {
    /// A builder that calls columns by the given names.
    #[must_use]
    pub fn new(names: ColumnNames) -> Self {
        Self { names, ..Self::default() }
    }

    /// Adds the rows of a batch: the inputs, and the outputs that the model gave for them.
    pub fn add(&mut self, inputs: &[Tensor], outputs: &[Tensor]) {
        let rows = inputs.iter().chain(outputs).map(|tensor| tensor.shape().rows()).max().unwrap_or(0);
        self.rows += rows as u64;
        for (tensors, collected) in [(inputs, &mut self.inputs), (outputs, &mut self.outputs)] {
            for tensor in tensors {
                let at = collected.iter().position(|known| known.tensor == tensor.name()).unwrap_or_else(|| {
                    collected.push(Collected::new(tensor));
                    collected.len() - 1
                });
                collected[at].add(tensor);
            }
        }
    }

    /// The profile of all rows added.
    #[must_use]
    pub fn finish(self) -> Built {
        let (mut features, mut skipped) = (Vec::new(), Vec::new());
        let input_names: BTreeSet<_> = self.inputs.iter().map(|input| input.tensor.clone()).collect();
        let inputs = self.inputs.into_iter().map(|collected| (FeatureRole::Input, collected));
        let outputs = self.outputs.into_iter().map(|collected| (FeatureRole::Output, collected));
        for (role, Collected { tensor, columns }) in inputs.chain(outputs) {
            let columns = if role == FeatureRole::Output && input_names.contains(&tensor) {
                Err("an input has the same name".into())
            } else {
                columns
            };
            let columns = match columns {
                Ok(columns) => columns,
                Err(reason) => {
                    skipped.push(Skipped { name: tensor, reason });
                    continue;
                }
            };
            let names = feature_names(&tensor, columns.len(), &self.names);
            for (column, (feature, values)) in names.into_iter().zip(columns).enumerate() {
                match values.finish() {
                    Some((rows, missing, nonfinite, distribution)) => {
                        let tensor = tensor.clone();
                        let profile =
                            FeatureProfile { tensor, column, feature, role, rows, missing, nonfinite, distribution };
                        features.push(profile);
                    }
                    None => skipped.push(Skipped { name: feature, reason: "it has no value in the data".into() }),
                }
            }
        }
        Built { profile: Profile { format: Profile::FORMAT, rows: self.rows, features }, skipped }
    }
}

impl Collected {
    fn new(tensor: &Tensor) -> Self {
        let columns = match columns_of(tensor.shape()) {
            many if many > MAX_COLUMNS => {
                Err(format!("it has {many} columns, at most {MAX_COLUMNS} are profiled one by one"))
            }
            columns => Ok((0..columns).map(|_| Values::new(tensor.datatype())).collect()),
        };
        Self { tensor: tensor.name().into(), columns }
    }

    fn add(&mut self, tensor: &Tensor) {
        let columns = columns_of(tensor.shape());
        let Ok(known) = &mut self.columns else { return };
        if known.len() != columns {
            self.columns = Err(format!("it has now {}, now {columns} columns", known.len()));
            return;
        }
        for (column, values) in known.iter_mut().enumerate() {
            match tensor.elements() {
                Elements::Plain { datatype, bytes } => values.add_plain(*datatype, bytes, columns, column),
                Elements::Text(elements) => {
                    for element in elements.iter().skip(column).step_by(columns) {
                        values.add_text(element);
                    }
                }
            }
        }
    }
}

impl Values {
    fn new(datatype: DataType) -> Self {
        let kind = match datatype {
            DataType::Bool => Kind::Flags([0, 0]),
            DataType::Bytes => Kind::Texts(HashMap::new()),
            float if float.is_float() => Kind::Numbers(Vec::new()),
            _ => Kind::Wholes(Vec::new(), Some(BTreeMap::new())),
        };
        Self { missing: 0, nonfinite: 0, kind }
    }

    fn add_plain(&mut self, datatype: DataType, bytes: &[u8], columns: usize, column: usize) {
        let Self { missing, nonfinite, kind } = self;
        match kind {
            Kind::Numbers(numbers) => each_number(datatype, bytes, columns, column, |number| {
                if number.is_nan() {
                    *missing += 1;
                } else if number.is_infinite() {
                    *nonfinite += 1;
                } else {
                    numbers.push(number);
                }
            }),
            Kind::Wholes(numbers, distinct) => each_whole(datatype, bytes, columns, column, |whole| {
                numbers.push(whole as f64);
                if let Some(known) = distinct {
                    *known.entry(whole).or_default() += 1;
                    if known.len() > MAX_WHOLE_CATEGORIES {
                        *distinct = None;
                    }
                }
            }),
            Kind::Flags(flags) => each_whole(datatype, bytes, columns, column, |flag| {
                flags[usize::from(flag != 0)] += 1;
            }),
            Kind::Texts(_) => {}
        }
    }

    fn add_text(&mut self, text: &[u8]) {
        let Kind::Texts(counts) = &mut self.kind else { return };
        if text.is_empty() {
            self.missing += 1;
        } else if let Some(count) = counts.get_mut(text) {
            *count += 1;
        } else {
            counts.insert(text.into(), 1);
        }
    }

    /// Rows, missing, non-finite and the distribution; `None` when there is no value at all.
    fn finish(self) -> Option<(u64, u64, u64, Distribution)> {
        let distribution = match self.kind {
            Kind::Wholes(_, Some(counts)) => {
                categorical(counts.into_iter().map(|(whole, n)| (whole.to_string(), n)), 0)
            }
            Kind::Numbers(numbers) | Kind::Wholes(numbers, None) => numeric(numbers),
            Kind::Flags([no, yes]) => {
                let seen = [("false", no), ("true", yes)].into_iter().filter(|(_, count)| *count > 0);
                categorical(seen.map(|(value, count)| (value.to_owned(), count)), 0)
            }
            Kind::Texts(counts) => texts(counts),
        }?;
        let binned: u64 = match &distribution {
            Distribution::Numeric { counts, .. } => counts.iter().sum(),
            Distribution::Categorical { categories, other } => {
                categories.iter().map(|category| category.count).sum::<u64>() + other
            }
        };
        Some((binned + self.missing + self.nonfinite, self.missing, self.nonfinite, distribution))
    }
}

fn texts(counts: HashMap<Box<[u8]>, u64>) -> Option<Distribution> {
    let (mut values, mut other) = (Vec::new(), 0);
    for (bytes, count) in counts {
        match String::from_utf8(bytes.into()) {
            Ok(value) if value.len() <= MAX_CATEGORY_BYTES => values.push((value, count)),
            _ => other += count,
        }
    }
    // The most frequent first; of equally frequent ones the first in the alphabet.
    values.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    other += values.iter().skip(MAX_CATEGORIES).map(|(_, count)| count).sum::<u64>();
    values.truncate(MAX_CATEGORIES);
    categorical(values.into_iter(), other)
}

fn categorical(counts: impl Iterator<Item = (String, u64)>, other: u64) -> Option<Distribution> {
    let mut categories: Vec<_> = counts.map(|(value, count)| Category { value, count }).collect();
    categories.sort_unstable_by(|a, b| a.value.cmp(&b.value));
    (other > 0 || !categories.is_empty()).then_some(Distribution::Categorical { categories, other })
}

fn numeric(mut numbers: Vec<f64>) -> Option<Distribution> {
    numbers.sort_unstable_by(f64::total_cmp);
    let (&min, &max) = (numbers.first()?, numbers.last()?);
    let n = numbers.len() as f64;
    // About the middle of the range, so that neither large offsets nor large numbers spoil it.
    let centre = min / 2.0 + max / 2.0;
    let offset = numbers.iter().map(|number| (number - centre) / n).sum::<f64>();
    let variance = numbers.iter().map(|number| (number - centre - offset).powi(2) / n).sum::<f64>();
    let edges = inner_edges(&numbers);
    let mut counts = Vec::with_capacity(edges.len() + 1);
    let mut start = 0;
    for end in edges.iter().map(|edge| numbers.partition_point(|number| number < edge)).chain([numbers.len()]) {
        counts.push((end - start) as u64);
        start = end;
    }
    let std = Some(variance.sqrt()).filter(|std| std.is_finite()).unwrap_or(f64::MAX);
    Some(Distribution::Numeric { min, max, mean: centre + offset, std, edges, counts })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::Shape;

    fn floats(name: &str, values: &[f32], dimensions: &[i64]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::plain(name, DataType::Fp32, Shape::new(dimensions.to_vec()).unwrap(), bytes.into()).unwrap()
    }

    fn wholes(values: &[i64]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
        Tensor::plain("n", DataType::Int64, shape, bytes.into()).unwrap()
    }

    fn strings(values: &[String]) -> Tensor {
        let shape = Shape::new(vec![i64::try_from(values.len()).unwrap(), 1]).unwrap();
        Tensor::text("s", shape, values.iter().cloned().map(Bytes::from).collect()).unwrap()
    }

    fn built(inputs: &[Tensor]) -> Built {
        let mut builder = ProfileBuilder::default();
        builder.add(inputs, &[]);
        let built = builder.finish();
        // What is built is always what is accepted.
        let json = built.profile.to_json().unwrap();
        assert_eq!(Profile::parse(json.as_bytes()).unwrap(), built.profile);
        built
    }

    fn only_feature(tensor: Tensor) -> FeatureProfile {
        let mut built = built(&[tensor]);
        assert_eq!((built.profile.features.len(), built.skipped.len()), (1, 0));
        built.profile.features.remove(0)
    }

    #[test]
    fn float_column_is_numeric_with_missing_and_nonfinite_apart() {
        let feature = only_feature(floats("x", &[1.0, 2.0, f32::NAN, 3.0, f32::INFINITY], &[5]));
        assert_eq!((feature.rows, feature.missing, feature.nonfinite), (5, 1, 1));
        let Distribution::Numeric { min, max, mean, std, counts, .. } = feature.distribution else { panic!() };
        assert_eq!((min..=max, mean), (1.0..=3.0, 2.0));
        assert!((std - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(counts.iter().sum::<u64>(), 3);
    }

    #[test]
    fn constant_column_has_a_bin_of_its_own() {
        let feature = only_feature(floats("x", &[0.0; 7], &[7, 1]));
        let Distribution::Numeric { min, max, std, counts, .. } = feature.distribution else { panic!() };
        assert_eq!(([min, max, std], counts), ([0.0; 3], vec![0, 7, 0]));
    }

    #[test]
    fn extreme_numbers_still_make_a_valid_profile() {
        let bytes: Vec<u8> = [f64::MIN, f64::MAX, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        only_feature(Tensor::plain("x", DataType::Fp64, Shape::new(vec![3]).unwrap(), bytes.into()).unwrap());
    }

    #[test]
    fn whole_numbers_are_categories_up_to_ten() {
        let ten: Vec<i64> = (-5..5).collect();
        let Distribution::Categorical { categories, .. } = only_feature(wholes(&ten)).distribution else { panic!() };
        assert_eq!((categories.len(), categories[0].value.as_str()), (10, "-1"));
        let eleven: Vec<i64> = (0..11).collect();
        assert!(matches!(only_feature(wholes(&eleven)).distribution, Distribution::Numeric { .. }));
    }

    #[test]
    fn rare_and_long_texts_are_pooled() {
        let mut values: Vec<String> = (0..150).flat_map(|i| vec![format!("c{i:03}"); 150 - i]).collect();
        values.extend([String::new(), "x".repeat(129)]);
        let feature = only_feature(strings(&values));
        let Distribution::Categorical { categories, other } = &feature.distribution else { panic!() };
        assert_eq!((categories.len(), *other), (100, (1..=50).sum::<u64>() + 1));
        assert_eq!(categories[99], Category { value: "c099".into(), count: 51 });
        assert_eq!(feature.missing, 1);
    }

    #[test]
    fn wide_changing_and_empty_tensors_are_skipped_with_the_reason() {
        let mut builder = ProfileBuilder::new(ColumnNames::from([("ab".into(), vec!["a".into(), "b".into()])]));
        let batch = |columns: i64| {
            let values = vec![1.0; usize::try_from(columns).unwrap()];
            [
                floats("wide", &[0.0; 65], &[1, 65]),
                floats("changing", &values, &[1, columns]),
                floats("ab", &[1.0, f32::NAN], &[1, 2]),
            ]
        };
        builder.add(&batch(2), &[floats("ab", &[1.0], &[1])]);
        builder.add(&batch(3), &[floats("y", &[1.0], &[1])]);
        let built = builder.finish();
        let skipped: Vec<_> = built.skipped.iter().map(|s| format!("{}: {}", s.name, s.reason)).collect();
        assert_eq!(
            skipped,
            [
                "wide: it has 65 columns, at most 64 are profiled one by one",
                "changing: it has now 2, now 3 columns",
                "b: it has no value in the data",
                "ab: an input has the same name",
            ]
        );
        let names: Vec<_> = built.profile.features.iter().map(|feature| feature.feature.as_str()).collect();
        assert_eq!((names, built.profile.rows), (vec!["a", "y"], 2));
    }
}
