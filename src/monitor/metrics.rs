//! The monitor's metrics, made when Prometheus asks: of the counters as they are, and of what the latest look found. A
//! scrape computes no distance.
//!
//! Counts that were restored are in the windows and in no counter: Prometheus has them already, see [`Exported`].
//!
//! The rows by bin are counters, so that drift of a whole fleet is exact: sums of counters, not means of scores.
//! `tidegate_reference_bin_ratio` has what the PSI needs besides: for each bin that the PSI looks at the
//! reference's smoothed share `p`, and in the label `psi_bin` where its rows belong there. `below` belongs to the first
//! bin and `above` to the last, so they have the value 0 and the sum over a feature is 1; `missing` and `nonfinite`
//! belong to none and are absent. `unseen` is a bin of the PSI only when it holds something; where the reference
//! has rows in it (its pooled rare values, of a profile that does not know which they are) its `psi_bin` is `other`, a bin
//! like any.
//!
//! `grafana/rules/tidegate_recording.yml` makes the PSI of all replicas of these, equal to
//! `tidegate_drift_score{measure="psi"}` of their sum (where `unseen` has come up, to one part in twice the
//! reference's rows for each share).

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    Check, Clock, LearningProgress, Measures, MonitorHandle, Watched,
    exported::Exported,
    feature::MonitoredFeature,
    histogram::Layout,
    looks::Seen,
    measures::{numbers, smoothed},
};

/// How long a scrape waits for rows that are offered and not yet counted.
const SETTLE: Duration = Duration::from_millis(250);

/// The metric families, in the order of [`FAMILIES`].
#[derive(Debug, Clone, Copy)]
enum Family {
    Observations,
    Bins,
    Missing,
    OutOfRange,
    Unseen,
    Reference,
    Score,
    State,
    Rows,
    MinRows,
    Threshold,
    Quality,
    ReferenceRows,
    ReferenceMissing,
    Violations,
    LearningRows,
    LearningRowsLeft,
    LearningTimeLeft,
    Dropped,
    LeftOut,
    SeriesDropped,
}

const FAMILIES: [(Family, &str, &str, MetricType, &[&str]); 21] = [
    (
        Family::Observations,
        "tidegate_feature_observations_total",
        "Rows counted of a feature.",
        MetricType::COUNTER,
        FEATURE,
    ),
    (
        Family::Bins,
        "tidegate_feature_bin_total",
        "Rows counted of a feature by bin of its reference.",
        MetricType::COUNTER,
        &["model", "version", "tensor", "feature", "bin"],
    ),
    (
        Family::Missing,
        "tidegate_feature_missing_total",
        "Rows of a feature without a value: NaN, or an empty string.",
        MetricType::COUNTER,
        FEATURE,
    ),
    (
        Family::OutOfRange,
        "tidegate_feature_out_of_range_total",
        "Rows of a numeric feature below or above its reference's range.",
        MetricType::COUNTER,
        FEATURE,
    ),
    (
        Family::Unseen,
        "tidegate_feature_unseen_category_total",
        "Rows of a categorical feature with a value that its reference never had.",
        MetricType::COUNTER,
        FEATURE,
    ),
    (
        Family::Reference,
        "tidegate_reference_bin_ratio",
        "Smoothed share of a bin in the reference; psi_bin is the bin of the PSI that its rows belong to.",
        MetricType::GAUGE,
        &["model", "version", "tensor", "feature", "bin", "psi_bin"],
    ),
    (
        Family::Score,
        "tidegate_drift_score",
        "Distance of a feature from its reference over a window.",
        MetricType::GAUGE,
        &["model", "version", "tensor", "feature", "measure", "window"],
    ),
    (
        Family::State,
        "tidegate_drift_state",
        "Verdict on a feature over a window: 0 ok, 1 warning, 2 drift; absent where there are too few rows for one.",
        MetricType::GAUGE,
        &["model", "version", "tensor", "feature", "window"],
    ),
    (
        Family::Rows,
        "tidegate_drift_rows",
        "Rows of a feature in a window.",
        MetricType::GAUGE,
        &["model", "version", "tensor", "feature", "window"],
    ),
    (
        Family::MinRows,
        "tidegate_drift_min_rows",
        "Rows in a window below which there is no verdict.",
        MetricType::GAUGE,
        VERSION,
    ),
    (
        Family::Threshold,
        "tidegate_drift_threshold",
        "Corrected PSI from which a feature has drifted, at its rows in a window.",
        MetricType::GAUGE,
        &["model", "version", "tensor", "feature", "window"],
    ),
    (
        Family::Quality,
        "tidegate_feature_quality_state",
        "Outcome of a check of a feature's values over a window: 0 ok, 1 warning, 2 drift; absent as the verdict is.",
        MetricType::GAUGE,
        &["model", "version", "tensor", "feature", "check", "window"],
    ),
    (
        Family::ReferenceRows,
        "tidegate_reference_rows",
        "Rows of a feature in its reference.",
        MetricType::GAUGE,
        FEATURE,
    ),
    (
        Family::ReferenceMissing,
        "tidegate_reference_missing_ratio",
        "Share of a feature's rows in its reference that have no value.",
        MetricType::GAUGE,
        FEATURE,
    ),
    (
        Family::Violations,
        "tidegate_contract_violations_total",
        "Requests with a value that the reference has never seen the like of, where the contract is on.",
        MetricType::COUNTER,
        VERSION,
    ),
    (
        Family::LearningRows,
        "tidegate_monitor_learning_rows",
        "Rows that a version has learnt its profile from; absent once it has the profile.",
        MetricType::GAUGE,
        VERSION,
    ),
    (
        Family::LearningRowsLeft,
        "tidegate_monitor_learning_remaining_rows",
        "Rows that a version lacks yet to learn its profile.",
        MetricType::GAUGE,
        VERSION,
    ),
    (
        Family::LearningTimeLeft,
        "tidegate_monitor_learning_remaining_seconds",
        "How long a version learns its profile yet, at least; the whole time until its first row comes.",
        MetricType::GAUGE,
        VERSION,
    ),
    (
        Family::Dropped,
        "tidegate_monitor_dropped_total",
        "Answered requests that the monitor had no room to count.",
        MetricType::COUNTER,
        &[],
    ),
    (
        Family::LeftOut,
        "tidegate_monitor_left_out_rows_total",
        "Rows that were not counted because of monitor.max_rows_per_second: as many as that are drawn by lot.",
        MetricType::COUNTER,
        &[],
    ),
    (
        Family::SeriesDropped,
        "tidegate_monitor_series_dropped",
        "Time series of features that are not exported because of monitor.max_series.",
        MetricType::GAUGE,
        &[],
    ),
];
const FEATURE: &[&str] = &["model", "version", "tensor", "feature"];
const VERSION: &[&str] = &["model", "version"];

