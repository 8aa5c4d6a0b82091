//! What is counted for a rollout on the way of a request: a few atomic additions, without a lock.
//!
//! One [`Comparison`] lives as long as one step. A request that began in an earlier step counts into the
//! comparison of that step, which nobody reads any more: under "no difference" that says nothing of its arm.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use super::answer::Reading;
use crate::{
    domain::{Percent, Tensor},
    fault::ErrorCode,
    rollout::{Cell, Cuts, Outcome, Pair, SAMPLE, Segment, Stream, bucket, cell, score_cell},
};

/// Which version answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    Stable,
    Canary,
}

/// The counters of one step of a rollout.
#[derive(Debug)]
pub struct Comparison {
    percent: Percent,
    floor: Percent,
    reading: Reading,
    cuts: OnceLock<Cuts>,
    /// The edges between scores where they are known before any answer.
    deciles: Option<Vec<f64>>,
    sample: Sample,
    keys: Keys,
    fresh: ByArm,
    keyed: ByArm,
    requests: [AtomicU64; 2],
    failures: [AtomicU64; 2],
    latency: ByArm,
}

impl Comparison {
    /// Goes on from `segment`, whose keys are those that `keys` remembers (empty: none yet).
    #[must_use]
    pub fn new(segment: &Segment, cuts: Option<&Cuts>, reading: Reading, keys: &[u8]) -> Self {
        let seen = &segment.seen;
        Self {
            percent: segment.percent,
            floor: segment.floor,
            reading,
            cuts: cuts.cloned().map(OnceLock::from).unwrap_or_default(),
            deciles: cuts.map(|cuts| cuts.score.clone()),
            sample: Sample::new(),
            keys: Keys::new(keys),
            fresh: ByArm::new(segment.fresh.cells()),
            keyed: ByArm::new(segment.keyed.cells()),
            requests: [seen.requests.stable, seen.requests.canary].map(AtomicU64::new),
            failures: [seen.failures.stable, seen.failures.canary].map(AtomicU64::new),
            latency: ByArm::new(&seen.latency),
        }
    }

    /// Counts scores from the first one on, between these edges. Where edges were cut already, those stay.
    #[must_use]
    pub fn with_deciles(mut self, deciles: Option<Vec<f64>>) -> Self {
        self.deciles = self.deciles.or(deciles);
        self
    }

    /// The share below which keys were on the canary before this step.
    #[must_use]
    pub fn floor(&self) -> Percent {
        self.floor
    }

    /// True for the first request of a key in this step. Two keys may share a place: then the second one gives
    /// no evidence, which costs some of it, and no validity, since the place does not depend on the arm.
    pub fn is_first(&self, place: u64) -> bool {
        self.keys.is_first(place)
    }

    /// The counts so far, and the keys that are in them.
    #[must_use]
    pub fn snapshot(&self) -> (Segment, Vec<u8>) {
        let mut segment = Segment::new(self.percent, self.floor);
        self.fresh.read(segment.fresh.cells_mut());
        self.keyed.read(segment.keyed.cells_mut());
        let pair = |counters: &[AtomicU64; 2]| Pair::new(counters[0].load(Acquire), counters[1].load(Acquire));
        segment.seen.requests = pair(&self.requests);
        segment.seen.failures = pair(&self.failures);
        self.latency.read(&mut segment.seen.latency);
        // The keys last: a key is remembered before it is counted, so that none can be counted again
        // after a restart from these two.
        let keys = self.keys.bytes();
        (segment, keys)
    }

    /// The edges of the bins of latencies and scores; `None` until they are cut.
    pub fn cuts(&self) -> Option<&Cuts> {
        self.cuts.get()
    }

    /// Cuts the edges, once in a rollout, and counts the answers that they are cut from.
    fn cut(&self) -> &Cuts {
        self.cuts.get_or_init(|| {
            let answers = self.sample.take();
            let latencies = answers.iter().map(|answer| answer.latency).collect();
            let scores = answers.iter().filter_map(|answer| answer.score).collect();
            let cuts = Cuts::of_sample(latencies, scores, self.deciles.clone());
            for answer in &answers {
                self.count_by(&cuts, answer);
            }
            cuts
        })
    }

