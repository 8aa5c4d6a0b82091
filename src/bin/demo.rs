//! The monitor at work: starts a gateway, replays 50,000 car loans that look like the training
//! data and then 50,000 later ones, and tells at which row the monitor declared drift.
//!
//! The later rows drift from row 25,000 on, by construction of the data set
//! (`synthetic_car_loan`, nannyml, Apache-2.0). The rows go through the real gRPC API of a real
//! gateway; the verdicts come from its admin API. Run it with `make demo`.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tidegate::proto::inference::{
    InferTensorContents, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use tonic::transport::Channel;

/// Rows sent per second: 100,000 rows take 25 s.
const ROWS_PER_SECOND: f64 = 4_000.0;
/// The monitor's window in this demo: about 2,000 rows.
const WINDOW: &str = "500ms";
/// Rows per request.
const BATCH: usize = 50;
/// The monitor is asked for its verdict every so many rows.
const LOOK_EVERY: usize = 250;
/// Where the later rows begin to drift.
const ONSET: usize = 25_000;

#[derive(Parser)]
struct Args {
    /// The gateway to run.
    #[arg(long)]
    gateway: PathBuf,
    /// Where the data set is.
    #[arg(long, default_value = ".artifacts/data")]
    data: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let reference = Rows::read(&args.data.join("synthetic_car_loan_reference.csv"))?;
    let later = Rows::read(&args.data.join("synthetic_car_loan_analysis.csv"))?;
    let gateway = Gateway::start(&args.gateway)?;
    println!("car_loan, stable version {}: window {WINDOW}, {ROWS_PER_SECOND} rows/s", gateway.stable()?);
    let mut replay = Replay::new(&gateway, reference.len() + later.len()).await?;
    let before = replay.run("reference", &reference).await?;
    let after = replay.run("later", &later).await?;
    replay.progress.finish_and_clear();
    println!("\nreference rows, {}:", reference.len());
    print_verdicts(&before);
    println!("\nlater rows, {} (they drift from row {ONSET} on):", later.len());
    print_verdicts(&after);
    let declared =
        |verdicts: &BTreeMap<String, Verdict>| verdicts.values().filter_map(|verdict| verdict.declared).min();
    if let Some(row) = declared(&before) {
        bail!("false alarm at reference row {row}");
    }
    match declared(&after) {
        Some(row) if row >= ONSET => println!("\nfirst drift declared {} rows after it began", row - ONSET),
        Some(row) => bail!("false alarm at row {row}"),
        None => bail!("no drift declared"),
    }
    Ok(())
}

/// The data set, by column.
struct Rows {
    columns: BTreeMap<&'static str, Column>,
}

enum Column {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

const NUMBERS: [&str; 4] = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"];
const TEXTS: [&str; 3] = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"];

impl Rows {
    fn read(path: &Path) -> Result<Self> {
        let missing = || format!("cannot read {}: run `python3 scripts/fetch.py data`", path.display());
        let mut reader = csv::Reader::from_path(path).with_context(missing)?;
        let header = reader.headers()?.clone();
        let position = |name: &str| header.iter().position(|column| column == name);
        let mut columns = BTreeMap::new();
        columns.extend(NUMBERS.map(|name| (name, Column::Numbers(Vec::new()))));
        columns.extend(TEXTS.map(|name| (name, Column::Texts(Vec::new()))));
        for record in reader.records() {
            let record = record?;
            for (name, column) in &mut columns {
                let place = position(name).with_context(|| format!("{}: no column {name}", path.display()))?;
                match column {
                    Column::Numbers(values) => values.push(record[place].parse().unwrap_or(f64::NAN)),
                    Column::Texts(values) => values.push(record[place].to_owned()),
                }
            }
        }
        Ok(Self { columns })
    }

    fn len(&self) -> usize {
        self.columns.values().next().map_or(0, |column| match column {
            Column::Numbers(values) => values.len(),
            Column::Texts(values) => values.len(),
        })
    }

