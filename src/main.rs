//! The program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use tidegate::{
    app,
    cli::{self, Command, ConfigCommand, ServeArgs},
    registry,
};

fn main() -> ExitCode {
    cli::complete_if_asked();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Serve(args) => serve(&args),
        Command::Check(args) => cli::check(&args),
        Command::Profile(args) => cli::profile(&args),
        Command::Operator(command) => cli::operator::run(&command),
        Command::Config(ConfigCommand::Show(args)) => cli::show_config(&args),
        Command::Config(ConfigCommand::Schema(args)) => cli::print_schema(args),
        Command::Completions(args) => cli::completions(&args),
        Command::AdmissionWorker { library } => registry::serve_trials(&library),
    }
}

/// 2 when the configuration is wrong, before any port is bound; 1 when the gateway failed.
fn serve(args: &ServeArgs) -> ExitCode {
    cli::warn_of_ignored(&args.config);
    let config = cli::load_config(&args.config).map_err(|error| error.to_string());
    let config = config.and_then(|config| cli::refuse_open_admin(&config, args.insecure_admin).map(|()| config));
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match app::serve(&config, args.addresses_file.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", cli::causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
