//! The facts of a version: its configuration's, and what the model itself says in its metadata.

use std::collections::BTreeMap;

use crate::{
    config::ModelConfig,
    domain::{Labels, ModelFacts},
};

/// The metadata key that names the columns of a tensor, as a JSON list.
pub(super) const COLUMNS_KEY: &str = "tidegate.columns.";
/// The key of a reference profile, as JSON.
pub(super) const PROFILE_KEY: &str = "tidegate.profile";

/// The metadata key that names the classes of an output, as a JSON list.
pub(super) const LABELS_KEY: &str = "tidegate.labels.";

/// What clients are shown of a version. The model's own labels stand behind those in files.
pub(super) fn facts(config: Option<&ModelConfig>, metadata: &BTreeMap<String, String>) -> ModelFacts {
    let mut facts = config.map(ModelConfig::facts).unwrap_or_default();
    for (key, error) in add_own_labels(&mut facts.labels, metadata) {
        tracing::warn!(key, %error, "the model's metadata is not a JSON list of names");
    }
    facts
}

/// The names of the classes of outputs: in files, behind them the model's own.
pub(super) fn labels(config: &ModelConfig, metadata: &BTreeMap<String, String>) -> Labels {
    let mut labels = config.labels.clone();
    // What is wrong with them is told with the facts.
    let _ = add_own_labels(&mut labels, metadata);
    labels
}

/// Adds those in the metadata; the keys that are none are returned.
fn add_own_labels<'a>(
    labels: &mut Labels,
    metadata: &'a BTreeMap<String, String>,
) -> Vec<(&'a str, serde_json::Error)> {
    let mut faults = Vec::new();
    for (key, value) in metadata {
        let Some(output) = key.strip_prefix(LABELS_KEY) else { continue };
        match serde_json::from_str::<Vec<String>>(value) {
            Ok(names) if labels.of(output).is_none() => drop(labels.by_output.insert(output.into(), names.into())),
            Ok(_) => {}
            Err(error) => faults.push((key.as_str(), error)),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_files_win_over_those_of_the_model() {
        let metadata = BTreeMap::from([
            ("tidegate.labels.y".to_owned(), r#"["a", "b"]"#.to_owned()),
            ("tidegate.labels.z".to_owned(), "not a list".to_owned()),
        ]);
        assert_eq!(facts(None, &metadata).labels.of("y").unwrap(), ["a", "b"]);
        assert_eq!(facts(None, &metadata).labels.of("z"), None);
        let mut config = ModelConfig::default();
        config.labels.all = Some(["file".to_owned()].into());
        assert_eq!(facts(Some(&config), &metadata).labels.of("y").unwrap(), ["file"]);
    }
}
