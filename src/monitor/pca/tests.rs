//! Principal components against naive sums, and on data with known drift.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn places(count: usize) -> Vec<ComponentFeature> {
    (0..count).map(|column| ComponentFeature { tensor: "x".into(), column }).collect()
}

fn moments(rows: &[Vec<f64>]) -> Moments {
    let mut moments = Moments::new(rows[0].len());
    for row in rows {
        moments.add(row);
    }
    moments
}

/// Twice two features that are one and the same, and a constant.
fn rows(count: u32) -> Vec<Vec<f64>> {
    let row = |i: u32| {
        let (a, b) = (f64::from(i * 37 % 101), f64::from(i * 53 % 89));
        vec![a, 2.0 * a + 1000.0, -b, 3.0 * b, 7.0]
    };
    (0..count).map(row).collect()
}

#[test]
fn error_is_nothing_for_rows_that_go_together_as_ever_and_large_for_others() {
    let components = moments(&rows(2000)).principal_components(places(5)).unwrap();
    assert_eq!((components.components.len(), components.faults()), (2, vec![]));
    let mut scratch = Vec::new();
    let mut error = |row: &[f64]| components.error(row, &mut scratch);
    for row in rows(50) {
        assert!(error(&row) < 1e-9, "{row:?}");
    }
    // Each value is usual, but not both together.
    let [low, high] = [[0.0, 1200.0, -40.0, 120.0, 7.0], [100.0, 1000.0, -40.0, 120.0, 7.0]].map(|row| error(&row));
    assert!(low > 2.0 && (low - high).abs() < 0.1, "{low} {high}");
    assert!(error(&[50.0, 1100.0, -40.0, 120.0, 9.0]) > 1.9);
}

#[test]
fn missing_values_stand_at_the_mean() {
    let components = moments(&rows(2000)).principal_components(places(5)).unwrap();
    let mut scratch = Vec::new();
    let all = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::NAN];
    assert!(components.error(&all, &mut scratch) < 1e-12);
    let row = [80.0, components.mean[1], -30.0, 90.0, 7.0];
    let missing = [80.0, f64::NAN, -30.0, 90.0, 7.0];
    assert!((components.error(&row, &mut scratch) - components.error(&missing, &mut scratch)).abs() < 1e-12);
}

#[test]
fn no_components_of_too_little_or_too_much() {
    assert_eq!(moments(&rows(1)).principal_components(places(5)), None);
    assert_eq!(moments(&rows(9)).principal_components(places(3)), None);
    assert_eq!(moments(&[vec![1.0], vec![2.0]]).principal_components(places(1)), None);
    assert_eq!(moments(&[vec![1e200, 1.0], vec![-1e200, 2.0]]).principal_components(places(2)), None);
    let wide = MAX_COMPONENT_FEATURES + 1;
    assert_eq!(moments(&[vec![1.0; wide], vec![2.0; wide]]).principal_components(places(wide)), None);
    // All constant: no variance to carry.
    assert_eq!(moments(&vec![vec![3.0, 4.0]; 9]).principal_components(places(2)), None);
}

#[test]
fn components_survive_their_text_and_faults_are_named() {
    let good = moments(&rows(500)).principal_components(places(5)).unwrap();
    let json = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<PrincipalComponents>(&json).unwrap(), good);
    let faults = |change: fn(&mut PrincipalComponents)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.faults().join("; ")
    };
    for (found, expected) in [
        (faults(|bad| bad.features.truncate(1)), "1 features"),
        (faults(|bad| bad.features[0].column = 1), "listed twice"),
        (faults(|bad| bad.mean.push(0.0)), "6 means and 5 standard deviations for 5 features"),
        (faults(|bad| bad.std[0] = 0.0), "over 0"),
        (faults(|bad| bad.mean[0] = f64::INFINITY), "not all finite"),
        (faults(|bad| bad.components.clear()), "1 to 5 components"),
        (faults(|bad| bad.components[0].push(0.0)), "of 5 weights each"),
        (faults(|bad| bad.components[0][0] += 0.1), "not orthonormal"),
        (faults(|bad| bad.components[1] = bad.components[0].clone()), "not orthonormal"),
    ] {
        assert!(found.contains(expected), "{found:?} should say {expected:?}");
    }
}

