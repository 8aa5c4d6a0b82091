//! What lies in the repository where no model is served from, and what to do about it.
//!
//! A model is served from `MODEL/VERSION/model.onnx`. Files that somebody meant to be a model and put elsewhere are told with
//! the place where they belong: a gateway that says nothing of them looks like one that does not work.

use std::{fs, path::Path};

use super::disk::{MODEL_FILE, is_hidden};
use crate::domain::{ModelName, Version};

/// Something that was meant to be a model or a version, and is neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// Within the repository, such as `fraud/v2`.
    pub path: String,
    /// Why it is not served, and what to do.
    pub reason: String,
}

/// How files of models end that ONNX Runtime does not read, and what they are.
const FOREIGN: [(&str, &str); 17] = [
    ("pt", "a PyTorch file"),
    ("pth", "a PyTorch file"),
    ("ckpt", "a checkpoint"),
    ("safetensors", "a file of weights"),
    ("pkl", "a Python pickle"),
    ("pickle", "a Python pickle"),
    ("joblib", "a Python pickle"),
    ("h5", "a Keras file"),
    ("keras", "a Keras file"),
    ("pb", "a TensorFlow file"),
    ("tflite", "a TensorFlow Lite file"),
    ("cbm", "a CatBoost file"),
    ("ubj", "an XGBoost file"),
    ("gguf", "a GGUF file"),
    ("plan", "a TensorRT plan"),
    ("engine", "a TensorRT plan"),
    ("ort", "a file in ONNX Runtime's own format"),
];

/// The name's extension in lower case.
fn extension(name: &str) -> String {
    Path::new(name).extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

pub(super) fn is_onnx(name: &str) -> bool {
    extension(name) == "onnx"
}

fn foreign(name: &str) -> Option<&'static str> {
    let extension = extension(name);
    FOREIGN.iter().find(|(known, _)| *known == extension).map(|(_, what)| *what)
}

/// Why a version's directory without the file `wanted` has no model, by the names of its files (within it, with `/`).
pub(super) fn missing<'a>(wanted: &str, files: impl Iterator<Item = &'a str>) -> String {
    let files: Vec<&str> = files.collect();
    let is_beside = |name: &&&str| !name.contains('/');
    let says = |what: String| format!("{wanted} is missing: {what}");
    if files.is_empty() {
        return says("the directory is empty".into());
    }
    if let Some(other) = files.iter().filter(is_beside).find(|name| name.eq_ignore_ascii_case(wanted)) {
        return says(format!("{other} is there: rename it to {wanted}"));
    }
    let mut models = files.iter().filter(is_beside).filter(|name| is_onnx(name));
    if let Some(other) = models.next() {
        let more = models.count();
        return says(if more == 0 {
            format!("{other} is there: rename it to {wanted}")
        } else {
            format!("{other} and {more} more *.onnx are there: rename the one that is to be served to {wanted}")
        });
    }
    if let Some(other) = files.iter().find(|name| is_onnx(name)) {
        return says(format!("{other} is there: move it up, to {wanted}"));
    }
    if let Some((other, what)) = files.iter().find_map(|name| Some((name, foreign(name)?))) {
        return says(format!("{other} is there, {what}: export the model to ONNX as {wanted}"));
    }
    let shown: Vec<&str> = files.iter().take(3).copied().collect();
    let more =
        if files.len() > shown.len() { format!(" and {} more", files.len() - shown.len()) } else { String::new() };
    says(format!("there is {}{more}", shown.join(", ")))
}

