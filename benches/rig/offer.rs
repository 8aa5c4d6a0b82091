//! An open-loop load: requests leave at a fixed rate, whether or not the server keeps up.
//!
//! A request never waits for the answer to another one, so a slow server cannot slow the load.
//! A generator that cannot keep up itself shows in `offered_per_s`.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{net::TcpStream, task::LocalSet, time::sleep_until};

use crate::requests::BINARY_HEADER;

#[derive(clap::Args)]
pub struct Args {
    /// The server's address.
    address: String,
    /// The path of the request.
    #[arg(long)]
    path: String,
    /// The body of the request; of gRPC with its prefix.
    #[arg(long)]
    body: PathBuf,
    /// Speak gRPC, on `connections` connections with any number of requests on each.
    #[arg(long)]
    grpc: bool,
    /// The length of the JSON of a binary request.
    #[arg(long)]
    json_length: Option<usize>,
    /// Requests per second.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// At HTTP/1.1, requests that find all of them busy are counted as `unsent`.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// What goes before this many seconds is left out of the report.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
}

/// What came of a request.
struct Outcome {
    /// After the start of the load.
    sent: Duration,
    took: Duration,
    status: String,
    has_retry_after: bool,
}

#[derive(Default)]
struct Book {
    outcomes: Vec<Outcome>,
    unsent: usize,
    in_flight: usize,
}

