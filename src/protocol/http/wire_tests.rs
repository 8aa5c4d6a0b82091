//! Tests of the HTTP door over real connections, with a stand-in behind it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Target,
    fault::ErrorCode,
    protocol::{
        DoorOptions, EXTENSIONS,
        stand_in::{self, StandIn},
    },
};

pub(super) const LIMIT: usize = 1 << 20;
pub(super) const ROW: &str =
    r#"{"id":"r1","inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[[1,2.5,3]]}]}"#;
const ROW_BACK: &str = r#""outputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1.0,2.5,3.0]}]}"#;

pub(super) struct Plane {
    pub(super) gateway: Arc<StandIn>,
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Plane {
    pub(super) async fn start() -> Self {
        Self::start_with(stand_in::options(LIMIT)).await
    }

    pub(super) async fn start_with(options: DoorOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gateway, shutdown) = (Arc::new(StandIn::default()), CancellationToken::new());
        let served = tokio::spawn(super::serve(listener.into(), Arc::clone(&gateway), options, shutdown.clone()));
        Self { gateway, address, shutdown, served }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The whole answer to `request`, sent on a connection of its own.
    pub(super) async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(super) async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}");
        self.ask(&format!("{head}content-length: {length}\r\n\r\n{body}")).await
    }

    async fn get(&self, path: &str) -> String {
        self.call("GET", path, "", "").await
    }

    async fn infer(&self, model: &str, body: &str) -> String {
        self.call("POST", &format!("/v2/models/{model}/infer"), "", body).await
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(10), self.served).await.unwrap().unwrap();
    }
}

pub(super) async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

pub(super) fn assert_answer(answer: &str, status: u16, end: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
    assert!(answer.ends_with(end), "{answer}");
}

