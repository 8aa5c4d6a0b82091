//! What a version must pass before it is ready, step by step; the same for the gateway and `tidegate
//! check`.
//!
//! A step that fails does not end the admission where going on can tell more, so that an author hears
//! all that is wrong at once. But a version whose files failed a check is not loaded: not in a process
//! of its own, and here even less.
//!
//! | step | file |
//! | --- | --- |
//! | complete | `complete`, over the files of `listing` |
//! | digest | `digest`, `manifest` |
//! | containment | `listing`, `external` |
//! | trial | `sandbox`: in a process of its own |
//! | load | `load`, `kind`, `zipmap`, `sequence`, `locale`, over the `fields` of its bytes; `declared`, `columns`, the profile |
//! | signature | `signature` |
//! | golden | `golden` |
//! | warmup | `warmup`, `samples`, `random`, and the trial of the room `schedule` |
//!
//! `report` is what is kept of it.

mod columns;
mod complete;
mod declared;
mod digest;
mod external;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod golden;
mod kind;
mod labels;
mod listing;
mod load;
mod locale;
mod manifest;
mod offline;
mod random;
mod report;
mod samples;
mod sandbox;
mod sequence;
mod signature;
mod warmup;
mod zipmap;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) use self::report::Faults;
pub use self::{
    columns::{column_types, columns},
    golden::RequestDecoder,
    manifest::{SignaturePolicy, SigningKey},
    offline::{Refusal, open_version},
    report::{AdmissionReport, ChangedFiles, Outcome, Step, StepReport},
    sandbox::{SandboxOptions, serve as serve_trials},
    signature::{Baseline, SignatureChange},
};
use self::{
    columns::{other_names, other_types, unknown_types},
    complete::Parts,
    digest::{DigestCache, FileDigest},
    listing::Listing,
    load::Fault,
    report::Verdict,
    sandbox::{Job, Reply, Sandbox},
};
use crate::{
    config::{AdmissionConfig, ModelConfig, ModelConfigError, Nondeterministic},
    domain::{ServingSettings, Signature, Tensor},
    engine::{EngineOptions, Model, OnnxModel, Runtime},
    independence::{self, Reason},
    monitor::Profile,
    registry::facts::PROFILE_KEY,
    schedule::{self, Known, Sample, Stopwatch, Trial, thread_time, wall_time},
    store::ModelFiles,
};

/// What admissions go by.
#[derive(Debug, Clone)]
pub struct AdmissionOptions {
    pub signatures: SignaturePolicy,
    /// Files may have names outside the model's directory.
    pub allow_hard_links: bool,
    /// Directories that links of versions may lead to, links resolved.
    pub link_roots: Vec<PathBuf>,
    /// `None`: models are not tried out in processes of their own.
    pub sandbox: Option<SandboxOptions>,
    /// What becomes of a version whose answers to one request differ between two runs.
    pub nondeterministic: Nondeterministic,
    /// Reads golden requests.
    pub decode: RequestDecoder,
}

impl AdmissionOptions {
    /// As the configuration says; `library` is the ONNX Runtime that trials load.
    ///
    /// # Errors
    /// In words, when a key cannot be read.
    pub fn of(config: &AdmissionConfig, library: &Path, decode: RequestDecoder) -> Result<Self, String> {
        let keys: Result<Vec<SigningKey>, String> = config.keys.iter().map(|path| SigningKey::read(path)).collect();
        let keys = keys.map_err(|fault| format!("admission.keys: {fault}"))?;
        let root = |path: &PathBuf| {
            path.canonicalize().map_err(|error| format!("admission.link_roots: {}: {error}", path.display()))
        };
        let link_roots = config.link_roots.iter().map(root).collect::<Result<_, _>>()?;
        let sandbox = config
            .isolated
            .then(|| SandboxOptions::of_this_program(library.into(), config.time_limit.0, config.memory_limit.0));
        Ok(Self {
            signatures: SignaturePolicy { keys, is_required: config.require_signature },
            allow_hard_links: config.allow_hard_links,
            link_roots,
            sandbox,
            nondeterministic: config.nondeterministic,
            decode,
        })
    }
}

