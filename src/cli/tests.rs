//! What the command line takes and refuses.

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Every command, nested ones too, with its full name.
fn all_commands(command: &clap::Command, prefix: &str) -> Vec<(String, clap::Command)> {
    let name = format!("{prefix}{}", command.get_name());
    let mut all = vec![(name.clone(), command.clone())];
    for nested in command.get_subcommands().filter(|nested| nested.get_name() != "help" && !nested.is_hide_set()) {
        all.extend(all_commands(nested, &format!("{name} ")));
    }
    all
}

/// The examples in a help text.
fn examples(help: &str) -> Vec<String> {
    let Some((_, examples)) = help.split_once("Examples:\n") else { return Vec::new() };
    examples.lines().map(str::trim).filter(|line| line.starts_with("tidegate ")).map(str::to_owned).collect()
}

#[test]
fn help_of_every_command_has_an_example_of_it() {
    let commands = all_commands(&Cli::command(), "");
    assert_eq!(commands.len(), 26, "the root, 18 commands, 2 of config and 5 of rollout");
    for (name, command) in commands {
        let examples = examples(&command.get_after_help().map(ToString::to_string).unwrap_or_default());
        assert!(!examples.is_empty(), "{name}");
        assert!(examples.iter().all(|example| example.starts_with(&name)), "{name}: {examples:?}");
    }
}

#[test]
fn example_of_every_command_is_understood() {
    for (_, command) in all_commands(&Cli::command(), "") {
        for example in examples(&command.get_after_help().map(ToString::to_string).unwrap_or_default()) {
            let line = example.split(['|', '>']).next().unwrap_or_default();
            // Words in quotes are one argument.
            let mut words = Vec::new();
            for (at, part) in line.split('"').enumerate() {
                if at % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
            }
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{example}: {error}");
            }
        }
    }
}

#[test]
fn serve_takes_the_flags_of_the_contract() {
    let line = "tidegate serve --config a.toml --models m --state s --http 127.0.0.1:0 --grpc 0.0.0.0:1 \
                --metrics [::1]:2 --admin 127.0.0.1:3 --addresses-file f.json";
    let Ok(Command::Serve(args)) = parse(line) else { panic!("{line}") };
    assert_eq!(args.config.http.map(|address| address.port()), Some(0));
    assert_eq!(args.addresses_file.as_deref(), Some(std::path::Path::new("f.json")));
    assert!(parse("tidegate serve").is_ok());
}

#[test]
fn wrong_usage_is_refused_with_exit_code_2() {
    for line in [
        "tidegate promote fraud",
        "tidegate promote fraud 0",
        "tidegate promote ../etc 1",
        "tidegate canary fraud",
        "tidegate canary fraud --version 4",
        "tidegate canary fraud --percent 4",
        "tidegate canary fraud --version 4 --percent 101",
        "tidegate canary fraud --clear --version 4 --percent 10",
        "tidegate rollout",
        "tidegate rollout start fraud",
        "tidegate rollout start fraud --version 4 --steps 1,x",
        "tidegate rollout start fraud --version 4 --interval soon",
        "tidegate rollout start fraud --version 4 --on-drift panic",
        "tidegate rollout abort",
        "tidegate label fraud 3 --version 3",
        "tidegate label fraud champion",
        "tidegate label fraud champion --clear --version 3",
        "tidegate drift fraud --window soon",
        "tidegate history fraud --limit 0",
        "tidegate status fraud --interval 2s",
        "tidegate status fraud --watch --interval 1ms",
        "tidegate models --output yaml",
        "tidegate models --admin-url gateway",
        "tidegate serve --http localhost",
        "tidegate check",
        "tidegate profile models/fraud/4",
        "tidegate completions cobol",
        "tidegate frobnicate",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
}

#[test]
fn refusal_of_a_value_says_what_is_accepted() {
    let error = parse("tidegate canary fraud --version 4 --percent 101").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ValueValidation);
    assert!(error.to_string().contains("from 0 to 100"), "{error}");
}

#[test]
fn percent_may_be_written_with_its_sign() {
    let Ok(Command::Operator(OperatorCommand::Canary(args))) =
        parse("tidegate canary fraud --version 4 --percent 12.5%")
    else {
        panic!("canary");
    };
    assert_eq!(args.percent.map(crate::domain::Percent::get), Some(12.5));
}

#[test]
fn configuration_is_shown_as_toml_under_either_name() {
    for (output, format) in
        [("", ConfigFormat::Toml), ("--output table", ConfigFormat::Toml), ("--output json", ConfigFormat::Json)]
    {
        let Ok(Command::Config(ConfigCommand::Show(args))) = parse(&format!("tidegate config show {output}")) else {
            panic!("{output}");
        };
        assert_eq!(args.output, format);
    }
}
