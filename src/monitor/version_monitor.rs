//! The monitor of one model version: counts its rows, and compares them with its profile.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    BinCount, DriftReport, DriftState, FeatureReport, Measures,
    histogram::{FeatureCounter, Layout, reference_cells},
    measures::{self, Spread},
    profile::{Distribution, FeatureProfile, FeatureRole, Profile, ProfileError},
    verdict::{Judge, Thresholds},
    window::Windows,
};
use crate::domain::{DataType, ModelName, Signature, Tensor, Version};

/// What an operator may set.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorSettings {
    /// The windows that metrics are given for; the longest bounds those that can be asked for.
    pub windows: Vec<Duration>,
    /// The parts that each window slides by.
    pub sub_windows: usize,
    pub thresholds: Thresholds,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        let windows = vec![Duration::from_mins(5), Duration::from_hours(1)];
        Self { windows, sub_windows: 60, thresholds: Thresholds::default() }
    }
}

/// Counts the rows of a version by feature and bin, and reports how far they are from the profile.
#[derive(Debug)]
pub struct VersionMonitor {
    features: Vec<MonitoredFeature>,
    /// Neighbouring features of one tensor.
    tensors: Vec<MonitoredTensor>,
    judge: Judge,
    window_lengths: Vec<Duration>,
    /// Held while counting, so that a report sees whole observations.
    windows: Mutex<Windows>,
}

