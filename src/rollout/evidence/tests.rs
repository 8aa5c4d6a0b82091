//! The closed forms against products request by request, and fairness by enumeration.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    domain::Percent,
    rollout::{Counts, plan::tests::plan},
};

/// The one-sided evidence as its definition says it: a product for each λ, then their mean.
fn excess_by_definition(rho: f64, canary: &[bool]) -> f64 {
    let product = |odds: f64| {
        let theta = rho * odds / (1.0 - rho + rho * odds);
        canary.iter().map(|hit| if *hit { theta / rho } else { (1.0 - theta) / (1.0 - rho) }).product::<f64>()
    };
    ODDS.iter().map(|odds| product(*odds)).sum::<f64>() / 7.0
}

/// The two-sided evidence as a product of predictions.
fn difference_by_definition(rho: f64, canary: &[bool]) -> f64 {
    let (mut evidence, mut before) = (1.0, Pair::default());
    for hit in canary {
        let predicted = (100.0 * rho + before.canary as f64) / (100.0 + before.all() as f64);
        evidence *= if *hit { predicted / rho } else { (1.0 - predicted) / (1.0 - rho) };
        before = before + arm(*hit);
    }
    evidence
}

fn arm(hit: bool) -> Pair {
    Pair::new(u64::from(!hit), u64::from(hit))
}

fn counted(canary: &[bool]) -> Pair {
    canary.iter().map(|hit| arm(*hit)).sum()
}

fn excess(rho: f64, events: Pair) -> f64 {
    let mut test = Excess::default();
    test.add(rho, events);
    test.log().exp()
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-9 * right.abs().max(1.0)
}

/// Every sequence of `n` coins, with its probability.
fn sequences(n: u32, rho: f64) -> impl Iterator<Item = (Vec<bool>, f64)> {
    (0..1_u32 << n).map(move |bits| {
        let coins: Vec<bool> = (0..n).map(|coin| bits >> coin & 1 == 1).collect();
        let probability = coins.iter().map(|hit| if *hit { rho } else { 1.0 - rho }).product();
        (coins, probability)
    })
}

#[test]
fn evidence_of_one_bad_event_is_as_worked_out_by_hand() {
    // ρ = 0.5, one event on the canary: the mean of 2λ/(1+λ) over the seven λ.
    let by_hand = (1.2 + 4.0 / 3.0 + 1.5 + 5.0 / 3.0 + 20.0 / 11.0 + 40.0 / 21.0 + 80.0 / 41.0) / 7.0;
    assert!(close(excess(0.5, Pair::new(0, 1)), by_hand));
    // One in a bin with nothing before is predicted as ρ: nothing is learnt.
    assert!(close(Difference::log(0.5, &[Pair::new(0, 1)]), 0.0));
    // The second one: (50+1)/(100+1) over a half.
    assert!(close(Difference::log(0.5, &[Pair::new(0, 2)]).exp(), 51.0 / 101.0 * 2.0));
}

#[test]
fn evidence_is_fair_when_the_coins_are() {
    for rho in [0.01, 0.1, 0.3, 0.5, 0.9] {
        for n in [1, 2, 7, 12] {
            let mean = |of: &dyn Fn(Pair) -> f64| -> f64 {
                sequences(n, rho).map(|(coins, probability)| probability * of(counted(&coins))).sum()
            };
            assert!(close(mean(&|events| excess(rho, events)), 1.0), "one-sided, ρ {rho}, n {n}");
            assert!(close(mean(&|bin| Difference::log(rho, &[bin]).exp()), 1.0), "two-sided, ρ {rho}, n {n}");
        }
    }
}

#[test]
fn evidence_of_a_key_over_two_steps_is_fair() {
    // One key whose every request fails; its place is uniform. The coin of the second step is that of
    // the share that is added, and a key that was in the canary already gives no evidence.
    let (low, high) = (0.1_f64, 0.3_f64);
    let added = (high - low) / (1.0 - low);
    let one = |steps: &[(f64, bool)]| {
        let mut test = Excess::default();
        for (rho, hit) in steps {
            test.add(*rho, arm(*hit));
        }
        test.log().exp()
    };
    let mean = low * one(&[(low, true)])
        + (high - low) * one(&[(low, false), (added, true)])
        + (1.0 - high) * one(&[(low, false), (added, false)]);
    assert!(close(mean, 1.0), "{mean}");
    // With the whole share as the coin of both steps it would not be.
    let unfair = low * one(&[(low, true), (high, true)])
        + (high - low) * one(&[(low, false), (high, true)])
        + (1.0 - high) * one(&[(low, false), (high, false)]);
    assert!(unfair > 1.05, "{unfair}");
}

#[test]
fn certain_arms_are_no_evidence() {
    for rho in [0.0, 1.0] {
        assert!(close(excess(rho, Pair::new(0, 1_000)), 1.0));
        assert!(close(Difference::log(rho, &[Pair::new(0, 1_000)]), 0.0));
    }
}

#[test]
fn huge_evidence_stays_a_number() {
    assert!(excess_log(0.01, Pair::new(0, 1_000_000)) > 1e5);
    assert!(Difference::log(0.01, &[Pair::new(1, 10_000_000)]).is_finite());
    assert!(Difference::log(0.5, &[Pair::new(5_000_000, 5_000_000)]) < 0.0);
}

fn excess_log(rho: f64, events: Pair) -> f64 {
    let mut test = Excess::default();
    test.add(rho, events);
    test.log()
}

