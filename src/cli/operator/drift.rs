//! `tidegate drift`: how far live rows are from their reference.

use std::{fs, path::Path, time::SystemTime};

use super::{Answer, DriftArgs, all, line, model_path, read, show};
use crate::{
    admin::wire::{DriftReport, DriftSelfTest},
    cli::{
        Output,
        client::{Call, Client, ClientError},
        output::Look,
        report, view,
    },
    domain::ModelName,
};

pub(super) fn execute(args: &DriftArgs, look: Look) -> Result<Answer, ClientError> {
    let Some(model) = &args.model else { return all::drift(args, look) };
    if args.self_test {
        return show(&args.gateway, &call(args, model), |test: &DriftSelfTest| view::self_test(test, look));
    }
    let text = Client::new(&args.gateway).call(&call(args, model))?;
    if args.gateway.output == Output::Json && args.report.is_none() && !args.exit_code {
        return Ok(line(text).into());
    }
    let report: DriftReport = read(&text)?;
    if let Some(path) = &args.report {
        write(path, &report::page(&report, SystemTime::now()))?;
    }
    let text = match args.gateway.output {
        Output::Json => line(text),
        Output::Table => view::drift(&report, look),
    };
    let code = if args.exit_code { exit_code(&report.state) } else { 0 };
    Ok(Answer { code, ..text.into() })
}

/// The exit code of `--exit-code` where there is no verdict: too few rows, or no profile yet.
pub(super) const NO_VERDICT: u8 = 5;

/// 1 and 2 stay what they are everywhere: failed, and bad usage.
pub(super) fn exit_code(state: &str) -> u8 {
    match state {
        "ok" => 0,
        "drift" => 3,
        "warning" => 4,
        _ => NO_VERDICT,
    }
}

/// How bad it is that a command exits with this code, among several: drift, a warning, no verdict, ok.
pub(super) fn rank(code: u8) -> u8 {
    if code == 0 { 0 } else { u8::MAX - code }
}

pub(super) fn call(args: &DriftArgs, model: &ModelName) -> Call {
    let place = if args.self_test { "drift/self-test" } else { "drift" };
    let mut call = Call::get(format!("{}/{place}", model_path(model)));
    if let Some(version) = args.version {
        call = call.query("version", version);
    }
    if let Some(window) = args.window {
        call = call.query("window", humantime::format_duration(window));
    }
    if let Some(against) = &args.against {
        call = call.query("against", against);
    }
    if let Some(segment) = &args.segment {
        call = call.query("segment", segment);
    }
    call
}

fn write(path: &Path, page: &str) -> Result<(), ClientError> {
    fs::write(path, page).map_err(|cause| ClientError::Unwritable { path: path.display().to_string(), cause })
}