/// A connection that takes requests.
#[derive(Clone)]
enum Sender {
    Http1(Rc<RefCell<Option<http1::SendRequest<Full<Bytes>>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Sends and prints a JSON object of what came of it.
pub fn offer(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let report = local.block_on(&runtime, run(args))?;
    println!("{report}");
    Ok(())
}

async fn run(args: &Args) -> Result<serde_json::Value> {
    let body = Bytes::from(fs::read(&args.body).with_context(|| format!("cannot read {}", args.body.display()))?);
    let mut senders = Vec::new();
    for _ in 0..args.connections {
        senders.push(connect(args).await?);
    }
    let book = Rc::new(RefCell::new(Book::default()));
    let started = Instant::now();
    let end = Duration::from_secs_f64(args.seconds);
    let mut sent = 0_u32;
    loop {
        let due = Duration::from_secs_f64(f64::from(sent) / args.rate);
        if due >= end {
            break;
        }
        if due > started.elapsed() {
            sleep_until((started + due).into()).await;
        } else if sent.is_multiple_of(8) {
            // Behind: let answers in all the same.
            tokio::task::yield_now().await;
        }
        if started.elapsed() > end {
            break;
        }
        send(args, &senders, sent, &body, &book, started);
        sent += 1;
    }
    let lasted = started.elapsed();
    let patience = Instant::now() + Duration::from_secs(30);
    while book.borrow().in_flight > 0 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(report(args, &book.borrow(), sent, lasted))
}

async fn connect(args: &Args) -> Result<Sender> {
    let stream = TcpStream::connect(&args.address).await?;
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    if args.grpc {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Sender::Http1(Rc::new(RefCell::new(Some(sender)))))
    }
}

fn send(args: &Args, senders: &[Sender], number: u32, body: &Bytes, book: &Rc<RefCell<Book>>, started: Instant) {
    let Ok(request) = request(args, body) else { return };
    let turn = usize::try_from(number).unwrap_or_default() % senders.len();
    let chosen = match &senders[turn] {
        Sender::Http2(_) => Some(senders[turn].clone()),
        // The next one that is idle.
        Sender::Http1(_) => (0..senders.len()).map(|step| &senders[(turn + step) % senders.len()]).find_map(|sender| {
            matches!(sender, Sender::Http1(slot) if slot.borrow().is_some()).then(|| sender.clone())
        }),
    };
    let Some(chosen) = chosen else {
        book.borrow_mut().unsent += 1;
        return;
    };
    book.borrow_mut().in_flight += 1;
    let book = Rc::clone(book);
    let taken = match &chosen {
        Sender::Http1(slot) => slot.borrow_mut().take(),
        Sender::Http2(_) => None,
    };
    let address = args.address.clone();
    let sent = started.elapsed();
    tokio::task::spawn_local(async move {
        let (status, has_retry_after) = match (chosen, taken) {
            (Sender::Http1(slot), Some(mut sender)) => {
                let answer = read(sender.send_request(request).await).await;
                // A server may close after a refusal: connect again then.
                let usable = if sender.ready().await.is_ok() { Some(sender) } else { again(&address).await };
                *slot.borrow_mut() = usable;
                answer
            }
            (Sender::Http2(mut sender), _) => read(sender.send_request(request).await).await,
            (Sender::Http1(_), None) => ("no connection".to_owned(), false),
        };
        let mut book = book.borrow_mut();
        book.in_flight -= 1;
        book.outcomes.push(Outcome { sent, took: started.elapsed().saturating_sub(sent), status, has_retry_after });
    });
}

async fn again(address: &str) -> Option<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

fn request(args: &Args, body: &Bytes) -> Result<Request<Full<Bytes>>> {
    let uri = if args.grpc { format!("http://{}{}", args.address, args.path) } else { args.path.clone() };
    let mut builder = Request::post(uri).header("host", &args.address);
    if args.grpc {
        builder = builder.header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
    } else if let Some(length) = args.json_length {
        builder = builder.header(BINARY_HEADER, length);
    }
    Ok(builder.body(Full::new(body.clone()))?)
}

/// The status of an answer ("ok", "429", "grpc 8", …), and whether it says when to try again.
async fn read(answer: hyper::Result<Response<Incoming>>) -> (String, bool) {
    let Ok(answer) = answer else { return ("no answer".into(), false) };
    let status = answer.status();
    let headers = answer.headers().clone();
    let Ok(body) = answer.into_body().collect().await else { return ("broken answer".into(), false) };
    let trailers = body.trailers();
    let says_when = |map: &HeaderMap| map.contains_key("retry-after") || map.contains_key("grpc-retry-pushback-ms");
    let has_retry_after = [Some(&headers), trailers].into_iter().flatten().any(says_when);
    let code = trailers.and_then(|trailers| trailers.get("grpc-status")).or_else(|| headers.get("grpc-status"));
    let code = code.and_then(|code| code.to_str().ok());
    let status = match code {
        Some("0") => "ok".into(),
        Some(code) => format!("grpc {code}"),
        None if status.is_success() => "ok".into(),
        None => status.as_u16().to_string(),
    };
    (status, has_retry_after)
}

fn report(args: &Args, book: &Book, sent: u32, lasted: Duration) -> serde_json::Value {
    let warm_up = Duration::from_secs_f64(args.warm_up);
    let counted: Vec<&Outcome> = book.outcomes.iter().filter(|outcome| outcome.sent >= warm_up).collect();
    let mut by_status: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for outcome in &counted {
        by_status.entry(&outcome.status).or_default().push(outcome.took.as_secs_f64() * 1e3);
    }
    // Goodput: answers that came while the load went on, not those to which it was let run out.
    let is_good = |outcome: &&Outcome| {
        let answered = outcome.sent + outcome.took;
        outcome.status == "ok" && answered >= warm_up && answered < lasted
    };
    let good = book.outcomes.iter().filter(is_good).count();
    let seconds = lasted.saturating_sub(warm_up).as_secs_f64();
    let statuses: BTreeMap<&str, serde_json::Value> = by_status
        .into_iter()
        .map(|(status, mut times)| {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| percentile(&times, share);
            let value = json!({"count": times.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)});
            (status, value)
        })
        .collect();
    json!({
        "offered_per_s": f64::from(sent) / lasted.as_secs_f64(),
        "unsent": book.unsent,
        "unanswered": book.in_flight,
        "goodput_per_s": good as f64 / seconds,
        "answers": counted.len(),
        "with_retry_after": counted.iter().filter(|outcome| outcome.has_retry_after).count(),
        "statuses": statuses,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
