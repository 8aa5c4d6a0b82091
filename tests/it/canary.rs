//! The canary's share on two gateways that know nothing of each other, over both protocols.

use serde_json::json;
use tidegate::proto::inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
};

use crate::{
    harness::{Gateway, Repository},
    onnx,
};

const KEYS: usize = 1000;

fn serving() -> (Repository, Gateway) {
    let repository = Repository::new();
    for version in 1..=2_u64 {
        repository.add("m", version, &onnx::add(i64::try_from(version * 10).unwrap()));
    }
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn set_canary(gateway: &Gateway, percent: f64) {
    let body = json!({"version": 1, "percent": percent});
    assert_eq!(gateway.admin("PUT", "/admin/v1/models/m/canary", Some(&body)).0, 200);
}

/// Which keys the canary gets, asked over HTTP with the header.
fn over_http(gateway: &Gateway) -> Vec<bool> {
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let ask = |key: usize| {
        let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[0]}]}"#;
        let request = agent.post(format!("http://{}/v2/models/m/infer", gateway.addresses.http));
        let mut answer = request.header("tidegate-routing-key", format!("user-{key}")).send(body).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        answer["model_version"] == "1"
    };
    (0..KEYS).map(ask).collect()
}

/// The same over gRPC; `pinned` names a version beside the key.
async fn over_grpc(gateway: &Gateway, pinned: &str, keys: usize) -> Vec<String> {
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap();
    let mut versions = Vec::new();
    for key in 0..keys {
        let input = InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        };
        let message = ModelInferRequest {
            model_name: "m".into(),
            model_version: pinned.into(),
            inputs: vec![input],
            raw_input_contents: vec![vec![0; 4].into()],
            ..ModelInferRequest::default()
        };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("tidegate-routing-key", format!("user-{key}").parse().unwrap());
        versions.push(client.model_infer(request).await.unwrap().into_inner().model_version);
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_on_every_key_and_raising_the_percent_takes_none_back() {
    let (replicas, percents) = ([serving(), serving()], [5.0, 20.0, 20.5, 80.0, 100.0]);
    let mut before = vec![false; KEYS];
    for percent in percents {
        for (_, gateway) in &replicas {
            tokio::task::block_in_place(|| set_canary(gateway, percent));
        }
        let first = tokio::task::block_in_place(|| over_http(&replicas[0].1));
        let second = over_grpc(&replicas[1].1, "", KEYS).await;
        let second: Vec<bool> = second.iter().map(|version| version == "1").collect();
        assert_eq!(first, second, "at {percent} %");
        for (key, (before, now)) in before.iter().zip(&first).enumerate() {
            assert!(!before || *now, "user-{key} left the canary at {percent} %");
        }
        let share = first.iter().filter(|is_canary| **is_canary).count() as f64 / KEYS as f64;
        let expected: f64 = percent / 100.0;
        // Five standard deviations of a binomial share of the keys, which are always the same.
        let margin = 5.0 * (expected * (1.0 - expected) / KEYS as f64).sqrt();
        assert!((share - expected).abs() <= margin, "{share} of the keys at {percent} %");
        before = first;
    }
    // A version that is named wins over the canary, and so does a label.
    assert!(over_grpc(&replicas[0].1, "2", 50).await.iter().all(|version| version == "2"));
    tokio::task::block_in_place(|| {
        let gateway = &replicas[0].1;
        assert_eq!(gateway.admin("PUT", "/admin/v1/models/m/labels/old", Some(&json!({"version": 2}))).0, 200);
        for x in 0..20 {
            assert_eq!(gateway.run_add("/v2/models/m/labels/old/infer", f64::from(x)).1["model_version"], "2");
        }
    });
}
