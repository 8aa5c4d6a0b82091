//! Tests against the truth: numbers that `NumPy` and `SciPy` computed of data sets with known drift.
//! See `tests/data/drift/README.md`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Deserialize;

use super::{
    Answered, ColumnNames, Distribution, DriftState, Judge, MonitorSettings, Profile, ProfileBuilder, Source, Table,
    Tests, Thresholds, VersionMonitor, measures,
};
use crate::domain::{DataType, Dim, Signature, TensorSpec, Version};

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Reference {
    Numeric { min: f64, max: f64, std: f64, edges: Vec<f64>, counts: Vec<u64> },
    Categorical { categories: Vec<String>, counts: Vec<u64> },
}

/// A chunk of which only the rows by bin are known.
#[derive(Deserialize)]
struct BareChunk {
    column: String,
    #[serde(rename = "chunk")]
    number: u32,
    counts: String,
}

impl Reference {
    fn counts(&self) -> &[u64] {
        match self {
            Self::Numeric { counts, .. } | Self::Categorical { counts, .. } => counts,
        }
    }

    /// The reference's rows by bin, with a bin for what it never had where `live` has one.
    fn counts_for(&self, live: &[u64]) -> Vec<u64> {
        let mut counts = self.counts().to_vec();
        counts.resize(live.len(), 0);
        counts
    }
}

#[derive(Deserialize)]
struct Chunk {
    column: String,
    period: String,
    #[serde(rename = "chunk")]
    number: u32,
    counts: String,
    psi: f64,
    js: f64,
    hellinger: f64,
    ks_decile: Option<f64>,
    chi2: Option<f64>,
    chi2_p: Option<f64>,
    tvd: Option<f64>,
    linf: Option<f64>,
    cramers_v: Option<f64>,
    wasserstein_over_std: Option<f64>,
    ks_exact: Option<f64>,
    missing: u64,
    unseen: Option<u64>,
}

impl Chunk {
    fn counts(&self) -> Vec<u64> {
        parse_counts(&self.counts)
    }

    fn is_late(&self) -> bool {
        self.period == "analysis" && self.number >= 5
    }

    /// Whether a chunk of the car-loan data drifts.
    fn drifts(&self) -> bool {
        let drifting = ["car_value", "loan_length", "salary_range", "repaid_loan_on_prev_car", "y_pred_proba"];
        self.is_late() && drifting.contains(&self.column.as_str())
    }

    fn place(&self) -> String {
        format!("{} {} {}", self.column, self.period, self.number)
    }
}

fn parse_counts(counts: &str) -> Vec<u64> {
    counts.split(' ').map(|count| count.parse().unwrap()).collect()
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/drift").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn references(set: &str) -> BTreeMap<String, Reference> {
    serde_json::from_str(&data(&format!("{set}_reference.json"))).unwrap()
}

