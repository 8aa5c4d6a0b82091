//! The self-test of a small monitor, and of monitors that are broken.

use bytes::Bytes;

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec},
    monitor::{Answered, FeatureProfile, MonitorSettings, ProfileBuilder, VersionMonitor},
};

const COLUMNS: [&str; 3] = ["skewed", "constant", "gaps"];

/// Numbers that are skewed, that are all alike, and one in ten of which is missing; and words, some of them rare.
fn tensors(rows: usize) -> Vec<Tensor> {
    let mut random = Random::new(1);
    let values = |column: usize, random: &mut Random| match column {
        0 => random.normal().exp(),
        1 => 7.0,
        _ if random.uniform() < 0.1 => f64::NAN,
        _ => random.uniform(),
    };
    let shape = Shape::new(vec![i64::try_from(rows).unwrap()]).unwrap();
    let mut tensors: Vec<_> = COLUMNS
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let bytes: Vec<u8> = (0..rows).flat_map(|_| values(column, &mut random).to_le_bytes()).collect();
            Tensor::plain(*name, DataType::Fp64, shape.clone(), bytes.into()).unwrap()
        })
        .collect();
    let words = ["a", "a", "a", "b", "b", "c", "d"];
    let word = |_| Bytes::from_static(words[usize::try_from(random.whole() % 7).unwrap()].as_bytes());
    tensors.push(Tensor::text("word", shape.clone(), (0..rows).map(word).collect()).unwrap());
    tensors
}

fn profiled(tensors: &[Tensor]) -> (VersionMonitor, Signature) {
    let mut builder = ProfileBuilder::default();
    builder.add(tensors, &[]);
    let dim = |&size: &i64| Dim::Fixed(size.try_into().unwrap());
    let spec = |tensor: &Tensor| TensorSpec {
        name: tensor.name().into(),
        datatype: tensor.datatype(),
        shape: [Dim::Any].into_iter().chain(tensor.shape().dimensions()[1..].iter().map(dim)).collect(),
        optional: false,
    };
    let signature = Signature { inputs: tensors.iter().map(spec).collect(), outputs: Vec::new() };
    let settings = MonitorSettings::default();
    (VersionMonitor::new(builder.finish().profile, &signature, &settings).unwrap(), signature)
}

const MINUTES: Duration = Duration::from_mins(5);

/// Windows that are enough to see by.
const WORK: Work = Work { values: 4_000_000, verdicts: 20_000 };

struct Monitored {
    monitor: VersionMonitor,
    signature: Signature,
    settings: MonitorSettings,
    judge: Judge,
}

impl Monitored {
    fn new(tensors: &[Tensor]) -> Self {
        let ((monitor, signature), settings) = (profiled(tensors), MonitorSettings::default());
        let tests = Tests { features: monitor.features().len(), horizons: settings.windows.len() };
        let judge = Judge::new(settings.thresholds, tests, 1000);
        Self { monitor, signature, settings, judge }
    }

    fn tester(&self, window: Duration) -> Tester<'_> {
        Tester::new(self.monitor.features(), &self.judge, (&self.signature, &self.settings), window, WORK)
    }

    fn test(&self, live_rows: u64) -> SelfTest {
        self.tester(MINUTES).test((&"m".parse().unwrap(), Version::new(1).unwrap()), live_rows)
    }
}

