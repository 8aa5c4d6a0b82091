//! Completion that asks the gateway: names of models, and versions of the model on the line.
//!
//! A shell's script (`tidegate completions bash`) runs this program at each press of the tab key, with the
//! words so far. What the gateway does not answer at once completes to nothing.

use std::{
    ffi::{OsStr, OsString},
    io,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser};
use clap_complete::{
    CompleteEnv,
    engine::CompletionCandidate,
    env::{EnvCompleter, Shells},
};

use super::{
    Cli, CompletionsArgs,
    client::{Call, Client},
    operator::GatewayArgs,
    output::{complain, print},
};
use crate::admin::wire::{ModelList, ModelStatus};

/// The variable by which a shell's script asks for completions.
const VARIABLE: &str = "TIDEGATE_COMPLETE";

/// How long the shell waits for the gateway at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers a shell that asks for completions, and ends the program then.
pub fn complete_if_asked() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Prints the completion script of a shell.
#[must_use]
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    match script(&args.shell.to_string()) {
        Ok(script) => print(&script),
        Err(error) => {
            complain(&format!("cannot make the script: {error}"));
            ExitCode::FAILURE
        }
    }
}

pub(super) fn script(shell: &str) -> io::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let completer: &dyn EnvCompleter =
        shells.completer(shell).ok_or_else(|| io::Error::other(format!("{shell} is not known")))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "tidegate", "tidegate", "tidegate", &mut script)?;
    Ok(script)
}

/// The models of the gateway that begin with `current`.
pub(super) fn models(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask::<ModelList>(&words(), "/admin/v1/models")
        .map(|list| list.models.into_iter().map(|model| model.model).collect())
        .unwrap_or_default();
    candidates(names, current)
}

/// The versions of the model on the line that begin with `current`.
pub(super) fn versions(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = words();
    let Some(model) = model_on(&words) else { return Vec::new() };
    let path = format!("/admin/v1/models/{model}");
    let versions = ask::<ModelStatus>(&words, &path)
        .map(|model| model.versions.iter().map(|version| version.version.to_string()).collect())
        .unwrap_or_default();
    candidates(versions, current)
}

fn candidates(names: Vec<String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}

/// The words on the line, after the `--` that a shell's script puts before them.
fn words() -> Vec<String> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    words.map(|word: OsString| word.to_string_lossy().into_owned()).collect()
}

/// The model of a command: what follows its name, options left out.
fn model_on(words: &[String]) -> Option<&str> {
    // `tidegate rollout start` is one command.
    let command = if words.get(1).is_some_and(|word| word == "rollout") { 3 } else { 2 };
    let mut words = words.iter().skip(command);
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            None if !word.starts_with('-') && !word.is_empty() => return Some(word),
            None if word == "-o" => drop(words.next()),
            // An option with its value in the next word.
            Some(name) if !name.contains('=') && !SWITCHES.contains(&name) => drop(words.next()),
            _ => {}
        }
    }
    None
}

/// Options without a value.
const SWITCHES: [&str; 13] = [
    "dry-run",
    "clear",
    "verify",
    "verbose",
    "watch",
    "wait",
    "self-test",
    "exit-code",
    "strict",
    "evict-previous",
    "allow-signature-change",
    "accept-changed",
    "help",
];

/// The gateway that the line or the environment names.
fn gateway(words: &[String]) -> Option<GatewayArgs> {
    /// The options of the gateway, as every operator command has them.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        gateway: GatewayArgs,
    }
    let value = |name: &str| {
        let (mut before, mut found) = ("", None);
        for word in words {
            let inline = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
            found = inline.or((before == name).then_some(word.as_str())).or(found);
            before = word;
        }
        found
    };
    let mut line = vec!["tidegate"];
    for name in ["--admin-url", "--token"] {
        line.extend(value(name).map(|value| [name, value]).into_iter().flatten());
    }
    Line::try_parse_from(line).ok().map(|line| line.gateway)
}

fn ask<T: serde::de::DeserializeOwned>(words: &[String], path: &str) -> Option<T> {
    let gateway = gateway(words)?;
    let text = Client::within(&gateway, PATIENCE).call(&Call::get(path)).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::operator::AdminUrl;

    fn split(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn model_is_the_first_word_after_the_command_that_is_no_option() {
        for (line, model) in [
            ("tidegate promote fraud ", Some("fraud")),
            ("tidegate promote --reason why --dry-run fraud 3", Some("fraud")),
            ("tidegate promote --reason=why fraud", Some("fraud")),
            ("tidegate status --verbose -o json fraud", Some("fraud")),
            ("tidegate promote --admin-url http://g:1 fraud", Some("fraud")),
            ("tidegate rollout start fraud --version ", Some("fraud")),
            ("tidegate rollout pause ", None),
            ("tidegate promote ", None),
            ("tidegate", None),
        ] {
            assert_eq!(model_on(&split(line)), model, "{line}");
        }
    }

    #[test]
    fn gateway_is_that_of_the_line() {
        let url = |line| gateway(&split(line)).map(|gateway| gateway.admin_url);
        let named: Option<AdminUrl> = "http://g:1".parse().ok();
        assert_eq!(url("tidegate status m --admin-url http://g:1"), named);
        assert_eq!(url("tidegate status m --admin-url=http://g:1"), named);
        assert_eq!(url("tidegate status m --admin-url nonsense"), None);
    }

    #[test]
    fn candidates_begin_with_what_was_typed() {
        let names = ["fraud", "churn", "free"].map(str::to_owned).to_vec();
        let found: Vec<_> = candidates(names, OsStr::new("fr")).iter().map(|one| one.get_value().to_owned()).collect();
        assert_eq!(found, ["fraud", "free"]);
    }

    #[test]
    fn every_shell_has_a_script_that_calls_us() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("tidegate"), "{shell}: {script}");
        }
    }
}
