//! The state machine with time and counts as arguments.

use std::time::UNIX_EPOCH;

use super::*;
use crate::rollout::{Limits, OnDrift, Outcome, cell, plan::tests::plan};

const MINUTE: Duration = Duration::from_mins(1);

fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn rollout() -> Rollout {
    started(plan(&[1.0, 5.0, 50.0, 100.0]))
}

/// A rollout of a model that has neither classes nor scores.
fn started(plan: Plan) -> Rollout {
    let mut rollout = Rollout::start(plan, v(3), UNIX_EPOCH).unwrap();
    rollout.cuts = Some(Cuts::default());
    rollout
}

fn well() -> Vitals {
    let serving = Presence::Serving;
    Vitals { stable: serving.clone(), canary: serving, drift: Drift::Unknown, worse_quality: None }
}

/// Requests of this step, all answered within 5 ms.
fn answer(rollout: &mut Rollout, stable: u64, canary: u64) {
    count(rollout, Outcome::Ok, stable, canary);
    let (segment, counts) = (rollout.segment_mut(), Pair::new(stable, canary));
    let bucket = latency::bucket(Duration::from_millis(5));
    let cells = [&mut segment.seen.latency[bucket], &mut segment.fresh.cells_mut()[cell::LATENCY.start]];
    for cell in cells {
        *cell = *cell + counts;
    }
}

fn count(rollout: &mut Rollout, outcome: Outcome, stable: u64, canary: u64) {
    let segment = rollout.segment_mut();
    let counts = Pair::new(stable, canary);
    let slot = &mut segment.fresh.cells_mut()[cell::outcome(outcome).index()];
    *slot = *slot + counts;
    if outcome != Outcome::Refused {
        segment.seen.requests = segment.seen.requests + counts;
    }
    if outcome.is_failure() {
        segment.seen.failures = segment.seen.failures + counts;
    }
}

fn latencies(rollout: &mut Rollout, stable: Duration, canary: Duration, each: u64) {
    let latencies = &mut rollout.segment_mut().seen.latency;
    latencies[latency::bucket(stable)].stable += each;
    latencies[latency::bucket(canary)].canary += each;
}

