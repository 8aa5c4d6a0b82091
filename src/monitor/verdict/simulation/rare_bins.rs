//! Rare bins: how often a verdict on them is a false alarm, and what change of them is found.

use super::{super::*, judge, stream_judge};
use crate::monitor::{counts::Counts, simulation::Random};

const SUB_WINDOW: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_mins(5);

/// All that is real is large.
const NO_FLOORS: RareFloors = RareFloors { warning: 1.0, drift: 1.0, least_change: 0.0 };

fn state(judge: &Judge, reference: &[u64], live: &[u64], floors: RareFloors) -> DriftState {
    let samples = [reference, live].map(Sample::independent);
    judge.judge_rare_bins(samples[0], samples[1], floors, super::LOOK, DriftState::Ok).state
}

/// Every outcome of one rare bin: the exact probability of a false alarm in parts of `alpha`.
fn exact_false_alarms(p: f64, [reference_rows, rows]: [u64; 2], alpha: f64) -> f64 {
    let judge = judge(alpha, 0.0, 2);
    let law = |rows: u64| -> Vec<(u64, f64)> {
        let ln = |n: u64| statrs::function::gamma::ln_gamma(n as f64 + 1.0);
        let log = |c: u64| ln(rows) - ln(c) - ln(rows - c) + c as f64 * p.ln() + (rows - c) as f64 * (-p).ln_1p();
        (0..=rows).map(|c| (c, log(c))).filter(|(_, log)| *log > -35.0).map(|(c, log)| (c, log.exp())).collect()
    };
    let (reference, live) = (law(reference_rows), law(rows));
    let mut rate = 0.0;
    for &(r, reference_share) in &reference {
        for &(c, live_share) in &live {
            let weight = reference_share * live_share;
            if weight > 1e-6 * alpha && state(&judge, &[reference_rows - r, r], &[rows - c, c], NO_FLOORS).is_alarm() {
                rate += weight;
            }
        }
    }
    rate / alpha
}

#[test]
fn rare_bin_that_has_not_changed_is_an_alarm_no_more_often_than_alpha() {
    for p in [1e-3, 5e-3, 0.02] {
        for alpha in [1e-2, 1e-4, 1e-6] {
            let rate = exact_false_alarms(p, [4000, 1000], alpha);
            println!("share {p}, alpha {alpha}: {rate:.3} times alpha");
            assert!(rate <= 1.0, "share {p}: {rate} times {alpha}");
        }
    }
}

#[test]
#[ignore = "the whole table: minutes"]
fn rare_bin_table() {
    println!("share reference rows | false alarms / alpha of one rare bin at 1e-2, 1e-4, 1e-6");
    for p in [1e-4, 1e-3, 0.01, 0.04] {
        for rows in [[2000, 300], [10_000, 1000], [2000, 10_000], [10_000, 10_000]] {
            let cells = [1e-2, 1e-4, 1e-6].map(|alpha| {
                let rate = exact_false_alarms(p, rows, alpha);
                assert!(rate <= 1.0, "{p} {rows:?} {alpha}: {rate}");
                format!("{rate:.2}")
            });
            println!("{p} {} {} | {}", rows[0], rows[1], cells.join(" | "));
        }
    }
}

/// Classes of a model, most of them rare, whose rows come `alike` at a time.
struct Classes {
    hours: u32,
    rows: u64,
    alike: u64,
    is_corrected: bool,
}

const SHARES: [f64; 6] = [0.93, 0.04, 0.02, 0.007, 0.002, 0.001];
const FEATURES: u64 = 20;

impl Classes {
    /// How many alarms began, of all features.
    fn alarms(&self, judge: &Judge, floors: RareFloors, seed: u64) -> u32 {
        let mut random = Random::new(seed + 1);
        (0..FEATURES).map(|_| self.alarms_of(judge, floors, &mut random)).sum()
    }

    fn alarms_of(&self, judge: &Judge, floors: RareFloors, random: &mut Random) -> u32 {
        let counts = Counts::new(SHARES.len(), &[WINDOW, Duration::from_hours(1)], 60);
        let reference = random.multinomial(10_000, &SHARES);
        let (mut began, mut state, mut now) = (0, DriftState::Ok, Duration::from_secs(1_000_000));
        for look in 0..(self.hours + 1) * 720 {
            now += SUB_WINDOW;
            let counting = counts.begin(now);
            for (cell, clusters) in random.multinomial(self.rows / self.alike, &SHARES).into_iter().enumerate() {
                (0..clusters * self.alike).for_each(|_| counting.add_all(cell, None, &[0]));
            }
            drop(counting);
            // The first hour fills the windows.
            if look < 720 {
                continue;
            }
            let live = counts.within(WINDOW, now);
            let over_time =
                || if self.is_corrected { counts.over_time(0..SHARES.len(), WINDOW, now) } else { Vec::new() };
            let live = Sample { bins: &live, over_time: &over_time };
            let next = judge.judge_rare_bins(Sample::independent(&reference), live, floors, SUB_WINDOW, state).state;
            began += u32::from(next.is_alarm() && !state.is_alarm());
            state = next;
        }
        began
    }
}

