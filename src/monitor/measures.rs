//! Distances between two distributions that are given as rows by bin.
//!
//! Throughout, `r` are the reference's rows by bin, `M` their sum, `c` the live rows, `n` their
//! sum, `B` the number of bins; `p = r/M` and `q = c/n`. All functions are pure; they want
//! two slices of one length, each with at least one row. What the verdict needs takes numbers, as effective rows
//! (see [`crate::monitor::Judge`]) need not be whole.

use statrs::function::{
    beta::beta_reg,
    erf::{erfc, erfc_inv},
    gamma::gamma_ur,
};

/// The population stability index, each bin smoothed by half a row:
/// `Σ (q−p)·ln(q/p)` with `p = (r+½)/(M+½B)` and `q = (c+½)/(n+½B)`.
///
/// Symmetric Kullback–Leibler divergence (Jeffreys, 1946); the half row is the Jeffreys prior.
/// With it the null law of [`psi_bias`] holds from small n on, and an empty bin is no infinity.
#[must_use]
pub fn psi(reference: &[u64], live: &[u64]) -> f64 {
    psi_of_numbers(&numbers(reference), &numbers(live))
}

/// The [`psi`] of rows that need not be whole.
#[must_use]
pub fn psi_of_numbers(reference: &[f64], live: &[f64]) -> f64 {
    let (p, q) = (smoothed(reference), smoothed(live));
    p.iter().zip(&q).map(|(p, q)| (q - p) * (q / p).ln()).sum()
}

/// The shares of the bins with half a row added to each: `(r+½)/(M+½B)`.
#[must_use]
pub fn smoothed(rows: &[f64]) -> Vec<f64> {
    let total = rows.iter().sum::<f64>() + 0.5 * rows.len() as f64;
    rows.iter().map(|&rows| (rows + 0.5) / total).collect()
}

/// Rows by bin as numbers.
#[must_use]
pub fn numbers(rows: &[u64]) -> Vec<f64> {
    rows.iter().map(|rows| *rows as f64).collect()
}

/// What the PSI is on average where there is no drift: `(B−1)·(1/n + 1/M)`, with `freedom = B−1`.
///
/// Without drift `PSI / (1/n + 1/M)` follows χ² with `B−1` degrees of freedom (Yurdakul, 2018,
/// Western Michigan University, dissertation 3208).
#[must_use]
pub fn psi_bias(freedom: usize, reference_rows: f64, live_rows: f64) -> f64 {
    freedom as f64 * (1.0 / live_rows + 1.0 / reference_rows)
}

/// An interval that holds the true PSI (of the distributions that the rows were drawn from) with
/// probability `confidence`. Its lower end is 0 where the PSI could be chance. `None` with one bin, which has no PSI.
///
/// Where something drifts, `PSI / (1/n + 1/M)` follows the noncentral χ² law with `B−1` degrees of
/// freedom, whose noncentrality is the true PSI in the same unit; the interval holds every PSI
/// under which the one found would not be in a tail. A large drift spreads more than that law: the unit
/// is then wider by the ratio of the variance of the delta method for two multinomial samples (Agresti,
/// *Categorical Data Analysis*, 3rd ed., 16.1), `Var_q(ln(q/p) + 1 − p/q)/n + Var_p(ln(p/q) + 1 − q/p)/M`,
/// to the law's own, `4·PSI·(1/n + 1/M)`, where a PSI under its mean without drift counts as that. And the half rows draw a large drift towards none, by
/// `½·Σ(ln(p/q) + KL(q‖p))/n` and the like for `M` (the second term of the same expansion): that is given back.
#[must_use]
pub fn psi_interval(reference: &[f64], live: &[f64], confidence: f64) -> Option<(f64, f64)> {
    let freedom = reference.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let (p, q) = (smoothed(reference), smoothed(live));
    let (reference_rows, live_rows) = (reference.iter().sum::<f64>(), live.iter().sum::<f64>());
    let scale = 1.0 / live_rows + 1.0 / reference_rows;
    let drawn = shrinkage(&q, &p) / live_rows + shrinkage(&p, &q) / reference_rows;
    let found = psi_of_numbers(reference, live) + drawn;
    let spread = slope_variance(&q, &p) / live_rows + slope_variance(&p, &q) / reference_rows;
    // What chance gives anyway is no drift that spreads; and where the half rows are all that there is, `found` is a
    // difference of rounding.
    let unit = scale.max(spread / (4.0 * found.max(freedom as f64 * scale)));
    let tail = (1.0 - confidence) / 2.0;
    let low = noncentrality(found / unit, freedom, tail);
    // Rows that agree better than chance would have it say no more than those that agree as well.
    let high = noncentrality((found / unit).max(freedom as f64), freedom, 1.0 - tail);
    Some((unit * low, unit * high))
}