#[track_caller]
fn rolled_back(decision: Decision, metric: &str, words: &str) {
    match decision {
        Decision::RollBack(cause) => {
            assert_eq!(cause.metric, metric, "{}", cause.words);
            assert!(cause.words.contains(words), "{}", cause.words);
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn holds(decision: &Decision, words: &str) {
    match decision {
        Decision::Hold(reason) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn good_version_goes_through_all_steps_and_is_promoted() {
    let mut rollout = rollout();
    for (at, next) in [(1.0, 5.0), (5.0, 50.0), (50.0, 100.0)] {
        assert_eq!(rollout.percent(), Percent::new(at).unwrap());
        answer(&mut rollout, 10_000, 200);
        holds(&rollout.look(MINUTE, &well()), "1m of 10m, 200 requests of at least 100");
        assert_eq!(rollout.look(9 * MINUTE, &well()), Decision::Advance(Percent::new(next).unwrap()));
        rollout.advance();
        assert_eq!((rollout.segment().floor.get(), rollout.served), (at, Duration::ZERO));
    }
    answer(&mut rollout, 0, 10_000);
    assert_eq!(rollout.look(10 * MINUTE, &well()), Decision::Promote);
    rollout.end(Status::Completed, "done".into(), UNIX_EPOCH);
    holds(&rollout.look(10 * MINUTE, &well()), "done");
}

#[test]
fn without_traffic_it_holds_and_says_so() {
    let mut rollout = rollout();
    holds(&rollout.look(60 * MINUTE, &well()), "no traffic");
    assert_eq!(rollout.note, "holding: no traffic: version 4 has had no request in this step");
    answer(&mut rollout, 9_900, 99);
    holds(&rollout.look(MINUTE, &well()), "holding: latency: 99 of 100 compared requests of the canary");
    answer(&mut rollout, 0, 1);
    assert!(matches!(rollout.look(MINUTE, &well()), Decision::Advance(_)));
}

#[test]
fn plan_without_minimum_goes_on_without_traffic_but_not_to_everything() {
    let mut rollout = started(Plan { min_requests: 0, ..plan(&[1.0, 5.0, 100.0]) });
    assert!(matches!(rollout.look(10 * MINUTE, &well()), Decision::Advance(_)));
    rollout.advance();
    holds(
        &rollout.look(100 * MINUTE, &well()),
        "more compared requests, to tell a version half of whose answers differ",
    );
}

#[test]
fn nothing_is_promoted_that_was_not_compared_on_both_arms() {
    let mut rollout = started(plan(&[50.0, 100.0]));
    answer(&mut rollout, 99, 500);
    holds(&rollout.look(60 * MINUTE, &well()), "holding: latency: 99 of 100 compared requests of stable");
    answer(&mut rollout, 1, 0);
    assert!(matches!(rollout.look(MINUTE, &well()), Decision::Advance(_)));
}

#[test]
fn failures_beyond_chance_roll_back_at_once_with_the_figures() {
    let mut rollout = rollout();
    answer(&mut rollout, 990, 5);
    count(&mut rollout, Outcome::Failed, 1, 3);
    rolled_back(
        rollout.look(Duration::from_secs(1), &well()),
        "failures",
        "failures: 3 of 8 on the canary, 1 of 991 on stable; evidence",
    );
}

#[test]
fn timeouts_and_overload_count_as_failures() {
    for outcome in [Outcome::Timeout, Outcome::Overloaded] {
        let mut rollout = rollout();
        count(&mut rollout, outcome, 0, 5);
        rolled_back(rollout.look(MINUTE, &well()), "failures", "5 of 5 on the canary");
    }
}

#[test]
fn clients_that_err_alike_on_both_arms_are_no_evidence() {
    let mut rollout = rollout();
    answer(&mut rollout, 9_900, 100);
    count(&mut rollout, Outcome::Refused, 4_950, 50);
    holds(&rollout.look(MINUTE, &well()), "1m of 10m");
    // A canary that refuses what stable takes.
    count(&mut rollout, Outcome::Refused, 0, 60);
    rolled_back(rollout.look(MINUTE, &well()), "refused", "110 of 210 on the canary, 4950 of 14850 on stable");
}

#[test]
fn stable_that_fails_more_often_is_nothing_against_the_canary() {
    let mut rollout = rollout();
    answer(&mut rollout, 5_000, 100);
    count(&mut rollout, Outcome::Failed, 4_900, 0);
    assert!(matches!(rollout.look(10 * MINUTE, &well()), Decision::Advance(_)));
}

#[test]
fn classes_that_differ_roll_back() {
    let mut rollout = rollout();
    answer(&mut rollout, 990, 60);
    let classes = &mut rollout.segment_mut().fresh.cells_mut()[cell::CLASS];
    (classes[0], classes[1]) = (Pair::new(900, 0), Pair::new(90, 60));
    rolled_back(rollout.look(MINUTE, &well()), "class", "class: total variation distance 0.909 between 60 requests");
}

#[test]
fn error_rate_has_a_plain_limit_too() {
    let mut rollout = rollout();
    // As many on stable: no evidence of a difference, but more than the limit allows.
    answer(&mut rollout, 800, 16);
    count(&mut rollout, Outcome::Failed, 200, 3);
    holds(&rollout.look(MINUTE, &well()), "of 10m");
    count(&mut rollout, Outcome::Failed, 0, 1);
    rolled_back(rollout.look(MINUTE, &well()), "error_rate", "20.0 %, the limit is 10.0 %: 4 of 20 on the canary");
}

#[test]
fn long_tail_rolls_back_also_when_stable_answers_nothing_any_more() {
    let millis = Duration::from_millis;
    let mut rollout = rollout();
    latencies(&mut rollout, millis(10), millis(10), 990);
    latencies(&mut rollout, millis(12), millis(40), 20);
    rolled_back(rollout.clone().look(MINUTE, &well()), "p99", "times stable's");
    rollout.segment_mut().seen.latency[latency::bucket(millis(40))].canary = 0;
    holds(&rollout.look(MINUTE, &well()), "no traffic");
    for _ in 0..3 {
        rollout.advance();
    }
    rollout.segment_mut().seen.latency[latency::bucket(millis(40))].canary = 1_000;
    rolled_back(rollout.look(MINUTE, &well()), "p99", "the limit is 2");
}

#[test]
fn evidence_of_finished_steps_goes_on_counting() {
    let mut rollout = rollout();
    answer(&mut rollout, 900, 100);
    count(&mut rollout, Outcome::Failed, 0, 1);
    assert!(matches!(rollout.look(10 * MINUTE, &well()), Decision::Advance(_)));
    let before = rollout.findings().log_combined;
    rollout.advance();
    assert!((rollout.findings().log_combined - before).abs() < 1e-12 && before > 0.0);
}

#[test]
fn canary_that_is_gone_rolls_back_and_one_that_loads_is_waited_for() {
    let mut rollout = rollout();
    answer(&mut rollout, 9_900, 100);
    let loading = Vitals { canary: Presence::Loading, ..well() };
    holds(&rollout.look(60 * MINUTE, &loading), "version 4 is loading");
    assert_eq!(rollout.served, Duration::ZERO, "the time does not count");
    let stable = Vitals { stable: Presence::Gone("torn".into()), ..well() };
    holds(&rollout.look(60 * MINUTE, &stable), "version 3 does not serve: torn");
    let gone = Vitals { canary: Presence::Gone("model.onnx is torn".into()), ..well() };
    rolled_back(rollout.look(MINUTE, &gone), "canary", "does not serve any more: model.onnx is torn");
}

#[test]
fn paused_rollout_does_not_advance_but_its_gates_go_on() {
    let mut rollout = rollout();
    answer(&mut rollout, 9_900, 100);
    rollout.pause().unwrap();
    holds(&rollout.look(60 * MINUTE, &well()), "paused at 1 %");
    assert_eq!(rollout.served, Duration::ZERO);
    let mut worse = rollout.clone();
    count(&mut worse, Outcome::Failed, 0, 50);
    rolled_back(worse.look(MINUTE, &well()), "failures", "50 of 150");
    rollout.resume().unwrap();
    assert!(matches!(rollout.look(10 * MINUTE, &well()), Decision::Advance(_)));
    rollout.end(Status::Aborted, "enough".into(), UNIX_EPOCH);
    let error = rollout.pause().unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        ("the rollout of version 4 is aborted already", ErrorCode::Conflict)
    );
}

#[test]
fn drift_of_the_answers_holds_or_rolls_back_or_is_ignored() {
    let drifted = Vitals { drift: Drift::Of(vec!["repaid".into()]), ..well() };
    let with = |on_drift| {
        let good = plan(&[1.0, 100.0]);
        let plan = Plan { limits: Limits { on_drift, ..good.limits }, ..good };
        let mut rollout = started(plan);
        answer(&mut rollout, 9_900, 100);
        rollout.look(10 * MINUTE, &drifted)
    };
    holds(&with(OnDrift::Hold), "drifted from the reference profile: repaid");
    rolled_back(with(OnDrift::RollBack), "drift", "repaid");
    assert!(matches!(with(OnDrift::Ignore), Decision::Advance(_)));
}

#[test]
fn worse_quality_rolls_back() {
    let worse = Vitals { worse_quality: Some("accuracy 0.71, stable has 0.93".into()), ..well() };
    rolled_back(rollout().look(MINUTE, &worse), "quality", "accuracy 0.71");
}

#[test]
fn evidence_is_shown_for_people() {
    let shown = |evidence: f64| shown_evidence(evidence);
    assert_eq!(
        [shown(0.624), shown(100.0), shown(6.14e8), shown(1e300), shown(f64::INFINITY)],
        ["0.62", "100.00", "6.1e8", "more than 1e300", "more than 1e300"]
    );
}

#[test]
fn reason_names_the_limit_and_the_option_and_the_evidence_of_the_table() {
    let mut rollout = rollout();
    answer(&mut rollout, 990, 60);
    let scores = &mut rollout.segment_mut().fresh.cells_mut()[cell::SCORE];
    (scores[0], scores[1]) = (Pair::new(900, 0), Pair::new(90, 60));
    let in_all = shown_evidence(rollout.findings().log_combined.exp());
    rolled_back(rollout.clone().look(MINUTE, &well()), "score", "above the limit of 0.1 (--output-tolerance");
    rolled_back(
        rollout.look(MINUTE, &well()),
        "score",
        &format!("; evidence {in_all} in all, rolled back from 100.00 on"),
    );
}
