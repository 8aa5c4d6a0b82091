//! The names of tensor columns, from the configuration and the model's own metadata.

use std::collections::BTreeMap;

use crate::{
    config::ModelConfig,
    domain::{Dim, Signature, TensorSpec},
    monitor::ColumnNames,
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
            Some(spec) => faults.extend(column_fault(spec, list)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let labels = labels(config, metadata);
    for output in signature.outputs.iter().filter(|output| signature.input(&output.name).is_none()) {
        if let Some(classes) = labels.of(&output.name)
            && column_fault(output, classes).is_none()
        {
            names.entry(output.name.clone()).or_insert_with(|| by_class(&output.name, classes));
        }
    }
    Ok(names)
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

fn column_fault(spec: &TensorSpec, list: &[String]) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DataType;

    fn tensor(name: &str, columns: Dim) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![Dim::Any, columns], optional: false }
    }

    /// The names of the columns of the outputs `y` (three columns) and `z` (any number), where `labels.txt` is this.
    fn named(classes: &[&str], toml: &[(&str, &[&str])], metadata: &[(&str, &str)]) -> ColumnNames {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut config = ModelConfig::default();
        config.labels.all = (!classes.is_empty()).then(|| text(classes).into());
        config.columns = toml.iter().map(|(tensor, names)| ((*tensor).to_owned(), text(names))).collect();
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (inputs, outputs) =
            (vec![tensor("x", Dim::Fixed(3))], vec![tensor("y", Dim::Fixed(3)), tensor("z", Dim::Any)]);
        columns(&config, &metadata, &Signature { inputs, outputs }).unwrap()
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
    fn names_of_columns_win_over_those_of_classes() {
        let classes = ["cat", "dog", "fish"];
        assert_eq!(named(&classes, &[("y", &["a", "b", "c"])], &[])["y"], ["a", "b", "c"]);
        assert_eq!(named(&classes, &[], &[("tidegate.columns.y", r#"["a", "b", "c"]"#)])["y"], ["a", "b", "c"]);
        let own = ("tidegate.labels.y", r#"["A", "B", "C"]"#);
        assert_eq!(named(&[], &[], &[own])["y"], ["y[A]", "y[B]", "y[C]"]);
        assert_eq!(named(&classes, &[], &[own])["y"][0], "y[cat]", "files win over the model's own");
    }
}
