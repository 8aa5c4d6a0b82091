//! A feature that is monitored: its reference, where its rows are counted, and how far they are from it.

use std::{cell::LazyCell, cmp::Ordering, fmt, ops::Range, time::Duration};

use super::{
    BinCount, DriftState, FeatureReport, Measures, RareBin,
    buckets::{Grouping, HashBuckets},
    columns::declared_columns,
    histogram::{Classifier, Layout, reference_cells},
    measures,
    profile::{Category, Distribution, FeatureProfile, FeatureRole, FineBins, Source},
    quality::{self, Check, Quality, Sides},
    verdict::{Judge, RareBinVerdict, RareFloors, Sample, Series, Verdict},
};
use crate::domain::{DataType, Labels, Signature, Tensor, TensorSpec};

/// Adds the names of classes to the labels of their numbers: `1 (dog)`, which is like no other label. Only where all
/// categories of a single column are numbers of these classes.
fn name_classes(labels: &mut [String], distribution: &Distribution, spec: &TensorSpec, classes: &[String]) {
    let is_whole = !matches!(spec.datatype, DataType::Bool | DataType::Bytes) && !spec.datatype.is_float();
    let Distribution::Categorical { categories, .. } = distribution else { return };
    let class = |category: &Category| classes.get(category.value.parse::<usize>().ok()?).map(String::as_str);
    let named: Option<Vec<&str>> = categories.iter().map(class).collect();
    let Some(named) = named.filter(|_| is_whole && declared_columns(&spec.shape) == Some(1)) else { return };
    for (label, class) in labels.iter_mut().zip(named).filter(|(_, class)| !class.is_empty()) {
        *label = format!("{label} ({class})");
    }
}

#[derive(Debug)]
pub(super) struct MonitoredFeature {
    pub(super) profile: FeatureProfile,
    /// The label `bin` of each bin.
    pub(super) labels: Vec<String>,
    /// The reference's rows of each bin.
    pub(super) reference: Vec<u64>,
    pub(super) classifier: Classifier,
    /// Its cells among those of all features.
    pub(super) cells: Range<usize>,
}

/// Rows of a feature: by cell, or by what cells are added up to.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    /// By bin, as the labels have them.
    pub(super) bins: Vec<u64>,
    /// By fine bin, values out of range in the outer ones; empty for a categorical feature.
    fine: Vec<u64>,
    /// So many of the latest values are one and the same; `None` where that is not known.
    run: Option<u64>,
}

/// Rows of a feature, and how they came over time: by bin, as in [`Rows::bins`], of each sub-window of several windows.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) rows: &'a Rows,
    /// Is asked only where an alarm depends on it.
    pub(super) over_time: &'a dyn Fn() -> Vec<Series>,
}

impl<'a> Side<'a> {
    /// Rows that are taken as independent of each other.
    pub(super) fn independent(rows: &'a Rows) -> Self {
        Self { rows, over_time: &Vec::new }
    }
}

/// A value that a profile has never seen the like of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub feature: String,
    /// From 0.
    pub row: usize,
    /// The bin: `missing`, `nonfinite`, `below`, `above` or `unseen`; `value` where the profile has none.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feature, row, what } = self;
        let words = match &**what {
            "missing" => "has no value, which it always had in the reference data",
            "nonfinite" => "is infinite",
            "below" => "is below the range of the reference data",
            "above" => "is above the range of the reference data",
            "value" => "has a value, which it never had in the reference data",
            _ => "is of a category that is not in the reference data",
        };
        write!(f, "feature '{feature}' {words} (row {row}, counted from 0)")
    }
}

impl Rows {
    /// Whether all numbers are one and the same; `None` where that is not known.
    pub(super) fn is_one_number(&self) -> Option<bool> {
        Some(self.run? >= self.fine.iter().sum())
    }

    /// Distinct values, or what comes nearest to them, beside the bins.
    fn sides(&self, layout: Layout) -> Sides<'_> {
        let (finest, is_one_value) = match layout {
            Layout::Numeric { .. } => (self.fine.as_slice(), self.is_one_number()),
            // Each cell is one value; buckets are not among them.
            Layout::Categorical { categories, .. } => (&self.bins[..categories], Some(true)),
        };
        Sides { bins: &self.bins, finest, is_one_value, over_time: &Vec::new }
    }
}

