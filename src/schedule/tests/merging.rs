//! Joined runs whose outputs show that requests must run alone.

use super::*;

/// What comes out for these rows: elements, and how many there are of each row.
type Compute = fn(&[u8]) -> (Vec<u8>, usize);

struct Computed(Arc<Signature>, Compute, Arc<Mutex<Vec<usize>>>);

impl Model for Computed {
    fn signature(&self) -> &Arc<Signature> {
        &self.0
    }

    fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.2.lock().unwrap().push(inputs[0].shape().rows());
        let (elements, width) = (self.1)(&inputs[0].to_raw());
        let rows = i64::try_from(elements.len() / width).unwrap();
        let shape = Shape::new(vec![rows, i64::try_from(width).unwrap()]).unwrap();
        Ok(vec![Tensor::plain("y", DataType::Uint8, shape, elements.into()).unwrap()])
    }
}

/// The numbers of detections that rows have are themselves: a row of 3 has three.
fn detections(rows: &[u8]) -> (Vec<u8>, usize) {
    (rows.iter().flat_map(|row| vec![*row; usize::from(*row)]).collect(), 1)
}

/// Each row as wide as the widest.
fn widest(rows: &[u8]) -> (Vec<u8>, usize) {
    let width = usize::from(rows.iter().copied().max().unwrap_or(1));
    (rows.iter().flat_map(|row| vec![*row; width]).collect(), width)
}

/// Each row less the least.
fn less_the_least(rows: &[u8]) -> (Vec<u8>, usize) {
    let least = rows.iter().copied().min().unwrap_or(0);
    (rows.iter().map(|row| row - least).collect(), 1)
}

/// A lane whose requests wait for a batch of eight rows, however long that takes.
fn lane(compute: Compute, trial: Trial) -> (Arc<Lane>, Arc<Mutex<Vec<usize>>>, mpsc::Receiver<String>) {
    let runs = Arc::<Mutex<Vec<usize>>>::default();
    let model = Computed(signature(), compute, Arc::clone(&runs));
    let limits = BatchLimits { max_rows: 8, max_delay: Duration::from_hours(1), target_p99: None };
    let inline_limit = Duration::from_mins(1);
    let settings = Arc::new(ServingSettings { batching: Batching::On(limits), inline_limit, ..settings() });
    let pool = Pool::start(1, Handle::current()).unwrap();
    let lane = Lane::new(Box::new(model), settings, trial, pool, || {});
    let (told, reasons) = mpsc::channel();
    let told = Mutex::new(told);
    lane.tell_stop_to(move |why| told.lock().unwrap().send(why.to_owned()).unwrap());
    (Arc::new(lane), runs, reasons)
}

async fn answers(lane: &Arc<Lane>, rows: &[u8]) -> Vec<Vec<u8>> {
    let all: Vec<_> = rows.iter().map(|row| submit(lane, work(&[*row]))).collect();
    let mut answers = Vec::new();
    for one in all {
        answers.push(answer(&one.await.unwrap().unwrap()).to_vec());
    }
    answers
}

/// Of eight requests that ran together and must not, each gets what it gets alone, and none is joined from then on.
#[tokio::test]
async fn outputs_that_do_not_fit_end_the_joining_and_their_requests_run_again_alone() {
    let narrow = || Trial { widths: vec![Some([1].into_iter().collect())], ..trial(CHEAP, 8) };
    let unproven = || {
        let verdict = Arc::new(Verdict::Unknown(Reason::of_model("as told")));
        Trial { verdict, ..trial(CHEAP, 8) }
    };
    let cases: [(Compute, Trial, &str); 3] = [
        (detections, trial(CHEAP, 8), "have not one row for each"),
        (widest, narrow(), "another width"),
        (less_the_least, unproven(), "differs alone and beside others"),
    ];
    for (compute, trial, why) in cases {
        let (lane, runs, reasons) = lane(compute, trial);
        assert!(!lane.status().is_merging_stopped);
        for round in 0..3_u8 {
            let rows = [3, 1, 2, 1, 5, 1, 1, 4].map(|row| row + round % 2);
            let expected: Vec<Vec<u8>> = rows.iter().map(|row| compute(&[*row]).0).collect();
            assert_eq!(answers(&lane, &rows).await, expected, "{why}");
        }
        let status = lane.status();
        assert!(status.is_merging_stopped && status.alone.unwrap().contains(why), "{why}");
        assert_eq!((status.max_batch_rows, status.max_delay), (1, Duration::ZERO));
        assert!(reasons.recv().unwrap().contains(why));
        assert!(reasons.try_recv().is_err(), "told once");
        let joined = runs.lock().unwrap().iter().filter(|rows| **rows > 1).count();
        assert_eq!(joined, 1, "{why}");
    }
}

/// Rows that are independent are joined for ever, though some runs of them are looked at again.
#[tokio::test]
async fn unproven_rows_that_keep_apart_are_joined_and_looked_at_now_and_then() {
    let verdict = Arc::new(Verdict::Unknown(Reason::of_model("as told")));
    let (lane, runs, _) = lane(|rows| (rows.to_vec(), 1), Trial { verdict, ..trial(CHEAP, 8) });
    for _ in 0..100 {
        let rows = [3, 1, 2, 1, 5, 1, 1, 4];
        assert_eq!(answers(&lane, &rows).await, rows.map(|row| vec![row]));
    }
    assert!(!lane.status().is_merging_stopped);
    let looked_at = runs.lock().unwrap().iter().filter(|rows| **rows == 1).count();
    assert_eq!(looked_at, 33, "the first 32 runs, and the 64th after them");
}
