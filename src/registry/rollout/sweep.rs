//! Rollouts of good and bad versions, over step plans and traffic rates: the real counting and the real state machine, by a
//! simulated clock.

use std::time::UNIX_EPOCH;

use super::*;
use crate::{
    domain::{DataType, Dim, Percent, Shape, Signature, Tensor, TensorSpec},
    fault::ErrorCode,
    observe::{Arm, Compared},
    rollout::Stream,
};

/// `SplitMix64` (Steele and others 2014).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What kind of model is rolled out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Model {
    /// A label and two probabilities; few are above a half.
    Binary,
    /// The same, whose profile has the deciles of the score.
    Profiled,
    /// Probabilities of 40 classes, some much commoner than others.
    Classes,
    /// One number.
    Regression,
    /// A label that is a text.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Good,
    Constant,
    Inverted,
    Shifted,
    Nan,
    Slow,
    Failing,
    Refusing,
    OtherOrder,
    Empty,
}

const BAD: [Kind; 9] = [
    Kind::Constant,
    Kind::Inverted,
    Kind::Shifted,
    Kind::Nan,
    Kind::Slow,
    Kind::Failing,
    Kind::Refusing,
    Kind::OtherOrder,
    Kind::Empty,
];

impl Model {
    /// Whether a version can be bad that way without anything else than the law of its answers changing.
    fn can_be(self, kind: Kind) -> bool {
        match self {
            Self::Binary | Self::Profiled => true,
            // All probabilities are alike shifted or inverted: the classes' order is what there is.
            Self::Classes => !matches!(kind, Kind::Inverted | Kind::Shifted),
            Self::Regression => kind != Kind::OtherOrder,
            Self::Text => !matches!(kind, Kind::Inverted | Kind::Shifted | Kind::Nan),
        }
    }

