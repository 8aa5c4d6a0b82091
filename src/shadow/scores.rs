//! The distributions of both versions' scores, over bins that the answering version's own scores make.

use crate::monitor::{inner_edges, measures};

/// Rows whose scores make the edges of the bins: their deciles.
const FIRST: usize = 500;

/// Rows by bin, of both versions.
#[derive(Debug, Clone, Default)]
pub(super) struct Scores {
    /// The first rows, until there are enough.
    first: Vec<[f64; 2]>,
    /// Between the bins, ascending; a value equal to an edge belongs to the bin above it.
    edges: Vec<f64>,
    /// One bin more than edges, and one for what is no number.
    bins: [Vec<u64>; 2],
}

impl Scores {
    pub(super) fn add(&mut self, scores: &[[f64; 2]]) {
        for pair in scores {
            if !self.edges.is_empty() {
                self.count(*pair);
                continue;
            }
            self.first.push(*pair);
            if self.first.len() == FIRST {
                self.settle();
            }
        }
    }

    /// Makes the bins, and counts what came before.
    fn settle(&mut self) {
        let first = std::mem::take(&mut self.first);
        let mut sorted: Vec<f64> = first.iter().map(|[live, _]| *live).filter(|score| score.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        self.edges = inner_edges(&sorted);
        if self.edges.is_empty() {
            // Nothing finite: above and below zero tells infinities apart.
            self.edges = vec![0.0];
        }
        self.bins = std::array::from_fn(|_| vec![0; self.edges.len() + 2]);
        for pair in first {
            self.count(pair);
        }
    }

    fn count(&mut self, pair: [f64; 2]) {
        for (bins, score) in self.bins.iter_mut().zip(pair) {
            let bin =
                if score.is_nan() { self.edges.len() + 1 } else { self.edges.partition_point(|edge| *edge <= score) };
            bins[bin] += 1;
        }
    }

    /// The population stability index of the shadow's scores against those of the version that
    /// answered; `None` while the bins are not made.
    pub(super) fn psi(&self) -> Option<f64> {
        let [live, shadow] = &self.bins;
        (!self.edges.is_empty()).then(|| measures::psi(live, shadow))
    }

    pub(super) fn edges(&self) -> &[f64] {
        &self.edges
    }

    pub(super) fn bins(&self) -> &[Vec<u64>; 2] {
        &self.bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evenly(rows: u32, shift: f64) -> Vec<[f64; 2]> {
        (0..rows).map(|row| f64::from(row % 100) / 100.0).map(|score| [score, score + shift]).collect()
    }

    #[test]
    fn equal_scores_have_no_distance_and_shifted_ones_do() {
        let psi = |shift| {
            let mut scores = Scores::default();
            scores.add(&evenly(1000, shift));
            scores.psi().unwrap()
        };
        assert!(psi(0.0).abs() < f64::EPSILON);
        assert!(psi(0.05) > 0.02 && psi(0.3) > 1.0, "{} {}", psi(0.05), psi(0.3));
    }

    #[test]
    fn bins_are_deciles_of_what_answered_and_count_every_row() {
        let mut scores = Scores::default();
        scores.add(&evenly(499, 0.0));
        assert_eq!(scores.psi(), None);
        scores.add(&evenly(501, 0.0));
        assert_eq!((scores.edges().len(), scores.bins()[0].len()), (9, 11));
        assert!(scores.bins().iter().all(|bins| bins.iter().sum::<u64>() == 1000));
    }

    #[test]
    fn scores_that_are_no_numbers_are_a_bin_of_their_own() {
        let mut scores = Scores::default();
        scores.add(&vec![[f64::NAN, f64::INFINITY]; FIRST]);
        assert_eq!(scores.bins(), &[vec![0, 0, 500], vec![0, 500, 0]]);
        assert!(scores.psi().unwrap() > 1.0);
    }
}
