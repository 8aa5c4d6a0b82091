//! The monitor of one model version: counts its rows, and compares them with its profile.

mod kept;
mod reports;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;

use super::{
    Change, DriftState,
    comparison::Comparison,
    counts::{Counting, Counts},
    edges::Edges,
    exported::Counted,
    feature::{MonitoredFeature, Violation},
    joint::Joint,
    looks::{Looks, Seen},
    profile::{Distribution, FeatureProfile, FeatureRole, Profile, ProfileError, Source},
    runs::{self, Take},
    segments::{SegmentCounting, Segments},
    self_test::{SelfTest, Tester, Work},
    settings::{Contract, MonitorSettings},
    verdict::{Judge, Tests},
};
use crate::domain::{ModelName, Signature, Tensor, Version};

/// Rows that a version answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answered<'a> {
    pub inputs: &'a [Tensor],
    pub outputs: &'a [Tensor],
    /// Names and values of the request's parameters.
    pub parameters: &'a [(Arc<str>, String)],
    /// Row by row, whether it counts; all do where this is `None`.
    pub chosen: Option<&'a [bool]>,
}

impl<'a> Answered<'a> {
    /// All rows of a request without parameters.
    #[must_use]
    pub fn new(inputs: &'a [Tensor], outputs: &'a [Tensor]) -> Self {
        Self { inputs, outputs, ..Self::default() }
    }

    /// Whether rows count, from `row` on.
    fn chosen_of(&self, row: usize) -> Option<&'a [bool]> {
        self.chosen.map(|chosen| chosen.get(row..).unwrap_or_default())
    }
}

/// Counts the rows of a version by feature and bin, and reports how far they are from the profile.
#[derive(Debug)]
pub struct VersionMonitor {
    features: Vec<MonitoredFeature>,
    /// Neighbouring features of one tensor.
    tensors: Vec<MonitoredTensor>,
    joint: Option<Joint>,
    judge: Judge,
    settings: MonitorSettings,
    counts: Counts,
    segments: Segments,
    /// Of the profile.
    digest: u64,
    /// Different for each monitor of this process.
    id: u64,
    violations: AtomicU64,
    /// Of them, those of the monitor before.
    started_violations: AtomicU64,
    looks: Looks,
    /// Held by who writes the counts to their file.
    saving: Mutex<()>,
    /// The rows of a canary, in the bins of this version.
    canary: ArcSwapOption<Comparison>,
    /// Grows with everything that is counted or restored.
    changes: AtomicU64,
}

/// The [`VersionMonitor::id`] of the next one.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Counts rows of all and of segments.
struct Taken<'a> {
    all: Counting<'a>,
    segments: Vec<SegmentCounting<'a>>,
    answered: Answered<'a>,
}

impl Take for Taken<'_> {
    fn cells(&mut self, row: usize, first: usize, cells: &[u32]) {
        let chosen = self.answered.chosen_of(row);
        self.all.add_all(first, chosen, cells);
        for segment in &self.segments {
            segment.add_all(row, first, chosen, cells);
        }
    }

    fn numbers(&mut self, row: usize, first: usize, (edges, numbers): (&Edges, &[f64]), room: &mut Vec<u32>) {
        if self.segments.is_empty() && self.answered.chosen.is_none() {
            return self.all.add_numbers(first, edges, numbers);
        }
        self.all.see_numbers(first, self.answered.chosen_of(row), numbers);
        self.cells(row, first, edges.cells_in(numbers, room));
    }
}

#[derive(Debug)]
struct MonitoredTensor {
    name: String,
    role: FeatureRole,
    features: std::ops::Range<usize>,
}

impl VersionMonitor {
    /// A monitor of a version with this signature, with nothing counted yet.
    ///
    /// # Errors
    /// When the profile does not fit the signature: all that does not is named.
    pub fn new(profile: Profile, signature: &Signature, settings: &MonitorSettings) -> Result<Self, ProfileError> {
        let tests = Tests { features: profile.features.len(), horizons: settings.windows.len() };
        Self::with_tests(profile, signature, settings, tests)
    }