proptest! {
    #[test]
    fn closed_forms_are_the_products(rho in 0.01..0.99_f64, coins in proptest::collection::vec(any::<bool>(), 0..200)) {
        prop_assert!(close(excess(rho, counted(&coins)).ln(), excess_by_definition(rho, &coins).ln()));
        let log = Difference::log(rho, &[counted(&coins)]);
        prop_assert!(close(log, difference_by_definition(rho, &coins).ln()), "{log}");
        let mut before = Pair::default();
        let mut steps = 0.0;
        for hit in &coins {
            steps += Difference::step(rho, before, *hit);
            before = before + arm(*hit);
        }
        prop_assert!(close(steps, log));
    }

    #[test]
    fn segments_multiply(rho in 0.01..0.99_f64, other in 0.01..0.99_f64, a in 0..50_u64, b in 0..50_u64, c in 0..50_u64) {
        let mut both = Excess::default();
        both.add(rho, Pair::new(a, b));
        both.add(other, Pair::new(c, a));
        let each = |odds: f64| {
            let log = |rho: f64, events: Pair| {
                let theta = rho * odds / (1.0 - rho + rho * odds);
                events.canary as f64 * (theta / rho).ln() + events.stable as f64 * ((1.0 - theta) / (1.0 - rho)).ln()
            };
            log(rho, Pair::new(a, b)) + log(other, Pair::new(c, a))
        };
        let mean = ODDS.iter().map(|odds| each(*odds).exp()).sum::<f64>() / 7.0;
        prop_assert!(close(both.log(), mean.ln()), "{} {}", both.log(), mean.ln());
    }
}

fn segment(percent: f64) -> Segment {
    Segment::new(Percent::new(percent).unwrap(), Percent::new(0.0).unwrap())
}

fn fill(counts: &mut Counts, range: std::ops::Range<usize>, bins: &[(u64, u64)]) {
    for (slot, (stable, canary)) in counts.cells_mut()[range].iter_mut().zip(bins) {
        *slot = Pair::new(*stable, *canary);
    }
}

#[test]
fn combined_evidence_is_the_weighted_mean() {
    let mut segment = segment(10.0);
    fill(&mut segment.fresh, cell::OUTCOMES, &[(900, 80), (0, 10), (0, 0), (0, 0), (0, 0)]);
    let findings = Findings::of(&[segment], &plan(&[100.0]).limits);
    let failures = findings.each[0].log_evidence.exp();
    // Classes, scores and latencies are not material where nothing was seen; refusals are at 1.
    assert!(close(findings.log_combined.exp(), failures / 2.0 + 0.125), "{findings:?}");
    assert_eq!(findings.strongest().metric, Metric::Failures);
    assert_eq!(findings.each[0].events, Pair::new(0, 10));
}

#[test]
fn sure_but_small_difference_of_outputs_is_not_held_against_the_canary() {
    let limits = plan(&[100.0]).limits;
    let of = |canary: (u64, u64)| {
        let mut segment = segment(50.0);
        fill(&mut segment.fresh, cell::CLASS, &[(500_000, canary.0), (500_000, canary.1)]);
        let findings = Findings::of(&[segment], &limits);
        (findings.each[3], findings.log_combined)
    };
    let (small, combined) = of((520_000, 480_000));
    assert!(small.log_evidence > 100.0 && !small.is_material && combined < 0.0, "{small:?}");
    let (large, combined) = of((650_000, 350_000));
    assert!(large.is_material && (large.distance.unwrap() - 0.15).abs() < 1e-9 && combined > 100.0, "{large:?}");
}

#[test]
fn change_of_the_traffic_between_steps_is_no_difference_of_the_arms() {
    let (mut first, mut second) = (segment(1.0), segment(50.0));
    fill(&mut first.fresh, cell::CLASS, &[(9_900, 100), (0, 0)]);
    fill(&mut second.fresh, cell::CLASS, &[(0, 0), (5_000, 5_000)]);
    let findings = Findings::of(&[first, second], &plan(&[100.0]).limits);
    assert_eq!(findings.each[3].distance, Some(0.0));
}

#[test]
fn latency_counts_only_when_longer_by_what_matters() {
    let limits = plan(&[100.0]).limits;
    let is_material = |stable: Duration, canary: Duration| {
        let mut segment = segment(50.0);
        segment.seen.latency[latency::bucket(stable)].stable = 100;
        segment.seen.latency[latency::bucket(canary)].canary = 100;
        Findings::of(&[segment], &limits).each[2].is_material
    };
    let (micros, millis) = (Duration::from_micros, Duration::from_millis);
    assert!(!is_material(micros(100), micros(300)), "below the tolerance");
    assert!(!is_material(millis(100), millis(105)), "below a tenth");
    assert!(!is_material(millis(20), millis(10)), "faster");
    assert!(is_material(millis(10), millis(20)));
}

#[test]
fn simulated_rollouts_of_an_equal_version_go_back_no_oftener_than_promised() {
    // Five standard deviations above what is promised; `cargo bench --bench rollout` has the figures.
    let at_most = |runs: u64, alpha: f64| runs as f64 * alpha + 5.0 * (runs as f64 * alpha * (1.0 - alpha)).sqrt();
    for shares in [&[0.1][..], &[0.01, 0.05, 0.25, 0.5]] {
        let found = simulation::false_rollbacks(150, shares, 4_000, 0.05);
        assert!((found as f64) <= at_most(150, 0.05), "{found} of 150 at {shares:?}");
    }
}

#[test]
fn simulated_rollouts_of_a_worse_version_go_back_soon() {
    let median = simulation::median_to_detect(201, 0.1, 0.01, 0.05, 0.01);
    assert!(median <= 200, "{median} requests of the canary");
}