/// How far the live rows of a feature are from its reference: a report of it without the bins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    /// Missing ones included.
    pub(super) rows: u64,
    pub(super) missing: u64,
    /// The verdict on the distribution alone.
    pub(super) distribution: DriftState,
    /// The verdict on rare bins alone.
    pub(super) rare_bins: DriftState,
    /// The one that has changed.
    pub(super) rare_bin: Option<RareBin>,
    /// The worst of the verdicts on the distribution, on rare bins and on the quality.
    pub(super) state: DriftState,
    pub(super) threshold: f64,
    pub(super) design_effect: Option<f64>,
    pub(super) effective_rows: Option<f64>,
    pub(super) interval: Option<(f64, f64)>,
    pub(super) measures: Measures,
    pub(super) quality: Quality,
}

impl Judged {
    /// By state, then by how far the distribution is.
    pub(super) fn cmp_by_severity(&self, other: &Self) -> Ordering {
        let distance = |judged: &Self| judged.measures.psi_corrected.unwrap_or(f64::NEG_INFINITY);
        self.state.cmp(&other.state).then_with(|| distance(self).total_cmp(&distance(other)))
    }
}

/// The states of a feature's verdicts that the last look left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) distribution: DriftState,
    pub(super) rare_bins: DriftState,
    pub(super) quality: [DriftState; Check::ALL.len()],
}

impl Default for Standing {
    fn default() -> Self {
        let none = DriftState::TooFewRows;
        Self { distribution: none, rare_bins: none, quality: [none; Check::ALL.len()] }
    }
}

impl Standing {
    /// What a look leaves.
    pub(super) fn after(judged: &Judged) -> Self {
        let of = |check| judged.quality.of(check).map_or(DriftState::Ok, |checked| checked.state);
        let Judged { distribution, rare_bins, .. } = *judged;
        Self { distribution, rare_bins, quality: Check::ALL.map(of) }
    }
}

impl MonitoredFeature {
    /// The feature of a profile that fits the signature. Its cells start at `first`. Bins of an output that gives the
    /// number of a class are called by its name too.
    pub(super) fn new(profile: FeatureProfile, signature: &Signature, classes: &Labels, first: usize) -> Self {
        let spec = match profile.role {
            FeatureRole::Input => signature.input(&profile.tensor),
            FeatureRole::Output => signature.output(&profile.tensor),
            FeatureRole::Joint => None,
        };
        let datatype = spec.map_or(DataType::Bytes, |spec| spec.datatype);
        let classifier = Classifier::new(&profile, datatype);
        let mut labels = Layout::labels(&profile.distribution);
        if profile.role == FeatureRole::Output
            && let (Some(spec), Some(classes)) = (spec, classes.of(&profile.tensor))
        {
            name_classes(&mut labels, &profile.distribution, spec, classes);
        }
        Self {
            labels,
            reference: reference_cells(&profile),
            cells: first..first + classifier.cells(),
            classifier,
            profile,
        }
    }

    /// The rows of the feature among those of all cells.
    pub(super) fn rows(&self, cells: &[u64]) -> Rows {
        let cells = &cells[self.cells.clone()];
        let fine = match self.classifier.layout() {
            Layout::Numeric { .. } => self.classifier.fine(cells),
            Layout::Categorical { .. } => Vec::new(),
        };
        Rows { bins: self.classifier.coarse(cells), fine, run: None }
    }

    /// The same, where so many of the latest numbers that were counted are one and the same.
    pub(super) fn rows_and_run(&self, cells: &[u64], run: u64) -> Rows {
        // What is derived of a text or a wide row is counted by its cell alone.
        let is_number = matches!(self.profile.source, Source::Value | Source::ReconstructionError);
        Rows { run: is_number.then_some(run), ..self.rows(cells) }
    }

    /// The same of rows by sub-window, of the feature's own cells.
    pub(super) fn over_time(&self, series: Vec<Series>) -> Vec<Series> {
        series.into_iter().map(|series| series.iter().map(|cells| self.classifier.coarse(cells)).collect()).collect()
    }

    /// The first value of a column of `tensor` that the profile has never seen the like of.
    pub(super) fn violation(&self, tensor: &Tensor) -> Option<Violation> {
        if self.profile.source != Source::Value {
            return None;
        }
        let (layout, is_empty) = (self.classifier.layout(), self.profile.is_empty());
        let mut first = None;
        self.classifier.each_cell(tensor, |row, cell| {
            let bin = self.classifier.bin_of_cell(cell);
            if first.is_none() && (layout.is_outside(bin) || is_empty) && self.reference[bin] == 0 {
                first = Some((row, bin));
            }
        });
        let (row, bin) = first?;
        // A number that is in no range, as there is none.
        let is_new = is_empty && !matches!(&*self.labels[bin], "missing" | "nonfinite");
        let what = if is_new { "value".into() } else { self.labels[bin].clone() };
        Some(Violation { feature: self.profile.feature.clone(), row, what })
    }