    /// The same, of which the budget of false alarms is shared out among these tests.
    pub(super) fn with_tests(
        profile: Profile,
        signature: &Signature,
        settings: &MonitorSettings,
        tests: Tests,
    ) -> Result<Self, ProfileError> {
        let misfits = profile.fit(signature);
        if !misfits.is_empty() {
            return Err(ProfileError::Unfit(misfits));
        }
        let digest = digest(&profile)?;
        let mut cells = 0;
        let features: Vec<_> = profile
            .features
            .into_iter()
            .map(|feature| {
                let feature = MonitoredFeature::new(feature, signature, &settings.labels, cells);
                cells = feature.cells.end;
                feature
            })
            .collect();
        let most_bins = features.iter().map(|feature| feature.labels.len()).max().unwrap_or(0);
        let judge = Judge::new(settings.thresholds, tests, most_bins);
        Ok(Self {
            tensors: tensors_of(&features),
            joint: profile.components.map(Joint::new),
            looks: Looks::new(&features, &judge, settings),
            judge,
            counts: Counts::new(cells, &settings.windows, settings.sub_windows),
            segments: Segments::new(settings, &features),
            digest,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            violations: AtomicU64::new(0),
            started_violations: AtomicU64::new(0),
            saving: Mutex::default(),
            canary: ArcSwapOption::empty(),
            changes: AtomicU64::new(0),
            settings: settings.clone(),
            features,
        })
    }

    /// Counts every row of the tensors, at the time `now`. A tensor
    /// that is absent (an optional input, an output not asked for) counts nothing.
    ///
    /// Readers of metrics do not disturb it.
    pub fn count(&self, answered: Answered<'_>, now: Duration) {
        self.count_rows(answered, now);
        self.changed();
    }

    fn count_rows(&self, answered: Answered<'_>, now: Duration) {
        let all = self.counts.begin(now);
        let segments = self.segments.of(answered, &self.features);
        let segments = segments.iter().map(|segment| segment.begin(now)).collect();
        self.each_run(answered, &mut Taken { all, segments, answered });
    }

    /// Counts rows that a canary answered, so that it can be compared with this version.
    pub fn count_canary(&self, version: Version, answered: Answered<'_>, now: Duration) {
        let known = self.canary.load_full().filter(|canary| canary.is_of(version));
        let canary = known.unwrap_or_else(|| {
            let canary = Arc::new(Comparison::new(version, self.totals(), &self.settings));
            self.canary.store(Some(Arc::clone(&canary)));
            canary
        });
        self.each_run(answered, &mut Taken { all: canary.begin(now), segments: Vec::new(), answered });
        self.changed();
    }

    /// Behind what was counted: who sees the number finds that counted.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Gives `take` the cells of all features, in runs: see [`runs::each_of_tensor`].
    fn each_run(&self, answered: Answered<'_>, take: &mut impl Take) {
        for monitored in &self.tensors {
            let features = &self.features[monitored.features.clone()];
            let tensors = match monitored.role {
                FeatureRole::Input => answered.inputs,
                FeatureRole::Output => answered.outputs,
                FeatureRole::Joint => {
                    if let (Some(joint), [feature, ..]) = (&self.joint, features) {
                        runs::each_of_joint(feature, joint, answered.inputs, take);
                    }
                    continue;
                }
            };
            if let Some(tensor) = tensors.iter().find(|tensor| tensor.name() == monitored.name) {
                runs::each_of_tensor(features, tensor, take);
            }
        }
    }

    /// Computes the distances of what has changed since the last look, for those who scrape, and tells which verdicts
    /// changed over the windows that have slid since: these are the looks that the budget of false alarms is for.
    pub fn look(&self, now: Duration) -> Vec<Change> {
        self.looks.look(&self.features, &self.judge, &self.counts, now)
    }

    /// What the latest look found, window by window. Nobody is waited for, and nothing is computed.
    pub(super) fn latest(&self) -> Arc<Vec<Arc<Seen>>> {
        self.looks.latest()
    }

