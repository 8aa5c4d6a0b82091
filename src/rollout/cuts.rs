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

/// Answers, of both arms, that are looked at before the edges are cut. They are evidence like all others: the edges are cut from
/// what was answered, whichever arm it was, so that they say nothing of the arms. If the versions do not differ, the
/// arms of these requests are fair coins given all the answers, and so whatever is cut from them.
pub const SAMPLE: usize = 100;

impl Cuts {
    /// Tenths of what was answered. `score`: deciles that are known already, of the reference profile; otherwise those of the
    /// sample.
    #[must_use]
    pub fn of_sample(mut latencies: Vec<Duration>, mut scores: Vec<f64>, score: Option<Vec<f64>>) -> Self {
        latencies.sort_unstable();
        scores.retain(|score| score.is_finite());
        scores.sort_unstable_by(f64::total_cmp);
        Self { latency: tenths(&latencies), score: score.unwrap_or_else(|| set_apart(&tenths(&scores))) }
    }

    #[must_use]
    pub fn latency_cell(&self, latency: Duration) -> Cell {
        cell::latency(self.latency.partition_point(|edge| *edge <= latency))
    }

    /// `None`: an answer without a score.
    #[must_use]
    pub fn score_cell(&self, score: Option<f64>) -> Cell {
        score_cell(&self.score, score)
    }
}

/// The cell of a score between these edges; `None`: an answer without a score.
#[must_use]
pub fn score_cell(edges: &[f64], score: Option<f64>) -> Cell {
    match score {
        None => cell::score_absent(),
        Some(score) if !score.is_finite() => cell::score_not_finite(),
        Some(score) => cell::score(edges.partition_point(|edge| *edge <= score)),
    }
}

/// Where there are fewer edges than deciles, scores have values that come often. Each gets a bin of its own: what is only just above a
/// score that all answers have is not the same.
#[must_use]
pub fn set_apart(edges: &[f64]) -> Vec<f64> {
    let mut room = DECILE_EDGES.saturating_sub(edges.len());
    let mut apart = Vec::with_capacity(DECILE_EDGES);
    for (at, edge) in edges.iter().enumerate() {
        apart.push(*edge);
        let above = edge.next_up();
        if room > 0 && edges.get(at + 1).is_none_or(|next| above < *next) {
            room -= 1;
            apart.push(above);
        }
    }
    apart
}

/// The edges between ten bins.
const DECILE_EDGES: usize = 9;

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
        let score = |score| cuts.score_cell(score).index() - cell::SCORE.start;
        assert_eq!([score(Some(0.4)), score(Some(0.5)), score(Some(f64::NAN)), score(None)], [0, 1, 10, 11]);
        assert_eq!(score(Some(0.500_001)), 2, "all scores were 0.5, so that any other is another");
    }

    #[test]
    fn values_that_come_often_have_a_bin_of_their_own() {
        let above = |edge: f64| edge.next_up();
        assert_eq!(set_apart(&[0.0, 0.5]), [0.0, above(0.0), 0.5, above(0.5)]);
        let deciles: Vec<f64> = (1..10).map(f64::from).collect();
        assert_eq!(set_apart(&deciles), deciles);
        assert_eq!(set_apart(&deciles[..8])[..3], [1.0, above(1.0), 2.0]);
        assert_eq!(set_apart(&deciles[..8]).len(), 9);
        assert_eq!(set_apart(&[]), Vec::<f64>::new());
    }

    #[test]
    fn deciles_of_a_profile_win_over_the_sample() {
        let cuts = Cuts::of_sample(vec![], vec![1.0, 2.0], Some(vec![0.1, 0.9]));
        assert_eq!((cuts.latency.len(), cuts.score), (0, vec![0.1, 0.9]));
    }
}
