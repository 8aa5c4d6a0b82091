//! What is missing, by counts that are given.

use std::time::UNIX_EPOCH;

use super::*;
use crate::{
    domain::Version,
    rollout::{Cuts, Plan, Status, latency, plan::tests::plan},
};

fn rollout(steps: &[f64], min_requests: u64) -> Rollout {
    let plan = Plan { min_requests, ..plan(steps) };
    let mut rollout = Rollout::start(plan, Version::new(3).unwrap(), UNIX_EPOCH).unwrap();
    rollout.kinds = Kinds { class: true, score: true };
    rollout.cuts = Some(Cuts::default());
    rollout
}

/// Answers in these bins of class and score, all as fast.
fn answers(rollout: &mut Rollout, bin: usize, arms: Pair) {
    let segment = rollout.segment_mut();
    segment.seen.requests = segment.seen.requests + arms;
    let bucket = latency::bucket(std::time::Duration::from_millis(5));
    segment.seen.latency[bucket] = segment.seen.latency[bucket] + arms;
    let cells = segment.fresh.cells_mut();
    for place in [0, cell::LATENCY.start, cell::CLASS.start + bin, cell::SCORE.start + bin] {
        cells[place] = cells[place] + arms;
    }
}

#[test]
fn arms_that_have_too_few_are_told_with_their_numbers() {
    let mut rollout = rollout(&[50.0, 100.0], 200);
    answers(&mut rollout, 0, Pair::new(137, 205));
    assert_eq!(rollout.missing(), ["latency, class, score: 137 of 200 compared requests of stable"]);
    answers(&mut rollout, 0, Pair::new(63, 0));
    assert_eq!(rollout.missing(), Vec::<String>::new());
    rollout.cuts = None;
    assert!(rollout.missing()[0].contains("100th answer"), "{:?}", rollout.missing());
    rollout.kinds = Kinds::default();
    rollout.segment_mut().seen = super::super::Seen::default();
    assert_eq!(rollout.missing()[0], "latency: 0 of 200 compared requests of the canary");
    rollout.status = Status::Aborted;
    assert!(rollout.missing().is_empty());
}

#[test]
fn nothing_gets_everything_before_a_gross_difference_would_be_found() {
    for min_requests in [0, 5] {
        let mut rollout = rollout(&[1.0, 50.0, 100.0], min_requests);
        answers(&mut rollout, 0, Pair::new(5, 5));
        assert!(rollout.missing().is_empty(), "the next step is not the last: {:?}", rollout.missing());
        rollout.advance();
        answers(&mut rollout, 0, Pair::new(20, 20));
        let missing = rollout.missing();
        assert_eq!(missing.len(), 3, "{missing:?}");
        let more: u64 = missing[1].split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(missing[1].starts_with("class: about ") && (10..150).contains(&more), "{missing:?}");
        answers(&mut rollout, 0, Pair::new(more / 2 + 1, more / 2 + 1));
        assert!(rollout.missing().is_empty(), "{:?}", rollout.missing());
    }
}

#[test]
fn plan_of_an_older_program_that_never_compares_is_held() {
    let mut rollout = rollout(&[50.0, 100.0], 5);
    rollout.advance();
    answers(&mut rollout, 0, Pair::new(0, 10_000));
    assert!(rollout.missing()[0].contains("at 100 % there is nothing to compare with"), "{:?}", rollout.missing());
}

#[test]
fn difference_above_the_limit_is_waited_for_until_it_is_sure() {
    let mut rollout = rollout(&[50.0, 100.0], 100);
    // 30 of 100 in another bin: 0.3, where chance makes less than 0.1.
    answers(&mut rollout, 0, Pair::new(100, 70));
    answers(&mut rollout, 1, Pair::new(0, 30));
    let missing = rollout.missing();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(
        missing[1].starts_with("score: total variation distance 0.300 is above the limit of 0.1 (--output-tolerance)")
    );
    answers(&mut rollout, 0, Pair::new(700, 700));
    assert!(rollout.missing().is_empty(), "{:?}", rollout.missing());
}

#[test]
fn distance_by_chance_is_that_of_equal_versions() {
    // By simulation: 200 and 200 requests over ten bins of the same size differ by 0.1196 ± 0.0002 on the mean.
    let mut rollout = rollout(&[50.0, 100.0], 100);
    (0..10).for_each(|bin| answers(&mut rollout, bin, Pair::new(20, 20)));
    let by_chance = by_chance(&rollout.segments, cell::SCORE);
    assert!((by_chance - 0.1196).abs() < 0.001, "{by_chance}");
}

#[test]
fn slower_canary_is_waited_for_where_its_latencies_differ_by_more_than_chance() {
    let of = |canary: [u64; 2]| {
        let mut rollout = rollout(&[50.0, 100.0], 100);
        answers(&mut rollout, 0, Pair::new(200, 200));
        let segment = rollout.segment_mut();
        let bucket = |millis| latency::bucket(std::time::Duration::from_millis(millis));
        segment.seen = super::super::Seen::default();
        segment.seen.requests = Pair::new(200, 200);
        // The 90th percentile is 5 ms on stable and 40 ms on the canary.
        segment.seen.latency[bucket(5)] = Pair::new(182, 178);
        segment.seen.latency[bucket(40)] = Pair::new(18, 22);
        let cells = &mut segment.fresh.cells_mut()[cell::LATENCY];
        (cells[0], cells[1]) = (Pair::new(182, canary[0]), Pair::new(18, canary[1]));
        rollout.missing()
    };
    assert!(of([178, 22]).is_empty(), "{:?}", of([178, 22]));
    assert_eq!(
        of([160, 40]),
        ["latency: longer by more than 2ms (--latency-tolerance), and not sure yet: more requests decide"]
    );
}
