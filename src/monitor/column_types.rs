//! What somebody who knows the data wants a column to be taken for.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{
    columns::{ColumnNames, MAX_COLUMNS, declared_columns, feature_names},
    profile::JOINT_FEATURE,
};
use crate::domain::{DataType, Signature, TensorSpec};

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnType {
    /// Values that are told apart: classes, codes.
    Categorical,
    Numeric,
    /// Free text: its length and its characters are watched.
    Text,
    /// Nothing that is watched: an id, a time.
    Ignore,
}

impl ColumnType {
    pub const ALL: [Self; 4] = [Self::Categorical, Self::Numeric, Self::Text, Self::Ignore];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Categorical => "categorical",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Ignore => "ignore",
        }
    }

    /// Why values of a datatype cannot be taken for this.
    fn misfit(self, datatype: DataType) -> Option<&'static str> {
        match (self, datatype) {
            (Self::Numeric, DataType::Bytes | DataType::Bool) => Some("has no numbers"),
            (Self::Text, datatype) if datatype != DataType::Bytes => Some("has no texts"),
            _ => None,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ColumnType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|known| known.as_str() == text);
        found.ok_or_else(|| format!("'{text}' is no type of a column: write categorical, numeric, text or ignore"))
    }
}

/// The types of some columns, by the name of the column, or of a tensor for all its columns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct ColumnTypes(BTreeMap<String, ColumnType>);

impl FromIterator<(String, ColumnType)> for ColumnTypes {
    fn from_iter<T: IntoIterator<Item = (String, ColumnType)>>(types: T) -> Self {
        Self(types.into_iter().collect())
    }
}

impl Extend<(String, ColumnType)> for ColumnTypes {
    fn extend<T: IntoIterator<Item = (String, ColumnType)>>(&mut self, types: T) {
        self.0.extend(types);
    }
}

impl ColumnTypes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The type that is wanted for a column. What is said of the column wins over what is said of its tensor.
    #[must_use]
    pub fn of(&self, tensor: &str, column: &str) -> Option<ColumnType> {
        self.0.get(column).or_else(|| self.0.get(tensor)).copied()
    }

    /// Whether a column is not to be watched.
    #[must_use]
    pub fn ignores(&self, tensor: &str, column: &str) -> bool {
        self.of(tensor, column) == Some(ColumnType::Ignore)
    }

    /// Without columns that are left out: what tells apart profiles that differ in more than what they leave out.
    #[must_use]
    pub fn watched(&self) -> Self {
        let watched = self.0.iter().filter(|(_, wanted)| **wanted != ColumnType::Ignore);
        watched.map(|(name, wanted)| (name.clone(), *wanted)).collect()
    }

    /// What does not fit the tensors of a model: unknown names, and types that their values cannot have.
    #[must_use]
    pub fn faults(&self, signature: &Signature, names: &ColumnNames) -> Vec<String> {
        let tensors: Vec<_> =
            signature.inputs.iter().chain(&signature.outputs).map(|spec| Named::new(spec, names)).collect();
        self.0.iter().filter_map(|(name, wanted)| fault(name, *wanted, &tensors)).collect()
    }
}

impl fmt::Display for ColumnTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, wanted)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={wanted}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A tensor, and what its columns are called.
struct Named<'a> {
    spec: &'a TensorSpec,
    /// Empty where their number is not known.
    columns: Vec<String>,
}

impl<'a> Named<'a> {
    fn new(spec: &'a TensorSpec, names: &ColumnNames) -> Self {
        let columns = declared_columns(&spec.shape).or_else(|| names.get(&spec.name).map(Vec::len));
        Self { columns: columns.map(|count| feature_names(&spec.name, count, names)).unwrap_or_default(), spec }
    }

    fn has(&self, name: &str) -> bool {
        if name == self.spec.name || self.columns.iter().any(|column| column == name) {
            return true;
        }
        let number = name.strip_prefix(&*self.spec.name).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
        self.columns.is_empty() && number.is_some_and(|number| number.parse::<usize>().is_ok())
    }

    fn is_wide(&self) -> bool {
        self.columns.len() > MAX_COLUMNS
    }
}

