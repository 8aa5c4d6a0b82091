//! Error rates of the test by simulation, with a look after every request.
//!
//! Shared by the unit tests, which run a part of it, and by `benches/rollout.rs`, which runs it whole.

use super::{Difference, Excess, Metric, Pair};

/// `SplitMix64` (Steele and others 2014): the same numbers on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn is_below(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of ten bins of the same size.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9")]
    fn decile(&mut self) -> usize {
        (self.uniform() * 10.0) as usize
    }
}

/// Who watches a rollout request by request: all metrics, as the gateway combines them.
#[derive(Default)]
struct Watch {
    failures: Excess,
    refused: Excess,
    /// Latency, class and score: the logarithm of the evidence, and the bins of this step.
    binned: [(f64, [Pair; 10]); 3],
    /// Evidence of the two one-sided metrics; they change with a bad event only.
    one_sided: [f64; 2],
}

impl Watch {
    fn new() -> Self {
        Self { one_sided: [1.0; 2], ..Self::default() }
    }

    fn next_step(&mut self) {
        self.binned.iter_mut().for_each(|(_, bins)| *bins = [Pair::default(); 10]);
    }

    /// One request; the combined evidence after it.
    fn request(&mut self, rho: f64, is_canary: bool, is_failed: bool, is_refused: bool, bins: [usize; 3]) -> f64 {
        let arm = Pair::new(u64::from(!is_canary), u64::from(is_canary));
        if is_failed {
            self.failures.add(rho, arm);
            self.one_sided[0] = self.failures.log().exp();
        }
        if is_refused {
            self.refused.add(rho, arm);
            self.one_sided[1] = self.refused.log().exp();
        }
        for ((log, seen), bin) in self.binned.iter_mut().zip(bins) {
            *log += Difference::step(rho, seen[bin], is_canary);
            seen[bin] = seen[bin] + arm;
        }
        let [failures, refused, rest @ ..] = Metric::ALL.map(Metric::weight);
        let binned: f64 = self.binned.iter().zip(rest).map(|((log, _), weight)| weight * log.exp()).sum();
        failures * self.one_sided[0] + refused * self.one_sided[1] + binned
    }
}

/// Whether a version that does not differ is rolled back: 1 % of the requests fail, 2 % are refused,
/// every difference counts, however small; an equal number of requests at each share.
pub(super) fn is_falsely_rolled_back(random: &mut Random, shares: &[f64], requests: usize, alpha: f64) -> bool {
    let mut watch = Watch::new();
    shares.iter().any(|rho| {
        watch.next_step();
        (0..requests / shares.len()).any(|_| {
            let (is_canary, is_failed) = (random.is_below(*rho), random.is_below(0.01));
            let is_refused = random.is_below(0.02);
            let bins = [random.decile(), random.decile(), random.decile()];
            watch.request(*rho, is_canary, is_failed, is_refused, bins) >= 1.0 / alpha
        })
    })
}

/// The canary's requests until a version that fails more often than stable is rolled back.
pub(super) fn requests_to_detect(random: &mut Random, rho: f64, stable: f64, canary: f64, alpha: f64) -> u64 {
    let (mut watch, mut requests) = (Watch::new(), 0);
    loop {
        let is_canary = random.is_below(rho);
        requests += u64::from(is_canary);
        let is_failed = random.is_below(if is_canary { canary } else { stable });
        let is_refused = random.is_below(0.02);
        let bins = [random.decile(), random.decile(), random.decile()];
        if watch.request(rho, is_canary, is_failed, is_refused, bins) >= 1.0 / alpha {
            return requests;
        }
    }
}

/// The median of `runs` of [`requests_to_detect`].
pub(super) fn median_to_detect(runs: u64, rho: f64, stable: f64, canary: f64, alpha: f64) -> u64 {
    let mut found: Vec<_> =
        (0..runs).map(|seed| requests_to_detect(&mut Random::new(seed + 1), rho, stable, canary, alpha)).collect();
    found.sort_unstable();
    found[found.len() / 2]
}

/// How many of `runs` are rolled back without cause.
pub(super) fn false_rollbacks(runs: u64, shares: &[f64], requests: usize, alpha: f64) -> u64 {
    let is_false = |seed: &u64| is_falsely_rolled_back(&mut Random::new(*seed), shares, requests, alpha);
    (1..=runs).filter(is_false).count() as u64
}
