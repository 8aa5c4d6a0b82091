//! What is learnt from which rows, when it ends, and that it goes on after a restart.

use std::fs;

use super::*;
use crate::{
    domain::{DataType, Dim, Shape, TensorSpec},
    monitor::{Lacking, Watch},
};

const LENGTH: Duration = Duration::from_mins(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn text(bytes: usize) -> Tensor {
    Tensor::text("s", Shape::new(vec![1]).unwrap(), vec![vec![b'a'; bytes].into()]).unwrap()
}

fn numbers(name: &str, datatype: DataType, columns: usize, bytes: Vec<u8>) -> Tensor {
    let width = columns * datatype.size().unwrap();
    let shape = [bytes.len() / width, columns].map(|size| i64::try_from(size).unwrap());
    Tensor::plain(name, datatype, Shape::new(shape.to_vec()).unwrap(), bytes.into()).unwrap()
}

/// Rows of every kind: floats, whole numbers with few and with many values, booleans, words, texts and wide ones.
fn batch(from: u16, rows: u16) -> Vec<Tensor> {
    let rows = || from..from + rows;
    let floats = |columns: u16| -> Vec<u8> {
        let value = |row: u16, column: u16| {
            if row % 50 == 7 { f32::NAN } else { f32::from(row * 31 % 97) / f32::from(column + 1) }
        };
        rows().flat_map(|row| (0..columns).flat_map(move |column| value(row, column).to_le_bytes())).collect()
    };
    let wholes = |modulus: i64| rows().flat_map(move |row| (i64::from(row) * 7 % modulus).to_le_bytes()).collect();
    let words = |word: &dyn Fn(u16) -> String| {
        let shape = Shape::new(vec![i64::try_from(rows().len()).unwrap()]).unwrap();
        (shape, rows().map(|row| word(row).into_bytes().into()).collect())
    };
    let (shape, few) = words(&|row| if row % 9 == 0 { String::new() } else { format!("w{}", row % 4) });
    let (_, free) = words(&|row| format!("text {row} of its own"));
    vec![
        numbers("x", DataType::Fp32, 3, floats(3)),
        numbers("wide", DataType::Fp32, 80, floats(80)),
        numbers("few", DataType::Int64, 1, wholes(5)),
        numbers("many", DataType::Int64, 1, wholes(61)),
        numbers("flag", DataType::Bool, 1, rows().map(|row| u8::from(row % 3 == 0)).collect()),
        Tensor::text("word", shape.clone(), few).unwrap(),
        Tensor::text("free", shape, free).unwrap(),
    ]
}

fn learning_of(model: &str, keep: impl FnOnce(&Profile) -> bool + Send + 'static) -> Learning {
    Learning::new(LearningOptions {
        length: LENGTH,
        model_identity: model.into(),
        names: ColumnNames::from([("x".into(), ["a", "b", "c"].map(String::from).to_vec())]),
        types: ColumnTypes::default(),
        signature: Arc::new(Signature { inputs: Vec::new(), outputs: Vec::new() }),
        settings: MonitorSettings::default(),
        keep: Box::new(keep),
    })
}

fn learning() -> Learning {
    learning_of("sha256:1", |_| true)
}

/// One that goes on from the file of an earlier run.
fn another_run(path: &Path, now: Duration) -> Learning {
    let mut learning = learning();
    learning.go_on_from(path, now);
    learning
}

fn add(learning: &mut Learning, from: u16, rows: u16, at: u64) {
    let (inputs, outputs) = (batch(from, rows), [numbers("y", DataType::Fp32, 1, vec![1; usize::from(rows) * 4])]);
    learning.add(Answered::new(&inputs, &outputs), seconds(at));
}

fn saved(learning: Learning) -> Option<Learning> {
    let learning = Mutex::new(Some(learning));
    save(&learning).unwrap();
    learning.into_inner().unwrap()
}

/// The profile that is learnt in the end.
fn learnt(mut learning: Learning) -> Profile {
    let (sender, receiver) = std::sync::mpsc::channel();
    learning.options.keep = Box::new(move |profile| sender.send(profile.clone()).is_ok());
    learning.finish();
    receiver.recv().unwrap()
}

#[test]
fn learning_ends_with_its_time_however_large_the_rows_are() {
    let mut learning = learning();
    let large = [text(MOST_BYTES / 3)];
    for second in 0..10 {
        learning.add(Answered::new(&large, &[]), seconds(second));
    }
    assert_eq!(learning.rows, 2);
    learning.add(Answered::new(&[text(1)], &[]), seconds(10));
    assert_eq!(learning.rows, 2, "the first rows are learnt from, not those that happen to be small");
    assert!(!learning.has_ended(seconds(59)));
    assert!(learning.has_ended(LENGTH));
}

#[test]
fn rows_without_any_value_make_no_monitor_that_would_always_be_green() {
    let mut learning = learning_of("sha256:1", |_| panic!("there is nothing to keep"));
    let missing =
        numbers("x", DataType::Fp32, 1, [f32::NAN; 300].iter().flat_map(|value| value.to_le_bytes()).collect());
    learning.add(Answered::new(&[missing], &[]), seconds(0));
    assert!(learning.finish().is_none());
}

#[test]
fn rows_that_are_not_drawn_are_not_learnt_from() {
    let chosen: Vec<bool> = (0..600).map(|row| row % 7 < 3 || row > 590).collect();
    let scalar = || Tensor::plain("scale", DataType::Fp32, Shape::new(vec![]).unwrap(), vec![1; 4].into()).unwrap();
    let (mut inputs, outputs) = (batch(0, 600), [numbers("y", DataType::Fp32, 1, vec![1; 2400]), scalar()]);
    // Fewer rows than the others: that is the model's business.
    inputs.push(numbers("short", DataType::Fp32, 1, vec![1; 400]));
    let mut drawn = learning();
    drawn.add(Answered { chosen: Some(&chosen), ..Answered::new(&inputs, &outputs) }, seconds(0));

    let (mut one_by_one, mut rows) = (learning(), 0);
    for row in (0..600).filter(|row| chosen[usize::from(*row)]) {
        let mut inputs = batch(row, 1);
        inputs.extend((row < 100).then(|| numbers("short", DataType::Fp32, 1, vec![1; 4])));
        let outputs = [numbers("y", DataType::Fp32, 1, vec![1; 4]), scalar()];
        let outputs = if row == 0 { &outputs[..] } else { &outputs[..1] };
        one_by_one.add(Answered::new(&inputs, outputs), seconds(0));
        rows += 1;
    }
    assert_eq!((drawn.rows, drawn.bytes), (rows, one_by_one.bytes));
    let (profile, expected) = (learnt(drawn), learnt(one_by_one));
    assert_eq!(profile.rows, rows as u64);
    assert!(expected.features.iter().any(|feature| feature.tensor == "scale" && feature.rows == 1), "{expected:?}");
    assert_eq!(profile, expected);
}

#[test]
fn time_runs_from_the_first_row_though_it_is_not_drawn() {
    let mut learning = learning();
    let tensors = [text(1)];
    learning.add(Answered { chosen: Some(&[false]), ..Answered::new(&tensors, &[]) }, seconds(5));
    assert_eq!((learning.rows, learning.began), (0, Some(seconds(5))));
}

#[test]
fn profile_of_rows_that_were_saved_in_parts_is_that_of_all_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m/1.learning");
    let mut at_once = learning();
    add(&mut at_once, 0, 900, 0);

    let mut first = another_run(&path, seconds(5));
    add(&mut first, 0, 300, 5);
    let mut first = saved(first).unwrap();
    add(&mut first, 300, 200, 6);
    let mut first = saved(saved(first).unwrap()).unwrap();
    add(&mut first, 500, 100, 7);
    drop(first);

    let mut second = another_run(&path, seconds(30));
    assert_eq!(second.rows, 500, "those that were not saved are lost");
    add(&mut second, 500, 250, 31);
    drop(saved(second));

    let mut third = another_run(&path, seconds(50));
    add(&mut third, 750, 150, 51);
    assert!(!third.has_ended(seconds(64)) && third.has_ended(seconds(65)), "a minute from the first row of all");
    let expected = learnt(at_once);
    assert!(expected.features.len() > 15 && expected.components.is_some(), "{expected:?}");
    assert_eq!(expected.learnt_from.as_deref(), Some("sha256:1"));
    assert_eq!(learnt(third), expected);
    assert!(!path.exists(), "it is of no use any more");
}

