//! What columns of every kind are taken for, and which drifts of them are found: from the profile to the verdict.

mod verdicts;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    buckets::{BUCKETS, bucket_of, hash_of, label},
    profile::{Distribution, FeatureProfile},
    simulation::Random,
    *,
};
use crate::domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec, Version};

fn texts(values: impl IntoIterator<Item = String>) -> Tensor {
    let values: Vec<Bytes> = values.into_iter().map(Bytes::from).collect();
    let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
    Tensor::text("x", shape, values).unwrap()
}

fn plain<const N: usize>(datatype: DataType, values: impl Iterator<Item = [u8; N]>) -> Tensor {
    let bytes: Vec<u8> = values.flatten().collect();
    let shape = Shape::new(vec![i64::try_from(bytes.len() / N).unwrap()]).unwrap();
    Tensor::plain("x", datatype, shape, bytes.into()).unwrap()
}

fn wholes(values: impl IntoIterator<Item = i64>) -> Tensor {
    plain(DataType::Int64, values.into_iter().map(i64::to_le_bytes))
}

fn doubles(values: impl IntoIterator<Item = f64>) -> Tensor {
    plain(DataType::Fp64, values.into_iter().map(f64::to_le_bytes))
}

fn singles(values: impl IntoIterator<Item = f32>) -> Tensor {
    plain(DataType::Fp32, values.into_iter().map(f32::to_le_bytes))
}

fn signature(datatype: DataType) -> Signature {
    let spec = TensorSpec { name: "x".into(), datatype, shape: vec![Dim::Any], optional: false };
    Signature { inputs: vec![spec], outputs: vec![] }
}

fn types(wanted: Option<ColumnType>) -> ColumnTypes {
    wanted.map(|wanted| ("x".to_owned(), wanted)).into_iter().collect()
}

fn built(reference: &Tensor, wanted: Option<ColumnType>) -> Built {
    let mut builder = ProfileBuilder::default().with_types(types(wanted));
    builder.add(std::slice::from_ref(reference), &[]);
    let built = builder.finish();
    let json = built.profile.to_json().unwrap();
    if !built.profile.features.is_empty() {
        // What is built is what is read again, to the bit.
        assert_eq!(Profile::parse(json.as_bytes()).unwrap(), built.profile);
    }
    built
}

fn only(reference: &Tensor, wanted: Option<ColumnType>) -> FeatureProfile {
    let mut built = built(reference, wanted);
    assert_eq!(built.profile.features.len(), 1, "{:?}", built.taken);
    built.profile.features.remove(0)
}

fn monitor(reference: &Tensor, wanted: Option<ColumnType>) -> VersionMonitor {
    let profile = built(reference, wanted).profile;
    VersionMonitor::new(profile, &signature(reference.datatype()), &MonitorSettings::default()).unwrap()
}

/// What the monitor says of live rows.
fn judged(reference: &Tensor, wanted: Option<ColumnType>, live: &Tensor) -> FeatureReport {
    let monitor = monitor(reference, wanted);
    monitor.count(Answered::new(std::slice::from_ref(live), &[]), Duration::ZERO);
    let version = Version::new(1).unwrap();
    let mut report = monitor.report(&"m".parse().unwrap(), version, Duration::from_mins(5), Duration::ZERO);
    report.features.remove(0)
}

fn state(reference: &Tensor, live: &Tensor) -> DriftState {
    judged(reference, None, live).state
}

/// Codes from `from` on, `different` ones, in so many rows, drawn with the same chance each.
fn codes(seed: u64, rows: usize, from: u64, different: u64) -> Tensor {
    let mut random = Random::new(seed);
    texts((0..rows).map(|_| format!("P{:05}", from + random.whole() % different)))
}