/// Which features are exported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportSettings {
    /// By name; empty: all.
    pub features: Vec<String>,
    /// Time series of features, at most; 0: no bound.
    pub max_series: usize,
}

/// Makes the metrics of all monitored versions. A scrape waits shortly for the monitor to catch up, so it must not run
/// on a thread that serves requests.
pub struct MonitorCollector {
    handle: MonitorHandle,
    versions: Box<dyn Fn() -> Vec<Watched> + Send + Sync>,
    clock: Clock,
    export: ExportSettings,
    descriptions: Vec<Desc>,
    /// One scrape at a time goes on from the one before.
    exported: Mutex<Exported>,
}

impl MonitorCollector {
    /// A collector of the versions that `versions` gives at the time of a scrape.
    ///
    /// # Errors
    /// Never: the names of metrics are fixed and valid; the type of the crate cannot say so.
    pub fn new(
        handle: MonitorHandle,
        clock: Clock,
        export: ExportSettings,
        versions: impl Fn() -> Vec<Watched> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let describe = |(_, name, help, _, labels): (_, &str, &str, _, &[&str])| {
            let labels = labels.iter().map(|&label| label.into()).collect();
            Desc::new(name.into(), help.into(), labels, HashMap::new())
        };
        let descriptions = FAMILIES.into_iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Self { handle, versions: Box::new(versions), clock, export, descriptions, exported: Mutex::default() })
    }
}

