//! What the comparisons of two versions found so far.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{compare::compare, scores::Scores};
use crate::{
    domain::{ModelName, Tensor, Version},
    observe::VersionMetrics,
};

/// Pairs of versions that are remembered; that which was compared longest ago makes room.
const MAX_PAIRS: usize = 256;
/// Outputs of a model that are compared, the first of its answer.
const MAX_OUTPUTS: usize = 16;

/// A pair of versions of one model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    model: ModelName,
    shadow: Version,
    live: Version,
}

/// All comparisons. No request takes its locks: only the shadow's threads and views do.
#[derive(Debug, Default)]
pub(super) struct Comparisons(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    pairs: BTreeMap<Pair, (u64, Arc<Comparison>)>,
    /// Counts uses.
    uses: u64,
}

impl Comparisons {
    /// The comparison of `shadow` with `live`, which answered.
    pub(super) fn of(&self, model: &ModelName, live: Version, shadow: Version) -> Arc<Comparison> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.uses += 1;
        let now = book.uses;
        let pair = Pair { model: model.clone(), shadow, live };
        if let Some((used, comparison)) = book.pairs.get_mut(&pair) {
            *used = now;
            return Arc::clone(comparison);
        }
        if book.pairs.len() >= MAX_PAIRS {
            let oldest = book.pairs.iter().min_by_key(|(_, (used, _))| *used).map(|(pair, _)| pair.clone());
            oldest.map(|pair| book.pairs.remove(&pair));
        }
        let comparison = Arc::<Comparison>::default();
        book.pairs.insert(pair, (now, Arc::clone(&comparison)));
        comparison
    }

    /// The reports on a version as shadow, the pair compared last first.
    pub(super) fn reports(&self, model: &ModelName, shadow: Version) -> Vec<ShadowReport> {
        self.select(|pair| pair.model == *model && pair.shadow == shadow)
            .into_iter()
            .map(|(_, report)| report)
            .collect()
    }

    /// The newest report on every version that is or was a shadow.
    pub(super) fn newest(&self) -> BTreeMap<(ModelName, Version), ShadowReport> {
        let mut newest = BTreeMap::new();
        for (model, report) in self.select(|_| true) {
            newest.entry((model, report.shadow)).or_insert(report);
        }
        newest
    }

    fn select(&self, wanted: impl Fn(&Pair) -> bool) -> Vec<(ModelName, ShadowReport)> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = book.pairs.iter().filter(|(pair, _)| wanted(pair)).collect();
        found.sort_by_key(|(_, (used, _))| std::cmp::Reverse(*used));
        found
            .into_iter()
            .map(|(pair, (_, comparison))| (pair.model.clone(), comparison.report(pair.shadow, pair.live)))
            .collect()
    }
}

/// The sums of one pair.
#[derive(Debug, Default)]
pub(super) struct Comparison(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    copies: u64,
    /// Of the runs of the version that answered, and of the shadow's.
    inference: [Duration; 2],
    outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Default)]
struct Output {
    rows: u64,
    agreed: u64,
    elements: u64,
    sum: f64,
    max: f64,
    incomparable: u64,
    mismatched: u64,
    scores: Scores,
}

impl Comparison {
    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an answer and the shadow's, with the time that the run of each took.
    pub(super) fn add(&self, live: &[Tensor], shadow: &[Tensor], inference: [Duration; 2], metrics: &VersionMetrics) {
        let pairs = live.iter().filter_map(|live| {
            let shadow = shadow.iter().find(|shadow| shadow.name() == live.name())?;
            Some((live.name(), compare(live, shadow)))
        });
        let found: Vec<_> = pairs.take(MAX_OUTPUTS).collect();
        let mut sums = self.lock();
        sums.copies += 1;
        sums.inference[0] += inference[0];
        sums.inference[1] += inference[1];
        for (name, difference) in found {
            if !sums.outputs.contains_key(name) {
                if sums.outputs.len() >= MAX_OUTPUTS {
                    continue;
                }
                sums.outputs.insert(name.to_owned(), Output::default());
            }
            let Some(output) = sums.outputs.get_mut(name) else { continue };
            let Some(difference) = difference else {
                output.mismatched += 1;
                continue;
            };
            output.rows += difference.rows;
            output.agreed += difference.agreed;
            output.elements += difference.elements;
            output.sum += difference.sum;
            output.max = output.max.max(difference.max);
            output.incomparable += difference.incomparable;
            output.scores.add(&difference.scores);
            metrics.shadow_compared(name, difference.rows, difference.agreed);
        }
    }

