//! Evidence that the canary differs from stable: e-processes, from counts alone.
//!
//! The gateway draws each request's arm with a probability ρ that it knows. If the versions do not
//! differ, then whatever came of a request, its arm is a coin with that bias. Each number here is the
//! fortune of a player who starts with 1 and bets on these coins at fair odds, so that its mean stays 1
//! if the coins are fair. Ville's inequality: the probability that it *ever* reaches 1/α is at
//! most α. So one may look after every request, and stop when one likes.
//!
//! - [`Excess`], one-sided, for events that are bad: the bet that an odds ratio λ holds, averaged
//!   over several λ. A bad event on the canary multiplies by θ/ρ, one on stable by (1−θ)/(1−ρ), where
//!   θ = ρλ/(1−ρ+ρλ).
//! - [`Difference`], two-sided, by bin: the bet that the canary's share of a bin is as seen so far,
//!   shrunk towards ρ by `a` pseudo-counts. Request by request a canary in a bin multiplies by
//!   ((aρ+s)/(a+n))/ρ; the product over a segment is a ratio of Beta functions of its counts, whatever
//!   their order.
//!
//! Segments with different ρ multiply. Fortunes of several metrics are averaged, which is fair under any
//! dependence between them. Sources: Ville 1939; Robbins 1970 (mixtures); Lindon and Malek 2020,
//! arXiv 2011.03567 (Beta–binomial by category); Vovk and Wang 2021 (averages of e-values).
//! Logarithms throughout: fortunes outgrow any float.

use statrs::function::beta::ln_beta;

use super::{Limits, Outcome, Pair, Segment, cell, latency};

/// The odds ratios that the one-sided test bets on.
const ODDS: [f64; 7] = [1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0];

/// The pseudo-counts of the two-sided test: how reluctantly it leaves ρ.
const PSEUDO_COUNTS: f64 = 100.0;

/// The one-sided test: bad events fall on the canary more often than its share.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Excess {
    /// The logarithm of the fortune of each bet.
    logs: [f64; ODDS.len()],
}

impl Excess {
    /// Takes in events that were drawn with the canary's share `rho`. A share of 0 or 1 is no coin.
    pub fn add(&mut self, rho: f64, events: Pair) {
        if !is_coin(rho) || events == Pair::default() {
            return;
        }
        for (log, odds) in self.logs.iter_mut().zip(ODDS) {
            // θ/ρ and (1−θ)/(1−ρ), simplified.
            let stable = -(rho * (odds - 1.0)).ln_1p();
            *log += events.all() as f64 * stable + events.canary as f64 * odds.ln();
        }
    }

    /// The logarithm of the evidence.
    #[must_use]
    pub fn log(&self) -> f64 {
        log_mean(&self.logs.map(|log| (1.0 / ODDS.len() as f64, log)))
    }
}

/// The two-sided test of one segment, bin by bin: the logarithm of its evidence.
#[derive(Debug)]
pub struct Difference;

impl Difference {
    #[must_use]
    pub fn log(rho: f64, bins: &[Pair]) -> f64 {
        if !is_coin(rho) {
            return 0.0;
        }
        let (canary, stable) = (PSEUDO_COUNTS * rho, PSEUDO_COUNTS * (1.0 - rho));
        let prior = ln_beta(canary, stable);
        let one = |bin: &Pair| {
            let (on_canary, on_stable) = (bin.canary as f64, bin.stable as f64);
            ln_beta(canary + on_canary, stable + on_stable) - prior - on_canary * rho.ln() - on_stable * (-rho).ln_1p()
        };
        bins.iter().filter(|bin| bin.all() > 0).map(one).sum()
    }

    /// The same by one request in a bin that held `before`.
    #[must_use]
    pub fn step(rho: f64, before: Pair, is_canary: bool) -> f64 {
        let predicted = (PSEUDO_COUNTS * rho + before.canary as f64) / (PSEUDO_COUNTS + before.all() as f64);
        if is_canary { (predicted / rho).ln() } else { ((1.0 - predicted) / (1.0 - rho)).ln() }
    }
}

fn is_coin(rho: f64) -> bool {
    0.0 < rho && rho < 1.0
}

/// The logarithm of a weighted mean of numbers given by their logarithms.
fn log_mean<const N: usize>(weighted: &[(f64, f64); N]) -> f64 {
    let highest = weighted.iter().map(|(_, log)| *log).fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return highest;
    }
    let sum: f64 = weighted.iter().map(|(weight, log)| weight * (log - highest).exp()).sum();
    highest + sum.ln()
}

/// What is compared between the arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Requests that failed, timed out or were refused as too many. One-sided.
    Failures,
    /// Requests refused as the client's fault: clients err alike on both arms. One-sided.
    Refused,
    /// Latency by bin.
    Latency,
    /// The predicted class.
    Class,
    /// The score by decile.
    Score,
}

impl Metric {
    pub const ALL: [Self; 5] = [Self::Failures, Self::Refused, Self::Latency, Self::Class, Self::Score];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Refused => "refused",
            Self::Latency => "latency",
            Self::Class => "class",
            Self::Score => "score",
        }
    }

    /// Its part of the average: half for what hurts most.
    #[must_use]
    pub fn weight(self) -> f64 {
        match self {
            Self::Failures => 0.5,
            Self::Refused | Self::Latency | Self::Class | Self::Score => 0.125,
        }
    }
}