#[test]
fn reference_is_no_alarm_and_the_smallest_shift_is_found_as_often_as_it_says() {
    let monitored = Monitored::new(&tensors(20_000));
    let (few, many) = (monitored.test(0), monitored.test(1500));
    // One row in ten has no value of 'gaps', and a verdict on it needs 200.
    assert!((235..245).contains(&few.rows) && few.live_rows == 0, "{few:?}");
    assert_eq!(Monitored::new(&tensors(1000)[3..]).test(0).rows, 200, "where all rows have a value");
    assert_eq!((many.rows, many.live_rows, many.looks), (1500, 1500, 4 * many.draws));
    assert_eq!(monitored.test(1500), many, "the same seeds");
    for test in [&few, &many] {
        println!("{} rows, {} draws", test.rows, test.draws);
        for feature in &test.features {
            println!("  {} {:.3} {:.3?}", feature.feature, feature.chance_rate, feature.shifts);
            assert_eq!((feature.miscounted, feature.false_warnings, feature.false_drifts), (0, 0, 0), "{feature:?}");
            // Three standard errors over the promise; windows that share rows say little more than one.
            let error = (CHANCE_ALPHA / test.draws as f64).sqrt();
            assert!(feature.chance_rate <= CHANCE_ALPHA + 3.0 * error, "{feature:?}");
            for shift in &feature.shifts {
                assert!((shift.found - shift.power).abs() < 0.16, "{feature:?}");
                assert_eq!(shift.sigma.is_some(), feature.feature != "word");
            }
        }
        let by_chance: f64 = test.features.iter().map(|feature| feature.chance_rate).sum();
        assert!(by_chance > 0.0, "chance must come up in a test that allows it");
    }
    // What the principal components leave of a row is the constant.
    let is_constant = |feature: &FeatureSelfTest| ["constant", "reconstruction_error"].contains(&&*feature.feature);
    for (few, many) in few.features.iter().zip(&many.features).filter(|(few, _)| !is_constant(few)) {
        let psi = |feature: &FeatureSelfTest| [0, 1].map(|at| feature.shifts[at].psi);
        assert!(psi(few)[0] < psi(few)[1] && psi(many)[1] < psi(few)[1], "{few:?} {many:?}");
    }
    let constant: Vec<_> = many.features.iter().filter(|feature| is_constant(feature)).collect();
    assert!(constant.len() == 2 && constant.iter().all(|feature| feature.shifts.is_empty()), "{constant:?}");
}

#[test]
fn test_is_as_large_as_the_window_now_and_leaves_the_monitor_alone() {
    let tensors = tensors(5000);
    let (monitor, signature) = profiled(&tensors);
    let chosen: Vec<_> = (0..5000).map(|row| row < 300).collect();
    monitor.count(Answered { chosen: Some(&chosen), ..Answered::new(&tensors, &[]) }, Duration::ZERO);
    monitor.look(Duration::ZERO);
    let (totals, seen) = (monitor.totals(), monitor.latest());
    let (model, version) = ("m".parse().unwrap(), Version::new(1).unwrap());
    let test = monitor.self_test((&model, version), &signature, None, Duration::ZERO);
    assert_eq!((test.rows, test.live_rows, test.window), (300, 300, MINUTES));
    let promised = monitor.report(&model, version, MINUTES, Duration::ZERO).alpha;
    assert!((test.alpha / promised - 1.0).abs() < 1e-12, "{} for {promised}", test.alpha);
    assert_eq!(monitor.totals(), totals);
    assert!(std::sync::Arc::ptr_eq(&seen, &monitor.latest()));
}

/// Alarms without a shift, by feature, where rows are compared with other profiles than they are drawn from.
fn alarms(monitored: &Monitored, change: impl Fn(&mut FeatureProfile)) -> Vec<u64> {
    let tester = monitored.tester(MINUTES);
    let laws: Vec<_> = tester.features.iter().map(Law::new).collect();
    let change = |features: &mut [FeatureProfile]| features.iter_mut().for_each(&change);
    let mut replay = Replay::judging(&laws, tester.stage, Random::new(1), change);
    let tests = tester.without_shift(&mut replay, &laws, Size { rows: 2000, draws: 5 });
    tests.iter().map(|test| test.false_warnings + test.false_drifts).collect()
}