/// A feature with its counts since the version was loaded.
#[derive(Debug)]
pub(super) struct MonitoredFeature {
    pub(super) profile: FeatureProfile,
    /// The label `bin` of each cell.
    pub(super) labels: Vec<String>,
    /// The reference's rows of each cell.
    pub(super) reference: Vec<u64>,
    pub(super) counter: FeatureCounter,
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
        let misfits = profile.fit(signature);
        if !misfits.is_empty() {
            return Err(ProfileError::Unfit(misfits));
        }
        let features: Vec<_> =
            profile.features.into_iter().map(|feature| MonitoredFeature::new(feature, signature)).collect();
        let cells = features.iter().map(|feature| feature.counter.layout().cells()).sum();
        let most_bins = features.iter().map(|feature| feature.labels.len()).max().unwrap_or(0);
        Ok(Self {
            tensors: tensors_of(&features),
            judge: Judge::new(settings.thresholds, most_bins),
            window_lengths: settings.windows.clone(),
            windows: Mutex::new(Windows::new(&settings.windows, settings.sub_windows, cells)),
            features,
        })
    }

    /// Counts every row of the tensors, at the time `now` since the start of the program. A tensor
    /// that is absent (an optional input, an output not asked for) counts nothing.
    ///
    /// To be called by one thread; readers of metrics do not disturb it.
    pub fn count(&self, inputs: &[Tensor], outputs: &[Tensor], now: Duration) {
        let mut windows = self.windows();
        windows.advance(now, || self.totals());
        for monitored in &self.tensors {
            let tensors = match monitored.role {
                FeatureRole::Input => inputs,
                FeatureRole::Output => outputs,
            };
            if let Some(tensor) = tensors.iter().find(|tensor| tensor.name() == monitored.name) {
                for feature in &self.features[monitored.features.clone()] {
                    feature.counter.count(tensor);
                }
            }
        }
    }

    /// The comparison of the rows of the last `window` with the profile.
    #[must_use]
    pub fn report(&self, model: &ModelName, version: Version, window: Duration, now: Duration) -> DriftReport {
        let counts = {
            let windows = self.windows();
            windows.counts(now, window, self.totals())
        };
        let mut rest = counts.as_slice();
        let features: Vec<_> = self
            .features
            .iter()
            .map(|feature| {
                let (live, later) = rest.split_at(feature.counter.layout().cells());
                rest = later;
                feature.report(live, &self.judge)
            })
            .collect();
        DriftReport {
            model: model.clone(),
            version,
            window,
            rows: features.iter().map(|feature| feature.rows).max().unwrap_or(0),
            state: features.iter().map(|feature| feature.state).max().unwrap_or(DriftState::Ok),
            features,
        }
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

    /// The windows that metrics are given for.
    #[must_use]
    pub fn window_lengths(&self) -> &[Duration] {
        &self.window_lengths
    }

    pub(super) fn features(&self) -> &[MonitoredFeature] {
        &self.features
    }

    /// The totals of all cells of all features.
    fn totals(&self) -> Vec<u64> {
        self.features.iter().flat_map(|feature| feature.counter.totals()).collect()
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        // A panic while counting leaves the windows as they were: they hold only noted totals.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

impl MonitoredFeature {
    /// The profile must fit the signature.
    fn new(profile: FeatureProfile, signature: &Signature) -> Self {
        let spec = match profile.role {
            FeatureRole::Input => signature.input(&profile.tensor),
            FeatureRole::Output => signature.output(&profile.tensor),
        };
        let datatype = spec.map_or(DataType::Bytes, |spec| spec.datatype);
        Self {
            labels: Layout::labels(&profile.distribution),
            reference: reference_cells(&profile),
            counter: FeatureCounter::new(&profile, datatype),
            profile,
        }
    }

    /// The rows by bin that distances are computed from, reference and live: `unseen` is a bin only
    /// where it holds something.
    fn compared(&self, live: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let layout = self.counter.layout();
        let (mut reference, mut live) = (layout.fold(&self.reference), layout.fold(live));
        if matches!(layout, Layout::Categorical { .. }) && (reference.last(), live.last()) == (Some(&0), Some(&0)) {
            reference.pop();
            live.pop();
        }
        (reference, live)
    }

    fn report(&self, live: &[u64], judge: &Judge) -> FeatureReport {
        let (reference_bins, live_bins) = self.compared(live);
        let verdict = judge.judge(&reference_bins, &live_bins);
        let mut measures = self.measures(&reference_bins, &live_bins, live);
        measures.psi_corrected = verdict.corrected;
        let bins = self.labels.iter().zip(&self.reference).zip(live);
        FeatureReport {
            tensor: self.profile.tensor.clone(),
            feature: self.profile.feature.clone(),
            kind: self.profile.kind(),
            rows: live.iter().sum(),
            missing: live[self.counter.layout().missing()],
            state: verdict.state,
            threshold: verdict.threshold,
            measures,
            bins: bins.map(|((bin, &reference), &live)| BinCount { bin: bin.clone(), reference, live }).collect(),
        }
    }

    /// All measures but the corrected PSI, which is the verdict's. None when there is no row to measure.
    fn measures(&self, reference: &[u64], live: &[u64], cells: &[u64]) -> Measures {
        if live.iter().all(|rows| *rows == 0) || reference.iter().all(|rows| *rows == 0) {
            return Measures::default();
        }
        let chi_square = measures::chi_square(reference, live);
        let numeric = matches!(self.profile.distribution, Distribution::Numeric { .. });
        Measures {
            psi: Some(measures::psi(reference, live)),
            psi_corrected: None,
            jensen_shannon: Some(measures::jensen_shannon(reference, live)),
            hellinger: Some(measures::hellinger(reference, live)),
            kolmogorov_smirnov: numeric.then(|| measures::kolmogorov_smirnov(reference, live)),
            wasserstein: self.scaled_wasserstein(cells),
            chi_square: chi_square.map(|(statistic, _)| statistic),
            p_value: chi_square.map(|(_, p)| p),
            total_variation: Some(measures::total_variation(reference, live)),
        }
    }
    /// The Wasserstein distance in units of the reference's standard deviation. `None` for a
    /// categorical or a constant feature.
    fn scaled_wasserstein(&self, cells: &[u64]) -> Option<f64> {
        let Distribution::Numeric { min, max, std, edges, counts, .. } = &self.profile.distribution else {
            return None;
        };
        let (live, outside) = cells.split_at(counts.len());
        let (below, above) = (outside[0], outside[1]);
        let spread = Spread { min: *min, max: *max, edges, reference: counts, live, below, above };
        (*std > 0.0).then(|| measures::wasserstein(spread) / std)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        domain::{Dim, Shape, TensorSpec},
        monitor::ProfileBuilder,
    };

    fn numbers(name: &str, values: impl Iterator<Item = i32>) -> Tensor {
        let bytes: Vec<u8> = values.flat_map(|value| (value as f32).to_le_bytes()).collect();
        let shape = Shape::new(vec![i64::try_from(bytes.len() / 4).unwrap()]).unwrap();
        Tensor::plain(name, DataType::Fp32, shape, bytes.into()).unwrap()
    }

    fn words(values: &[&'static str]) -> Tensor {
        let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
        Tensor::text("s", shape, values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()).unwrap()
    }

    fn monitor() -> VersionMonitor {
        let mut builder = ProfileBuilder::default();
        let inputs = [numbers("x", 0..1000), words(&[["a"; 900].as_slice(), &["b"; 100]].concat())];
        builder.add(&inputs, &[numbers("y", 0..1000)]);
        let spec =
            |name: &str, datatype| TensorSpec { name: name.into(), datatype, shape: vec![Dim::Any], optional: false };
        let signature = Signature {
            inputs: vec![spec("x", DataType::Fp32), spec("s", DataType::Bytes)],
            outputs: vec![spec("y", DataType::Fp32)],
        };
        VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default()).unwrap()
    }

    fn report(monitor: &VersionMonitor, now: u64) -> DriftReport {
        let version = Version::new(1).unwrap();
        monitor.report(&"m".parse().unwrap(), version, Duration::from_mins(5), Duration::from_secs(now))
    }

    fn states(report: &DriftReport) -> Vec<u8> {
        report.features.iter().map(|feature| feature.state.as_number()).collect()
    }

    #[test]
    fn report_of_the_reference_itself_is_ok() {
        let monitor = monitor();
        monitor.count(&[numbers("x", 0..1000)], &[numbers("y", 0..1000)], Duration::ZERO);
        let report = report(&monitor, 0);
        assert_eq!((report.state, report.rows), (DriftState::Ok, 1000));
        let Measures { psi, jensen_shannon, wasserstein, p_value, .. } = report.features[0].measures;
        assert!(psi.unwrap() < 1e-12 && jensen_shannon.unwrap() < 1e-7 && wasserstein.unwrap() < 1e-12);
        assert!((p_value.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn absent_tensor_counts_nothing_and_has_no_measures() {
        let monitor = monitor();
        monitor.count(&[numbers("x", 0..10)], &[], Duration::ZERO);
        let report = report(&monitor, 0);
        let rows: Vec<_> = report.features.iter().map(|feature| feature.rows).collect();
        assert_eq!(rows, [10, 0, 0]);
        assert_eq!(report.features[1].measures, Measures::default());
        assert!(report.features[1].threshold.is_finite());
    }

    #[test]
    fn drift_of_one_feature_is_its_own_and_ends_with_the_window() {
        let monitor = monitor();
        let drifting = [numbers("x", (0..1000).map(|i| i % 300)), words(&[["a"; 90].as_slice(), &["b"; 10]].concat())];
        monitor.count(&drifting, &[numbers("y", 0..1000)], Duration::from_secs(10));
        let drifted = report(&monitor, 20);
        assert_eq!((drifted.state, states(&drifted)), (DriftState::Drift, vec![2, 0, 0]));
        let feature = &drifted.features[0];
        assert!(feature.measures.psi_corrected.unwrap() > feature.threshold);
        let later = report(&monitor, 400);
        assert_eq!((later.state, later.rows), (DriftState::Ok, 0));
    }

    #[test]
    fn bins_of_a_report_hold_every_row_of_both_sides() {
        let monitor = monitor();
        monitor.count(&[words(&["a", "c", "c", ""]), numbers("x", -2..1)], &[], Duration::ZERO);
        let report = report(&monitor, 0);
        let bins = |feature: usize| -> Vec<_> {
            let bins = report.features[feature].bins.iter().filter(|bin| bin.live > 0);
            bins.map(|bin| (bin.bin.clone(), bin.reference, bin.live)).collect()
        };
        assert_eq!(bins(0), [("0".into(), 100, 1), ("below".into(), 0, 2)]);
        assert_eq!(bins(1), [("a".into(), 900, 1), ("unseen".into(), 0, 2), ("missing".into(), 0, 1)]);
        assert_eq!((report.features[1].rows, report.features[1].missing), (4, 1));
    }

    #[test]
    fn profile_that_does_not_fit_makes_no_monitor() {
        let mut builder = ProfileBuilder::default();
        builder.add(&[numbers("x", 0..10)], &[]);
        let signature = Signature { inputs: vec![], outputs: vec![] };
        let refused = VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the profile does not fit the model: input 'x' is unknown: the model has none"
        );
    }
}