    fn signature(self) -> Signature {
        let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.into(),
            optional: false,
        };
        let outputs = match self {
            Self::Binary | Self::Profiled => {
                vec![spec("label", DataType::Int64, &[Dim::Any]), spec("p", DataType::Fp32, &[Dim::Any, Dim::Fixed(2)])]
            }
            Self::Classes => vec![spec("p", DataType::Fp32, &[Dim::Any, Dim::Fixed(40)])],
            Self::Regression => vec![spec("y", DataType::Fp32, &[Dim::Any, Dim::Fixed(1)])],
            Self::Text => vec![spec("label", DataType::Bytes, &[Dim::Any])],
        };
        Signature { inputs: vec![], outputs }
    }

    fn deciles(self) -> Option<Vec<f64>> {
        (self == Self::Profiled).then(|| (1..10).map(|tenth| (f64::from(tenth) / 10.0).powi(3)).collect())
    }

    /// The answer to an input from 0 to 1.
    fn answer(self, kind: Kind, x: f64) -> Vec<Tensor> {
        if kind == Kind::Empty {
            return match self {
                Self::Text => vec![text(&[])],
                _ => vec![floats(if self == Self::Regression { "y" } else { "p" }, 2, &[])],
            };
        }
        let score = match kind {
            Kind::Constant => 0.0,
            Kind::Inverted => 1.0 - x.powi(3),
            Kind::Shifted => (x.powi(3) + 0.2).min(1.0),
            Kind::Nan => f64::NAN,
            _ => x.powi(3),
        };
        match self {
            Self::Binary | Self::Profiled => {
                let score = if kind == Kind::OtherOrder { 1.0 - score } else { score };
                vec![label(i64::from(score > 0.5)), floats("p", 2, &[1.0 - score, score])]
            }
            Self::Classes => {
                // Class c with a probability that falls with c.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 39")]
                let class = (x.powi(3) * 40.0) as usize;
                let class = match kind {
                    Kind::Constant => 0,
                    Kind::OtherOrder => 39 - class,
                    _ => class,
                };
                let filler = if kind == Kind::Nan { f64::NAN } else { 0.01 };
                let mut row = vec![filler; 40];
                if kind != Kind::Nan {
                    row[class] = 0.5 + x / 4.0;
                }
                vec![floats("p", 40, &row)]
            }
            Self::Regression => vec![floats("y", 1, &[score * 1e6])],
            Self::Text => vec![text(&[match (kind, x < 0.8) {
                (Kind::Constant, _) | (Kind::OtherOrder, false) => "no",
                (Kind::OtherOrder, true) => "yes",
                (_, is_no) => ["yes", "no"][usize::from(is_no)],
            }])],
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as a model of float32 answers")]
fn floats(name: &str, width: i64, values: &[f64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
    let rows = i64::from(!values.is_empty());
    Tensor::plain(name, DataType::Fp32, Shape::new(vec![rows, width]).unwrap(), bytes.into()).unwrap()
}

fn label(value: i64) -> Tensor {
    let bytes = value.to_le_bytes().to_vec();
    Tensor::plain("label", DataType::Int64, Shape::new(vec![1]).unwrap(), bytes.into()).unwrap()
}

fn text(values: &[&'static str]) -> Tensor {
    let values: Vec<_> = values.iter().map(|value| bytes::Bytes::from_static(value.as_bytes())).collect();
    Tensor::text("label", Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap(), values).unwrap()
}

/// How it ended, and when, in seconds.
#[derive(Debug)]
struct Ended {
    status: Status,
    note: String,
    after: f64,
    requests: u64,
}

/// A rollout as configured by default, but for its steps, at so many requests a second.
struct Case {
    model: Model,
    kind: Kind,
    steps: &'static [f64],
    rate: f64,
    min_requests: u64,
    keys: Option<u32>,
    /// No false alarm may fail a test, and the bad ones are found all the same: one in ten thousand.
    alpha: f64,
    output_tolerance: f64,
    /// The requests after which nobody waits any longer.
    most: u64,
}

impl Case {
    fn run(&self, seed: u64) -> Ended {
        let config = crate::config::RolloutConfig::default();
        let steps = self.steps.iter().map(|step| Percent::new(*step).unwrap()).collect();
        let ask = RolloutAsk {
            steps: Some(steps),
            min_requests: Some(self.min_requests),
            alpha: Some(self.alpha),
            output_tolerance: Some(self.output_tolerance),
            ..RolloutAsk::of(Version::new(2).unwrap())
        };
        let plan = ask.plan(&config).unwrap();
        let rollout = Rollout::start(plan, Version::new(1).unwrap(), UNIX_EPOCH).unwrap();
        let mut kept = Kept::new(rollout, Vec::new());
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let reading = Reading::of(&self.model.signature());
        kept.count(reading.clone(), self.model.deciles());
        // Looks are seldomer than each second, so that the test ends soon; later looks see more.
        let between = (20.0 / self.rate).max(5.0);
        let (mut after, mut due, mut requests) = (0.0, 0.0, 0);
        let vitals =
            Vitals { stable: Presence::Serving, canary: Presence::Serving, drift: Drift::Unknown, worse_quality: None };
        loop {
            after += between;
            due += between * self.rate;
            while due >= 1.0 {
                due -= 1.0;
                requests += 1;
                self.request(kept.live.as_ref().unwrap(), kept.rollout.percent(), &mut random);
            }
            kept.read();
            match kept.rollout.look(Duration::from_secs_f64(between), &vitals) {
                // It waits for what will not come.
                Decision::Hold(_) if requests > self.most => {
                    return Ended { status: kept.rollout.status, note: kept.rollout.note, after, requests };
                }
                Decision::Hold(_) => {}
                Decision::Advance(_) => {
                    kept.advance();
                    kept.count(reading.clone(), self.model.deciles());
                }
                Decision::Promote => {
                    return Ended { status: Status::Completed, note: figures(&kept.rollout), after, requests };
                }
                Decision::RollBack(cause) => {
                    return Ended { status: Status::RolledBack, note: cause.words, after, requests };
                }
            }
        }
    }

    fn request(&self, live: &Arc<Comparison>, share: Percent, random: &mut Random) {
        let (arm, stream) = match self.keys {
            None => (random.uniform() < share.get() / 100.0, Some(Stream::Fresh)),
            Some(keys) => {
                // The place of a key among all is its number; it draws its arm as in `route`.
                let place = (random.uniform() * f64::from(keys)).floor();
                let part = Random((place + 1.0).to_bits()).uniform();
                let was_canary = part < live.floor().get() / 100.0;
                let is_evidence = !was_canary && live.is_first(Random(place.to_bits()).uniform().to_bits());
                (part < share.get() / 100.0, is_evidence.then_some(Stream::Keyed))
            }
        };
        let (arm, kind) = if arm { (Arm::Canary, self.kind) } else { (Arm::Stable, Kind::Good) };
        let request = Compared::new(Arc::clone(live), arm, stream);
        let chance = random.uniform();
        match kind {
            Kind::Failing if chance < 0.3 => return request.end(Err(ErrorCode::Internal)),
            Kind::Refusing if chance < 0.4 => return request.end(Err(ErrorCode::BadRequest)),
            _ => {}
        }
        let millis = if kind == Kind::Slow { 20.0 } else { 5.0 } * (1.0 + random.uniform());
        request.ran(&self.model.answer(kind, random.uniform()), Duration::from_secs_f64(millis / 1e3));
        request.end(Ok(()));
    }

    fn what(&self) -> String {
        let Self { model, kind, steps, rate, min_requests, keys, .. } = self;
        format!("{kind:?} {model:?}, steps {steps:?}, {rate}/s, min_requests {min_requests}, keys {keys:?}")
    }
}

const PLANS: [&[f64]; 10] = [
    &[1.0, 100.0],
    &[2.0, 100.0],
    &[5.0, 100.0],
    &[10.0, 100.0],
    &[25.0, 100.0],
    &[50.0, 100.0],
    &[75.0, 100.0],
    &[95.0, 100.0],
    &[99.0, 100.0],
    &[1.0, 5.0, 25.0, 50.0, 100.0],
];

const MODELS: [Model; 5] = [Model::Binary, Model::Profiled, Model::Classes, Model::Regression, Model::Text];

fn case(model: Model, kind: Kind, steps: &'static [f64], rate: f64) -> Case {
    Case { model, kind, steps, rate, min_requests: 200, keys: None, alpha: 1e-4, output_tolerance: 0.1, most: 400_000 }
}

#[test]
fn no_bad_version_is_promoted() {
    let mut seed = 0;
    for steps in PLANS {
        for model in MODELS {
            for kind in BAD.into_iter().filter(|kind| model.can_be(*kind)) {
                for rate in [0.05, 2.0, 50.0] {
                    seed += 1;
                    let case = case(model, kind, steps, rate);
                    let ended = case.run(seed);
                    assert_eq!(ended.status, Status::RolledBack, "{}: {ended:?}", case.what());
                }
            }
        }
    }
}

#[test]
fn no_bad_version_is_promoted_however_few_requests_are_asked_for() {
    for (seed, min_requests) in [0, 1, 20].into_iter().enumerate() {
        for kind in BAD {
            let case = Case { min_requests, ..case(Model::Binary, kind, &[50.0, 100.0], 0.2) };
            let ended = case.run(seed as u64);
            assert_eq!(ended.status, Status::RolledBack, "{}: {ended:?}", case.what());
        }
    }
}

#[test]
fn every_good_version_is_promoted_when_its_steps_say_so() {
    for (seed, steps) in PLANS.into_iter().enumerate() {
        for (model, rate) in MODELS.into_iter().zip([0.05, 2.0, 50.0, 2.0, 0.5]) {
            let case = case(model, Kind::Good, steps, rate);
            let ended = case.run(seed as u64);
            assert_eq!(ended.status, Status::Completed, "{}: {ended:?}", case.what());
            // Each step lasts its ten minutes, or until its smaller arm has had 200 requests (and a fifth more, by chance).
            let arm = |step: f64| (200.0 * 1.2 / rate) / (step.min(100.0 - step) / 100.0);
            let step = |step: &f64| if *step < 100.0 { arm(*step).max(600.0) } else { (200.0 / rate).max(600.0) };
            let looks = 4.0 * (20.0 / rate).max(5.0) * steps.len() as f64;
            let latest: f64 = steps.iter().map(step).sum::<f64>() + looks;
            assert!(ended.requests < case.most, "{}: {ended:?}", case.what());
            let soonest = 600.0 * steps.len() as f64;
            assert!((soonest..=latest).contains(&ended.after), "{}: {ended:?}, at most {latest} s", case.what());
        }
    }
}

#[test]
fn versions_of_models_whose_requests_have_keys_are_judged_too() {
    for (kind, keys) in [(Kind::Good, 2_000), (Kind::Constant, 2_000), (Kind::OtherOrder, 2_000), (Kind::Failing, 300)]
    {
        let steps = &[5.0, 25.0, 50.0, 100.0];
        let case = Case { keys: Some(keys), ..case(Model::Binary, kind, steps, 20.0) };
        let ended = case.run(7);
        let wanted = if kind == Kind::Good { Status::Completed } else { Status::RolledBack };
        assert_eq!(ended.status, wanted, "{}: {ended:?}", case.what());
    }
    // Of ten callers little can be told. It waits, and says for what.
    let case = Case { keys: Some(10), ..case(Model::Binary, Kind::Constant, &[50.0, 100.0], 20.0) };
    let ended = case.run(7);
    assert!(ended.status == Status::Running && ended.note.starts_with("holding: "), "{ended:?}");
    assert!(ended.note.contains("more compared requests"), "{ended:?}");
}

#[test]
fn versions_that_do_not_differ_go_back_no_oftener_than_promised() {
    // The edges are cut from the answers of both arms, and those count. Every difference counts, however small, and looks
    // come every 20 requests. Five standard deviations above what is promised.
    let (runs, alpha) = (200_u32, 0.2);
    let at_most = f64::from(runs) * alpha + 5.0 * (f64::from(runs) * alpha * (1.0 - alpha)).sqrt();
    for (steps, model) in [(&[10.0, 100.0], Model::Binary), (&[50.0, 100.0], Model::Regression)] {
        let case = Case {
            alpha,
            output_tolerance: 0.0,
            most: 1_500,
            min_requests: 1 << 40,
            ..case(model, Kind::Good, steps, 4.0)
        };
        let back = (1..=runs).filter(|seed| case.run(u64::from(*seed)).status == Status::RolledBack).count();
        assert!((back as f64) <= at_most, "{back} of {runs}: {}", case.what());
    }
}
