//! Random numbers, the same on every machine, for the self-test; and rows by bin of them, for the tests.

#[cfg(test)]
use statrs::function::gamma::ln_gamma;

/// `SplitMix64` (Steele and others, 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub(super) fn whole(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
impl Random {
    /// From 0 to 1, neither of them.
    pub(super) fn uniform(&mut self) -> f64 {
        ((self.whole() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// How many of `rows` have a property of this probability.
    pub(super) fn binomial(&mut self, rows: u64, probability: f64) -> u64 {
        if rows == 0 || probability <= 0.0 {
            return 0;
        }
        if probability > 0.5 {
            return rows - self.binomial(rows, 1.0 - probability);
        }
        if rows as f64 * probability > 30.0 {
            // The value of one order statistic decides for all rows under or over it (Ahrens and Dieter, 1974).
            let middle = rows / 2 + 1;
            let pivot = self.beta(middle, rows + 1 - middle);
            return if pivot <= probability {
                middle + self.binomial(rows - middle, (probability - pivot) / (1.0 - pivot))
            } else {
                self.binomial(middle - 1, probability / pivot)
            };
        }
        // The gaps between hits are geometric.
        let (log, mut at, mut hits) = ((-probability).ln_1p(), 0.0, 0);
        loop {
            at += (self.uniform().ln() / log).floor() + 1.0;
            if at > rows as f64 {
                return hits;
            }
            hits += 1;
        }
    }

    /// Rows by bin.
    pub(super) fn multinomial(&mut self, rows: u64, shares: &[f64]) -> Vec<u64> {
        let (mut rest, mut share) = (rows, 1.0);
        let bins = shares.iter().map(|&own| {
            let drawn = if own >= share { rest } else { self.binomial(rest, own / share) };
            share -= own;
            rest -= drawn;
            drawn
        });
        let mut bins: Vec<_> = bins.collect();
        // Rounding may leave a hair of a share.
        bins[shares.len() - 1] += rest;
        bins
    }

    /// Rows by bin whose variance is `inflation` times that of [`Random::multinomial`], with the logarithm of
    /// how much likelier they are under that (importance sampling by the Dirichlet-multinomial law).
    pub(super) fn inflated(&mut self, rows: u64, shares: &[f64], inflation: f64) -> (Vec<u64>, f64) {
        let concentration = (rows as f64 - inflation) / (inflation - 1.0);
        let weights: Vec<_> = shares.iter().map(|share| self.gamma(concentration * share)).collect();
        let sum: f64 = weights.iter().sum();
        let drawn: Vec<_> = weights.iter().map(|weight| weight / sum).collect();
        let bins = self.multinomial(rows, &drawn);
        let mut log = ln_gamma(concentration + rows as f64) - ln_gamma(concentration);
        for (&share, &c) in shares.iter().zip(&bins) {
            let (own, c) = (concentration * share, c as f64);
            log += c * share.ln() + ln_gamma(own) - ln_gamma(own + c);
        }
        (bins, log)
    }

    fn beta(&mut self, a: u64, b: u64) -> f64 {
        let (x, y) = (self.gamma(a as f64), self.gamma(b as f64));
        x / (x + y)
    }

    /// Marsaglia and Tsang (2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.uniform().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[test]
fn random_rows_have_the_mean_and_variance_of_their_law() {
    let mut random = Random::new(1);
    for (rows, probability) in [(20, 0.1), (1000, 0.02), (1000, 0.3), (50_000, 0.7)] {
        let runs = 4000;
        let drawn: Vec<_> = (0..runs).map(|_| random.binomial(rows, probability) as f64).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(runs);
        let variance = drawn.iter().map(|drawn| (drawn - mean).powi(2)).sum::<f64>() / f64::from(runs);
        let (expected, spread) = (rows as f64 * probability, rows as f64 * probability * (1.0 - probability));
        assert!((mean - expected).abs() < 4.0 * (spread / f64::from(runs)).sqrt(), "{mean} for {expected}");
        assert!((variance / spread - 1.0).abs() < 0.1, "{variance} for {spread}");
    }
    assert_eq!(random.multinomial(1000, &[0.1; 10]).iter().sum::<u64>(), 1000);
}
