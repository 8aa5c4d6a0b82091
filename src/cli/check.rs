//! `tidegate check`: admits versions, repositories and configuration files offline, and says all
//! that is wrong.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use serde::Serialize;

use super::{
    CheckArgs, ConfigFlags, Output, load_config,
    output::{Look, complain, printable},
    print, view,
};
use crate::{
    admin::wire::{AdmissionStep, admission},
    config::{self, Config, ModelConfig},
    domain::{ModelName, Signature, TensorSpec, Version},
    engine::{EngineOptions, Model, PoolOptions, Runtime, find_library},
    protocol::decode_json_request,
    registry::{self, Admission, AdmissionOptions, Baseline, Candidate, ServingDefaults, SignatureChange},
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
    /// What a version that was loaded takes and gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<SignatureShown>,
    /// How the admission of a version went, as its status would show it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    admission: Vec<AdmissionStep>,
}

impl Finding {
    fn new(path: &Path, kind: &'static str, faults: Vec<String>) -> Self {
        let (warnings, admission) = (Vec::new(), Vec::new());
        let (path, ok) = (path.display().to_string(), faults.is_empty());
        Self { path, kind, ok, faults, warnings, signature: None, admission }
    }
}

/// Inputs and outputs of a model.
#[derive(Debug, Serialize)]
struct SignatureShown {
    inputs: Vec<TensorShown>,
    outputs: Vec<TensorShown>,
}

#[derive(Debug, Serialize)]
struct TensorShown {
    name: String,
    datatype: String,
    /// -1: any size.
    shape: Vec<i64>,
}

impl From<&Signature> for SignatureShown {
    fn from(signature: &Signature) -> Self {
        let tensor = |spec: &TensorSpec| TensorShown {
            name: spec.name.clone(),
            datatype: spec.datatype.to_string(),
            shape: spec.wire_shape(),
        };
        let tensors = |specs: &[TensorSpec]| specs.iter().map(tensor).collect();
        Self { inputs: tensors(&signature.inputs), outputs: tensors(&signature.outputs) }
    }
}

impl SignatureShown {
    /// A line each for what the model takes and gives.
    fn lines(&self) -> String {
        let tensor = |it: &TensorShown| format!("{} {} {:?}", printable(&it.name), it.datatype, it.shape);
        let tensors = |all: &[TensorShown]| all.iter().map(tensor).collect::<Vec<_>>().join(", ");
        format!("        takes {}\n        gives {}\n", tensors(&self.inputs), tensors(&self.outputs))
    }
}

/// Runs the command: 0 when all is well, 1 when something is not, 2 when the configuration to check by
/// is wrong.
#[must_use]
pub fn check(args: &CheckArgs) -> ExitCode {
    let flags = ConfigFlags { config: args.config.clone(), ..ConfigFlags::default() };
    let config = match load_config(&flags) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    let mut checker = Checker { config, against: args.against.clone(), engine: None };
    let findings: Vec<Finding> = args.paths.iter().flat_map(|path| checker.path(path)).collect();
    let report = match args.output {
        Output::Json => {
            let mut json = serde_json::to_vec_pretty(&findings).unwrap_or_default();
            json.push(b'\n');
            json
        }
        Output::Table => table(&findings, Look::of_stdout()).into_bytes(),
    };
    let printed = print(&report);
    if findings.iter().all(|finding| finding.ok) { printed } else { ExitCode::FAILURE }
}

/// How the reason of a step begins that was not run since an earlier one failed.
const NOT_RUN: &str = "not run: the step";

/// The steps of an admission: those that were not come to are one line, and what the model's own finding said is not told again.
fn steps(admission: &[AdmissionStep], told: &BTreeSet<String>, look: Look) -> String {
    let is_left_out =
        |step: &&AdmissionStep| step.outcome == "skipped" && step.why.iter().any(|why| why.starts_with(NOT_RUN));
    let (left_out, run): (Vec<_>, Vec<_>) = admission.iter().partition(is_left_out);
    let short = |why: &String| if told.contains(why) { "as told of the model above".to_owned() } else { why.clone() };
    let run = run.into_iter().map(|step| AdmissionStep { why: step.why.iter().map(short).collect(), ..step.clone() });
    let mut text = view::admission(&run.collect::<Vec<_>>(), look);
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|step| &*step.step).collect();
        text += &format!("not run: {}\n", names.join(", "));
    }
    text
}

/// How much was checked, and how much of it is well.
fn summary(findings: &[Finding]) -> String {
    let counted = |kind: &str| findings.iter().filter(|it| it.kind == kind).count();
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    let warnings: usize = findings.iter().map(|finding| finding.warnings.len()).sum();
    let kinds = [("model", "models"), ("version", "versions"), ("configuration", "configurations")];
    let counts = kinds.iter().map(|(kind, kinds)| (counted(kind), kind, kinds)).filter(|(count, ..)| *count > 0);
    let counts = counts.map(|(count, kind, kinds)| format!("{count} {}", if count == 1 { kind } else { kinds }));
    let checked = counts.collect::<Vec<_>>().join(", ");
    let checked = if checked.is_empty() { "nothing".to_owned() } else { checked };
    let outcome = if failed == 0 { "all well".to_owned() } else { format!("{failed} FAILED") };
    let warned = match warnings {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        more => format!(", {more} warnings"),
    };
    format!("checked {checked}: {outcome}{warned}\n")
}

