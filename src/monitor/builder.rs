//! Builds a reference profile from rows of a model's inputs and outputs.
//!
//! Floats are numeric; whole numbers too, unless they have ten values or fewer; strings and
//! booleans are categorical. Of a categorical feature the hundred most frequent
//! values of at most 128 bytes of UTF-8 are its categories, all others are pooled and known by their hashes: each category
//! is a bin, and each bin a time series. Where most rows of a text would be pooled it is free text: its length and its characters
//! are looked at instead. Of a row with many columns (an embedding, an image) the norm, the mean and a few random
//! projections are. Where one number makes up nearly all of a feature it gets a bin of its own, so that any
//! change of it shows.

mod encoding;
mod joint;
mod merge;
mod numbers;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use numbers::numeric;

use super::{
    columns::{ColumnNames, MAX_COLUMNS, columns_of, each_number, each_whole, feature_names},
    derived,
    profile::{Category, Distribution, FeatureProfile, FeatureRole, Profile, Source},
    rare::RareValues,
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
#[derive(Debug, Clone, Default)]
pub struct ProfileBuilder {
    names: ColumnNames,
    rows: u64,
    /// In order of first appearance, inputs and outputs apart.
    inputs: Vec<Collected>,
    outputs: Vec<Collected>,
}

/// The values of one tensor.
#[derive(Debug, Clone)]
struct Collected {
    tensor: String,
    parts: Result<Parts, String>,
}

/// What is kept of a tensor's rows.
#[derive(Debug, Clone)]
enum Parts {
    /// Every value, column by column.
    Columns(Vec<Values>),
    /// What is derived of a wide row, in the order of [`Source::OF_WIDE`].
    Wide { columns: usize, derived: Vec<Values> },
}

/// The values of one column, in the order of the rows.
#[derive(Debug, Clone)]
enum Values {
    Numbers(Vec<f64>),
    /// Numbers, and how often each occurs until there are too many.
    Wholes(Vec<f64>, Option<BTreeMap<i128, u64>>),
    Flags([u64; 2]),
    Texts(HashMap<Box<[u8]>, u64>),
}

/// A feature to be: all of a [`FeatureProfile`] but its place.
struct Described {
    source: Source,
    rows: u64,
    missing: u64,
    nonfinite: u64,
    distribution: Distribution,
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
        let joint = joint::describe(&self.inputs, self.rows);
        let input_names: BTreeSet<_> = self.inputs.iter().map(|input| input.tensor.clone()).collect();
        let inputs = self.inputs.into_iter().map(|collected| (FeatureRole::Input, collected));
        let outputs = self.outputs.into_iter().map(|collected| (FeatureRole::Output, collected));
        for (role, Collected { tensor, parts }) in inputs.chain(outputs) {
            let parts = if role == FeatureRole::Output && input_names.contains(&tensor) {
                Err("an input has the same name".into())
            } else {
                parts
            };
            let columns = match parts {
                Ok(Parts::Columns(columns)) => columns,
                Ok(Parts::Wide { derived, .. }) => {
                    let described =
                        Source::OF_WIDE.into_iter().zip(derived).filter_map(|(source, values)| values.of(source));
                    let before = features.len();
                    features.extend(described.map(|described| described.feature(&tensor, 0, &tensor, role)));
                    if features.len() == before {
                        skipped.push(Skipped { name: tensor, reason: NO_VALUE.into() });
                    }
                    continue;
                }
                Err(reason) => {
                    skipped.push(Skipped { name: tensor, reason });
                    continue;
                }
            };
            let names = feature_names(&tensor, columns.len(), &self.names);
            for (column, (name, values)) in names.into_iter().zip(columns).enumerate() {
                let described = values.finish();
                if described.is_empty() {
                    skipped.push(Skipped { name, reason: NO_VALUE.into() });
                    continue;
                }
                features.extend(described.into_iter().map(|described| described.feature(&tensor, column, &name, role)));
            }
        }
        let (components, error) = joint.unzip();
        features.extend(error);
        let profile = Profile { format: Profile::FORMAT, rows: self.rows, learnt_from: None, features, components };
        Built { profile, skipped }
    }
}

const NO_VALUE: &str = "it has no value in the data";

