//! What an admission found, step by step: shown in a version's status and printed by `tidegate
//! check`, the same in both.

use std::time::{Duration, Instant};

/// The steps of an admission, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The files are there and can be read: model, configuration, profile.
    Complete,
    /// Every file has the digest that the manifest says, and the manifest is signed.
    Digest,
    /// No file leads out of the version's directory.
    Containment,
    /// A process of its own has loaded and run the model.
    Trial,
    /// The model is loaded, and what is said of it is true.
    Load,
    /// Clients of the stable version can talk to it.
    Signature,
    /// It answers the golden requests as it should.
    Golden,
    /// The configured and the recent requests, and every batch size, have been run.
    WarmUp,
}

impl Step {
    pub const ALL: [Self; 8] = [
        Self::Complete,
        Self::Digest,
        Self::Containment,
        Self::Trial,
        Self::Load,
        Self::Signature,
        Self::Golden,
        Self::WarmUp,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Digest => "digest",
            Self::Containment => "containment",
            Self::Trial => "trial",
            Self::Load => "load",
            Self::Signature => "signature",
            Self::Golden => "golden",
            Self::WarmUp => "warmup",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// There was nothing to do, or an earlier step failed; the step says which.
    Skipped,
    Failed,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// One step as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    pub step: Step,
    pub outcome: Outcome,
    /// Why it failed or was skipped, everything found; what there is to know of one that passed.
    /// For operators: may name files.
    pub why: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

/// All steps of one admission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdmissionReport {
    pub steps: Vec<StepReport>,
    /// Every fault may pass by itself: trying again makes sense though no file changes.
    pub is_transient: bool,
    /// The files are not those that were released, which is why they were refused.
    pub changed: Option<ChangedFiles>,
}

/// The model of a released version as it was released, and as it is on disk now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFiles {
    /// `sha256:` and the hex digest, of the model file and of the files of its weights.
    pub released: String,
    pub found: String,
}

impl AdmissionReport {
    /// Refuses files that are not those that were released.
    pub(super) fn refuse_changed(&mut self, model_file: &str, changed: ChangedFiles) {
        let ChangedFiles { released, found } = &changed;
        let words = format!(
            "{model_file} or its weights are not what was released under this number: {found} is there, {released} was \
             released; put those files back, publish the new model under a new number, or accept it: `tidegate load MODEL \
             VERSION --accept-changed`"
        );
        self.amend(Step::Digest, Faults::lasting(words));
        self.changed = Some(changed);
    }

    /// No step failed: the version may serve.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.steps.iter().all(|step| step.outcome != Outcome::Failed)
    }

    /// Why steps failed, in their order.
    #[must_use]
    pub fn faults(&self) -> Vec<&str> {
        let failed = self.steps.iter().filter(|step| step.outcome == Outcome::Failed);
        failed.flat_map(|step| step.why.iter().map(String::as_str)).collect()
    }

    /// Runs a step and enters how it went. Gives what the step came to, if it came to something.
    pub(super) fn run<T>(&mut self, step: Step, work: impl FnOnce() -> Verdict<T>) -> Option<T> {
        let started = Instant::now();
        let verdict = work();
        self.enter(step, verdict, started.elapsed())
    }

    pub(super) fn enter<T>(&mut self, step: Step, verdict: Verdict<T>, time: Duration) -> Option<T> {
        let Verdict { value, outcome, why, is_transient } = verdict;
        if outcome == Outcome::Failed {
            self.note_fault(is_transient);
        }
        self.steps.push(StepReport { step, outcome, why, time });
        value
    }

    /// Enters what a later step found out about an earlier one.
    pub(crate) fn amend(&mut self, step: Step, faults: Faults) {
        self.note_fault(faults.is_transient);
        if let Some(known) = self.steps.iter_mut().find(|known| known.step == step) {
            if known.outcome != Outcome::Failed {
                known.why.clear();
            }
            known.outcome = Outcome::Failed;
            known.why.extend(faults.reasons);
        }
    }

    /// One lasting fault makes the whole last: trying again would find it again.
    fn note_fault(&mut self, is_transient: bool) {
        self.is_transient = is_transient && (self.is_transient || self.is_passed());
    }

    /// Enters files outside the version that only a look into the model could find.
    pub(super) fn note_outside(&mut self, faults: Vec<String>) {
        if !faults.is_empty() {
            self.amend(Step::Containment, faults.into());
        }
    }

    pub(super) fn has_failed(&self, step: Step) -> bool {
        self.steps.iter().any(|known| known.step == step && known.outcome == Outcome::Failed)
    }

    /// Enters the steps that were not come to.
    pub(super) fn skip_the_rest(&mut self) {
        let failed = self.steps.iter().find(|step| step.outcome == Outcome::Failed).map(|step| step.step);
        let why = failed.map(|step| format!("not run: the step {} failed", step.as_str())).unwrap_or_default();
        for step in Step::ALL.into_iter().skip(self.steps.len()) {
            self.enter(step, Verdict::<()>::skipped(why.clone()), Duration::ZERO);
        }
    }
}

