//! The operator commands: they ask the admin API over REST and print what it answers.

mod args;
mod drift;
mod rollout;

pub use args::{
    AdminUrl, ChangeArgs, DriftArgs, GatewayArgs, HistoryArgs, LabelArgs, LoadArgs, ModelChangeArgs, ModelsArgs,
    PromoteArgs, RollbackArgs, RolloutStartArgs, SplitArgs, StatusArgs, UnloadArgs, VersionArgs,
};
pub use rollout::RolloutCommand;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    thread,
};

use clap::Subcommand;
use http::Method;
use serde::de::DeserializeOwned;

use super::{
    Output,
    client::{Call, Client, ClientError},
    output::{Look, complain, print, warn},
    view,
    watch::watch,
};
use crate::{
    admin::wire::{
        History, ModelList, ModelStatus, Release, RollbackBody, Share, SplitBody, VersionBody, VersionStatus,
    },
    domain::{ModelName, Version},
};

#[derive(Debug, Clone, Subcommand)]
pub enum OperatorCommand {
    /// List the models, what serves each of them, and which versions are ready.
    #[command(after_help = "Examples:
  tidegate models
  tidegate models --output json | jq -r '.models[].model'")]
    Models(ModelsArgs),

    /// Show the release and the versions of a model.
    #[command(after_help = "Examples:
  tidegate status fraud
  tidegate status fraud --verbose
  tidegate status fraud --watch --interval 1s
  tidegate status fraud --output json | jq .release.generation")]
    Status(StatusArgs),

    /// Load a version that is on disk; wait until it is ready or has failed.
    #[command(after_help = "Examples:
  tidegate load fraud 4
  tidegate load fraud 4 --evict-previous
  tidegate load fraud 4 --allow-signature-change
  tidegate load fraud 4 --accept-changed --reason \"the mended export\"")]
    Load(LoadArgs),

    /// Drain and drop a version that the release does not use.
    #[command(after_help = "Examples:
  tidegate unload fraud 2")]
    Unload(UnloadArgs),

    /// Make a version the stable one; the old stable becomes the rollback target.
    #[command(after_help = "Examples:
  tidegate promote fraud 4 --reason \"better recall on card fraud\"
  tidegate promote fraud 4 --dry-run
  tidegate promote fraud 4 --strict
  tidegate promote fraud 4 --if-generation 7
  tidegate promote fraud 4 --idempotency-key release-2024-06-01")]
    Promote(PromoteArgs),

    /// Go back to the previous stable version, or to the one that is named.
    #[command(after_help = "Examples:
  tidegate rollback fraud --reason \"false alarms doubled\"
  tidegate rollback fraud --to 3

A version that somebody has rolled back from is a target only where it is named: a second rollback does not undo the
first. The command names what it leaves, by the generation of the release: of two at once, one is refused.")]
    Rollback(RollbackArgs),

    /// Say that a model is gone on purpose: it has no release any more. Its directory must be gone.
    #[command(after_help = "Examples:
  tidegate forget fraud --reason \"replaced by fraud2\"")]
    Forget(ModelChangeArgs),

    /// Give a version a percentage of the requests, or end that.
    #[command(after_help = "Examples:
  tidegate canary fraud --version 4 --percent 10
  tidegate canary fraud --clear")]
    Canary(SplitArgs),

    /// Give a version copies of a percentage of the requests, or end that; its answers are only counted.
    #[command(after_help = "Examples:
  tidegate shadow fraud --version 4 --percent 100
  tidegate shadow fraud --clear")]
    Shadow(SplitArgs),

    /// Give a version a growing share of the requests, and take it back when it is worse.
    #[command(
        subcommand,
        after_help = "Examples:
  tidegate rollout start fraud --version 4
  tidegate rollout status fraud"
    )]
    Rollout(RolloutCommand),

    /// Let a label stand for a version, or remove it.
    ///
    /// Requests may name it in place of a version. The labels stable, previous, canary and shadow are always there and
    /// stand for what the release names at that moment: they cannot be set.
    #[command(after_help = "Examples:
  tidegate label fraud champion --version 3
  tidegate label fraud champion --clear")]
    Label(LabelArgs),

    /// Show who changed the release of a model, when, what and why.
    #[command(after_help = "Examples:
  tidegate history fraud
  tidegate history fraud --limit 100 --output json
  tidegate history fraud --verify")]
    History(HistoryArgs),

    /// Show how far the live requests of a model are from its reference data.
    #[command(after_help = "Examples:
  tidegate drift fraud
  tidegate drift fraud --version 4 --window 5m
  tidegate drift fraud --segment country=DE
  tidegate drift fraud --against stable
  tidegate drift fraud --report drift.html
  tidegate drift fraud --self-test
  tidegate drift fraud --output json | jq -r '.features[] | select(.state == \"drift\").feature'")]
    Drift(DriftArgs),
}

