//! One session from many threads: every answer belongs to its request, whichever way it ran.

use std::thread;

use serde_json::json;

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const CLIENTS: u32 = 16;
const REQUESTS: u32 = 150;

fn every_answer_is_its_own(model_toml: &str) -> Gateway {
    let repository = Repository::new();
    repository.write("m/model.toml", model_toml);
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let gateway = &gateway;
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let x = f64::from(client * 1000 + request);
                    let (status, answer) = gateway.run_add("/v2/models/m/infer", x);
                    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([x + 10.0])), "{answer}");
                }
            });
        }
    });
    let answered = f64::from(CLIENTS * REQUESTS);
    assert_eq!(gateway.metric("tidegate_batch_size_sum", &[("model", "m")]), Some(answered));
    gateway
}

#[test]
fn concurrent_requests_run_in_place_and_gathered() {
    let gateway = every_answer_is_its_own("[scheduler]\ninstances = 4\ninline_limit = \"1m\"\n");
    let runs = &gateway.admin("GET", "/admin/v1/models/m", None).1["versions"][0]["runs"];
    assert_eq!((&runs["placement"], &runs["instances"]), (&json!("request"), &json!(4)), "{runs}");
}

#[test]
fn concurrent_requests_run_on_the_pool_on_one_session() {
    let gateway =
        every_answer_is_its_own("[scheduler]\ninstances = 4\ninline_limit = \"0s\"\n[batching]\nenabled = false\n");
    let runs = &gateway.admin("GET", "/admin/v1/models/m", None).1["versions"][0]["runs"];
    assert_eq!((&runs["placement"], &runs["alone"]), (&json!("pool"), &json!("batching is off")), "{runs}");
}
