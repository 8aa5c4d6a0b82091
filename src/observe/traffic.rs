//! The requests of a version by outcome, since the process started and in the last minutes: what an operator asks for
//! first when something is wrong.
//!
//! Answers and latencies are read from the counters that Prometheus gets, so a request pays for nothing more; only a
//! request that fails counts here. Somebody who has the time takes a [`Traffic::sample`] now and then.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::{Histogram, IntCounter, core::Metric};

use crate::fault::ErrorCode;

/// How far back "lately" reaches.
const WINDOW: Duration = Duration::from_mins(5);
/// How often a sample is kept at most.
const SAMPLE: Duration = Duration::from_secs(10);

/// Requests that got no outputs. It outlives the loads of a version.
#[derive(Debug, Default)]
pub struct Outcomes {
    errors: AtomicU64,
    refusals: AtomicU64,
    cancelled: AtomicU64,
}

impl Outcomes {
    /// A request failed with this code.
    pub fn failed(&self, code: ErrorCode) {
        let count = if code.is_ours() { &self.errors } else { &self.refusals };
        count.fetch_add(1, Relaxed);
    }

    /// The caller of a request went away.
    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// What was counted; nothing is known of answers here.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            answered: 0,
            errors: self.errors.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
        }
    }
}

/// Requests by outcome. Copies that a shadow ran are in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub answered: u64,
    /// Failed through our fault or the model's: internal, unavailable, overloaded, deadline exceeded.
    pub errors: u64,
    /// Refused as wrong: bad request, too large.
    pub refusals: u64,
    /// Given up by their callers.
    pub cancelled: u64,
}

impl Counts {
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.answered + self.errors + self.refusals + self.cancelled
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(before.answered),
            errors: self.errors.saturating_sub(before.errors),
            refusals: self.refusals.saturating_sub(before.refusals),
            cancelled: self.cancelled.saturating_sub(before.cancelled),
        }
    }
}

/// What is known of a version's requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TrafficReport {
    /// Since the process started.
    pub total: Counts,
    /// In the last five minutes; `None` until it was looked at for the first time.
    pub recent: Option<Recent>,
}

/// The requests of the last minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recent {
    /// How long ago it begins: five minutes, or less after a start.
    pub window: Duration,
    pub counts: Counts,
    /// Requests a second.
    pub rate: f64,
    /// Median latency, interpolated within its bucket of `tidegate_request_duration_seconds`; `None` without requests.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

/// Where the answers and latencies of a version are counted, and samples of the last minutes.
#[derive(Debug, Default)]
pub struct Traffic {
    answered: Vec<IntCounter>,
    latency: Vec<Histogram>,
    outcomes: Arc<Outcomes>,
    /// The oldest first. A count holds until the next sample: where nothing happens none is kept.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    at: Duration,
    counts: Counts,
    latency: Vec<Bucket>,
}

/// A bucket of a histogram: requests of up to so many seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    bound: f64,
    count: u64,
}

impl Traffic {
    pub(super) fn new(answered: Vec<IntCounter>, latency: Vec<Histogram>) -> Self {
        Self { answered, latency, ..Self::default() }
    }

    /// What the requests of the version that fail are counted in, over all its loads.
    #[must_use]
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Follows the counters of a load. They are the same for every load of one version.
    pub fn follow(&mut self, counters: Self) {
        (self.answered, self.latency) = (counters.answered, counters.latency);
    }

    /// Remembers how things stand at `now`, a time since any fixed moment.
    pub fn sample(&mut self, now: Duration) {
        let counts = self.counts();
        if self.samples.back().is_some_and(|last| now < last.at + SAMPLE || counts == last.counts) {
            return;
        }
        self.samples.push_back(Sample { at: now, counts, latency: self.buckets() });
        // The newest of those that are older than the window says how things stood when it began.
        while self.samples.get(1).is_some_and(|second| second.at + WINDOW <= now) {
            self.samples.pop_front();
        }
    }

    #[must_use]
    pub fn report(&self, now: Duration) -> TrafficReport {
        let total = self.counts();
        let from = now.saturating_sub(WINDOW);
        let base = self.samples.iter().rev().find(|sample| sample.at <= from).or_else(|| self.samples.front());
        let recent = base.map(|base| {
            let age = now.saturating_sub(base.at);
            // A count that is older than that held until the window began: a change is sampled soon.
            let window = if age > WINDOW + SAMPLE { WINDOW } else { age };
            let counts = total.since(&base.counts);
            let rate = if window.is_zero() { 0.0 } else { counts.requests() as f64 / window.as_secs_f64() };
            let latency = difference(&self.buckets(), &base.latency);
            Recent { window, counts, rate, p50: quantile(&latency, 0.5), p99: quantile(&latency, 0.99) }
        });
        TrafficReport { total, recent }
    }

    fn counts(&self) -> Counts {
        let answered = self.answered.iter().map(IntCounter::get).sum();
        Counts { answered, ..self.outcomes.counts() }
    }

