//! Rows that depend on one another: one user sends many alike, a batch job sends sorted ones.
//!
//! So many rows say less than as many independent ones. The *design effect* (Kish, *Survey Sampling*, 1965) says by what
//! factor the shares of the bins vary more; `n` rows are worth `n` divided by it, the effective rows, and a χ² statistic
//! is computed of those (Rao and Scott, 1981 and 1984, the first-order correction). It is estimated from how much
//! the shares differ between sub-windows that follow each other (von Neumann's successive differences, 1941):
//!
//! `φ = Σⱼ hⱼ·Σ_b (q_{j+1,b} − q_{j,b})²/q_b / ((J−1)·(B−1))`, with `hⱼ = nⱼ·nⱼ₊₁/(nⱼ + nⱼ₊₁)`,
//!
//! which is 1 on average where rows are independent, however few there are by cell. Differences of neighbours and not from
//! the mean: a drift that begins within the window is one large difference of `J−1` and not a spread of all of them, so it
//! cannot hide itself; a gradual one is none at all. Two more estimates see what this one does not:
//!
//! - Of the *score*, the logarithm of a row's likelihood ratio `ln(q_b/p_b)`, in place of all bins: one user with many alike
//!   rows among independent ones makes one bin vary, and the mean of all bins hides that where it matters.
//! - Over sub-windows twice as long, and over those of the next longer window before this one: clusters of rows that go on
//!   for longer than a sub-window differ little between neighbours. A drift that begins in the window is not in those before.
//!
//! An estimate counts only where it is over 1 by more than chance (1 in 100), so that independent rows keep their power;
//! the largest that counts is taken.

use crate::monitor::measures::chi_square_tail;

/// Rows by bin of sub-windows that follow each other, the oldest first.
pub type Series = Vec<Vec<u64>>;

/// Neighbouring sub-windows with fewer rows are put together.
const LEAST_ROWS: f64 = 10.0;
/// Fewer sub-windows give no estimate: it would vary by itself by a third and more.
const LEAST_BLOCKS: usize = 20;
/// How often an estimate of independent rows counts.
const BY_CHANCE: f64 = 0.01;

/// By what factor shares vary more than those of independent rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DesignEffect {
    /// At least 1.
    pub(super) value: f64,
    /// The degrees of freedom that it is estimated with; infinite where it is known.
    pub(super) freedom: f64,
}

impl DesignEffect {
    /// That of independent rows.
    pub(super) const NONE: Self = Self { value: 1.0, freedom: f64::INFINITY };

    /// The largest that counts; `None` where no series is long enough. `scores` are by bin.
    ///
    /// The first series is of the window, the second of the time before it. Those that follow are of shorter windows, and
    /// stand in where both are too short: at first a long window has no more rows than they have.
    pub(super) fn estimate(series: &[Series], scores: &[f64]) -> Option<Self> {
        let mut largest = None;
        for (at, sub_windows) in series.iter().enumerate() {
            if at >= 2 && largest.is_some() {
                break;
            }
            let rows = sub_windows.iter().map(|bins| bins.iter().map(|rows| *rows as f64).collect()).collect();
            let blocks = merged(rows);
            // Not of the time before: its sub-windows are long, and a drift that began there would hide behind longer ones.
            let doubled = if at == 1 { Vec::new() } else { blocks.chunks(2).map(sum).collect() };
            for blocks in [blocks, doubled].iter().filter(|blocks| blocks.len() >= LEAST_BLOCKS) {
                let effect = largest.get_or_insert(Self::NONE);
                for found in of_blocks(blocks, scores) {
                    if found.value > effect.value {
                        *effect = found;
                    }
                }
            }
        }
        largest
    }
}

/// The estimates, of all bins and of the score, that are over 1 by more than chance.
fn of_blocks(blocks: &[Vec<f64>], scores: &[f64]) -> Vec<DesignEffect> {
    let all = sum(blocks);
    let rows = all.iter().sum::<f64>();
    let filled = all.iter().filter(|rows| **rows > 0.0).count();
    if filled < 2 {
        return Vec::new();
    }
    let mean_score = |bins: &[f64]| {
        bins.iter().zip(scores).map(|(rows, score)| rows * score).sum::<f64>() / bins.iter().sum::<f64>()
    };
    let centre = mean_score(&all);
    let score_variance =
        all.iter().zip(scores).map(|(rows, score)| rows * (score - centre).powi(2)).sum::<f64>() / rows;
    let (mut of_bins, mut of_score) = (0.0, 0.0);
    for pair in blocks.windows(2) {
        let [before, after] = [0, 1].map(|at| pair[at].iter().sum::<f64>());
        let weight = before * after / (before + after);
        let differences = pair[0].iter().zip(&pair[1]).map(|(b, a)| a / after - b / before);
        let squares = differences.zip(&all).filter(|(_, rows)| **rows > 0.0);
        of_bins += weight * squares.map(|(difference, all)| difference.powi(2) * rows / all).sum::<f64>();
        of_score += weight * (mean_score(&pair[1]) - mean_score(&pair[0])).powi(2);
    }
    let pairs = (blocks.len() - 1) as f64;
    // The variance of a mean of J−1 successive squares, as degrees of freedom.
    let freedom = 2.0 * pairs * pairs / (3.0 * pairs - 1.0);
    let of_all_bins = freedom * (filled - 1) as f64;
    let counts = |value: f64, freedom: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
        let whole = freedom.round() as usize;
        chi_square_tail(value * freedom, whole) < BY_CHANCE
    };
    let mut found = vec![(of_bins / pairs / (filled - 1) as f64, of_all_bins)];
    if score_variance > 0.0 {
        found.push((of_score / pairs / score_variance, freedom));
    }
    found.retain(|(value, freedom)| counts(*value, *freedom));
    // Where the score alone says more, its own few degrees would ask for far too much: it is the largest of several.
    found.into_iter().map(|(value, _)| DesignEffect { value, freedom: of_all_bins }).collect()
}

