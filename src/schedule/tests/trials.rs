//! Models tried out, whose runs take as long as they say.

use super::*;

std::thread_local! {
    /// The time that runs on this thread are said to have taken.
    static TAKEN: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
}

fn takes(time: Duration) {
    TAKEN.set(TAKEN.get() + time);
}

/// Computes with rows as `compute` says, each run in the given time.
struct Computed(Arc<Signature>, fn(&[u8]) -> Vec<u8>, Duration);

impl Model for Computed {
    fn signature(&self) -> &Arc<Signature> {
        &self.0
    }

    fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        takes(self.2);
        let raw = (self.1)(&inputs[0].to_raw());
        let shape = Shape::new(vec![i64::try_from(raw.len()).unwrap(), 1]).unwrap();
        Ok(vec![Tensor::plain("y", DataType::Uint8, shape, raw.into()).unwrap()])
    }
}

fn proven() -> Known<'static> {
    known(Verdict::Independent(Proof::default()), false)
}

fn known(verdict: Verdict, is_asked_for: bool) -> Known<'static> {
    Known { verdict: Arc::new(verdict), is_asked_for, samples: &[] }
}

fn tried(compute: fn(&[u8]) -> Vec<u8>) -> Trial {
    tried_after(Duration::from_millis(1), compute)
}

fn tried_after(fixed_cost: Duration, compute: fn(&[u8]) -> Vec<u8>) -> Trial {
    Trial::of(&Computed(signature(), compute, fixed_cost), &settings(), &proven(), || TAKEN.get())
}

#[test]
fn independent_rows_are_joined_as_far_as_it_pays() {
    let trial = tried(|rows| rows.iter().map(|row| row * 2).collect());
    assert_eq!((trial.useful_rows, trial.alone), (8, None));
    assert_eq!(trial.costs.expected(8), Duration::from_millis(1));
}

#[test]
fn rows_that_depend_on_each_other_run_alone() {
    let trial = tried(|rows| vec![rows.iter().sum(); rows.len()]);
    assert_eq!(trial.useful_rows, 1);
    assert_eq!(trial.alone.unwrap(), "output 'y' of a row depends on other rows");
    let trial = tried(|rows| vec![rows.iter().sum()]);
    assert_eq!(trial.alone.unwrap(), "its outputs have not one row for each row of the inputs");
}

#[test]
fn proof_and_the_models_configuration_say_whether_a_trial_decides() {
    let double: fn(&[u8]) -> Vec<u8> = |rows| rows.iter().map(|row| row * 2).collect();
    let sum: fn(&[u8]) -> Vec<u8> = |rows| vec![rows.iter().sum(); rows.len()];
    let refuses: fn(&[u8]) -> Vec<u8> = |_| panic!("an unknown category");
    let reason = || Reason { operator: "Op".into(), node: "n".into(), why: "mixes".into() };
    let independent = || Verdict::Independent(Proof::default());
    let cases = [
        (double, independent(), false, ""),
        (sum, independent(), true, "output 'y' of a row depends on other rows"),
        (refuses, independent(), false, "takes no made-up rows"),
        (refuses, independent(), true, ""),
        (double, Verdict::Unknown(reason()), false, "it is not proven that rows are independent: Op at node 'n' mixes"),
        (double, Verdict::Unknown(reason()), true, ""),
        (sum, Verdict::Unknown(reason()), true, "output 'y' of a row depends on other rows"),
        (refuses, Verdict::Unknown(reason()), true, "takes no made-up rows"),
        (double, Verdict::Dependent(reason()), false, "rows depend on each other: Op at node 'n' mixes"),
        (double, Verdict::Dependent(reason()), true, "rows depend on each other: Op at node 'n' mixes"),
    ];
    for (compute, verdict, is_asked_for, why) in cases {
        let model = Computed(signature(), compute, Duration::from_millis(1));
        let words = format!("{verdict} {is_asked_for}");
        let trial = Trial::of(&model, &settings(), &known(verdict, is_asked_for), || TAKEN.get());
        let alone = trial.alone.unwrap_or_default();
        assert!(alone.contains(why) && alone.is_empty() == why.is_empty(), "{words}: {alone}");
        assert_eq!(trial.useful_rows, if why.is_empty() { 8 } else { 1 }, "{words}");
        // Who asks for what must not be is told.
        let is_refused = is_asked_for && alone.contains("depend on each other");
        assert_eq!(trial.warnings.len(), usize::from(is_refused), "{words}: {:?}", trial.warnings);
    }
}

#[test]
fn rows_along_another_axis_are_not_joined() {
    let proof = Proof { outputs: vec![BatchAxis { name: "y".into(), axis: 1 }], ..Proof::default() };
    let model = Computed(signature(), <[u8]>::to_vec, Duration::ZERO);
    let trial = Trial::of(&model, &settings(), &known(Verdict::Independent(proof), true), || TAKEN.get());
    assert!(trial.alone.unwrap().contains("lie along axis 1"));
}

#[test]
fn rows_that_are_touched_only_by_neighbours_of_another_magnitude_run_alone() {
    // As a scale over the whole run does it: rows alike do not show it, one of a hundred does.
    let trial = tried(|rows| {
        let scale = if rows.iter().any(|row| *row > 50) { 10 } else { 1 };
        rows.iter().map(|row| row / scale).collect()
    });
    assert_eq!(trial.alone.unwrap(), "output 'y' of a row depends on other rows, such as a row of 1e6");
}

