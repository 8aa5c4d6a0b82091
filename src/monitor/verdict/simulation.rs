//! How often the judge is wrong, and how small a drift it finds, by simulation.
//!
//! Each test runs a part; the ignored ones run the whole and print the tables (add `--ignored --nocapture`).

mod dependent;
mod quality;
mod rare_bins;

use std::collections::VecDeque;

use super::{power::normal_bins, *};
use crate::monitor::simulation::Random;

const LOOK: Duration = Duration::from_secs(4);

/// A judge whose one test has this `alpha`, with this floor of the corrected PSI.
fn judge(alpha: f64, floor: f64, most_bins: usize) -> Judge {
    // One feature and window, and a look every 4 s.
    let false_alarm_interval = Duration::from_secs_f64(4.0 / TESTS_PER_FEATURE as f64 / alpha);
    let thresholds = Thresholds { warning: floor, drift: floor, false_alarm_interval, ..Thresholds::default() };
    let judge = Judge::new(thresholds, Tests { features: 1, horizons: 1 }, most_bins);
    assert!((judge.alpha(LOOK) / alpha - 1.0).abs() < 1e-9);
    judge
}

/// The state of independent rows.
fn found(judge: &Judge, reference: &[u64], live: &[u64], look: Duration, previous: DriftState) -> DriftState {
    judge.find([reference, live].map(Sample::independent), look, previous).state
}

