//! The readers of configuration as functions of bytes: see [`crate::fuzzing`].

use std::{collections::BTreeMap, path::Path};

use super::{Config, ModelConfig, labels as label_files, load, model, triton};
use crate::fuzzing::with_file;

/// `config.pbtxt`.
pub(crate) fn pbtxt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = triton::parse(text, "m") {
        let _ = config.facts();
    }
}

/// `model.toml`. What is read can be written, and reads back as itself.
pub(crate) fn model_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = model::parse(Path::new("model.toml"), text) else { return };
    let written = toml::to_string(&config).expect("a configuration has a text");
    let again: ModelConfig = toml::from_str(&written).expect("what was written can be read");
    assert_eq!(again, config);
}

/// `tidegate.toml`.
pub(crate) fn gateway_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let loaded = with_file("tidegate.toml", bytes, |path| load(Some(path), [], &super::Overrides::default()));
    let Some(Ok(config)) = loaded else { return };
    let again: Config = toml::from_str(text).expect("it was read before");
    assert_eq!(again, config);
}

/// `labels.txt`.
pub(crate) fn labels(bytes: &[u8]) {
    with_file("labels.txt", bytes, |path| {
        let directory = path.parent().unwrap_or(Path::new("."));
        let Ok(labels) = label_files::read(directory, BTreeMap::new()) else { return };
        assert!(labels.all.is_some_and(|lines| lines.iter().all(|line| !line.contains('\n'))));
    });
}