/// A test that drew counts and judged them would not see any of these.
#[test]
fn rows_that_are_counted_wrongly_are_alarms_at_every_look() {
    let monitored = Monitored::new(&tensors(20_000));
    let [skewed, constant, gaps, word] = [0, 1, 2, 3];
    let all = 5 * 4;
    assert_eq!(alarms(&monitored, |_| {}), [0; 5]);
    let off_by_a_bin = alarms(&monitored, |feature| {
        if let Distribution::Numeric { edges, fine, max, .. } = &mut feature.distribution {
            let by = edges.len().min(1);
            edges.rotate_left(by);
            if let Some(last) = edges.last_mut() {
                *last = max.next_up();
            }
            *fine = None;
        }
    });
    assert_eq!((off_by_a_bin[skewed], off_by_a_bin[gaps], off_by_a_bin[word]), (all, all, 0));
    let missing_as_a_value = alarms(&monitored, |feature| feature.missing = 0);
    assert_eq!(missing_as_a_value, [0, 0, all, 0, 0]);
    let out_of_range = alarms(&monitored, |feature| {
        if let Distribution::Numeric { min, max, .. } = &mut feature.distribution {
            *max = f64::midpoint(*min, *max);
        }
    });
    assert_eq!((out_of_range[constant], out_of_range[gaps], out_of_range[word]), (0, all, 0));
    let categories_mixed_up = alarms(&monitored, |feature| {
        if let Distribution::Categorical { categories, .. } = &mut feature.distribution {
            let last = categories.len() - 1;
            let names = [0, last].map(|at| categories[at].value.clone());
            (categories[last].value, categories[0].value) = names.into();
        }
    });
    assert_eq!(categories_mixed_up, [0, 0, 0, all, 0]);
}

/// Too little for an alarm, as only the outer bins have other rows.
#[test]
fn values_that_are_counted_in_a_neighbouring_fine_bin_are_miscounted() {
    let monitored = Monitored::new(&tensors(20_000));
    let tester = monitored.tester(MINUTES);
    let laws: Vec<_> = tester.features.iter().map(Law::new).collect();
    let miscounted = |change: fn(&mut FeatureProfile)| {
        let change = |features: &mut [FeatureProfile]| features.iter_mut().for_each(change);
        let mut replay = Replay::judging(&laws, tester.stage, Random::new(1), change);
        replay.count(2000);
        replay.miscounted()
    };
    assert_eq!(miscounted(|_| {}), [0; 5]);
    let off_by_a_fine_bin = miscounted(|feature| {
        if let Distribution::Numeric { fine: Some(fine), max, .. } = &mut feature.distribution {
            let by = fine.edges.len().min(1);
            fine.edges.rotate_left(by);
            if let Some(last) = fine.edges.last_mut() {
                *last = max.next_up();
            }
        }
    });
    // A last bin that has become empty makes the difference, and one in ten has no value of 'gaps'.
    assert!(off_by_a_fine_bin[0] > 0 && off_by_a_fine_bin[2] > 0 && off_by_a_fine_bin[3] == 0, "{off_by_a_fine_bin:?}");
}

#[test]
fn every_look_is_at_as_many_rows_as_wanted_and_an_empty_window_is_between_shifts() {
    let mut monitored = Monitored::new(&tensors(1000));
    for (window, sub_windows, steps) in [
        (MINUTES, 60, 4),
        (Duration::from_hours(24), 60, 4),
        (Duration::from_secs(2), 60, 2),
        (MINUTES, 7, 1),
        (MINUTES, 1, 1),
    ] {
        monitored.settings.sub_windows = sub_windows;
        let tester = monitored.tester(window);
        let laws: Vec<_> = tester.features.iter().map(Law::new).collect();
        let mut replay = Replay::new(&laws, tester.stage, Random::new(1));
        assert_eq!(replay.steps(), steps, "{window:?} in {sub_windows}");
        let rows =
            |replay: &Replay| replay.look().unwrap().features.iter().map(|judged| judged.rows).collect::<Vec<_>>();
        for look in 1..3 * steps {
            replay.count(100);
            assert_eq!(rows(&replay), [100 * look.min(steps); 5], "{window:?} in {sub_windows}, look {look}");
        }
        replay.pass();
        assert_eq!(rows(&replay), [0; 5]);
        // More than a block.
        replay.count(5000);
        assert_eq!(rows(&replay), [5000; 5]);
    }
}

