//! The command line: what `tidegate` understands, and the operator commands.
//!
//! `check`, `profile` and `config` work offline; operator commands are clients of the admin API;
//! `serve` is only described here, the program runs it.

mod check;
mod client;
mod complete;
mod configuration;
mod local;
pub mod operator;
mod output;
mod profile;
mod report;
mod sparkline;
mod view;
mod watch;

pub use check::check;
pub use complete::{complete_if_asked, completions};
pub use configuration::{load_config, print_schema, show_config};
pub use local::{
    CheckArgs, ConfigCommand, ConfigFlags, ConfigFormat, ConfigShowArgs, DecimalMark, ProfileArgs, SchemaArgs,
    ServeArgs,
};
pub use operator::OperatorCommand;
pub use output::{Output, causes, print};
pub use profile::profile;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// A model-serving gateway for ONNX models, with releases and drift monitoring built in.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "tidegate",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  tidegate serve --models models
  tidegate models
  tidegate canary fraud --version 4 --percent 10
  tidegate promote fraud 4 --reason \"better recall on card fraud\"
  tidegate drift fraud --window 5m

`tidegate COMMAND --help` has examples of each command."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the gateway.
    #[command(after_help = "Examples:
  tidegate serve --models models
  tidegate serve --config tidegate.toml --http 127.0.0.1:8000
  tidegate serve --http 127.0.0.1:0 --addresses-file addresses.json")]
    Serve(ServeArgs),

    /// Admit model versions, repositories or config files offline, and say all that is wrong.
    #[command(after_help = "Examples:
  tidegate check models
  tidegate check models/fraud/4 config/tidegate.toml
  tidegate check models/fraud/4 --against models/fraud/3
  tidegate check models --config tidegate.toml --output json")]
    Check(CheckArgs),

    /// Build the reference profile that the drift monitor compares with.
    #[command(after_help = "Examples:
  tidegate profile models/fraud/4 --data reference.parquet
  tidegate profile models/fraud/4 --data reference.csv --out profile.json
  tidegate profile models/fraud/4 --data 'log/model=fraud/*/date=2026-11-*'
  tidegate profile models/iris/1 --data iris.csv --columns X=sepal_length,sepal_width,petal_length,petal_width
  tidegate profile models/fraud/4 --data reference.csv --types order_id=ignore,region=categorical")]
    Profile(ProfileArgs),

    #[command(flatten)]
    Operator(OperatorCommand),

    /// Show the configuration, or its JSON Schema.
    #[command(
        subcommand,
        after_help = "Examples:
  tidegate config show --config tidegate.toml
  tidegate config schema > tidegate.schema.json"
    )]
    Config(ConfigCommand),

    /// Print a completion script for a shell. It asks the gateway for models and versions.
    #[command(after_help = "Examples:
  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish
  tidegate completions zsh > \"${fpath[1]}/_tidegate\"")]
    Completions(CompletionsArgs),

    /// Try out models that the gateway names on stdin: the gateway starts this itself.
    #[command(hide = true)]
    AdmissionWorker {
        /// The ONNX Runtime library.
        library: std::path::PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell to complete for.
    pub shell: Shell,
}

#[cfg(test)]
mod tests;