fn chunks<Row: serde::de::DeserializeOwned>(set: &str) -> Vec<Row> {
    let text = data(&format!("{set}_chunks.csv"));
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

/// A judge of a model with so many features over two windows, with these floors of the PSI.
fn judge(features: usize, [warning, drift]: [f64; 2]) -> Judge {
    Judge::new(Thresholds { warning, drift, ..Thresholds::default() }, Tests { features, horizons: 2 }, 25)
}

const FLOORS: [f64; 2] = [0.02, 0.03];
/// A window of five minutes slides by this.
const LOOK: Duration = Duration::from_secs(5);

fn close(got: f64, truth: f64, tolerance: f64) -> bool {
    (got - truth).abs() <= tolerance
}

#[test]
fn measures_equal_the_truth_to_nine_digits() {
    let (mut compared, mut tables) = (0, 0);
    for set in ["car_loan", "car_loan_dq", "regression"] {
        let references = references(set);
        for chunk in chunks::<Chunk>(set) {
            let live = chunk.counts();
            let reference = references[&chunk.column].counts_for(&live);
            let place = format!("{set} {}", chunk.place());
            let equal = |got: f64, truth: f64, measure: &str| {
                assert!(close(got, truth, 1e-9), "{place} {measure}: {got} for {truth}");
            };
            equal(measures::psi(&reference, &live), chunk.psi, "psi");
            equal(measures::jensen_shannon(&reference, &live), chunk.js, "js");
            equal(measures::hellinger(&reference, &live), chunk.hellinger, "hellinger");
            if let Some(truth) = chunk.ks_decile {
                equal(measures::kolmogorov_smirnov(&reference, &live), truth, "ks");
            }
            if let (Some(chi2), Some(p), Some(tvd)) = (chunk.chi2, chunk.chi2_p, chunk.tvd) {
                let (statistic, tail) = measures::chi_square(&reference, &live).unwrap();
                equal(statistic, chi2, "chi2");
                equal(tail, p, "p");
                // Down to the far tail, where 1e-9 says nothing.
                assert!(p < 1e-300 || close(tail / p, 1.0, 1e-9), "{place}: {tail} for {p}");
                equal(measures::total_variation(&reference, &live), tvd, "tvd");
                equal(measures::l_infinity(&reference, &live), chunk.linf.unwrap(), "linf");
                equal(measures::cramers_v(&reference, &live).unwrap(), chunk.cramers_v.unwrap(), "cramers v");
                tables += 1;
            }
            compared += 1;
        }
    }
    assert_eq!((compared, tables), (520, 240));
}

/// The rows themselves, through the monitor: within the fine bins lie 2 % of a real drift, and 0.005 σ of a small one.
#[test]
fn wasserstein_and_kolmogorov_smirnov_of_fine_bins_are_near_the_exact_ones() {
    let Some(profile) = car_loan_profile() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".artifacts/data/synthetic_car_loan_analysis.csv");
    let (signature, settings) = (car_loan_signature(), MonitorSettings::default());
    let batches = Table::open(&path).unwrap().batches(&signature, &ColumnNames::new(), 5000).unwrap();
    let truths = chunks::<Chunk>("car_loan");
    let mut compared = 0;
    for (number, batch) in (0..).zip(batches) {
        let monitor = VersionMonitor::new(profile.clone(), &signature, &settings).unwrap();
        monitor.count(Answered::new(&batch.unwrap().inputs, &[]), LOOK);
        let version = Version::new(1).unwrap();
        let report = monitor.report(&"car_loan".parse().unwrap(), version, settings.windows[0], LOOK);
        for feature in &report.features {
            let is_it = |chunk: &&Chunk| {
                chunk.period == "analysis" && chunk.number == number && chunk.column == feature.feature
            };
            let Some(chunk) = truths.iter().find(is_it) else { continue };
            let (Some(truth), Some(exact)) = (chunk.wasserstein_over_std, chunk.ks_exact) else { continue };
            let measures = feature.measures;
            let (got, ks) = (measures.wasserstein.unwrap(), measures.kolmogorov_smirnov.unwrap());
            let near = if chunk.drifts() { close(got / truth, 1.0, 0.02) } else { close(got, truth, 0.005) };
            assert!(near, "{}: {got} for {truth}", chunk.place());
            // No fine bin of a continuous feature has more than a sixty-fourth of the rows.
            let largest = if ["car_value", "debt_to_income_ratio", "driver_tenure"].contains(&&*chunk.column) {
                1.0 / 64.0 + 0.001
            } else {
                0.17
            };
            assert!(ks <= exact + 1e-12 && exact - ks <= largest, "{}: {ks} for {exact}", chunk.place());
            compared += 1;
        }
    }
    assert_eq!(compared, 50);
}

#[test]
fn verdict_is_ok_on_every_clean_chunk_and_drift_on_every_drifted_one() {
    let (references, judge) = (references("car_loan"), judge(9, FLOORS));
    for chunk in chunks::<Chunk>("car_loan") {
        let verdict = judge.judge(references[&chunk.column].counts(), &chunk.counts(), LOOK, DriftState::Ok);
        let expected = if chunk.drifts() { DriftState::Drift } else { DriftState::Ok };
        assert_eq!(verdict.state, expected, "{}: {verdict:?}", chunk.place());
    }
}

/// Missing and unseen values are judged by their shares; `size_of_downpayment` has unseen ones
/// from the first later chunk on (0.8 %), and more of them (2 %) from the sixth.
#[test]
fn missing_and_unseen_values_are_declared_where_they_grow() {
    let (references, judge) = (references("car_loan_dq"), judge(9, FLOORS));
    let missing: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&data("car_loan_dq_reference.json")).unwrap();
    for chunk in chunks::<Chunk>("car_loan_dq") {
        let live = chunk.counts();
        let reference = references[&chunk.column].counts_for(&live);
        let reference_missing = missing[&chunk.column]["missing"].as_u64().unwrap();
        let rows = [reference.iter().sum::<u64>() + reference_missing, live.iter().sum::<u64>() + chunk.missing];
        let share =
            |hits: [u64; 2]| judge.judge_share([hits[0], rows[0]], [hits[1], rows[1]], LOOK, DriftState::Ok).state;
        let grows = |columns: &[&str]| chunk.is_late() && columns.contains(&&*chunk.column);
        let place = chunk.place();

        let expected = if grows(&["driver_tenure", "salary_range"]) { DriftState::Drift } else { DriftState::Ok };
        assert_eq!(share([reference_missing, chunk.missing]), expected, "missing {place}");
        let expected = if grows(&["size_of_downpayment"]) { DriftState::Drift } else { DriftState::Ok };
        assert_eq!(share([0, chunk.unseen.unwrap_or(0)]), expected, "unseen {place}");

        // The distribution is judged without what the reference never had.
        let known = references[&chunk.column].counts().len();
        let verdict = judge.judge(&reference[..known], &live[..known], LOOK, DriftState::Ok);
        let expected = if chunk.drifts() { DriftState::Drift } else { DriftState::Ok };
        assert_eq!(verdict.state, expected, "{place}: {verdict:?}");
    }
}