/// By how much half a row in each bin lowers a PSI, times the rows.
fn shrinkage(shares: &[f64], others: &[f64]) -> f64 {
    let logs = || shares.iter().zip(others).map(|(q, p)| (q, (q / p).ln()));
    let divergence: f64 = logs().map(|(q, log)| q * log).sum();
    0.5 * logs().map(|(_, log)| divergence - log).sum::<f64>()
}

/// The variance, over the bins drawn by `shares`, of the slope of the PSI in these shares.
fn slope_variance(shares: &[f64], others: &[f64]) -> f64 {
    let slopes = || shares.iter().zip(others).map(|(&q, &p)| (q, (q / p).ln() + 1.0 - p / q));
    let mean: f64 = slopes().map(|(q, slope)| q * slope).sum();
    slopes().map(|(q, slope)| q * (slope - mean).powi(2)).sum()
}

/// The likelihood-ratio statistic of the two-sample table with half a row added to each cell, as in
/// [`psi`]: `2·Σ observed·ln(observed/expected)`.
///
/// χ² with `B−1` degrees of freedom where nothing drifts (Wilks, 1938). The half row is a
/// correction for continuity: with it the law holds far into the tail, down to five expected rows in a bin.
#[must_use]
pub fn likelihood_ratio(reference: &[f64], live: &[f64]) -> f64 {
    let added = 0.5 * reference.len() as f64;
    let (reference_rows, live_rows) = (reference.iter().sum::<f64>() + added, live.iter().sum::<f64>() + added);
    let live_part = live_rows / (reference_rows + live_rows);
    let cells = reference.iter().zip(live).map(|(&r, &c)| (r + 0.5, c + 0.5));
    let sum: f64 =
        cells.map(|(r, c)| r * (r / ((r + c) * (1.0 - live_part))).ln() + c * (c / ((r + c) * live_part)).ln()).sum();
    // Rounding can make that of equal distributions a hair negative.
    (2.0 * sum).max(0.0)
}

/// The Jensen–Shannon distance to base 2, from 0 to 1: `√(½·KL(p‖m) + ½·KL(q‖m))`, `m = ½(p+q)`
/// (Endres and Schindelin, 2003).
#[must_use]
pub fn jensen_shannon(reference: &[u64], live: &[u64]) -> f64 {
    let information = |share: f64, mean: f64| if share > 0.0 { share * (share / mean).log2() } else { 0.0 };
    let divergence: f64 = shares(reference, live)
        .map(|(p, q)| {
            let mean = f64::midpoint(p, q);
            f64::midpoint(information(p, mean), information(q, mean))
        })
        .sum();
    // Rounding can make the divergence of equal distributions a hair negative.
    divergence.max(0.0).sqrt()
}

/// The Hellinger distance, from 0 to 1: `√(½·Σ(√p−√q)²)` (Hellinger, 1909).
#[must_use]
pub fn hellinger(reference: &[u64], live: &[u64]) -> f64 {
    let squares: f64 = shares(reference, live).map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum();
    (squares / 2.0).sqrt()
}

/// The total variation distance, from 0 to 1: `½·Σ|p−q|`.
#[must_use]
pub fn total_variation(reference: &[u64], live: &[u64]) -> f64 {
    shares(reference, live).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
}