/// Columns of a tensor, whole numbers, flags, a free text, a wide row.
#[test]
fn rows_of_every_kind_of_tensor_are_counted_without_an_alarm() {
    let (rows, mut random) = (2000_i64, Random::new(1));
    let mut plain = |name: &str, datatype: DataType, columns: i64, value: &mut dyn FnMut(&mut Random) -> Vec<u8>| {
        let shape = Shape::new(if columns == 1 { vec![rows] } else { vec![rows, columns] }).unwrap();
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|_| value(&mut random)).collect();
        Tensor::plain(name, datatype, shape, bytes.into()).unwrap()
    };
    let mut number = |random: &mut Random| half::f16::from_f64(random.normal()).to_f32().to_le_bytes().to_vec();
    let mut tensors = vec![
        plain("columns", DataType::Fp32, 3, &mut number),
        plain("wide", DataType::Fp32, 100, &mut number),
        plain("half", DataType::Fp16, 1, &mut |random| half::f16::from_f64(random.normal()).to_le_bytes().to_vec()),
        plain("many", DataType::Int64, 1, &mut |random| (random.whole() % 1000).to_le_bytes().to_vec()),
        plain("few", DataType::Uint8, 1, &mut |random| vec![u8::try_from(random.whole() % 4).unwrap()]),
        plain("flag", DataType::Bool, 1, &mut |random| vec![u8::from(random.whole().is_multiple_of(3))]),
    ];
    let text =
        |row: i64| Bytes::from(format!("free text number {row}, {}", "x".repeat(usize::try_from(row % 37).unwrap())));
    let shape = Shape::new(vec![rows]).unwrap();
    tensors.push(Tensor::text("text", shape, (0..rows).map(text).collect()).unwrap());

    let monitored = Monitored::new(&tensors);
    let tester = monitored.tester(MINUTES);
    let laws: Vec<_> = tester.features.iter().map(Law::new).collect();
    let mut replay = Replay::new(&laws, tester.stage, Random::new(1));
    replay.count(500);
    let seen = replay.look().unwrap();
    let kinds: std::collections::BTreeSet<_> =
        tester.features.iter().map(|feature| feature.profile.kind().as_str()).collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    for (feature, judged) in tester.features.iter().zip(&seen.features) {
        assert_eq!((judged.rows, judged.missing), (500, 0), "{}", feature.profile.feature);
        assert_eq!(judged.state, DriftState::Ok, "{}", feature.profile.feature);
    }
    for test in tester.without_shift(&mut replay, &laws, Size { rows: 1000, draws: 10 }) {
        assert_eq!((test.false_warnings, test.false_drifts), (0, 0), "{test:?}");
    }
    assert_eq!(replay.miscounted(), vec![0; laws.len()]);
}

#[test]
fn work_is_bounded_by_fewer_windows_and_then_by_fewer_rows() {
    let size = |features, live_rows| Size::new(Work::default(), features, 4, [live_rows, 200]);
    assert_eq!(size(11, 300), Size { rows: 300, draws: MOST_DRAWS });
    assert_eq!(size(11, 10_000), Size { rows: 10_000, draws: 60 });
    assert_eq!(size(11, 1_000_000), Size { rows: 30_304, draws: LEAST_DRAWS });
    assert_eq!(size(1000, 300), Size { rows: 300, draws: 3 });
    assert_eq!(size(1000, 1_000_000), Size { rows: 2224, draws: 3 });
    assert_eq!(size(100_000, 1_000_000), Size { rows: 200, draws: 1 });
    assert_eq!(size(0, 0), Size { rows: 200, draws: MOST_DRAWS });
}