/// Admits versions. One for all of them: it remembers digests and keeps workers.
pub struct Admission {
    runtime: Runtime,
    options: AdmissionOptions,
    digests: DigestCache,
    sandbox: Option<Sandbox>,
}

/// A version that wants to be admitted.
pub struct Candidate<'a> {
    pub directory: &'a Path,
    pub config: &'a Result<ModelConfig, ModelConfigError>,
    pub engine: EngineOptions,
    pub serving: &'a ServingSettings,
    /// What its signature is held against: fitting one of them is enough. Or why there is nothing.
    /// Asked for once the model is loaded.
    pub baselines: &'a dyn Fn() -> Result<Vec<Baseline>, String>,
    /// What becomes of a break of the signature.
    pub signature_change: &'a SignatureChange,
    /// The files that were released under its number, where it must have those; `None`: whatever is there.
    pub released: Option<&'a ModelFiles>,
    /// Inputs of requests that other versions have answered.
    pub recent: Vec<Arc<[Tensor]>>,
    /// Nothing else needs the processor more.
    pub is_urgent: bool,
}

/// A version that passed.
pub struct Admitted {
    pub model: OnnxModel,
    /// `sha256:` and the hex digest of `model.onnx`.
    pub digest: String,
    /// Tells the model apart from others: by `model.onnx` and by the files it refers to.
    pub identity: String,
    /// Bytes of `model.onnx` and of the files it refers to.
    pub memory_bytes: u64,
    pub profile: Option<Profile>,
    pub trial: Trial,
}

/// A model that could be loaded.
struct Loaded {
    opened: Opened,
    profile: Option<Profile>,
    samples: Vec<Sample>,
}

/// A model that could be opened.
struct Opened {
    model: OnnxModel,
    /// Bytes of its files.
    size: u64,
    /// The files of its weights.
    external: BTreeSet<String>,
    /// What its graph says of its rows.
    verdict: Arc<independence::Verdict>,
    /// A node of it that draws at random.
    random: Option<String>,
    /// What an operator should know of how it was changed before it was loaded.
    notes: Vec<String>,
}

impl Admission {
    #[must_use]
    pub fn new(runtime: Runtime, options: AdmissionOptions) -> Self {
        let sandbox = options.sandbox.clone().map(Sandbox::new);
        Self { runtime, options, digests: DigestCache::default(), sandbox }
    }

    /// Takes a version through all steps. Blocks: reads files, loads and runs the model. What passed
    /// is given exactly when the report has no fault.
    pub fn admit(&self, candidate: &Candidate<'_>) -> (AdmissionReport, Option<Admitted>) {
        let mut report = AdmissionReport::default();
        let admitted = self.walk(candidate, &mut report);
        report.skip_the_rest();
        let admitted = admitted.filter(|_| report.is_passed());
        (report, admitted)
    }

    fn walk(&self, candidate: &Candidate<'_>, report: &mut AdmissionReport) -> Option<Admitted> {
        let parts = report
            .run(Step::Complete, || complete::check(candidate.directory, &self.options.link_roots, candidate.config))?;
        let digests = report.run(Step::Digest, || self.digest(&parts.listing));
        report.run(Step::Containment, || self.contain(&parts.listing));
        if report.has_failed(Step::Digest) || report.has_failed(Step::Containment) {
            return None;
        }
        let (digests, model_file) = (digests?, parts.model_file.as_ref()?);
        let digest = digest::in_words(digests.get(model_file)?);
        let changed = |released: &str, found: &str| {
            (released != found).then(|| ChangedFiles { released: released.to_owned(), found: found.to_owned() })
        };
        if let Some(changed) = candidate.released.and_then(|released| changed(&released.digest, &digest)) {
            report.refuse_changed(model_file, changed);
            return None;
        }
        self.try_out(&parts, &digest, candidate.is_urgent, report)?;
        let Loaded { opened, profile, samples } = self.load(candidate, &parts, report)?;
        let Opened { model, size, external, .. } = &opened;
        let identity = digest::of_model(model_file, external, &digests)?;
        // The weights in files of their own are known now.
        if let Some(changed) = candidate.released.and_then(|released| changed(&released.identity, &identity)) {
            report.refuse_changed(model_file, changed);
            return None;
        }
        report.run(Step::Signature, || compare(candidate, model.signature(), &digest));
        report.run(Step::Golden, || self.replay(&parts.listing, model));
        if !report.is_passed() {
            return None;
        }
        let memory_bytes = *size;
        let trial = report.run(Step::WarmUp, || self.warm_up(candidate, &opened, &samples))?;
        Some(Admitted { model: opened.model, digest, identity, memory_bytes, profile, trial })
    }