    /// The profile with the rows of all cells in place of its own.
    pub(super) fn live_profile(&self, cells: &[u64]) -> FeatureProfile {
        let rows = self.rows(cells);
        let layout = self.classifier.layout();
        let folded = layout.fold(&rows.bins);
        let distribution = match &self.profile.distribution {
            Distribution::Numeric { min, max, mean, std, edges, fine, .. } => {
                let fine = fine.as_ref().map(|fine| FineBins { counts: rows.fine.clone(), ..fine.clone() });
                let (min, max, mean, std) = (*min, *max, *mean, *std);
                Distribution::Numeric { min, max, mean, std, edges: edges.clone(), counts: folded, fine }
            }
            Distribution::Categorical { categories, rare, buckets, .. } => {
                let of = |(category, &count): (&Category, &u64)| Category { count, ..category.clone() };
                let other = folded[categories.len()..].iter().sum();
                let unseen = folded[layout.outside()];
                let buckets = buckets
                    .as_ref()
                    .map(|_| HashBuckets { counts: folded[categories.len()..layout.outside()].to_vec(), once: unseen });
                // Which values were unseen is not known, so that they are not told from new ones any more; where there are
                // buckets, as many new ones are expected.
                let rare = rare.clone().filter(|_| unseen == 0 || buckets.is_some());
                let categories = categories.iter().zip(&folded).map(of).collect();
                Distribution::Categorical { categories, other, rare, buckets }
            }
        };
        let nonfinite = match layout {
            Layout::Numeric { bins } => rows.bins[bins + 3],
            Layout::Categorical { .. } => 0,
        };
        let (missing, rows) = (rows.bins[layout.missing()], rows.bins.iter().sum());
        FeatureProfile { rows, missing, nonfinite, distribution, ..self.profile.clone() }
    }

    /// The rows of the profile.
    pub(super) fn reference(&self) -> Rows {
        let fine = match &self.profile.distribution {
            Distribution::Numeric { fine: Some(fine), .. } => fine.counts.clone(),
            Distribution::Numeric { counts, .. } => counts.clone(),
            Distribution::Categorical { .. } => Vec::new(),
        };
        Rows { bins: self.reference.clone(), fine, run: None }
    }

    /// The rows by bin that distances are computed from, reference and live: `unseen` is a bin only
    /// where it holds something.
    fn compared(&self, reference: &[u64], live: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let layout = self.classifier.layout();
        let (mut reference, mut live) = (layout.fold(reference), layout.fold(live));
        if matches!(layout, Layout::Categorical { .. }) && (reference.last(), live.last()) == (Some(&0), Some(&0)) {
            reference.pop();
            live.pop();
        }
        (reference, live)
    }

    /// How far `live` is from `reference`, at one of the looks that come every `look`, after the states that stand.
    pub(super) fn judge(
        &self,
        reference: Side<'_>,
        live: Side<'_>,
        judge: &Judge,
        look: Duration,
        standing: Standing,
    ) -> Judged {
        let layout = self.classifier.layout();
        // Read once for all verdicts, if at all.
        let over_time = [reference, live].map(|side| LazyCell::new(move || (side.over_time)()));
        let (reference, live) = (reference.rows, live.rows);
        let (reference_bins, live_bins) = self.compared(&reference.bins, &live.bins);
        let judged = self.judged_bins(reference, reference_bins.len());
        let grouping = layout.grouping(&reference_bins, live_bins.iter().sum());
        let series_of = |side: usize, grouping: Grouping, judged: usize| {
            let judged = |bins: &Vec<u64>| grouping.of(&layout.fold(bins)[..judged]);
            over_time[side].iter().map(|series| series.iter().map(judged).collect()).collect()
        };
        let verdict = judge.judge_samples(
            Sample { bins: &grouping.of(&reference_bins[..judged]), over_time: &|| series_of(0, grouping, judged) },
            Sample { bins: &grouping.of(&live_bins[..judged]), over_time: &|| series_of(1, grouping, judged) },
            look,
            standing.distribution,
        );
        // Each bin for itself: an exact test needs no rows enough, and a group would have no name. A class that was never predicted
        // in the reference is a rare one.
        let (floors, named) = match self.profile.role {
            FeatureRole::Output => (RareFloors::OF_OUTPUT, reference_bins.len()),
            FeatureRole::Input | FeatureRole::Joint => (RareFloors::OF_INPUT, judged),
        };
        // How many new codes are to be expected is an estimate, and far less certain than a count: quality alone judges it.
        let named = if layout.has_buckets() { named.min(layout.outside()) } else { named };
        let rare_bins = judge.judge_rare_bins(
            Sample { bins: &reference_bins[..named], over_time: &|| series_of(0, Grouping::NONE, named) },
            Sample { bins: &live_bins[..named], over_time: &|| series_of(1, Grouping::NONE, named) },
            floors,
            look,
            standing.rare_bins,
        );
        let mut measures = self.measures(&reference_bins, &live_bins, reference, live);
        measures.psi_corrected = verdict.corrected;
        let quality = quality::check(
            judge,
            layout,
            Sides { over_time: &|| over_time[0].clone(), ..reference.sides(layout) },
            Sides { over_time: &|| over_time[1].clone(), ..live.sides(layout) },
            look,
            standing.quality,
        );
        Judged {
            rows: live.bins.iter().sum(),
            missing: live.bins[layout.missing()],
            distribution: verdict.state,
            rare_bins: rare_bins.state,
            rare_bin: self.rare_bin(rare_bins),
            state: DriftState::of_tests(&[verdict.state, rare_bins.state, quality.state()]),
            threshold: verdict.threshold,
            design_effect: verdict.design_effect,
            effective_rows: verdict.design_effect.map(|effect| live_bins[..judged].iter().sum::<u64>() as f64 / effect),
            interval: verdict.interval,
            measures,
            quality,
        }
    }

