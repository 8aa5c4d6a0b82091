//! The judge by example.

use proptest::prelude::*;

use super::*;

const LOOK: Duration = Duration::from_secs(4);
const ONE: Tests = Tests { features: 1, horizons: 1 };

/// Round numbers, whatever the defaults are.
const THRESHOLDS: Thresholds = Thresholds {
    warning: 0.1,
    drift: 0.15,
    share_warning: 0.01,
    share_drift: 0.05,
    min_rows: 200,
    false_alarm_interval: Duration::from_hours(30 * 24),
    clear_ratio: 0.7,
};

fn number(state: DriftState) -> u8 {
    state.as_number().unwrap()
}

fn judge(reference: &[u64], live: &[u64]) -> Verdict {
    Judge::new(THRESHOLDS, ONE, reference.len()).judge(reference, live, LOOK, DriftState::Ok)
}

#[test]
fn few_rows_have_no_verdict() {
    let verdict = judge(&[5000, 5000], &[0, 199]);
    assert_eq!(verdict.state, DriftState::TooFewRows);
    assert_eq!(judge(&[5000, 5000], &[100, 99]).state, DriftState::TooFewRows);
    assert_eq!(judge(&[5000, 5000], &[100, 100]).state, DriftState::Ok);
    assert!(verdict.corrected.unwrap() > 1.0);
    assert_eq!(judge(&[5000, 5000], &[0, 200]).state, DriftState::Drift);
}

#[test]
fn no_rows_have_a_threshold_and_no_distance() {
    let verdict = judge(&[5000, 5000], &[0, 0]);
    assert_eq!((verdict.state, verdict.corrected, verdict.interval), (DriftState::TooFewRows, None, None));
    assert!(verdict.threshold >= 0.15 && verdict.threshold.is_finite());
    assert_eq!(judge(&[0, 0], &[10, 10]).state, DriftState::Ok);
}

#[test]
fn one_bin_is_never_a_drift() {
    let easy = Thresholds { warning: 0.0, drift: 0.0, ..THRESHOLDS };
    for judge in [Judge::new(THRESHOLDS, ONE, 1), Judge::new(easy, ONE, 1)] {
        for previous in [DriftState::Ok, DriftState::Drift] {
            let verdict = judge.judge(&[3000], &[1000], LOOK, previous);
            let found = (verdict.state, verdict.corrected, verdict.interval);
            assert_eq!(found, (DriftState::Ok, Some(0.0), None));
        }
    }
}

#[test]
fn false_alarm_budget_is_shared_among_looks_features_windows_and_tests() {
    let month = THRESHOLDS.false_alarm_interval.as_secs_f64();
    let alpha = |tests, look| Judge::new(THRESHOLDS, tests, 10).alpha(Duration::from_millis(look));
    let is = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-12, "{got} for {expected}");
    is(alpha(ONE, 4000), 4.0 / month / 6.0);
    is(alpha(Tests { features: 20, horizons: 2 }, 64_000), 64.0 / month / 240.0);
    // As if looked at every four seconds: never more alarms than promised.
    is(alpha(ONE, 7999), 4.0 / month / 6.0);
    is(alpha(ONE, 10), 1.0 / month / 6.0);
    let hasty = Thresholds { false_alarm_interval: Duration::from_secs(1), ..THRESHOLDS };
    is(Judge::new(hasty, ONE, 10).alpha(Duration::from_secs(60)), 0.01);
}

#[test]
fn threshold_is_the_noise_at_few_rows_and_the_floor_at_many() {
    let reference = [1000; 10];
    // alpha is 1e-6.
    let false_alarm_interval = Duration::from_secs_f64(4e6 / 6.0);
    let thresholds = Thresholds { warning: 0.05, drift: 0.1, false_alarm_interval, ..THRESHOLDS };
    let judge = Judge::new(thresholds, ONE, 10);
    let threshold = |rows: u64| judge.judge(&reference, &[rows / 10; 10], LOOK, DriftState::Ok).threshold;
    let few = threshold(200);
    // χ²(9) exceeds 44.8 with probability 1e-6.
    assert!((few - (44.8 - 9.0) * (1.0 / 200.0 + 1.0 / 10_000.0)).abs() < 1e-3, "{few}");
    assert!((threshold(10_000) - 0.1).abs() < 1e-12);
}

#[test]
fn size_of_a_certain_drift_decides_between_warning_and_drift() {
    let state = |first: u64| judge(&[50_000, 50_000], &[first, 100_000 - first]).state;
    assert_eq!([state(50_000), state(40_000), state(34_000), state(20_000)].map(number), [0, 0, 1, 2]);
}

