//! What a step still lacks before it may be left: a rollout promotes nothing that it has not compared.
//!
//! - Each arm must have had `min_requests` compared requests in the step, for every metric that the model has.
//! - Before the canary gets everything, where nothing can be compared any more, the rollout must have compared so many that a
//!   version half of whose answers differ would have been rolled back, however small `min_requests` is.
//! - A difference that is larger than tolerated, by more than chance makes of so few requests, must be decided: more
//!   requests make it sure, or small.

use std::f64::consts::FRAC_2_PI;

use super::{Counts, Difference, Metric, Pair, Rollout, Segment, cell, evidence::is_slower};

/// What of a model's answers is compared beside failures and latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds {
    pub class: bool,
    pub score: bool,
}

impl Kinds {
    fn has(self, metric: Metric) -> bool {
        match metric {
            Metric::Failures | Metric::Refused | Metric::Latency => true,
            Metric::Class => self.class,
            Metric::Score => self.score,
        }
    }
}

/// The share of the canary's answers that must differ for a rollout to be sure to find it before it is over.
const FOUND_SHARE: f64 = 0.5;
/// How many times as far apart as chance makes them on the mean latencies must be to be waited for.
const BEYOND_CHANCE: f64 = 1.5;
/// More requests than these are not asked for by number.
const MOST_NEEDED: u64 = 1 << 24;

impl Rollout {
    /// Requests of this step that are compared in a metric, those that repeat a key too; `None` where the model has no such
    /// metric.
    #[must_use]
    pub fn compared(&self, metric: Metric) -> Option<Pair> {
        let seen = &self.segment().seen;
        match metric {
            Metric::Failures => Some(seen.requests),
            Metric::Refused => Some(self.segment().streams().into_iter().map(|(_, counts)| counts.requests()).sum()),
            _ => self.kinds.has(metric).then(|| seen.latency.iter().copied().sum()),
        }
    }