/// Shares of equal bins, or each three fifths of the one before.
fn shares(bins: usize, is_skewed: bool) -> Vec<f64> {
    let ratio: f64 = if is_skewed { 0.6 } else { 1.0 };
    let weights: Vec<f64> = (0..bins).map(|bin| ratio.powf(bin as f64)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The probability of a false alarm, in parts of `alpha`, and its standard error: of the judge, and of one
/// that looks at the PSI alone.
fn false_alarms(p: &[f64], reference_rows: u64, rows: u64, alpha: f64, runs: u32) -> [(f64, f64); 2] {
    let judge = judge(alpha, 0.0, p.len());
    let freedom = p.len() - 1;
    let critical = judge.critical(freedom, LOOK);
    // Most false alarms come from both samples, each as far off as its part in the variance.
    let live_part = reference_rows as f64 / (reference_rows + rows) as f64;
    let inflation = |part: f64| 1.3 * part * critical / freedom as f64;
    let mut random = Random::new(rows + p.len() as u64);
    let mut draw = |rows: u64, inflation: f64| {
        if inflation > 1.2 { random.inflated(rows, p, inflation) } else { (random.multinomial(rows, p), 0.0) }
    };
    let mut sums = [(0.0, 0.0); 2];
    for _ in 0..runs {
        let (reference, reference_weight) = draw(reference_rows, inflation(1.0 - live_part));
        let (live, live_weight) = draw(rows, inflation(live_part));
        let log_weight = reference_weight + live_weight;
        let weight = log_weight.exp() / alpha;
        let found = found(&judge, &reference, &live, LOOK, DriftState::Ok).is_alarm();
        let pooling = Pooling::new(&reference, rows as f64);
        let (pooled_reference, pooled_live) = (pooling.of(&reference), pooling.of(&live));
        let scale = 1.0 / rows as f64 + 1.0 / reference_rows as f64;
        let alone =
            measures::psi(&pooled_reference, &pooled_live) >= scale * judge.critical(pooled_reference.len() - 1, LOOK);
        for (sum, is_alarm) in sums.iter_mut().zip([found, alone]) {
            let weight = if is_alarm { weight } else { 0.0 };
            *sum = (sum.0 + weight, sum.1 + weight * weight);
        }
    }
    sums.map(|(sum, squares)| {
        let mean = sum / f64::from(runs);
        (mean, ((squares / f64::from(runs) - mean * mean) / f64::from(runs)).sqrt())
    })
}

#[test]
fn false_alarm_is_no_likelier_than_alpha() {
    for (bins, is_skewed) in [(2, false), (5, true), (10, false), (10, true), (30, false)] {
        for rows in [200, 1000, 5000] {
            for alpha in [1e-3, 1e-7] {
                let [(rate, error), _] = false_alarms(&shares(bins, is_skewed), 10_000, rows, alpha, 1500);
                let place = format!("{bins} bins (skewed: {is_skewed}), {rows} rows, {alpha}");
                assert!(rate - 3.0 * error < 1.1, "{place}: {rate} ± {error} times alpha");
            }
        }
    }
}

#[test]
#[ignore = "the whole table: minutes"]
fn false_alarm_table() {
    println!("bins rows reference | false alarms / alpha of the judge (of the PSI alone) at 1e-3, 1e-4, 1e-7");
    for is_skewed in [false, true] {
        for bins in [2, 5, 10, 30] {
            for rows in [200, 500, 1000, 5000] {
                for reference_rows in [10_000, 50_000] {
                    let p = shares(bins, is_skewed);
                    let cells = [1e-3, 1e-4, 1e-7].map(|alpha| {
                        let [(rate, error), (alone, _)] = false_alarms(&p, reference_rows, rows, alpha, 40_000);
                        assert!(rate - 3.0 * error < 1.1, "{bins} {rows} {alpha}: {rate} ± {error}");
                        format!("{rate:.2} ± {error:.2} ({alone:.1})")
                    });
                    let skew = if is_skewed { " skewed" } else { "" };
                    println!("{bins}{skew} {rows} {reference_rows} | {}", cells.join(" | "));
                }
            }
        }
    }
}

/// Two bins, every outcome: the exact probability of a false alarm in parts of `alpha`.
fn exact_false_alarms(p: f64, reference_rows: u64, rows: u64, alpha: f64) -> f64 {
    let judge = judge(alpha, 0.0, 2);
    let law = |rows: u64| -> Vec<(u64, f64)> {
        let ln = |n: u64| statrs::function::gamma::ln_gamma(n as f64 + 1.0);
        let log = |c: u64| ln(rows) - ln(c) - ln(rows - c) + c as f64 * p.ln() + (rows - c) as f64 * (-p).ln_1p();
        (0..=rows).map(|c| (c, log(c))).filter(|(_, log)| *log > -45.0).map(|(c, log)| (c, log.exp())).collect()
    };
    let reference: Vec<_> = law(reference_rows).into_iter().filter(|(_, share)| *share > 1e-5).collect();
    let mut rate = 0.0;
    for (c, live_share) in law(rows) {
        // Near the mean nothing is an alarm.
        if live_share > 1e3 * alpha {
            continue;
        }
        for &(r, reference_share) in &reference {
            let tables = ([r, reference_rows - r], [c, rows - c]);
            if found(&judge, &tables.0, &tables.1, LOOK, DriftState::Ok).is_alarm() {
                rate += live_share * reference_share;
            }
        }
    }
    rate / alpha
}

#[test]
fn false_alarm_of_a_rare_bin_is_no_likelier_than_alpha_to_the_far_tail() {
    for expected in [2.0, 5.0, 10.0, 16.0, 40.0] {
        for alpha in [1e-5, 1e-7] {
            let rate = exact_false_alarms(expected / 500.0, 2000, 500, alpha);
            println!("{expected} rows expected, {alpha}: {rate:.3} times alpha");
            assert!(rate <= 1.0, "{expected} rows expected, {alpha}: {rate} times alpha");
        }
    }
}

/// Rows of features that do not drift, through a window that slides.
struct Stream<'a> {
    hours: u64,
    window: Duration,
    sub_windows: u32,
    rows_per_look: u32,
    features: u32,
    judge: &'a Judge,
}

impl Stream<'_> {
    /// How many alarms began, and at how many looks there was one.
    fn alarms(&self, seed: u64) -> (u32, u32) {
        let mut random = Random::new(seed);
        let (look, p) = (self.window / self.sub_windows, [0.1; 10]);
        let looks = self.hours * 3600 / look.as_secs();
        let (mut began, mut alarmed) = (0, 0);
        for _ in 0..self.features {
            let reference = random.multinomial(10_000, &p);
            let mut window = vec![0; 10];
            let mut sub_windows = VecDeque::from(vec![[0; 10]; self.sub_windows as usize]);
            let mut state = DriftState::Ok;
            for _ in 0..looks {
                let (mut new, old) = ([0; 10], sub_windows.pop_front().unwrap());
                for _ in 0..self.rows_per_look {
                    new[usize::try_from(random.whole() % 10).unwrap()] += 1;
                }
                for ((all, old), new) in window.iter_mut().zip(old).zip(new) {
                    *all = *all + new - old;
                }
                sub_windows.push_back(new);
                let next = found(self.judge, &reference, &window, look, state);
                began += u32::from(next.is_alarm() && !state.is_alarm());
                alarmed += u32::from(next.is_alarm());
                state = next;
            }
        }
        (began, alarmed)
    }
}