    fn request(&self, from: usize, to: usize) -> ModelInferRequest {
        let input = |(name, column): (&&str, &Column)| {
            let (datatype, contents) = match column {
                Column::Numbers(values) => {
                    let fp64_contents = values[from..to].to_vec();
                    ("FP64", InferTensorContents { fp64_contents, ..InferTensorContents::default() })
                }
                Column::Texts(values) => {
                    let bytes_contents = values[from..to].iter().map(|text| text.clone().into()).collect();
                    ("BYTES", InferTensorContents { bytes_contents, ..InferTensorContents::default() })
                }
            };
            InferInputTensor {
                name: (*name).into(),
                datatype: datatype.into(),
                shape: vec![i64::try_from(to - from).unwrap_or(0), 1],
                contents: Some(contents),
                ..InferInputTensor::default()
            }
        };
        let inputs = self.columns.iter().map(input).collect();
        ModelInferRequest { model_name: "car_loan".into(), inputs, ..ModelInferRequest::default() }
    }
}

/// A gateway of our own. Dropping it ends it.
struct Gateway {
    child: Child,
    directory: PathBuf,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    fn start(program: &Path) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let (addresses, log) = (directory.join("addresses.json"), directory.join("log"));
        let mut child = Command::new(program)
            .args(["serve", "--models", "models", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .args(["--metrics", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state"])
            .arg(directory.join("state"))
            .arg("--addresses-file")
            .arg(&addresses)
            .env("TIDEGATE_MONITOR__WINDOWS", format!("[\"{WINDOW}\"]"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the gateway ended ({status}):\n{}", std::fs::read_to_string(&log)?);
            }
            if let Some((http, grpc, admin)) = read_addresses(&addresses)
                && ureq::get(format!("http://{http}/v2/health/ready")).call().is_ok()
            {
                return Ok(Self { child, directory, grpc, admin });
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("the gateway is not ready after 30 s:\n{}", std::fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}/admin/v1/models/car_loan{path}", self.admin);
        Ok(ureq::get(url).call()?.body_mut().read_json()?)
    }

    fn stable(&self) -> Result<Value> {
        Ok(self.ask("")?["release"]["stable"].clone())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn read_addresses(file: &Path) -> Option<(SocketAddr, SocketAddr, SocketAddr)> {
    let addresses: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let address = |plane: &str| addresses[plane].as_str()?.parse().ok();
    Some((address("http")?, address("grpc")?, address("admin")?))
}

/// What the monitor said of a feature during a replay.
#[derive(Default)]
struct Verdict {
    /// The row at which it first declared drift.
    declared: Option<usize>,
    /// The largest corrected PSI.
    highest: f64,
}

struct Replay<'a> {
    gateway: &'a Gateway,
    client: GrpcInferenceServiceClient<Channel>,
    progress: ProgressBar,
    started: Instant,
    sent: usize,
}

impl<'a> Replay<'a> {
    async fn new(gateway: &'a Gateway, rows: usize) -> Result<Self> {
        let client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.grpc)).await?;
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} rows  {msg}")?;
        let progress = ProgressBar::with_draw_target(Some(rows as u64), target).with_style(style);
        Ok(Self { gateway, client, progress, started: Instant::now(), sent: 0 })
    }

    async fn run(&mut self, name: &str, rows: &Rows) -> Result<BTreeMap<String, Verdict>> {
        let mut verdicts = BTreeMap::new();
        for from in (0..rows.len()).step_by(BATCH) {
            let to = (from + BATCH).min(rows.len());
            self.pace().await;
            self.client.model_infer(rows.request(from, to)).await?;
            self.sent += to - from;
            self.progress.set_position(self.sent as u64);
            if to.is_multiple_of(LOOK_EVERY) {
                let report = self.gateway.ask("/drift")?;
                let shown = note(&mut verdicts, &report, to);
                self.progress.set_message(format!("{name} row {to}: {shown}"));
            }
        }
        Ok(verdicts)
    }

    async fn pace(&self) {
        let due = Duration::from_secs_f64(self.sent as f64 / ROWS_PER_SECOND);
        tokio::time::sleep(due.saturating_sub(self.started.elapsed())).await;
    }
}

/// Enters a report into the verdicts, and says the worst feature in a few words.
fn note(verdicts: &mut BTreeMap<String, Verdict>, report: &Value, row: usize) -> String {
    let mut worst = (f64::MIN, String::new());
    for feature in report["features"].as_array().into_iter().flatten() {
        let name = feature["feature"].as_str().unwrap_or_default();
        let psi = feature["measures"]["psi_corrected"].as_f64().unwrap_or(0.0);
        let state = feature["state"].as_str().unwrap_or_default();
        let verdict = verdicts.entry(name.to_owned()).or_default();
        verdict.highest = verdict.highest.max(psi);
        if state == "drift" && verdict.declared.is_none() {
            verdict.declared = Some(row);
        }
        if psi > worst.0 {
            worst = (psi, format!("{name} {state}, PSI {psi:.3}"));
        }
    }
    worst.1
}

fn print_verdicts(verdicts: &BTreeMap<String, Verdict>) {
    let mut sorted: Vec<_> = verdicts.iter().collect();
    sorted.sort_by_key(|(_, verdict)| verdict.declared.unwrap_or(usize::MAX));
    for (name, verdict) in sorted {
        let declared = verdict.declared.map_or("ok".to_owned(), |row| format!("drift declared at row {row}"));
        println!("  {name:28} {declared:30} highest PSI {:.3}", verdict.highest);
    }
}