#[tokio::test]
async fn server_and_models_tell_about_themselves() {
    let plane = Plane::start().await;
    let version = env!("CARGO_PKG_VERSION");
    let extensions = EXTENSIONS.join("\",\"");
    let metadata = format!("{{\"name\":\"tidegate\",\"version\":\"{version}\",\"extensions\":[\"{extensions}\"]}}");
    for (path, status, body) in [
        ("/v2", 200, metadata.as_str()),
        ("/v2/", 200, &metadata),
        ("/v2/health/live", 200, r#"{"live":true}"#),
        ("/v2/health/ready", 200, r#"{"ready":true}"#),
        ("/v2/models/echo/ready", 200, r#"{"name":"echo","ready":true}"#),
        ("/v2/models/echo/versions/1/ready", 200, r#"{"name":"echo","ready":true}"#),
        (
            "/v2/models/echo/labels/champion",
            200,
            concat!(
                r#"{"name":"echo","versions":["1","2"],"platform":"onnxruntime_onnx","#,
                r#""inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[{"name":"y","datatype":"INT64","shape":[-1,3]}]}"#
            ),
        ),
        ("/v2/models/loading/ready", 503, r#"{"error":"model 'loading' is not ready"}"#),
        ("/v2/models/nobody", 404, r#"{"error":"model 'nobody' is unknown"}"#),
        (
            "/v1/models",
            404,
            r#"{"error":"the path '/v1/models' is unknown: inference is POST /v2/models/{model}/infer (Open Inference Protocol)"}"#,
        ),
        ("/v2/models/echo/versions/x", 400, r#"{"error":"'x' is not a version: versions are whole numbers from 1"}"#),
    ] {
        assert_answer(&plane.get(path).await, status, body);
    }
    for name in ["a%2Fb", "a%00b", "%2e%2e", "..%2f..%2fetc"] {
        assert_answer(&plane.get(&format!("/v2/models/{name}")).await, 404, "not starting with '.'\"}");
    }
    plane.gateway.set_ready(false);
    let unready = plane.get("/v2/health/ready").await;
    assert_answer(&unready, 503, r#"{"error":"the gateway is not ready"}"#);
    assert!(unready.contains("\r\nretry-after: 1\r\n"));
    plane.stop().await;
}

#[tokio::test]
async fn method_that_does_not_fit_is_refused_and_head_has_no_body() {
    let plane = Plane::start().await;
    let answer = plane.call("POST", "/v2/health/live", "", "{}").await;
    assert_answer(&answer, 405, r#"{"error":"use GET, HEAD here"}"#);
    assert!(answer.contains("\r\nallow: GET, HEAD\r\n"));
    let answer = plane.get("/v2/models/echo/infer").await;
    assert_answer(&answer, 405, r#"{"error":"use POST here"}"#);
    assert_eq!(plane.gateway.refusals(), vec![(None, ErrorCode::MethodNotAllowed); 2]);
    let head = plane.call("HEAD", "/v2/health/live", "", "").await;
    assert_answer(&head, 200, "\r\n\r\n");
    assert!(head.contains("\r\ncontent-length: 13\r\n"), "{head}");
    plane.stop().await;
}

#[tokio::test]
async fn inference_is_answered_on_every_path_to_it() {
    let plane = Plane::start().await;
    let answer = plane.infer("echo", ROW).await;
    assert_answer(&answer, 200, &format!(r#"{{"model_name":"echo","model_version":"2","id":"r1",{ROW_BACK}"#));
    assert_eq!(plane.gateway.last_request().target, Target::Release);
    let answer = plane.infer("echo/versions/1", ROW).await;
    assert!(answer.contains(r#""model_version":"1""#));
    plane.infer("echo/labels/champion", ROW).await;
    assert_eq!(plane.gateway.last_request().target, Target::Label("champion".parse().unwrap()));

    let body = ROW.replacen('{', r#"{"parameters":{"routing_key":"p"},"#, 1);
    plane.infer("echo", &body).await;
    assert_eq!(plane.gateway.last_request().routing_key.as_deref(), Some("p"));
    plane.call("POST", "/v2/models/echo/infer", "Tidegate-Routing-Key: h\r\n", &body).await;
    assert_eq!(plane.gateway.last_request().routing_key.as_deref(), Some("h"));
    plane.stop().await;
}

#[tokio::test]
async fn inference_refused_is_counted_with_its_model() {
    let plane = Plane::start().await;
    assert_answer(&plane.infer("echo", "").await, 400, "send a JSON object with 'inputs'\"}");
    let coded = plane.call("POST", "/v2/models/echo/infer", "content-encoding: br\r\n", "x").await;
    assert_answer(&coded, 400, "use gzip, deflate or identity\"}");
    let binary = plane.call("POST", "/v2/models/echo/infer", "Inference-Header-Content-Length: 2\r\n", "{}").await;
    assert_answer(&binary, 400, "missing field `inputs` at line 1 column 2\"}");
    assert_eq!(plane.gateway.refusals(), vec![(Some("echo".into()), ErrorCode::BadRequest); 3]);

    let busy = plane.infer("busy", ROW).await;
    assert_answer(&busy, 429, r#"{"error":"too many requests are waiting"}"#);
    assert!(busy.contains("\r\nretry-after: 1\r\n"));
    assert_answer(&plane.infer("nobody", ROW).await, 404, r#"{"error":"model 'nobody' is unknown"}"#);
    let refusals = plane.gateway.refusals();
    assert_eq!(
        refusals[3..],
        [(Some("busy".into()), ErrorCode::Overloaded), (Some("nobody".into()), ErrorCode::NotFound)]
    );
    plane.stop().await;
}

#[tokio::test]
async fn body_over_the_limit_is_answered_before_the_client_reads() {
    let plane = Plane::start().await;
    let body = "x".repeat(8 * LIMIT);
    let answer = plane.infer("echo", &body).await;
    let message = r#"{"error":"the request is larger than the limit of 1048576 bytes"}"#;
    assert_answer(&answer, 413, message);
    let chunked = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: t\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_answer(&plane.ask(&chunked).await, 413, message);
    assert_eq!(plane.gateway.refusals(), vec![(Some("echo".into()), ErrorCode::TooLarge); 2]);
    plane.stop().await;
}

#[tokio::test]
async fn body_over_the_limit_is_refused_unsent_when_the_client_asks_first() {
    let plane = Plane::start().await;
    let answer = plane
        .ask("POST /v2/models/echo/infer HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n")
        .await;
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_answer(&answer, 413, "bytes\"}");
    plane.stop().await;
}

#[tokio::test]
async fn connection_goes_on_after_a_refusal() {
    let plane = Plane::start().await;
    let mut stream = plane.connect().await;
    let bad = format!(
        "POST /nowhere HTTP/1.1\r\nhost: t\r\ncontent-length: {0}\r\n\r\n{1}",
        3 * LIMIT,
        " ".repeat(3 * LIMIT)
    );
    stream.write_all(bad.as_bytes()).await.unwrap();
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.unwrap();
    let answers = read_all(&mut stream).await;
    assert!(answers.starts_with("HTTP/1.1 404 ") && answers.ends_with(r#"{"live":true}"#), "{answers}");
    plane.stop().await;
}

#[tokio::test]
async fn panic_in_a_handler_hurts_only_its_request() {
    let plane = Plane::start().await;
    let mut stream = plane.connect().await;
    let body = ROW.len();
    let ask = format!("POST /v2/models/panic/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {body}\r\n\r\n{ROW}");
    stream.write_all(ask.as_bytes()).await.unwrap();
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.unwrap();
    let answers = read_all(&mut stream).await;
    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    assert!(answers.contains(r#"{"error":"the gateway failed on this request"}"#));
    assert!(answers.ends_with(r#"{"live":true}"#));
    plane.stop().await;
}

#[tokio::test]
async fn shutdown_turns_new_clients_away_and_finishes_what_had_begun() {
    let plane = Plane::start().await;
    let (idle, address) = (plane.connect().await, plane.address);
    let mut stream = plane.connect().await;
    let body = ROW.len();
    let ask = format!("POST /v2/models/slow/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {body}\r\n\r\n{ROW}");
    stream.write_all(ask.as_bytes()).await.unwrap();
    plane.gateway.begun.notified().await;
    plane.shutdown.cancel();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!plane.served.is_finished());
    plane.gateway.let_go.notify_one();
    let answer = read_all(&mut stream).await;
    assert_answer(&answer, 200, ROW_BACK);
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    timeout(Duration::from_secs(10), plane.served).await.unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn extensions_of_triton_are_answered() {
    let plane = Plane::start().await;
    let stats = r#"{"model_stats":[{"name":"echo","version":"2","#;
    for path in ["/v2/models/stats", "/v2/models/echo/stats", "/v2/models/echo/labels/champion/stats"] {
        let answer = plane.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(stats), "{answer}");
    }
    let level = r#""trace_level":["OFF"]"#;
    for (method, path, body, status, words) in [
        ("GET", "/v2/models/nobody/stats", "", 404, "model 'nobody' is unknown"),
        ("GET", "/v2/models/echo/trace/setting", "", 200, level),
        ("GET", "/v2/trace/setting", "", 200, level),
        ("POST", "/v2/models/echo/trace/setting", "{}", 403, "telemetry.trace_ratio"),
        ("POST", "/v2/logging", r#"{"log_info":false}"#, 403, "admin plane"),
        ("PUT", "/v2/logging", "{}", 405, "use GET, HEAD, POST here"),
        ("POST", "/v2/repository/index", "", 200, r#""state":"READY""#),
        ("POST", "/v2/repository/models/echo/load", "{}", 501, "admin plane"),
        ("GET", "/v2/systemsharedmemory/status", "", 501, "send tensors in the request"),
    ] {
        let answer = plane.call(method, path, "", body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{path}: {answer}");
    }
    plane.stop().await;
}
