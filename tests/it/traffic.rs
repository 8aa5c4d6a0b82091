//! An operator sees by version what was answered, refused and failed, and a bad client does not fill the log.

use serde_json::{Value, json};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

fn x(value: f64) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [value]}]})
}

#[test]
fn requests_are_shown_by_version_and_outcome() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    repository.add("m", 2, &onnx::fails_from(5));
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 2, "ready");
    let refused = gateway.post("/v2/models/m/versions/2/infer", &x(7.0)).0;
    assert_eq!(refused, 400, "a value that the model has no place for");
    for _ in 0..4 {
        assert_eq!(gateway.post("/v2/models/m/versions/2/infer", &x(7.0)).0, 400);
        assert_eq!(gateway.post("/v2/models/m/versions/2/infer", &x(1.0)).0, 200);
        assert_eq!(gateway.post("/v2/models/m/versions/1/infer", &x(7.0)).0, 200);
    }
    for _ in 0..3 {
        assert_eq!(gateway.post_bytes("/v2/models/m/infer", b"{").0, 400);
    }

    let of = |version: u64| gateway.version_status("m", version)["traffic"].clone();
    let (first, second) = (of(1), of(2));
    let counts = |traffic: &Value| ["requests", "errors", "refusals"].map(|key| traffic[key].as_u64().unwrap());
    assert_eq!((counts(&first), counts(&second)), ([4, 0, 0], [9, 0, 5]));
    let status = gateway.admin("GET", "/admin/v1/models/m", None).1;
    assert_eq!(status["unrouted"], json!({"errors": 0, "refusals": 3}));
    // The first look happens within a second or so of a start: later requests are recent ones.
    let recent = gateway.wait("a look at the traffic", || {
        gateway.post("/v2/models/m/versions/2/infer", &x(1.0));
        let recent = of(2)["recent"].clone();
        (recent["requests"].as_u64()? > 0).then_some(recent)
    });
    assert!(recent["requests_per_second"].as_f64().unwrap() > 0.0 && recent["p99_seconds"].as_f64().unwrap() > 0.0);

    // Loaded anew, the version goes on counting.
    gateway.admin("POST", "/admin/v1/models/m/versions/1/load", None);
    gateway.wait_for_state("m", 1, "ready");
    assert_eq!(counts(&of(1)), [4, 0, 0]);
}

#[test]
fn thousand_bad_requests_leave_a_few_lines_that_say_who_and_what() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::fails_from(5));
    let gateway = Gateway::start(&repository);
    for number in 0..1000 {
        let request = json!({"id": format!("bad-{number}"), "inputs": x(7.0)["inputs"]});
        assert_eq!(gateway.post("/v2/models/m/infer", &request).0, 400);
    }
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("the model refused a request")).collect();
    // Five in each window of ten seconds, and the requests may take several.
    assert!((5..=100).contains(&lines.len()), "{} lines", lines.len());
    for words in ["bad-0", "\"m\"", "version", "bad_request", "left_out"] {
        assert!(lines[0].contains(words) || lines[0].contains(&words.replace('"', "")), "{words}: {}", lines[0]);
    }
    let of_runtime = log.lines().filter(|line| line.contains("onnxruntime") && line.contains("Gather")).count();
    assert!(of_runtime <= 200, "{of_runtime} lines of ONNX Runtime");
    assert!(log.len() < 200_000, "{} bytes", log.len());
}