fn table(findings: &[Finding], look: Look) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    for finding in findings {
        let verdict = if finding.ok { "ok" } else { "FAILED" };
        text += &format!("{verdict:7} {:14} {}\n", finding.kind, finding.path);
        // The steps of an admission say the same, and where.
        told.extend(finding.faults.iter().filter(|_| finding.admission.is_empty()).cloned());
        for fault in finding.faults.iter().filter(|_| finding.admission.is_empty()) {
            text += &format!("        - {}\n", fault.replace('\n', "\n          "));
        }
        for warning in &finding.warnings {
            text += &format!("        warning: {warning}\n");
        }
        text += &finding.signature.as_ref().map(SignatureShown::lines).unwrap_or_default();
        if !finding.admission.is_empty() {
            let steps = steps(&finding.admission, &told, look);
            text.extend(steps.lines().map(|line| format!("        {line}\n")));
        }
    }
    text + &summary(findings)
}

struct Checker {
    config: Config,
    /// The version whose signature others are compared with.
    against: Option<PathBuf>,
    /// Loaded on the first version, so that configuration files need no ONNX Runtime.
    engine: Option<Result<Engine, String>>,
}

/// What admits versions.
struct Engine {
    admission: Admission,
    baseline: Option<Baseline>,
}

impl Engine {
    fn load(config: &Config, against: Option<&Path>) -> Result<Self, String> {
        let (runtime, library) = load_runtime(config.runtime.library.as_deref())?;
        let options = AdmissionOptions::of(&config.admission, &library, decode_json_request)?;
        let baseline = against.map(|directory| baseline(&runtime, directory, &options.link_roots)).transpose()?;
        Ok(Self { admission: Admission::new(runtime, options), baseline })
    }
}

fn baseline(runtime: &Runtime, directory: &Path, link_roots: &[PathBuf]) -> Result<Baseline, String> {
    let wrong = |reason: String| format!("--against {}: {reason}", directory.display());
    let name = directory.canonicalize().map_err(|error| wrong(error.to_string()))?;
    let version = name.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Version>().ok());
    let version = version.ok_or_else(|| wrong("not a version's directory, such as models/fraud/3".into()))?;
    let config = ModelConfig::read(&name.join("..")).map_err(|error| wrong(error.to_string()))?;
    let model =
        registry::open_version(runtime, EngineOptions::default(), &config, &name, link_roots, decode_json_request);
    let model = model.map_err(|refusal| wrong(refusal.to_string()))?;
    Ok(Baseline { version, signature: Arc::clone(model.signature()) })
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
            let mut finding = self.version(path);
            let name = path.canonicalize().unwrap_or_else(|_| path.into());
            let why = registry::stray(name_of(&name));
            finding.warnings.extend(why.map(|why| format!("in a repository it is ignored: {why}")));
            vec![finding]
        } else if !versions.is_empty() {
            self.model(path, &versions)
        } else {
            self.repository(path)
        }
    }

    fn repository(&mut self, path: &Path) -> Vec<Finding> {
        let mut models = subdirectories(path);
        models.retain(|model| !registry::is_hidden(name_of(model)));
        let loose = registry::loose(path);
        if models.is_empty() && loose.is_empty() {
            let fault = "holds no model: a model is a directory with version directories named 1, 2, …";
            return vec![Finding::new(path, "repository", vec![fault.into()])];
        }
        let loose = loose.into_iter().map(|(_, it)| Finding::new(&path.join(&it.path), "file", vec![it.reason]));
        let mut findings: Vec<_> = loose.collect();
        findings.extend(models.iter().flat_map(|model| self.model(model, &integer_directories(model))));
        findings
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
        let misplaced = registry::misplaced_in(path);
        for directory in subdirectories(path) {
            let name = name_of(&directory);
            let is_told = misplaced.iter().any(|told| told.path.ends_with(&format!("/{name}")));
            let why = registry::stray(name).filter(|_| !is_told);
            warnings.extend(why.map(|why| format!("'{name}' is ignored: {why}")));
        }
        faults.extend(misplaced.into_iter().map(|it| format!("{}: {}", it.path, it.reason)));
        let mut findings = vec![Finding { warnings, ..Finding::new(path, "model", faults) }];
        findings.extend(versions.iter().map(|version| self.version(version)));
        findings
    }

    fn version(&mut self, path: &Path) -> Finding {
        let engine = self.engine.get_or_insert_with(|| Engine::load(&self.config, self.against.as_deref()));
        let engine = match engine {
            Ok(engine) => engine,
            Err(reason) => return Finding::new(path, "version", vec![reason.clone()]),
        };
        let model = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let config = ModelConfig::read(&model.unwrap_or_else(|| path.join("..")));
        let own = config.as_ref().ok();
        let defaults =
            ServingDefaults { scheduler: self.config.scheduler.clone(), batching: self.config.batching.clone() };
        let candidate = Candidate {
            released: None,
            directory: path,
            config: &config,
            engine: defaults.engine_options(own),
            serving: &defaults.for_model(own),
            baselines: &|| {
                let baseline = engine.baseline.clone().ok_or("--against names no version to compare with")?;
                Ok(vec![baseline])
            },
            signature_change: if own.is_some_and(|own| own.release.allow_signature_change) {
                &SignatureChange::Allowed
            } else {
                &SignatureChange::Refused
            },
            recent: Vec::new(),
            is_urgent: true,
        };
        let (report, admitted) = engine.admission.admit(&candidate);
        let signature = admitted.map(|admitted| SignatureShown::from(&**admitted.model.signature()));
        let faults = report.faults().into_iter().map(str::to_owned).collect();
        Finding { signature, admission: admission(&report), ..Finding::new(path, "version", faults) }
    }
}