/// The number that somebody meant who called a directory `v2`, `02` or `version-2`.
fn meant(name: &str) -> Option<Version> {
    let lower = name.to_ascii_lowercase();
    let prefixed = ["version", "ver", "v"].iter().find_map(|prefix| lower.strip_prefix(prefix));
    let number = prefixed.map_or(lower.as_str(), |rest| rest.trim_start_matches(['-', '_', '.']));
    let digits = number.trim_start_matches('0');
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Why a directory of this name beside versions is ignored; `None` when it is a version or nobody's mistake: what is
/// hidden, Python's caches, and data of warm-up requests.
#[must_use]
pub fn stray(name: &str) -> Option<String> {
    let is_known = is_hidden(name) || name.starts_with('_') || name == "warmup" || name.parse::<Version>().is_ok();
    let rename = meant(name).map(|version| format!(": rename it to {version}")).unwrap_or_default();
    (!is_known).then(|| format!("not a version: versions are whole numbers from 1{rename}"))
}

/// The names of what is in a directory, without what is hidden: directories first.
fn entries(directory: &Path) -> (Vec<String>, Vec<String>) {
    let (mut directories, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_hidden(&name) {
            continue;
        }
        let is_directory = entry.path().is_dir();
        if is_directory { directories.push(name) } else { files.push(name) }
    }
    directories.sort();
    files.sort();
    (directories, files)
}

/// What in a model's directory was meant to be a version of it and is none; and why the model has none, where that is so.
#[must_use]
pub fn misplaced_in(directory: &Path) -> Vec<Misplaced> {
    let model = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (directories, files) = entries(directory);
    let versions: Vec<Version> = directories.iter().filter_map(|name| name.parse().ok()).collect();
    let next = versions.iter().max().map_or(1, |highest| highest.get() + 1);
    let mut found = Vec::new();
    let mut add = |name: &str, reason: String| found.push(Misplaced { path: format!("{model}/{name}"), reason });
    for name in directories.iter().filter(|name| name.parse::<Version>().is_err()) {
        if let Some(why) = stray(name)
            && let Some(reason) = directory_reason(directory, name, next, &why)
        {
            add(name, reason);
        }
    }
    for name in &files {
        if is_onnx(name) && versions.is_empty() {
            add(name, format!("it is in no version's directory: move it to {model}/1/{MODEL_FILE}"));
        } else if is_onnx(name) {
            add(name, format!("it lies beside the versions: move it to {model}/{next}/{MODEL_FILE}"));
        } else if let Some(what) = foreign(name).filter(|_| versions.is_empty()) {
            add(name, format!("it is {what}: export the model to ONNX as {model}/1/{MODEL_FILE}"));
        }
    }
    if versions.is_empty() && found.is_empty() {
        let is_empty = directories.is_empty() && files.is_empty();
        let what = if is_empty { "the directory is empty" } else { "it has no version" };
        let reason = format!("{what}: put the model at {model}/1/{MODEL_FILE}");
        found.push(Misplaced { path: model, reason });
    }
    found
}

/// Why a directory of this name in a model's one is a mistake; `None` where it may be anything.
fn directory_reason(model: &Path, name: &str, next: u64, why: &str) -> Option<String> {
    if let Some(version) = meant(name) {
        let is_taken = model.join(version.to_string()).exists();
        let taken = if is_taken { format!(" (there is a version {version} already)") } else { String::new() };
        return Some(format!("{why}{taken}"));
    }
    let (directories, files) = entries(&model.join(name));
    if directories.iter().any(|name| name.parse::<Version>().is_ok()) {
        return Some(format!(
            "it looks like a model within a model: move it up, beside '{}'",
            model.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    let has_model = files.iter().any(|name| is_onnx(name) || foreign(name).is_some());
    has_model.then(|| format!("{why}: rename it to {next} if it is one"))
}

/// What lies in the repository itself and was meant to be a model.
#[must_use]
pub fn loose(models: &Path) -> Vec<(ModelName, Misplaced)> {
    let (_, files) = entries(models);
    let name = |file: &str| file.rsplit_once('.').and_then(|(stem, _)| stem.parse::<ModelName>().ok());
    let reason = |file: &str, model: &ModelName| match foreign(file) {
        _ if is_onnx(file) => Some(format!("it is in no model's directory: move it to {model}/1/{MODEL_FILE}")),
        Some(what) => Some(format!("it is {what}: export the model to ONNX as {model}/1/{MODEL_FILE}")),
        None => None,
    };
    let misplaced = files.iter().filter_map(|file| {
        let model = name(file)?;
        let reason = reason(file, &model)?;
        Some((model, Misplaced { path: file.clone(), reason }))
    });
    misplaced.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        root
    }

    #[test]
    fn missing_model_is_told_with_what_is_there() {
        let cases: [(&[&str], &str); 8] = [
            (&[], "model.onnx is missing: the directory is empty"),
            (&["MODEL.ONNX", "profile.json"], "MODEL.ONNX is there: rename it to model.onnx"),
            (&["churn.onnx"], "churn.onnx is there: rename it to model.onnx"),
            (&["a.onnx", "b.onnx", "c.onnx"], "a.onnx and 2 more *.onnx are there"),
            (&["onnx/model.onnx"], "onnx/model.onnx is there: move it up, to model.onnx"),
            (&["model.pt"], "model.pt is there, a PyTorch file: export the model to ONNX"),
            (&["model.PKL", "profile.json"], "model.PKL is there, a Python pickle"),
            (&["a.txt", "b.txt", "c.txt", "d.txt"], "there is a.txt, b.txt, c.txt and 1 more"),
        ];
        for (files, words) in cases {
            let said = missing("model.onnx", files.iter().copied());
            assert!(said.starts_with("model.onnx is missing: ") && said.contains(words), "{said}");
        }
    }

    #[test]
    fn names_of_versions_are_recognised_in_their_usual_spellings() {
        for (name, version) in [("v2", 2), ("V10", 10), ("01", 1), ("version-3", 3), ("ver_04", 4)] {
            assert_eq!(meant(name).map(Version::get), Some(version), "{name}");
            assert!(stray(name).unwrap().ends_with(&format!("rename it to {version}")), "{name}");
        }
        for name in ["0", "v", "data", "1.0", "2-old", "-1", "99999999999999999999999"] {
            assert_eq!(meant(name), None, "{name}");
        }
        for name in ["1", ".tmp", "__pycache__", "warmup"] {
            assert_eq!(stray(name), None, "{name}");
        }
    }

    #[test]
    fn what_was_meant_to_be_a_version_is_told_and_other_directories_are_not() {
        let root =
            repository(&["m/1/model.onnx", "m/v2/model.onnx", "m/v1/x", "m/docs/a.md", "m/new/net.onnx", "m/x.onnx"]);
        let told = misplaced_in(&root.path().join("m"));
        let shown: Vec<_> = told.iter().map(|it| format!("{}: {}", it.path, it.reason)).collect();
        assert_eq!(
            shown,
            [
                "m/new: not a version: versions are whole numbers from 1: rename it to 2 if it is one",
                "m/v1: not a version: versions are whole numbers from 1: rename it to 1 (there is a version 1 already)",
                "m/v2: not a version: versions are whole numbers from 1: rename it to 2",
                "m/x.onnx: it lies beside the versions: move it to m/2/model.onnx",
            ]
        );
    }

    #[test]
    fn model_without_versions_always_says_why() {
        let root = repository(&["flat/model.onnx", "torch/model.pt", "team/fraud/1/model.onnx", "docs/a.md"]);
        fs::create_dir(root.path().join("empty")).unwrap();
        for (model, path, words) in [
            ("flat", "flat/model.onnx", "move it to flat/1/model.onnx"),
            ("torch", "torch/model.pt", "it is a PyTorch file: export"),
            ("team", "team/fraud", "looks like a model within a model"),
            ("docs", "docs", "it has no version: put the model at docs/1/model.onnx"),
            ("empty", "empty", "the directory is empty: put the model at empty/1/model.onnx"),
        ] {
            let told = misplaced_in(&root.path().join(model));
            assert!(told.len() == 1 && told[0].path == path && told[0].reason.contains(words), "{told:?}");
        }
    }

    #[test]
    fn loose_files_are_told_with_their_place() {
        let root = repository(&["loose.onnx", "net.pkl", "README.md", "bad name.onnx", ".hidden.onnx"]);
        let told = loose(root.path());
        let shown: Vec<_> = told.iter().map(|(model, it)| format!("{model} {} {}", it.path, it.reason)).collect();
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown[0].starts_with("loose loose.onnx") && shown[0].ends_with("move it to loose/1/model.onnx"));
        assert!(shown[1].starts_with("net net.pkl it is a Python pickle"));
    }
}