/// The blocks, neighbours put together until each has rows enough.
fn merged(blocks: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let is_enough = |block: &[f64]| block.iter().sum::<f64>() >= LEAST_ROWS;
    let mut merged: Vec<Vec<f64>> = Vec::with_capacity(blocks.len());
    for block in blocks {
        match merged.last_mut() {
            Some(last) if !is_enough(last) => add(last, &block),
            _ => merged.push(block),
        }
    }
    if let Some(rest) = merged.pop_if(|last| !is_enough(last))
        && let Some(last) = merged.last_mut()
    {
        add(last, &rest);
    }
    merged
}

fn sum(blocks: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = blocks.first().cloned().unwrap_or_default();
    for block in blocks.iter().skip(1) {
        add(&mut sum, block);
    }
    sum
}

fn add(sum: &mut [f64], block: &[f64]) {
    for (sum, rows) in sum.iter_mut().zip(block) {
        *sum += rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::simulation::Random;

    const SCORES: [f64; 4] = [0.3, 0.1, -0.2, -0.4];

    /// Sub-windows whose rows come in clusters of `alike`.
    fn clustered(sub_windows: usize, rows: u64, alike: u64, random: &mut Random) -> Series {
        let one =
            |_| random.multinomial(rows / alike, &[0.25; 4]).into_iter().map(|clusters| clusters * alike).collect();
        (0..sub_windows).map(one).collect()
    }

    fn mean(alike: u64) -> f64 {
        let mut random = Random::new(alike);
        let one = |_| DesignEffect::estimate(&[clustered(60, 40, alike, &mut random)], &SCORES).unwrap().value;
        (0..200).map(one).sum::<f64>() / 200.0
    }

    #[test]
    fn effect_of_clusters_is_their_size_and_of_independent_rows_it_is_one() {
        let (independent, fours, twenties) = (mean(1), mean(4), mean(20));
        println!("{independent:.3} {fours:.3} {twenties:.3}");
        assert!((1.0..1.05).contains(&independent), "{independent}");
        assert!((4.0..5.2).contains(&fours), "{fours}");
        assert!((20.0..26.0).contains(&twenties), "{twenties}");
    }

    #[test]
    fn few_sub_windows_give_no_estimate_and_sparse_ones_are_put_together() {
        let mut random = Random::new(1);
        let estimate = |series: Series| DesignEffect::estimate(&[series], &SCORES);
        assert_eq!(estimate(Vec::new()), None);
        assert_eq!(estimate(clustered(19, 100, 1, &mut random)), None);
        assert!(estimate(clustered(20, 100, 1, &mut random)).is_some());
        // 190 rows in sixty sub-windows are nineteen times ten.
        let sparse: Series = (0..60).map(|at| vec![3 + u64::from(at % 6 == 0), 0, 0, 0]).collect();
        assert_eq!(merged(vec![vec![3.0, 1.0]; 7]), [vec![9.0, 3.0], vec![12.0, 4.0]]);
        assert_eq!(estimate(sparse[..57].to_vec()), None);
        // All rows in one bin vary by nothing.
        assert_eq!(estimate(vec![vec![20, 0, 0, 0]; 60]), Some(DesignEffect::NONE));
    }

    #[test]
    fn beginning_drift_is_no_dependence() {
        let mut random = Random::new(2);
        let mut series: Series = (0..45).map(|_| random.multinomial(100, &[0.25; 4])).collect();
        series.extend((0..15).map(|_| random.multinomial(100, &[0.4, 0.3, 0.2, 0.1])));
        let effect = DesignEffect::estimate(&[series], &SCORES).unwrap();
        assert!(effect.value < 1.5, "{effect:?}");
    }

    #[test]
    fn one_bin_that_comes_in_bursts_is_seen_by_the_score_of_a_difference_in_it() {
        let mut random = Random::new(3);
        // Thirty rows in the first bin in every third sub-window.
        let burst = |at: usize| {
            let mut bins = random.multinomial(90, &[0.25; 4]);
            bins[0] += if at.is_multiple_of(3) { 30 } else { 0 };
            bins
        };
        let series: Series = (0..60).map(burst).collect();
        let of = |scores: [f64; 4]| DesignEffect::estimate(std::slice::from_ref(&series), &scores).unwrap().value;
        assert!(of([0.3, -0.1, -0.1, -0.1]) > 1.5 * of([0.0, 0.3, -0.3, 0.0]));
    }
}
