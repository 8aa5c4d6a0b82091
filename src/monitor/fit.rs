//! Does a profile fit a model? Found out when a version is admitted, so that counting cannot fail.

use super::columns::declared_columns;
use super::profile::{Distribution, FeatureProfile, FeatureRole, Profile};
use crate::domain::{DataType, Signature, TensorSpec};

impl Profile {
    /// All that does not fit between the profile and the model, in words; empty when it fits.
    ///
    /// A model may have tensors that the profile says nothing of; they are not monitored.
    #[must_use]
    pub fn fit(&self, signature: &Signature) -> Vec<String> {
        self.features.iter().flat_map(|feature| feature_misfits(feature, signature)).collect()
    }
}

fn feature_misfits(feature: &FeatureProfile, signature: &Signature) -> Vec<String> {
    let specs = match feature.role {
        FeatureRole::Input => &signature.inputs,
        FeatureRole::Output => &signature.outputs,
    };
    let (role, tensor) = (feature.role.as_str(), &feature.tensor);
    let Some(spec) = specs.iter().find(|spec| spec.name == *tensor) else {
        let known: Vec<_> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return vec![format!("{role} '{tensor}' is unknown: the model has {known}")];
    };
    let mut misfits = Vec::new();
    if let Some(columns) = declared_columns(&spec.shape).filter(|columns| feature.column >= *columns) {
        misfits.push(format!(
            "feature '{}' is column {} of {role} '{tensor}', which has {columns} (counted from 0)",
            feature.feature, feature.column
        ));
    }
    misfits.extend(kind_misfit(feature, spec));
    misfits
}

fn kind_misfit(feature: &FeatureProfile, spec: &TensorSpec) -> Option<String> {
    let (role, name, datatype) = (feature.role.as_str(), &feature.feature, spec.datatype);
    let fits = match &feature.distribution {
        Distribution::Numeric { .. } => !matches!(datatype, DataType::Bool | DataType::Bytes),
        Distribution::Categorical { .. } => !datatype.is_float(),
    };
    if !fits {
        let kind = feature.kind().as_str();
        return Some(format!("feature '{name}' is {kind}, but {role} '{}' has datatype {datatype}", spec.name));
    }
    let Distribution::Categorical { categories, .. } = &feature.distribution else { return None };
    let stranger = categories.iter().find(|category| !is_value_of(&category.value, datatype))?;
    Some(format!(
        "feature '{name}' has the category '{}', which is no {datatype} of {role} '{}'",
        stranger.value, spec.name
    ))
}

/// Whether `text` is how a value of `datatype` is written as a category.
fn is_value_of(text: &str, datatype: DataType) -> bool {
    match datatype {
        DataType::Bytes => true,
        DataType::Bool => matches!(text, "true" | "false"),
        // One spelling for one number: no sign of plus, no leading zeros.
        _ => text.parse::<i128>().is_ok_and(|number| number.to_string() == text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Dim;
    use crate::monitor::profile::Category;

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
                spec("n", DataType::Int64, &[Dim::Any]),
                spec("s", DataType::Bytes, &[Dim::Any, Dim::Any]),
            ],
            outputs: vec![spec("y", DataType::Bool, &[Dim::Any, Dim::Fixed(1)])],
        }
    }

    fn feature(role: FeatureRole, tensor: &str, column: usize, category: Option<&str>) -> FeatureProfile {
        let distribution = match category {
            Some(value) => {
                Distribution::Categorical { categories: vec![Category { value: value.into(), count: 1 }], other: 0 }
            }
            None => Distribution::Numeric { min: 0.0, max: 1.0, mean: 0.0, std: 0.0, edges: vec![], counts: vec![1] },
        };
        let feature = format!("{tensor}[{column}]");
        FeatureProfile { tensor: tensor.into(), column, feature, role, rows: 1, missing: 0, nonfinite: 0, distribution }
    }

    fn fit(features: Vec<FeatureProfile>) -> Vec<String> {
        Profile { format: Profile::FORMAT, rows: 1, features }.fit(&signature())
    }

    #[test]
    fn fitting_profile_has_no_misfit() {
        use FeatureRole::{Input, Output};
        let features = vec![
            feature(Input, "x", 1, None),
            feature(Input, "n", 0, None),
            feature(Input, "s", 7, Some("anything")),
            feature(Output, "y", 0, Some("true")),
        ];
        assert_eq!(fit(features), Vec::<String>::new());
        assert!(fit(vec![feature(Input, "n", 0, Some("-3"))]).is_empty());
    }

    #[test]
    fn unfit_profile_names_every_misfit() {
        use FeatureRole::{Input, Output};
        let misfits = fit(vec![
            feature(Input, "y", 0, None),
            feature(Input, "x", 2, None),
            feature(Input, "x", 0, Some("a")),
            feature(Input, "s", 0, None),
            feature(Input, "n", 0, Some("1.0")),
            feature(Output, "y", 0, Some("1")),
        ]);
        assert_eq!(
            misfits,
            [
                "input 'y' is unknown: the model has 'x', 'n', 's'",
                "feature 'x[2]' is column 2 of input 'x', which has 2 (counted from 0)",
                "feature 'x[0]' is categorical, but input 'x' has datatype FP32",
                "feature 's[0]' is numeric, but input 's' has datatype BYTES",
                "feature 'n[0]' has the category '1.0', which is no INT64 of input 'n'",
                "feature 'y[0]' has the category '1', which is no BOOL of output 'y'",
            ]
        );
    }
}