#[test]
fn rows_stay_until_the_profile_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1.learning");
    let mut learning = learning_of("sha256:1", |_| false);
    learning.go_on_from(&path, seconds(0));
    add(&mut learning, 0, 300, 0);
    saved(learning).unwrap().finish();
    assert_eq!(another_run(&path, seconds(90)).rows, 300);
}

#[test]
fn rows_of_another_model_are_not_learnt_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1.learning");
    let mut first = another_run(&path, seconds(0));
    add(&mut first, 0, 300, 0);
    let first = saved(first).unwrap();

    let mut other = learning_of("sha256:2", |_| true);
    other.go_on_from(&path, seconds(9));
    assert_eq!((other.rows, other.began), (0, None));
    assert!(!other.adopt_settings(&first));
    add(&mut other, 0, 50, 9);
    drop(saved(other));
    assert_eq!(another_run(&path, seconds(9)).rows, 0, "the file is of the other one now");
}

#[test]
fn damaged_rows_are_left_out_and_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1.learning");
    let mut learning = another_run(&path, seconds(1));
    let mut ends = Vec::new();
    for part in 0..3 {
        add(&mut learning, part * 100, 100, 1);
        learning = saved(learning).unwrap();
        ends.push(usize::try_from(fs::metadata(&path).unwrap().len()).unwrap());
    }
    let whole = fs::read(&path).unwrap();

    // Of all cuts those about the ends of chunks, and some others.
    let about = |end: &usize| [end - 1, *end, end + 1, end + 17];
    let cuts = ends.iter().take(2).flat_map(about).chain((0..ends[0]).step_by(97)).chain(0..60);
    for cut in cuts {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut again = another_run(&path, seconds(2));
        let rows = 100 * ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(again.rows, rows, "of {cut} bytes");
        add(&mut again, 0, 10, 2);
        drop(saved(again));
        assert_eq!(another_run(&path, seconds(2)).rows, rows + 10, "after {cut} bytes");
    }
    for at in (0..whole.len()).step_by(61) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let rows = 100 * ends.iter().filter(|end| **end <= at).count();
        assert_eq!(another_run(&path, seconds(2)).rows, rows, "byte {at} of {ends:?}");
    }
}

