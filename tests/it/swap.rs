//! Promotions and rollbacks while both protocols are under load, and what survives `kill -9` amid changes.
//!
//! How much: `TIDEGATE_SWAPS` (default 1,000) and `TIDEGATE_KILLS` (default 5).

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tidegate::proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn rounds(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn repository(versions: u64) -> Repository {
    let repository = Repository::new();
    for version in 1..=versions {
        repository.add("m", version, &onnx::add(i64::try_from(version).unwrap() * 10));
    }
    repository
}

/// A client with one connection that it keeps.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// The version that answered over HTTP. The answer must be that of the version which it names.
fn ask_http(agent: &ureq::Agent, address: SocketAddr) -> u64 {
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[0]}]}"#;
    let mut answer = agent.post(format!("http://{address}/v2/models/m/infer")).send(body).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let version = answer["model_version"].as_str().unwrap().parse().unwrap();
    assert_eq!(answer["outputs"][0]["data"][0].as_f64().unwrap() as u64, version * 10, "{text}");
    version
}

async fn ask_grpc(client: &mut GrpcInferenceServiceClient<tonic::transport::Channel>) -> u64 {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 1],
        ..InferInputTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from_static(&[0; 4])],
        ..ModelInferRequest::default()
    };
    let answer = client.model_infer(request).await.unwrap().into_inner();
    let version = answer.model_version.parse().unwrap();
    let y = f32::from_le_bytes(answer.raw_output_contents[0][..4].try_into().unwrap());
    assert_eq!(y as u64, version * 10);
    version
}

/// What the clients may rely on: the generations that were acknowledged, and which version each made stable.
///
/// A client notes the newest acknowledged generation before it asks. The answer must then come from
/// that generation's version, or from that of a change which was begun before the answer came.
#[derive(Default)]
struct Timeline {
    /// Stable versions by generation, entered before the change is sent.
    begun: Mutex<Vec<u64>>,
    acknowledged: AtomicU64,
}

impl Timeline {
    fn check(&self, acknowledged_before: u64, version: u64) {
        let begun = self.begun.lock().unwrap();
        let possible = &begun[usize::try_from(acknowledged_before).unwrap()..];
        assert!(possible.contains(&version), "{version} was retired before the request began: {possible:?}");
    }
}

fn change(agent: &ureq::Agent, gateway: &Gateway, path: &str, body: &Value) -> Value {
    let url = format!("http://{}{ADMIN}{path}", gateway.addresses.admin);
    let mut answer = agent.post(&url).send(body.to_string()).unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

/// No request fails, every answer is from the version that it names, and none comes from a version that
/// was retired before its request began.
#[test]
fn swaps_under_load_on_both_protocols_fail_no_request() {
    const CLIENTS: usize = 3;
    let repository = repository(2);
    let gateway = Gateway::start(&repository);
    let (timeline, stop, answers) = (Timeline::default(), AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
    timeline.begun.lock().unwrap().push(2);
    let swaps = rounds("TIDEGATE_SWAPS", 1000);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let _end = StopAtEnd(&stop);
                let agent = agent();
                while !stop.load(SeqCst) {
                    let acknowledged = timeline.acknowledged.load(SeqCst);
                    timeline.check(acknowledged, ask_http(&agent, gateway.addresses.http));
                    answers[0].fetch_add(1, SeqCst);
                }
            });
            scope.spawn(|| {
                let _end = StopAtEnd(&stop);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let address = format!("http://{}", gateway.addresses.grpc);
                    let mut client = GrpcInferenceServiceClient::connect(address).await.unwrap();
                    while !stop.load(SeqCst) {
                        let acknowledged = timeline.acknowledged.load(SeqCst);
                        timeline.check(acknowledged, ask_grpc(&mut client).await);
                        answers[1].fetch_add(1, SeqCst);
                    }
                });
            });
        }
        let _end = StopAtEnd(&stop);
        let admin = agent();
        for swap in 0..swaps {
            let version = 1 + swap % 2;
            timeline.begun.lock().unwrap().push(version);
            // By turns two promotions and two rollbacks, each of which flips.
            let release = match swap % 4 {
                0 | 1 => change(&admin, &gateway, "/promote", &json!({"version": version})),
                2 => change(&admin, &gateway, "/rollback", &json!({})),
                _ => change(&admin, &gateway, "/rollback", &json!({"to": version})),
            };
            assert_eq!(release["stable"], version);
            timeline.acknowledged.fetch_add(1, SeqCst);
        }
    });
    let [http, grpc] = answers.map(AtomicU64::into_inner);
    eprintln!("{swaps} swaps in {:.1?}: {http} answers over HTTP, {grpc} over gRPC, none failed", started.elapsed());
    assert!(http > swaps / 10 && grpc > swaps / 10, "{http} and {grpc} answers are no load");
    for outcome in ["internal", "unavailable", "overloaded", "not_found"] {
        assert_eq!(gateway.metric("tidegate_requests_total", &[("model", "m"), ("code", outcome)]), None);
    }
    report_flips(&gateway, swaps);
}

