//! Windows against a naive model.

use proptest::prelude::*;

use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn window_forgets_rows_older_than_itself() {
    let mut windows = Windows::new(&[seconds(60)], 60, 1);
    windows.advance(seconds(10), || vec![0]);
    // Seven rows at 10 s.
    assert_eq!(windows.start(seconds(10), seconds(60)).rows(vec![7]), [7]);
    assert_eq!(windows.start(seconds(69), seconds(60)).rows(vec![7]), [7]);
    assert_eq!(windows.start(seconds(70), seconds(60)).rows(vec![7]), [0]);
    assert_eq!(windows.start(seconds(69), seconds(30)).rows(vec![7]), [0]);
}

#[test]
fn window_before_its_length_has_passed_counts_all() {
    let mut windows = Windows::new(&[seconds(60), seconds(3600)], 60, 2);
    windows.advance(seconds(0), || vec![0, 0]);
    assert_eq!(windows.start(seconds(1), seconds(3600)).rows(vec![1, 2]), [1, 2]);
    assert_eq!(windows.start(seconds(1), seconds(99_999)).rows(vec![1, 2]), [1, 2]);
}

#[test]
fn totals_are_read_only_when_a_sub_window_begins() {
    let mut windows = Windows::new(&[seconds(60)], 60, 1);
    windows.advance(seconds(5), || vec![0]);
    windows.advance(seconds(5), || unreachable!("the same second"));
    // Time that goes back stands still.
    windows.advance(seconds(3), || unreachable!("an earlier second"));
}

#[test]
fn rows_over_time_are_those_of_each_sub_window_and_of_the_next_longer_window_before() {
    let mut windows = Windows::new(&[seconds(4), seconds(20)], 4, 2);
    let mut totals = vec![0, 0];
    for second in 95..108 {
        windows.advance(seconds(second), || totals.clone());
        totals[0] += 100;
        totals[1] += second;
    }
    let over_time = |window, now, cells: std::ops::Range<usize>| {
        windows.over_time(seconds(now), seconds(window), &cells, &totals[cells.clone()])
    };
    // The last four seconds one by one; of the twenty, five by five, those that were over before the four.
    let found = over_time(4, 107, 1..2);
    assert_eq!((&found[0], found.len()), (&vec![vec![104], vec![105], vec![106], vec![107]], 2));
    assert_eq!(found[1].last().unwrap(), &[95 + 96 + 97 + 98 + 99]);
    assert_eq!(over_time(1, 107, 1..2)[1].last().unwrap(), &[100 + 101 + 102 + 103 + 104]);
    assert_eq!(over_time(2, 107, 0..2)[0], [[100, 106], [100, 107]]);
    // Nothing since 107: what is left of the window has that.
    assert_eq!(over_time(4, 110, 1..2)[0], [[107]]);
    assert!(over_time(4, 200, 1..2).iter().all(Vec::is_empty));
    // There is none longer, but a shorter one.
    let longest = over_time(20, 107, 1..2);
    assert_eq!((longest[1].len(), &longest[2]), (0, &found[0]));
}

proptest! {
    /// Against the definition: a row counts when its sub-window is one of the last `k`, where
    /// `k` sub-windows are the window asked for.
    #[test]
    fn window_sums_equal_a_naive_model(
        steps in prop::collection::vec((0_u64..40, 0_u64..5), 1..60),
        sub_windows in 1_usize..12,
        lengths in prop::collection::vec(1_u64..50, 1..4),
        asked in 1_u64..60,
    ) {
        let lengths: Vec<_> = lengths.into_iter().map(seconds).collect();
        let mut windows = Windows::new(&lengths, sub_windows, 1);
        let (mut now, mut total, mut rows) = (seconds(0), 0, Vec::new());
        for (pause, count) in steps {
            now += seconds(pause);
            windows.advance(now, || vec![total]);
            total += count;
            rows.push((now, count));

            let longest = *lengths.iter().max().unwrap();
            let length = lengths.iter().filter(|length| **length >= seconds(asked)).min().unwrap_or(&longest).as_secs();
            let parts = (asked.min(length) * sub_windows as u64).div_ceil(length);
            let index = |time: Duration| time.as_secs() * sub_windows as u64 / length;
            let naive: u64 = rows.iter().filter(|(time, _)| index(*time) + parts > index(now)).map(|(_, count)| count).sum();
            prop_assert_eq!(windows.start(now, seconds(asked)).rows(vec![total]), vec![naive]);

            let over_time = windows.over_time(now, seconds(asked), &(0..1), &[total]);
            let rows: u64 = over_time[0].iter().map(|cells| cells[0]).sum();
            prop_assert!(rows == naive && over_time[0].len() <= sub_windows, "{:?}", over_time);
        }
    }
}
