//! Far more requests at once than may wait.

use super::*;

/// All of a crowd is ready before the collector's turn comes. While an instance is free there is no reason to refuse any.
#[tokio::test]
async fn crowd_on_one_thread_is_answered_and_not_refused() {
    for batching in [settings().batching, Batching::Off] {
        let settings = ServingSettings { max_queue: 16, inline_limit: Duration::from_mins(1), batching, ..settings() };
        let rig = rig(CHEAP, settings, false);
        let crowd: Vec<_> = (0..200).map(|row| submit(&rig.lane, work(&[row]))).collect();
        for (row, request) in (0..).zip(crowd) {
            let executed = request.await.unwrap().unwrap();
            assert_eq!(answer(&executed)[..], [row]);
        }
        assert_eq!(rig.runs.lock().unwrap().iter().sum::<usize>(), 200);
    }
}

/// A queue that is smaller than a batch is run before anybody is refused, at the door too.
#[tokio::test]
async fn full_queue_is_run_by_who_would_be_refused_where_runs_are_cheap() {
    let delay = Duration::from_mins(1);
    let batching = Batching::On(BatchLimits { max_rows: 8, max_delay: delay, target_p99: None });
    let settings = ServingSettings { max_queue: 2, inline_limit: delay, batching, ..settings() };
    let rig = rig(CHEAP, settings, false);
    let waiting: Vec<_> = (1..3).map(|row| submit(&rig.lane, work(&[row]))).collect();
    until(|| rig.lane.status().waiting == 2).await;
    rig.lane.accepts(1).unwrap();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().run_rows, 2);
    }
}

/// What nobody waits for never runs on the thread of a request.
#[tokio::test]
async fn background_work_is_refused_by_a_full_queue_and_runs_nothing() {
    let delay = Duration::from_mins(1);
    let batching = Batching::On(BatchLimits { max_rows: 8, max_delay: delay, target_p99: None });
    let settings = ServingSettings { max_queue: 1, inline_limit: delay, batching, ..settings() };
    let rig = rig(CHEAP, settings, false);
    let waiting = submit(&rig.lane, work(&[1]));
    until(|| rig.lane.status().waiting == 1).await;
    let refused = rig.lane.execute(Work { is_background: true, ..work(&[2]) }).await.unwrap_err();
    assert_eq!((refused.code(), rig.lane.status().waiting), (ErrorCode::Overloaded, 1));
    waiting.abort();
}