/// Ends the load, also when its thread fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// What the gateway measured of its own flips, from the acceptance of the change to the published table,
/// the durable write excluded.
fn report_flips(gateway: &Gateway, swaps: u64) {
    let name = "tidegate_release_publish_duration_seconds";
    let value = |suffix: &str, labels: &[(&str, &str)]| gateway.metric(&format!("{name}{suffix}"), labels).unwrap();
    let (sum, count) = (value("_sum", &[]), value("_count", &[]));
    let below = value("_bucket", &[("le", "0.001")]);
    eprintln!("a flip took {:.1} us on average; {below} of {count} took less than 1 ms", sum / count * 1e6);
    assert_eq!(count, swaps as f64);
}

/// Several operators change the release at once until the gateway is killed. What any of them was told
/// is there after the restart, and the audit log is whole.
#[test]
fn nothing_acknowledged_is_lost_by_kill_9_amid_changes() {
    const OPERATORS: u64 = 4;
    let repository = repository(3);
    let (kills, mut acknowledged_in_all) = (rounds("TIDEGATE_KILLS", 5), 0);
    let started = Instant::now();
    for round in 0..kills {
        let mut gateway = Gateway::start(&repository);
        let (told, admin) = (Mutex::new(Vec::<Value>::new()), gateway.addresses.admin);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = StopAtEnd(&stop);
            for operator in 0..OPERATORS {
                let (told, stop) = (&told, &stop);
                scope.spawn(move || {
                    let agent = agent();
                    for number in 0.. {
                        if stop.load(SeqCst) {
                            return;
                        }
                        let version = 1 + (operator + number) % 3;
                        let url = format!("http://{admin}{ADMIN}/labels/operator-{operator}");
                        let answer = agent.put(&url).send(json!({"version": version}).to_string());
                        // The gateway is gone: what it had not answered was not acknowledged.
                        let Ok(mut answer) = answer else { return };
                        let Ok(text) = answer.body_mut().read_to_string() else { return };
                        assert_eq!(answer.status().as_u16(), 200, "{text}");
                        told.lock().unwrap().push(serde_json::from_str(&text).unwrap());
                    }
                });
            }
            gateway.wait("some changes", || (told.lock().unwrap().len() as u64 > 20 + round * 7).then_some(()));
            gateway.kill();
        });
        let told = told.into_inner().unwrap();
        acknowledged_in_all += told.len();
        let newest = told.iter().max_by_key(|release| release["generation"].as_u64()).unwrap();
        let gateway = Gateway::start(&repository);
        let found = gateway.admin("GET", ADMIN, None).1["release"].clone();
        let generation = |release: &Value| release["generation"].as_u64().unwrap();
        // A change may have become durable whose answer did not get out any more.
        assert!(generation(&found) >= generation(newest), "{found} has lost {newest}");
        assert!(generation(&found) <= generation(newest) + OPERATORS, "{found}, {newest}");
        let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history?verify=true&limit=10000"), None);
        assert_eq!(history["verification"]["intact"], true, "{}", history["verification"]);
        let after: Vec<&Value> = history["entries"].as_array().unwrap().iter().map(|entry| &entry["to"]).collect();
        for release in &told {
            assert!(after.contains(&release), "the history has lost {release}");
        }
    }
    eprintln!("{kills} kills in {:.1?}: {acknowledged_in_all} acknowledged changes, none lost", started.elapsed());
}
