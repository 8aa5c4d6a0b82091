//! Builds a reference profile from rows of a model's inputs and outputs.
//!
//! Floats are numeric; whole numbers too, unless they are codes (few values, that come often); strings and booleans are
//! categorical. Of a categorical feature with up to a hundred values each is a category; of more the frequent ones (at most a
//! hundred, of at most 128 bytes of UTF-8) are, and the others are counted in buckets by their hashes: each category and
//! each bucket is a bin, and each bin a time series. Of free text (sentences, values that never come again) its length and its characters
//! are looked at instead. Of a row with many columns (an embedding, an image) the norm, the mean and a few random
//! projections are. Where one number makes up nearly all of a feature it gets a bin of its own, so that any
//! change of it shows. Somebody who knows better chooses the type of a column ([`ColumnTypes`]).

mod encoding;
mod joint;
mod merge;
mod numbers;
mod taken;
mod texts;

use std::collections::{BTreeMap, BTreeSet};

use numbers::numeric;
pub use taken::Taken;
use taken::{Facts, suspicion_of_numbers, suspicion_of_texts};
use texts::Texts;

use super::{
    buckets::HashBuckets,
    column_types::{ColumnType, ColumnTypes},
    columns::{ColumnNames, MAX_COLUMNS, columns_of, each_number, each_whole, feature_names},
    derived,
    histogram::each_text,
    precision::Precision,
    profile::{Category, Distribution, FeatureProfile, FeatureRole, JOINT_FEATURE, JOINT_TENSOR, Profile, Source},
    rare::RareValues,
};
use crate::domain::{DataType, Elements, Tensor};

/// Whole numbers with more values than this are numeric.
const MAX_WHOLE_CATEGORIES: usize = 64;
/// Whole numbers with no more values than this are categories however few rows there are.
const FEW_WHOLE_CATEGORIES: usize = 10;
/// Rows that each of more values has on average where they are categories.
const ROWS_OF_WHOLE_CATEGORY: usize = 10;

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
    /// What each column was taken for: inputs, then outputs.
    pub taken: Vec<Taken>,
}

/// Collects rows and makes a [`Profile`] of them. Keeps every number in memory: 8 bytes each.
#[derive(Debug, Clone, Default)]
pub struct ProfileBuilder {
    names: ColumnNames,
    types: ColumnTypes,
    rows: u64,
    /// In order of first appearance, inputs and outputs apart.
    inputs: Vec<Collected>,
    outputs: Vec<Collected>,
}

/// The values of one tensor.
#[derive(Debug, Clone)]
struct Collected {
    tensor: String,
    /// Whether its numbers have 64 bits: only those may be of a source that had fewer.
    is_double: bool,
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
    /// Texts; numbers as texts where they are to be categories.
    Texts(Texts),
    /// Nothing is kept.
    Ignored,
}

/// A feature to be: all of a [`FeatureProfile`] but its place.
struct Described {
    source: Source,
    rows: u64,
    missing: u64,
    nonfinite: u64,
    precision: Option<Precision>,
    distribution: Distribution,
}

impl ProfileBuilder {
    /// A builder that calls columns by the given names.
    #[must_use]
    pub fn new(names: ColumnNames) -> Self {
        Self { names, ..Self::default() }
    }

    /// The same, which takes columns for what they are said to be. Must be said before the first row.
    #[must_use]
    pub fn with_types(self, types: ColumnTypes) -> Self {
        Self { types, ..self }
    }

    /// Adds the rows of a batch: the inputs, and the outputs that the model gave for them.
    pub fn add(&mut self, inputs: &[Tensor], outputs: &[Tensor]) {
        let rows = inputs.iter().chain(outputs).map(|tensor| tensor.shape().rows()).max().unwrap_or(0);
        self.rows += rows as u64;
        for (tensors, collected) in [(inputs, &mut self.inputs), (outputs, &mut self.outputs)] {
            for tensor in tensors {
                let at = collected.iter().position(|known| known.tensor == tensor.name()).unwrap_or_else(|| {
                    collected.push(Collected::new(tensor, &self.names, &self.types));
                    collected.len() - 1
                });
                collected[at].add(tensor);
            }
        }
    }