    fn report(&self, shadow: Version, live: Version) -> ShadowReport {
        let sums = self.lock();
        let mean = |time: Duration| time.as_secs_f64() / (sums.copies.max(1)) as f64;
        ShadowReport {
            shadow,
            live,
            copies: sums.copies,
            live_seconds: mean(sums.inference[0]),
            shadow_seconds: mean(sums.inference[1]),
            outputs: sums.outputs.iter().map(|(name, output)| output.report(name)).collect(),
        }
    }
}

impl Output {
    fn report(&self, name: &str) -> OutputReport {
        let ratio = |part: f64, of: u64| (of > 0).then(|| part / of as f64);
        let [live_bins, shadow_bins] = self.scores.bins().clone();
        OutputReport {
            output: name.to_owned(),
            rows: self.rows,
            agreement: ratio(self.agreed as f64, self.rows),
            elements: self.elements,
            mean_difference: ratio(self.sum, self.elements),
            max_difference: (self.elements > 0).then_some(self.max),
            incomparable: self.incomparable,
            mismatched: self.mismatched,
            psi: self.scores.psi(),
            edges: self.scores.edges().to_vec(),
            live_bins,
            shadow_bins,
        }
    }
}

/// How a shadow version compares with a version that answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowReport {
    pub shadow: Version,
    /// The version that answered.
    pub live: Version,
    /// Copies that were compared.
    pub copies: u64,
    /// What a run took on average: of the answering version as its requests ran (perhaps joined with
    /// others), of the shadow alone and at low priority.
    pub live_seconds: f64,
    pub shadow_seconds: f64,
    pub outputs: Vec<OutputReport>,
}

/// How one output compares.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputReport {
    pub output: String,
    /// Rows that have a class.
    pub rows: u64,
    /// The share of them with the same class, from 0 to 1; `None` where no row has one.
    pub agreement: Option<f64>,
    /// Elements whose numbers were compared.
    pub elements: u64,
    /// The mean and the largest of their absolute differences.
    pub mean_difference: Option<f64>,
    pub max_difference: Option<f64>,
    /// Elements that are a finite number on one side only.
    pub incomparable: u64,
    /// Copies whose output had another shape or kind.
    pub mismatched: u64,
    /// The population stability index of the scores; `None` for the first 500 rows.
    pub psi: Option<f64>,
    /// Between the bins of scores; the last bin counts what is no number.
    pub edges: Vec<f64>,
    pub live_bins: Vec<u64>,
    pub shadow_bins: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{DataType, Shape},
        telemetry::Metrics,
    };

    fn v(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn tensor(name: &str, values: [f32; 2]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::plain(name, DataType::Fp32, Shape::new(vec![1, 2]).unwrap(), bytes.into()).unwrap()
    }

    #[test]
    fn sums_are_kept_by_pair_and_the_newest_comes_first() {
        let (comparisons, model) = (Comparisons::default(), "m".parse::<ModelName>().unwrap());
        let metrics = VersionMetrics::new(&Metrics::new(), &model, v(3));
        let time = [Duration::from_millis(2), Duration::from_millis(4)];
        let live = [tensor("p", [0.25, 0.75]), tensor("only live", [0.0, 0.0])];
        for (against, own) in [(1, [0.25, 0.75]), (1, [0.75, 0.25]), (2, [0.5, 0.5])] {
            comparisons.of(&model, v(against), v(3)).add(&live, &[tensor("p", own)], time, &metrics);
        }
        let [newest, older] = &comparisons.reports(&model, v(3))[..] else { panic!("two pairs") };
        assert_eq!((newest.live, newest.copies, older.live, older.copies), (v(2), 1, v(1), 2));
        assert_eq!((older.live_seconds, older.shadow_seconds), (0.002, 0.004));
        let [output] = &older.outputs[..] else { panic!("one common output") };
        assert_eq!((output.output.as_str(), output.rows, output.agreement), ("p", 2, Some(0.5)));
        assert_eq!((output.mean_difference, output.max_difference), (Some(0.25), Some(0.5)));
        assert!(comparisons.reports(&model, v(9)).is_empty());
    }

    #[test]
    fn number_of_pairs_is_bounded() {
        let (comparisons, model) = (Comparisons::default(), "m".parse::<ModelName>().unwrap());
        for number in 1..=MAX_PAIRS as u64 + 10 {
            comparisons.of(&model, v(number), v(1));
        }
        let kept = comparisons.reports(&model, v(1));
        assert_eq!((kept.len(), kept[0].live, kept[MAX_PAIRS - 1].live), (MAX_PAIRS, v(266), v(11)));
    }
}
