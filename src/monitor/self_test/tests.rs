//! The self-test of a small monitor.

use bytes::Bytes;

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec},
    monitor::{Answered, MonitorSettings, ProfileBuilder, VersionMonitor},
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

fn monitor(tensors: &[Tensor]) -> VersionMonitor {
    let mut builder = ProfileBuilder::default();
    builder.add(tensors, &[]);
    let spec = |tensor: &Tensor| TensorSpec {
        name: tensor.name().into(),
        datatype: tensor.datatype(),
        shape: vec![Dim::Any],
        optional: false,
    };
    let signature = Signature { inputs: tensors.iter().map(spec).collect(), outputs: Vec::new() };
    VersionMonitor::new(builder.finish().profile, &signature, &MonitorSettings::default()).unwrap()
}

#[test]
fn reference_is_no_alarm_and_the_smallest_shift_is_found_as_often_as_it_says() {
    let tensors = tensors(20_000);
    let monitor = monitor(&tensors);
    let test = |window| monitor.self_test(&"m".parse().unwrap(), Version::new(1).unwrap(), window, Duration::ZERO);
    let few = test(None);
    assert_eq!((few.rows, few.window), (200, Duration::from_hours(24)));
    monitor.count(Answered::new(&tensors, &[]), Duration::ZERO);
    let many = test(Some(Duration::from_mins(5)));
    assert_eq!(
        (many.rows, many.alpha),
        (20_000, monitor.report(&many.model, many.version, many.window, Duration::ZERO).alpha)
    );
    assert_eq!(test(Some(Duration::from_mins(5))), many, "the same seeds");
    for test in [&few, &many] {
        println!("{} rows, {} draws", test.rows, test.draws);
        for feature in &test.features {
            println!("  {} {:.3} {:.3?}", feature.feature, feature.chance_rate, feature.shifts);
            assert_eq!((feature.false_warnings, feature.false_drifts), (0, 0), "{feature:?}");
            // Three standard errors over the promise.
            let error = (CHANCE_ALPHA / test.draws as f64).sqrt();
            assert!(feature.chance_rate <= CHANCE_ALPHA + 3.0 * error, "{feature:?}");
            for shift in &feature.shifts {
                assert!((shift.found - shift.power).abs() < 0.12, "{feature:?}");
                assert_eq!(shift.sigma.is_some(), feature.feature != "word");
            }
        }
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
