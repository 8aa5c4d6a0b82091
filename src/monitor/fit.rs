//! Does a profile fit a model? Found out when a version is admitted, so that counting cannot fail.

use super::columns::declared_columns;
use super::histogram::float_of_text;
use super::pca::ComponentFeature;
use super::profile::{Distribution, FeatureProfile, FeatureRole, Profile, Source};
use crate::domain::{DataType, Signature, TensorSpec};

impl Profile {
    /// All that does not fit between the profile and the model, in words; empty when it fits.
    ///
    /// A model may have tensors that the profile says nothing of; they are not monitored.
    #[must_use]
    pub fn fit(&self, signature: &Signature) -> Vec<String> {
        let features = self.features.iter().flat_map(|feature| feature_misfits(feature, signature));
        let components = self.components.iter().flat_map(|components| &components.features);
        features.chain(components.filter_map(|feature| component_misfit(feature, signature))).collect()
    }
}

fn component_misfit(feature: &ComponentFeature, signature: &Signature) -> Option<String> {
    let ComponentFeature { tensor, column } = feature;
    let fits = |spec: &TensorSpec| {
        let has_column = declared_columns(&spec.shape).is_none_or(|columns| *column < columns);
        has_column && !matches!(spec.datatype, DataType::Bool | DataType::Bytes)
    };
    let misfit =
        || format!("its components are of column {column} of input '{tensor}', which the model has no numbers in");
    (!signature.input(tensor).is_some_and(fits)).then(misfit)
}

fn feature_misfits(feature: &FeatureProfile, signature: &Signature) -> Vec<String> {
    let specs = match feature.role {
        FeatureRole::Input => &signature.inputs,
        FeatureRole::Output => &signature.outputs,
        // Its components say which inputs it is of.
        FeatureRole::Joint => return Vec::new(),
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
    let fits = match (&feature.distribution, feature.source) {
        (Distribution::Numeric { .. }, Source::Value) => !matches!(datatype, DataType::Bool | DataType::Bytes),
        (_, Source::Length | Source::Letters | Source::Digits | Source::Spaces) => datatype == DataType::Bytes,
        (Distribution::Numeric { .. }, _) => datatype != DataType::Bytes,
        (Distribution::Categorical { .. }, _) => true,
    };
    if !fits {
        let kind = feature.kind().as_str();
        return Some(format!("feature '{name}' is {kind}, but {role} '{}' has datatype {datatype}", spec.name));
    }
    let Distribution::Categorical { categories, rare, .. } = &feature.distribution else { return None };
    if rare.is_some() && datatype == DataType::Bool {
        return Some(format!("feature '{name}' has rare values, but {role} '{}' is BOOL", spec.name));
    }
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
        float if float.is_float() => float_of_text(text, float).is_some(),
        // One spelling for one number: no sign of plus, no leading zeros.
        _ => text.parse::<i128>().is_ok_and(|number| number.to_string() == text),
    }
}

#[cfg(test)]
mod tests;