    fn digest(&self, listing: &Listing) -> Verdict<BTreeMap<String, FileDigest>> {
        let checked = self.digests.of(listing).and_then(|digests| {
            let note = manifest::check(listing, &digests, &self.options.signatures)?;
            Ok((digests, note))
        });
        match checked {
            Ok((digests, note)) => Verdict::passed(digests, note),
            Err(faults) => Verdict::failed(faults),
        }
    }

    fn contain(&self, listing: &Listing) -> Verdict<()> {
        let mut faults = listing.faults.clone();
        if !self.options.allow_hard_links {
            faults.extend(listing.hard_link_faults());
        }
        Verdict::with_faults((), faults, None)
    }

    fn try_out(&self, parts: &Parts, digest: &str, is_urgent: bool, report: &mut AdmissionReport) -> Option<()> {
        let Some(sandbox) = &self.sandbox else {
            report.run(Step::Trial, || Verdict::<()>::skipped("admission.isolated is false"));
            return Some(());
        };
        let mut outside = Vec::new();
        let passed = report.run(Step::Trial, || {
            let listing = &parts.listing;
            let model_file = parts.model_file.clone().unwrap_or_default();
            let (directory, size, digest) = (listing.root.clone(), listing.size(), digest.to_owned());
            let (memory, seconds) = sandbox.limits(size);
            let link_roots = self.options.link_roots.clone();
            let job = Job { directory, link_roots, model_file, digest, size, seconds, memory, is_urgent };
            trial(sandbox, &job, &mut outside)
        });
        report.note_outside(outside);
        passed
    }

    fn load(&self, candidate: &Candidate<'_>, parts: &Parts, report: &mut AdmissionReport) -> Option<Loaded> {
        let mut outside = Vec::new();
        let loaded = report.run(Step::Load, || {
            match open(&self.runtime, candidate.engine, parts, candidate.config.as_ref().ok()) {
                Ok(mut opened) => {
                    let (profile, mut faults) = profile(&opened.model, parts);
                    let (listing, decode) = (&parts.listing, self.options.decode);
                    let samples = samples::of(candidate, listing, decode, opened.model.signature(), profile.as_ref());
                    let declared = Arc::clone(opened.model.signature());
                    let mut notes = std::mem::take(&mut opened.notes);
                    notes.extend(see(&mut opened.model, &samples));
                    let model = &opened.model;
                    let origin = if parts.profile.is_some() { "profile.json" } else { PROFILE_KEY };
                    let profiled = profile.as_ref().map(|profile| (origin, profile));
                    let config = candidate.config.as_ref().ok();
                    faults.extend(misfits(model, &declared, config, profiled));
                    let of_config =
                        config.map(|config| self::notes(config, model, profile.as_ref())).unwrap_or_default();
                    for note in &of_config {
                        tracing::warn!(directory = %candidate.directory.display(), "{note}");
                    }
                    notes.extend(of_config);
                    notes.extend(config.and_then(|config| labels::note(config, model.signature())));
                    Verdict::with_faults(Loaded { opened, profile, samples }, faults, notes)
                }
                Err(OpenError::Outside(faults)) => {
                    outside = faults;
                    Verdict::skipped(OUTSIDE)
                }
                Err(OpenError::Faults(faults)) => Verdict::failed(faults),
            }
        });
        report.note_outside(outside);
        loaded
    }

    fn replay(&self, listing: &Listing, model: &OnnxModel) -> Verdict<()> {
        match golden::replay(listing, model, self.options.decode) {
            None => Verdict::skipped("there are no golden/*.json"),
            Some(Ok(count)) => Verdict::passed((), format!("{count} replayed")),
            Some(Err(faults)) => Verdict::failed(faults),
        }
    }
}