    /// Whether another monitor counts the same, as long as both are of the same signature.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.digest == other.digest && self.settings == other.settings
    }

    /// The first value of a request that the profile has never seen the like of: missing or infinite where none was, out of
    /// range, of no known category.
    #[must_use]
    pub fn violation(&self, inputs: &[Tensor]) -> Option<Violation> {
        let mut features = self.features.iter().filter(|feature| feature.profile.role == FeatureRole::Input);
        let violation = features.find_map(|feature| {
            let tensor = inputs.iter().find(|tensor| tensor.name() == feature.profile.tensor)?;
            feature.violation(tensor)
        });
        if violation.is_some() {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
        violation
    }

    /// Requests that had a [`VersionMonitor::violation`].
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// What was live in the last `window`, as a profile in the bins of this one: the reference of another version. `None`
    /// when there are too few rows.
    #[must_use]
    pub fn live_profile(&self, window: Duration, now: Duration) -> Option<Profile> {
        let live = self.counts.within(window, now);
        // Values that came where there was none have no bins to be in.
        let is_told = |live: &FeatureProfile, of: &MonitoredFeature| live.is_empty() || !of.profile.is_empty();
        let features: Vec<_> = self
            .features
            .iter()
            .map(|feature| (feature.live_profile(&live), feature))
            .filter_map(|(live, feature)| is_told(&live, feature).then_some(live))
            .collect();
        let rows = features.iter().map(|feature| feature.rows).max()?;
        let is_filled =
            |feature: &FeatureProfile| feature.rows > 0 && (feature.source == Source::Value || !feature.is_empty());
        // Without components a joint feature would have nothing to be computed by.
        let (features, components) = (features, self.joint.as_ref().map(|joint| joint.components().clone()));
        let is_enough = rows >= self.settings.thresholds.min_rows && features.iter().all(is_filled);
        is_enough.then_some(Profile { format: Profile::FORMAT, rows, learnt_from: None, features, components })
    }

    /// What such a monitor says of rows that are drawn from its own profile, as many as are in the window now; without
    /// one, in the window that says most. Nothing of this monitor is touched. One to two seconds of work at most.
    #[must_use]
    pub fn self_test(
        &self,
        (model, version): (&ModelName, Version),
        signature: &Signature,
        window: Option<Duration>,
        now: Duration,
    ) -> SelfTest {
        let telling = || self.telling_report(model, version, now).map(|report| report.window);
        let window = window.or_else(telling).unwrap_or_default();
        let live = self.counts.within(window, now);
        let rows = self.features.iter().map(|feature| feature.rows(&live).bins.iter().sum()).max().unwrap_or(0);
        let of = (signature, &self.settings);
        Tester::new(&self.features, &self.judge, of, window, Work::default()).test((model, version), rows)
    }

    /// What another judge says of the distributions of the last `window`, without what stands.
    pub(super) fn distributions_by(
        &self,
        judge: &Judge,
        window: Duration,
        now: Duration,
    ) -> impl Iterator<Item = DriftState> {
        let (live, look) = (self.counts.within(window, now), self.settings.look_interval(window));
        self.features.iter().map(move |feature| {
            let (reference, live) = (feature.reference(), feature.rows(&live));
            feature.distribution(&reference, &live, judge, look, DriftState::Ok).state
        })
    }

    /// The edges between the reference's bins of a numeric column.
    #[must_use]
    pub fn edges(&self, role: FeatureRole, tensor: &str, column: usize) -> Option<Vec<f64>> {
        let is_it =
            |profile: &FeatureProfile| (profile.role, &*profile.tensor, profile.column) == (role, tensor, column);
        match &self.features.iter().find(|feature| is_it(&feature.profile))?.profile.distribution {
            Distribution::Numeric { edges, .. } => Some(edges.clone()),
            Distribution::Categorical { .. } => None,
        }
    }

    /// Whether rows are told apart by parameters of their requests.
    pub(super) fn has_parameter_segments(&self) -> bool {
        self.segments.are_of_parameters()
    }

    #[must_use]
    pub fn contract(&self) -> Contract {
        self.settings.contract
    }

    /// With fewer rows in a window there is no verdict.
    pub(super) fn min_rows(&self) -> u64 {
        self.judge.min_rows()
    }

    /// The windows that metrics are given for.
    #[must_use]
    pub fn window_lengths(&self) -> &[Duration] {
        &self.settings.windows
    }

    /// Tells this monitor from all others of the process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Tells apart what is counted.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// All that was counted, and before.
    pub(super) fn counted(&self) -> Counted {
        Counted { cells: self.totals(), violations: self.violations() }
    }

    /// What of it was counted before, by other monitors of the version.
    pub(super) fn started(&self) -> Counted {
        Counted { cells: self.counts.started(), violations: self.started_violations.load(Ordering::Relaxed) }
    }

    pub(super) fn features(&self) -> &[MonitoredFeature] {
        &self.features
    }

    /// The rows of all cells since the start.
    pub(super) fn totals(&self) -> Vec<u64> {
        self.counts.totals()
    }
}

/// Tells apart what counts are of.
fn digest(profile: &Profile) -> Result<u64, ProfileError> {
    Ok(twox_hash::XxHash3_64::oneshot(profile.to_json()?.as_bytes()))
}

/// Runs of features of one tensor.
fn tensors_of(features: &[MonitoredFeature]) -> Vec<MonitoredTensor> {
    let mut tensors: Vec<MonitoredTensor> = Vec::new();
    for (at, MonitoredFeature { profile, .. }) in features.iter().enumerate() {
        match tensors.last_mut() {
            Some(last) if last.name == profile.tensor && last.role == profile.role => last.features.end = at + 1,
            _ => {
                let (name, role) = (profile.tensor.clone(), profile.role);
                tensors.push(MonitoredTensor { name, role, features: at..at + 1 });
            }
        }
    }
    tensors
}

#[cfg(test)]
pub(super) mod tests;
