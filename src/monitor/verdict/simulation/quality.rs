//! Shares of rows that do not grow, through real windows and looks: how often a verdict on them is a false alarm.

use super::{super::*, stream_judge};
use crate::monitor::{counts::Counts, simulation::Random};

const SUB_WINDOW: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_mins(5);
/// The shares that each feature has a verdict on: of what the reference never or hardly had, of what is rare, of what is usual.
const SHARES: [f64; 4] = [0.0, 0.001, 0.01, 0.1];
const FEATURES: u64 = 20;

/// A share of rows that come `alike` at a time.
struct Shares {
    hours: u32,
    rows: u64,
    alike: u64,
    /// Whether the judge is told how the rows came.
    is_corrected: bool,
}

impl Shares {
    /// How many alarms began for each share, of all features.
    fn alarms(&self, judge: &Judge, seed: u64) -> [u32; SHARES.len()] {
        let mut random = Random::new(seed + 1);
        SHARES.map(|share| (0..FEATURES).map(|_| self.alarms_of(judge, share, &mut random)).sum())
    }

    fn alarms_of(&self, judge: &Judge, share: f64, random: &mut Random) -> u32 {
        let counts = Counts::new(2, &[WINDOW, Duration::from_hours(1)], 60);
        let reference = [random.binomial(10_000, share), 10_000];
        let (mut began, mut state, mut now) = (0, DriftState::Ok, Duration::from_secs(1_000_000));
        for look in 0..(self.hours + 1) * 720 {
            now += SUB_WINDOW;
            let counting = counts.begin(now);
            for _ in 0..self.rows / self.alike {
                let cell = usize::from(random.uniform() >= share);
                (0..self.alike).for_each(|_| counting.add_all(cell, None, &[0]));
            }
            drop(counting);
            // The first hour fills the windows.
            if look < 720 {
                continue;
            }
            let live = counts.within(WINDOW, now);
            let over_time = || if self.is_corrected { counts.over_time(0..2, WINDOW, now) } else { Vec::new() };
            let next = judge.judge_share_samples(
                ShareSample { rows: reference, over_time: &Vec::new },
                ShareSample { rows: [live[0], live[0] + live[1]], over_time: &over_time },
                SUB_WINDOW,
                state,
            );
            began += u32::from(next.state.is_alarm() && !state.is_alarm());
            state = next.state;
        }
        began
    }
}

/// A judge of 20 features over one window, without the floors.
fn judge(interval: Duration) -> Judge {
    let mut judge = stream_judge(interval, 0.0);
    (judge.thresholds.share_warning, judge.thresholds.share_drift) = (0.0, 0.0);
    judge
}

#[test]
fn stream_of_shares_without_growth_keeps_the_budget_of_false_alarms() {
    let shares = Shares { hours: 1, rows: 10, alike: 1, is_corrected: true };
    let began = shares.alarms(&judge(Duration::from_mins(10)), 3);
    println!("1 h, a false alarm allowed per 10 min: {began:?} began");
    // Each share is one of six tests of a feature.
    assert!(began.iter().sum::<u32>() <= 6, "{began:?}");
    // With the floors as they are, none.
    let real = stream_judge(Duration::from_mins(10), 0.0);
    assert_eq!(shares.alarms(&real, 3), [0; SHARES.len()]);
}

#[test]
fn stream_of_clustered_shares_keeps_the_budget_of_false_alarms() {
    let began = [true, false].map(|is_corrected| {
        let shares = Shares { hours: 1, rows: 10, alike: 5, is_corrected };
        shares.alarms(&judge(Duration::from_mins(10)), 3).iter().sum::<u32>()
    });
    println!("1 h, a false alarm allowed per 10 min: {} began, {} without the correction", began[0], began[1]);
    assert!(began[0] <= 6 && began[1] > 20, "{began:?}");
}

#[test]
#[ignore = "days of looks: minutes"]
fn share_table() {
    println!("rows per look, alike, corrected | began by share {SHARES:?} in a day, of 144 allowed for all");
    for (rows, alike) in [(10, 1), (100, 1), (10, 5), (100, 20)] {
        for is_corrected in [true, false] {
            let shares = Shares { hours: 24, rows, alike, is_corrected };
            let began = shares.alarms(&judge(Duration::from_mins(10)), 1);
            println!("{rows} {alike} {is_corrected} | {began:?}");
            assert!(!is_corrected || began.iter().sum::<u32>() <= 144, "{began:?}");
        }
    }
}
