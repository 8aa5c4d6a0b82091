//! The error rates of the rollout's test, by simulation with a look after every request: how often a version
//! that does not differ is rolled back, and how many requests of a worse one it takes.
//!
//! `cargo bench --bench rollout` takes about a minute. The exit code says whether the promises hold.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::process::ExitCode;

use tidegate::rollout::{Difference, Excess, Metric, Pair};

#[path = "../src/rollout/evidence/simulation.rs"]
mod simulation;

const RUNS: u64 = 4_000;
const REQUESTS: usize = 20_000;

fn main() -> ExitCode {
    let mut is_kept = true;
    println!("false rollbacks, {RUNS} runs of {REQUESTS} requests, a look after each:");
    for shares in [&[0.1][..], &[0.01, 0.05, 0.25, 0.5]] {
        for alpha in [0.05, 0.01] {
            let found = simulation::false_rollbacks(RUNS, shares, REQUESTS, alpha) as f64 / RUNS as f64;
            is_kept &= found <= alpha;
            println!("  canary at {shares:?}, alpha {:>4}: {:.2} %", alpha, found * 100.0);
        }
    }
    println!("median requests of the canary until it is rolled back, alpha 0.01:");
    for (stable, canary) in [(0.01, 0.10), (0.01, 0.05), (0.01, 0.02), (0.001, 0.01), (0.0, 0.02)] {
        for rho in [0.05, 0.1, 0.5] {
            let median = simulation::median_to_detect(1_001, rho, stable, canary, 0.01);
            is_kept &= (rho, stable, canary) != (0.1, 0.01, 0.05) || median <= 200;
            println!("  errors {:.1} % -> {:.1} %, canary at {rho}: {median}", stable * 100.0, canary * 100.0);
        }
    }
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
