//! How commands print: data on stdout, all else on stderr.

use std::{
    error::Error,
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use clap::ValueEnum;

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: the gateway's own answer.
    Json,
}

/// What stdout can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) colours: bool,
    /// Columns of the terminal; `None`: no terminal, so as wide as need be.
    pub(super) width: Option<u16>,
}

impl Look {
    pub(super) fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: set and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = terminal.then(|| comfy_table::Table::new().width()).flatten();
        Self { colours: terminal && !unwanted, width }
    }
}

/// Prints data. A reader that has seen enough (`| head`) is no failure.
#[must_use]
pub fn print(data: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says what went wrong, in one line on stderr.
pub(super) fn complain(message: &str) {
    // Where stderr is closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "error: {}", printable(message));
}

/// Says what should be known though all went well, in one line on stderr.
pub(super) fn warn(message: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", printable(message));
}

/// An error and what caused it, each once: many say their cause themselves.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text += &format!(": {words}");
        }
        next = cause.source();
    }
    text
}

/// A text from elsewhere without line breaks and control characters, which could rewrite the
/// terminal or a table.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|char| match char {
            '\n' | '\r' | '\t' => ' ',
            char if char.is_control() => '\u{fffd}',
            char => char,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x: {source}")]
        struct Read {
            source: io::Error,
        }
        let error = anyhow::Error::from(Read { source: io::Error::other("no disk") }).context("the table");
        assert_eq!(causes(error.as_ref()), "the table: cannot read x: no disk");
    }

    #[test]
    fn printable_text_cannot_rewrite_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb c");
    }
}