impl Described {
    fn feature(self, tensor: &str, column: usize, name: &str, role: FeatureRole) -> FeatureProfile {
        let Self { source, rows, missing, nonfinite, distribution } = self;
        let (tensor, feature) = (tensor.to_owned(), source.name(name));
        FeatureProfile { tensor, column, feature, role, source, rows, missing, nonfinite, distribution }
    }
}

impl Collected {
    fn new(tensor: &Tensor) -> Self {
        let parts = match columns_of(tensor.shape()) {
            columns if columns <= MAX_COLUMNS => {
                Ok(Parts::Columns((0..columns).map(|_| Values::new(tensor.datatype())).collect()))
            }
            columns if tensor.datatype().size().is_some() => {
                Ok(Parts::Wide { columns, derived: Source::OF_WIDE.map(|_| Values::Numbers(Vec::new())).into() })
            }
            many => Err(format!("it has {many} columns of text, at most {MAX_COLUMNS} are profiled one by one")),
        };
        Self { tensor: tensor.name().into(), parts }
    }

    fn add(&mut self, tensor: &Tensor) {
        let now = columns_of(tensor.shape());
        let Ok(parts) = &mut self.parts else { return };
        let before = parts.columns();
        if before != now {
            self.parts = Err(merge::other_columns(before, now));
            return;
        }
        match (parts, tensor.elements()) {
            (Parts::Columns(columns), Elements::Plain { datatype, bytes }) => {
                for (column, values) in columns.iter_mut().enumerate() {
                    values.add_plain(*datatype, bytes, now, column);
                }
            }
            (Parts::Columns(columns), Elements::Text(elements)) => {
                for (column, values) in columns.iter_mut().enumerate() {
                    elements.iter().skip(column).step_by(now).for_each(|element| values.add_text(element));
                }
            }
            (Parts::Wide { derived, .. }, _) => {
                for (source, values) in Source::OF_WIDE.into_iter().zip(derived) {
                    if let Values::Numbers(numbers) = values {
                        derived::each_of_wide(source, tensor, |_, number| numbers.push(number));
                    }
                }
            }
        }
    }
}

impl Values {
    fn new(datatype: DataType) -> Self {
        match datatype {
            DataType::Bool => Self::Flags([0, 0]),
            DataType::Bytes => Self::Texts(HashMap::new()),
            float if float.is_float() => Self::Numbers(Vec::new()),
            _ => Self::Wholes(Vec::new(), Some(BTreeMap::new())),
        }
    }

    fn add_plain(&mut self, datatype: DataType, bytes: &[u8], columns: usize, column: usize) {
        match self {
            Self::Numbers(numbers) => each_number(datatype, bytes, columns, column, |number| numbers.push(number)),
            Self::Wholes(numbers, distinct) => each_whole(datatype, bytes, columns, column, |whole| {
                numbers.push(whole as f64);
                if let Some(known) = distinct {
                    *known.entry(whole).or_default() += 1;
                    if known.len() > MAX_WHOLE_CATEGORIES {
                        *distinct = None;
                    }
                }
            }),
            Self::Flags(flags) => each_whole(datatype, bytes, columns, column, |flag| {
                flags[usize::from(flag != 0)] += 1;
            }),
            Self::Texts(_) => {}
        }
    }

    fn add_text(&mut self, text: &[u8]) {
        let Self::Texts(counts) = self else { return };
        if let Some(count) = counts.get_mut(text) {
            *count += 1;
        } else {
            counts.insert(text.into(), 1);
        }
    }