fn check_file(path: &Path) -> Finding {
    let extension = path.extension().and_then(|extension| extension.to_str());
    if let Some("onnx" | "json") = extension {
        let fault = "is no configuration: a model and what belongs to it are checked by their version's directory, \
                     such as models/fraud/4";
        return Finding::new(path, "file", vec![fault.into()]);
    }
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

/// Loads ONNX Runtime as `serve` does; says where its library is.
pub(super) fn load_runtime(configured: Option<&Path>) -> Result<(Runtime, PathBuf), String> {
    let variable = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = find_library(variable, configured).map_err(|error| error.to_string())?;
    let pool = PoolOptions { threads: 1, spinning: false };
    let runtime = Runtime::load(&library, pool, usize::MAX).map_err(|error| error.to_string())?;
    let library = library.canonicalize().map_err(|error| error.to_string())?;
    Ok((runtime, library))
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
    name_of(path).parse::<Version>().is_ok()
}

/// The last part of a path; empty where it is no text.
fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look { colours: false, width: None };

    fn checker() -> Checker {
        Checker { config: Config::default(), against: None, engine: None }
    }

    #[test]
    fn warnings_of_a_foreign_configuration_are_told_and_fail_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.pbtxt");
        fs::write(&file, "max_batch_size: 4 response_cache { enable: true }").unwrap();
        let findings = checker().path(&file);
        let shown = table(&findings, LOOK);
        assert!(findings[0].ok);
        assert!(shown.contains("warning: without meaning here: response_cache"), "{shown}");
    }

    #[test]
    fn what_a_gateway_ignores_is_told_and_what_it_does_not_look_at_is_not() {
        let root = tempfile::tempdir().unwrap();
        for path in ["m/1", "m/01", "m/__pycache__", "m/warmup", "zero/x", "bad name", ".hidden/1"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let mut checker = checker();
        // The versions themselves are not the matter.
        checker.engine = Some(Err("no engine".into()));
        let findings = checker.path(root.path());
        let shown = table(&findings, LOOK);
        let told: Vec<_> = findings.iter().filter(|it| it.kind == "model").collect();
        assert_eq!(told.iter().map(|it| it.ok).collect::<Vec<_>>(), [false; 3], "{shown}");
        for words in [
            "bad name: the directory is empty: put the model at bad name/1/model.onnx",
            "m/01: not a version: versions are whole numbers from 1: rename it to 1 (there is a version 1 already)",
            "'x' is ignored: not a version",
            "zero: it has no version: put the model at zero/1/model.onnx",
            "checked 3 models, 1 version: 4 FAILED",
        ] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn model_that_is_named_itself_is_no_broken_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("01");
        let file = directory.join("model.onnx");
        fs::create_dir(&directory).unwrap();
        fs::write(&file, [8, 9]).unwrap();
        let finding = checker().path(&file).remove(0);
        assert!(!finding.ok && finding.faults[0].contains("by their version's directory"), "{finding:?}");
        let finding = Checker { engine: Some(Err("no engine".into())), ..checker() }.path(&directory).remove(0);
        assert!(finding.warnings[0].contains("in a repository it is ignored"), "{finding:?}");
    }

    #[test]
    fn every_fault_of_every_path_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tidegate.toml");
        fs::write(&file, "[server]\nhtpp = 1\nhttp = 12\n\n[monitr]\n[monitor]\nsave_interval = \"5\"\n").unwrap();
        let model = directory.path().join("model.toml");
        fs::write(&model, "[release]\npolicy = \"newest\"\n").unwrap();
        let mut checker = checker();
        let findings: Vec<_> =
            [&file, &model, &directory.path().join("gone")].into_iter().flat_map(|path| checker.path(path)).collect();
        assert_eq!(findings.iter().map(|finding| finding.ok).collect::<Vec<_>>(), [false; 3]);
        for words in ["line 2", "htpp", "line 3", "monitr", "line 7", "250ms", "does not exist"] {
            assert!(table(&findings, LOOK).contains(words), "{words}: {}", table(&findings, LOOK));
        }
    }
}