    /// The buckets of all protocols together, cumulative, the last one without a bound.
    fn buckets(&self) -> Vec<Bucket> {
        let mut all: Vec<Bucket> = Vec::new();
        for histogram in &self.latency {
            let metric = histogram.metric();
            let histogram = metric.get_histogram();
            let bounded = histogram.get_bucket().iter();
            let bounded = bounded.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
            let every = bounded.chain([(f64::INFINITY, histogram.get_sample_count())]);
            for (at, (bound, count)) in every.enumerate() {
                match all.get_mut(at) {
                    Some(bucket) => bucket.count += count,
                    None => all.push(Bucket { bound, count }),
                }
            }
        }
        all
    }
}

fn difference(now: &[Bucket], before: &[Bucket]) -> Vec<Bucket> {
    let earlier = |at: usize| before.get(at).map_or(0, |bucket| bucket.count);
    let one = |(at, bucket): (usize, &Bucket)| Bucket { count: bucket.count.saturating_sub(earlier(at)), ..*bucket };
    now.iter().enumerate().map(one).collect()
}

/// Linear within a bucket, as Prometheus's `histogram_quantile`; beyond the last bound it is that bound.
fn quantile(cumulative: &[Bucket], share: f64) -> Option<Duration> {
    let total = cumulative.last()?.count;
    if total == 0 {
        return None;
    }
    let rank = share * total as f64;
    let at = cumulative.iter().position(|bucket| bucket.count as f64 >= rank)?;
    let below = at.checked_sub(1).map_or(Bucket { bound: 0.0, count: 0 }, |before| cumulative[before]);
    let bucket = cumulative[at];
    let seconds = if bucket.bound.is_finite() {
        let inside = (bucket.count - below.count) as f64;
        let part = if inside > 0.0 { (rank - below.count as f64) / inside } else { 1.0 };
        below.bound + (bucket.bound - below.bound) * part
    } else {
        below.bound
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ModelName, Protocol, Version},
        observe::VersionMetrics,
        telemetry::Metrics,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn rig() -> (Traffic, IntCounter, Histogram) {
        let (metrics, model): (_, ModelName) = (Metrics::new(), "m".parse().unwrap());
        let mut traffic = Traffic::default();
        let version = VersionMetrics::new(&metrics, &model, Version::new(1).unwrap()).with_outcomes(traffic.outcomes());
        traffic.follow(version.traffic());
        let (answered, latency) =
            (traffic.answered[0].clone(), version.request_duration[Protocol::Http as usize].clone());
        (traffic, answered, latency)
    }

    #[test]
    fn rate_and_latency_are_those_of_the_last_five_minutes() {
        let (mut traffic, answered, latency) = rig();
        assert_eq!(traffic.report(SECOND).recent, None);
        traffic.sample(SECOND);
        // Slow at first, fast later.
        for second in 1..=900 {
            answered.inc_by(10);
            for _ in 0..10 {
                latency.observe(if second <= 450 { 0.3 } else { 0.003 });
            }
            traffic.sample(SECOND * second);
        }
        let report = traffic.report(SECOND * 900);
        assert_eq!(report.total, Counts { answered: 9000, ..Counts::default() });
        let recent = report.recent.unwrap();
        // The sample before the window began is nine seconds older.
        assert_eq!((recent.window, recent.counts.answered), (SECOND * 309, 3090));
        assert!((recent.rate - 10.0).abs() < 0.01);
        // All in the bucket from 2.5 to 5 ms.
        assert_eq!(recent.p50, Some(Duration::from_micros(3750)));
        assert_eq!(recent.p99, Some(Duration::from_micros(4975)));
        assert!(traffic.samples.len() <= 32, "{}", traffic.samples.len());
    }

    #[test]
    fn version_that_went_quiet_has_a_rate_of_nothing() {
        let (mut traffic, answered, _) = rig();
        for second in 0..100 {
            answered.inc();
            traffic.sample(SECOND * second);
        }
        let quiet = traffic.report(SECOND * 1000).recent.unwrap();
        // Nine requests came after the last sample; when exactly is not known.
        assert!(quiet.counts.answered <= 9 && quiet.p50.is_none());
        traffic.sample(SECOND * 1000);
        traffic.sample(SECOND * 2000);
        let quiet = traffic.report(SECOND * 2000).recent.unwrap();
        assert_eq!((quiet.counts, quiet.window), (Counts::default(), WINDOW));
        assert!(traffic.samples.len() <= 2);
    }

    #[test]
    fn faults_of_ours_are_errors_and_those_of_clients_are_refusals() {
        let (traffic, ..) = rig();
        let outcomes = traffic.outcomes();
        for code in [ErrorCode::Internal, ErrorCode::Overloaded, ErrorCode::BadRequest, ErrorCode::TooLarge] {
            outcomes.failed(code);
        }
        outcomes.failed(ErrorCode::BadRequest);
        outcomes.cancelled();
        let total = traffic.report(SECOND).total;
        assert_eq!(total, Counts { answered: 0, errors: 2, refusals: 3, cancelled: 1 });
        assert_eq!(total.requests(), 6);
    }

    #[test]
    fn slow_beyond_the_last_bucket_is_its_bound() {
        let buckets = [Bucket { bound: 1.0, count: 0 }, Bucket { bound: f64::INFINITY, count: 3 }];
        assert_eq!(quantile(&buckets, 0.99), Some(SECOND));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
