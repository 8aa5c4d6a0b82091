//! ONNX Runtime alone, in this process: what a run costs without a gateway around it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
    value::Tensor,
};
use serde_json::json;

use crate::models::{BenchModel, MODELS};

/// Runs are timed in groups of about this length. All of them count, as all requests do in the rates that these times
/// are held against.
const GROUP: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Args {
    models: PathBuf,
    /// The model to run.
    #[arg(long)]
    model: String,
    /// Rows per run.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 128])]
    batches: Vec<usize>,
    /// How long to run each batch size.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
}

/// Prints a JSON line per batch size.
pub fn measure(args: &Args) -> Result<()> {
    let environment = environment()?;
    let model = MODELS.iter().find(|model| model.name == args.model).context("no such model")?;
    let mut session = open(&environment, &args.models, model.name)?;
    for &batch in &args.batches {
        let micros = run_micros(&mut session, model, batch, Duration::from_secs_f64(args.seconds))?;
        let line =
            json!({"model": model.name, "batch": batch, "us_per_run": micros, "us_per_row": micros / batch as f64});
        println!("{line}");
    }
    Ok(())
}

fn run_micros(session: &mut Session, model: &BenchModel, batch: usize, time: Duration) -> Result<f64> {
    let input = input(model, batch)?;
    let mut run = || session.run(ort::inputs!["x" => &input]).map(|_| ());
    run()?;
    let started = Instant::now();
    run()?;
    let group = u32::try_from(GROUP.as_nanos() / started.elapsed().as_nanos().max(1)).unwrap_or(u32::MAX).max(1);
    let mut groups = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time || groups.len() < 3 {
        let started = Instant::now();
        for _ in 0..group {
            run()?;
        }
        groups.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(group));
    }
    Ok(groups.iter().sum::<f64>() / groups.len() as f64)
}

/// Loads all models, runs each once, and prints the memory of this process, in KiB.
pub fn memory(models: &Path) -> Result<()> {
    let environment = environment()?;
    let mut sessions = Vec::new();
    for model in &MODELS {
        let mut session = open(&environment, models, model.name)?;
        session.run(ort::inputs!["x" => &input(model, 1)?])?;
        sessions.push(session);
    }
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let of = |key: &str| -> Option<u64> {
        rollup.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
    };
    println!("{}", json!({"rss_kib": of("Rss:"), "pss_kib": of("Pss:")}));
    drop(sessions);
    Ok(())
}

/// The first FP32 output of one run on the model's request.
pub fn first_floats(environment: &Environment, models: &Path, model: &BenchModel) -> Result<Vec<f32>> {
    let mut session = open(environment, models, model.name)?;
    let outputs = session.run(ort::inputs!["x" => &input(model, 1)?])?;
    let values = outputs.values().find_map(|value| Some(value.try_extract_tensor::<f32>().ok()?.1.to_vec()));
    values.context("no FP32 output")
}

fn input(model: &BenchModel, batch: usize) -> Result<Tensor<f32>> {
    let mut shape = vec![i64::try_from(batch)?];
    shape.extend(model.row);
    Ok(Tensor::from_array((shape, model.values().repeat(batch)))?)
}

/// The only one of this process.
pub fn environment() -> Result<Environment> {
    let library = tidegate::engine::find_library(std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from), None)?;
    let builder = ort::init_from(library).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(builder.with_name("plain").with_telemetry(false).build()?)
}

fn open(environment: &Environment, models: &Path, name: &str) -> Result<Session> {
    let file = models.join(name).join("1/model.onnx");
    commit(environment, &file).with_context(|| format!("cannot load {}", file.display()))
}

/// One thread, all optimisations: what the gateway's defaults are.
fn commit(environment: &Environment, file: &Path) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .commit_from_file(file)
}
