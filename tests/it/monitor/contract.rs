//! The contract: requests with values that the reference has never seen are refused or flagged, over every protocol.

use serde_json::{Value, json};
use tidegate::proto::inference::{ModelInferRequest, infer_parameter::ParameterChoice};
use tokio_stream::StreamExt;

use super::{INFER, Row, body, client, drift, live, message, model, profile, repository, send, start, usual};
use crate::harness::{Gateway, Repository};

/// Requests that break the contract in their third row, and words of what is said about each.
fn violations() -> [(Vec<Row>, &'static str); 5] {
    let with = |row: Row| [usual(2), vec![row], usual(2)].concat();
    [
        (with((1000.5, "de")), "feature 'x' is above the range of the reference data (row 2, counted from 0)"),
        (with((-0.5, "de")), "feature 'x' is below the range of the reference data (row 2, counted from 0)"),
        (with((f32::INFINITY, "de")), "feature 'x' is infinite (row 2, counted from 0)"),
        (with((f32::NAN, "de")), "feature 'x' has no value, which it always had in the reference data (row 2"),
        (with((5.0, "nowhere")), "feature 's' is of a category that is not in the reference data (row 2"),
    ]
}

/// JSON has no infinity and no NaN.
fn fits_json(rows: &[Row]) -> bool {
    rows.iter().all(|(x, _)| x.is_finite())
}

/// The request with `x` as binary data behind the JSON.
fn post_binary(gateway: &Gateway, rows: &[Row]) -> (u16, Value) {
    let s: Vec<_> = rows.iter().map(|row| row.1).collect();
    let shape = [rows.len(), 1];
    let parameters = json!({"binary_data_size": 4 * rows.len()});
    let head = json!({"inputs": [
        {"name": "x", "datatype": "FP32", "shape": shape, "parameters": parameters},
        {"name": "s", "datatype": "BYTES", "shape": shape, "data": s},
    ]});
    let head = head.to_string();
    let data: Vec<u8> = rows.iter().flat_map(|(x, _)| x.to_le_bytes()).collect();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.post(format!("http://{}{INFER}", gateway.addresses.http));
    let request = request.header("inference-header-content-length", head.len().to_string());
    let mut answer = request.send([head.as_bytes(), &data].concat()).unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap())
}

fn counted(gateway: &Gateway) -> Option<f64> {
    gateway.metric("tidegate_contract_violations_total", &[("model", "m"), ("version", "1")])
}

/// What a stream answers to each of these requests: the violation in its parameters, or the error.
async fn stream(gateway: &Gateway, requests: Vec<ModelInferRequest>) -> Vec<Result<Option<String>, String>> {
    let requests = tokio_stream::iter(requests);
    let answers = client(gateway).await.model_stream_infer(requests).await.unwrap().into_inner();
    let said = |answer: Result<tidegate::proto::inference::ModelStreamInferResponse, tonic::Status>| {
        let answer = answer.unwrap();
        if answer.error_message.is_empty() {
            let parameters = answer.infer_response.unwrap_or_default().parameters;
            return Ok(parameters.get("contract_violation").map(|found| match &found.parameter_choice {
                Some(ParameterChoice::StringParam(text)) => text.clone(),
                other => panic!("{other:?}"),
            }));
        }
        Err(answer.error_message)
    };
    answers.map(said).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_requests_are_told_feature_and_row_over_every_protocol() {
    let repository = repository(1);
    let gateway = tokio::task::block_in_place(|| start(&repository, "contract = \"reject\""));
    let mut client = client(&gateway).await;
    let mut count = 0.0;
    for (rows, words) in violations() {
        tokio::task::block_in_place(|| {
            if fits_json(&rows) {
                let (status, answer) = gateway.post(INFER, &body(&rows, &json!({})));
                assert_eq!((status, answer["error"].as_str().unwrap().contains(words)), (400, true), "{answer}");
                count += 1.0;
            }
            let (status, answer) = post_binary(&gateway, &rows);
            assert_eq!((status, answer["error"].as_str().unwrap().contains(words)), (400, true), "{answer}");
        });
        let refused = client.model_infer(message(&rows, &[])).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message().contains(words)),
            (tonic::Code::InvalidArgument, true),
            "{refused}"
        );
        count += 2.0;
    }
    let (rows, words) = &violations()[0];
    let streamed = stream(&gateway, vec![message(rows, &[]), message(&usual(3), &[])]).await;
    assert!(streamed[0].as_ref().is_err_and(|error| error.contains(words)), "{streamed:?}");
    assert_eq!(streamed[1], Ok(None), "the stream goes on");
    tokio::task::block_in_place(|| {
        send(&gateway, &usual(100));
        assert_eq!(counted(&gateway), Some(count + 1.0));
        let labels = [("model", "m"), ("version", "1"), ("code", "bad_request")];
        let refused = gateway.metric_sum("tidegate_requests_total", &labels);
        assert_eq!(refused, count + 1.0, "{}", gateway.metrics());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn flagged_requests_are_answered_with_the_violation_as_a_parameter() {
    let repository = repository(1);
    let gateway = tokio::task::block_in_place(|| start(&repository, "contract = \"flag\""));
    let mut client = client(&gateway).await;
    let mut count = 0.0;
    for (rows, words) in violations() {
        tokio::task::block_in_place(|| {
            if fits_json(&rows) {
                let (status, answer) = gateway.post(INFER, &body(&rows, &json!({})));
                let said = answer["parameters"]["contract_violation"].as_str().unwrap_or_default();
                assert_eq!((status, said.contains(words)), (200, true), "{answer}");
                assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), 5);
                let (status, answer) = post_binary(&gateway, &rows);
                let said = answer["parameters"]["contract_violation"].as_str().unwrap_or_default();
                assert_eq!((status, said.contains(words)), (200, true), "{answer}");
                count += 2.0;
            }
        });
        let answer = client.model_infer(message(&rows, &[])).await.unwrap().into_inner();
        let said = answer.parameters["contract_violation"].parameter_choice.clone();
        assert!(matches!(&said, Some(ParameterChoice::StringParam(text)) if text.contains(words)), "{said:?}");
        assert_eq!(answer.raw_output_contents[0].len(), 20);
        count += 1.0;
    }
    let (rows, words) = &violations()[0];
    let streamed = stream(&gateway, vec![message(rows, &[]), message(&usual(3), &[])]).await;
    assert!(matches!(&streamed[0], Ok(Some(text)) if text.contains(words)), "{streamed:?}");
    assert_eq!(streamed[1], Ok(None));
    tokio::task::block_in_place(|| {
        let (_, answer) = gateway.post(INFER, &body(&usual(3), &json!({})));
        assert!(answer.get("parameters").is_none(), "{answer}");
        assert_eq!(counted(&gateway), Some(count + 1.0));
    });
}