#[test]
fn state_that_has_begun_ends_only_well_under_its_threshold() {
    let judge = Judge::new(THRESHOLDS, ONE, 2);
    let states = |first: u64| {
        let state = |previous| number(judge.judge(&[50_000; 2], &[first, 100_000 - first], LOOK, previous).state);
        [DriftState::Ok, DriftState::Warning, DriftState::Drift].map(state)
    };
    // Corrected PSI of about 0.17, 0.13, 0.09 and 0.06, against 0.1 and 0.15; cleared at 0.07 and 0.105.
    assert_eq!([29_600, 32_300, 35_100, 38_000].map(states), [[2, 2, 2], [1, 1, 2], [0, 1, 1], [0, 0, 0]]);
    let rows = |live: [u64; 2], previous| judge.judge(&[50_000; 2], &live, LOOK, previous).state;
    assert_eq!(rows([10, 140], DriftState::Drift), DriftState::Drift);
    assert_eq!(rows([10, 140], DriftState::Ok), DriftState::TooFewRows);
    assert_eq!(rows([10, 120], DriftState::Drift), DriftState::TooFewRows);
}

#[test]
fn corrected_reaches_the_threshold_exactly_when_the_state_is_drift() {
    let reference = [300, 700, 9000];
    let judge = Judge::new(THRESHOLDS, ONE, 3);
    for first in 0..30 {
        for second in 0..60 {
            let verdict = judge.judge(&reference, &[first, second, 400 - first - second], LOOK, DriftState::Ok);
            let reached = verdict.corrected.unwrap() >= verdict.threshold;
            assert_eq!(reached, verdict.state == DriftState::Drift, "{first} {second}: {verdict:?}");
            let (low, high) = verdict.interval.unwrap();
            assert!(0.0 <= low && low <= high, "{first} {second}: {verdict:?}");
        }
    }
}

/// A bin that is empty by chance (probability 3.5e-5) carries the PSI over the quantile for 1e-5 alone.
#[test]
fn bin_that_is_empty_by_chance_is_no_alarm() {
    let thresholds = Thresholds { false_alarm_interval: Duration::from_secs_f64(4e5 / 6.0), ..THRESHOLDS };
    let judge = Judge::new(thresholds, ONE, 2);
    let (reference, live) = ([500, 9500], [0, 200]);
    let scale = 1.0 / 200.0 + 1.0 / 10_000.0;
    assert!(measures::psi(&reference, &live) / scale > measures::chi_square_critical(judge.alpha(LOOK), 1));
    assert_eq!(judge.judge(&reference, &live, LOOK, DriftState::Ok).state, DriftState::Ok);
}

#[test]
fn many_rare_categories_at_few_rows_are_no_alarm() {
    // Half of the rows in one category, the rest spread over 99: as likely live as in the reference.
    let mut reference = vec![500_u64; 100];
    reference[0] = 49_500;
    let live: Vec<u64> = (0..100).map(|bin| if bin == 0 { 101 } else { 1 }).collect();
    let verdict = judge(&reference, &live);
    assert_eq!(verdict.state, DriftState::Ok);
    assert!(verdict.corrected.unwrap() < 0.05, "{verdict:?}");
}

#[test]
fn rare_bins_are_pooled_into_one() {
    let pooled = |reference: &[u64], live: &[u64], rows: f64| {
        let pooling = Pooling::new(reference, rows);
        (pooling.of(reference), pooling.of(live))
    };
    assert_eq!(pooled(&[900, 10, 90, 0], &[80, 5, 9, 6], 100.0), (vec![900, 90, 10], vec![80, 9, 11]));
    assert_eq!(pooled(&[50, 50], &[1, 9], 10.0), (vec![50, 50], vec![1, 9]));
}

#[test]
fn share_must_grow_by_the_floor_and_by_more_than_chance() {
    let judge = Judge::new(THRESHOLDS, ONE, 2);
    let state = |reference, live| judge.judge_share(reference, live, LOOK, DriftState::Ok).state.as_number();
    // Never seen before: a hundredth of many rows, but four of 200 may be chance at this alpha.
    assert_eq!([state([0, 50_000], [49, 5000]), state([0, 50_000], [50, 5000])], [0, 1].map(Some));
    assert_eq!([state([0, 10_000], [2, 200]), state([0, 10_000], [12, 200])], [0, 2].map(Some));
    // A tenth missing as ever, then a fifth.
    assert_eq!([state([5000, 50_000], [549, 5000]), state([5000, 50_000], [1000, 5000])], [0, 2].map(Some));
    // Half missing: two points more are no alarm, nor is any fall.
    let half = [25_000, 50_000];
    assert_eq!([[52_000, 100_000], [56_000, 100_000], [0, 100_000]].map(|live| state(half, live)), [0, 2, 0].map(Some));
    // Fewer rows than it takes, and none to compare with.
    assert_eq!([state([0, 10_000], [199, 199]), state([0, 0], [500, 500])], [None; 2]);
}