    /// The features that come of the values; none when there is no value at all.
    fn finish(self) -> Vec<Described> {
        match self {
            Self::Wholes(_, Some(counts)) => {
                let counts = counts.into_iter().map(|(whole, count)| (whole.to_string(), count));
                described(categorical(counts, 0, None), 0)
            }
            Self::Flags([no, yes]) => {
                let seen = [("false", no), ("true", yes)].into_iter().filter(|(_, count)| *count > 0);
                described(categorical(seen.map(|(value, count)| (value.to_owned(), count)), 0, None), 0)
            }
            Self::Texts(mut counts) => {
                let missing = counts.remove(&[][..]).unwrap_or(0);
                if is_free_text(&counts) {
                    return Source::OF_TEXT
                        .into_iter()
                        .filter_map(|source| of_text(source, &counts, missing))
                        .collect();
                }
                // A column without any text is watched for the first that comes.
                let none = || Distribution::Categorical { categories: Vec::new(), other: 0, rare: None };
                described(texts(counts).or_else(|| (missing > 0).then(none)), missing)
            }
            Self::Numbers(numbers) if !numbers.is_empty() && !numbers.iter().any(|number| number.is_finite()) => {
                let rows = numbers.len() as u64;
                let missing = numbers.iter().filter(|number| number.is_nan()).count() as u64;
                let (source, distribution) = (Source::Value, Distribution::without_numbers());
                vec![Described { source, rows, missing, nonfinite: rows - missing, distribution }]
            }
            numbers => numbers.of(Source::Value).into_iter().collect(),
        }
    }

    /// The feature that comes of numbers.
    fn of(self, source: Source) -> Option<Described> {
        let (Self::Numbers(mut numbers) | Self::Wholes(mut numbers, _)) = self else { return None };
        let rows = numbers.len() as u64;
        let missing = numbers.iter().filter(|number| number.is_nan()).count() as u64;
        numbers.retain(|number| number.is_finite());
        let nonfinite = rows - missing - numbers.len() as u64;
        numeric(numbers).map(|distribution| Described { source, rows, missing, nonfinite, distribution })
    }
}

fn described(distribution: Option<Distribution>, missing: u64) -> Vec<Described> {
    let of = |distribution| {
        let rows = missing + Distribution::binned(&distribution);
        Described { source: Source::Value, rows, missing, nonfinite: 0, distribution }
    };
    distribution.map(of).into_iter().collect()
}

/// Whether most rows would be pooled as rare: then the values are no categories.
fn is_free_text(counts: &HashMap<Box<[u8]>, u64>) -> bool {
    let fits = |text: &[u8]| text.len() <= MAX_CATEGORY_BYTES && std::str::from_utf8(text).is_ok();
    let mut frequent: Vec<u64> = counts.iter().filter(|(text, _)| fits(text)).map(|(_, count)| *count).collect();
    frequent.sort_unstable_by(|a, b| b.cmp(a));
    let kept: u64 = frequent.iter().take(MAX_CATEGORIES).sum();
    2 * kept < counts.values().sum::<u64>()
}

fn of_text(source: Source, counts: &HashMap<Box<[u8]>, u64>, missing: u64) -> Option<Described> {
    let rows = counts.iter().flat_map(|(text, &count)| {
        std::iter::repeat_n(derived::of_text(source, text), usize::try_from(count).unwrap_or(usize::MAX))
    });
    let described = Values::Numbers(rows.collect()).of(source)?;
    Some(Described { rows: described.rows + missing, missing, ..described })
}

fn texts(counts: HashMap<Box<[u8]>, u64>) -> Option<Distribution> {
    let (mut values, mut rare) = (Vec::new(), Vec::new());
    for (bytes, count) in counts {
        match String::from_utf8(bytes.into()) {
            Ok(value) if value.len() <= MAX_CATEGORY_BYTES => values.push((value, count)),
            Ok(value) => rare.push((value.into_bytes(), count)),
            Err(error) => rare.push((error.into_bytes(), count)),
        }
    }
    // The most frequent first; of equally frequent ones the first in the alphabet.
    values.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    let pooled = values.split_off(values.len().min(MAX_CATEGORIES));
    rare.extend(pooled.into_iter().map(|(value, count)| (value.into_bytes(), count)));
    let other = rare.iter().map(|(_, count)| count).sum();
    let rare = RareValues::of(rare.iter().map(|(value, _)| value.as_slice()));
    categorical(values.into_iter(), other, rare)
}

fn categorical(
    counts: impl Iterator<Item = (String, u64)>,
    other: u64,
    rare: Option<RareValues>,
) -> Option<Distribution> {
    let mut categories: Vec<_> = counts.map(|(value, count)| Category { value, count }).collect();
    categories.sort_unstable_by(|a, b| a.value.cmp(&b.value));
    (other > 0 || !categories.is_empty()).then_some(Distribution::Categorical { categories, other, rare })
}

#[cfg(test)]
mod tests;
