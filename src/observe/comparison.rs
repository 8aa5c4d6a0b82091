//! What is counted for a rollout on the way of a request: a few atomic additions, without a lock.
//!
//! One [`Comparison`] lives as long as one step. A request that began in an earlier step counts into the
//! comparison of that step, which nobody reads any more: under "no difference" that says nothing of its arm.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use super::answer::Reading;
use crate::{
    domain::{Percent, Tensor},
    fault::ErrorCode,
    rollout::{Cell, Cuts, Outcome, Pair, SAMPLE, Segment, Stream, bucket, cell},
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
            sample: Sample::new(),
            keys: Keys::new(keys),
            fresh: ByArm::new(segment.fresh.cells()),
            keyed: ByArm::new(segment.keyed.cells()),
            requests: [seen.requests.stable, seen.requests.canary].map(AtomicU64::new),
            failures: [seen.failures.stable, seen.failures.canary].map(AtomicU64::new),
            latency: ByArm::new(&seen.latency),
        }
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

    /// The edges of the bins of latencies and scores. They are cut once enough of stable was seen, and never
    /// again; from then on requests are counted by them. `score`: deciles of the scores where they are known.
    pub fn cuts(&self, score: Option<&[f64]>) -> Option<&Cuts> {
        if !self.sample.is_full() {
            return self.cuts.get();
        }
        let cut = || {
            let (latencies, scores) = self.sample.values();
            Cuts::of_sample(latencies, scores, score.map(<[f64]>::to_vec))
        };
        Some(self.cuts.get_or_init(cut))
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
        let Some(cuts) = comparison.cuts.get() else {
            if self.arm == Arm::Stable {
                comparison.sample.add(ran, comparison.reading.score(outputs));
            }
            return self.count_class(outputs);
        };
        self.count(cuts.latency_cell(ran));
        if comparison.reading.score_output().is_some() {
            self.count(cuts.score_cell(comparison.reading.score(outputs)));
        }
        self.count_class(outputs);
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

    fn count_class(&self, outputs: &[Tensor]) {
        if self.comparison.reading.has_class() {
            self.count(cell::class(self.comparison.reading.class(outputs)));
        }
    }

    fn count(&self, cell: Cell) {
        match self.stream {
            Some(Stream::Fresh) => self.comparison.fresh.add(self.arm, cell.index()),
            Some(Stream::Keyed) => self.comparison.keyed.add(self.arm, cell.index()),
            None => {}
        }
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

/// The first answers of stable, for [`Comparison::cut`].
#[derive(Debug)]
struct Sample {
    taken: AtomicUsize,
    /// Nanoseconds; 0: not written yet.
    latencies: Box<[AtomicU64]>,
    /// The bits of floats; NaN: none.
    scores: Box<[AtomicU64]>,
}

impl Sample {
    fn new() -> Self {
        let filled = |value: u64| (0..SAMPLE).map(|_| AtomicU64::new(value)).collect();
        Self { taken: AtomicUsize::new(0), latencies: filled(0), scores: filled(f64::NAN.to_bits()) }
    }

    fn add(&self, latency: Duration, score: Option<f64>) {
        // Checked first, so that the number does not grow for ever.
        if self.is_full() {
            return;
        }
        let place = self.taken.fetch_add(1, AcqRel);
        if let (Some(slot), Some(score_slot)) = (self.latencies.get(place), self.scores.get(place)) {
            score_slot.store(score.unwrap_or(f64::NAN).to_bits(), Release);
            slot.store(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1), Release);
        }
    }

    fn is_full(&self) -> bool {
        self.taken.load(Acquire) >= SAMPLE
    }

    /// What is written: a value that another thread is just writing may be missing.
    fn values(&self) -> (Vec<Duration>, Vec<f64>) {
        let latencies = self.latencies.iter().map(|slot| slot.load(Acquire)).filter(|nanos| *nanos > 0);
        let scores = self.scores.iter().map(|slot| f64::from_bits(slot.load(Acquire)));
        (latencies.map(Duration::from_nanos).collect(), scores.filter(|score| !score.is_nan()).collect())
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
            let request = Compared::new(Arc::clone(&comparison), Arm::Stable, Some(Stream::Fresh));
            request.executed(&answer(0, n as f32 / 200.0), millis(n + 1));
            request.ended(Some(Ok(())));
        }
        let cuts = comparison.cuts(None).unwrap();
        assert_eq!((cuts.latency.len(), cuts.score.len()), (9, 9));
        assert_eq!(comparison.cuts(Some(&[0.5])), Some(cuts), "once");
        let request = Compared::new(Arc::clone(&comparison), Arm::Canary, Some(Stream::Fresh));
        request.executed(&answer(1, 0.99), millis(500));
        request.ended(Some(Ok(())));

        let (segment, _) = comparison.snapshot();
        assert_eq!(segment.fresh.get(cell::outcome(Outcome::Ok)), Pair::new(200, 1));
        // The sample is no evidence of latencies and scores.
        assert_eq!(segment.fresh.get(cell::latency(9)), Pair::new(0, 1));
        assert_eq!(segment.fresh.get(cell::score(9)), Pair::new(0, 1));
        assert_eq!(
            [segment.fresh.get(cell::class(Some(0))), segment.fresh.get(cell::class(Some(1)))],
            [Pair::new(200, 0), Pair::new(0, 1)]
        );
        assert_eq!(segment.seen.requests, Pair::new(200, 1));
        assert_eq!(segment.seen.latency.iter().copied().sum::<Pair>(), Pair::new(200, 1));
        assert_eq!(segment.keyed.requests(), Pair::default());
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
        assert_eq!(comparison.snapshot().0.seen.requests, Pair::new(4_000, 0));
        assert_eq!(comparison.cuts(None).unwrap().score, [0.5]);
    }
}