/// Runs an operator command and prints its answer.
#[must_use]
pub fn run(command: &OperatorCommand) -> ExitCode {
    match execute(command, Look::of_stdout()) {
        Ok(answer) => {
            let printed = print(answer.text.as_bytes());
            answer.failure.map_or(printed, |failure| {
                complain(&failure);
                ExitCode::FAILURE
            })
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// What a command prints, and why it failed all the same.
struct Answer {
    text: String,
    failure: Option<String>,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, failure: None }
    }
}

fn execute(command: &OperatorCommand, look: Look) -> Result<Answer, ClientError> {
    match command {
        OperatorCommand::Models(args) => {
            let call = Call::get("/admin/v1/models");
            show(&args.gateway, &call, |models: &ModelList| {
                models.warnings.iter().for_each(|warning| warn(warning));
                models.models.iter().flat_map(|model| &model.warnings).for_each(|warning| warn(warning));
                view::models(models, look)
            })
        }
        OperatorCommand::Status(args) if args.watch => {
            let call = Call::get(model_path(&args.model));
            watched(args, || show(&args.gateway, &call, |model: &ModelStatus| view::status(model, args.verbose, look)))
        }
        OperatorCommand::Status(args) => {
            let call = Call::get(model_path(&args.model));
            show(&args.gateway, &call, |model: &ModelStatus| {
                model.warnings.iter().for_each(|warning| warn(warning));
                view::status(model, args.verbose, look)
            })
        }
        OperatorCommand::Load(args) => {
            let LoadArgs { version: args, allow_signature_change, accept_changed } = args;
            let mut call = version_call(&args.model, args.version, "load").evict_previous(args.evict_previous);
            if *allow_signature_change {
                call = call.query("allow_signature_change", true);
            }
            if *accept_changed {
                call = call.query("accept_changed", true);
            }
            versioned(&args.model, args.version, call, &args.change, &args.gateway, look)
        }
        OperatorCommand::Unload(args) => {
            let call = version_call(&args.model, args.version, "unload");
            versioned(&args.model, args.version, call, &args.change, &args.gateway, look)
        }
        OperatorCommand::Promote(args) => {
            let PromoteArgs { version: args, strict } = args;
            let body = VersionBody { version: args.version.get(), reason: None };
            let call = Call::new(Method::POST, format!("{}/promote", model_path(&args.model))).json(&body);
            let mut call = call.evict_previous(args.evict_previous);
            if *strict {
                call = call.query("strict", true);
            }
            change(&args.model, call, &args.change, &args.gateway, look)
        }
        OperatorCommand::Rollback(args) => rollback(args, look),
        OperatorCommand::Forget(args) => {
            let call = Call::new(Method::DELETE, model_path(&args.model));
            change(&args.model, call, &args.change, &args.gateway, look)
        }
        OperatorCommand::Canary(args) => split(args, "canary", look),
        OperatorCommand::Shadow(args) => split(args, "shadow", look),
        OperatorCommand::Rollout(command) => rollout::execute(command, look),
        OperatorCommand::Label(args) => label(args, look),
        OperatorCommand::History(args) => {
            let mut call = Call::get(format!("{}/history", model_path(&args.model))).query("limit", args.limit);
            if args.verify {
                call = call.query("verify", true);
            }
            history(args, &call, look)
        }
        OperatorCommand::Drift(args) => drift::execute(args, look),
    }
}

/// Shows it again and again until nobody looks any more.
fn watched(args: &StatusArgs, look: impl Fn() -> Result<Answer, ClientError>) -> Result<Answer, ClientError> {
    // JSON is for programs, which want one answer a line.
    let in_place = args.gateway.output == Output::Table && io::stdout().is_terminal();
    watch(|| look().map(|answer| answer.text), || thread::sleep(args.interval), &mut io::stdout(), in_place)?;
    Ok(String::new().into())
}

fn split(args: &SplitArgs, role: &str, look: Look) -> Result<Answer, ClientError> {
    let path = format!("{}/{role}", model_path(&args.model));
    let call = match args.version.zip(args.percent) {
        Some((version, percent)) => {
            let body = SplitBody { version: version.get(), percent: Share(percent.get()), reason: None };
            Call::new(Method::PUT, path).json(&body)
        }
        // The command line takes `--clear` or both.
        None => Call::new(Method::DELETE, path),
    };
    change(&args.model, call, &args.change, &args.gateway, look)
}

fn label(args: &LabelArgs, look: Look) -> Result<Answer, ClientError> {
    let path = format!("{}/labels/{}", model_path(&args.model), args.label);
    let call = match args.version {
        Some(version) => Call::new(Method::PUT, path).json(&VersionBody { version: version.get(), reason: None }),
        // The command line takes `--clear` or a version.
        None => Call::new(Method::DELETE, path),
    };
    change(&args.model, call, &args.change, &args.gateway, look)
}

/// Names what it leaves, so that of two rollbacks at once the second is refused.
fn rollback(args: &RollbackArgs, look: Look) -> Result<Answer, ClientError> {
    let RollbackArgs { model: ModelChangeArgs { model, change: options, gateway }, to } = args;
    let body = RollbackBody { to: to.map(Version::get), reason: None };
    let call = Call::new(Method::POST, format!("{}/rollback", model_path(model))).json(&body);
    // A key stands for the one change already, and must be sent with the same words each time.
    if options.if_generation.is_some() || options.dry_run || options.idempotency_key.is_some() {
        return change(model, call, options, gateway, look);
    }
    let before: ModelStatus = read(&Client::new(gateway).call(&Call::get(model_path(model)))?)?;
    let options = ChangeArgs { if_generation: Some(before.release.generation), ..options.clone() };
    make(model, call, &options, gateway, Some(before), look)
}

/// Makes a change of a release. For people, says what is different from before.
fn change(
    model: &ModelName,
    call: Call,
    options: &ChangeArgs,
    gateway: &GatewayArgs,
    look: Look,
) -> Result<Answer, ClientError> {
    make(model, call, options, gateway, None, look)
}

/// The same; `before` is the model as it was seen, where it was.
fn make(
    model: &ModelName,
    call: Call,
    options: &ChangeArgs,
    gateway: &GatewayArgs,
    before: Option<ModelStatus>,
    look: Look,
) -> Result<Answer, ClientError> {
    let client = Client::new(gateway);
    let call = call.options(options);
    let before = match before {
        None if gateway.output == Output::Table => Some(read(&client.call(&Call::get(model_path(model)))?)?),
        before => before,
    };
    let answered = client.ask(&call)?;
    let after: Release = read(&answered.text)?;
    after.warnings.iter().for_each(|warning| warn(warning));
    let (Output::Table, Some(before)) = (gateway.output, before) else { return Ok(line(answered.text).into()) };
    // What was done by an earlier request is no difference from now.
    let before = if answered.is_repeated { None } else { Some(&before.release) };
    Ok(view::change(model.as_str(), before, &after, options.dry_run, look).into())
}

fn version_call(model: &ModelName, version: Version, operation: &str) -> Call {
    Call::new(Method::POST, format!("{}/versions/{version}/{operation}", model_path(model)))
}

/// Loads or unloads a version. A version that failed to load is printed, and is a failure.
fn versioned(
    model: &ModelName,
    version: Version,
    call: Call,
    options: &ChangeArgs,
    gateway: &GatewayArgs,
    look: Look,
) -> Result<Answer, ClientError> {
    let text = Client::new(gateway).call(&call.options(options))?;
    let status: VersionStatus = read(&text)?;
    let failure = (status.state == "failed" && !options.dry_run).then(|| {
        let reason = status.reason.as_deref().unwrap_or("the gateway gave no reason");
        format!("{model} version {version} failed: {reason}")
    });
    let text = match gateway.output {
        Output::Json => line(text),
        Output::Table => view::version(model.as_str(), &status, options.dry_run, look),
    };
    Ok(Answer { text, failure })
}

/// Shows the audit log. One that was tampered with is printed, and is a failure.
fn history(args: &HistoryArgs, call: &Call, look: Look) -> Result<Answer, ClientError> {
    let text = Client::new(&args.gateway).call(call)?;
    let history: History = read(&text)?;
    let broken = history.verification.as_ref().and_then(|found| found.broken.as_ref());
    let failure =
        broken.map(|broken| format!("entry {} of the audit log is not as written: {}", broken.sequence, broken.why));
    let text = match args.gateway.output {
        Output::Json => line(text),
        Output::Table => view::history(&history, look),
    };
    Ok(Answer { text, failure })
}

fn show<T: DeserializeOwned>(
    gateway: &GatewayArgs,
    call: &Call,
    table: impl FnOnce(&T) -> String,
) -> Result<Answer, ClientError> {
    let text = Client::new(gateway).call(call)?;
    Ok(match gateway.output {
        Output::Json => line(text).into(),
        Output::Table => table(&read(&text)?).into(),
    })
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, ClientError> {
    serde_json::from_str(text).map_err(ClientError::Unreadable)
}

fn line(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn model_path(model: &ModelName) -> String {
    format!("/admin/v1/models/{model}")
}

#[cfg(test)]
mod tests;
