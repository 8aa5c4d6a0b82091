//! Load beyond what can be done: refusals, deadlines, clients that leave, priorities, batches.
//!
//! Most of it needs no slow model. With an hour's `batching.max_delay` requests wait for each
//! other until together they fill a batch, so the test alone decides when they run.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidegate::{
    domain::DataType,
    proto::inference::{
        InferParameter, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, codec::CompressionEncoding, transport::Channel};

use crate::{
    harness::{Gateway, PATIENCE, Repository},
    onnx::{self, ANY},
};

/// The rows of a batch of `gated`.
const FULL: usize = 8;

/// A gateway with `m`, an identity whose requests wait until they are [`FULL`] rows together.
fn gated() -> (Repository, Gateway) {
    gated_with("")
}

fn gated_with(scheduler: &str) -> (Repository, Gateway) {
    let repository = gated_model(scheduler);
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn gated_model(scheduler: &str) -> Repository {
    let repository = Repository::new();
    let batching = format!("enabled = true\nmax_size = {FULL}\nmax_delay = \"1h\"");
    repository.write("m/model.toml", &format!("[scheduler]\n{scheduler}\n[batching]\n{batching}\n"));
    repository.add("m", 1, &onnx::identity(DataType::Fp32, &[ANY, ANY]));
    repository
}

/// Waits until so many requests of `m` wait, whether or not somebody still wants their answers.
fn wait_for_waiting(gateway: &Gateway, requests: u64) {
    gateway
        .wait(&format!("{requests} waiting requests"), || (gateway.runs("m", 1)["waiting"] == requests).then_some(()));
}

/// Fills the batch of `m`, so that what waits runs. Says how many rows and how many runs there
/// have been since the start.
fn fill(gateway: &Gateway) -> (u64, u64) {
    let rows: Vec<f32> = (0..FULL).map(|row| row as f32).collect();
    let answer = post(gateway, &json_request(&[FULL, 1], &rows), &[]);
    assert_eq!((answer.status, answer.values()), (200, rows));
    wait_for_waiting(gateway, 0);
    counted(gateway)
}

fn counted(gateway: &Gateway) -> (u64, u64) {
    let statistics = gateway.statistics("m");
    (statistics["inference_count"].as_u64().unwrap(), statistics["execution_count"].as_u64().unwrap())
}

/// Requests of `m` that ended so, over a protocol.
fn ended(gateway: &Gateway, protocol: &str, code: &str) -> f64 {
    gateway.metric_sum("tidegate_requests_total", &[("model", "m"), ("protocol", protocol), ("code", code)])
}

/// What HTTP answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<u32>,
    body: Value,
}

impl Answer {
    fn values(&self) -> Vec<f32> {
        serde_json::from_value(self.body["outputs"][0]["data"].clone()).unwrap_or_default()
    }
}

fn json_request(shape: &[usize; 2], values: &[f32]) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": values}]})
}

fn post(gateway: &Gateway, body: &Value, headers: &[(&str, &str)]) -> Answer {
    post_to(gateway.addresses.http, body, headers)
}

fn post_to(address: SocketAddr, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let url = format!("http://{address}/v2/models/m/infer");
    let request = headers.iter().fold(agent.post(&url), |request, (name, value)| request.header(*name, *value));
    let mut answer = request.send(body.to_string()).unwrap();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let body = answer.body_mut().read_to_string().unwrap();
    Answer { status: answer.status().as_u16(), retry_after, body: serde_json::from_str(&body).unwrap() }
}

fn grpc_request(shape: &[usize; 2], values: &[f32]) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: shape.map(|size| i64::try_from(size).unwrap()).into(),
        ..InferInputTensor::default()
    };
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

fn with_parameter(mut request: ModelInferRequest, name: &str, value: i64) -> ModelInferRequest {
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) };
    request.parameters.insert(name.into(), parameter);
    request
}

async fn grpc_client(gateway: &Gateway) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap()
}

fn floats(raw: &[u8]) -> Vec<f32> {
    raw.as_chunks().0.iter().map(|element| f32::from_le_bytes(*element)).collect()
}

