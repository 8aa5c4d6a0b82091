//! The commands of rollouts.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use clap::Subcommand;
use http::Method;

use super::{Answer, ModelChangeArgs, RolloutStartArgs, RolloutStatusArgs, line, model_path, read, watched};
use crate::{
    admin::wire::{RolloutBody, RolloutStatus, Share},
    cli::{
        Output,
        client::{Call, Client, ClientError},
        operator::{ChangeArgs, GatewayArgs},
        output::{Look, printable},
        view,
    },
    domain::ModelName,
};

#[derive(Debug, Clone, Subcommand)]
pub enum RolloutCommand {
    /// Start: the version gets the share of the first step, and goes on from there by itself.
    #[command(after_help = "Examples:
  tidegate rollout start fraud --version 4
  tidegate rollout start fraud --version 4 --steps 1,5,25,50,100 --interval 10m --alpha 0.01 --min-requests 500
  tidegate rollout start fraud --version 4 --wait
  tidegate rollout start fraud --version 4 --dry-run

What is not given is as [rollout] of the gateway's configuration says; the defaults are shown above.
With --wait the exit code is 0 when the version was promoted, and 1 when it was not.

The gates, and what happens in each odd case: docs/ROLLOUT.md.")]
    Start(RolloutStartArgs),

    /// Show where the rollout is, or how the last one ended, and the evidence. The exit code is 1 when it ended without
    /// promoting the version.
    #[command(after_help = "Examples:
  tidegate rollout status fraud
  tidegate rollout status fraud --watch
  tidegate rollout status fraud --wait
  tidegate rollout status fraud --output json | jq .evidence.combined")]
    Status(RolloutStatusArgs),

    /// Stay at this share; a version that is found worse is rolled back all the same.
    #[command(after_help = "Examples:
  tidegate rollout pause fraud --reason \"the evening peak\"")]
    Pause(ModelChangeArgs),

    /// Go on after a pause.
    #[command(after_help = "Examples:
  tidegate rollout resume fraud")]
    Resume(ModelChangeArgs),

    /// End the rollout and its canary; stable serves everything.
    #[command(after_help = "Examples:
  tidegate rollout abort fraud --reason \"wrong version\"")]
    Abort(ModelChangeArgs),
}

pub(super) fn execute(command: &RolloutCommand, look: Look) -> Result<Answer, ClientError> {
    let change = |args: &ModelChangeArgs, method: Method, part: &str| {
        let call = Call::new(method, format!("{}/rollout{part}", model_path(&args.model)));
        changed(call, &args.change, &args.gateway, look)
    };
    match command {
        RolloutCommand::Start(args) => {
            let call = Call::new(Method::POST, format!("{}/rollout", model_path(&args.model))).json(&body(args));
            if !args.wait {
                return changed(call, &args.change, &args.gateway, look);
            }
            let client = Client::new(&args.gateway);
            let started: RolloutStatus = read(&client.call(&call.options(&args.change))?)?;
            tell(&view::rollout_line(&started));
            wait(&client, &args.model, Some(&started.started_at), &args.gateway, look)
        }
        RolloutCommand::Status(args) if args.wait => {
            wait(&Client::new(&args.gateway), &args.model, None, &args.gateway, look)
        }
        RolloutCommand::Status(args) => {
            let client = Client::new(&args.gateway);
            let ask = || shown(client.call(&status_call(&args.model))?, &args.gateway, look);
            if args.watch.watch { watched(&args.watch, &args.gateway, ask) } else { ask() }
        }
        RolloutCommand::Pause(args) => change(args, Method::POST, "/pause"),
        RolloutCommand::Resume(args) => change(args, Method::POST, "/resume"),
        RolloutCommand::Abort(args) => change(args, Method::DELETE, ""),
    }
}

fn status_call(model: &ModelName) -> Call {
    Call::get(format!("{}/rollout", model_path(model)))
}

/// A rollout as it is. One that ended without promoting its version is a failure.
fn shown(text: String, gateway: &GatewayArgs, look: Look) -> Result<Answer, ClientError> {
    let status: RolloutStatus = read(&text)?;
    let failure = (is_over(&status) && status.state != PROMOTED).then(|| {
        let (model, version, state) = (&status.model, status.version, status.state.replace('_', " "));
        format!("{model}: version {version} was not promoted: {state}")
    });
    let is_last = is_over(&status);
    let text = match gateway.output {
        Output::Json => line(text),
        Output::Table => view::rollout(&status, false, look),
    };
    Ok(Answer { is_last, ..Answer::failed(text, failure) })
}

/// The state of a rollout whose version became stable.
const PROMOTED: &str = "completed";

fn is_over(status: &RolloutStatus) -> bool {
    !matches!(status.state.as_str(), "running" | "paused")
}

/// How often a rollout is looked at that is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// How often in a row the gateway may not answer: it is being restarted, and the rollout goes on afterwards.
const MISSES: u32 = 60;

/// Waits until the rollout is over, and says on stderr what happens meanwhile. `started_at` names the rollout: where there
/// is another by then, it was superseded.
fn wait(
    client: &Client,
    model: &ModelName,
    started_at: Option<&str>,
    gateway: &GatewayArgs,
    look: Look,
) -> Result<Answer, ClientError> {
    let (mut told, mut missed) = (String::new(), 0);
    let mut started_at = started_at.map(str::to_owned);
    loop {
        match client.call(&status_call(model)) {
            Ok(text) => {
                missed = 0;
                let status: RolloutStatus = read(&text)?;
                if started_at.get_or_insert_with(|| status.started_at.clone()) != &status.started_at {
                    let failure =
                        format!("{model}: the rollout was not waited for to its end: another one was started");
                    let shown = shown(text, gateway, look)?;
                    return Ok(Answer { failure: Some(failure), ..shown });
                }
                if is_over(&status) {
                    return shown(text, gateway, look);
                }
                let line = view::rollout_line(&status);
                if line != told {
                    tell(&line);
                    told = line;
                }
            }
            Err(error) if error.may_pass() && missed < MISSES => {
                if missed == 0 {
                    tell(&error.to_string());
                }
                missed += 1;
            }
            Err(error) => return Err(error),
        }
        thread::sleep(LOOK);
    }
}

/// Progress, beside the data on stdout.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(line));
}

fn body(args: &RolloutStartArgs) -> RolloutBody {
    let text = |duration| humantime::format_duration(duration).to_string();
    RolloutBody {
        version: args.version.get(),
        steps: args.steps.as_ref().map(|steps| steps.iter().map(|step| Share(step.get())).collect()),
        interval: args.interval.map(text),
        alpha: args.alpha,
        min_requests: args.min_requests,
        max_error_rate: args.max_error_rate,
        max_p99_ratio: args.max_p99_ratio,
        latency_tolerance: args.latency_tolerance.map(text),
        output_tolerance: args.output_tolerance,
        on_drift: args.on_drift.clone(),
        // Goes into the query, as with every change.
        reason: None,
    }
}

fn changed(call: Call, options: &ChangeArgs, gateway: &GatewayArgs, look: Look) -> Result<Answer, ClientError> {
    let text = Client::new(gateway).call(&call.options(options))?;
    Ok(match gateway.output {
        Output::Json => line(text).into(),
        Output::Table => view::rollout(&read(&text)?, options.dry_run, look).into(),
    })
}