/// All features of this set drift, most of them by a PSI under the customary 0.1.
#[test]
fn small_drifts_are_found() {
    let (references, judge) = (references("regression"), judge(8, FLOORS));
    for chunk in chunks::<Chunk>("regression") {
        let verdict = judge.judge(references[&chunk.column].counts(), &chunk.counts(), LOOK, DriftState::Ok);
        let expected = if chunk.is_late() { DriftState::Drift } else { DriftState::Ok };
        assert_eq!(verdict.state, expected, "{}: {verdict:?}", chunk.place());
    }
}

/// Real drift, and nobody knows the truth of it: what the verdicts say is printed, not asserted.
#[test]
fn census_data_get_verdicts() {
    let references = references("employment_MA");
    let judge = judge(17, FLOORS);
    let mut said = BTreeMap::<_, Vec<_>>::new();
    for chunk in chunks::<BareChunk>("employment_MA") {
        let live = parse_counts(&chunk.counts);
        let reference = references[&chunk.column].counts_for(&live);
        let verdict = judge.judge(&reference, &live, LOOK, DriftState::Ok);
        let states = said.entry(chunk.column).or_default();
        if verdict.state != DriftState::Ok {
            states.push(format!("{} {}", chunk.number, verdict.state.as_str()));
        }
    }
    for (column, states) in &said {
        println!("{column}: {}", states.join(", "));
    }
    assert_eq!(said.len(), references.len());
}

fn car_loan_signature() -> Signature {
    let spec = |&(name, datatype): &(&str, DataType)| TensorSpec {
        name: name.into(),
        datatype,
        shape: vec![Dim::Any, Dim::Fixed(1)],
        optional: false,
    };
    let inputs = [
        ("car_value", DataType::Fp64),
        ("debt_to_income_ratio", DataType::Fp64),
        ("loan_length", DataType::Fp64),
        ("driver_tenure", DataType::Fp64),
        ("y_pred_proba", DataType::Fp64),
        ("salary_range", DataType::Bytes),
        ("repaid_loan_on_prev_car", DataType::Bytes),
        ("size_of_downpayment", DataType::Bytes),
        ("y_pred", DataType::Int64),
    ];
    Signature { inputs: inputs.iter().map(spec).collect(), outputs: vec![] }
}

/// A profile of the reference file of the data set; `None`, with a note, where it was not fetched.
fn car_loan_profile() -> Option<Profile> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".artifacts/data/synthetic_car_loan_reference.csv");
    if !path.exists() {
        println!("not tested: {} is not there (scripts/fetch.py data)", path.display());
        return None;
    }
    let mut builder = ProfileBuilder::default();
    for batch in Table::open(&path).unwrap().batches(&car_loan_signature(), &ColumnNames::new(), 4096).unwrap() {
        builder.add(&batch.unwrap().inputs, &[]);
    }
    let built = builder.finish();
    assert_eq!(built.skipped, []);
    Some(built.profile)
}

#[test]
fn profile_of_the_data_set_equals_the_truth_to_the_bit() {
    let Some(profile) = car_loan_profile() else { return };
    let references = references("car_loan");
    let (joint, single): (Vec<_>, Vec<_>) =
        profile.features.iter().partition(|feature| feature.source == Source::ReconstructionError);
    assert_eq!((profile.rows, single.len(), joint.len()), (50_000, references.len(), 1));
    for feature in single {
        match (&feature.distribution, &references[&feature.feature]) {
            (
                Distribution::Numeric { min, max, std, edges, counts, .. },
                Reference::Numeric { min: low, max: high, std: sigma, edges: true_edges, counts: true_counts },
            ) => {
                assert_eq!((edges, counts), (true_edges, true_counts), "{}", feature.feature);
                assert_eq!((min, max), (low, high), "{}", feature.feature);
                assert!(close(std / sigma, 1.0, 1e-9), "{}: {std} for {sigma}", feature.feature);
            }
            (
                Distribution::Categorical { categories, other: 0, rare: None, buckets: None },
                Reference::Categorical { categories: true_categories, counts },
            ) => {
                let got: Vec<_> = categories.iter().map(|category| (&category.value, category.count)).collect();
                let truth: Vec<_> = true_categories.iter().zip(counts.iter().copied()).collect();
                assert_eq!(got, truth, "{}", feature.feature);
            }
            _ => panic!("'{}' has another kind than the truth", feature.feature),
        }
    }
    assert_eq!(Profile::parse(profile.to_json().unwrap().as_bytes()).unwrap(), profile);
}

#[test]
fn parquet_of_a_data_frame_is_read_to_the_end() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".artifacts/data/employment_MA_reference.pq");
    if !path.exists() {
        println!("not tested: {} is not there (scripts/fetch.py data)", path.display());
        return;
    }
    let table = Table::open(&path).unwrap();
    let spec = |name: &str, datatype| TensorSpec {
        name: name.into(),
        datatype,
        shape: vec![Dim::Any, Dim::Fixed(1)],
        optional: false,
    };
    let inputs = vec![spec("AGEP", DataType::Fp32), spec("ANC", DataType::Bytes)];
    let batches = table.batches(&Signature { inputs, outputs: vec![] }, &ColumnNames::new(), 10_000).unwrap();
    let rows: usize = batches.map(|batch| batch.unwrap().rows).sum();
    assert_eq!((table.row_count(), rows), (68_785, 68_785));
}