#[test]
fn stream_of_rare_classes_without_change_keeps_the_budget_of_false_alarms() {
    let judge = stream_judge(Duration::from_mins(10), 0.0);
    let began = [(1, true), (5, true), (5, false)]
        .map(|(alike, is_corrected)| Classes { hours: 1, rows: 10, alike, is_corrected }.alarms(&judge, NO_FLOORS, 3));
    println!("1 h, a false alarm allowed per 10 min: {began:?} began, alone, in fives, and without the correction");
    assert!(began[0] <= 6 && began[1] <= 6 && began[2] > 6, "{began:?}");
    // With the floors as they are, none of rows that are independent.
    let classes = Classes { hours: 1, rows: 10, alike: 1, is_corrected: true };
    assert_eq!(classes.alarms(&stream_judge(Duration::from_hours(720), 0.0), RareFloors::OF_OUTPUT, 3), 0);
}

#[test]
#[ignore = "days of looks: minutes"]
fn rare_class_table() {
    println!("rows per look, alike, corrected | began in a day, of 144 allowed");
    let judge = stream_judge(Duration::from_mins(10), 0.0);
    for (rows, alike) in [(10, 1), (100, 1), (10, 5), (100, 20)] {
        for is_corrected in [true, false] {
            let began = Classes { hours: 24, rows, alike, is_corrected }.alarms(&judge, NO_FLOORS, 1);
            println!("{rows} {alike} {is_corrected} | {began}");
            assert!(!is_corrected || began <= 144, "{began}");
        }
    }
}

/// How often a class that goes from one share to another is found (`drift`) at one look, by the rare bin and by the PSI.
fn found([from, to]: [f64; 2], [reference_rows, rows]: [u64; 2], runs: u32) -> [f64; 2] {
    let judge = Judge::new(Thresholds::default(), Tests { features: 11, horizons: 3 }, 3);
    let shares = |share: f64| [0.7 - share, 0.3, share];
    let mut random = Random::new(rows + reference_rows);
    let mut found = [0_u32; 2];
    for _ in 0..runs {
        let (reference, live) =
            (random.multinomial(reference_rows, &shares(from)), random.multinomial(rows, &shares(to)));
        let by_psi = super::found(&judge, &reference, &live, super::LOOK, DriftState::Ok);
        let states = [state(&judge, &reference, &live, RareFloors::OF_OUTPUT), by_psi];
        for (found, state) in found.iter_mut().zip(states) {
            *found += u32::from(state.is_alarm());
        }
    }
    found.map(|found| f64::from(found) / f64::from(runs))
}

#[test]
fn rare_class_that_doubles_is_found_and_the_psi_does_not_see_it() {
    let [doubled, fivefold, gone, none] =
        [[0.002, 0.004], [0.002, 0.01], [0.002, 0.0], [0.002, 0.002]].map(|shares| found(shares, [100_000; 2], 200));
    println!("{doubled:?} {fivefold:?} {gone:?} {none:?}");
    assert!(doubled[0] > 0.95 && doubled[1] < 0.01, "{doubled:?}");
    assert!(fivefold[0] > 0.99 && fivefold[1] < 0.01, "{fivefold:?}");
    assert!(gone[0] > 0.99, "{gone:?}");
    assert!(none.iter().all(|found| *found <= 0.0), "{none:?}");
}

#[test]
#[ignore = "the whole table: a minute"]
fn rare_class_power_table() {
    println!(
        "from, to | warning or drift at 10,000, 100,000, 1,000,000 rows (by the PSI), of 10,000, 50,000, 200,000 reference rows"
    );
    for shares in
        [[0.002, 0.003], [0.002, 0.004], [0.002, 0.01], [0.01, 0.02], [0.04, 0.08], [0.002, 0.0], [0.0, 0.001]]
    {
        for reference_rows in [10_000, 50_000, 200_000] {
            let cells = [10_000, 100_000, 1_000_000].map(|rows| {
                let [rare, psi] = found(shares, [reference_rows, rows], 400);
                format!("{rare:.2} ({psi:.2})")
            });
            println!("{shares:?} {reference_rows} | {}", cells.join(" | "));
        }
    }
}
