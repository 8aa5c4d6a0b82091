//! What the end-to-end benchmarks need beside the gateway: the models and requests, the bare
//! servers and the plain ONNX Runtime loop that the gateway is compared with, a check of its
//! answers, and an open-loop load. `benches/README.md` says how they are put together.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(unreachable_pub, reason = "a program: its modules are all it has")]

mod check;
mod echo;
mod models;
mod offer;
mod onnx;
mod plain;
mod requests;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The test rig of the end-to-end benchmarks; benches/*.py drive it")]
enum Command {
    /// Write the models, the reference data of `tiny`, and one request per model and protocol.
    Prepare {
        directory: PathBuf,
        /// Write the 90 MB model of the memory bench too.
        #[arg(long)]
        big: bool,
    },
    /// A bare server which reads each request and answers with the message in a file.
    #[command(subcommand)]
    Echo(Echo),
    /// Run models in ONNX Runtime in this process, and print what a run costs, as JSON lines.
    Plain(plain::Args),
    /// Load every model of a repository, run each once, and print the memory of the process.
    PlainMemory { models: PathBuf },
    /// Ask a gateway each request once, compare the answers with plain ONNX Runtime's, and
    /// write them to files for the bare servers.
    Check(check::Args),
    /// Send requests at a fixed rate, whether or not the server keeps up.
    Offer(offer::Args),
}

#[derive(Subcommand)]
enum Echo {
    /// tonic, with the generated messages.
    Grpc { answer: PathBuf },
    /// hyper, HTTP/1.1.
    Http { answer: PathBuf },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Prepare { directory, big } => {
            models::write(&directory, big)?;
            requests::write(&directory.join("requests"))
        }
        Command::Echo(Echo::Grpc { answer }) => echo::grpc(&answer),
        Command::Echo(Echo::Http { answer }) => echo::http(&answer),
        Command::Plain(args) => plain::measure(&args),
        Command::PlainMemory { models } => plain::memory(&models),
        Command::Check(args) => check::check(&args),
        Command::Offer(args) => offer::offer(&args),
    }
}
