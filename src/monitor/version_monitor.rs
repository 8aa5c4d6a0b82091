//! The monitor of one model version: counts its rows, and compares them with its profile.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;

use super::{
    Against, Change, DriftReport, DriftState, SegmentName,
    counts::Counts,
    feature::{MonitoredFeature, Rows, Standing, Violation},
    joint::Joint,
    looks::{Looks, Seen},
    profile::{Distribution, FeatureProfile, FeatureRole, Profile, ProfileError},
    saved::{self, SavedError},
    segments::Segments,
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
    violations: AtomicU64,
    looks: Looks,
    /// Held by who writes the counts to their file.
    saving: Mutex<()>,
    /// The rows of another version, in the bins of this one.
    other: ArcSwapOption<OtherVersion>,
}

#[derive(Debug)]
struct OtherVersion {
    version: Version,
    counts: Counts,
    /// The rows of this version before the first one of the other: another time of day is no difference of versions.
    before: Vec<u64>,
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
            violations: AtomicU64::new(0),
            saving: Mutex::default(),
            other: ArcSwapOption::empty(),
            settings: settings.clone(),
            features,
        })
    }

    /// Counts every row of the tensors, at the time `now`. A tensor
    /// that is absent (an optional input, an output not asked for) counts nothing.
    ///
    /// Readers of metrics do not disturb it.
    pub fn count(&self, answered: Answered<'_>, now: Duration) {
        let all = self.counts.begin(now);
        let segments = self.segments.of(answered, &self.features);
        if segments.is_empty() {
            return self.each_cell(answered, |_, cell| all.add(cell));
        }
        let segments: Vec<_> = segments.iter().map(|segment| segment.begin(now)).collect();
        self.each_cell(answered, |row, cell| {
            all.add(cell);
            for segment in &segments {
                segment.add(row, cell);
            }
        });
    }

    /// Counts rows that another version answered, so that it can be compared with this one.
    pub fn count_other(&self, version: Version, answered: Answered<'_>, now: Duration) {
        let known = self.other.load_full().filter(|other| other.version == version);
        let other = known.unwrap_or_else(|| {
            let counts = Counts::new(self.cells(), &self.settings.windows, self.settings.sub_windows);
            let other = Arc::new(OtherVersion { version, counts, before: self.totals() });
            self.other.store(Some(Arc::clone(&other)));
            other
        });
        let counting = other.counts.begin(now);
        self.each_cell(answered, |_, cell| counting.add(cell));
    }

    /// Tells `each` the row and the cell of every feature in every chosen row.
    fn each_cell(&self, answered: Answered<'_>, mut each: impl FnMut(usize, usize)) {
        let is_chosen = |row: usize| answered.chosen.is_none_or(|chosen| chosen.get(row).copied().unwrap_or(false));
        for monitored in &self.tensors {
            let tensors = match monitored.role {
                FeatureRole::Input => answered.inputs,
                FeatureRole::Output => answered.outputs,
                FeatureRole::Joint => {
                    if let Some(joint) = &self.joint {
                        let feature = &self.features[monitored.features.start];
                        joint.each_error(answered.inputs, |row, error| {
                            if is_chosen(row) {
                                each(row, feature.cells.start + feature.classifier.cell_of(error));
                            }
                        });
                    }
                    continue;
                }
            };
            if let Some(tensor) = tensors.iter().find(|tensor| tensor.name() == monitored.name) {
                for feature in &self.features[monitored.features.clone()] {
                    let first = feature.cells.start;
                    feature.classifier.each_cell(tensor, |row, cell| {
                        if is_chosen(row) {
                            each(row, first + cell);
                        }
                    });
                }
            }
        }
    }

    /// The comparison of the rows of the last `window` with the profile.
    #[must_use]
    pub fn report(&self, model: &ModelName, version: Version, window: Duration, now: Duration) -> DriftReport {
        let live = self.counts.within(window, now);
        let rows = |feature: &MonitoredFeature| (feature.reference(), feature.rows(&live));
        self.compare(model, version, window, &self.looks.standing(window), rows)
    }

    /// The report that says most: of the worst state, over the shortest window of these; where all is well, over the
    /// shortest that has rows enough for a verdict, or the longest.
    #[must_use]
    pub fn telling_report(&self, model: &ModelName, version: Version, now: Duration) -> Option<DriftReport> {
        self.telling(|window| Some(self.report(model, version, window, now)))
    }

    /// The same among what `report` gives for each window.
    #[must_use]
    pub fn telling(&self, report: impl FnMut(Duration) -> Option<DriftReport>) -> Option<DriftReport> {
        let mut reports: Vec<_> = self.window_lengths().iter().copied().filter_map(report).collect();
        reports.sort_by_key(|report| report.window);
        let worst = reports.iter().map(|report| report.state).max()?;
        let least = self.settings.thresholds.min_rows;
        let tells = |report: &DriftReport| report.state == worst && (worst != DriftState::Ok || report.rows >= least);
        let at = reports.iter().position(tells).unwrap_or(reports.len() - 1);
        Some(reports.swap_remove(at))
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

    /// The comparison of the rows of one segment with the profile; `None` when there never was one.
    #[must_use]
    pub fn report_of_segment(
        &self,
        (model, version): (&ModelName, Version),
        segment: &SegmentName,
        window: Duration,
        now: Duration,
    ) -> Option<DriftReport> {
        let live = self.segments.within(segment, window, now)?;
        let rows = |feature: &MonitoredFeature| (feature.reference(), feature.rows(&live));
        let mut report = self.compare(model, version, window, &[], rows);
        // The feature that makes the segment has one value in it: that is no drift.
        for feature in report.features.iter_mut().filter(|feature| feature.feature == segment.key) {
            (feature.state, feature.distribution) = (DriftState::Ok, DriftState::Ok);
            feature.quality.checks.clear();
        }
        report.state = report.features.iter().map(|feature| feature.state).max().unwrap_or(DriftState::Ok);
        Some(DriftReport { segment: Some(segment.clone()), ..report })
    }

    /// The comparison of the rows that another version answered with those that this one did meanwhile; `None` when it
    /// answered none as canary of this one.
    #[must_use]
    pub fn report_of_other(
        &self,
        (model, other): (&ModelName, Version),
        window: Duration,
        now: Duration,
    ) -> Option<DriftReport> {
        let known = self.other.load_full().filter(|known| known.version == other)?;
        let (mut own, live) = (self.counts.within(window, now), known.counts.within(window, now));
        for ((own, total), before) in own.iter_mut().zip(self.totals()).zip(&known.before) {
            *own = total.saturating_sub(*before).min(*own);
        }
        let rows = |feature: &MonitoredFeature| (feature.rows(&own), feature.rows(&live));
        let report = self.compare(model, other, window, &[], rows);
        Some(DriftReport { against: Against::Stable, segments: Vec::new(), ..report })
    }

    fn compare(
        &self,
        model: &ModelName,
        version: Version,
        window: Duration,
        standing: &[Standing],
        rows: impl Fn(&MonitoredFeature) -> (Rows, Rows),
    ) -> DriftReport {
        let look = self.settings.look_interval(window);
        let report = |(at, feature): (usize, &MonitoredFeature)| {
            let (reference, live) = rows(feature);
            let standing = standing.get(at).copied().unwrap_or_default();
            feature.report(&reference, &live, feature.judge(&reference, &live, &self.judge, look, standing))
        };
        let features: Vec<_> = self.features.iter().enumerate().map(report).collect();
        DriftReport {
            model: model.clone(),
            version,
            window,
            rows: features.iter().map(|feature| feature.rows).max().unwrap_or(0),
            state: features.iter().map(|feature| feature.state).max().unwrap_or(DriftState::Ok),
            alpha: self.judge.alpha(look),
            against: Against::Profile,
            segment: None,
            segments: self.segments.known(),
            features,
        }
    }

    /// The content of a file that [`VersionMonitor::restore`] goes on from.
    ///
    /// # Errors
    /// Never: the bytes are in memory; the compressor cannot say so.
    pub fn save(&self) -> io::Result<Vec<u8>> {
        let all = std::iter::once((String::new(), self.counts.save()));
        let segments = self.segments.save().into_iter().map(|(name, counts)| (name.to_string(), counts));
        saved::encode(self.digest, &all.chain(segments).collect::<Vec<_>>())
    }

    /// Goes on from what was saved; false when it was saved of another profile or with other windows.
    ///
    /// # Errors
    /// When the bytes are damaged; nothing changes then.
    pub fn restore(&self, bytes: &[u8], now: Duration) -> Result<bool, SavedError> {
        let Some(saved) = saved::decode(self.digest, bytes)? else { return Ok(false) };
        let mut is_restored = false;
        for (name, counts) in saved {
            if name.is_empty() {
                is_restored = self.counts.restore(counts, now);
            } else if let Ok(segment) = name.parse() {
                self.segments.restore(&segment, counts, now);
            }
        }
        Ok(is_restored)
    }

    /// The right to write the counts to their file: two at once would mix up their bytes.
    pub(super) fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another monitor counts the same, as long as both are of the same signature.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.digest == other.digest && self.settings == other.settings
    }

    /// Goes on from another monitor of the same version, loaded before.
    pub fn adopt(&self, before: &Self, now: Duration) {
        match before.save().map_err(SavedError::from).and_then(|bytes| self.restore(&bytes, now)) {
            Ok(true) => {
                self.looks.adopt(&before.looks);
                // What a scrape finds from now on. Nothing of it is news.
                drop(self.look(now));
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the counts of the version do not go on"),
        }
        self.violations.fetch_add(before.violations.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A number that grows with every row counted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.totals().iter().sum()
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
        let features: Vec<_> = self.features.iter().map(|feature| feature.live_profile(&live)).collect();
        let rows = features.iter().map(|feature| feature.rows).max()?;
        let is_filled = |feature: &FeatureProfile| feature.rows > feature.missing + feature.nonfinite;
        // Without components a joint feature would have nothing to be computed by.
        let (features, components) = (features, self.joint.as_ref().map(|joint| joint.components().clone()));
        let is_enough = rows >= self.settings.thresholds.min_rows && features.iter().all(is_filled);
        is_enough.then_some(Profile { format: Profile::FORMAT, rows, features, components })
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

    /// The windows that metrics are given for.
    #[must_use]
    pub fn window_lengths(&self) -> &[Duration] {
        &self.settings.windows
    }

    pub(super) fn features(&self) -> &[MonitoredFeature] {
        &self.features
    }

    /// The rows of all cells since the start.
    pub(super) fn totals(&self) -> Vec<u64> {
        self.counts.totals()
    }

    fn cells(&self) -> usize {
        self.features.last().map_or(0, |feature| feature.cells.end)
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
