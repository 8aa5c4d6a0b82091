//! What is counted while a rollout runs: requests by arm and by what came of them.

use super::latency::BUCKETS;
use crate::domain::Percent;

/// A count on each arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pair {
    pub stable: u64,
    pub canary: u64,
}

impl Pair {
    #[must_use]
    pub fn new(stable: u64, canary: u64) -> Self {
        Self { stable, canary }
    }

    #[must_use]
    pub fn all(self) -> u64 {
        self.stable + self.canary
    }
}

impl std::ops::Add for Pair {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { stable: self.stable + other.stable, canary: self.canary + other.canary }
    }
}

impl std::iter::Sum for Pair {
    fn sum<I: Iterator<Item = Self>>(pairs: I) -> Self {
        pairs.fold(Self::default(), std::ops::Add::add)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The model failed, or its version was not there any more.
    Failed,
    /// The deadline passed, or the caller went away.
    Timeout,
    /// Refused since too much was waiting.
    Overloaded,
    /// Refused as the client's fault.
    Refused,
}

/// The place of one count. Every request has one place in each of the four groups, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell(usize);

impl Cell {
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// The groups of cells, one after the other.
pub mod cell {
    use std::ops::Range;

    use super::{Cell, Outcome};

    pub const OUTCOMES: Range<usize> = 0..5;
    /// Tenths of the stable version's latency, or fewer.
    pub const LATENCY: Range<usize> = 5..15;
    /// Classes, 31 to a round: beyond 30 they share bins, so that models of many classes are told apart too. Then negative
    /// labels, and answers without a class.
    pub const CLASS: Range<usize> = 15..48;
    /// Deciles of a score, scores that are no finite number, and answers without one.
    pub const SCORE: Range<usize> = 48..60;
    /// All of them.
    pub const CELLS: usize = 60;

    /// The class that stands for all negative labels.
    pub const NEGATIVE: u64 = u64::MAX;

    #[must_use]
    pub fn outcome(outcome: Outcome) -> Cell {
        Cell(OUTCOMES.start + outcome as usize)
    }

    /// `bin` counts from 0; what is beyond the last bin belongs to it.
    #[must_use]
    pub fn latency(bin: usize) -> Cell {
        Cell(LATENCY.start + bin.min(LATENCY.len() - 1))
    }

    /// `None`: an answer without a class.
    #[must_use]
    pub fn class(class: Option<u64>) -> Cell {
        let bins = CLASS.len() - 2;
        let place = match class {
            None => bins + 1,
            Some(NEGATIVE) => bins,
            Some(class) => usize::try_from(class % bins as u64).unwrap_or(bins),
        };
        Cell(CLASS.start + place)
    }

    #[must_use]
    pub fn score(decile: usize) -> Cell {
        Cell(SCORE.start + decile.min(SCORE.len() - 3))
    }

    #[must_use]
    pub fn score_not_finite() -> Cell {
        Cell(SCORE.end - 2)
    }

    #[must_use]
    pub fn score_absent() -> Cell {
        Cell(SCORE.end - 1)
    }
}

/// Counts of every [`Cell`], by arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(Vec<Pair>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![Pair::default(); cell::CELLS])
    }
}

impl Counts {
    #[must_use]
    pub fn get(&self, cell: Cell) -> Pair {
        self.0[cell.0]
    }

    #[must_use]
    pub fn group(&self, range: std::ops::Range<usize>) -> &[Pair] {
        &self.0[range]
    }

    /// All cells, in their order.
    #[must_use]
    pub fn cells(&self) -> &[Pair] {
        &self.0
    }

    pub fn cells_mut(&mut self) -> &mut [Pair] {
        &mut self.0
    }

    /// Requests that failed in any way that is not the client's fault.
    #[must_use]
    pub fn failures(&self) -> Pair {
        [Outcome::Failed, Outcome::Timeout, Outcome::Overloaded]
            .map(|one| self.get(cell::outcome(one)))
            .into_iter()
            .sum()
    }

