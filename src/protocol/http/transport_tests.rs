//! Tests of how requests and answers travel: compressed, raw, slow, large, unwanted.

use std::{
    io::{Read, Write},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::{
    Cors, MaxAge,
    wire_tests::{LIMIT, Plane, ROW, assert_answer, read_all},
};
use crate::{
    domain::DataType,
    fault::ErrorCode,
    protocol::{DoorOptions, stand_in},
};

const INFER: &str = "/v2/models/echo/infer";

/// The head and the body of the answer to a request with a body of any bytes.
async fn post(plane: &Plane, path: &str, headers: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = plane.connect().await;
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_request_is_inflated_within_the_limit() {
    let plane = Plane::start().await;
    let (head, body) = post(&plane, INFER, "content-encoding: gzip\r\n", &gzip(ROW.as_bytes())).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("[1.0,2.5,3.0]"));
    let (head, _) = post(&plane, INFER, "content-encoding: gzip\r\n", &gzip(&vec![b' '; 2 * LIMIT])).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let (head, body) = post(&plane, INFER, "content-encoding: gzip\r\n", b"not gzip").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body, br#"{"error":"the body is not what its Content-Encoding says"}"#);
    plane.stop().await;
}

#[tokio::test]
async fn answer_is_compressed_when_asked_for_and_worth_it() {
    let plane = Plane::start().await;
    let data = "0.5,".repeat(999);
    let large = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1000],"data":[{data}0.5]}}]}}"#);
    let (head, body) = post(&plane, INFER, "accept-encoding: deflate;q=0.5, gzip\r\n", large.as_bytes()).await;
    assert!(head.contains("\r\ncontent-encoding: gzip") && head.contains("\r\nvary: accept-encoding"), "{head}");
    let mut plain = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
    assert!(plain.ends_with(&format!("[{data}0.5]}}]}}")));
    for (headers, body) in [("accept-encoding: gzip\r\n", ROW), ("accept-encoding: gzip;q=0\r\n", &large)] {
        let (head, _) = post(&plane, INFER, headers, body.as_bytes()).await;
        assert!(!head.contains("content-encoding"), "{head}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn large_binary_tensor_comes_back_whole() {
    let plane = Plane::start().await;
    let json = r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"UINT8","shape":[40000],"parameters":{"binary_data_size":40000}}]}"#;
    let blob: Vec<u8> = (0..40_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let body = [json.as_bytes(), &blob].concat();
    let length = format!("inference-header-content-length: {}\r\n", json.len());
    for coding in ["", "accept-encoding: gzip\r\n"] {
        let (head, mut answer) = post(&plane, INFER, &format!("{length}{coding}"), &body).await;
        if !coding.is_empty() {
            let mut plain = Vec::new();
            GzDecoder::new(&answer[..]).read_to_end(&mut plain).unwrap();
            answer = plain;
        }
        // The length is that in the plain body, compressed or not.
        let (_, json_length) = head.split_once("inference-header-content-length: ").unwrap();
        let json_length: usize = json_length.split('\r').next().unwrap().parse().unwrap();
        assert!(answer[..json_length].ends_with(br#""parameters":{"binary_data_size":40000}}]}"#));
        assert_eq!(answer[json_length..], blob);
    }
    plane.stop().await;
}

#[tokio::test]
async fn raw_binary_request_takes_its_shape_from_the_model() {
    let plane = Plane::start().await;
    let row: Vec<u8> = [1.0_f32, 2.0, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let raw = "inference-header-content-length: 0\r\n";
    let (head, body) = post(&plane, INFER, raw, &row).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/octet-stream"), "{head}");
    assert!(body.ends_with(&row));
    let tensor = plane.gateway.last_request().inputs[0].clone();
    assert_eq!((tensor.datatype(), tensor.shape().dimensions()), (DataType::Fp32, &[1, 3][..]));
    let (head, body) = post(&plane, INFER, raw, &row[1..]).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("11 bytes are not a multiple of 12"));
    plane.stop().await;
}

#[tokio::test]
async fn earliest_deadline_of_headers_and_parameter_wins() {
    let plane = Plane::start().await;
    let body = ROW.replacen('{', r#"{"parameters":{"timeout":5000000,"priority":3},"#, 1);
    for (headers, seconds) in [
        ("", 5),
        ("tidegate-timeout: 2s\r\n", 2),
        ("tidegate-timeout: 20s\r\n", 5),
        ("x-envoy-expected-rq-timeout-ms: 3000\r\ntidegate-timeout: 4s\r\n", 3),
    ] {
        let before = std::time::Instant::now();
        post(&plane, INFER, headers, body.as_bytes()).await;
        let urgency = plane.gateway.last_request().urgency;
        let left = urgency.deadline.unwrap() - before;
        assert!(left.abs_diff(Duration::from_secs(seconds)) < Duration::from_millis(900), "{headers} {left:?}");
        assert_eq!(urgency.priority.unwrap().0.get(), 3);
    }
    post(&plane, INFER, "", ROW.as_bytes()).await;
    assert_eq!(plane.gateway.last_request().urgency.deadline, None);
    let (head, _) = post(&plane, INFER, "tidegate-timeout: 5\r\n", ROW.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    for (parameter, words) in [
        (r#""timeout":-1"#, "the parameter 'timeout' is -1, expected a whole number of microseconds, 0 or more"),
        (r#""priority":"high""#, "the parameter 'priority' is \\\"high\\\", expected a whole number, 0 or more"),
    ] {
        let body = ROW.replacen('{', &format!(r#"{{"parameters":{{{parameter}}},"#), 1);
        let (_, body) = post(&plane, INFER, "", body.as_bytes()).await;
        assert_eq!(String::from_utf8(body).unwrap(), format!(r#"{{"error":"{words}"}}"#));
    }
    plane.stop().await;
}

#[tokio::test]
async fn what_is_sure_to_be_refused_is_refused_before_its_body_is_sent() {
    let plane = Plane::start().await;
    for (model, status) in [("nobody", 404), ("busy", 429), ("loading", 503)] {
        let head = format!("POST /v2/models/{model}/infer HTTP/1.1\r\nhost: t\r\ncontent-length: 5000\r\n");
        let answer = plane.ask(&format!("{head}expect: 100-continue\r\n\r\n")).await;
        assert!(answer.contains("\r\nconnection: close\r\n") && !answer.contains("100 Continue"), "{answer}");
        assert_answer(&answer, status, "\"}");
    }
    // A large one is not read to its end just to keep the connection.
    let answer = plane.ask("POST /v2/models/busy/infer HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999\r\n\r\n").await;
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_answer(&answer, 429, "\"}");
    plane.stop().await;
}

#[tokio::test]
async fn client_that_asks_first_is_told_to_go_on() {
    let plane = Plane::start().await;
    let mut stream = plane.connect().await;
    let length = ROW.len();
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    timeout(Duration::from_secs(20), stream.read_exact(&mut interim)).await.unwrap().unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(ROW.as_bytes()).await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 "));
    plane.stop().await;
}

#[tokio::test]
async fn body_that_stalls_is_given_up_and_holds_nothing() {
    let mut options = stand_in::options(LIMIT);
    options.body_timeout = Duration::from_millis(50);
    let budget = options.budget.clone();
    let plane = Plane::start_with(options).await;
    let mut stream = plane.connect().await;
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    while budget.used() == 0 && begun.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(1)).await;
    }
    let mut start = [0; 12];
    timeout(Duration::from_secs(25), stream.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(&start, b"HTTP/1.1 400");
    assert_eq!(budget.used(), 0);
    assert_eq!(plane.gateway.refusals(), [(Some("echo".into()), ErrorCode::BadRequest)]);
    drop(stream);
    plane.stop().await;
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_refused_with_retry_after() {
    let mut options = stand_in::options(LIMIT);
    options.budget = crate::protocol::BodyBudget::new(50);
    let plane = Plane::start_with(options).await;
    let (head, _) = post(&plane, INFER, "", ROW.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nretry-after: 1"), "{head}");
    plane.stop().await;
}

#[tokio::test]
async fn idle_connection_is_closed_and_a_used_one_goes_on() {
    let mut options = stand_in::options(LIMIT);
    options.idle_timeout = Duration::from_millis(300);
    let plane = Plane::start_with(options).await;
    let mut stream = plane.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let mut answer = [0; 512];
        let read = timeout(Duration::from_secs(20), stream.read(&mut answer)).await.unwrap().unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
    }
    // Neither this one nor one that never said anything stays.
    let mut silent = plane.connect().await;
    read_all(&mut stream).await;
    assert_eq!(read_all(&mut silent).await, "");
    plane.stop().await;
}

#[tokio::test]
async fn head_that_never_ends_is_cut_and_a_slow_reader_is_not() {
    let mut options = stand_in::options(64 << 20);
    options.idle_timeout = Duration::from_millis(400);
    let plane = Plane::start_with(options).await;
    let mut dribbling = plane.connect().await;
    dribbling.write_all(b"GET /v2/health/live HTTP/1.1\r\nx-a: ").await.unwrap();
    let dribble = async {
        while dribbling.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), dribble).await.expect("it is cut, however busy it looks");

    let json = r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"UINT8","shape":[16000000],"parameters":{"binary_data_size":16000000}}]}"#;
    let length = json.len();
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\ninference-header-content-length: {length}\r\ncontent-length: {}\r\n\r\n{json}",
        length + 16_000_000
    );
    let mut slow = plane.connect().await;
    slow.write_all(&[head.as_bytes(), &vec![7; 16_000_000]].concat()).await.unwrap();
    let (mut read, mut piece) = (0, vec![0; 1 << 20]);
    while read < 16_000_000 {
        // Longer on the whole than a connection may be idle.
        sleep(Duration::from_millis(60)).await;
        let bytes = timeout(Duration::from_secs(20), slow.read(&mut piece)).await.unwrap().unwrap();
        assert!(bytes > 0, "cut after {read} bytes");
        read += bytes;
    }
    plane.stop().await;
}

fn web_options(origins: &[&str]) -> DoorOptions {
    let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
    DoorOptions { cors: Cors::new(&origins), ..stand_in::options(LIMIT) }
}

const PREFLIGHT: &str =
    "access-control-request-method: POST\r\naccess-control-request-headers: content-type, traceparent\r\n";

#[tokio::test]
async fn web_page_of_an_allowed_origin_may_ask_and_read_the_answer() {
    let plane = Plane::start_with(web_options(&["https://a.example", "http://localhost:3000"])).await;
    let from = |origin: &str| format!("origin: {origin}\r\n");
    let preflight = |origin: &str| from(origin) + PREFLIGHT;
    for origin in ["https://a.example", "http://localhost:3000"] {
        let (head, body) = split(&plane.call("OPTIONS", INFER, &preflight(origin), "").await);
        for line in [
            "HTTP/1.1 204 ",
            &format!("access-control-allow-origin: {origin}\r\n"),
            "access-control-allow-methods: GET, HEAD, POST\r\n",
            "access-control-allow-headers: content-type, traceparent\r\n",
            "access-control-max-age: 7200\r\n",
            "vary: origin\r\n",
        ] {
            assert!(head.contains(line), "{line:?} in {head}");
        }
        assert_eq!(body, "");
        let (head, body) = split(&plane.call("POST", INFER, &from(origin), ROW).await);
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("[1.0,2.5,3.0]"), "{head}");
        assert!(head.contains(&format!("access-control-allow-origin: {origin}\r\n")), "{head}");
        assert!(head.contains("access-control-expose-headers: inference-header-content-length, retry-after\r\n"));
        // An error too, or the page could not show it.
        let (head, _) = split(&plane.call("POST", INFER, &from(origin), "{}").await);
        assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("access-control-allow-origin: "), "{head}");
    }
    let (head, body) = split(&plane.call("OPTIONS", INFER, &preflight("https://evil.example"), "").await);
    assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("access-control-allow-origin"), "{head}{body}");
    // A request of another origin is answered as ever; the browser keeps the answer from the page.
    for headers in [from("https://a.example.evil.example"), from("null"), String::new()] {
        let (head, _) = split(&plane.call("POST", INFER, &headers, ROW).await);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("vary: origin\r\n"), "{head}");
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
    // What is no preflight is a method that the path does not have.
    let (head, _) = split(&plane.call("OPTIONS", INFER, &from("https://a.example"), "").await);
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    plane.stop().await;
}

#[tokio::test]
async fn all_web_pages_may_ask_where_it_is_so_configured_and_none_by_default() {
    let all = Plane::start_with(web_options(&["*"])).await;
    let headers = format!("origin: https://any.example\r\n{PREFLIGHT}");
    let (head, _) = split(&all.call("OPTIONS", INFER, &headers, "").await);
    assert!(head.starts_with("HTTP/1.1 204 ") && head.contains("access-control-allow-origin: *\r\n"), "{head}");
    let large = ROW.replace("[1,3]", "[1,300]").replace("[[1,2.5,3]]", &format!("[{}0]", "1,".repeat(299)));
    let headers = "origin: https://any.example\r\naccept-encoding: gzip\r\n";
    let (head, _) = post(&all, INFER, headers, large.as_bytes()).await;
    assert!(head.contains("access-control-allow-origin: *\r\n"), "{head}");
    all.stop().await;

    let none = Plane::start().await;
    let headers = format!("origin: https://any.example\r\n{PREFLIGHT}");
    let (head, _) = split(&none.call("OPTIONS", INFER, &headers, "").await);
    assert!(head.starts_with("HTTP/1.1 405 ") && !head.contains("access-control"), "{head}");
    none.stop().await;
}

/// The head, with its last line's end, and the body.
fn split(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (format!("{head}\r\n"), body.to_owned())
}

#[tokio::test]
async fn old_http_2_connection_takes_no_new_request_and_answers_the_one_that_it_has() {
    let max_age = MaxAge::new(Duration::from_millis(50), Duration::ZERO);
    let plane = Plane::start_with(DoorOptions { max_age, ..stand_in::options(LIMIT) }).await;
    let connect = async || {
        let stream = TokioIo::new(plane.connect().await);
        let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        (send, tokio::spawn(connection))
    };
    let request = |model: &str| {
        let body = Full::new(Bytes::from_static(ROW.as_bytes()));
        Request::post(format!("http://t/v2/models/{model}/infer")).body(body).unwrap()
    };
    let (mut send, connection) = connect().await;
    let begun = send.send_request(request("slow"));
    let begun = tokio::spawn(begun);
    plane.gateway.begun.notified().await;
    // GOAWAY comes while the request waits.
    timeout(Duration::from_secs(20), async {
        // The client learns of it when it sends the next one, which it then does not send.
        while let Ok(answer) = send.send_request(request("echo")).await {
            assert_eq!(answer.status(), 200);
        }
    })
    .await
    .unwrap();
    assert!(!begun.is_finished());
    plane.gateway.let_go.notify_one();
    let answer = timeout(Duration::from_secs(20), begun).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    drop((answer, send));
    timeout(Duration::from_secs(20), connection).await.unwrap().unwrap().unwrap();
    // The next one is as good as new.
    let (mut send, _) = connect().await;
    assert_eq!(send.send_request(request("echo")).await.unwrap().status(), 200);
    drop(send);
    plane.stop().await;
}

#[tokio::test]
async fn old_http_2_connection_is_cut_when_its_grace_is_over() {
    let max_age = MaxAge::new(Duration::from_millis(20), Duration::from_millis(20));
    let plane = Plane::start_with(DoorOptions { max_age, ..stand_in::options(LIMIT) }).await;
    let stream = TokioIo::new(plane.connect().await);
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(Bytes::from_static(ROW.as_bytes()));
    let request = Request::post("http://t/v2/models/slow/infer").body(body).unwrap();
    let outcome = timeout(Duration::from_secs(20), send.send_request(request)).await.unwrap();
    assert!(outcome.is_err(), "nobody lets it go");
    plane.stop().await;
}