#[test]
fn codes_that_are_evenly_spread_are_categories_and_their_drifts_are_found() {
    for different in [300, 1000, 3000] {
        let reference = codes(1, 20_000, 0, different);
        let feature = only(&reference, None);
        let Distribution::Categorical { categories, buckets: Some(buckets), rare: Some(rare), .. } =
            &feature.distribution
        else {
            panic!("{different} codes are {:?}", feature.kind())
        };
        assert_eq!(categories.len() + rare.count(), usize::try_from(different).unwrap(), "all values are known");
        assert_eq!(buckets.counts.len(), BUCKETS);
        for seed in 2..12 {
            assert_eq!(state(&reference, &codes(seed, 1000, 0, different)), DriftState::Ok, "{different} as before");
        }
        let last_fifth = codes(3, 1000, different - different / 5, different / 5);
        assert_eq!(state(&reference, &last_fifth), DriftState::Drift, "the last fifth of {different}");
        let new = judged(&reference, None, &codes(4, 1000, 50_000, different));
        let unseen = new.quality.of(Check::Unseen).unwrap();
        assert_eq!((unseen.state, new.state), (DriftState::Drift, DriftState::Drift), "new codes");
        assert!((unseen.live - 1.0).abs() < 1e-12);
        let some_new = judged(
            &reference,
            None,
            &texts((0..1000).map(|at: u64| {
                if at.is_multiple_of(20) { format!("NEW{at}") } else { format!("P{:05}", at * 7919 % different) }
            })),
        );
        assert_eq!(some_new.quality.of(Check::Unseen).unwrap().state, DriftState::Drift, "5 % are new");
    }
}

/// The verdict has as many groups of buckets as the rows are enough for.
#[test]
fn few_rows_of_codes_are_enough_for_a_verdict() {
    let reference = codes(1, 20_000, 0, 300);
    for rows in [400, 600] {
        assert_eq!(state(&reference, &codes(2, rows, 240, 30)), DriftState::Drift, "a tenth in {rows} rows");
        assert_eq!(state(&reference, &codes(5, rows, 0, 300)), DriftState::Ok, "{rows} rows");
    }
}

/// Where a tenth of the values of the reference are there once, about a tenth of live ones are new.
#[test]
fn new_codes_are_expected_as_often_as_the_reference_has_codes_once() {
    let reference = codes(1, 40_000, 0, 20_000);
    let Distribution::Categorical { buckets: Some(buckets), .. } = only(&reference, None).distribution else {
        panic!()
    };
    let once = buckets.once as f64 / 40_000.0;
    assert!((0.11..0.16).contains(&once), "{once}");
    for seed in 2..12 {
        let as_before = judged(&reference, None, &codes(seed, 2000, 0, 20_000));
        let unseen = as_before.quality.of(Check::Unseen).unwrap();
        assert!((unseen.live - once).abs() < 0.04, "{} for {once}", unseen.live);
        assert_eq!(as_before.state, DriftState::Ok, "{as_before:?}");
    }
    let half_new = judged(&reference, None, &codes(3, 2000, 10_000, 20_000));
    assert_eq!(half_new.quality.of(Check::Unseen).unwrap().state, DriftState::Drift);
}

/// Chance makes some of equally frequent values more frequent in the reference: those must not be watched by name.
#[test]
fn values_that_chance_made_frequent_do_not_drift() {
    for (rows, different) in [(2000, 190), (10_000, 190), (5000, 900), (10_000, 140)] {
        let reference = codes(1, rows, 0, different);
        for seed in 2..6 {
            let report = judged(&reference, None, &codes(seed, 20_000, 0, different));
            assert!(report.state == DriftState::Ok, "{rows} rows of {different} values: {report:?}");
        }
    }
}

#[test]
fn frequent_codes_are_watched_by_name_and_the_others_by_bucket() {
    let rows =
        (0..20_000_u64).map(|at| if at % 4 < 2 { format!("top{}", at % 4) } else { format!("P{}", at * 7919 % 2003) });
    let reference = texts(rows);
    let report = judged(&reference, None, &texts(["top0", "P1", "P1", "new", ""].map(String::from)));
    let live: BTreeMap<_, _> =
        report.bins.iter().filter(|bin| bin.live > 0).map(|bin| (bin.bin.clone(), bin.live)).collect();
    let bucket = label(bucket_of(hash_of(b"P1")));
    let expected = [("top0".into(), 1), (bucket, 2), ("unseen".into(), 1), ("missing".into(), 1)];
    assert_eq!(live, BTreeMap::from(expected));
    assert_eq!((report.bins.len(), report.kind), (2 + BUCKETS + 2, FeatureKind::Categorical));
}