fn fault(name: &str, wanted: ColumnType, tensors: &[Named<'_>]) -> Option<String> {
    if name == JOINT_FEATURE && wanted == ColumnType::Ignore {
        return None;
    }
    let mut named = tensors.iter().filter(|tensor| tensor.has(name)).peekable();
    if named.peek().is_none() {
        let columns =
            tensors.iter().flat_map(|tensor| tensor.columns.iter().map(String::as_str).chain([&*tensor.spec.name]));
        return Some(format!("the model has no column '{name}'{}", meant(name, columns)));
    }
    named.find_map(|tensor| {
        if tensor.is_wide() && (name != tensor.spec.name || wanted != ColumnType::Ignore) {
            return Some(format!(
                "'{name}' cannot be {wanted}: '{}' has {} columns, and more than {MAX_COLUMNS} are not watched one by one (ignore \
                 leaves all of it out)",
                tensor.spec.name,
                tensor.columns.len()
            ));
        }
        let why = wanted.misfit(tensor.spec.datatype)?;
        Some(format!("'{name}' cannot be {wanted}: '{}' is {} and {why}", tensor.spec.name, tensor.spec.datatype))
    })
}

/// `: did you mean 'age'?`, where a name is much like the wanted one; otherwise which names there are.
fn meant<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    /// Names of which more than one letter in so many differs are no slip of the finger.
    const LETTERS_FOR_EACH_SLIP: usize = 3;
    let known: Vec<_> = known.collect();
    let slips = |name: &str| strsim::osa_distance(&name.to_lowercase(), &wanted.to_lowercase());
    match known.iter().map(|name| (slips(name), name)).min_by_key(|(slips, _)| *slips) {
        Some((slips, name)) if slips * LETTERS_FOR_EACH_SLIP <= wanted.chars().count() => {
            format!(": did you mean '{name}'?")
        }
        _ => {
            /// More names than these are no help in one line.
            const MOST: usize = 20;
            let some: Vec<_> = known.iter().take(MOST).map(|name| format!("'{name}'")).collect();
            let more = if known.len() > MOST { ", …" } else { "" };
            format!(": it has {}{more}", some.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Dim;

    fn signature() -> Signature {
        let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
            optional: false,
        };
        Signature {
            inputs: vec![
                spec("x", DataType::Fp32, &[Dim::Any, Dim::Fixed(2)]),
                spec("city", DataType::Bytes, &[Dim::Any, Dim::Fixed(1)]),
                spec("open", DataType::Int64, &[Dim::Any, Dim::Any]),
                spec("image", DataType::Fp32, &[Dim::Any, Dim::Fixed(784)]),
            ],
            outputs: vec![spec("label", DataType::Int64, &[Dim::Any])],
        }
    }

    fn faults(types: &[(&str, ColumnType)]) -> Vec<String> {
        let names = ColumnNames::from([("x".into(), vec!["age".into(), "income".into()])]);
        let types: ColumnTypes = types.iter().map(|(name, wanted)| ((*name).to_owned(), *wanted)).collect();
        types.faults(&signature(), &names)
    }

    #[test]
    fn columns_tensors_and_places_of_open_ones_are_known() {
        use ColumnType::{Categorical, Ignore, Numeric, Text};
        let types = [
            ("age", Categorical),
            ("x", Numeric),
            ("city", Text),
            ("open[7]", Ignore),
            ("label", Numeric),
            ("image", Ignore),
        ];
        assert_eq!(faults(&types), Vec::<String>::new());
    }

    #[test]
    fn unknown_column_is_an_error_that_names_the_nearest_one() {
        let said = |name| faults(&[(name, ColumnType::Ignore)]).concat();
        assert_eq!(said("Incom"), "the model has no column 'Incom': did you mean 'income'?");
        assert!(said("cti").contains("it has") && said("ctiy").ends_with("did you mean 'city'?"));
        assert!(said("x[0]").contains("it has 'age', 'income', 'x'"), "its columns have names");
        assert!(said("zzzzzz").contains("it has 'age', 'income', 'x', 'city'"), "{}", said("zzzzzz"));
    }

    #[test]
    fn type_that_the_values_cannot_have_is_an_error() {
        let said = |name, wanted| faults(&[(name, wanted)]).concat();
        assert_eq!(said("city", ColumnType::Numeric), "'city' cannot be numeric: 'city' is BYTES and has no numbers");
        assert_eq!(said("age", ColumnType::Text), "'age' cannot be text: 'x' is FP32 and has no texts");
        assert!(said("image", ColumnType::Categorical).contains("784 columns"));
        assert!("number".parse::<ColumnType>().unwrap_err().contains("categorical, numeric, text or ignore"));
    }

    #[test]
    fn what_is_said_of_a_column_wins_over_its_tensor() {
        let types: ColumnTypes =
            [("x".to_owned(), ColumnType::Ignore), ("age".to_owned(), ColumnType::Numeric)].into_iter().collect();
        assert_eq!(
            [types.ignores("x", "age"), types.ignores("x", "income"), types.ignores("y", "y")],
            [false, true, false]
        );
        assert_eq!(
            (types.to_string(), types.watched().to_string()),
            ("age=numeric,x=ignore".into(), "age=numeric".into())
        );
    }
}