    /// The profile of all rows added.
    #[must_use]
    pub fn finish(self) -> Built {
        let (mut features, mut skipped, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        let is_joint_wanted = !self.types.ignores(JOINT_TENSOR, JOINT_FEATURE);
        let joint = is_joint_wanted.then(|| joint::describe(&self.inputs, self.rows)).flatten();
        let input_names: BTreeSet<_> = self.inputs.iter().map(|input| input.tensor.clone()).collect();
        let inputs = self.inputs.into_iter().map(|collected| (FeatureRole::Input, collected));
        let outputs = self.outputs.into_iter().map(|collected| (FeatureRole::Output, collected));
        for (role, Collected { tensor, is_double, parts }) in inputs.chain(outputs) {
            let parts = if role == FeatureRole::Output && input_names.contains(&tensor) {
                Err("an input has the same name".into())
            } else {
                parts
            };
            let columns = match parts {
                Ok(Parts::Columns(columns)) => columns,
                Ok(Parts::Wide { columns, derived }) => {
                    let facts = if derived.iter().any(Values::is_ignored) {
                        Facts::new("ignore", None, IGNORED)
                    } else {
                        Facts::new("embedding", None, format!("{columns} columns, more than {MAX_COLUMNS}"))
                    };
                    let described =
                        Source::OF_WIDE.into_iter().zip(derived).filter_map(|(source, values)| values.of(source));
                    let described: Vec<_> = described.collect();
                    let is_nothing = described.is_empty() && facts.kind != "ignore";
                    taken.push(facts.taken(&tensor, &tensor, role, self.rows, &described));
                    features
                        .extend(described.into_iter().map(|described| described.feature(&tensor, 0, &tensor, role)));
                    if is_nothing {
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
                let is_ignored = values.is_ignored();
                let (described, facts) = values.finish(self.types.of(&tensor, &name), is_double);
                taken.push(facts.taken(&tensor, &name, role, self.rows, &described));
                if described.is_empty() && !is_ignored {
                    skipped.push(Skipped { name: name.clone(), reason: NO_VALUE.into() });
                }
                features.extend(described.into_iter().map(|described| described.feature(&tensor, column, &name, role)));
            }
        }
        let (components, error) = joint.unzip();
        features.extend(error);
        let profile = Profile { format: Profile::FORMAT, rows: self.rows, learnt_from: None, features, components };
        Built { profile, skipped, taken }
    }
}

/// Why a tensor or a column is no feature.
const NO_VALUE: &str = "it has no value in the data";
/// Why a column is a feature all the same.
const NO_VALUE_YET: &str = "no value in the data: any value that comes is reported as unseen";
/// Why a column is in no profile though it has values.
const IGNORED: &str = "as chosen: ignore";

impl Described {
    fn feature(self, tensor: &str, column: usize, name: &str, role: FeatureRole) -> FeatureProfile {
        let Self { source, rows, missing, nonfinite, precision, distribution } = self;
        let (tensor, feature) = (tensor.to_owned(), source.name(name));
        FeatureProfile { tensor, column, feature, role, source, rows, missing, nonfinite, precision, distribution }
    }
}

impl Facts {
    /// What became of a column with these features.
    fn taken(self, tensor: &str, column: &str, role: FeatureRole, rows: u64, described: &[Described]) -> Taken {
        let Self { kind, values, why, warning } = self;
        let first = described.first();
        let (rows, missing) = first.map_or((rows, 0), |first| (first.rows, first.missing));
        let (tensor, column) = (tensor.to_owned(), column.to_owned());
        Taken { tensor, column, role, kind, values, rows, missing, why, warning }
    }
}

impl Collected {
    fn new(tensor: &Tensor, names: &ColumnNames, types: &ColumnTypes) -> Self {
        let (name, datatype) = (tensor.name(), tensor.datatype());
        let parts = match columns_of(tensor.shape()) {
            columns if columns <= MAX_COLUMNS => {
                let wanted = feature_names(name, columns, names).into_iter().map(|column| types.of(name, &column));
                Ok(Parts::Columns(wanted.map(|wanted| Values::new(datatype, wanted)).collect()))
            }
            columns if datatype.size().is_some() || types.ignores(name, name) => {
                let is_ignored = types.ignores(name, name);
                let values = || if is_ignored { Values::Ignored } else { Values::Numbers(Vec::new()) };
                Ok(Parts::Wide { columns, derived: Source::OF_WIDE.map(|_| values()).into() })
            }
            many => Err(format!("it has {many} columns of text, at most {MAX_COLUMNS} are profiled one by one")),
        };
        Self { tensor: tensor.name().into(), is_double: datatype == DataType::Fp64, parts }
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
    fn new(datatype: DataType, wanted: Option<ColumnType>) -> Self {
        match datatype {
            _ if wanted == Some(ColumnType::Ignore) => Self::Ignored,
            DataType::Bool => Self::Flags([0, 0]),
            DataType::Bytes => Self::Texts(Texts::new()),
            _ if wanted == Some(ColumnType::Categorical) => Self::Texts(Texts::new()),
            whole if !whole.is_float() && wanted == Some(ColumnType::Numeric) => Self::Wholes(Vec::new(), None),
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
            Self::Texts(_) => each_text(datatype, bytes, columns, column, |text| self.add_text(text)),
            Self::Ignored => {}
        }
    }

    fn is_ignored(&self) -> bool {
        matches!(self, Self::Ignored)
    }

    fn add_text(&mut self, text: &[u8]) {
        let Self::Texts(counts) = self else { return };
        if let Some(count) = counts.get_mut(text) {
            *count += 1;
        } else {
            counts.insert(text.into(), 1);
        }
    }

    /// The features that come of the values, and what was found out of them. A column whose rows have no value is watched for
    /// the first that comes; one without rows is no feature.
    fn finish(self, wanted: Option<ColumnType>, is_double: bool) -> (Vec<Described>, Facts) {
        match self {
            Self::Ignored => (Vec::new(), Facts::new("ignore", None, IGNORED)),
            Self::Wholes(numbers, Some(counts)) if are_codes(counts.len(), numbers.len()) => {
                let facts = Facts::new("categorical", Some(counts.len()), "whole numbers of few values, as codes are");
                let counts = counts.into_iter().map(|(whole, count)| (whole.to_string(), count));
                (described(categorical(counts, 0, None, None), 0), facts.chosen(wanted))
            }
            Self::Flags([no, yes]) => {
                let seen = [("false", no), ("true", yes)].into_iter().filter(|(_, count)| *count > 0);
                let facts = Facts::new("boolean", Some(seen.clone().count()), "true or false");
                let counts = seen.map(|(value, count)| (value.to_owned(), count));
                (described(categorical(counts, 0, None, None), 0), facts.chosen(wanted))
            }
            Self::Texts(mut counts) => {
                let missing = counts.remove(&[][..]).unwrap_or(0);
                if counts.is_empty() {
                    return without_value(Distribution::without_categories(), missing, 0);
                }
                let warning = suspicion_of_texts(&counts);
                let values = Some(counts.len());
                let free = match wanted {
                    Some(ColumnType::Text) => Some(String::new()),
                    Some(_) => None,
                    None => texts::why_free(&counts),
                };
                if let Some(why) = free {
                    let facts = Facts { warning, ..Facts::new("text", values, why) };
                    let features = Source::OF_TEXT.into_iter();
                    let features = features.filter_map(|source| texts::of_free(source, &counts, missing));
                    return (features.collect(), facts.chosen(wanted));
                }
                let distribution = texts::of_codes(counts);
                let facts =
                    Facts { warning, ..Facts::new("categorical", values, why_categorical(distribution.as_ref())) };
                let why = facts.why.clone();
                let mut facts = facts.chosen(wanted);
                if wanted.is_some() {
                    facts.why = format!("{}; {why}", facts.why);
                }
                (described(distribution, missing), facts)
            }
            Self::Numbers(ref numbers) | Self::Wholes(ref numbers, _) => {
                let rows = numbers.len() as u64;
                let missing = numbers.iter().filter(|number| number.is_nan()).count() as u64;
                let are_whole = matches!(self, Self::Wholes(..));
                let like_codes = matches!(&self, Self::Numbers(numbers) if are_like_codes(numbers));
                let Some((described, values, warning)) = self.numeric(Source::Value, is_double) else {
                    return without_value(Distribution::without_numbers(), missing, rows - missing);
                };
                let why = match (are_whole, described.precision) {
                    (true, _) if values > MAX_WHOLE_CATEGORIES => {
                        format!("whole numbers of more than {MAX_WHOLE_CATEGORIES} values")
                    }
                    (true, _) => format!("whole numbers, fewer than {ROWS_OF_WHOLE_CATEGORY} rows a value"),
                    (false, Some(_)) => "numbers, stored with 32 bits".into(),
                    (false, None) if like_codes => {
                        format!(
                            "numbers (whole ones of {values} values: if they are codes, choose {})",
                            ColumnType::Categorical
                        )
                    }
                    (false, None) => "numbers".into(),
                };
                let facts = Facts { warning, ..Facts::new("numeric", Some(values), why) };
                (vec![described], facts.chosen(wanted))
            }
        }
    }

    /// The feature that comes of numbers.
    fn of(self, source: Source) -> Option<Described> {
        self.numeric(source, false).map(|(described, ..)| described)
    }

    /// The same, with how many different numbers there are, and why they may be an id.
    fn numeric(self, source: Source, is_double: bool) -> Option<(Described, usize, Option<String>)> {
        let (Self::Numbers(mut numbers) | Self::Wholes(mut numbers, _)) = self else { return None };
        let rows = numbers.len() as u64;
        let missing = numbers.iter().filter(|number| number.is_nan()).count() as u64;
        numbers.retain(|number| number.is_finite());
        let nonfinite = rows - missing - numbers.len() as u64;
        let mut sorted = numbers.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let values = sorted.chunk_by(|one, other| one.total_cmp(other).is_eq()).count();
        let precision = is_double.then(|| Precision::of(&numbers)).flatten();
        let warning = suspicion_of_numbers(&numbers, values);
        let distribution = numeric(&sorted)?;
        Some((Described { source, rows, missing, nonfinite, precision, distribution }, values, warning))
    }
}

/// Whether whole numbers of so many values in so many rows are codes.
fn are_codes(values: usize, rows: usize) -> bool {
    values <= FEW_WHOLE_CATEGORIES || values.saturating_mul(ROWS_OF_WHOLE_CATEGORY) <= rows
}

/// Whether floating-point numbers are whole and of as few values as codes are: only who knows the data can say.
fn are_like_codes(numbers: &[f64]) -> bool {
    let mut values = BTreeSet::new();
    let present = || numbers.iter().filter(|number| !number.is_nan());
    let is_code = |number: &f64| {
        values.insert(number.to_bits());
        number.fract() == 0.0 && values.len() <= MAX_WHOLE_CATEGORIES
    };
    present().all(is_code) && values.len() > FEW_WHOLE_CATEGORIES && are_codes(values.len(), present().count())
}

fn why_categorical(distribution: Option<&Distribution>) -> String {
    match distribution {
        Some(Distribution::Categorical { categories, buckets: Some(buckets), rare, .. }) => {
            let named = categories.len();
            let others = rare.as_ref().map_or_else(
                || format!("the others in {} hash buckets (too many to tell new ones from)", buckets.counts.len()),
                |rare| format!("the {} others in {} hash buckets", rare.count(), buckets.counts.len()),
            );
            format!("codes: {named} frequent ones by name, {others}")
        }
        Some(Distribution::Categorical { other: 1.., .. }) => {
            "codes: the frequent ones by name, the others together".into()
        }
        Some(_) => "few values, each by name".into(),
        None => NO_VALUE.into(),
    }
}

/// A column of so many rows none of which has a value, whatever it was to be taken for.
fn without_value(distribution: Distribution, missing: u64, nonfinite: u64) -> (Vec<Described>, Facts) {
    let rows = missing + nonfinite;
    let described = Described { source: Source::Value, rows, missing, nonfinite, precision: None, distribution };
    match rows {
        0 => (Vec::new(), Facts::new("nothing", Some(0), NO_VALUE)),
        _ => (vec![described], Facts::new("nothing", Some(0), NO_VALUE_YET)),
    }
}

fn described(distribution: Option<Distribution>, missing: u64) -> Vec<Described> {
    let of = |distribution| {
        let rows = missing + Distribution::binned(&distribution);
        Described { source: Source::Value, rows, missing, nonfinite: 0, precision: None, distribution }
    };
    distribution.map(of).into_iter().collect()
}

fn categorical(
    counts: impl Iterator<Item = (String, u64)>,
    other: u64,
    rare: Option<RareValues>,
    buckets: Option<HashBuckets>,
) -> Option<Distribution> {
    let mut categories: Vec<_> = counts.map(|(value, count)| Category { value, count }).collect();
    categories.sort_unstable_by(|a, b| a.value.cmp(&b.value));
    (other > 0 || !categories.is_empty()).then_some(Distribution::Categorical { categories, other, rare, buckets })
}

#[cfg(test)]
mod tests;