    fn count_by(&self, cuts: &Cuts, answer: &Ran) {
        self.count(answer.arm, answer.stream, cuts.latency_cell(answer.latency));
        // Where they were known before, it is counted already.
        if self.deciles.is_none() && self.reading.score_output().is_some() {
            self.count(answer.arm, answer.stream, cuts.score_cell(answer.score));
        }
    }

    fn count(&self, arm: Arm, stream: Option<Stream>, cell: Cell) {
        match stream {
            Some(Stream::Fresh) => self.fresh.add(arm, cell.index()),
            Some(Stream::Keyed) => self.keyed.add(arm, cell.index()),
            None => {}
        }
    }

    /// Where classes and scores are read.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }
}

/// One request of a rollout.
#[derive(Debug)]
pub struct Compared {
    comparison: Arc<Comparison>,
    arm: Arm,
    /// `None`: it is no evidence, since its arm is no coin of its own.
    stream: Option<Stream>,
}

impl Compared {
    #[must_use]
    pub fn new(comparison: Arc<Comparison>, arm: Arm, stream: Option<Stream>) -> Self {
        Self { comparison, arm, stream }
    }

    /// How its arm was drawn; `None`: it is no evidence.
    #[must_use]
    pub fn stream(&self) -> Option<Stream> {
        self.stream
    }

    /// The model ran: `ran` is its time in the queue and in the model.
    pub(super) fn executed(&self, outputs: &[Tensor], ran: Duration) {
        let comparison = &self.comparison;
        comparison.latency.add(self.arm, bucket(ran));
        if comparison.reading.has_class() {
            self.count(cell::class(comparison.reading.class(outputs)));
        }
        let answer = Ran { arm: self.arm, stream: self.stream, latency: ran, score: comparison.reading.score(outputs) };
        if let Some(deciles) = &comparison.deciles
            && comparison.reading.score_output().is_some()
        {
            self.count(score_cell(deciles, answer.score));
        }
        match comparison.cuts.get() {
            Some(cuts) => comparison.count_by(cuts, &answer),
            None => match comparison.sample.add(&answer) {
                Added::More => {}
                Added::Last => {
                    comparison.cut();
                }
                Added::No => comparison.count_by(comparison.cut(), &answer),
            },
        }
    }

    /// The request is over; `None`: its caller went away.
    pub(super) fn ended(&self, outcome: Option<Result<(), ErrorCode>>) {
        let outcome = match outcome {
            Some(Ok(())) => Outcome::Ok,
            None | Some(Err(ErrorCode::DeadlineExceeded)) => Outcome::Timeout,
            Some(Err(ErrorCode::Internal | ErrorCode::Unavailable)) => Outcome::Failed,
            Some(Err(ErrorCode::Overloaded)) => Outcome::Overloaded,
            Some(Err(_)) => Outcome::Refused,
        };
        let comparison = &self.comparison;
        if outcome != Outcome::Refused {
            comparison.requests[self.arm as usize].fetch_add(1, Release);
        }
        if outcome.is_failure() {
            comparison.failures[self.arm as usize].fetch_add(1, Release);
        }
        self.count(cell::outcome(outcome));
    }

    fn count(&self, cell: Cell) {
        self.comparison.count(self.arm, self.stream, cell);
    }
}

/// Requests of simulated rollouts.
#[cfg(test)]
impl Compared {
    pub(crate) fn ran(&self, outputs: &[Tensor], ran: Duration) {
        self.executed(outputs, ran);
    }

    pub(crate) fn end(&self, outcome: Result<(), ErrorCode>) {
        self.ended(Some(outcome));
    }
}

/// Counters by arm and place.
#[derive(Debug)]
struct ByArm([Box<[AtomicU64]>; 2]);

