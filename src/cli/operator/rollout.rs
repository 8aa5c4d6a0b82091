//! The commands of rollouts.

use clap::Subcommand;
use http::Method;

use super::{Answer, ModelChangeArgs, RolloutStartArgs, StatusArgs, line, model_path, read, show, watched};
use crate::{
    admin::wire::{RolloutBody, RolloutStatus, Share},
    cli::{
        Output,
        client::{Call, Client, ClientError},
        operator::{ChangeArgs, GatewayArgs},
        output::Look,
        view,
    },
};

#[derive(Debug, Clone, Subcommand)]
pub enum RolloutCommand {
    /// Start: the version gets the share of the first step, and goes on from there by itself.
    #[command(after_help = "Examples:
  tidegate rollout start fraud --version 4
  tidegate rollout start fraud --version 4 --steps 1,5,25,50,100 --interval 10m --alpha 0.01 --min-requests 500
  tidegate rollout start fraud --version 4 --dry-run

The gates, and what happens in each odd case: docs/ROLLOUT.md.")]
    Start(RolloutStartArgs),

    /// Show where the rollout is, or how the last one ended, and the evidence.
    #[command(after_help = "Examples:
  tidegate rollout status fraud
  tidegate rollout status fraud --watch
  tidegate rollout status fraud --output json | jq .evidence.combined")]
    Status(StatusArgs),

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
            changed(call, &args.change, &args.gateway, look)
        }
        RolloutCommand::Status(args) => {
            let call = Call::get(format!("{}/rollout", model_path(&args.model)));
            let ask = || show(&args.gateway, &call, |rollout: &RolloutStatus| view::rollout(rollout, false, look));
            if args.watch { watched(args, ask) } else { ask() }
        }
        RolloutCommand::Pause(args) => change(args, Method::POST, "/pause"),
        RolloutCommand::Resume(args) => change(args, Method::POST, "/resume"),
        RolloutCommand::Abort(args) => change(args, Method::DELETE, ""),
    }
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
