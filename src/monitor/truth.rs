//! Tests against the truth: numbers that `NumPy` and `SciPy` computed of a data set with known drift.
//! See `tests/data/drift/README.md`.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{
    ColumnNames, Distribution, DriftState, Profile, ProfileBuilder, Table, Thresholds, measures, measures::Spread,
    verdict::Judge,
};
use crate::domain::{DataType, Dim, Signature, TensorSpec};

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Reference {
    Numeric { min: f64, max: f64, std: f64, edges: Vec<f64>, counts: Vec<u64> },
    Categorical { categories: Vec<String>, counts: Vec<u64> },
}

impl Reference {
    fn counts(&self) -> &[u64] {
        match self {
            Self::Numeric { counts, .. } | Self::Categorical { counts, .. } => counts,
        }
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
    wasserstein_over_std: Option<f64>,
}

impl Chunk {
    fn counts(&self) -> Vec<u64> {
        self.counts.split(' ').map(|count| count.parse().unwrap()).collect()
    }

    fn drifts(&self) -> bool {
        let drifting = ["car_value", "loan_length", "salary_range", "repaid_loan_on_prev_car", "y_pred_proba"];
        self.period == "analysis" && self.number >= 5 && drifting.contains(&self.column.as_str())
    }
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/drift").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn references() -> BTreeMap<String, Reference> {
    serde_json::from_str(&data("car_loan_reference.json")).unwrap()
}

fn chunks() -> Vec<Chunk> {
    csv::Reader::from_reader(data("car_loan_chunks.csv").as_bytes()).deserialize().map(Result::unwrap).collect()
}

fn close(got: f64, truth: f64, tolerance: f64) -> bool {
    (got - truth).abs() <= tolerance
}

#[test]
fn measures_equal_the_truth_to_nine_digits() {
    let references = references();
    let (mut compared, mut tables) = (0, 0);
    for chunk in chunks() {
        let (reference, live) = (references[&chunk.column].counts(), chunk.counts());
        let place = format!("{} {} {}", chunk.column, chunk.period, chunk.number);
        let equal = |got: f64, truth: f64, measure: &str| {
            assert!(close(got, truth, 1e-9), "{place} {measure}: {got} for {truth}");
        };
        equal(measures::psi(reference, &live), chunk.psi, "psi");
        equal(measures::jensen_shannon(reference, &live), chunk.js, "js");
        equal(measures::hellinger(reference, &live), chunk.hellinger, "hellinger");
        if let Some(truth) = chunk.ks_decile {
            equal(measures::kolmogorov_smirnov(reference, &live), truth, "ks");
        }
        if let (Some(chi2), Some(p), Some(tvd)) = (chunk.chi2, chunk.chi2_p, chunk.tvd) {
            let (statistic, tail) = measures::chi_square(reference, &live).unwrap();
            equal(statistic, chi2, "chi2");
            equal(tail, p, "p");
            // Down to the far tail, where 1e-9 says nothing.
            assert!(close(tail / p, 1.0, 1e-9), "{place}: {tail} for {p}");
            equal(measures::total_variation(reference, &live), tvd, "tvd");
            tables += 1;
        }
        compared += 1;
    }
    assert_eq!((compared, tables), (180, 80));
}

/// Ten bins say nothing of how values lie within them: a real drift is met to 15 %, or to 25 % where
/// values are rounded to about the width of a bin (`y_pred_proba`); a small one to 0.02 σ.
#[test]
fn wasserstein_from_deciles_is_near_the_truth() {
    let references = references();
    let mut worst = BTreeMap::new();
    for chunk in chunks() {
        let (Reference::Numeric { min, max, std, edges, counts }, Some(truth)) =
            (&references[&chunk.column], chunk.wasserstein_over_std)
        else {
            continue;
        };
        let live = chunk.counts();
        let spread = Spread { min: *min, max: *max, edges, reference: counts, live: &live, below: 0, above: 0 };
        let got = measures::wasserstein(spread) / std;
        if chunk.drifts() {
            let off: &mut f64 = worst.entry(chunk.column.clone()).or_default();
            *off = off.max((got / truth - 1.0).abs());
            let tolerance = if chunk.column == "y_pred_proba" { 0.25 } else { 0.15 };
            assert!(close(got / truth, 1.0, tolerance), "{} {}: {got} for {truth}", chunk.column, chunk.number);
        } else {
            assert!(close(got, truth, 0.02), "{} {}: {got} for {truth}", chunk.column, chunk.number);
        }
    }
    println!("wasserstein of drifted chunks, the largest relative error: {worst:.3?}");
}

#[test]
fn verdict_is_ok_on_every_clean_chunk_and_drift_on_every_drifted_one() {
    let (references, judge) = (references(), Judge::new(Thresholds::default(), 10));
    for chunk in chunks() {
        let verdict = judge.judge(references[&chunk.column].counts(), &chunk.counts());
        let place = format!("{} {} {}", chunk.column, chunk.period, chunk.number);
        let expected = if chunk.drifts() { DriftState::Drift } else { DriftState::Ok };
        assert_eq!(verdict.state, expected, "{place}: {verdict:?}");
    }
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
        builder.add(&batch.unwrap(), &[]);
    }
    let built = builder.finish();
    assert_eq!(built.skipped, []);
    Some(built.profile)
}

#[test]
fn profile_of_the_data_set_equals_the_truth_to_the_bit() {
    let Some(profile) = car_loan_profile() else { return };
    let references = references();
    assert_eq!((profile.rows, profile.features.len()), (50_000, references.len()));
    for feature in &profile.features {
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
                Distribution::Categorical { categories, other: 0 },
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
    let rows: usize = batches.map(|batch| batch.unwrap()[0].shape().rows()).sum();
    assert_eq!((table.row_count(), rows), (68_785, 68_785));
}