#[test]
fn answers_that_differ_between_two_runs_are_told() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let trial = tried(|rows| {
        let run = u8::try_from(RUNS.fetch_add(1, Ordering::SeqCst) % 100).unwrap();
        rows.iter().map(|_| run).collect()
    });
    assert_eq!((trial.unsteady.as_deref(), trial.useful_rows), (Some("y"), 1));
    assert_eq!(tried(<[u8]>::to_vec).unsteady, None);
}

#[test]
fn model_that_refuses_what_is_made_up_is_tried_on_real_rows() {
    // An encoder that knows the categories 40, 41 and 42.
    let encode: fn(&[u8]) -> Vec<u8> = |rows| {
        assert!(rows.iter().all(|row| (40..43).contains(row)), "an unknown category");
        rows.iter().map(|row| row - 40).collect()
    };
    let model = Computed(signature(), encode, Duration::from_millis(1));
    let shape = Shape::new(vec![3, 1]).unwrap();
    let rows = Tensor::plain("x", DataType::Uint8, shape, Bytes::from_static(&[40, 42, 41])).unwrap();
    let samples = [Sample { origin: "golden requests", inputs: Arc::from([rows]) }];
    let known = Known { samples: &samples, ..proven() };
    let trial = Trial::of(&model, &settings(), &known, || TAKEN.get());
    assert_eq!((trial.alone, trial.useful_rows), (None, 8));
    assert_eq!(trial.costs.expected(8), Duration::from_millis(1), "each size was run");
    let trial = Trial::of(&model, &settings(), &proven(), || TAKEN.get());
    assert!(trial.alone.unwrap().contains("golden requests (golden/*.json), [[warmup]]"));
}

#[test]
fn shapes_that_runs_show_win_over_declared_ones() {
    /// Gives `rows` in these shapes: `[N]`, `[N, 2]` and `[1, N]`.
    struct Shapes(Arc<Signature>);
    impl Model for Shapes {
        fn signature(&self) -> &Arc<Signature> {
            &self.0
        }

        fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
            let rows = i64::try_from(inputs[0].shape().rows()).unwrap();
            let output = |dimensions: Vec<i64>| {
                let shape = Shape::new(dimensions).unwrap();
                let bytes = vec![0; shape.elements()].into();
                Tensor::plain("y", DataType::Uint8, shape, bytes).unwrap()
            };
            Ok(vec![output(vec![rows]), output(vec![rows, 2]), output(vec![1, rows])])
        }
    }
    let (any, fixed, unranked) = (Dim::Any, Dim::Fixed, Dim::Unranked);
    let cases = [
        // The label of a LightGBM model, a forest of two targets, a label with its rows second.
        ([vec![fixed(1)], vec![any, fixed(1)], vec![fixed(1), any]], 2),
        // The predictions of a CatBoost model; no shapes at all.
        ([vec![any, fixed(1)], vec![any], vec![fixed(1), any]], 2),
        ([vec![any], vec![any, any], vec![any, any]], 0),
        ([vec![unranked], vec![fixed(9), fixed(9)], vec![unranked]], 3),
    ];
    for (declared, differences) in cases {
        let mut own = Signature::clone(&signature());
        own.outputs =
            declared.iter().map(|shape| TensorSpec { shape: shape.clone(), ..own.outputs[0].clone() }).collect();
        let (seen, told) = seen_outputs(&Shapes(Arc::new(own)), &[]);
        assert_eq!(told.len(), differences, "{told:?}");
        assert_eq!(seen[0], [any], "{declared:?}");
        let second = if declared[1] == [any, any] { any } else { fixed(2) };
        assert_eq!(seen[1], [any, second], "{declared:?}");
        let first = if matches!(declared[2][0], Dim::Fixed(_)) { fixed(1) } else { any };
        assert_eq!(seen[2], [first, any], "{declared:?}");
    }
}

#[test]
fn batches_that_gain_nothing_are_not_formed() {
    let trial = tried_after(Duration::ZERO, |rows| {
        takes(Duration::from_millis(5 * rows.len() as u64));
        rows.to_vec()
    });
    assert_eq!(trial.useful_rows, 1, "{:?}", trial.costs);
}

#[test]
fn sizes_that_were_disturbed_do_not_decide_on_larger_ones_where_a_run_is_short() {
    /// Milliseconds for runs of 1, 2, 4 and 8 rows.
    const DISTURBED: [u32; 4] = [10, 25, 60, 20];
    fn time(rows: &[u8]) -> Duration {
        Duration::from_millis(DISTURBED[rows.len().ilog2() as usize].into())
    }
    let short = tried_after(Duration::ZERO, |rows| {
        takes(time(rows) / 1000);
        rows.to_vec()
    });
    assert_eq!(short.useful_rows, 8, "{:?}", short.costs);
    let long = tried_after(Duration::ZERO, |rows| {
        takes(time(rows));
        rows.to_vec()
    });
    assert_eq!(long.useful_rows, 1, "loading takes no longer for what is not to be expected: {:?}", long.costs);
}

#[test]
fn fixed_first_dimension_is_never_joined() {
    let mut fixed = Signature::clone(&signature());
    fixed.inputs[0].shape[0] = Dim::Fixed(1);
    let model = Computed(Arc::new(fixed), <[u8]>::to_vec, Duration::ZERO);
    let trial = Trial::of(&model, &settings(), &proven(), || TAKEN.get());
    assert_eq!(trial.alone.unwrap(), "'x' has no first dimension of any size");
}
