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
    ConfigFlags, DecimalMark, ProfileArgs,
    check::load_runtime,
    load_config,
    output::{Look, causes, complain, print, printable},
    view,
};
use crate::{
    config::ModelConfig,
    domain::Version,
    engine::{EngineOptions, Model, OnnxModel},
    monitor::{
        ColumnType, FeatureProfile, MonitorSettings, Profile, ProfileBuilder, RareValues, Table, TableOptions, Taken,
    },
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
    if let Some(version) = version_of_model(directory) {
        bail!("{} is a model, not a version of it: did you mean {}?", directory.display(), version.display());
    }
    let mut config = ModelConfig::read(&directory.join(".."))?;
    config.columns.extend(args.columns.iter().cloned());
    // There is no configuration file here; the environment may say where links may lead.
    let roots = load_config(&ConfigFlags::default()).map(|config| config.admission.link_roots).unwrap_or_default();
    let roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    let mut model = open_version(&runtime, EngineOptions::default(), &config, directory, &roots, decode_json_request)?;
    let is_comma = |decimal| decimal == DecimalMark::Comma;
    let options = TableOptions { delimiter: args.delimiter, decimal_comma: args.decimal.map(is_comma) };
    let table = Table::open_all(&args.data, options)?;
    table.notes().iter().for_each(|note| eprintln!("{}", printable(note)));
    see(&mut model, &config, &table);
    let columns = registry::columns(&config, model.metadata(), model.signature())
        .map_err(|faults| anyhow::Error::msg(faults.join("; ")))?;
    let signature = model.signature().clone();
    let mut types = registry::column_types(&config);
    types.extend(args.types.iter().cloned());
    let faults = types.faults(&signature, &columns);
    if !faults.is_empty() {
        bail!("the types of columns (--types, and [monitor.features] of model.toml): {}", faults.join("; "));
    }
    let all: Vec<usize> = (0..signature.outputs.len()).collect();
    let progress = progress(table.row_count());
    let mut builder = ProfileBuilder::new(columns.clone()).with_types(types);
    let mut batches = table.batches(&signature, &columns, BATCH)?;
    for batch in &mut batches {
        let batch = batch?;
        let outputs = model.run(&batch.inputs, &all).with_context(|| format!("after row {}", progress.position()))?;
        progress.inc(batch.rows as u64);
        let [inputs, outputs] = [&batch.inputs, &outputs]
            .map(|tensors| tensors.iter().map(|tensor| batch.own_rows(tensor)).collect::<Vec<_>>());
        builder.add(&inputs, &outputs);
    }
    progress.finish_and_clear();
    let rows = progress.position();
    if rows == 0 {
        bail!("{} has no rows: nothing to compare live traffic with", data(args));
    }
    batches.notes().iter().for_each(|note| eprintln!("{}", printable(note)));
    if rows < MonitorSettings::default().thresholds.min_rows {
        eprintln!("warning: {rows} rows are too few to tell a drift from chance: take thousands where there are some");
    }
    let built = builder.finish();
    // Whoever reads it has seen enough where it cannot be written.
    let _ = print(view::taken(&built.taken, Look::of_stdout()).as_bytes());
    for skipped in &built.skipped {
        eprintln!("not profiled: {}: {}", skipped.name, skipped.reason);
    }
    for feature in built.profile.inputs_of_unknown_values() {
        let most = RareValues::MOST;
        eprintln!(
            "{feature}: it has more than {most} rare values: values that it never had will not be told from them"
        );
    }
    built.taken.iter().filter_map(warning).for_each(|warning| eprintln!("{warning}"));
    if built.profile.features.iter().all(FeatureProfile::is_empty) {
        bail!("no column of {} has a value: nothing to compare live traffic with", data(args));
    }
    let out = args.out.clone().unwrap_or_else(|| directory.join("profile.json"));
    write(&built.profile, &out)?;
    eprintln!("{}: {} features from {} rows", out.display(), built.profile.features.len(), built.profile.rows);
    Ok(())
}

/// The paths of the data, in words.
fn data(args: &ProfileArgs) -> String {
    args.data.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The newest version in a directory that is a model rather than a version.
fn version_of_model(directory: &Path) -> Option<PathBuf> {
    if directory.join("model.onnx").exists() {
        return None;
    }
    let versions =
        fs::read_dir(directory).ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<Version>().ok());
    let newest = versions.filter(|version| directory.join(version.to_string()).is_dir()).max()?;
    Some(directory.join(newest.to_string()))
}

/// A model that takes no made-up rows shows the shapes of its outputs on the first rows of the data. What is wrong with those is
/// told where they are profiled.
fn see(model: &mut OnnxModel, config: &ModelConfig, table: &Table) {
    let signature = model.signature().clone();
    let columns = registry::columns(config, model.metadata(), &signature).unwrap_or_default();
    let first = table.batches(&signature, &columns, SEEN).ok().and_then(|mut batches| batches.next()?.ok());
    let samples: Vec<Sample> =
        first.into_iter().map(|batch| Sample { origin: "the reference data", inputs: batch.inputs.into() }).collect();
    registry::see(model, &samples);
}

/// What to do about a column that will drift for ever.
fn warning(Taken { column, warning, .. }: &Taken) -> Option<String> {
    let (column, ignore) = (printable(column), ColumnType::Ignore);
    warning.as_ref().map(|why| {
        format!(
            "warning: {column}: {why}: it will seem to drift for ever. Leave it out with --types '{column}={ignore}', or with \
             \"{column}\" = \"{ignore}\" under [monitor.features] in model.toml"
        )
    })
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