/// The largest difference of a bin's shares, from 0 to 1: `max |q−p|`.
#[must_use]
pub fn l_infinity(reference: &[u64], live: &[u64]) -> f64 {
    shares(reference, live).map(|(p, q)| (q - p).abs()).fold(0.0, f64::max)
}

/// The Kolmogorov–Smirnov distance at the edges between the bins: the largest gap between the
/// two cumulative distributions there. At most the largest bin's share under the exact one.
#[must_use]
pub fn kolmogorov_smirnov(reference: &[u64], live: &[u64]) -> f64 {
    let mut gap: f64 = 0.0;
    shares(reference, live)
        .map(|(p, q)| {
            gap += q - p;
            gap.abs()
        })
        .fold(0.0, f64::max)
}

/// The first Wasserstein distance (earth mover's) of rows that sit at points, in the unit of the points: `∫|F−G|`.
///
/// `at` ascends. With the means of 128 bins, half of them quantiles and half evenly wide, it is within 2 % of the
/// exact distance of the values for a real drift, and within 0.005 standard deviations for a small one.
#[must_use]
pub fn wasserstein(at: &[f64], reference: &[u64], live: &[u64]) -> f64 {
    let mut gap = 0.0;
    let gaps = shares(reference, live).map(|(p, q)| {
        gap += q - p;
        f64::abs(gap)
    });
    at.windows(2).zip(gaps).map(|(pair, gap)| (pair[1] - pair[0]) * gap).sum()
}

/// Pearson's χ² of the two-sample table, and the probability of one as large without drift.
///
/// `Σ (observed−expected)²/expected` over the 2×B table without its empty bins, with `B−1` degrees
/// of freedom; for two bins Yates' correction, as `scipy.stats.chi2_contingency` has it. `None` when fewer
/// than two bins hold anything.
#[must_use]
pub fn chi_square(reference: &[u64], live: &[u64]) -> Option<(f64, f64)> {
    let (reference_rows, live_rows) = (total(reference), total(live));
    let all = reference_rows + live_rows;
    let filled = || reference.iter().zip(live).filter(|(r, c)| **r + **c > 0);
    let freedom = filled().count().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let statistic: f64 = filled()
        .flat_map(|(&r, &c)| {
            let both = (r + c) as f64;
            [(r as f64, both * reference_rows / all), (c as f64, both * live_rows / all)]
        })
        .map(|(observed, expected)| {
            let difference = (observed - expected).abs();
            let corrected = if freedom == 1 { (difference - 0.5).max(0.0) } else { difference };
            corrected * corrected / expected
        })
        .sum();
    Some((statistic, chi_square_tail(statistic, freedom)))
}

/// Cramér's V, from 0 to 1: `√(χ² / (n+M))`, the χ² of [`chi_square`] (Cramér, 1946).
///
/// The smaller side of a 2×B table has one degree of freedom, so nothing else divides. It says how
/// well a row's bin tells whether the row is live; with a reference much larger than the window
/// it stays small. `None` as for [`chi_square`].
#[must_use]
pub fn cramers_v(reference: &[u64], live: &[u64]) -> Option<f64> {
    let (statistic, _) = chi_square(reference, live)?;
    Some((statistic / (total(reference) + total(live))).sqrt())
}

/// The probability that χ² with `freedom` degrees of freedom exceeds `statistic`.
#[must_use]
pub fn chi_square_tail(statistic: f64, freedom: usize) -> f64 {
    if statistic > 0.0 && freedom > 0 { gamma_ur(freedom as f64 / 2.0, statistic / 2.0) } else { 1.0 }
}