#[test]
fn threshold_of_a_share_is_where_its_state_changes() {
    let judge = Judge::new(THRESHOLDS, ONE, 2);
    for rows in [200_u64, 1000, 20_000] {
        for hits in 0..rows {
            let verdict = judge.judge_share([30, 10_000], [hits, rows], LOOK, DriftState::Ok);
            let reached = verdict.increase.unwrap() >= verdict.threshold;
            assert_eq!(reached, verdict.state == DriftState::Drift, "{hits} of {rows}: {verdict:?}");
            if hits > 3000 {
                break;
            }
        }
    }
    let none = judge.judge_share([30, 10_000], [0, 0], LOOK, DriftState::Ok);
    assert_eq!((none.state, none.increase), (DriftState::TooFewRows, None));
    assert!(none.threshold >= 0.05);
}

#[test]
fn share_that_has_risen_falls_well_under_the_threshold_before_it_is_ok() {
    let judge = Judge::new(THRESHOLDS, ONE, 2);
    let state = |hits, previous| judge.judge_share([0, 50_000], [hits, 10_000], LOOK, previous).state;
    assert_eq!(state(80, DriftState::Ok), DriftState::Ok);
    assert_eq!(state(80, DriftState::Warning), DriftState::Warning);
    assert_eq!(state(60, DriftState::Warning), DriftState::Ok);
    assert_eq!(state(400, DriftState::Drift), DriftState::Drift);
}

proptest! {
    #[test]
    fn verdict_on_any_counts_is_consistent(
        bins in prop::collection::vec((0_u64..50_000, 0_u64..5000), 1..40),
        look in 0_u64..10_000_000,
        previous in prop::sample::select(vec![DriftState::Ok, DriftState::Warning, DriftState::Drift]),
    ) {
        let (reference, live): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
        let thresholds = Thresholds::default();
        let judge = Judge::new(thresholds, Tests { features: 9, horizons: 2 }, 20);
        let look = Duration::from_secs(look);
        let verdict = judge.judge(&reference, &live, look, previous);
        prop_assert!(verdict.threshold >= thresholds.drift && verdict.threshold.is_finite(), "{:?}", verdict);
        prop_assert!(verdict.corrected.is_none_or(|corrected| corrected >= 0.0 && corrected.is_finite()));
        prop_assert!(verdict.interval.is_none_or(|(low, high)| 0.0 <= low && low <= high && high.is_finite()));
        prop_assert!(verdict.alpha > 0.0 && verdict.alpha <= 0.01);
        // What has begun never ends sooner than what has not would begin.
        prop_assert!(verdict.state >= judge.judge(&reference, &live, look, DriftState::Ok).state);
        // A feature is as far from its reference whatever the order of its bins.
        let reversed = |rows: &[u64]| rows.iter().rev().copied().collect::<Vec<_>>();
        let mirrored = judge.judge(&reversed(&reference), &reversed(&live), look, previous);
        prop_assert_eq!(verdict.state, mirrored.state);
    }

    #[test]
    fn verdict_on_any_share_is_consistent(
        reference_rows in 0_u64..100_000,
        live_rows in 0_u64..100_000,
        usual in 0_u64..=1000,
        now in 0_u64..=1000,
    ) {
        let thresholds = Thresholds::default();
        let judge = Judge::new(thresholds, ONE, 2);
        let hits = |thousandths: u64, rows: u64| [thousandths * rows / 1000, rows];
        let (reference, live) = (hits(usual, reference_rows), hits(now, live_rows));
        let verdict = judge.judge_share(reference, live, LOOK, DriftState::Ok);
        prop_assert!(verdict.threshold.is_finite(), "{:?}", verdict);
        let is_judged = live_rows >= 200 && reference_rows > 0;
        prop_assert_eq!(is_judged, verdict.state != DriftState::TooFewRows);
        if verdict.increase.is_none_or(|increase| increase < thresholds.share_warning) {
            prop_assert!(!verdict.state.is_alarm());
        }
        let reached = verdict.increase.is_some_and(|increase| increase >= verdict.threshold);
        prop_assert_eq!(reached && live_rows >= 200, verdict.state == DriftState::Drift, "{:?}", verdict);
    }
}