    #[must_use]
    pub fn refused(&self) -> Pair {
        self.get(cell::outcome(Outcome::Refused))
    }

    #[must_use]
    pub fn requests(&self) -> Pair {
        self.group(cell::OUTCOMES).iter().copied().sum()
    }
}

/// How the arm of a request is drawn, which settles what its coin is worth as evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// By an id that the gateway made: a coin of its own.
    Fresh,
    /// By a routing key or an id of the client: the same coin for all requests with that key.
    Keyed,
}

/// Every request of a step, those that repeat a key too: what the plain limits look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Requests that were not refused as the client's fault.
    pub requests: Pair,
    pub failures: Pair,
    /// Requests by [`super::bucket`] of their latency, by arm.
    pub latency: Vec<Pair>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { requests: Pair::default(), failures: Pair::default(), latency: vec![Pair::default(); BUCKETS] }
    }
}

/// The counts of one step of a rollout, within which the canary's share does not change.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub percent: Percent,
    /// The share of the step before: keys below it were in the canary already, so that their arm in
    /// this step is no coin any more.
    pub floor: Percent,
    pub fresh: Counts,
    /// The first request of each key whose place is not below `floor`.
    pub keyed: Counts,
    pub seen: Seen,
}

impl Segment {
    #[must_use]
    pub fn new(percent: Percent, floor: Percent) -> Self {
        let (fresh, keyed, seen) = (Counts::default(), Counts::default(), Seen::default());
        Self { percent, floor, fresh, keyed, seen }
    }

    /// The probability that a request of this stream, if it counts as evidence, went to the canary
    /// when nothing but the coin decides.
    #[must_use]
    pub fn share(&self, stream: Stream) -> f64 {
        let (percent, floor) = (self.percent.get() / 100.0, self.floor.get() / 100.0);
        match stream {
            Stream::Fresh => percent,
            Stream::Keyed if floor >= 1.0 => 1.0,
            Stream::Keyed => ((percent - floor) / (1.0 - floor)).clamp(0.0, 1.0),
        }
    }

    /// Both streams: the share of the canary, and the counts.
    #[must_use]
    pub fn streams(&self) -> [(f64, &Counts); 2] {
        [(self.share(Stream::Fresh), &self.fresh), (self.share(Stream::Keyed), &self.keyed)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(value: f64) -> Percent {
        Percent::new(value).unwrap()
    }

    #[test]
    fn cells_of_the_groups_do_not_overlap() {
        assert_eq!(cell::outcome(Outcome::Refused).index(), cell::OUTCOMES.end - 1);
        assert_eq!([cell::latency(0).index(), cell::latency(99).index()], [cell::LATENCY.start, cell::LATENCY.end - 1]);
        let class = |class| cell::class(class).index() - cell::CLASS.start;
        assert_eq!(
            [class(Some(0)), class(Some(30)), class(Some(32)), class(Some(cell::NEGATIVE)), class(None)],
            [0, 30, 1, 31, 32]
        );
        assert_eq!(cell::score(10).index(), cell::score(9).index());
        assert!(
            cell::score_not_finite().index() > cell::score(9).index() && cell::score_absent().index() < cell::CELLS
        );
    }

    #[test]
    fn coin_of_a_key_is_the_share_that_is_added() {
        let first = Segment::new(percent(1.0), percent(0.0));
        assert_eq!((first.share(Stream::Fresh), first.share(Stream::Keyed)), (0.01, 0.01));
        let second = Segment::new(percent(5.0), percent(1.0));
        assert!((second.share(Stream::Keyed) - 0.04 / 0.99).abs() < 1e-15);
        for floor in [50.0, 100.0] {
            let last = Segment::new(percent(100.0), percent(floor));
            assert!((last.share(Stream::Keyed) - 1.0).abs() < 1e-15);
        }
    }
}