#[test]
fn file_that_is_gone_or_cannot_be_written_is_made_up_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m/1.learning");
    let mut learning = another_run(&path, seconds(0));
    fs::write(path.parent().unwrap(), "in the way").unwrap();
    add(&mut learning, 0, 100, 0);
    let learning = Mutex::new(Some(learning));
    assert!(save(&learning).is_err());
    fs::remove_file(path.parent().unwrap()).unwrap();
    save(&learning).unwrap();
    assert_eq!(another_run(&path, seconds(1)).rows, 100);

    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    add(learning.lock().unwrap().as_mut().unwrap(), 100, 50, 1);
    save(&learning).unwrap();
    assert_eq!(another_run(&path, seconds(1)).rows, 150);
}

#[test]
fn clock_that_was_set_back_does_not_make_learning_longer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1.learning");
    let mut learning = another_run(&path, seconds(1000));
    add(&mut learning, 0, 300, 1000);
    drop(saved(learning));
    assert!(another_run(&path, seconds(10)).has_ended(seconds(10) + LENGTH));
}

#[test]
fn progress_says_what_is_lacking_and_until_when() {
    let mut learning = learning();
    let told = |learning: &Learning, at: u64| {
        let progress = learning.progress(seconds(at));
        let LearningProgress { rows, since, time_left, .. } = progress;
        assert_eq!(progress.has_ended(), learning.has_ended(seconds(at)));
        (rows, progress.rows_left(), since, time_left, progress.to_string())
    };
    let none = "0 of at least 200 rows, and 1m from the first one on".to_owned();
    assert_eq!(told(&learning, 5), (0, 200, None, LENGTH, none));
    assert_eq!(learning.progress(seconds(5)).earliest_end(), None);
    add(&mut learning, 0, 150, 10);
    let since = Some(seconds(10));
    let both = "150 of at least 200 rows, 55s and 50 rows left".to_owned();
    assert_eq!(told(&learning, 15), (150, 50, since, seconds(55), both));
    assert_eq!(learning.progress(seconds(15)).earliest_end(), Some(seconds(70)));
    let rows = "150 of at least 200 rows, 50 rows left".to_owned();
    assert_eq!(told(&learning, 90), (150, 50, since, Duration::ZERO, rows));
    add(&mut learning, 150, 100, 20);
    let time = "250 of at least 200 rows, 50s left".to_owned();
    assert_eq!(told(&learning, 20), (250, 0, since, seconds(50), time));
    let ended = "250 of at least 200 rows, ends with the next one".to_owned();
    assert_eq!(told(&learning, 70), (250, 0, since, Duration::ZERO, ended));
    assert!(learning.has_ended(seconds(70)) && !learning.has_ended(seconds(69)));
}

