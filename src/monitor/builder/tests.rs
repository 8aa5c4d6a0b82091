//! What is made of which rows.

use bytes::Bytes;

use super::*;
use crate::domain::Shape;

fn floats(name: &str, values: &[f32], dimensions: &[i64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::plain(name, DataType::Fp32, Shape::new(dimensions.to_vec()).unwrap(), bytes.into()).unwrap()
}

fn wholes(values: &[i64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
    Tensor::plain("n", DataType::Int64, shape, bytes.into()).unwrap()
}

fn strings(values: &[String]) -> Tensor {
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap(), 1]).unwrap();
    Tensor::text("s", shape, values.iter().cloned().map(Bytes::from).collect()).unwrap()
}

fn built(inputs: &[Tensor]) -> Built {
    let mut builder = ProfileBuilder::default();
    builder.add(inputs, &[]);
    let built = builder.finish();
    // What is built is always what is accepted.
    let json = built.profile.to_json().unwrap();
    assert_eq!(Profile::parse(json.as_bytes()).unwrap(), built.profile);
    built
}

fn only_feature(tensor: Tensor) -> FeatureProfile {
    let mut built = built(&[tensor]);
    assert_eq!((built.profile.features.len(), built.skipped.len()), (1, 0));
    built.profile.features.remove(0)
}

#[test]
fn float_column_is_numeric_with_missing_and_nonfinite_apart() {
    let feature = only_feature(floats("x", &[1.0, 2.0, f32::NAN, 3.0, f32::INFINITY], &[5]));
    assert_eq!((feature.rows, feature.missing, feature.nonfinite), (5, 1, 1));
    let Distribution::Numeric { min, max, mean, std, counts, .. } = feature.distribution else { panic!() };
    assert_eq!((min..=max, mean), (1.0..=3.0, 2.0));
    assert!((std - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(counts.iter().sum::<u64>(), 3);
}

#[test]
fn constant_column_has_a_bin_of_its_own() {
    let feature = only_feature(floats("x", &[0.0; 7], &[7, 1]));
    let Distribution::Numeric { min, max, std, counts, .. } = feature.distribution else { panic!() };
    assert_eq!(([min, max, std], counts), ([0.0; 3], vec![0, 7, 0]));
}

#[test]
fn extreme_numbers_still_make_a_valid_profile() {
    let bytes: Vec<u8> = [f64::MIN, f64::MAX, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    only_feature(Tensor::plain("x", DataType::Fp64, Shape::new(vec![3]).unwrap(), bytes.into()).unwrap());
}

#[test]
fn whole_numbers_are_categories_up_to_ten() {
    let ten: Vec<i64> = (-5..5).collect();
    let Distribution::Categorical { categories, .. } = only_feature(wholes(&ten)).distribution else { panic!() };
    assert_eq!((categories.len(), categories[0].value.as_str()), (10, "-1"));
    let eleven: Vec<i64> = (0..11).collect();
    assert!(matches!(only_feature(wholes(&eleven)).distribution, Distribution::Numeric { .. }));
}

#[test]
fn rare_and_long_texts_have_no_names() {
    let mut values: Vec<String> = (0..150).flat_map(|i| vec![format!("c{i:03}"); 150 - i]).collect();
    values.extend([String::new(), "x".repeat(129)]);
    let feature = only_feature(strings(&values));
    let Distribution::Categorical { categories, other, rare, buckets: Some(buckets) } = &feature.distribution else {
        panic!()
    };
    // Of 11,326 rows, 57 are one in 200.
    assert_eq!((categories.len(), *other), (94, (1..=56).sum::<u64>() + 1));
    assert_eq!((buckets.once, buckets.counts.iter().sum::<u64>()), (2, other - 2), "c149 and the long one");
    let is_rare = |value: &str| rare.as_ref().unwrap().contains(value.as_bytes());
    assert!(is_rare("c094") && is_rare("c149") && is_rare(&"x".repeat(129)));
    assert!(!is_rare("c093") && !is_rare("") && !is_rare("new"));
    assert_eq!(categories[93], Category { value: "c093".into(), count: 57 });
    assert_eq!(feature.missing, 1);
}

#[test]
fn values_that_stand_out_have_names_in_few_rows_too() {
    let values = (0..150).flat_map(|i| vec![format!("c{i:03}"); if i < 100 { 20 } else { 2 }]);
    let Distribution::Categorical { categories, other, buckets, .. } =
        only_feature(strings(&values.collect::<Vec<_>>())).distribution
    else {
        panic!()
    };
    assert_eq!((categories.len(), other, buckets), (100, 100, None));
}

#[test]
fn few_rows_of_values_without_names_are_one_bin() {
    let frequent = (0..120).flat_map(|i| vec![format!("c{i:03}"); 100]);
    let rare = (0..40).flat_map(|i| vec![format!("r{i}"); 2]);
    let long = ["x".repeat(129), "x".repeat(130)];
    let of = |values: Vec<String>| only_feature(strings(&values)).distribution;
    let Distribution::Categorical { categories, buckets, .. } = of(frequent.clone().chain(rare.clone()).collect())
    else {
        panic!()
    };
    assert_eq!((categories.len(), buckets.is_some()), (100, true), "twenty frequent ones are too many");
    let frequent = frequent.take(100 * 100);
    let all: Vec<String> = frequent.clone().chain(rare).collect();
    let Distribution::Categorical { categories, other, rare: Some(_), buckets: None } = of(all) else { panic!() };
    assert_eq!((categories.len(), other), (100, 80));
    let few: Vec<String> = frequent.take(50 * 100).chain(long).collect();
    let Distribution::Categorical { categories, other, rare: Some(_), buckets: None } = of(few) else { panic!() };
    assert_eq!((categories.len(), other), (50, 2));
}

#[test]
fn changing_tensors_are_skipped_with_the_reason_and_empty_columns_are_features_without_a_value() {
    let mut builder = ProfileBuilder::new(ColumnNames::from([("ab".into(), vec!["a".into(), "b".into()])]));
    let batch = |columns: i64| {
        let values = vec![1.0; usize::try_from(columns).unwrap()];
        [floats("changing", &values, &[1, columns]), floats("ab", &[1.0, f32::NAN], &[1, 2])]
    };
    builder.add(&batch(2), &[floats("ab", &[1.0], &[1])]);
    builder.add(&batch(3), &[floats("y", &[1.0], &[1])]);
    let built = builder.finish();
    let skipped: Vec<_> = built.skipped.iter().map(|s| format!("{}: {}", s.name, s.reason)).collect();
    assert_eq!(skipped, ["changing: it has 2 columns in one batch, 3 in another", "ab: an input has the same name",]);
    let names: Vec<_> = built.profile.features.iter().map(|feature| feature.feature.as_str()).collect();
    assert_eq!((names, built.profile.rows), (vec!["a", "b", "y"], 2));
    let empty: Vec<_> = built.profile.features.iter().map(FeatureProfile::is_empty).collect();
    assert_eq!(empty, [false, true, false]);
    assert_eq!(Profile::parse(built.profile.to_json().unwrap().as_bytes()).unwrap(), built.profile);
}