const OUTSIDE: &str = "not run: the model refers to files that it must not";

fn trial(sandbox: &Sandbox, job: &Job, outside: &mut Vec<String>) -> Verdict<()> {
    match sandbox.try_out(job) {
        Ok(Reply::Passed) => Verdict::passed((), None),
        Ok(Reply::Refused(faults)) => Verdict::failed(faults.into()),
        Ok(Reply::Changed) => Verdict::failed(Faults::transient("the files changed during the trial")),
        Ok(Reply::Unable(reason)) => Verdict::failed(Faults::transient(format!("no trial: {reason}"))),
        Ok(Reply::Outside(faults)) => {
            *outside = faults;
            Verdict::skipped(OUTSIDE)
        }
        Err(faults) => Verdict::failed(faults),
    }
}

/// Why a model could not be opened.
enum OpenError {
    /// It refers to files that it must not.
    Outside(Vec<String>),
    Faults(Faults),
}

/// Takes the shapes of outputs that runs show for those that they have, and says where the file declares others.
pub fn see(model: &mut OnnxModel, samples: &[Sample]) -> Vec<String> {
    let (seen, differences) = schedule::seen_outputs(model, samples);
    model.see_outputs(seen);
    differences
}

fn open(
    runtime: &Runtime,
    options: EngineOptions,
    parts: &Parts,
    config: Option<&ModelConfig>,
) -> Result<Opened, OpenError> {
    let name = parts.model_file.as_deref().unwrap_or_default();
    let bytes = parts.listing.read(name).map_err(OpenError::Faults)?.unwrap_or_default();
    let source = load::contained(bytes, name, &parts.listing).map_err(|fault| match fault {
        Fault::Outside(faults) => OpenError::Outside(faults),
        Fault::Refused(fault) => OpenError::Faults(Faults::lasting(format!("{name}: {fault}"))),
    })?;
    let model = source.open(runtime, options, &parts.listing);
    let mut model = model.map_err(|error| {
        let fault = format!("{name}: {error}");
        // A trial had the memory, if there was one: here it may be there later.
        OpenError::Faults(if error.is_out_of_memory() { Faults::transient(fault) } else { Faults::lasting(fault) })
    })?;
    // What was opened by its name must be what was checked.
    parts.listing.check_all_unchanged().map_err(OpenError::Faults)?;
    if let Some(triton) = config.and_then(|config| config.triton.as_ref()) {
        declared::reshape(triton, &mut model);
    }
    let unreadable = || independence::Verdict::Unknown(Reason::of_model("the model's graph cannot be read"));
    let graph = source.graph();
    let verdict = Arc::new(graph.as_ref().map_or_else(unreadable, independence::prove));
    let random = graph.as_ref().and_then(random::operator);
    Ok(Opened { model, size: source.size, external: source.external, notes: source.notes, verdict, random })
}

/// The profile beside the model, otherwise the one in its own metadata; and what is wrong with that.
fn profile(model: &OnnxModel, parts: &Parts) -> (Option<Profile>, Vec<String>) {
    let inside = || model.metadata().get(PROFILE_KEY).map(|json| Profile::parse(json.as_bytes())).transpose();
    match parts.profile.clone().map_or_else(inside, |profile| Ok(Some(profile))) {
        Ok(profile) => (profile, Vec::new()),
        Err(error) => (None, vec![format!("metadata {PROFILE_KEY}: {error}")]),
    }
}

/// What an operator should know of the model's configuration and its profile.
fn notes(config: &ModelConfig, model: &OnnxModel, profile: Option<&Profile>) -> Vec<String> {
    let (types, signature) = (column_types(config), model.signature());
    let Ok(names) = columns(config, model.metadata(), signature) else { return Vec::new() };
    let of_profile =
        profile.into_iter().flat_map(|profile| [other_names(profile, &names), other_types(profile, &types)]);
    unknown_types(&types, &names, signature).into_iter().chain(of_profile.flatten()).collect()
}