/// Why a step failed: everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) reasons: Vec<String>,
    /// They may pass by themselves, such as a disk that did not answer.
    pub(crate) is_transient: bool,
}

impl Faults {
    /// Something that lasts until the files change.
    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], is_transient: false }
    }

    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], is_transient: true }
    }

    /// One lasting fault makes all of them last: trying again would find it again.
    pub(super) fn add(&mut self, other: Self) {
        self.is_transient = other.is_transient && (self.is_transient || self.reasons.is_empty());
        self.reasons.extend(other.reasons);
    }
}

impl From<Vec<String>> for Faults {
    fn from(reasons: Vec<String>) -> Self {
        Self { reasons, is_transient: false }
    }
}

/// How a step ended, and what it came to.
pub(super) struct Verdict<T> {
    pub(super) value: Option<T>,
    pub(super) outcome: Outcome,
    pub(super) why: Vec<String>,
    pub(super) is_transient: bool,
}

impl<T> Verdict<T> {
    pub(super) fn passed(value: T, note: impl Into<Option<String>>) -> Self {
        let why = note.into().into_iter().collect();
        Self { value: Some(value), outcome: Outcome::Passed, why, is_transient: false }
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { value: None, outcome: Outcome::Skipped, why: vec![why.into()], is_transient: false }
    }

    pub(super) fn failed(faults: Faults) -> Self {
        Self { value: None, outcome: Outcome::Failed, why: faults.reasons, is_transient: faults.is_transient }
    }

    /// With any number of notes.
    pub(super) fn passed_with(value: T, notes: Vec<String>) -> Self {
        Self { value: Some(value), outcome: Outcome::Passed, why: notes, is_transient: false }
    }

    /// Failed when there are `faults`; what follows may go on with `value` all the same.
    pub(super) fn with_faults(value: T, faults: Vec<String>, notes: impl IntoIterator<Item = String>) -> Self {
        if faults.is_empty() {
            return Self::passed_with(value, notes.into_iter().collect());
        }
        Self { value: Some(value), ..Self::failed(faults.into()) }
    }
}

impl<T> From<Result<T, Faults>> for Verdict<T> {
    fn from(outcome: Result<T, Faults>) -> Self {
        match outcome {
            Ok(value) => Self::passed(value, None),
            Err(faults) => Self::failed(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lasting_fault_makes_the_report_a_lasting_one() {
        let transient = || Verdict::<()>::failed(Faults::transient("the disk did not answer"));
        let mut report = AdmissionReport::default();
        assert!(report.is_passed() && !report.is_transient);
        report.run(Step::Complete, transient);
        report.run(Step::Digest, transient);
        assert!(report.is_transient && !report.is_passed());
        report.run(Step::Load, || Verdict::<()>::failed(Faults::lasting("not a model")));
        report.run(Step::Golden, transient);
        assert!(!report.is_transient);
        assert_eq!(report.faults().len(), 4);
    }

    #[test]
    fn amended_step_has_failed() {
        let mut report = AdmissionReport::default();
        report.run(Step::Complete, || Verdict::passed((), None));
        report.run(Step::Digest, || Verdict::passed((), None));
        report.run(Step::Containment, || Verdict::passed((), "3 files".to_owned()));
        report.amend(Step::Containment, Faults::lasting("external data"));
        report.skip_the_rest();
        assert_eq!(report.faults(), ["external data"]);
        assert_eq!(report.steps.len(), Step::ALL.len());
    }
}