/// The evidence of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    pub metric: Metric,
    pub log_evidence: f64,
    /// Requests that are evidence, by arm.
    pub requests: Pair,
    /// Of them, those with a bad outcome; for bins: nothing.
    pub events: Pair,
    /// How large the difference is: the total variation distance between the arms' bins, from 0 to 1.
    /// `None` for events.
    pub distance: Option<f64>,
    /// Large enough to matter. Only then it is held against the canary.
    pub is_material: bool,
}

impl Finding {
    /// Its part of the combined evidence, as a logarithm.
    #[must_use]
    pub fn part(&self) -> f64 {
        if self.is_material { self.metric.weight().ln() + self.log_evidence } else { f64::NEG_INFINITY }
    }
}

/// The evidence of all metrics over all steps of a rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Findings {
    pub each: [Finding; Metric::ALL.len()],
    /// The logarithm of their weighted average. Those that are not material count nothing in it, which
    /// only makes it smaller: the guarantee stands.
    pub log_combined: f64,
}

impl Findings {
    #[must_use]
    pub fn of(segments: &[Segment], limits: &Limits) -> Self {
        let each = Metric::ALL.map(|metric| finding(metric, segments, limits));
        let log_combined = log_mean(&each.map(|finding| (1.0, finding.part())));
        Self { each, log_combined }
    }

    /// The metric with the most evidence among those that count.
    #[must_use]
    pub fn strongest(&self) -> &Finding {
        self.each.iter().fold(&self.each[0], |best, one| if one.part() > best.part() { one } else { best })
    }
}

/// Evidence as people read it, the same wherever it is shown. Above the largest number that JSON readers take, it is no
/// more than that.
#[must_use]
pub fn shown_evidence(evidence: f64) -> String {
    match evidence {
        small if small < 1e6 => format!("{small:.2}"),
        large if large < 1e300 => format!("{large:.1e}"),
        _ => "more than 1e300".to_owned(),
    }
}

fn finding(metric: Metric, segments: &[Segment], limits: &Limits) -> Finding {
    let requests = sum(segments, super::Counts::requests);
    let binned = |range: std::ops::Range<usize>, is_material: bool| {
        let logs = segments.iter().flat_map(Segment::streams);
        let log_evidence = logs.map(|(rho, counts)| Difference::log(rho, counts.group(range.clone()))).sum();
        let requests = sum(segments, |counts| counts.group(range.clone()).iter().copied().sum());
        let distance = Some(distance(segments, range.clone()));
        Finding { metric, log_evidence, requests, events: Pair::default(), distance, is_material }
    };
    let is_far = |range: std::ops::Range<usize>| distance(segments, range) > limits.output_tolerance;
    match metric {
        Metric::Failures => excess(metric, segments, requests, super::Counts::failures),
        Metric::Refused => excess(metric, segments, requests, super::Counts::refused),
        Metric::Latency => binned(cell::LATENCY, segments.last().is_some_and(|last| is_slower(last, limits))),
        Metric::Class => binned(cell::CLASS, is_far(cell::CLASS)),
        Metric::Score => binned(cell::SCORE, is_far(cell::SCORE)),
    }
}

fn excess(metric: Metric, segments: &[Segment], requests: Pair, of: fn(&super::Counts) -> Pair) -> Finding {
    let mut test = Excess::default();
    for (rho, counts) in segments.iter().flat_map(Segment::streams) {
        test.add(rho, of(counts));
    }
    let events = sum(segments, of);
    Finding { metric, log_evidence: test.log(), requests, events, distance: None, is_material: true }
}

fn sum(segments: &[Segment], of: impl Fn(&super::Counts) -> Pair) -> Pair {
    segments.iter().flat_map(Segment::streams).map(|(_, counts)| of(counts)).sum()
}

/// The canary's median or 90th percentile is longer than stable's by more than a tenth and by more than
/// is tolerated. Lanes differ a little in load and warmth, whatever the versions; and one hiccup of a lane
/// slows many requests of one arm at once. Neither moves these by so much.
pub(super) fn is_slower(segment: &Segment, limits: &Limits) -> bool {
    [0.5, 0.9].into_iter().any(|q| {
        let stable = latency::quantile(&segment.seen.latency, |pair| pair.stable, q);
        let canary = latency::quantile(&segment.seen.latency, |pair| pair.canary, q);
        stable.zip(canary).is_some_and(|(stable, canary)| {
            canary.saturating_sub(stable) > limits.latency_tolerance
                && canary.as_secs_f64() > 1.1 * stable.as_secs_f64()
        })
    })
}

/// The total variation distance between the arms' bins, from 0 to 1: the mean over the steps and
/// streams, each weighted by its requests on the canary, so that a change of the traffic between
/// two steps is not taken for a difference between the arms.
fn distance(segments: &[Segment], range: std::ops::Range<usize>) -> f64 {
    let (mut weights, mut sum) = (0.0, 0.0);
    for (_, counts) in segments.iter().flat_map(Segment::streams) {
        let bins = counts.group(range.clone());
        let all: Pair = bins.iter().copied().sum();
        if all.stable == 0 || all.canary == 0 {
            continue;
        }
        let (stable, canary) = (all.stable as f64, all.canary as f64);
        let differences = bins.iter().map(|bin| (bin.stable as f64 / stable - bin.canary as f64 / canary).abs());
        sum += canary * differences.sum::<f64>() / 2.0;
        weights += canary;
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

impl Outcome {
    /// Counts against the version that answered.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Timeout | Self::Overloaded)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
