//! The names of tensor columns, from the configuration and the model's own metadata.

use std::collections::BTreeMap;

use crate::{
    config::ModelConfig,
    domain::{Dim, Signature, TensorSpec},
    monitor::ColumnNames,
    registry::facts::COLUMNS_KEY,
};

/// The names of tensor columns: from `model.toml`, otherwise from the model's own metadata.
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
    if faults.is_empty() { Ok(names) } else { Err(faults) }
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