/// The value that χ² with `freedom` degrees of freedom exceeds with probability `alpha`; 0 for no freedom.
#[must_use]
pub fn chi_square_critical(alpha: f64, freedom: usize) -> f64 {
    if freedom == 0 {
        return 0.0;
    }
    let mut high = freedom as f64;
    while chi_square_tail(high, freedom) > alpha && high < 1e9 {
        high *= 2.0;
    }
    // The tail falls from 1: halve the interval until it is down to the last digits.
    let mut low = 0.0;
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if chi_square_tail(middle, freedom) > alpha { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The `alpha` whose χ² quantile is `freedom` times the quantile of `F(freedom, spread_freedom)` at `alpha`: what a test
/// by χ² must ask for when the spread that its statistic is divided by is itself estimated, with that many degrees of freedom
/// (Thomas and Rao, 1987).
#[must_use]
pub fn alpha_of_estimated_spread(alpha: f64, freedom: usize, spread_freedom: f64) -> f64 {
    if freedom == 0 {
        return alpha;
    }
    let tail = |statistic: f64| {
        beta_reg(0.5 * spread_freedom, 0.5 * freedom as f64, spread_freedom / (spread_freedom + statistic))
    };
    let mut high = chi_square_critical(alpha, freedom);
    let mut low = high;
    while tail(high) > alpha && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if tail(middle) > alpha { low = middle } else { high = middle }
    }
    chi_square_tail(high, freedom)
}

/// The probability that noncentral χ² exceeds `statistic`, to about three digits (Sankaran, 1963).
#[must_use]
pub fn noncentral_tail(statistic: f64, freedom: usize, noncentrality: f64) -> f64 {
    if statistic <= 0.0 {
        return 1.0;
    }
    let first = freedom as f64 + noncentrality;
    let second = first + noncentrality;
    let power = 1.0 - 2.0 / 3.0 * first * (second + noncentrality) / second.powi(2);
    let spread = second / first.powi(2);
    let skew = (power - 1.0) * (1.0 - 3.0 * power);
    let mean = 1.0 + power * spread * (power - 1.0 - 0.5 * (2.0 - power) * skew * spread);
    let deviation = power * (2.0 * spread).sqrt() * (1.0 + 0.5 * skew * spread);
    normal_tail(((statistic / first).powf(power) - mean) / deviation)
}

/// The noncentrality at which χ² exceeds `statistic` with probability `tail`; 0 when it does so more often anyway.
#[must_use]
pub fn noncentrality(statistic: f64, freedom: usize, tail: f64) -> f64 {
    let exceeds = |noncentrality: f64| noncentral_tail(statistic, freedom, noncentrality) >= tail;
    if exceeds(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 10.0 + 2.0 * statistic);
    while !exceeds(high) && high < 1e15 {
        high *= 2.0;
    }
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if exceeds(middle) { high = middle } else { low = middle }
    }
    f64::midpoint(low, high)
}

/// The probability that a standard normal variable exceeds `value`.
#[must_use]
pub fn normal_tail(value: f64) -> f64 {
    0.5 * erfc(value / std::f64::consts::SQRT_2)
}

/// The value that a standard normal variable stays under with `probability`.
#[must_use]
pub fn normal_quantile(probability: f64) -> f64 {
    -std::f64::consts::SQRT_2 * erfc_inv(2.0 * probability)
}

fn shares(reference: &[u64], live: &[u64]) -> impl Iterator<Item = (f64, f64)> {
    let (reference_rows, live_rows) = (total(reference), total(live));
    reference.iter().zip(live).map(move |(&r, &c)| (r as f64 / reference_rows, c as f64 / live_rows))
}