#[test]
fn room_that_is_used_up_stands_for_rows_that_are_lacking() {
    let mut learning = learning();
    for _ in 0..3 {
        learning.add(Answered::new(&[text(MOST_BYTES / 2 - 64)], &[]), seconds(0));
    }
    let progress = learning.progress(seconds(0));
    assert_eq!((progress.rows, progress.rows_left(), progress.is_full), (2, 0, true));
}

/// Counts the rows that end the learning of a watch, and waits for what comes of it.
fn ended(signature: Signature) -> Arc<Watch> {
    let mut learning = learning();
    learning.options.signature = Arc::new(signature);
    add(&mut learning, 0, 250, 0);
    let watch = Arc::new(Watch::learning(learning));
    assert!(matches!(watch.lacking(LENGTH), Some(Lacking::Learning(progress)) if progress.has_ended()));
    watch.count(Answered::new(&batch(0, 1), &[]), LENGTH);
    let is_being_made = || watch.monitor().is_none() && watch.learning_progress(LENGTH).is_some();
    for _ in 0..6000 {
        if !is_being_made() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    watch
}

#[test]
fn learning_that_made_no_profile_of_any_use_says_so_and_one_that_did_has_a_monitor() {
    // The rows have inputs that this model has not.
    let failed = ended(Signature { inputs: Vec::new(), outputs: Vec::new() });
    assert!(failed.monitor().is_none());
    assert_eq!((failed.lacking(LENGTH), failed.learning_progress(LENGTH)), (Some(Lacking::Failed), None));

    let spec = |tensor: &Tensor| TensorSpec {
        name: tensor.name().into(),
        datatype: tensor.datatype(),
        shape: tensor.shape().dimensions().iter().map(|_| Dim::Any).collect(),
        optional: false,
    };
    let outputs = vec![spec(&numbers("y", DataType::Fp32, 1, vec![1; 4]))];
    let learnt = ended(Signature { inputs: batch(0, 1).iter().map(spec).collect(), outputs });
    assert!(learnt.monitor().is_some());
    assert_eq!(learnt.learning_progress(LENGTH), None);
}