/// What is said of the model and is not true. A `config.pbtxt` may also say what the model's file `declares`: that is what
/// Triton compares it with.
fn misfits(
    model: &OnnxModel,
    declares: &Signature,
    config: Option<&ModelConfig>,
    profile: Option<(&str, &Profile)>,
) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(config) = config {
        faults.extend(columns(config, model.metadata(), model.signature()).err().unwrap_or_default());
        if let Some(triton) = &config.triton {
            let declares = model.own_signature().map_or(declares, AsRef::as_ref);
            let found = declared::faults(triton, model.signature());
            if !found.is_empty() && !declared::faults(triton, declares).is_empty() {
                faults.extend(found);
            }
        }
    }
    if let Some((origin, profile)) = profile {
        faults.extend(profile.fit(model.signature()).into_iter().map(|fault| format!("{origin}: {fault}")));
    }
    faults
}

fn compare(candidate: &Candidate<'_>, signature: &Signature, digest: &str) -> Verdict<()> {
    let baselines = match (candidate.baselines)() {
        Ok(baselines) => baselines,
        Err(reason) => return Verdict::skipped(reason),
    };
    let mut faults = Vec::new();
    for Baseline { version, signature: baseline } in baselines {
        let breaks = signature::breaks(&baseline, signature);
        if breaks.is_empty() {
            return Verdict::passed((), format!("compatible with version {version}"));
        }
        faults = breaks.into_iter().map(|fault| format!("unlike version {version}: {fault}")).collect();
    }
    if let Some(why) = candidate.signature_change.allows(digest) {
        let note = format!("{why}: {}", faults.join("; "));
        return Verdict::passed((), note);
    }
    if let Some(last) = faults.last_mut() {
        *last += " (clients would break: load it with --allow-signature-change if you want that)";
    }
    Verdict::with_faults((), faults, None)
}

impl Admission {
    fn warm_up(&self, candidate: &Candidate<'_>, opened: &Opened, samples: &[Sample]) -> Verdict<Trial> {
        let Opened { model, verdict, random, .. } = opened;
        let config = candidate.config.as_ref().ok();
        if let Some(config) = config
            && let Err(faults) = warmup::warm_up_samples(model, config, candidate.directory)
        {
            return Verdict::failed(faults.into());
        }
        let recent = warmup::warm_up_recent(model, &candidate.recent);
        // Behind everything else a run may take any time: what counts is how long it would take before it.
        let stopwatch: Stopwatch = if candidate.is_urgent { wall_time } else { thread_time };
        // What the gateway's configuration says of all models is no word on this one.
        let is_asked_for = config.and_then(|config| config.batching.enabled).unwrap_or(false);
        let known = Known { verdict: Arc::clone(verdict), is_asked_for, samples };
        let trial = Trial::of(model, candidate.serving, &known, stopwatch);
        let recent = if recent == 0 { String::new() } else { format!("{recent} recent requests run; ") };
        let mut notes = vec![format!("{recent}{}", trial.in_words()), rows_in_words(verdict)];
        let mut warnings = trial.warnings.clone();
        if let Some(output) = &trial.unsteady {
            let random = random.as_ref().map(|node| format!(" ({node} draws at random)")).unwrap_or_default();
            let fault = format!(
                "output '{output}' differs between two runs on the same request{random}: export the model for inference, \
                 in torch after model.eval()"
            );
            if self.options.nondeterministic == Nondeterministic::Refuse {
                let fault = format!("{fault} (admission.nondeterministic is \"refuse\")");
                return Verdict::failed(Faults::lasting(fault));
            }
            warnings.push(fault);
        }
        for warning in warnings {
            tracing::warn!(directory = %candidate.directory.display(), "{warning}");
            notes.push(format!("warning: {warning}"));
        }
        Verdict::passed_with(trial, notes)
    }
}

/// What the proof found, for an operator.
fn rows_in_words(verdict: &independence::Verdict) -> String {
    use independence::Verdict::{Dependent, Independent, Unknown};
    match verdict {
        Independent(_) => "rows are independent: proven from the graph".into(),
        Dependent(reason) => format!("rows are dependent: {reason}"),
        Unknown(reason) => format!("whether rows are independent is unknown: {reason}"),
    }
}

/// The directory of a version.
pub(super) fn version_directory(model: &Path, version: crate::domain::Version) -> PathBuf {
    model.join(version.to_string())
}
