//! The names of tensor columns, from the configuration and the model's own metadata.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{self, ModelConfig},
    domain::{Dim, Signature, TensorSpec},
    monitor::{ColumnNames, ColumnType, ColumnTypes, FeatureKind, FeatureProfile, Profile, Source},
    registry::facts::{COLUMNS_KEY, labels},
};

/// The names of tensor columns: from `model.toml`, otherwise from the model's own metadata. Outputs that neither names have
/// those of their classes, as `probabilities[cat]`, where there is one for each column.
pub fn columns(
    config: &ModelConfig,
    metadata: &BTreeMap<String, String>,
    signature: &Signature,
) -> Result<ColumnNames, Vec<String>> {
    let mut names = ColumnNames::default();
    let mut faults = Vec::new();
    for (key, value) in metadata {
        let Some(tensor) = key.strip_prefix(COLUMNS_KEY) else { continue };
        match serde_json::from_str(value) {
            Ok(list) => drop(names.insert(tensor.into(), list)),
            Err(error) => faults.push(format!("metadata {key}: not a JSON list of names: {error}")),
        }
    }
    names.extend(config.columns.clone());
    for (tensor, list) in &names {
        match signature.input(tensor).or_else(|| signature.output(tensor)) {
            None => faults.push(format!("columns: the model has no tensor '{tensor}'")),
            Some(spec) => faults.extend(count_fault(spec, list).into_iter().chain(name_faults(tensor, list))),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let labels = labels(config, metadata);
    for output in signature.outputs.iter().filter(|output| signature.input(&output.name).is_none()) {
        if let Some(classes) = labels.of(&output.name)
            && count_fault(output, classes).is_none()
        {
            names.entry(output.name.clone()).or_insert_with(|| by_class(&output.name, classes));
        }
    }
    Ok(names)
}

/// What `model.toml` wants columns to be taken for.
#[must_use]
pub fn column_types(config: &ModelConfig) -> ColumnTypes {
    let of = |(name, wanted): (&String, &config::ColumnType)| {
        let wanted = match wanted {
            config::ColumnType::Categorical => ColumnType::Categorical,
            config::ColumnType::Numeric => ColumnType::Numeric,
            config::ColumnType::Text => ColumnType::Text,
            config::ColumnType::Ignore => ColumnType::Ignore,
        };
        (name.clone(), wanted)
    };
    config.monitor.features.iter().map(of).collect()
}

/// What to know where `[monitor.features]` names what this version does not have. It may be meant for another version, and
/// what is watched is no reason not to serve.
pub(super) fn unknown_types(types: &ColumnTypes, names: &ColumnNames, signature: &Signature) -> Option<String> {
    let faults = types.faults(signature, names);
    (!faults.is_empty()).then(|| format!("warning: [monitor.features] of model.toml: {}", faults.join("; ")))
}

/// What to know where a profile takes columns for something else than `[monitor.features]` says.
pub(super) fn other_types(profile: &Profile, types: &ColumnTypes) -> Option<String> {
    let differs = |feature: &&FeatureProfile| {
        let is = match feature.kind() {
            FeatureKind::Categorical | FeatureKind::Boolean => ColumnType::Categorical,
            FeatureKind::Numeric => ColumnType::Numeric,
            FeatureKind::Text => ColumnType::Text,
            FeatureKind::Embedding | FeatureKind::Multivariate => return false,
        };
        let wanted = types.of(&feature.tensor, feature.column_name());
        // A column without any value is of no type yet.
        !feature.is_empty() && wanted.is_some_and(|wanted| wanted != ColumnType::Ignore && wanted != is)
    };
    let others: Vec<_> = profile.features.iter().filter(differs).map(FeatureProfile::column_name).collect();
    let first = others.first()?;
    Some(format!(
        "warning: the profile takes {} of its features for something else than [monitor.features] of model.toml says (such as \
         '{first}'): it counts until `tidegate profile` makes the profile anew",
        others.len()
    ))
}

/// A name for the column of each class. Where the class has no name, or that of another one, it is the number of the column.
fn by_class(output: &str, classes: &[String]) -> Vec<String> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for class in classes {
        *times.entry(class).or_default() += 1;
    }
    let name = |(column, class): (usize, &String)| match class.as_str() {
        name if name.is_empty() || times[name] > 1 => format!("{output}[{column}]"),
        name => format!("{output}[{name}]"),
    };
    classes.iter().enumerate().map(name).collect()
}

fn count_fault(spec: &TensorSpec, list: &[String]) -> Option<String> {
    let rows = usize::from(spec.shape != [Dim::Unranked]);
    let width: Option<u64> = spec
        .shape
        .iter()
        .skip(rows)
        .map(|dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Any | Dim::Unranked => None,
        })
        .product();
    let fits = width.is_none_or(|width| width == list.len() as u64);
    (!fits).then(|| {
        format!("columns: tensor '{}' has {} columns, {} are named", spec.name, width.unwrap_or(0), list.len())
    })
}