impl ByArm {
    fn new(counts: &[Pair]) -> Self {
        let of = |arm: fn(&Pair) -> u64| counts.iter().map(|pair| AtomicU64::new(arm(pair))).collect();
        Self([of(|pair| pair.stable), of(|pair| pair.canary)])
    }

    fn add(&self, arm: Arm, place: usize) {
        self.0[arm as usize][place].fetch_add(1, Release);
    }

    fn read(&self, counts: &mut [Pair]) {
        for ((slot, stable), canary) in counts.iter_mut().zip(&self.0[0]).zip(&self.0[1]) {
            *slot = Pair::new(stable.load(Acquire), canary.load(Acquire));
        }
    }
}

/// Which keys were seen: one bit for each place of their hash, 16 KiB.
#[derive(Debug)]
struct Keys(Box<[AtomicU64]>);

impl Keys {
    const BITS: u64 = 1 << 17;

    fn new(bytes: &[u8]) -> Self {
        let words = usize::try_from(Self::BITS / 64).expect("a few thousand");
        let kept = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        Self(kept.chain(std::iter::repeat(0)).take(words).map(AtomicU64::new).collect())
    }

    fn is_first(&self, place: u64) -> bool {
        let (place, bit) = (place % Self::BITS, 1 << (place % 64));
        let word = &self.0[usize::try_from(place / 64).unwrap_or(0)];
        // Most keys come again: reading does not take the cache line away from other cores.
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, AcqRel) & bit == 0
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.load(Acquire).to_le_bytes()).collect()
    }
}

/// An answer, for latency and score.
#[derive(Debug, Clone, Copy)]
struct Ran {
    arm: Arm,
    stream: Option<Stream>,
    latency: Duration,
    score: Option<f64>,
}

/// The first answers of both arms, for [`Comparison::cut`].
#[derive(Debug)]
struct Sample {
    taken: AtomicUsize,
    places: Box<[Place]>,
}

/// The place of one answer.
#[derive(Debug, Default)]
struct Place {
    /// Nanoseconds; 0: not written yet; [`GONE`]: taken out, and closed.
    latency: AtomicU64,
    /// The bits of a float; of NaN [`NO_SCORE`] where there is none.
    score: AtomicU64,
    /// Arm and stream, see [`tag`].
    tag: AtomicU8,
}

const GONE: u64 = u64::MAX;
/// A NaN that no model answers.
const NO_SCORE: u64 = 0x7ff8_7469_6465_6761;

/// What became of an answer that was offered to a [`Sample`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Added {
    /// There is room for more.
    More,
    /// It took the last place.
    Last,
    /// The sample was full, or was taken meanwhile.
    No,
}

fn tag(arm: Arm, stream: Option<Stream>) -> u8 {
    let stream = match stream {
        None => 0,
        Some(Stream::Fresh) => 2,
        Some(Stream::Keyed) => 4,
    };
    stream + arm as u8
}

impl Sample {
    fn new() -> Self {
        Self { taken: AtomicUsize::new(0), places: (0..SAMPLE).map(|_| Place::default()).collect() }
    }

    fn add(&self, answer: &Ran) -> Added {
        let at = self.taken.fetch_add(1, AcqRel);
        let Some(place) = self.places.get(at) else { return Added::No };
        place.score.store(answer.score.map_or(NO_SCORE, f64::to_bits), Relaxed);
        place.tag.store(tag(answer.arm, answer.stream), Relaxed);
        let nanos = u64::try_from(answer.latency.as_nanos()).unwrap_or(GONE).clamp(1, GONE - 1);
        match place.latency.compare_exchange(0, nanos, AcqRel, Relaxed) {
            Ok(_) if at + 1 == SAMPLE => Added::Last,
            Ok(_) => Added::More,
            // Another thread cuts already; it has left this place out.
            Err(_) => Added::No,
        }
    }