#[test]
fn sentences_and_values_that_never_come_again_are_free_text() {
    let word = |at: u64| ["good", "bad", "late", "parcel", "again"][usize::try_from(at % 5).unwrap()];
    let sentence = |at: u64| (0..8).map(|place| word(at / 5_u64.pow(place))).collect::<Vec<_>>().join(" ");
    // Four hundred sentences, each often.
    let sentences = texts((0..4000_u64).map(|at| sentence(at * 7919 % 400)));
    assert_eq!(built(&sentences, None).profile.features[0].kind(), FeatureKind::Text);
    let chosen = only(&sentences, Some(ColumnType::Categorical));
    assert!(matches!(chosen.distribution, Distribution::Categorical { buckets: Some(_), .. }));
    let ids = built(&texts((0..500).map(|at| format!("id-{at}"))), None);
    assert_eq!(ids.profile.features[0].kind(), FeatureKind::Text);
    assert!(ids.taken[0].warning.as_ref().unwrap().contains("id"), "{:?}", ids.taken);
    let words = texts((0..500).map(|at| format!("w{}", at % 3)));
    assert_eq!(built(&words, Some(ColumnType::Text)).profile.features[0].kind(), FeatureKind::Text);
}

#[test]
fn codes_beyond_those_that_are_known_are_counted_by_bucket_alone() {
    let different = RareValues::MOST as u64 + 1;
    let reference = texts((0..2 * different).map(|at| format!("{}", at % different)));
    let built = built(&reference, None);
    let Distribution::Categorical { rare: None, buckets: Some(buckets), .. } = &built.profile.features[0].distribution
    else {
        panic!("{:?}", built.taken)
    };
    assert_eq!((buckets.once, buckets.counts.iter().sum::<u64>()), (0, 2 * different));
    assert!(built.taken[0].why.contains("too many to tell new ones from"), "{}", built.taken[0].why);
    assert_eq!(built.profile.inputs_of_unknown_values().collect::<Vec<_>>(), ["x"]);
    let report = judged(&reference, None, &texts(["new".into()]));
    assert_eq!(
        report.bins.iter().filter(|bin| bin.live > 0).map(|bin| bin.bin.clone()).collect::<Vec<_>>(),
        [label(bucket_of(hash_of(b"new")))]
    );
}

#[test]
fn whole_numbers_of_up_to_64_values_that_come_often_are_codes() {
    let of = |values: i64, rows: i64| only(&wholes((0..rows).map(|at| at * 7919 % values)), None).kind();
    assert_eq!([of(50, 1000), of(64, 640), of(10, 10)], [FeatureKind::Categorical; 3]);
    assert_eq!([of(65, 6500), of(64, 639), of(11, 11)], [FeatureKind::Numeric; 3]);
    let chosen = only(&wholes((0..1000).map(|at| at % 50)), Some(ColumnType::Numeric));
    assert_eq!(chosen.kind(), FeatureKind::Numeric);
}

#[test]
fn floats_that_may_be_codes_are_numeric_and_said_to_be_like_them() {
    let why = |numbers: &[f64]| built(&doubles(numbers.iter().copied()), None).taken[0].why.clone();
    let codes: Vec<_> = (0..1000).map(|at| f64::from(at % 50)).collect();
    assert_eq!(why(&codes), "numbers (whole ones of 50 values: if they are codes, choose categorical)");
    let halves: Vec<_> = codes.iter().map(|code| code / 2.0).collect();
    assert_eq!([why(&halves), why(&codes[..400])], ["numbers", "numbers"]);
}

