//! Rows told apart by segment: by a request's parameter, or by a feature.

use serde_json::{Value, json};
use tidegate::proto::inference::{InferParameter, ModelInferRequest, infer_parameter::ParameterChoice};

use super::{DRIFT, INFER, client, drift, live, low, message, repository, rows, send, send_to, start, usual};
use crate::harness::Gateway;

const BY_COUNTRY: &str = "segments = [\"country\"]\nmin_rows = 100";

fn segments(report: &Value) -> Vec<String> {
    report["segments"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn send_of(gateway: &Gateway, country: &str, count: u16) {
    send_to(gateway, INFER, &usual(count), &json!({ "country": country }));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_told_apart_by_a_parameter_over_both_protocols() {
    let repository = repository(1);
    let gateway = tokio::task::block_in_place(|| start(&repository, BY_COUNTRY));
    client(&gateway).await.model_infer(message(&usual(300), &[("country", "DE")])).await.unwrap();
    tokio::task::block_in_place(|| {
        send_of(&gateway, "DE", 300);
        send_to(&gateway, INFER, &low(600), &json!({"country": "FR", "other": 5}));
        send(&gateway, &usual(50));
        let all = drift(&gateway, "?window=5m");
        assert_eq!((rows(&all), segments(&all)), (1250, vec!["country=DE".into(), "country=FR".into()]));
        assert_eq!(all["segment"], "");
        let german = drift(&gateway, "?segment=country=DE");
        assert_eq!((rows(&german), &german["state"], &german["segment"]), (600, &json!("ok"), &json!("country=DE")));
        let french = drift(&gateway, "?segment=country%3DFR&window=1h");
        assert_eq!((rows(&french), &french["state"]), (600, &json!("drift")), "{french}");
        assert_eq!(live(&french, "x").values().sum::<u64>(), 600);
        assert_eq!(drift(&gateway, "?segment=country=FR")["window"], "5m");

        for (query, status, words) in [
            ("?segment=country=ES", 404, "country=ES"),
            ("?segment=city=Rome", 404, "city=Rome"),
            ("?segment=country", 400, "KEY=VALUE"),
            ("?segment=country=DE&against=stable", 400, "segments are compared with the profile"),
        ] {
            let (found, answer) = gateway.admin("GET", &format!("{DRIFT}{query}"), None);
            let said = answer["error"].as_str().unwrap();
            assert_eq!((found, said.contains(words)), (status, true), "{query}: {said}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn value_of_a_parameter_makes_the_same_segment_over_both_protocols() {
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};

    let repository = repository(1);
    let gateway = tokio::task::block_in_place(|| start(&repository, BY_COUNTRY));
    let mut client = client(&gateway).await;
    for (choice, value, segment) in [
        (DoubleParam(1.5), json!(1.5), "1.5"),
        (DoubleParam(2.0), json!(2.0), "2"),
        (Int64Param(-3), json!(-3), "-3"),
        (Uint64Param(u64::MAX), json!(u64::MAX), "18446744073709551615"),
        (BoolParam(true), json!(true), "true"),
        (BoolParam(false), json!(false), "false"),
        (StringParam("DE".into()), json!("DE"), "DE"),
    ] {
        let parameter = InferParameter { parameter_choice: Some(choice) };
        let parameters = [("country".to_owned(), parameter)].into();
        client.model_infer(ModelInferRequest { parameters, ..message(&usual(10), &[]) }).await.unwrap();
        tokio::task::block_in_place(|| {
            send_to(&gateway, INFER, &usual(5), &json!({ "country": value }));
            assert_eq!(rows(&drift(&gateway, &format!("?segment=country={segment}"))), 15, "{segment}");
        });
    }
    let nan = InferParameter { parameter_choice: Some(DoubleParam(f64::NAN)) };
    let parameters = [("country".to_owned(), nan)].into();
    client.model_infer(ModelInferRequest { parameters, ..message(&usual(10), &[]) }).await.unwrap();
    tokio::task::block_in_place(|| assert_eq!(segments(&drift(&gateway, "")).len(), 7));
}

#[test]
fn parameters_that_are_long_or_many_make_no_segment_and_numbers_and_flags_do() {
    let repository = repository(1);
    let gateway = start(&repository, BY_COUNTRY);
    let many: serde_json::Map<_, _> =
        (0..40).map(|at| (format!("a{at}"), json!("b"))).chain([("country".into(), json!("late"))]).collect();
    let refused =
        [json!({"country": "x".repeat(129)}), json!({"country": null}), json!({"country": ["DE"]}), many.into()];
    for parameters in refused {
        send_to(&gateway, INFER, &usual(10), &parameters);
    }
    for value in [json!(5), json!(true), json!("a=b & c/é"), json!("")] {
        send_to(&gateway, INFER, &usual(10), &json!({ "country": value }));
    }
    let report = drift(&gateway, "");
    assert_eq!(rows(&report), 80);
    assert_eq!(segments(&report), ["country=", "country=5", "country=a=b & c/é", "country=true"]);
    for segment in ["country=", "country=a%3Db+%26+c%2F%C3%A9"] {
        assert_eq!(rows(&drift(&gateway, &format!("?segment={segment}"))), 10, "{segment}");
    }
}

#[test]
fn rows_are_told_apart_by_a_feature_row_by_row() {
    let repository = repository(1);
    repository.write("m/model.toml", "[monitor]\nsegments = [\"s\"]\n");
    let gateway = start(&repository, BY_COUNTRY);
    send(&gateway, &[usual(600), vec![(1.0, "nowhere")]].concat());
    let report = drift(&gateway, "");
    assert_eq!(segments(&report), ["s=de", "s=fr", "s=it", "s=unseen"]);
    for (word, expected) in [("de", 300), ("fr", 200), ("it", 100), ("unseen", 1)] {
        let report = drift(&gateway, &format!("?segment=s={word}"));
        assert_eq!((rows(&report), live(&report, "s")[word]), (expected, expected));
        assert_eq!(live(&report, "x").values().sum::<u64>(), expected);
        let own = report["features"].as_array().unwrap().iter().find(|feature| feature["feature"] == "s").unwrap();
        let expected = if expected < 100 { "too_few_rows" } else { "ok" };
        assert_eq!(own["state"], expected, "what makes the segment is no drift: {own}");
    }
}

#[test]
fn many_values_of_one_key_take_no_place_of_anothers() {
    let repository = repository(1);
    let gateway = start(&repository, "segments = [\"user\", \"country\"]\nmax_segments = 2");
    for user in ["a", "b", "c", "d"] {
        send_to(&gateway, INFER, &usual(10), &json!({ "user": user }));
        drift(&gateway, "");
    }
    for country in ["DE", "FR", "ES"] {
        send_to(&gateway, INFER, &usual(10), &json!({"user": "a", "country": country}));
        drift(&gateway, "");
    }
    let report = drift(&gateway, "?window=1h");
    let expected = ["user=a", "user=b", "user=other", "country=DE", "country=FR", "country=other"];
    assert_eq!(segments(&report), expected);
    for (segment, count) in [("user=a", 40), ("user=other", 20), ("country=DE", 10), ("country=other", 10)] {
        assert_eq!(rows(&drift(&gateway, &format!("?segment={segment}&window=1h"))), count, "{segment}");
    }
}

#[test]
fn segments_beyond_the_bound_are_counted_as_other_and_all_of_them_survive_a_restart() {
    let repository = repository(1);
    let settings = format!("{BY_COUNTRY}\nmax_segments = 2");
    let mut gateway = start(&repository, &settings);
    for (country, count) in [("DE", 10), ("FR", 20), ("ES", 30), ("IT", 40), ("DE", 5)] {
        send_of(&gateway, country, count);
        // Rows of two threads are counted in no order, unless those of the one are by now.
        drift(&gateway, "");
    }
    let named = ["country=DE", "country=FR", "country=other"];
    let expected = [15, 20, 70];
    let check = |gateway: &Gateway, expected: [u64; 3]| {
        assert_eq!(segments(&drift(gateway, "?window=1h")), named);
        for (segment, expected) in named.into_iter().zip(expected) {
            assert_eq!(rows(&drift(gateway, &format!("?segment={segment}&window=1h"))), expected, "{segment}");
        }
    };
    check(&gateway, expected);
    gateway.terminate();
    let mut gateway = start(&repository, &settings);
    check(&gateway, expected);
    send_of(&gateway, "IT", 1);
    check(&gateway, [15, 20, 71]);
    gateway.terminate();

    // With a lower bound, what was told apart and is no more must not take the place of the others.
    let gateway = start(&repository, &settings.replace("max_segments = 2", "max_segments = 1"));
    let report = drift(&gateway, "?window=1h");
    assert_eq!(segments(&report), ["country=DE", "country=other"]);
    assert_eq!(rows(&drift(&gateway, "?segment=country=other&window=1h")), 71);
    assert_eq!(rows(&report), 106);
}
