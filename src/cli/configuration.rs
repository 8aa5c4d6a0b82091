//! `tidegate config`, and how the flags of `serve` become a configuration.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

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
    let file = flags.config.clone().or_else(named_file);
    config::load(file.as_deref(), variables, &overrides).map_err(|error| match error {
        ConfigError::File { path, error } => {
            let faults = config::faults_of_file(&path);
            // One fault is shown as it stands in the file.
            let many = || faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
            if faults.len() > 1 { ConfigError::Values(many()) } else { ConfigError::File { path, error } }
        }
        other => other,
    })
}

/// The file that `TIDEGATE_CONFIG` names.
fn named_file() -> Option<PathBuf> {
    std::env::var_os("TIDEGATE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Says on stderr what looks like configuration and is not read.
pub fn warn_of_ignored(flags: &ConfigFlags) {
    let names: Vec<_> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let file = flags.config.clone().or_else(named_file);
    let ignored = config::ignored_variables(names.iter().map(String::as_str));
    for warning in ignored.into_iter().chain(config::ignored_file(file.as_deref(), Path::new("."))) {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
}

/// Why a gateway must not start so: strangers would reach the admin plane.
///
/// # Errors
/// What to do instead.
pub fn refuse_open_admin(config: &Config, is_meant: bool) -> Result<(), String> {
    let admin = &config.server.admin;
    if is_meant || admin.is_loopback() || admin.resolve().is_err() {
        return Ok(());
    }
    Err(format!(
        "server.admin ({admin}) can be reached from other machines, and the admin plane has no authentication: whoever reaches \
         it can change releases. Use a loopback address, such as 127.0.0.1:{}; or add --insecure-admin where something else \
         keeps strangers away",
        admin.port()
    ))
}

/// Prints the effective configuration.
#[must_use]
pub fn show_config(args: &ConfigShowArgs) -> ExitCode {
    warn_of_ignored(&args.flags);
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
