//! `tidegate --version`: what a report of a fault needs to name.

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, error::ErrorKind};

use super::{Cli, output::print};
use crate::engine::{find_library, version_in_name};

/// The command line. Help, the version and bad usage are told here.
///
/// # Errors
/// The exit code, where there is nothing more to do.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(words).map_err(|error| {
        if error.kind() == ErrorKind::DisplayVersion {
            return print(text().as_bytes());
        }
        // Where the stream is closed there is nobody left to tell.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

fn text() -> String {
    format!("{}\n{}\n", build(option_env!("TIDEGATE_COMMIT")), runtime())
}

fn build(commit: Option<&str>) -> String {
    let commit = commit.map_or_else(String::new, |commit| format!("commit {commit}, "));
    format!("tidegate {} ({commit}{})", env!("CARGO_PKG_VERSION"), env!("TIDEGATE_TARGET"))
}

/// The library that `serve` would load, if no configuration names another.
fn runtime() -> String {
    match find_library(env::var_os("ORT_DYLIB_PATH").map(PathBuf::from), None) {
        Ok(library) => {
            let version = version_in_name(&library);
            let version = version.map_or_else(String::new, |version| format!(" {version}"));
            format!("ONNX Runtime{version}: {}", library.display())
        }
        Err(error) => format!("ONNX Runtime: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_is_told_where_it_is_known() {
        let head = concat!("tidegate ", env!("CARGO_PKG_VERSION"), " (");
        assert_eq!(build(Some("0123456789ab")), format!("{head}commit 0123456789ab, {})", env!("TIDEGATE_TARGET")));
        assert_eq!(build(None), format!("{head}{})", env!("TIDEGATE_TARGET")));
    }
}