#[test]
fn what_does_not_fit_into_the_queue_is_refused_and_the_rest_is_answered() {
    const WIDTH: usize = 32;
    // As many bytes as a full batch of these rows has. Runs that count as cheap would happen before anybody is refused.
    let scheduler = format!("max_queue_size = \"{}B\"\ninline_limit = \"0s\"", FULL * WIDTH * 4);
    let (_repository, gateway) = gated_with(&scheduler);
    let row = |value: usize| vec![value as f32; WIDTH];
    let runtime = Runtime::new().unwrap();
    thread::scope(|scope| {
        let over_http: Vec<_> = (0..4)
            .map(|value| {
                let (gateway, row) = (&gateway, row(value));
                scope.spawn(move || (post(gateway, &json_request(&[1, WIDTH], &row), &[]).values(), row))
            })
            .collect();
        let over_grpc: Vec<_> = (4..FULL - 1)
            .map(|value| {
                let (gateway, row, runtime) = (&gateway, row(value), &runtime);
                scope.spawn(move || {
                    let answer = runtime.block_on(async {
                        grpc_client(gateway).await.model_infer(grpc_request(&[1, WIDTH], &row)).await
                    });
                    (floats(&answer.unwrap().into_inner().raw_output_contents[0]), row)
                })
            })
            .collect();
        wait_for_waiting(&gateway, FULL as u64 - 1);

        let large = vec![0.0; 2 * WIDTH];
        let refused = post(&gateway, &json_request(&[1, 2 * WIDTH], &large), &[]);
        assert_eq!((refused.status, refused.retry_after), (429, Some(1)), "{refused:?}");
        assert!(refused.body["error"].as_str().unwrap().contains("too many requests are waiting"), "{refused:?}");
        let refused = runtime.block_on(async {
            grpc_client(&gateway).await.model_infer(grpc_request(&[1, 2 * WIDTH], &large)).await.unwrap_err()
        });
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");
        assert_eq!(counted(&gateway), (0, 0), "nothing has run yet");

        let last = post(&gateway, &json_request(&[1, WIDTH], &row(FULL - 1)), &[]);
        assert_eq!((last.status, last.values()), (200, row(FULL - 1)), "{last:?}");
        for answered in over_http.into_iter().chain(over_grpc) {
            let (answer, row) = answered.join().unwrap();
            assert_eq!(answer, row);
        }
    });
    assert_eq!(counted(&gateway), (FULL as u64, 1), "all that was taken ran together, once");
    for (protocol, ok) in [("http", 5.0), ("grpc", 3.0)] {
        assert_eq!((ended(&gateway, protocol, "ok"), ended(&gateway, protocol, "overloaded")), (ok, 1.0), "{protocol}");
    }
    assert_eq!(gateway.metric("tidegate_rejected_total", &[("reason", "overloaded")]), Some(2.0));
    assert_eq!(fill(&gateway), (2 * FULL as u64, 2), "it goes on as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_kinds_of_requests_share_one_bound() {
    // 40,000 bytes: two of them are more than may be in memory at once.
    const WIDTH: usize = 10_000;
    let repository = gated_model("");
    let gateway = Gateway::start_with(&repository, |command| {
        command.env("TIDEGATE_SERVER__MAX_REQUEST_SIZE", "64KiB").env("TIDEGATE_SERVER__MAX_INFLIGHT_SIZE", "64KiB")
    });
    let zeros = vec![0.0; WIDTH];
    let large = || grpc_request(&[1, WIDTH], &zeros);
    let mut client = grpc_client(&gateway).await;
    let (requests, receiver) = tokio::sync::mpsc::channel(2);
    let mut answers = client.model_stream_infer(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    requests.send(large()).await.unwrap();
    wait_for_waiting(&gateway, 1);

    let refused = post(&gateway, &json_request(&[1, WIDTH], &zeros), &[]);
    assert_eq!((refused.status, refused.retry_after), (429, Some(1)), "{refused:?}");
    // Few bytes on the way: what they inflate to is what counts.
    let compressing = client.clone().send_compressed(CompressionEncoding::Gzip);
    for mut client in [client.clone(), compressing] {
        let refused = client.model_infer(large()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("too many bytes"), "{refused}");
        assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");
    }

    assert_eq!(fill(&gateway), (FULL as u64 + 1, 2), "what was taken is answered, and small requests are");
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(
        (answer.error_message.as_str(), answer.infer_response.unwrap().raw_output_contents[0].len()),
        ("", 4 * WIDTH)
    );
    let room = grpc_request(&[FULL, WIDTH / FULL], &zeros);
    client.model_infer(room).await.unwrap();
}

/// What the clients of one protocol have seen.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Seen {
    answered: u64,
    refused: u64,
}

/// Ends when everybody has been answered, and each protocol has seen a refusal.
#[derive(Debug, Default)]
struct Crowd {
    is_refused: [AtomicBool; 2],
}

impl Crowd {
    /// A client of one protocol: `ask` says whether its request was answered or refused.
    fn client(&self, protocol: usize, mut ask: impl FnMut() -> bool) -> Seen {
        let (mut seen, started) = (Seen::default(), Instant::now());
        while seen.answered == 0 || !self.is_refused.iter().all(|is_refused| is_refused.load(SeqCst)) {
            assert!(started.elapsed() < PATIENCE, "{seen:?} of protocol {protocol}, {self:?}");
            if ask() {
                seen.answered += 1;
            } else {
                seen.refused += 1;
                self.is_refused[protocol].store(true, SeqCst);
            }
        }
        seen
    }
}

#[test]
fn crowd_at_a_slow_model_is_answered_or_refused_and_each_request_once() {
    const CLIENTS: usize = 5;
    const ROUNDS: i64 = 2000;
    let repository = Repository::new();
    repository.write("m/model.toml", "[scheduler]\nmax_queue = 1\ninstances = 1\ninline_limit = \"0s\"\n");
    repository.add("m", 1, &onnx::counting_loop());
    let gateway = Gateway::start(&repository);
    let crowd = Crowd::default();
    let ask_http = |x: f32| {
        let mut request = json_request(&[1, 1], &[x]);
        let rounds = json!({"name": "rounds", "datatype": "INT64", "shape": [1], "data": [ROUNDS]});
        request["inputs"].as_array_mut().unwrap().push(rounds);
        let answer = post(&gateway, &request, &[]);
        match answer.status {
            200 => assert_eq!(answer.values(), [x + ROUNDS as f32]),
            429 => assert!(answer.retry_after.unwrap() >= 1),
            _ => panic!("{answer:?}"),
        }
        answer.status == 200
    };
    let runtime = Runtime::new().unwrap();
    let ask_grpc = |client: &mut GrpcInferenceServiceClient<Channel>, x: f32| {
        let mut request = grpc_request(&[1, 1], &[x]);
        request.inputs.push(InferInputTensor {
            name: "rounds".into(),
            datatype: "INT64".into(),
            shape: vec![1],
            ..InferInputTensor::default()
        });
        request.raw_input_contents.push(ROUNDS.to_le_bytes().to_vec().into());
        match runtime.block_on(client.model_infer(request)) {
            Ok(answer) => assert_eq!(floats(&answer.into_inner().raw_output_contents[0]), [x + ROUNDS as f32]),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.metadata().get("retry-after").is_some(), "{status:?}");
                return false;
            }
        }
        true
    };
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..2 * CLIENTS)
            .map(|number| {
                let (crowd, gateway, runtime, ask_http, ask_grpc) = (&crowd, &gateway, &runtime, &ask_http, &ask_grpc);
                scope.spawn(move || {
                    // Every request is told from every other.
                    let mut x = number as f32 * 10_000.0;
                    let mut next = || {
                        x += 1.0;
                        x
                    };
                    let protocol = number % 2;
                    let seen = if protocol == 0 {
                        crowd.client(protocol, || ask_http(next()))
                    } else {
                        let mut client = runtime.block_on(grpc_client(gateway));
                        crowd.client(protocol, || ask_grpc(&mut client, next()))
                    };
                    (protocol, seen)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let mut answered = 0;
    for (protocol, name) in ["http", "grpc"].into_iter().enumerate() {
        let of_it = seen.iter().filter(|(of, _)| *of == protocol).map(|(_, seen)| seen);
        let sum = of_it.fold(Seen::default(), |sum, seen| Seen {
            answered: sum.answered + seen.answered,
            refused: sum.refused + seen.refused,
        });
        let told = (ended(&gateway, name, "ok"), ended(&gateway, name, "overloaded"));
        assert_eq!(told, (sum.answered as f64, sum.refused as f64), "{name}");
        answered += sum.answered;
    }
    assert_eq!(counted(&gateway), (answered, answered), "what was refused did not run, the rest ran once");
    assert_eq!(gateway.metric("tidegate_inflight_requests", &[("model", "m")]), Some(0.0));
    assert!(ask_http(1.0));
    assert!(ask_grpc(&mut runtime.block_on(grpc_client(&gateway)), 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_whose_deadline_passes_in_the_queue_is_not_run() {
    let (_repository, gateway) = gated();
    let mut timed = json_request(&[1, 1], &[1.0]);
    timed["parameters"] = json!({"timeout": 30_000});
    for (body, headers) in [
        (&json_request(&[1, 1], &[1.0]), &[("tidegate-timeout", "30ms")][..]),
        (&timed, &[]),
        (&timed, &[("tidegate-timeout", "1h")]),
    ] {
        let answer = post(&gateway, body, headers);
        assert_eq!((answer.status, answer.retry_after), (504, None), "{answer:?}");
        assert!(answer.body["error"].as_str().unwrap().contains("deadline"), "{answer:?}");
    }
    let mut client = grpc_client(&gateway).await;
    let mut by_metadata = Request::new(grpc_request(&[1, 1], &[1.0]));
    by_metadata.metadata_mut().insert("tidegate-timeout", "30ms".parse().unwrap());
    let by_parameter = Request::new(with_parameter(grpc_request(&[1, 1], &[1.0]), "timeout", 30_000));
    for request in [by_metadata, by_parameter] {
        assert_eq!(client.model_infer(request).await.unwrap_err().code(), Code::DeadlineExceeded);
    }
    let mut patient = gateway.patient_client().await;
    let mut by_call = Request::new(grpc_request(&[1, 1], &[1.0]));
    by_call.set_timeout(Duration::from_millis(30));
    let status = patient.model_infer(by_call).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("before the model could run"), "the gateway's own answer: {status}");

    assert_eq!(fill(&gateway), (FULL as u64, 1), "only what filled the batch ran");
    for protocol in ["http", "grpc"] {
        assert_eq!(ended(&gateway, protocol, "deadline_exceeded"), 3.0, "{protocol}");
    }
    assert_eq!(gateway.metric("tidegate_rejected_total", &[("reason", "deadline_exceeded")]), Some(6.0));
}

#[test]
fn default_timeout_of_a_model_is_a_deadline_too() {
    let (_repository, gateway) = gated_with("default_timeout = \"30ms\"");
    assert_eq!(post(&gateway, &json_request(&[1, 1], &[1.0]), &[]).status, 504);
    assert_eq!(fill(&gateway), (FULL as u64, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn request_of_a_client_that_has_gone_is_not_run() {
    let (_repository, gateway) = gated();
    let left = |protocol: &str, requests: f64| {
        let what = format!("{requests} cancelled requests over {protocol}");
        gateway.wait(&what, || (ended(&gateway, protocol, "cancelled") == requests).then_some(()));
    };
    let body = json_request(&[1, 1], &[1.0]).to_string();
    let head = format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut connection = TcpStream::connect(gateway.addresses.http).unwrap();
    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
    wait_for_waiting(&gateway, 1);
    drop(connection);
    left("http", 1.0);

    let mut client = grpc_client(&gateway).await;
    let call = tokio::spawn({
        let mut client = client.clone();
        async move { client.model_infer(grpc_request(&[1, 1], &[1.0])).await }
    });
    wait_for_waiting(&gateway, 2);
    call.abort();
    left("grpc", 1.0);

    let (requests, receiver) = tokio::sync::mpsc::channel(2);
    let answers = client.model_stream_infer(ReceiverStream::new(receiver)).await.unwrap();
    for _ in 0..2 {
        requests.send(grpc_request(&[1, 1], &[1.0])).await.unwrap();
    }
    wait_for_waiting(&gateway, 4);
    drop((requests, answers));
    left("grpc", 3.0);

    assert_eq!(fill(&gateway), (FULL as u64, 1), "only what filled the batch ran");
    assert_eq!(gateway.metric("tidegate_inflight_requests", &[("model", "m")]), Some(0.0));
}

/// Two requests that cannot run together fill the batch: whose turn comes first is answered,
/// and the other goes on waiting.
#[test]
fn more_urgent_request_that_came_later_runs_first() {
    let (_repository, gateway) = gated();
    let post_later = |columns: usize, priority: u64| -> JoinHandle<Answer> {
        let (addresses, values) = (gateway.addresses, vec![columns as f32; FULL / 2 * columns]);
        let mut body = json_request(&[FULL / 2, columns], &values);
        body["parameters"] = json!({"priority": priority});
        thread::spawn(move || post_to(addresses.http, &body, &[]))
    };
    // The second to come is as urgent, then more urgent; 0 is the model's default, 10.
    for (priorities, first) in [([5, 5], 0), ([0, 10], 0), ([2, 1], 1), ([0, 9], 1)] {
        let runs = counted(&gateway).1;
        let mut waiting = Vec::new();
        for (columns, priority) in [1, 2].into_iter().zip(priorities) {
            waiting.push(post_later(columns, priority));
            if waiting.len() == 1 {
                wait_for_waiting(&gateway, 1);
            }
        }
        let answer = waiting.remove(first).join().unwrap();
        assert_eq!((answer.status, answer.values()[0]), (200, (first + 1) as f32), "{priorities:?}: {answer:?}");
        let other = waiting.remove(0);
        assert_eq!((gateway.runs("m", 1)["waiting"].as_u64(), other.is_finished()), (Some(1), false), "{priorities:?}");
        assert_eq!(counted(&gateway).1, runs + 1);
        fill(&gateway);
        assert_eq!(other.join().unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn target_latency_joins_requests_and_gives_each_its_own_answer() {
    const CLIENTS: u16 = 16;
    let repository = Repository::new();
    repository.write("m/model.toml", "[batching]\nenabled = true\ntarget_p99 = \"50ms\"\n");
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    let is_enough = std::sync::Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (mut client, is_enough) = (grpc_client(&gateway).await, std::sync::Arc::clone(&is_enough));
        clients.spawn(async move {
            let mut asked = 0;
            while !is_enough.load(SeqCst) {
                let x = f32::from(number) * 10_000.0 + asked as f32;
                let answer = client.model_infer(grpc_request(&[1, 1], &[x])).await.unwrap().into_inner();
                assert_eq!(floats(&answer.raw_output_contents[0]), [x + 10.0]);
                asked += 1;
            }
            asked
        });
    }
    let joined = |statistics: &Value| {
        let batches = statistics["batch_stats"].as_array().cloned().unwrap_or_default();
        batches.iter().any(|batch| batch["batch_size"].as_u64() > Some(1))
    };
    tokio::task::block_in_place(|| {
        gateway.wait("batches of more than one row", || joined(&gateway.statistics("m")).then_some(()));
    });
    is_enough.store(true, SeqCst);
    let mut asked = 0;
    while let Some(of_one) = clients.join_next().await {
        asked += u64::try_from(of_one.unwrap()).unwrap();
    }
    let (rows, runs) = counted(&gateway);
    assert_eq!(rows, asked);
    assert!(runs < rows, "{runs} runs of {rows} rows");
}
