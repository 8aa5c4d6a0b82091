//! The admin API as a whole: the document of it, the events, and what shadow runs found.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use tidegate::{
    fault::ErrorCode,
    proto::admin::{
        GetModelRequest, LabelRequest, LoadVersionRequest, PromoteRequest, RollbackRequest, SplitRequest,
        VersionRequest, WatchEventsRequest, admin_service_client::AdminServiceClient,
    },
};

use crate::{
    harness::{Gateway, PATIENCE, Repository, request},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

fn serving() -> (Repository, Gateway) {
    let repository = Repository::new();
    for version in 1..=2_u64 {
        repository.add("m", version, &onnx::add(i64::try_from(version * 10).unwrap()));
    }
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

#[test]
fn every_documented_operation_answers_and_no_other_method_does() {
    let (_repository, gateway) = serving();
    let admin = gateway.addresses.admin;
    let (status, document) = request("GET", admin, "/admin/v1/openapi.json", None);
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 16, "{}", paths.len());
    for (path, operations) in paths {
        let sample = path.replace("{model}", "m").replace("{version}", "1").replace("{label}", "champion");
        for method in ["get", "put", "post", "delete"] {
            let is_documented = operations.get(method).is_some();
            if is_documented && sample == "/admin/v1/events" {
                continue;
            }
            // A body that no operation takes: what is asked for is found, and nothing is changed.
            let (status, answer) = request(&method.to_uppercase(), admin, &sample, Some(b"{\"nothing\":0}"));
            let is_there =
                status != 405 && !answer["error"].as_str().unwrap_or_default().starts_with("there is nothing");
            assert_eq!(is_there, is_documented, "{method} {path}: {status} {answer}");
        }
    }
    let index = request("GET", admin, "/", None).1;
    let listed =
        index["endpoints"].as_array().unwrap().iter().filter(|line| !line.as_str().unwrap().starts_with("gRPC"));
    let documented = paths.values().map(|operations| operations.as_object().unwrap().len()).sum::<usize>();
    assert_eq!(listed.count(), documented - 1, "all but the index itself");
}

/// The schema of an answer has exactly the fields of that answer.
#[test]
fn documented_answers_have_the_fields_of_real_ones() {
    let (_repository, gateway) = serving();
    let document = request("GET", gateway.addresses.admin, "/admin/v1/openapi.json", None).1;
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let check = |name: &str, answer: &Value| {
        let (properties, fields) = (schema(name)["properties"].clone(), answer.as_object().unwrap());
        for field in fields.keys() {
            assert!(properties.get(field).is_some(), "{name}.{field} is not documented");
        }
        for required in schema(name)["required"].as_array().unwrap() {
            assert!(fields.contains_key(required.as_str().unwrap()), "{name}.{required} is required, and not there");
        }
    };
    let (_, model) = gateway.admin("GET", ADMIN, None);
    check("ModelStatus", &model);
    check("Release", &model["release"]);
    check("VersionStatus", &model["versions"][0]);
    check("Runs", &model["versions"][0]["runs"]);
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history?verify=true"), None);
    check("History", &history);
    check("HistoryEntry", &history["entries"][0]);
    check("Verification", &history["verification"]);
    let plan = json!({"version": 1, "steps": [50, 100]});
    let (_, rollout) = gateway.admin("POST", &format!("{ADMIN}/rollout"), Some(&plan));
    check("RolloutStatus", &rollout);
    check("Evidence", &rollout["evidence"]);
    check("MetricEvidence", &rollout["evidence"]["metrics"][0]);
    check("ErrorBody", &gateway.admin("GET", "/admin/v1/models/none", None).1);
}

/// Both protocols refuse the same, with the same words, and with the codes of one table.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_the_same_over_both_protocols() {
    let (_repository, gateway) = serving();
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let rest = |method: &str, path: &str, body: Value| {
        let path = format!("/admin/v1/models/{path}");
        let (status, answer) = tokio::task::block_in_place(|| gateway.admin(method, &path, Some(&body)));
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    let model = |model: &str| model.to_owned();
    let promote = |name: &str, version| PromoteRequest { model: model(name), version, options: None, strict: false };
    let split = |version, percent| SplitRequest { model: model("m"), version, percent, options: None };
    let version = |version| VersionRequest { model: model("m"), version, options: None };
    let load = |version| LoadVersionRequest { model: model("m"), version, ..LoadVersionRequest::default() };
    let label = |label: &str| LabelRequest { model: model("m"), label: label.into(), version: 0, options: None };
    let pairs = [
        (rest("POST", "none/promote", json!({"version": 1})), admin.promote(promote("none", 1)).await.unwrap_err()),
        (rest("POST", "m/promote", json!({"version": 9})), admin.promote(promote("m", 9)).await.unwrap_err()),
        (
            rest("PUT", "m/canary", json!({"version": 2, "percent": 5})),
            admin.set_canary(split(2, 5.0)).await.unwrap_err(),
        ),
        (
            rest("PUT", "m/shadow", json!({"version": 2, "percent": 5})),
            admin.set_shadow(split(2, 5.0)).await.unwrap_err(),
        ),
        (rest("POST", "m/versions/2/unload", json!({})), admin.unload_version(version(2)).await.unwrap_err()),
        (rest("POST", "m/versions/9/load", json!({})), admin.load_version(load(9)).await.unwrap_err()),
        (rest("DELETE", "m/labels/x", json!({})), admin.clear_label(label("x")).await.unwrap_err()),
        (rest("DELETE", "m/labels/7", json!({})), admin.clear_label(label("7")).await.unwrap_err()),
        (
            rest("POST", "m/rollback", json!({})),
            admin.rollback(RollbackRequest { model: model("m"), options: None, to: 0 }).await.unwrap_err(),
        ),
        (rest("GET", "none", json!({})), admin.get_model(GetModelRequest { model: model("none") }).await.unwrap_err()),
    ];
    for ((status, words), refused) in pairs {
        let codes: Vec<_> = ErrorCode::ALL.iter().filter(|code| code.http().as_u16() == status).collect();
        assert!(codes.iter().any(|code| code.grpc() == refused.code()), "{status} {refused}");
        assert_eq!(words, refused.message());
    }
}

/// Server-sent events of one connection.
pub struct Events(BufReader<TcpStream>);

impl Events {
    pub fn open(gateway: &Gateway, query: &str) -> Self {
        use std::io::Write;
        let mut stream = TcpStream::connect(gateway.addresses.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /admin/v1/events{query} HTTP/1.0\r\nhost: tidegate\r\n\r\n").unwrap();
        let mut events = Self(BufReader::new(stream));
        while events.line() != ": events follow" {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next event: its name and data.
    pub fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(name) = self.line().strip_prefix("event: ") {
                let data = self.line();
                return (name.to_owned(), serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap());
            }
        }
    }
}

#[test]
fn events_tell_of_rollouts_and_of_what_they_do_to_the_release() {
    let (_repository, gateway) = serving();
    let (mut rollouts, mut releases) =
        (Events::open(&gateway, "?topic=rollout"), Events::open(&gateway, "?topic=release"));
    let change = |method: &str, path: &str, body: Value| {
        assert_eq!(gateway.admin(method, &format!("{ADMIN}{path}"), Some(&body)).0, 200, "{method} {path}");
    };
    change("POST", "/rollout", json!({"version": 1, "steps": [50, 100], "interval": "1h"}));
    change("POST", "/rollout/pause", json!({}));
    change("PUT", "/canary", json!({"version": 1, "percent": 2}));
    for (what, words) in [
        ("rollout_start", "started at 50 %"),
        ("rollout_pause", "paused"),
        ("rollout_supersede", "superseded at 50 % by 127.0.0.1's canary"),
    ] {
        let (name, event) = rollouts.next();
        assert_eq!((name.as_str(), &event["what"], &event["version"]), ("rollout", &json!(what), &json!(1)));
        assert!(event["message"].as_str().unwrap().contains(words), "{event}");
    }
    for what in ["rollout_start", "canary"] {
        assert_eq!(releases.next().1["what"], what);
    }
    let labels = [("model", "m"), ("operation", "rollout_supersede"), ("outcome", "ok")];
    assert_eq!(gateway.metric("tidegate_release_operations_total", &labels), Some(1.0));
}

#[test]
fn events_tell_of_releases_and_loads_to_every_reader() {
    let (repository, mut gateway) = serving();
    let (mut all, mut releases) = (Events::open(&gateway, ""), Events::open(&gateway, "?topic=release&model=m"));
    let promote = gateway.admin("POST", &format!("{ADMIN}/promote"), Some(&json!({"version": 1})));
    assert_eq!(promote.0, 200);
    for events in [&mut all, &mut releases] {
        let (name, event) = events.next();
        assert_eq!((name.as_str(), &event["what"], &event["version"]), ("release", &json!("promote"), &json!(1)));
    }
    repository.add("m", 3, &onnx::add(30));
    let (name, event) = all.next();
    assert_eq!((name.as_str(), &event["what"], &event["version"]), ("version", &json!("ready"), &json!(3)));
    gateway.admin("POST", &format!("{ADMIN}/rollback"), Some(&json!({})));
    assert_eq!(releases.next().1["what"], "rollback", "and not the load");
    assert_eq!(request("GET", gateway.addresses.admin, "/admin/v1/events?topic=weather", None).0, 400);
    // Readers do not hold up a stop.
    assert_eq!(gateway.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_comparisons_are_the_same_over_grpc() {
    let (_repository, gateway) = serving();
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let wanted = WatchEventsRequest { model: "m".into(), topic: "release".into() };
    let mut events = admin.watch_events(wanted).await.unwrap().into_inner();
    tokio::task::block_in_place(|| {
        let shadow = json!({"version": 1, "percent": 100});
        assert_eq!(gateway.admin("PUT", &format!("{ADMIN}/shadow"), Some(&shadow)).0, 200);
    });
    let event = tokio::time::timeout(Duration::from_secs(30), events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.topic.as_str(), event.what.as_str()), ("release", "shadow"));

    let rest = tokio::task::block_in_place(|| {
        for x in 0..10 {
            gateway.run_add("/v2/models/m/infer", f64::from(x));
        }
        gateway.wait("ten comparisons", || {
            let comparison = gateway.admin("GET", ADMIN, None).1["comparison"].clone();
            (comparison["copies"] == 10).then_some(comparison)
        })
    });
    let model = admin.get_model(GetModelRequest { model: "m".into() }).await.unwrap().into_inner();
    let grpc = model.comparison.unwrap();
    assert_eq!((rest["version"].as_u64(), rest["against"].as_u64()), (Some(grpc.version), Some(grpc.against)));
    assert_eq!(grpc.outputs[0].mean_difference, rest["outputs"][0]["mean_difference"].as_f64());
    let shares: Vec<Option<f64>> = model.versions.iter().map(|version| version.traffic_percent).collect();
    assert_eq!(shares, [None, Some(100.0)]);
}

#[test]
fn shadow_is_compared_with_what_answered() {
    let (_repository, gateway) = serving();
    let shadow = json!({"version": 1, "percent": 100});
    assert_eq!(gateway.admin("PUT", &format!("{ADMIN}/shadow"), Some(&shadow)).0, 200);
    for x in 0..600 {
        assert_eq!(gateway.run_add("/v2/models/m/infer", f64::from(x)).1["model_version"], "2");
    }
    let comparison = gateway.wait("600 comparisons", || {
        let comparison = gateway.admin("GET", ADMIN, None).1["comparison"].clone();
        (comparison["copies"] == 600).then_some(comparison)
    });
    assert_eq!((&comparison["version"], &comparison["against"]), (&json!(1), &json!(2)));
    let output = &comparison["outputs"][0];
    assert_eq!((&output["output"], &output["elements"]), (&json!("y"), &json!(600)));
    // Version 2 adds 20, version 1 adds 10.
    assert_eq!((&output["mean_difference"], &output["max_difference"]), (&json!(10.0), &json!(10.0)));
    let rows = |bins: &Value| bins.as_array().unwrap().iter().map(|rows| rows.as_u64().unwrap()).sum::<u64>();
    assert_eq!((rows(&output["against_bins"]), rows(&output["version_bins"])), (600, 600));
    assert!(output["psi"].as_f64().unwrap() > 0.0);
    let labels = [("model", "m"), ("version", "1"), ("output", "y")];
    assert_eq!(gateway.metric("tidegate_shadow_difference_mean", &labels), Some(10.0));
    let labels = [("model", "m"), ("version", "1"), ("reason", "queue_full")];
    assert_eq!(gateway.metric("tidegate_shadow_dropped_total", &labels), Some(0.0));
}