    fn rare_bin(&self, verdict: RareBinVerdict) -> Option<RareBin> {
        let RareBinVerdict { state, bin, reference, live, design_effect } = verdict;
        Some(RareBin { bin: self.labels[bin?].clone(), state, reference, live, design_effect })
    }

    /// How many of so many compared bins the verdict looks at: what the reference never had is judged as a share of its own.
    fn judged_bins(&self, reference: &Rows, compared: usize) -> usize {
        match self.classifier.layout() {
            layout @ Layout::Categorical { .. } if reference.bins[layout.outside()] == 0 => layout.outside(),
            _ => compared,
        }
    }

    /// The verdict on the distribution alone.
    pub(super) fn distribution(
        &self,
        reference: &Rows,
        live: &Rows,
        judge: &Judge,
        look: Duration,
        standing: DriftState,
    ) -> Verdict {
        let (reference_bins, live_bins) = self.compared(&reference.bins, &live.bins);
        let judged = self.judged_bins(reference, reference_bins.len());
        let grouping = self.classifier.layout().grouping(&reference_bins, live_bins.iter().sum());
        judge.judge(&grouping.of(&reference_bins[..judged]), &grouping.of(&live_bins[..judged]), look, standing)
    }

    /// What was found of these rows, with the rows.
    pub(super) fn report(&self, reference: &Rows, live: &Rows, judged: Judged) -> FeatureReport {
        let bins = self.labels.iter().zip(&reference.bins).zip(&live.bins);
        FeatureReport {
            tensor: self.profile.tensor.clone(),
            feature: self.profile.feature.clone(),
            kind: self.profile.kind(),
            rows: judged.rows,
            missing: judged.missing,
            distribution: judged.distribution,
            state: judged.state,
            rare_bin: judged.rare_bin,
            threshold: judged.threshold,
            design_effect: judged.design_effect,
            effective_rows: judged.effective_rows,
            interval: judged.interval,
            measures: judged.measures,
            quality: judged.quality,
            bins: bins.map(|((bin, &reference), &live)| BinCount { bin: bin.clone(), reference, live }).collect(),
        }
    }

    /// All measures but the corrected PSI, which is the verdict's. None when there is no row to measure.
    fn measures(&self, reference: &[u64], live: &[u64], all_reference: &Rows, all_live: &Rows) -> Measures {
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
            kolmogorov_smirnov: numeric.then(|| measures::kolmogorov_smirnov(&all_reference.fine, &all_live.fine)),
            wasserstein: self.scaled_wasserstein(all_reference, all_live),
            chi_square: chi_square.map(|(statistic, _)| statistic),
            p_value: chi_square.map(|(_, p)| p),
            total_variation: Some(measures::total_variation(reference, live)),
            cramers_v: measures::cramers_v(reference, live),
            l_infinity: Some(measures::l_infinity(reference, live)),
        }
    }

    /// The Wasserstein distance in units of the reference's standard deviation. `None` for a
    /// categorical or a constant feature.
    fn scaled_wasserstein(&self, reference: &Rows, live: &Rows) -> Option<f64> {
        let Distribution::Numeric { min, max, std, edges, fine, .. } = &self.profile.distribution else {
            return None;
        };
        let distance = if let Some(fine) = fine {
            measures::wasserstein(&fine.means, &reference.fine, &live.fine)
        } else {
            let knots: Vec<f64> = [&[*min][..], edges, &[*max]].concat();
            let middles: Vec<f64> = knots.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
            measures::wasserstein(&middles, &reference.fine, &live.fine)
        };
        (*std > 0.0).then(|| distance / std)
    }
}
