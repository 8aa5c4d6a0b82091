//! `tidegate profile`: runs a version over reference data and writes what the monitor will
//! compare live traffic with.

use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    ConfigFlags, ProfileArgs,
    check::load_runtime,
    load_config,
    output::{causes, complain},
};
use crate::{
    config::ModelConfig,
    engine::{EngineOptions, Model, OnnxModel},
    monitor::{FeatureProfile, Profile, ProfileBuilder, RareValues, Table},
    protocol::decode_json_request,
    registry::{self, open_version},
    schedule::Sample,
};

/// Rows per run of the model.
const BATCH: usize = 1000;
/// Rows that show the shapes of outputs.
const SEEN: usize = 2;

/// Runs the command.
#[must_use]
pub fn profile(args: &ProfileArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &ProfileArgs) -> Result<()> {
    let (runtime, _) = load_runtime(None).map_err(anyhow::Error::msg)?;
    let directory = &args.version_dir;
    if !directory.is_dir() {
        bail!("{} is not a directory: name a model version's directory, such as models/fraud/4", directory.display());
    }
    let config = ModelConfig::read(&directory.join(".."))?;
    // There is no configuration file here; the environment may say where links may lead.
    let roots = load_config(&ConfigFlags::default()).map(|config| config.admission.link_roots).unwrap_or_default();
    let roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    let mut model = open_version(&runtime, EngineOptions::default(), &config, directory, &roots, decode_json_request)?;
    let table = Table::open(&args.data)?;
    see(&mut model, &config, &table);
    let columns = registry::columns(&config, model.metadata(), model.signature())
        .map_err(|faults| anyhow::Error::msg(faults.join("; ")))?;
    let signature = model.signature().clone();
    let all: Vec<usize> = (0..signature.outputs.len()).collect();
    let progress = progress(table.row_count());
    let mut builder = ProfileBuilder::new(columns.clone());
    for batch in table.batches(&signature, &columns, BATCH)? {
        let inputs = batch?;
        let outputs = model.run(&inputs, &all).with_context(|| format!("after row {}", progress.position()))?;
        progress.inc(inputs.first().map_or(0, |input| input.shape().rows() as u64));
        builder.add(&inputs, &outputs);
    }
    progress.finish_and_clear();
    if progress.position() == 0 {
        bail!("{} has no rows: nothing to compare live traffic with", args.data.display());
    }
    let built = builder.finish();
    for skipped in &built.skipped {
        eprintln!("not profiled: {}: {}", skipped.name, skipped.reason);
    }
    for feature in built.profile.inputs_of_unknown_values() {
        let most = RareValues::MOST;
        eprintln!(
            "{feature}: it has more than {most} rare values: values that it never had will not be told from them"
        );
    }
    for feature in built.profile.features.iter().filter(|feature| feature.is_empty()) {
        eprintln!("{}: it has no value in the data: any value that comes will be reported as unseen", feature.feature);
    }
    if built.profile.features.iter().all(FeatureProfile::is_empty) {
        bail!("no column of {} has a value: nothing to compare live traffic with", args.data.display());
    }
    let out = args.out.clone().unwrap_or_else(|| directory.join("profile.json"));
    write(&built.profile, &out)?;
    eprintln!("{}: {} features from {} rows", out.display(), built.profile.features.len(), built.profile.rows);
    Ok(())
}

/// A model that takes no made-up rows shows the shapes of its outputs on the first rows of the data. What is wrong with those is
/// told where they are profiled.
fn see(model: &mut OnnxModel, config: &ModelConfig, table: &Table) {
    let signature = model.signature().clone();
    let columns = registry::columns(config, model.metadata(), &signature).unwrap_or_default();
    let first = table.batches(&signature, &columns, SEEN).ok().and_then(|mut batches| batches.next()?.ok());
    let samples: Vec<Sample> =
        first.into_iter().map(|inputs| Sample { origin: "the reference data", inputs: inputs.into() }).collect();
    registry::see(model, &samples);
}

/// Written beside and renamed, so that a gateway that watches never sees half of it.
fn write(profile: &Profile, out: &Path) -> Result<()> {
    let mut temporary = out.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let json = profile.to_json()?;
    // A gateway must take it.
    Profile::parse(json.as_bytes())?;
    fs::write(&temporary, json)
        .and_then(|()| fs::rename(&temporary, out))
        .with_context(|| format!("cannot write {}", out.display()))
}

fn progress(rows: u64) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("profiling {bar:40} {human_pos}/{human_len} rows, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(rows), target).with_style(style)
}
