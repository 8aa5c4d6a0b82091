//! `tidegate drift`: how far live rows are from their reference.

use std::{fs, path::Path, time::SystemTime};

use super::{Answer, DriftArgs, line, model_path, read, show};
use crate::{
    admin::wire::{DriftReport, DriftSelfTest},
    cli::{
        Output,
        client::{Call, Client, ClientError},
        output::Look,
        report, view,
    },
};

pub(super) fn execute(args: &DriftArgs, look: Look) -> Result<Answer, ClientError> {
    if args.self_test {
        return show(&args.gateway, &call(args), |test: &DriftSelfTest| view::self_test(test, look));
    }
    let text = Client::new(&args.gateway).call(&call(args))?;
    if args.gateway.output == Output::Json && args.report.is_none() {
        return Ok(line(text).into());
    }
    let report: DriftReport = read(&text)?;
    if let Some(path) = &args.report {
        write(path, &report::page(&report, SystemTime::now()))?;
    }
    Ok(match args.gateway.output {
        Output::Json => line(text).into(),
        Output::Table => view::drift(&report, look).into(),
    })
}

fn call(args: &DriftArgs) -> Call {
    let place = if args.self_test { "drift/self-test" } else { "drift" };
    let mut call = Call::get(format!("{}/{place}", model_path(&args.model)));
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