/// Rows of a reference with 150 words, of which 100 are categories.
fn rows_of_many_words() -> Vec<Row> {
    let words: Vec<&'static str> = (0..150).map(|at| &*format!("w{at:03}").leak()).collect();
    let count = |at: usize| if at < 100 { 20 } else { 2 };
    let all = words.iter().enumerate().flat_map(|(at, word)| std::iter::repeat_n(*word, count(at)));
    all.zip(usual(3000)).map(|(word, (x, _))| (x, word)).collect()
}

/// The profile as a program wrote it that knew of no rare values.
fn without_rare_values(profile: &str) -> String {
    let mut parts = profile.split(",\"rare\":\"");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('"').unwrap().1);
    std::iter::once(first).chain(rest).collect::<String>().replacen("\"format\": 3", "\"format\": 2", 1)
}

#[test]
fn rare_value_of_the_reference_is_no_violation_and_one_that_it_never_had_is() {
    let profile = String::from_utf8(profile(&rows_of_many_words())).unwrap();
    let old = without_rare_values(&profile);
    assert!(profile.contains("\"rare\"") && !old.contains("\"rare\""));
    for (profile, status, counted_as, unseen) in [(profile, 400, "other", 0.0), (old, 200, "unseen", 2.0)] {
        let repository = Repository::new();
        repository.add_files("m", 1, &[("model.onnx", &model()), ("profile.json", profile.as_bytes())]);
        let gateway = start(&repository, "contract = \"reject\"");
        let (found, answer) = gateway.post(INFER, &body(&[(5.0, "w149")], &json!({})));
        assert_eq!(found, 200, "the reference had it: {answer}");
        let (found, answer) = gateway.post(INFER, &body(&[(5.0, "nowhere")], &json!({})));
        assert_eq!(found, status, "{answer}");
        assert!(live(&drift(&gateway, "?window=1h"), "s").contains_key(counted_as));
        let labels = [("model", "m"), ("version", "1"), ("feature", "s")];
        assert_eq!(gateway.metric("tidegate_feature_unseen_category_total", &labels), Some(unseen));
        assert_eq!(counted(&gateway), Some(if status == 400 { 1.0 } else { 0.0 }));
        assert_eq!(gateway.log().contains("does not know its rare values"), status == 200, "{}", gateway.log());
    }
}

#[test]
fn contract_is_off_unless_asked_for_and_a_model_may_have_its_own() {
    let beyond = [(5000.0, "nowhere")];
    for (gateways, models, status) in
        [("", "", 200), ("contract = \"reject\"", "", 400), ("", "reject", 400), ("contract = \"reject\"", "off", 200)]
    {
        let repository = repository(1);
        if !models.is_empty() {
            repository.write("m/model.toml", &format!("[monitor]\ncontract = \"{models}\"\n"));
        }
        let gateway = start(&repository, gateways);
        let (found, answer) = gateway.post(INFER, &body(&beyond, &json!({})));
        assert_eq!(found, status, "'{gateways}', '{models}': {answer}");
        assert!(answer.get("parameters").is_none(), "{answer}");
        let expected = if status == 400 { 1.0 } else { 0.0 };
        assert_eq!(counted(&gateway), Some(expected), "'{gateways}', '{models}'");
    }
}