proptest! {
    #[test]
    fn moments_are_the_naive_sums_however_the_rows_are_parted(
        rows in prop::collection::vec(prop::collection::vec(-100.0..100.0_f64, 4), 2..60),
        cut in 0_usize..60,
    ) {
        let (head, tail) = rows.split_at(cut.min(rows.len()));
        let mut merged = Moments::new(4);
        let mut part = Moments::new(4);
        for row in head {
            merged.add(row);
        }
        for row in tail {
            part.add(row);
        }
        merged.merge(&part);
        let count = rows.len() as f64;
        let mean = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>() / count;
        for i in 0..4 {
            prop_assert!((merged.means[i] - mean(i)).abs() < 1e-9);
            for j in 0..=i {
                let naive: f64 = rows.iter().map(|row| (row[i] - mean(i)) * (row[j] - mean(j))).sum();
                let got = merged.products[i * (i + 1) / 2 + j];
                prop_assert!((got - naive).abs() < 1e-6, "{got} for {naive}");
            }
        }
    }

    #[test]
    fn components_are_consistent_whatever_is_missing(
        rows in prop::collection::vec(prop::collection::vec(prop::option::of(-1e6..1e6_f64), 5), 2..60),
    ) {
        let mut moments = Moments::new(5);
        let row = |row: &Vec<Option<f64>>| row.iter().map(|value| value.unwrap_or(f64::NAN)).collect::<Vec<_>>();
        for values in &rows {
            moments.add(&row(values));
        }
        if let Some(components) = moments.principal_components(places(5)) {
            prop_assert_eq!(components.faults(), Vec::<String>::new());
            let mut scratch = Vec::new();
            for values in &rows {
                prop_assert!(components.error(&row(values), &mut scratch).is_finite());
            }
        }
    }
}

/// The numeric features of the car-loan data, with its categories as how often the reference has them.
fn car_loan(set: &str, with_categories: bool) -> Option<Vec<Vec<f64>>> {
    let path =
        |set: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".artifacts/data/synthetic_car_loan_{set}.csv"));
    if !path(set).exists() {
        println!("not tested: {} is not there (scripts/fetch.py data)", path(set).display());
        return None;
    }
    let read = |set: &str| {
        let mut reader = csv::Reader::from_path(path(set)).unwrap();
        let names = reader.headers().unwrap().clone();
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        (names, records)
    };
    let (names, records) = read(set);
    let at = |name: &str| names.iter().position(|known| known == name).unwrap();
    let numeric = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"].map(at);
    let mut frequencies = std::collections::HashMap::<_, f64>::new();
    let categorical = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"];
    if with_categories {
        let (names, reference) = read("reference");
        for name in categorical {
            let column = names.iter().position(|known| known == name).unwrap();
            for row in &reference {
                *frequencies.entry((name, row[column].to_owned())).or_default() += 1.0;
            }
        }
    }
    let row = |row: &csv::StringRecord| {
        let numbers = numeric.iter().map(|&column| row[column].parse().unwrap_or(f64::NAN));
        let shares = categorical.iter().filter(|_| with_categories);
        let shares = shares.map(|&name| frequencies.get(&(name, row[at(name)].to_owned())).copied().unwrap_or(0.0));
        numbers.chain(shares).collect()
    };
    Some(records.iter().map(row).collect())
}

/// The mean error of the reference and of each later chunk of 5,000 rows.
fn chunk_errors(with_categories: bool) -> Option<(f64, Vec<f64>)> {
    let reference = car_loan("reference", with_categories)?;
    let components = moments(&reference).principal_components(places(reference[0].len())).unwrap();
    println!("{} components of {} features", components.components.len(), reference[0].len());
    let mut scratch = Vec::new();
    let mut mean =
        |rows: &[Vec<f64>]| rows.iter().map(|row| components.error(row, &mut scratch)).sum::<f64>() / rows.len() as f64;
    let usual = mean(&reference);
    Some((usual, car_loan("analysis", with_categories)?.chunks(5000).map(mean).collect()))
}

/// The truth is `NannyML`'s, which too encodes a category by how often the reference has it.
#[test]
fn error_equals_the_truth_on_the_car_loan_data() {
    let truth = [
        1.141_516_736_057_092,
        1.130_636_404_626_366_8,
        1.138_914_256_803_661_2,
        1.145_040_278_718_481_7,
        1.137_562_817_054_301_5,
        1.249_205_229_639_025,
        1.243_101_488_735_435,
        1.258_146_861_083_544_5,
        1.228_178_629_400_208_2,
        1.259_883_752_176_945_5,
    ];
    let Some((usual, chunks)) = chunk_errors(true) else { return };
    println!("reference {usual:.4}, later chunks {chunks:.4?}");
    for (error, truth) in chunks.iter().zip(truth) {
        assert!((error - truth).abs() < 1e-9, "{error} for {truth}");
    }
}

/// Without the categories this drift is hardly seen: the numeric features have little to do with
/// one another, so three of the four components are kept, and little is left to be an error.
#[test]
fn error_of_the_numeric_features_alone_stays_where_nothing_drifts() {
    let Some((usual, chunks)) = chunk_errors(false) else { return };
    println!("reference {usual:.4}, later chunks {chunks:.4?}");
    for error in &chunks[..5] {
        assert!((error / usual - 1.0).abs() < 0.02, "{error} for {usual}");
    }
}