impl fmt::Debug for MonitorCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorCollector").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Collector for MonitorCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Late rows are in the next scrape.
        let _ = self.handle.settle(SETTLE);
        let (mut families, mut room, mut dropped) = (Families::default(), self.export.max_series, 0);
        let mut shown = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        shown.begin();
        for (model, version, watch) in (self.versions)() {
            let of_version = vec![label("model", model.as_str()), label("version", &version.to_string())];
            let Some(monitor) = watch.monitor() else {
                if let Some(progress) = watch.learning_progress((self.clock)()) {
                    families.learning(&of_version, &progress);
                }
                continue;
            };
            let windows = monitor.window_lengths();
            let exported: Vec<bool> = monitor
                .features()
                .iter()
                .map(|feature| {
                    let series = series_of(feature, windows.len());
                    let has_room = self.export.max_series == 0 || series <= room;
                    let is_wanted = self.wants(feature);
                    if is_wanted && has_room {
                        room = room.saturating_sub(series);
                    } else if is_wanted {
                        dropped += series;
                    }
                    is_wanted && has_room
                })
                .collect();
            let counted = shown.show(&model, version, &monitor);
            for (feature, _) in monitor.features().iter().zip(&exported).filter(|(_, exported)| **exported) {
                families.count(&of_version, feature, &feature.rows(&counted.cells).bins);
            }
            for seen in &*monitor.latest() {
                families.score(&of_version, monitor.features(), seen, &exported);
            }
            families.add(Family::MinRows, of_version.clone(), monitor.min_rows() as f64);
            families.add(Family::Violations, of_version, counted.violations as f64);
        }
        families.add(Family::Dropped, Vec::new(), self.handle.dropped() as f64);
        families.add(Family::LeftOut, Vec::new(), self.handle.left_out_rows() as f64);
        families.add(Family::SeriesDropped, Vec::new(), dropped as f64);
        families.finish()
    }
}

impl MonitorCollector {
    fn wants(&self, feature: &MonitoredFeature) -> bool {
        self.export.features.is_empty() || self.export.features.contains(&feature.profile.feature)
    }
}

/// The time series that a feature has, at most.
fn series_of(feature: &MonitoredFeature, windows: usize) -> usize {
    const OF_FEATURE: usize = 5;
    const OF_WINDOW: usize = MEASURES + 3 + Check::ALL.len();
    2 * feature.labels.len() + OF_FEATURE + OF_WINDOW * windows
}

/// The metrics of each family.
#[derive(Default)]
struct Families([Vec<Metric>; FAMILIES.len()]);

impl Families {
    /// The counters of a feature, and its reference.
    fn count(&mut self, of_version: &[LabelPair], feature: &MonitoredFeature, cells: &[u64]) {
        let labels = with(of_version, &[("tensor", &feature.profile.tensor), ("feature", &feature.profile.feature)]);
        self.add(Family::Observations, labels.clone(), cells.iter().sum::<u64>() as f64);
        for (bin, &rows) in feature.labels.iter().zip(cells) {
            self.add(Family::Bins, with(&labels, &[("bin", bin)]), rows as f64);
        }
        let layout = feature.classifier.layout();
        self.add(Family::Missing, labels.clone(), cells[layout.missing()] as f64);
        match layout {
            Layout::Numeric { bins } => {
                // Of a reference without a number, the bin is nobody's range.
                let inside = if feature.profile.is_empty() { cells[..bins].iter().sum() } else { 0 };
                self.add(Family::OutOfRange, labels.clone(), (inside + cells[bins] + cells[bins + 1]) as f64);
            }
            Layout::Categorical { .. } => {
                self.add(Family::Unseen, labels.clone(), cells[layout.outside()] as f64);
            }
        }
        let (rows, missing) = (feature.profile.rows, feature.profile.missing);
        self.add(Family::ReferenceRows, labels.clone(), rows as f64);
        self.add(Family::ReferenceMissing, labels.clone(), missing as f64 / (rows as f64).max(1.0));
        for (bin, psi_bin, ratio) in reference_ratios(feature) {
            self.add(Family::Reference, with(&labels, &[("bin", &bin), ("psi_bin", &psi_bin)]), ratio);
        }
    }

    /// How far the profile of a version is learnt.
    fn learning(&mut self, of_version: &[LabelPair], progress: &LearningProgress) {
        self.add(Family::LearningRows, of_version.to_vec(), progress.rows as f64);
        self.add(Family::LearningRowsLeft, of_version.to_vec(), progress.rows_left() as f64);
        self.add(Family::LearningTimeLeft, of_version.to_vec(), progress.time_left.as_secs_f64());
    }