/// A judge of 20 features over one window, with a false alarm per `interval`; without the floors,
/// which would leave none.
fn stream_judge(interval: Duration, floor: f64) -> Judge {
    let thresholds =
        Thresholds { warning: floor, drift: floor, false_alarm_interval: interval, ..Thresholds::default() };
    Judge::new(thresholds, Tests { features: 20, horizons: 1 }, 10)
}

fn stream(hours: u64, judge: &Judge) -> Stream<'_> {
    Stream { hours, window: Duration::from_mins(5), sub_windows: 60, rows_per_look: 10, features: 20, judge }
}

#[test]
fn stream_without_drift_keeps_the_budget_of_false_alarms() {
    let judge = stream_judge(Duration::from_mins(10), 0.0);
    let (began, alarmed) = stream(3, &judge).alarms(7);
    println!("3 h, a false alarm allowed per 10 min: {began} began, {alarmed} looks of {}", 3 * 720 * 20);
    assert!(began <= 18, "{began}");
    assert_eq!(stream(1, &stream_judge(Duration::from_mins(10), 0.1)).alarms(7), (0, 0));
}

#[test]
#[ignore = "ten days of looks: a minute"]
fn stream_table() {
    for (minutes, floor) in [(120, 0.0), (10, 0.0), (10, 0.03), (10, 0.1)] {
        let judge = stream_judge(Duration::from_mins(minutes), floor);
        let runs: Vec<_> = (0..10).map(|seed| stream(24, &judge).alarms(seed)).collect();
        let (began, alarmed) = runs.iter().fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
        let allowed = 10 * 24 * 60 / minutes;
        println!(
            "a false alarm per {minutes} min, floor {floor}: {began} began in 10 × 24 h ({allowed} allowed), {alarmed} looks in alarm; by day {runs:?}"
        );
        assert!(u64::from(began) <= allowed);
    }
}

/// How often a normal feature that moves by `sigma` is called `drift`.
fn detected(judge: &Judge, bins: usize, reference_rows: u64, rows: u64, sigma: f64, runs: u32) -> f64 {
    let (p, q) = (vec![1.0 / bins as f64; bins], normal_bins(bins, sigma));
    let mut random = Random::new(rows);
    let found = (0..runs).filter(|_| {
        let (reference, live) = (random.multinomial(reference_rows, &p), random.multinomial(rows, &q));
        found(judge, &reference, &live, LOOK, DriftState::Ok) == DriftState::Drift
    });
    found.count() as f64 / f64::from(runs)
}

#[test]
fn smallest_shift_is_found_as_often_as_it_says() {
    let cases = [(10, 5000, 0.0), (10, 5000, 0.15), (2, 1000, 0.02), (30, 2000, 0.05)];
    // Where it is the noise that must be beaten, with few rows.
    let noisy = [(5, 200, 0.0), (10, 200, 0.0), (30, 200, 0.0), (10, 500, 0.0), (30, 500, 0.0)];
    for (bins, rows, floor) in cases.into_iter().chain(noisy) {
        for power in [0.5, 0.8] {
            let judge = judge(1e-6, floor, bins);
            let shift = judge.smallest_shift(bins, [10_000, rows], LOOK, DriftState::Drift, power);
            let found = detected(&judge, bins, 10_000, rows, shift.sigma, 800);
            let place = format!("{bins} bins, {rows} rows, floor {floor}, power {power}: {shift:.4?}");
            println!("{place}: found {found:.3}");
            assert!((found - power).abs() < 0.07, "{place}: found {found}");
        }
    }
}

#[test]
fn smallest_shift_shrinks_with_rows_to_the_floor() {
    let sigma = |rows, power| smallest_shift(10, 100_000, rows, 1e-7, 0.1, power).sigma;
    assert!(sigma(200, 0.8) > sigma(1000, 0.8) && sigma(1000, 0.8) > sigma(100_000, 0.8));
    assert!(sigma(500, 0.8) > sigma(500, 0.5));
    let least = smallest_shift(10, 100_000_000, 100_000_000, 1e-7, 0.1, 0.5);
    assert!((least.psi - 0.1).abs() < 1e-3, "{least:?}");
    // PSI is about the square of a small shift.
    let small = smallest_shift(100, 1_000_000_000, 1_000_000, 1e-7, 0.0, 0.5);
    assert!((small.psi.sqrt() / small.sigma - 1.0).abs() < 0.05, "{small:?}");
}
