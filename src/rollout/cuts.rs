//! The edges between the bins of latencies and scores, fixed once for a whole rollout.

use std::time::Duration;

use super::{Cell, cell};

/// Inner edges, ascending: bin `i` holds `edges[i-1] ≤ x < edges[i]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cuts {
    pub latency: Vec<Duration>,
    /// Empty where answers have no score.
    pub score: Vec<f64>,
}

/// Answers of stable that are looked at before the edges are cut. They are no evidence themselves:
/// what is counted afterwards knows nothing of them.
pub const SAMPLE: usize = 200;

impl Cuts {
    /// Tenths of what stable was seen to do. `score`: deciles that are known already, of the reference
    /// profile; otherwise those of the sample.
    #[must_use]
    pub fn of_sample(mut latencies: Vec<Duration>, mut scores: Vec<f64>, score: Option<Vec<f64>>) -> Self {
        latencies.sort_unstable();
        scores.retain(|score| score.is_finite());
        scores.sort_unstable_by(f64::total_cmp);
        Self { latency: tenths(&latencies), score: score.unwrap_or_else(|| tenths(&scores)) }
    }

    #[must_use]
    pub fn latency_cell(&self, latency: Duration) -> Cell {
        cell::latency(self.latency.partition_point(|edge| *edge <= latency))
    }

    /// `None`: an answer without a score.
    #[must_use]
    pub fn score_cell(&self, score: Option<f64>) -> Cell {
        match score {
            None => cell::score_absent(),
            Some(score) if !score.is_finite() => cell::score_not_finite(),
            Some(score) => cell::score(self.score.partition_point(|edge| *edge <= score)),
        }
    }
}

/// The values that part a sorted sample into ten; equal ones once.
fn tenths<T: Copy + PartialEq>(sorted: &[T]) -> Vec<T> {
    let mut edges: Vec<T> = (1..10).filter_map(|tenth| sorted.get(sorted.len() * tenth / 10)).copied().collect();
    edges.dedup();
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_part_the_sample_into_tenths() {
        let cuts = Cuts::of_sample((1..=100).map(Duration::from_millis).collect(), vec![0.5, f64::NAN, 0.5], None);
        assert_eq!(cuts.latency.len(), 9);
        let mut bins = [0; 10];
        for millis in 1..=100 {
            bins[cuts.latency_cell(Duration::from_millis(millis)).index() - cell::LATENCY.start] += 1;
        }
        assert_eq!(bins, [10; 10]);
        assert_eq!(cuts.score, [0.5]);
        let score = |score| cuts.score_cell(score).index() - cell::SCORE.start;
        assert_eq!([score(Some(0.4)), score(Some(0.5)), score(Some(f64::NAN)), score(None)], [0, 1, 10, 11]);
    }

    #[test]
    fn deciles_of_a_profile_win_over_the_sample() {
        let cuts = Cuts::of_sample(vec![], vec![1.0, 2.0], Some(vec![0.1, 0.9]));
        assert_eq!((cuts.latency.len(), cuts.score), (0, vec![0.1, 0.9]));
    }
}
