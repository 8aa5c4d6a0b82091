//! The arguments of the commands that need no running gateway.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;
use crate::{config::Address, monitor::ColumnType};

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigFlags,

    /// Serve the admin plane where other machines reach it, though it has no authentication.
    #[arg(long)]
    pub insecure_admin: bool,

    /// Write the bound addresses to this file, as JSON, once the gateway listens.
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,
}

/// The flags that win over the configuration file and the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFlags {
    /// The configuration file (TOML) [default: what `TIDEGATE_CONFIG` names, or none].
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
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct ProfileArgs {
    /// The directory of the model version, such as models/fraud/4.
    #[arg(value_name = "MODEL_VERSION_DIR")]
    pub version_dir: PathBuf,

    /// The reference data, with a column for each feature: a file of Parquet, CSV or lines of JSON, a directory of them, or a
    /// pattern such as 'part-*.parquet'. May be given several times.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,

    /// What separates the fields of a CSV file: comma, semicolon, tab, pipe or a character [default: found out].
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub delimiter: Option<u8>,

    /// What the decimals of numbers have in a CSV file [default: found out].
    #[arg(long, value_enum, value_name = "MARK")]
    pub decimal: Option<DecimalMark>,

    /// The columns of an input that has several, in the order that the model was trained on. Wins over the columns of model.toml.
    #[arg(long, value_name = "INPUT=COLUMN,…", value_parser = columns_of_input)]
    pub columns: Vec<(String, Vec<String>)>,

    /// What columns are taken for: categorical, numeric, text or ignore. Wins over [monitor.features] of model.toml [default: what
    /// their values look like].
    #[arg(long, value_name = "COLUMN=TYPE", value_delimiter = ',', value_parser = column_type)]
    pub types: Vec<(String, ColumnType)>,

    /// Where the profile goes [default: profile.json in the version's directory].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `region=categorical`.
fn column_type(text: &str) -> Result<(String, ColumnType), String> {
    let (column, wanted) = text
        .rsplit_once('=')
        .filter(|(column, _)| !column.is_empty())
        .ok_or_else(|| format!("'{text}' is no column and its type: write COLUMN=TYPE, such as region=categorical"))?;
    Ok((column.to_owned(), wanted.parse()?))
}

/// `comma`, or the character itself.
fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "comma" => Ok(b','),
        "semicolon" => Ok(b';'),
        "tab" | "\\t" => Ok(b'\t'),
        "pipe" => Ok(b'|'),
        _ => match text.as_bytes() {
            [byte] if !byte.is_ascii_alphanumeric() => Ok(*byte),
            _ => Err("not comma, semicolon, tab, pipe or one character of ASCII".to_owned()),
        },
    }
}

/// `X=a,b,c`.
fn columns_of_input(text: &str) -> Result<(String, Vec<String>), String> {
    let (input, columns) = text.split_once('=').filter(|(input, _)| !input.is_empty()).ok_or_else(|| {
        format!("'{text}' is no input and its columns: write INPUT=COLUMN,COLUMN, such as X=age,income")
    })?;
    Ok((input.to_owned(), columns.split(',').map(str::to_owned).collect()))
}

/// What is before the decimals of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DecimalMark {
    #[value(alias = ".")]
    Point,
    #[value(alias = ",")]
    Comma,
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
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
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
