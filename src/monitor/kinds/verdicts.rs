//! Codes in buckets, and columns without a value, as judged by the tests of rare bins, of `constant` and of `unseen`.

use super::*;

/// One of the codes.
const ONE: &str = "P00007";

/// What the monitor says of live rows of a column with this role.
fn judged_as(role: FeatureRole, reference: &Tensor, live: Tensor) -> FeatureReport {
    let mut profile = built(reference, None).profile;
    profile.features.iter_mut().for_each(|feature| feature.role = role);
    let Signature { inputs: specs, .. } = signature(reference.datatype());
    let [live, none] = [vec![live], Vec::new()];
    let (signature, answered) = match role {
        FeatureRole::Output => (Signature { inputs: vec![], outputs: specs }, Answered::new(&none, &live)),
        _ => (Signature { inputs: specs, outputs: vec![] }, Answered::new(&live, &none)),
    };
    let monitor = VersionMonitor::new(profile, &signature, &MonitorSettings::default()).unwrap();
    monitor.count(answered, Duration::ZERO);
    let version = Version::new(1).unwrap();
    monitor.report(&"m".parse().unwrap(), version, Duration::from_mins(5), Duration::ZERO).features.remove(0)
}

/// Every `every`th row is the text in place of a code that is drawn.
fn with(text: impl Fn(u64) -> String, every: u64, rows: u64, different: u64) -> Tensor {
    let mut random = Random::new(17);
    texts((0..rows).map(|at| {
        let code = format!("P{:05}", random.whole() % different);
        if at.is_multiple_of(every) { text(at) } else { code }
    }))
}

#[test]
fn code_that_becomes_frequent_is_found_by_its_bucket_alone() {
    let reference = codes(1, 60_000, 0, 3000);
    for role in [FeatureRole::Input, FeatureRole::Output] {
        // The bucket has 1.6 % of the rows, and two points more: a PSI of 0.016.
        let report = judged_as(role, &reference, with(|_| ONE.into(), 50, 20_000, 3000));
        let rare = report.rare_bin.as_ref().unwrap_or_else(|| panic!("{report:?}"));
        assert_eq!((&rare.bin, rare.state), (&label(bucket_of(hash_of(ONE.as_bytes()))), DriftState::Drift));
        assert_eq!((report.distribution, report.state), (DriftState::Ok, DriftState::Drift));
    }
}

/// How many new codes come is known from those that the reference has once, and that is far less certain than their number.
#[test]
fn new_codes_are_no_rare_bin() {
    let reference = codes(1, 15_000, 0, 3000);
    for role in [FeatureRole::Input, FeatureRole::Output] {
        let report = judged_as(role, &reference, with(|at| format!("NEW{at}"), 125, 40_000, 3000));
        let unseen = report.quality.of(Check::Unseen).unwrap();
        assert!(unseen.live > 1.75 * unseen.reference && unseen.live < unseen.reference + 0.01, "{unseen:?}");
        assert_eq!((report.rare_bin, report.state), (None, DriftState::Ok));
    }
}

#[test]
fn codes_as_before_are_no_rare_bin_however_many_rows_there_are() {
    for (rows, different) in [(6000, 5000), (15_000, 3000), (5000, 300)] {
        let reference = codes(1, rows, 0, different);
        for role in [FeatureRole::Input, FeatureRole::Output] {
            let report = judged_as(role, &reference, codes(2, 100_000, 0, different));
            assert_eq!((report.rare_bin, report.state), (None, DriftState::Ok), "{rows} rows of {different} codes");
        }
    }
}

/// A bucket holds many values: that all rows are in one of them does not make them one value.
#[test]
fn only_a_value_with_a_name_is_known_to_stand_still() {
    let reference = texts((0..20_000_u64).map(|at| match at % 4 {
        0 => "top".to_owned(),
        _ => format!("P{:05}", at * 7919 % 2003),
    }));
    let constant = |text: &str| {
        let report = judged(&reference, None, &texts((0..1000).map(|_| text.to_owned())));
        assert_eq!(report.state, DriftState::Drift);
        report.quality.of(Check::Constant).map(|checked| checked.state)
    };
    assert_eq!([constant("top"), constant(ONE)], [Some(DriftState::Drift), Some(DriftState::Ok)]);
}

#[test]
fn column_without_a_value_is_one_whatever_it_is_to_be_taken_for() {
    let some = |at: u64| at.is_multiple_of(20);
    let of_texts = (
        texts((0..500).map(|_| String::new())),
        texts((0..500).map(|at| if some(at) { "a".to_owned() } else { String::new() })),
    );
    let of_numbers =
        (doubles((0..500).map(|_| f64::NAN)), doubles((0..500).map(|at| if some(at) { 3.0 } else { f64::NAN })));
    for (reference, live) in [of_texts, of_numbers] {
        for wanted in [None, Some(ColumnType::Categorical), Some(ColumnType::Numeric), Some(ColumnType::Text)] {
            let built = built(&reference, wanted);
            let [taken] = &built.taken[..] else { panic!() };
            assert_eq!((taken.kind, taken.values, taken.missing, built.skipped.len()), ("nothing", Some(0), 500, 0));
            assert!(taken.why.contains("any value that comes is reported as unseen"), "{}", taken.why);
            assert!(built.profile.features[0].is_empty());
            let as_before = judged(&reference, wanted, &reference);
            assert_eq!(as_before.state, DriftState::Ok, "{wanted:?}: {as_before:?}");
            let unseen = judged(&reference, wanted, &live).quality.of(Check::Unseen).unwrap();
            assert_eq!((unseen.state, unseen.live), (DriftState::Drift, 0.05), "{wanted:?}");
        }
    }
}