fn total(rows: &[u64]) -> f64 {
    rows.iter().sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::monitor::{simulation::Random, verdict::normal_bins};

    #[test]
    fn disjoint_distributions_are_as_far_apart_as_can_be() {
        let (reference, live) = ([10, 0], [0, 20]);
        assert!((jensen_shannon(&reference, &live) - 1.0).abs() < 1e-12);
        assert!((hellinger(&reference, &live) - 1.0).abs() < 1e-12);
        assert!((total_variation(&reference, &live) - 1.0).abs() < 1e-12);
        assert!((kolmogorov_smirnov(&reference, &live) - 1.0).abs() < 1e-12);
        assert!(psi(&reference, &live).is_finite());
    }

    #[test]
    fn wasserstein_is_the_way_that_mass_must_go() {
        let at = [0.0, 1.0, 4.0];
        assert!((wasserstein(&at, &[7, 0, 0], &[0, 9, 0]) - 1.0).abs() < 1e-12);
        assert!((wasserstein(&at, &[7, 0, 0], &[0, 0, 9]) - 4.0).abs() < 1e-12);
        assert!((wasserstein(&at, &[5, 0, 5], &[0, 8, 0]) - 2.0).abs() < 1e-12);
        assert!(wasserstein(&at, &[5, 5, 5], &[1, 1, 1]) < 1e-12);
    }

    /// How often the 95 % interval holds the true PSI of a normal feature that moves by `shift` σ.
    fn coverage(bins: usize, rows: u32, shift: f64, runs: u32) -> f64 {
        let (p, q) = (vec![1.0 / bins as f64; bins], normal_bins(bins, shift));
        let truth: f64 = p.iter().zip(&q).map(|(p, q)| (q - p) * (q / p).ln()).sum();
        let mut random = Random::new(u64::from(rows) + bins as u64);
        let mut covered = 0;
        for _ in 0..runs {
            let (reference, live) = (random.multinomial(10_000, &p), random.multinomial(rows.into(), &q));
            let (low, high) = psi_interval(&numbers(&reference), &numbers(&live), 0.95).unwrap();
            covered += u32::from(low <= truth && truth <= high);
        }
        f64::from(covered) / f64::from(runs)
    }

    #[test]
    fn interval_of_the_psi_holds_the_truth_as_often_as_it_says() {
        for bins in [2, 10, 30] {
            for rows in [200, 1000, 5000] {
                for shift in [0.0, 0.3, 1.0] {
                    let covered = coverage(bins, rows, shift, 1000);
                    println!("{bins} bins, {rows} rows, {shift} σ: {covered}");
                    // Two standard errors of 1,000 runs are 0.014.
                    assert!(covered >= 0.93, "{bins} bins, {rows} rows, {shift} σ: {covered}");
                }
            }
        }
    }

    #[test]
    fn interval_of_the_psi_narrows_with_the_rows_and_starts_at_zero() {
        let interval =
            |reference: &[u64], live: &[u64]| psi_interval(&numbers(reference), &numbers(live), 0.95).unwrap();
        let (few, many) = (interval(&[500, 500], &[10, 10]), interval(&[500, 500], &[500, 500]));
        assert!(few.0 == 0.0 && many.0 == 0.0 && few.1 > many.1, "{few:?} {many:?}");
        let (low, high) = interval(&[5000, 5000], &[1000, 3000]);
        let found = psi(&[5000, 5000], &[1000, 3000]);
        assert!(low > 0.2 && low < found && found < high, "{low} {found} {high}");
        assert!((normal_quantile(0.975) - 1.959_963_985).abs() < 1e-8);
    }

    #[test]
    fn interval_of_a_constant_is_narrow_and_one_bin_has_none() {
        // Nothing but the half rows differs. Up to 2 % of 200 such rows may be of the other bin by chance: a PSI of 0.1 to 0.2.
        for (reference, live) in
            [([0.0, 3000.0], [0.0, 1000.0]), ([3000.0, 0.0], [1000.0, 0.0]), ([30_000.0, 0.0], [200.0, 0.0])]
        {
            let (low, high) = psi_interval(&reference, &live, 0.95).unwrap();
            let scale = 1.0 / live.iter().sum::<f64>();
            assert!(low == 0.0 && high > scale && high < 50.0 * scale, "{reference:?} {live:?}: {low} to {high}");
        }
        assert_eq!(psi_interval(&[3000.0], &[1000.0], 0.95), None);
    }

    #[test]
    fn noncentral_chi_square_is_that_of_squared_normal_variables() {
        let mut random = Random::new(3);
        for (freedom, noncentrality, statistic) in [(1, 4.0_f64, 3.8), (9, 20.0, 46.0), (29, 5.0, 30.0)] {
            let runs = 20_000;
            let exceeded = (0..runs).filter(|_| {
                let first = (random.normal() + noncentrality.sqrt()).powi(2);
                first + (1..freedom).map(|_| random.normal().powi(2)).sum::<f64>() > statistic
            });
            let share = exceeded.count() as f64 / f64::from(runs);
            let tail = noncentral_tail(statistic, freedom, noncentrality);
            assert!((share - tail).abs() < 0.015, "{freedom} {noncentrality}: {tail} for {share}");
            let found = super::noncentrality(statistic, freedom, tail);
            assert!((found - noncentrality).abs() < 1e-6, "{found} for {noncentrality}");
        }
        assert!(super::noncentrality(2.0, 9, 0.5).abs() < 1e-12);
    }

    #[test]
    fn chi_square_leaves_out_empty_bins_and_needs_two() {
        assert_eq!(chi_square(&[10, 0, 20], &[3, 0, 9]), chi_square(&[10, 20], &[3, 9]));
        assert_eq!(chi_square(&[10, 0], &[3, 0]), None);
        assert_eq!(cramers_v(&[10, 0], &[3, 0]), None);
    }

    #[test]
    fn chi_square_critical_values_are_those_of_the_tables() {
        for (alpha, freedom, value) in [(0.05, 1, 3.841), (0.01, 9, 21.666), (1e-3, 9, 27.877), (1e-4, 9, 33.720)] {
            let critical = chi_square_critical(alpha, freedom);
            assert!((critical - value).abs() < 1e-3, "{critical} for {value}");
            assert!((chi_square_tail(critical, freedom) - alpha).abs() < alpha * 1e-9);
        }
        assert!(chi_square_critical(0.05, 0) < 1e-12);
    }

    #[test]
    fn estimated_spread_asks_for_the_quantile_of_the_f_law() {
        // F(8, 60) exceeds 2.823 with probability 0.01, F(1, 10) exceeds 10.044: from the tables.
        for (freedom, spread_freedom, quantile) in [(8_u32, 60.0, 2.823), (1, 10.0, 10.044)] {
            let alpha = alpha_of_estimated_spread(0.01, freedom as usize, spread_freedom);
            let critical = chi_square_critical(alpha, freedom as usize);
            assert!((critical / f64::from(freedom) - quantile).abs() < 1e-3, "{critical}");
        }
        // A spread that is known.
        assert!((alpha_of_estimated_spread(1e-8, 9, 1e12) / 1e-8 - 1.0).abs() < 1e-2);
        let far = alpha_of_estimated_spread(1e-8, 9, 300.0);
        assert!(far > 0.0 && far < 5e-9, "{far}");
    }

    proptest! {
        #[test]
        fn psi_is_never_negative_and_zero_for_equal_rows(
            bins in prop::collection::vec((0_u64..10_000, 0_u64..10_000), 1..30),
        ) {
            let (reference, live): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
            prop_assert!(psi(&reference, &live) >= 0.0);
            prop_assert!(psi(&live, &live).abs() < 1e-12);
        }

        #[test]
        fn bounded_distances_keep_their_bounds(
            bins in prop::collection::vec((0_u64..10_000, 0_u64..10_000), 1..30),
        ) {
            let (mut reference, mut live): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
            reference[0] += 1;
            live[0] += 1;
            for distance in [jensen_shannon, hellinger, total_variation, l_infinity, kolmogorov_smirnov] {
                let far = distance(&reference, &live);
                prop_assert!((0.0..=1.0 + 1e-12).contains(&far), "{far}");
                prop_assert!(distance(&live, &live) < 1e-7);
            }
            let (_, p) = chi_square(&reference, &live).unwrap_or((0.0, 1.0));
            prop_assert!((0.0..=1.0).contains(&p), "{p}");
            let association = cramers_v(&reference, &live).unwrap_or(0.0);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&association), "{association}");
            prop_assert!(likelihood_ratio(&numbers(&reference), &numbers(&live)) >= 0.0);
            let (reference_rows, rows) = (total(&reference), total(&live));
            if let Some((low, high)) = psi_interval(&numbers(&reference), &numbers(&live), 0.95) {
                // Far above any PSI that there is: `ln` of the shares' ratio, both ways, and chance.
                let most = 4.0 * (2.0 * reference_rows.max(rows) + reference.len() as f64).ln()
                    + 100.0 * reference.len() as f64 / reference_rows.min(rows);
                prop_assert!(low >= 0.0 && low <= high && high <= most, "{low} to {high}, at most {most}");
            }
        }
    }
}