    /// Takes out what is written, and closes every place: an answer is either among these or counts by itself.
    fn take(&self) -> Vec<Ran> {
        let take = |place: &Place| {
            let nanos = place.latency.swap(GONE, AcqRel);
            if nanos == 0 || nanos == GONE {
                return None;
            }
            let (score, tag) = (place.score.load(Relaxed), place.tag.load(Relaxed));
            let arm = if tag & 1 == Arm::Canary as u8 { Arm::Canary } else { Arm::Stable };
            let stream = [None, Some(Stream::Fresh), Some(Stream::Keyed)][usize::from(tag / 2).min(2)];
            let score = (score != NO_SCORE).then(|| f64::from_bits(score));
            Some(Ran { arm, stream, latency: Duration::from_nanos(nanos), score })
        };
        self.places.iter().filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DataType, Dim, Shape, Signature, TensorSpec};

    fn percent(value: f64) -> Percent {
        Percent::new(value).unwrap()
    }

    fn reading() -> Reading {
        let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.into(),
            optional: false,
        };
        let outputs =
            vec![spec("label", DataType::Int64, &[Dim::Any]), spec("p", DataType::Fp32, &[Dim::Any, Dim::Fixed(2)])];
        Reading::of(&Signature { inputs: vec![], outputs })
    }

    fn answer(class: i64, score: f32) -> [Tensor; 2] {
        let label =
            Tensor::plain("label", DataType::Int64, Shape::new(vec![1]).unwrap(), class.to_le_bytes().to_vec().into());
        let bytes: Vec<u8> = [1.0 - score, score].iter().flat_map(|value| value.to_le_bytes()).collect();
        let p = Tensor::plain("p", DataType::Fp32, Shape::new(vec![1, 2]).unwrap(), bytes.into());
        [label.unwrap(), p.unwrap()]
    }

    fn comparison() -> Arc<Comparison> {
        Arc::new(Comparison::new(&Segment::new(percent(5.0), percent(1.0)), None, reading(), &[]))
    }

    #[test]
    fn request_counts_once_in_each_group() {
        let comparison = comparison();
        let millis = Duration::from_millis;
        for n in 0..200_u64 {
            assert_eq!(comparison.cuts().is_some(), n >= 100);
            let request = Compared::new(Arc::clone(&comparison), Arm::Stable, Some(Stream::Fresh));
            request.executed(&answer(0, n as f32 / 200.0), millis(n + 1));
            request.ended(Some(Ok(())));
        }
        let cuts = comparison.cuts().unwrap();
        assert_eq!((cuts.latency.len(), cuts.score.len()), (9, 9));
        let request = Compared::new(Arc::clone(&comparison), Arm::Canary, Some(Stream::Fresh));
        request.executed(&answer(1, 0.99), millis(500));
        request.ended(Some(Ok(())));

        let (segment, _) = comparison.snapshot();
        assert_eq!(segment.fresh.get(cell::outcome(Outcome::Ok)), Pair::new(200, 1));
        // The sample, which the edges are cut from, is evidence too: every tenth, and then what is above them all.
        assert_eq!(segment.fresh.get(cell::latency(0)), Pair::new(10, 0));
        assert_eq!(segment.fresh.get(cell::latency(9)), Pair::new(110, 1));
        assert_eq!(segment.fresh.get(cell::score(9)), Pair::new(110, 1));
        assert_eq!(
            [segment.fresh.get(cell::class(Some(0))), segment.fresh.get(cell::class(Some(1)))],
            [Pair::new(200, 0), Pair::new(0, 1)]
        );
        assert_eq!(segment.seen.requests, Pair::new(200, 1));
        assert_eq!(segment.seen.latency.iter().copied().sum::<Pair>(), Pair::new(200, 1));
        assert_eq!(segment.keyed.requests(), Pair::default());
    }

    #[test]
    fn answers_of_both_arms_are_sampled_with_what_they_are() {
        let comparison = comparison();
        let arms = [(Arm::Stable, Some(Stream::Fresh)), (Arm::Canary, Some(Stream::Keyed)), (Arm::Canary, None)];
        for n in 0..102_u16 {
            let (arm, stream) = arms[usize::from(n) % 3];
            let outputs = if n == 1 { Vec::new() } else { answer(0, f32::from(n)).to_vec() };
            Compared::new(Arc::clone(&comparison), arm, stream).executed(&outputs, Duration::from_millis(5));
        }
        let (segment, _) = comparison.snapshot();
        let sum = |counts: &crate::rollout::Counts| counts.group(cell::SCORE).iter().copied().sum::<Pair>();
        assert_eq!((sum(&segment.fresh), sum(&segment.keyed)), (Pair::new(34, 0), Pair::new(0, 34)));
        assert_eq!(segment.keyed.get(cell::score_absent()), Pair::new(0, 1));
        assert_eq!(segment.seen.latency.iter().copied().sum::<Pair>(), Pair::new(34, 68));
    }

    #[test]
    fn scores_count_from_the_first_where_the_deciles_are_known() {
        let segment = Segment::new(percent(50.0), percent(0.0));
        let comparison = Arc::new(Comparison::new(&segment, None, reading(), &[]).with_deciles(Some(vec![0.25, 0.75])));
        for n in 1..=150_u64 {
            let request = Compared::new(Arc::clone(&comparison), Arm::Canary, Some(Stream::Fresh));
            request.executed(&answer(0, 0.5), Duration::from_millis(n));
            assert_eq!(comparison.snapshot().0.fresh.get(cell::score(1)), Pair::new(0, n));
        }
        assert_eq!(comparison.cuts().unwrap().score, [0.25, 0.75]);
        // The next step goes on with them.
        let next = Comparison::new(&segment, comparison.cuts(), reading(), &[]).with_deciles(Some(vec![0.1]));
        assert_eq!(next.deciles, Some(vec![0.25, 0.75]));
    }

    #[test]
    fn outcomes_are_told_apart() {
        let comparison = comparison();
        let outcomes = [
            Some(Err(ErrorCode::Internal)),
            Some(Err(ErrorCode::Unavailable)),
            Some(Err(ErrorCode::DeadlineExceeded)),
            None,
            Some(Err(ErrorCode::Overloaded)),
            Some(Err(ErrorCode::BadRequest)),
        ];
        for outcome in outcomes {
            Compared::new(Arc::clone(&comparison), Arm::Canary, Some(Stream::Keyed)).ended(outcome);
        }
        let (segment, _) = comparison.snapshot();
        let canary: Vec<u64> = segment.keyed.group(cell::OUTCOMES).iter().map(|pair| pair.canary).collect();
        assert_eq!(canary, [0, 2, 2, 1, 1]);
        assert_eq!((segment.seen.requests.canary, segment.seen.failures.canary), (5, 5));
    }

    #[test]
    fn key_counts_once_also_after_a_restart() {
        let comparison = comparison();
        assert!(comparison.is_first(12_345) && !comparison.is_first(12_345) && comparison.is_first(12_346));
        Compared::new(Arc::clone(&comparison), Arm::Canary, None).ended(Some(Err(ErrorCode::Internal)));
        let (segment, keys) = comparison.snapshot();
        assert_eq!((segment.keyed.failures(), segment.seen.failures), (Pair::default(), Pair::new(0, 1)));

        let again = Comparison::new(&segment, Some(&Cuts::default()), reading(), &keys);
        assert!(!again.is_first(12_345) && again.is_first(12_347));
        assert_eq!(again.snapshot().0, segment);
    }

    #[test]
    fn threads_lose_no_count() {
        let comparison = comparison();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let request = Compared::new(Arc::clone(&comparison), Arm::Stable, Some(Stream::Fresh));
                        request.executed(&answer(0, 0.5), Duration::from_millis(1));
                        request.ended(Some(Ok(())));
                    }
                });
            }
        });
        let (segment, _) = comparison.snapshot();
        assert_eq!(segment.seen.requests, Pair::new(4_000, 0));
        assert_eq!(comparison.cuts().unwrap().score, [0.5, 0.5_f64.next_up()]);
        for group in [cell::LATENCY, cell::CLASS, cell::SCORE] {
            assert_eq!(segment.fresh.group(group).iter().copied().sum::<Pair>(), Pair::new(4_000, 0));
        }
    }
}
