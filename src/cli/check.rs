//! `tidegate check`: admits versions, repositories and configuration files offline, and says all
//! that is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{CheckArgs, Output, print};
use crate::{
    config::{self, ModelConfig},
    domain::{ModelName, Version},
    engine::{EngineOptions, PoolOptions, Runtime, find_library},
    registry::admit,
};

/// What was found at one path.
#[derive(Debug, Serialize)]
struct Finding {
    path: String,
    kind: &'static str,
    ok: bool,
    faults: Vec<String>,
    /// What works otherwise than its author may think.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Finding {
    fn new(path: &Path, kind: &'static str, faults: Vec<String>) -> Self {
        Self { path: path.display().to_string(), kind, ok: faults.is_empty(), faults, warnings: Vec::new() }
    }
}

/// Runs the command: 0 when all is well, 1 when something is not.
#[must_use]
pub fn check(args: &CheckArgs) -> ExitCode {
    let mut checker = Checker::default();
    let findings: Vec<Finding> = args.paths.iter().flat_map(|path| checker.path(path)).collect();
    let report = match args.output {
        Output::Json => {
            let mut json = serde_json::to_vec_pretty(&findings).unwrap_or_default();
            json.push(b'\n');
            json
        }
        Output::Table => table(&findings).into_bytes(),
    };
    let printed = print(&report);
    if findings.iter().all(|finding| finding.ok) { printed } else { ExitCode::FAILURE }
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = if finding.ok { "ok" } else { "FAILED" };
        text += &format!("{verdict:7} {:14} {}\n", finding.kind, finding.path);
        for fault in &finding.faults {
            text += &format!("        - {}\n", fault.replace('\n', "\n          "));
        }
        for warning in &finding.warnings {
            text += &format!("        warning: {warning}\n");
        }
    }
    text
}

/// Loads ONNX Runtime on the first version, so that configuration files need none.
#[derive(Default)]
struct Checker {
    runtime: Option<Result<Runtime, String>>,
}

impl Checker {
    fn path(&mut self, path: &Path) -> Vec<Finding> {
        if !path.exists() {
            return vec![Finding::new(path, "path", vec!["does not exist".into()])];
        }
        if path.is_file() {
            return vec![check_file(path)];
        }
        let versions = integer_directories(path);
        if path.join("model.onnx").exists() || (versions.is_empty() && is_version_name(path)) {
            vec![self.version(path)]
        } else if !versions.is_empty() {
            self.model(path, &versions)
        } else {
            self.repository(path)
        }
    }

    fn repository(&mut self, path: &Path) -> Vec<Finding> {
        let mut models = subdirectories(path);
        models.retain(|model| !integer_directories(model).is_empty());
        if models.is_empty() {
            let fault = "holds no model: a model is a directory with version directories named 1, 2, …";
            return vec![Finding::new(path, "repository", vec![fault.into()])];
        }
        models.iter().flat_map(|model| self.model(model, &integer_directories(model))).collect()
    }

    fn model(&mut self, path: &Path, versions: &[PathBuf]) -> Vec<Finding> {
        let mut faults = Vec::new();
        let name = path.canonicalize().ok().and_then(|path| path.file_name()?.to_str().map(str::to_owned));
        if let Some(Err(error)) = name.map(|name| name.parse::<ModelName>()) {
            faults.push(error.to_string());
        }
        let mut warnings = Vec::new();
        match ModelConfig::read(path) {
            Ok(config) => warnings = config.warnings,
            Err(error) => faults.push(error.to_string()),
        }
        let mut findings = vec![Finding { warnings, ..Finding::new(path, "model", faults) }];
        findings.extend(versions.iter().map(|version| self.version(version)));
        findings
    }

    fn version(&mut self, path: &Path) -> Finding {
        let runtime = self.runtime.get_or_insert_with(load_runtime);
        let faults = match runtime {
            Ok(runtime) => {
                let model = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
                let config = ModelConfig::read(&model.unwrap_or_else(|| path.join("..")));
                match admit(runtime, EngineOptions::default(), &config, path) {
                    Ok(_) => Vec::new(),
                    Err(refusal) => refusal.0,
                }
            }
            Err(reason) => vec![reason.clone()],
        };
        Finding::new(path, "version", faults)
    }
}

fn check_file(path: &Path) -> Finding {
    let is_model_config = path.file_name().is_some_and(|name| name == "model.toml" || name == "config.pbtxt");
    if is_model_config {
        return match ModelConfig::read(
            path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        ) {
            Ok(config) => Finding { warnings: config.warnings, ..Finding::new(path, "model", Vec::new()) },
            Err(error) => Finding::new(path, "model", vec![error.to_string()]),
        };
    }
    Finding::new(path, "configuration", config::faults_of_file(path))
}

/// Loads ONNX Runtime as `serve` does.
pub(super) fn load_runtime() -> Result<Runtime, String> {
    let variable = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = find_library(variable, None).map_err(|error| error.to_string())?;
    Runtime::load(&library, PoolOptions { threads: 1, spinning: false }, usize::MAX).map_err(|error| error.to_string())
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let mut directories: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    directories.sort();
    directories
}

fn integer_directories(path: &Path) -> Vec<PathBuf> {
    let mut directories = subdirectories(path);
    directories.retain(|path| is_version_name(path));
    directories
}

fn is_version_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<Version>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_a_foreign_configuration_are_told_and_fail_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.pbtxt");
        fs::write(&file, "max_batch_size: 4 response_cache { enable: true }").unwrap();
        let findings = Checker::default().path(&file);
        assert!(findings[0].ok);
        assert!(table(&findings).contains("warning: without meaning here: response_cache"), "{}", table(&findings));
    }

    #[test]
    fn every_fault_of_every_path_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tidegate.toml");
        fs::write(&file, "[server]\nhtpp = 1\nhttp = 12\n\n[monitr]\n[monitor]\nwindow = \"5\"\n").unwrap();
        let model = directory.path().join("model.toml");
        fs::write(&model, "[release]\npolicy = \"newest\"\n").unwrap();
        let mut checker = Checker::default();
        let findings: Vec<_> =
            [&file, &model, &directory.path().join("gone")].into_iter().flat_map(|path| checker.path(path)).collect();
        assert_eq!(findings.iter().map(|finding| finding.ok).collect::<Vec<_>>(), [false; 3]);
        for words in ["line 2", "htpp", "line 3", "monitr", "line 7", "250ms", "does not exist"] {
            assert!(table(&findings).contains(words), "{words}: {}", table(&findings));
        }
    }
}