    /// The scores and verdicts of a version over a window.
    fn score(&mut self, of_version: &[LabelPair], features: &[MonitoredFeature], seen: &Seen, exported: &[bool]) {
        let window = window_label(seen.window);
        let features = features.iter().zip(&seen.features).zip(exported).filter(|(_, exported)| **exported);
        for ((MonitoredFeature { profile, .. }, judged), _) in features {
            let labels = [("tensor", &*profile.tensor), ("feature", &profile.feature), ("window", &window)];
            let labels = with(of_version, &labels);
            for (measure, value) in scores(&judged.measures) {
                if let Some(value) = value {
                    self.add(Family::Score, with(&labels, &[("measure", measure)]), value);
                }
            }
            for checked in &judged.quality.checks {
                if let Some(state) = checked.state.as_number() {
                    self.add(Family::Quality, with(&labels, &[("check", checked.check.as_str())]), state.into());
                }
            }
            self.add(Family::Threshold, labels.clone(), judged.threshold);
            // 0 would be a verdict that there is not.
            if let Some(state) = judged.state.as_number() {
                self.add(Family::State, labels.clone(), state.into());
            }
            self.add(Family::Rows, labels, judged.rows as f64);
        }
    }

    fn add(&mut self, family: Family, mut labels: Vec<LabelPair>, value: f64) {
        labels.sort_by(|a, b| a.name().cmp(b.name()));
        let mut metric = Metric::from_label(labels);
        if FAMILIES[family as usize].3 == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0[family as usize].push(metric);
    }

    fn finish(self) -> Vec<MetricFamily> {
        // A family without a metric is an error to some encoders.
        let filled = FAMILIES.into_iter().zip(self.0).filter(|(_, metrics)| !metrics.is_empty());
        filled
            .map(|((_, name, help, kind, _), metrics)| {
                let mut family = MetricFamily::default();
                family.set_name(name.into());
                family.set_help(help.into());
                family.set_field_type(kind);
                family.set_metric(metrics);
                family
            })
            .collect()
    }
}

/// Bin, bin of the PSI, and the reference's smoothed share of each cell that the PSI looks at.
/// Where the reference has nothing in `unseen`, the shares of the categories are those of the PSI without that bin;
/// when rows come up in it they are off by one part in twice the reference's rows.
fn reference_ratios(feature: &MonitoredFeature) -> Vec<(String, String, f64)> {
    let layout = feature.classifier.layout();
    let (labels, reference) = (&feature.labels, layout.fold(&feature.reference));
    match layout {
        Layout::Numeric { bins } => {
            let inside =
                labels.iter().zip(smoothed(&numbers(&reference))).map(|(bin, p)| (bin.clone(), bin.clone(), p));
            let outside = [("below", 0), ("above", bins - 1)];
            inside.chain(outside.map(|(word, bin)| (word.into(), labels[bin].clone(), 0.0))).collect()
        }
        Layout::Categorical { .. } => {
            let at = layout.outside();
            let pooled = reference[at] > 0;
            let shares = smoothed(&numbers(if pooled { &reference } else { &reference[..at] }));
            let unseen = if feature.profile.is_empty() {
                // Each of its rows could have been one.
                0.5 / (feature.profile.rows as f64 + 1.0)
            } else {
                smoothed(&numbers(&reference))[at]
            };
            let known = labels[..at].iter().zip(shares).map(|(bin, p)| (bin.clone(), bin.clone(), p));
            let psi_bin = if pooled { "other" } else { "unseen" };
            known.chain([("unseen".into(), psi_bin.into(), unseen)]).collect()
        }
    }
}

/// How many measures there are.
const MEASURES: usize = 11;

/// The measures by the name that they have in metrics and answers.
fn scores(measures: &Measures) -> [(&'static str, Option<f64>); MEASURES] {
    [
        ("psi", measures.psi),
        ("psi_corrected", measures.psi_corrected),
        ("jensen_shannon", measures.jensen_shannon),
        ("hellinger", measures.hellinger),
        ("kolmogorov_smirnov", measures.kolmogorov_smirnov),
        ("wasserstein", measures.wasserstein),
        ("chi_square", measures.chi_square),
        ("p_value", measures.p_value),
        ("total_variation", measures.total_variation),
        ("cramers_v", measures.cramers_v),
        ("l_infinity", measures.l_infinity),
    ]
}

/// A duration in its largest whole unit: `5m`, `1h`, `90s`, `250ms`.
#[must_use]
pub fn window_label(window: Duration) -> String {
    let millis = window.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.into_iter().find(|(_, size)| millis >= *size && millis.is_multiple_of(*size));
    unit.map_or_else(|| format!("{millis}ms"), |(unit, size)| format!("{}{unit}", millis / size))
}

fn with(labels: &[LabelPair], more: &[(&str, &str)]) -> Vec<LabelPair> {
    labels.iter().cloned().chain(more.iter().map(|(name, value)| label(name, value))).collect()
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}

#[cfg(test)]
mod tests;
