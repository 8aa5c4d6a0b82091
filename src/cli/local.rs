//! The arguments of the commands that need no running gateway.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;
use crate::config::Address;

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigFlags,

    /// Write the bound addresses to this file, as JSON, once the gateway listens.
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,
}

/// The flags that win over the configuration file and the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFlags {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The model repository.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,

    /// Where releases and their history are kept.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Where inference over HTTP listens; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<Address>,

    /// Where inference over gRPC listens.
    #[arg(long, value_name = "ADDRESS")]
    pub grpc: Option<Address>,

    /// Where metrics and health listen.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<Address>,

    /// Where the admin plane listens.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<Address>,
}

#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Model version directories, model repositories or configuration files.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Compare the signatures of versions with that of this one, as the gateway does with the stable one.
    #[arg(long, value_name = "VERSION_DIR")]
    pub against: Option<PathBuf>,

    /// The configuration of the gateway that is to serve them: keys, limits, batching.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How to print the report.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct ProfileArgs {
    /// The directory of the model version, such as models/fraud/4.
    #[arg(value_name = "MODEL_VERSION_DIR")]
    pub version_dir: PathBuf,

    /// The reference data: a .parquet or .csv file with a column for each feature.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,

    /// Where the profile goes [default: profile.json in the version's directory].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct SchemaArgs {
    /// Of the reference profile of a version, which `tidegate profile` writes.
    #[arg(long)]
    pub profile: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration: defaults, file, environment and flags together.
    #[command(after_help = "Examples:
  tidegate config show
  tidegate config show --config tidegate.toml --output json")]
    Show(Box<ConfigShowArgs>),

    /// Print the JSON Schema of the configuration file, or of a profile.json.
    #[command(after_help = "Examples:
  tidegate config schema > tidegate.schema.json
  tidegate config schema --profile > profile.schema.json")]
    Schema(SchemaArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ConfigShowArgs {
    #[command(flatten)]
    pub flags: ConfigFlags,

    /// How to print it.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: ConfigFormat,
}

/// How a configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ConfigFormat {
    /// As the configuration file is written. `table`, as other commands call it, is this too.
    #[default]
    #[value(alias = "table")]
    Toml,
    Json,
}