    /// What must still be compared before this step is left, in words; empty where nothing is, and when the rollout is over.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        if !self.status.is_active() {
            return Vec::new();
        }
        let too_few = self.too_few_compared();
        if !too_few.is_empty() {
            return too_few;
        }
        let blind = self.blind();
        if blind.is_empty() { self.undecided() } else { blind }
    }

    /// Arms with fewer than `min_requests` requests in this step.
    fn too_few_compared(&self) -> Vec<String> {
        let wanted = self.plan.min_requests;
        if wanted == 0 {
            return Vec::new();
        }
        let answers: Pair = self.segment().seen.latency.iter().copied().sum();
        if self.is_all() {
            let requests = self.segment().seen.requests.canary;
            return too_few("canary", requests, wanted, "requests").into_iter().collect();
        }
        let metrics: Vec<_> =
            Metric::ALL.into_iter().filter(|metric| is_of_answers(*metric) && self.kinds.has(*metric)).collect();
        let names: Vec<_> = metrics.into_iter().map(Metric::as_str).collect();
        let arms = [("canary", answers.canary), ("stable", answers.stable)];
        let few = arms.into_iter().filter_map(|(arm, answers)| too_few(arm, answers, wanted, "compared requests"));
        let few: Vec<_> = few.map(|few| format!("{}: {few}", names.join(", "))).collect();
        if few.is_empty() && self.cuts.is_none() {
            let sample = super::SAMPLE;
            return vec![format!(
                "latency and score are compared from the {sample}th answer on, when their bins are cut"
            )];
        }
        few
    }

    /// Metrics in which nothing would have been found, where the canary is about to get everything.
    fn blind(&self) -> Vec<String> {
        let is_last = self.plan.steps.get(self.step + 1).is_none_or(|next| next.get() >= 100.0);
        if !is_last {
            return Vec::new();
        }
        let ranges = [(Metric::Latency, cell::LATENCY), (Metric::Class, cell::CLASS), (Metric::Score, cell::SCORE)];
        let of_model = ranges.into_iter().filter(|(metric, _)| self.kinds.has(*metric));
        of_model.filter_map(|(metric, range)| self.blind_in(metric, range)).collect()
    }

    fn blind_in(&self, metric: Metric, range: std::ops::Range<usize>) -> Option<String> {
        let wanted = -self.plan.alpha.ln() - metric.weight().ln();
        let arms: Vec<(f64, Pair)> = self
            .segments
            .iter()
            .flat_map(Segment::streams)
            .map(|(rho, counts)| (rho, counts.group(range.clone()).iter().copied().sum()))
            .collect();
        let found = |more: Pair| -> f64 {
            let so_far: f64 = arms.iter().map(|(rho, arms)| would_be_found(*rho, *arms)).sum();
            // More requests come in this step, whose stream of keyless ones is the last but one.
            let (rho, last) = arms[arms.len() - 2];
            so_far - would_be_found(rho, last) + would_be_found(rho, last + more)
        };
        if found(Pair::default()) >= wanted {
            return None;
        }
        let (name, rho) = (metric.as_str(), self.segment().share(super::Stream::Fresh));
        if rho >= 1.0 {
            return Some(format!(
                "{name}: too little was compared, and at 100 % there is nothing to compare with. Abort the rollout and start one \
                 with a step below 100 %, or promote the version by hand"
            ));
        }
        let split = |requests: u64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a number")]
            let canary = (requests as f64 * rho).round() as u64;
            Pair::new(requests - canary, canary)
        };
        let (mut low, mut high) = (0, 1);
        while high < MOST_NEEDED && found(split(high)) < wanted {
            (low, high) = (high, high * 2);
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            if found(split(middle)) < wanted { low = middle } else { high = middle }
        }
        Some(format!("{name}: about {high} more compared requests, to tell a version half of whose answers differ"))
    }

    /// Differences that are larger than tolerated, and not sure.
    fn undecided(&self) -> Vec<String> {
        if self.is_all() {
            return Vec::new();
        }
        let (limits, findings) = (&self.plan.limits, self.findings());
        let distance = |metric| findings.each.iter().find(|finding| finding.metric == metric)?.distance;
        let distances = [(Metric::Class, cell::CLASS), (Metric::Score, cell::SCORE)];
        let far = distances.into_iter().filter_map(|(metric, range)| {
            let distance = distance(metric)?;
            let is_far = distance > limits.output_tolerance + by_chance(&self.segments, range);
            is_far.then(|| {
                format!(
                    "{}: total variation distance {distance:.3} is above the limit of {} (--output-tolerance), and not sure yet: \
                     more requests decide",
                    metric.as_str(),
                    limits.output_tolerance
                )
            })
        });
        // Quantiles of few latencies with a long tail are far apart by chance, and their bins are not.
        let by_chance = by_chance(&self.segments, cell::LATENCY);
        let differs = distance(Metric::Latency).is_some_and(|distance| distance > BEYOND_CHANCE * by_chance);
        let slower = (differs && is_slower(self.segment(), limits)).then(|| {
            let tolerance = humantime::format_duration(limits.latency_tolerance);
            format!(
                "latency: longer by more than {tolerance} (--latency-tolerance), and not sure yet: more requests decide"
            )
        });
        far.chain(slower).collect()
    }

    /// Stable answers nothing in this step.
    fn is_all(&self) -> bool {
        self.percent().get() >= 100.0
    }
}

fn is_of_answers(metric: Metric) -> bool {
    !matches!(metric, Metric::Failures | Metric::Refused)
}

fn too_few(arm: &str, count: u64, wanted: u64, what: &str) -> Option<String> {
    (count < wanted)
        .then(|| format!("{count} of {wanted} {what} of {}", if arm == "canary" { "the canary" } else { arm }))
}

/// The logarithm of the evidence that this many requests would be if the [`FOUND_SHARE`] of the canary's were in another bin.
fn would_be_found(rho: f64, arms: Pair) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a number")]
    let moved = (arms.canary as f64 * FOUND_SHARE).floor() as u64;
    Difference::log(rho, &[Pair::new(arms.stable, arms.canary - moved), Pair::new(0, moved)])
}

/// The total variation distance that chance makes on the mean between arms that do not differ: of each bin, the mean
/// absolute difference of two shares.
fn by_chance(segments: &[Segment], range: std::ops::Range<usize>) -> f64 {
    let (mut weights, mut sum) = (0.0, 0.0);
    let bins = |counts: &Counts| counts.group(range.clone()).to_vec();
    for bins in segments.iter().flat_map(Segment::streams).map(|(_, counts)| bins(counts)) {
        let all: Pair = bins.iter().copied().sum();
        if all.stable == 0 || all.canary == 0 {
            continue;
        }
        let (stable, canary) = (all.stable as f64, all.canary as f64);
        let variance = |bin: &Pair| {
            let share = bin.all() as f64 / (stable + canary);
            share * (1.0 - share) * (1.0 / stable + 1.0 / canary)
        };
        let differences: f64 = bins.iter().map(|bin| (FRAC_2_PI * variance(bin)).sqrt()).sum();
        sum += canary * differences / 2.0;
        weights += canary;
    }
    if weights > 0.0 { sum / weights } else { 0.0 }
}

#[cfg(test)]
mod tests;
