//! `tidegate config`, and how the flags of `serve` become a configuration.

use std::process::ExitCode;

use super::{ConfigFlags, ConfigFormat, ConfigShowArgs, SchemaArgs, print};
use crate::{
    config::{self, Config, ConfigError, Overrides},
    monitor::Profile,
};

/// The effective configuration: defaults, file, environment, flags.
///
/// # Errors
/// When a source is wrong; the text says which and where.
pub fn load_config(flags: &ConfigFlags) -> Result<Config, ConfigError> {
    let overrides = Overrides {
        models: flags.models.clone(),
        state: flags.state.clone(),
        http: flags.http.clone(),
        grpc: flags.grpc.clone(),
        metrics: flags.metrics.clone(),
        admin: flags.admin.clone(),
    };
    // Variables that are not text are none of ours.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::load(flags.config.as_deref(), variables, &overrides)
}

/// Prints the effective configuration.
#[must_use]
pub fn show_config(args: &ConfigShowArgs) -> ExitCode {
    let shown = load_config(&args.flags).map_err(|error| error.to_string()).and_then(|config| match args.output {
        ConfigFormat::Toml => toml::to_string(&config).map_err(|error| error.to_string()),
        ConfigFormat::Json => {
            serde_json::to_string_pretty(&config).map(|text| text + "\n").map_err(|error| error.to_string())
        }
    });
    match shown {
        Ok(text) => print(text.as_bytes()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints the JSON Schema of the configuration file, or of a profile.
#[must_use]
pub fn print_schema(args: SchemaArgs) -> ExitCode {
    let schema = if args.profile { Profile::schema() } else { Config::schema() };
    match serde_json::to_string_pretty(&schema) {
        Ok(schema) => print(format!("{schema}\n").as_bytes()),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