/// Names that tell no column.
fn name_faults(tensor: &str, list: &[String]) -> Vec<String> {
    let mut known = BTreeSet::new();
    let repeated: BTreeSet<&String> = list.iter().filter(|name| !name.is_empty() && !known.insert(*name)).collect();
    let empty = list.iter().position(String::is_empty);
    let empty = empty.map(|column| format!("columns: tensor '{tensor}' has no name for column {column}, from 0"));
    let repeated = repeated.into_iter().map(|name| format!("columns: tensor '{tensor}' has '{name}' more than once"));
    empty.into_iter().chain(repeated).collect()
}

/// What to know where a profile calls columns otherwise than `names` do.
pub(super) fn other_names(profile: &Profile, names: &ColumnNames) -> Option<String> {
    let of_row =
        |source| matches!(source, Source::Norm | Source::Mean | Source::Projection(_) | Source::ReconstructionError);
    let differs = |feature: &&crate::monitor::FeatureProfile| {
        // A single column is called like its tensor.
        let given = names.get(&feature.tensor).filter(|given| given.len() > 1 && !of_row(feature.source));
        let given = given.and_then(|given| given.get(feature.column));
        given.is_some_and(|name| feature.source.name(name) != feature.feature)
    };
    let others: Vec<_> = profile.features.iter().filter(differs).collect();
    let first = others.first()?;
    Some(format!(
        "warning: the profile calls {} of its features otherwise than the model's configuration (such as column {} of '{}': \
         '{}'): the names of the profile are used until `tidegate profile` makes it anew",
        others.len(),
        first.column,
        first.tensor,
        first.feature
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DataType;

    fn tensor(name: &str, columns: Dim) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![Dim::Any, columns], optional: false }
    }

    /// The names of the columns of the outputs `y` (three columns) and `z` (any number), where `labels.txt` is this.
    fn named(classes: &[&str], toml: &[(&str, &[&str])], metadata: &[(&str, &str)]) -> ColumnNames {
        try_named(classes, toml, metadata).unwrap()
    }

    fn try_named(
        classes: &[&str],
        toml: &[(&str, &[&str])],
        metadata: &[(&str, &str)],
    ) -> Result<ColumnNames, Vec<String>> {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut config = ModelConfig::default();
        config.labels.all = (!classes.is_empty()).then(|| text(classes).into());
        config.columns = toml.iter().map(|(tensor, names)| ((*tensor).to_owned(), text(names))).collect();
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (inputs, outputs) =
            (vec![tensor("x", Dim::Fixed(3))], vec![tensor("y", Dim::Fixed(3)), tensor("z", Dim::Any)]);
        columns(&config, &metadata, &Signature { inputs, outputs })
    }

    #[test]
    fn columns_of_outputs_are_named_by_their_classes() {
        let names = named(&["cat", "dog", "fish"], &[], &[]);
        assert_eq!(names["y"], ["y[cat]", "y[dog]", "y[fish]"]);
        assert_eq!(names.keys().collect::<Vec<_>>(), ["y", "z"], "not the input");
        assert_eq!(named(&["cat", "dog"], &[], &[]).keys().collect::<Vec<_>>(), ["z"], "as many as columns");
        assert_eq!(named(&["cat", "", "cat"], &[], &[])["y"], ["y[0]", "y[1]", "y[2]"]);
        assert_eq!(named(&["cat", "dog", ""], &[], &[])["y"], ["y[cat]", "y[dog]", "y[2]"]);
    }

    #[test]
    fn names_that_repeat_are_empty_or_too_few_are_refused() {
        let faults = |toml: &[(&str, &[&str])]| try_named(&[], toml, &[]).unwrap_err().join("; ");
        assert_eq!(faults(&[("x", &["a", "b", "b"])]), "columns: tensor 'x' has 'b' more than once");
        assert_eq!(faults(&[("z", &["a", "a", "a", "b", "b"])]).matches("more than once").count(), 2);
        assert_eq!(faults(&[("x", &["a", "", ""])]), "columns: tensor 'x' has no name for column 1, from 0");
        assert_eq!(faults(&[("x", &["a", "b"])]), "columns: tensor 'x' has 3 columns, 2 are named");
        let own = try_named(&[], &[], &[("tidegate.columns.x", r#"["a", "b", "a"]"#)]).unwrap_err();
        assert_eq!(own, ["columns: tensor 'x' has 'a' more than once"]);
    }

    #[test]
    fn profile_with_other_names_of_columns_is_told_of() {
        let feature = |name: &str, column: usize| {
            format!(
                r#"{{"tensor": "x", "column": {column}, "feature": "{name}", "role": "input", "rows": 1, "missing": 0,
                "nonfinite": 0, "kind": {{"categorical": {{"categories": [{{"value": "1", "count": 1}}], "other": 0}}}}}}"#
            )
        };
        let json = format!(r#"{{"format": 2, "rows": 1, "features": [{}, {}]}}"#, feature("a", 0), feature("b", 1));
        let profile = Profile::parse(json.as_bytes()).unwrap();
        let told = |names: &[&str]| other_names(&profile, &named(&[], &[("x", names)], &[]));
        assert_eq!(told(&["a", "b", "c"]), None);
        assert!(
            told(&["a", "d", "c"])
                .unwrap()
                .contains("1 of its features otherwise than the model's configuration (such as column 1 of 'x': 'b')")
        );
        assert!(told(&["b", "a", "c"]).unwrap().contains("calls 2 of its features otherwise"));
        assert_eq!(other_names(&profile, &ColumnNames::new()), None);
    }

    #[test]
    fn types_that_do_not_fit_are_told_and_fail_nothing() {
        let mut config = ModelConfig::default();
        let types = |config: &ModelConfig| column_types(config);
        let names = named(&[], &[("x", &["age", "b", "c"])], &[]);
        let signature = Signature { inputs: vec![tensor("x", Dim::Fixed(3))], outputs: vec![] };
        config.monitor.features.insert("age".into(), config::ColumnType::Categorical);
        assert_eq!(unknown_types(&types(&config), &names, &signature), None);
        config.monitor.features.insert("aeg".into(), config::ColumnType::Ignore);
        let told = unknown_types(&types(&config), &names, &signature).unwrap();
        assert!(told.starts_with("warning:") && told.contains("no column 'aeg': did you mean 'age'?"), "{told}");
        let json = r#"{"format": 2, "rows": 1, "features": [{"tensor": "x", "column": 0, "feature": "age", "role": "input",
            "rows": 1, "missing": 0, "nonfinite": 0, "kind": {"numeric": {"min": 0, "max": 1, "mean": 0, "std": 0, "edges": [],
            "counts": [1]}}}]}"#;
        let profile = Profile::parse(json.as_bytes()).unwrap();
        let told = other_types(&profile, &types(&config)).unwrap();
        assert!(told.contains("1 of its features") && told.contains("'age'"), "{told}");
        config.monitor.features.insert("age".into(), config::ColumnType::Ignore);
        assert_eq!(other_types(&profile, &types(&config)), None);
    }

    #[test]
    fn names_of_columns_win_over_those_of_classes() {
        let classes = ["cat", "dog", "fish"];
        assert_eq!(named(&classes, &[("y", &["a", "b", "c"])], &[])["y"], ["a", "b", "c"]);
        assert_eq!(named(&classes, &[], &[("tidegate.columns.y", r#"["a", "b", "c"]"#)])["y"], ["a", "b", "c"]);
        let own = ("tidegate.labels.y", r#"["A", "B", "C"]"#);
        assert_eq!(named(&[], &[], &[own])["y"], ["y[A]", "y[B]", "y[C]"]);
        assert_eq!(named(&classes, &[], &[own])["y"][0], "y[cat]", "files win over the model's own");
    }
}