#[test]
fn ordinal_codes_that_vanish_are_found() {
    let reference = wholes((0..10_000).map(|at| at % 50));
    // Every fifth is left: no decile has other rows.
    let live = wholes((0..1000).map(|at| at % 10 * 5));
    let report = judged(&reference, None, &live);
    assert_eq!((report.state, report.kind), (DriftState::Drift, FeatureKind::Categorical));
    let new = judged(&reference, None, &wholes((0..1000).map(|at| 100 + at % 50)));
    assert_eq!(new.quality.of(Check::Unseen).unwrap().state, DriftState::Drift);
}

#[test]
fn numbers_are_categories_by_their_shortest_text_where_that_is_chosen() {
    let wanted = Some(ColumnType::Categorical);
    let reference = singles((0..1000_u16).map(|at| match at % 10 {
        0 => f32::NAN,
        1 => 0.1,
        2 => -0.0,
        _ => 3.0,
    }));
    let feature = only(&reference, wanted);
    let Distribution::Categorical { categories, .. } = &feature.distribution else { panic!() };
    let categories: Vec<_> = categories.iter().map(|category| (&*category.value, category.count)).collect();
    assert_eq!((categories, feature.missing), (vec![("0", 100), ("0.1", 100), ("3", 700)], 100));
    let live = singles([0.1, 0.1, 0.0, -0.0, 3.0, f32::NAN, f32::INFINITY, 7.0]);
    let bins: Vec<_> = judged(&reference, wanted, &live).bins.into_iter().map(|bin| (bin.bin, bin.live)).collect();
    let expected = [("0", 2), ("0.1", 2), ("3", 1), ("unseen", 2), ("missing", 1)];
    assert_eq!(bins, expected.map(|(bin, live)| (bin.to_owned(), live)));
    // Many whole numbers, and many with 64 bits: by bucket, in the same way as the text that they are written as.
    for reference in [wholes((0..9000).map(|at| at % 3000)), doubles((0..9000).map(|at| f64::from(at % 3000)))] {
        let live =
            if reference.datatype() == DataType::Int64 { wholes([2999, 5000]) } else { doubles([2999.0, 5000.0]) };
        let report = judged(&reference, wanted, &live);
        let filled: Vec<_> = report.bins.into_iter().filter(|bin| bin.live > 0).map(|bin| bin.bin).collect();
        assert_eq!(filled, [label(bucket_of(hash_of(b"2999"))), "unseen".to_owned()]);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest number of 32 bits is meant")]
fn to_single(value: f64) -> f32 {
    value as f32
}

/// Prices with two digits, which are no numbers of 32 bits.
fn prices(seed: u64, rows: usize) -> Vec<f64> {
    let mut random = Random::new(seed);
    (0..rows).map(|_| (random.whole() % 70) as f64 / 100.0 + 0.01).collect()
}

#[test]
fn reference_with_32_bits_is_like_the_same_values_with_64_and_the_other_way_round() {
    let reference = prices(1, 10_000);
    let single = |values: &[f64]| values.iter().copied().map(to_single).collect::<Vec<_>>();
    let widened = |values: &[f64]| single(values).into_iter().map(f64::from).collect::<Vec<_>>();
    let live = prices(2, 2000);
    let is_like = |reference: &Tensor, live: &Tensor| {
        let report = judged(reference, None, live);
        let out_of_range = report.quality.of(Check::OutOfRange).unwrap();
        assert_eq!((report.state, out_of_range.live), (DriftState::Ok, 0.0), "{report:?}");
        assert!(report.measures.psi.unwrap() < 0.02, "{:?}", report.measures);
        let worst = report.bins.iter().map(|bin| bin.live as f64 / 2000.0 - bin.reference as f64 / 10_000.0);
        assert!(worst.map(f64::abs).fold(0.0, f64::max) < 0.03, "{:?}", report.bins);
    };
    let stored_with_32 = doubles(widened(&reference));
    assert_eq!(only(&stored_with_32, None).precision, Some(Precision::Fp32));
    assert_eq!(only(&doubles(reference.clone()), None).precision, None);
    is_like(&stored_with_32, &doubles(live.clone()));
    is_like(&stored_with_32, &doubles(widened(&live)));
    is_like(&doubles(reference.clone()), &doubles(live.clone()));
    // Numbers of 32 bits in a tensor of 32: a reference with 64 was rounded when it was read.
    is_like(&singles(single(&reference)), &singles(single(&live)));
}

#[test]
fn contract_lets_the_greatest_value_of_a_reference_with_32_bits_pass() {
    let reference = prices(1, 1000);
    let greatest = reference.iter().copied().fold(0.0, f64::max);
    let least = reference.iter().copied().fold(1.0, f64::min);
    let monitor = monitor(&doubles(reference.iter().map(|value| f64::from(to_single(*value)))), None);
    assert_eq!(monitor.violation(&[doubles([greatest, least])]), None);
    assert!(monitor.violation(&[doubles([greatest + 0.001])]).is_some());
    assert!(monitor.violation(&[doubles([1e300])]).unwrap().what == "above");
}

#[test]
fn contract_lets_new_codes_pass_where_the_reference_says_that_they_come() {
    let new = texts(["new".into()]);
    let closed = monitor(&texts((0..3000).map(|at| format!("P{}", at % 300))), None);
    assert_eq!(closed.violation(std::slice::from_ref(&new)).unwrap().what, "unseen");
    let open = monitor(&codes(1, 3000, 0, 1500), None);
    assert_eq!(open.violation(&[new]), None);
}

#[test]
fn column_that_is_left_out_is_in_no_feature_and_no_component() {
    let columns = |rows: u32| {
        let value = |row: u32| [f64::from(row), f64::from(row * 31 % 97), f64::from(row * 17 % 89)];
        let bytes: Vec<u8> = (0..rows).flat_map(value).flat_map(f64::to_le_bytes).collect();
        Tensor::plain("x", DataType::Fp64, Shape::new(vec![i64::from(rows), 3]).unwrap(), bytes.into()).unwrap()
    };
    let names = ColumnNames::from([("x".into(), ["id", "a", "b"].map(String::from).to_vec())]);
    let types: ColumnTypes = [("id".to_owned(), ColumnType::Ignore)].into_iter().collect();
    let build = |types: &ColumnTypes| {
        let mut builder = ProfileBuilder::new(names.clone()).with_types(types.clone());
        builder.add(&[columns(500)], &[]);
        builder.finish()
    };
    let of = |profile: &Profile| profile.features.iter().map(|feature| feature.feature.clone()).collect::<Vec<_>>();
    let places = |profile: &Profile| {
        profile.components.iter().flat_map(|of| &of.features).map(|part| part.column).collect::<Vec<_>>()
    };
    let all = build(&ColumnTypes::default());
    assert!(all.taken[0].warning.as_ref().unwrap().contains("rises from row to row"));
    assert_eq!((all.taken[1].warning.is_some(), places(&all.profile)), (false, vec![0, 1, 2]));
    let without = build(&types);
    assert_eq!(
        (of(&without.profile), places(&without.profile)),
        (vec!["a".into(), "b".into(), "reconstruction_error".into()], vec![1, 2])
    );
    assert_eq!((without.taken[0].kind, without.skipped), ("ignore", vec![]));
    // A profile that was made before loses the components, which are of the column too.
    let before = all.profile.clone().without_ignored(&types);
    assert_eq!((of(&before), before.components), (vec!["a".into(), "b".into()], None));
    assert_eq!(all.profile.clone().without_ignored(&ColumnTypes::default()), all.profile);
    let joint: ColumnTypes = [("reconstruction_error".to_owned(), ColumnType::Ignore)].into_iter().collect();
    for profile in [build(&joint).profile, all.profile.without_ignored(&joint)] {
        assert_eq!((of(&profile).len(), profile.components), (3, None));
    }
}

#[test]
fn learning_takes_columns_for_what_they_are_chosen_to_be() {
    let learnt = |wanted| {
        let kept = Arc::new(std::sync::Mutex::new(None));
        let place = Arc::clone(&kept);
        let mut learning = Learning::new(LearningOptions {
            length: Duration::from_mins(1),
            model_identity: "m".into(),
            names: ColumnNames::new(),
            types: types(wanted),
            signature: Arc::new(signature(DataType::Int64)),
            settings: MonitorSettings::default(),
            keep: Box::new(move |profile| {
                *place.lock().unwrap() = Some(profile.clone());
                true
            }),
        });
        for at in 0..4 {
            let rows = wholes((0..500).map(|row| row * 7 % 300 + at));
            learning.add(Answered::new(&[rows], &[]), Duration::from_secs(u64::try_from(at).unwrap() * 60));
        }
        drop(learning.finish());
        kept.lock().unwrap().take().map(|profile: Profile| profile.features[0].kind())
    };
    assert_eq!(learnt(None), Some(FeatureKind::Numeric));
    assert_eq!(learnt(Some(ColumnType::Categorical)), Some(FeatureKind::Categorical));
    assert_eq!(learnt(Some(ColumnType::Ignore)), None);
}

/// The self-test draws a value for each bucket.
#[test]
fn self_test_of_codes_miscounts_nothing() {
    let reference = codes(1, 5000, 0, 700);
    let monitor = monitor(&reference, None);
    let version = Version::new(1).unwrap();
    let tested = monitor.self_test((&"m".parse().unwrap(), version), &signature(DataType::Bytes), None, Duration::ZERO);
    assert_eq!(tested.features[0].miscounted, 0, "{:?}", tested.features[0]);
}

#[test]
fn live_rows_of_codes_are_a_profile_for_the_next_version() {
    let monitor = monitor(&codes(1, 5000, 0, 700), None);
    monitor.count(Answered::new(&[codes(2, 1000, 350, 700)], &[]), Duration::ZERO);
    let live = monitor.live_profile(Duration::from_mins(5), Duration::ZERO).unwrap();
    assert_eq!(Profile::parse(live.to_json().unwrap().as_bytes()).unwrap(), live);
    let Distribution::Categorical { buckets: Some(buckets), .. } = &live.features[0].distribution else { panic!() };
    assert!((400..600).contains(&buckets.once), "half of the codes were new: {}", buckets.once);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn counting_by_bucket_is_the_naive_count(
        reference in prop::collection::vec(0_u16..400, 1000..3000),
        live in prop::collection::vec(0_u16..600, 1..300),
    ) {
        let spelt = |value: &u16| if *value == 0 { String::new() } else { format!("v{value}") };
        let reference: Vec<_> = reference.iter().map(spelt).collect();
        let live: Vec<_> = live.iter().map(spelt).collect();
        let mut known: BTreeMap<&str, u64> = BTreeMap::new();
        for value in &reference {
            *known.entry(value).or_default() += 1;
        }
        let report = judged(&texts(reference.clone()), Some(ColumnType::Categorical), &texts(live.clone()));
        let named: Vec<_> = report.bins.iter().map(|bin| bin.bin.clone()).collect();
        let bin = |value: &str| match value {
            "" => "missing".to_owned(),
            value if named.iter().any(|name| name == value) => value.to_owned(),
            value if known.contains_key(value) => label(bucket_of(hash_of(value.as_bytes()))),
            _ => "unseen".to_owned(),
        };
        let mut expected: BTreeMap<String, [u64; 2]> = named.iter().map(|name| (name.clone(), [0, 0])).collect();
        for value in &live {
            expected.get_mut(&bin(value)).unwrap()[1] += 1;
        }
        for (value, rows) in &known {
            // A value without a name that the reference had once stands for new ones.
            let is_once = *rows == 1 && bin(value).starts_with("bucket ");
            expected.get_mut(&if is_once { "unseen".into() } else { bin(value) }).unwrap()[0] += rows;
        }
        let found: BTreeMap<_, _> = report.bins.iter().map(|bin| (bin.bin.clone(), [bin.reference, bin.live])).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(report.bins.iter().map(|bin| bin.live).sum::<u64>(), live.len() as u64);
    }
}
