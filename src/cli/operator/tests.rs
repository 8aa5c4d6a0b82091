//! Operator commands against a small HTTP server that answers from a script.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread::JoinHandle,
};

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

const PIPE: Look = Look { colours: false, width: None };
const RELEASE: &str = r#"{"generation":2,"stable":2,"previous":1,"canary":null,"shadow":null,"labels":{}}"#;
const MODEL: &str = r#"{"model":"fraud","release":{"generation":1,"stable":1,"previous":null,"canary":null,
    "shadow":null,"labels":{}},"versions":[]}"#;

const REPORT: &str = r#"{"model":"fraud","version":2,"window":"5m","rows":0,"state":"ok","alpha":1e-7,
    "against":"profile","segment":"","segments":[],"multivariate":null,"features":[]}"#;

/// Answers one request after another and hands back what was asked: head lines in lower case, then the body.
fn gateway(answers: Vec<(u16, &'static str)>) -> (String, JoinHandle<Vec<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        answers.into_iter().map(|(status, body)| exchange(&listener, status, body)).collect()
    });
    (url, server)
}

fn exchange(listener: &TcpListener, status: u16, answer: &str) -> Vec<String> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines: Vec<String> = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let length = lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    lines.push(String::from_utf8(body).unwrap());
    let length = answer.len();
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}").unwrap();
    lines
}

fn run_line(line: &str, url: &str) -> Result<Answer, ClientError> {
    let words = line.split_whitespace().chain(["--admin-url", url]);
    match Cli::try_parse_from(words).unwrap().command {
        Command::Operator(command) => execute(&command, PIPE),
        other => panic!("{other:?}"),
    }
}

#[test]
fn promote_prints_what_changed() {
    let (url, server) = gateway(vec![(200, MODEL), (200, RELEASE)]);
    let line = "tidegate promote fraud 2 --reason why --if-generation 1 --actor ada";
    let answer = run_line(line, &url).unwrap();
    assert!(answer.text.starts_with("fraud: changed stable 1 → 2, previous - → 1\n"), "{}", answer.text);
    let asked = server.join().unwrap();
    assert_eq!(asked[0][0], "GET /admin/v1/models/fraud HTTP/1.1");
    assert_eq!(asked[1][0], "POST /admin/v1/models/fraud/promote?reason=why HTTP/1.1");
    assert_eq!(asked[1].last().unwrap(), r#"{"version":2}"#);
    for header in ["if-match: \"1\"", "tidegate-actor: ada"] {
        assert!(asked[1].iter().any(|line| line == header), "{header}: {:?}", asked[1]);
    }
}

#[test]
fn json_output_is_the_gateways_own() {
    let (url, server) = gateway(vec![(200, RELEASE)]);
    let answer = run_line("tidegate rollback fraud --dry-run --output json", &url).unwrap();
    assert_eq!(answer.text, format!("{RELEASE}\n"));
    assert_eq!(server.join().unwrap()[0][0], "POST /admin/v1/models/fraud/rollback?dry_run=true HTTP/1.1");
}

#[test]
fn split_and_label_are_put_or_deleted() {
    for (line, request, body) in [
        ("canary fraud --version 2 --percent 10", "PUT /admin/v1/models/fraud/canary", r#"{"version":2,"percent":10}"#),
        ("canary fraud --clear", "DELETE /admin/v1/models/fraud/canary", ""),
        (
            "shadow fraud --version 2 --percent 0.5",
            "PUT /admin/v1/models/fraud/shadow",
            r#"{"version":2,"percent":0.5}"#,
        ),
        ("shadow fraud --clear", "DELETE /admin/v1/models/fraud/shadow", ""),
        ("label fraud champion --version 2", "PUT /admin/v1/models/fraud/labels/champion", r#"{"version":2}"#),
        ("label fraud champion --clear", "DELETE /admin/v1/models/fraud/labels/champion", ""),
    ] {
        let (url, server) = gateway(vec![(200, RELEASE)]);
        run_line(&format!("tidegate {line} --output json"), &url).unwrap();
        let asked = server.join().unwrap();
        assert_eq!(asked[0][0], format!("{request} HTTP/1.1"));
        assert_eq!(asked[0].last().unwrap(), body, "{line}");
    }
}

#[test]
fn rollout_is_started_with_what_is_said_and_changed_by_its_paths() {
    let status = r#"{"model":"fraud","version":4,"stable":3,"state":"running","note":"started at 1 %","step":1,"percent":1,
        "steps":[1,100],"interval":"10m","served_seconds":0,"min_requests":200,"requests":{"stable":0,"canary":0},
        "failures":{"stable":0,"canary":0},"evidence":{"alpha":0.01,"limit":100,"combined":0.625,"metrics":[]},
        "limits":{"max_error_rate":0.1,"max_p99_ratio":2,"latency_tolerance":"2ms","output_tolerance":0.1,"on_drift":"hold"},
        "started_at":"2026-01-02T03:04:05.678Z","ended_at":null,"release":{"generation":2,"stable":3,"previous":null,
        "canary":{"version":4,"percent":1},"shadow":null,"labels":{}}}"#;
    let full =
        "start fraud --version 4 --steps 1,12.5%,100 --interval 10m --alpha 0.05 --min-requests 9 --on-drift ignore";
    let body =
        r#"{"version":4,"steps":[1,12.5,100],"interval":"10m","alpha":0.05,"min_requests":9,"on_drift":"ignore"}"#;
    for (line, request, body) in [
        ("start fraud --version 4 --dry-run", "POST /admin/v1/models/fraud/rollout?dry_run=true", r#"{"version":4}"#),
        (full, "POST /admin/v1/models/fraud/rollout", body),
        ("status fraud", "GET /admin/v1/models/fraud/rollout", ""),
        ("pause fraud --reason lunch", "POST /admin/v1/models/fraud/rollout/pause?reason=lunch", ""),
        ("resume fraud", "POST /admin/v1/models/fraud/rollout/resume", ""),
        ("abort fraud", "DELETE /admin/v1/models/fraud/rollout", ""),
    ] {
        let (url, server) = gateway(vec![(200, status)]);
        let answer = run_line(&format!("tidegate rollout {line}"), &url).unwrap();
        assert!(
            answer.text.starts_with("fraud: version 4 beside 3, running, step 1 of 2 (1%, 100%)"),
            "{}",
            answer.text
        );
        let asked = server.join().unwrap();
        assert_eq!((&*asked[0][0], asked[0].last().unwrap().as_str()), (&*format!("{request} HTTP/1.1"), body));
    }
}

#[test]
fn drift_asks_for_the_version_and_window() {
    let (url, server) = gateway(vec![(200, REPORT)]);
    let answer = run_line("tidegate drift fraud --version 2 --window 1m30s", &url).unwrap();
    assert!(answer.text.starts_with("fraud version 2: ok, 0 of 0 features drifted"), "{}", answer.text);
    assert_eq!(server.join().unwrap()[0][0], "GET /admin/v1/models/fraud/drift?version=2&window=1m+30s HTTP/1.1");
}

#[test]
fn drift_asks_for_what_to_compare_with_and_for_the_segment() {
    for (line, query) in [
        ("--against stable", "against=stable"),
        ("--segment country=DE --against profile", "against=profile&segment=country%3DDE"),
    ] {
        let (url, server) = gateway(vec![(200, REPORT)]);
        run_line(&format!("tidegate drift fraud {line}"), &url).unwrap();
        assert_eq!(server.join().unwrap()[0][0], format!("GET /admin/v1/models/fraud/drift?{query} HTTP/1.1"));
    }
    for line in ["--against yesterday", "--segment country"] {
        let words = format!("tidegate drift fraud {line}");
        assert!(Cli::try_parse_from(words.split_whitespace()).is_err(), "{line}");
    }
}

#[test]
fn self_test_is_asked_for_the_version_and_window_and_for_nothing_else() {
    let test = r#"{"model":"fraud","version":2,"window":"5m","live_rows":0,"rows":200,"looks":1600,"draws":400,"alpha":1e-8,
        "miscounted":0,"false_warnings":0,"false_drifts":0,"chance_alpha":0.01,"chance_rate":0.008,"features":[]}"#;
    let (url, server) = gateway(vec![(200, test)]);
    let answer = run_line("tidegate drift fraud --self-test --version 2 --window 5m", &url).unwrap();
    assert!(answer.text.contains("200 in a window of 5m (0 now)"), "{}", answer.text);
    let asked = server.join().unwrap();
    assert_eq!(asked[0][0], "GET /admin/v1/models/fraud/drift/self-test?version=2&window=5m HTTP/1.1");
    for option in ["--against stable", "--segment a=b", "--report a.html"] {
        let words = format!("tidegate drift fraud --self-test {option}");
        assert!(Cli::try_parse_from(words.split_whitespace()).is_err(), "{option}");
    }
}

#[test]
fn drift_writes_its_page_and_prints_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("drift.html");
    for output in ["table", "json"] {
        let (url, server) = gateway(vec![(200, REPORT)]);
        let line = format!("tidegate drift fraud --output {output} --report {}", page.display());
        let answer = run_line(&line, &url).unwrap();
        assert!(answer.text.contains("fraud"), "{}", answer.text);
        server.join().unwrap();
        assert!(std::fs::read_to_string(&page).unwrap().contains("Drift of fraud version 2"));
        std::fs::remove_file(&page).unwrap();
    }
    let (url, server) = gateway(vec![(200, REPORT)]);
    let line = format!("tidegate drift fraud --report {}/none/drift.html", directory.path().display());
    let error = run_line(&line, &url).map(|answer| answer.text).unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    server.join().unwrap();
}

#[test]
fn load_that_failed_is_printed_and_is_a_failure() {
    let version = r#"{"version":3,"state":"failed","reason":"torn","digest":null,"memory_bytes":null,
        "loaded_at":null,"requests":0,"monitored":false}"#;
    let (url, server) = gateway(vec![(200, version)]);
    let answer = run_line("tidegate load fraud 3", &url).unwrap();
    assert_eq!(answer.failure.as_deref(), Some("fraud version 3 failed: torn"));
    assert!(answer.text.starts_with("fraud: version 3 is failed\n"), "{}", answer.text);
    assert_eq!(server.join().unwrap()[0][0], "POST /admin/v1/models/fraud/versions/3/load HTTP/1.1");
}

#[test]
fn refusal_is_told_in_the_gateways_words() {
    let (url, server) = gateway(vec![(404, r#"{"error":"there is no model 'fraud'"}"#)]);
    let error = run_line("tidegate status fraud", &url).map(|answer| answer.text).unwrap_err();
    assert_eq!(error.to_string(), "there is no model 'fraud'");
    server.join().unwrap();
}

#[test]
fn answer_of_another_server_is_told_apart() {
    let (url, server) = gateway(vec![(502, "<html>bad gateway</html>"), (200, "<html>hello</html>")]);
    let error = run_line("tidegate models", &url).map(|answer| answer.text).unwrap_err();
    assert!(error.to_string().contains("answered 502"), "{error}");
    let error = run_line("tidegate models", &url).map(|answer| answer.text).unwrap_err();
    assert!(matches!(error, ClientError::Unreadable(_)), "{error}");
    server.join().unwrap();
}

#[test]
fn gateway_that_does_not_run_is_named_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = run_line("tidegate models", &url).map(|answer| answer.text).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach the gateway at {url}: is `tidegate serve` running?"));
}

const ROLLOUT: &str = r#"{"model":"fraud","version":4,"stable":3,"state":"STATE","note":"NOTE","step":1,"percent":1,
    "steps":[1,100],"interval":"10m","served_seconds":0,"min_requests":200,"requests":{"stable":0,"canary":0},
    "failures":{"stable":0,"canary":0},"evidence":{"alpha":0.01,"limit":100,"combined":0.625,"metrics":[]},
    "limits":{"max_error_rate":0.1,"max_p99_ratio":2,"latency_tolerance":"2ms","output_tolerance":0.1,"on_drift":"hold"},
    "started_at":"2026-01-02T03:04:05.678Z","ended_at":null,"release":{"generation":2,"stable":3,"previous":null,
    "canary":{"version":4,"percent":1},"shadow":null,"labels":{}}}"#;

/// A rollout in a state, as the gateway tells it.
fn rollout(state: &str) -> &'static str {
    String::leak(ROLLOUT.replace("STATE", state).replace("NOTE", "as it is"))
}

#[test]
fn rollout_that_ended_without_a_promotion_is_a_failure_and_its_status_is_printed() {
    for (state, failure) in [
        ("running", None),
        ("paused", None),
        ("completed", None),
        ("rolled_back", Some("fraud: version 4 was not promoted: rolled back")),
        ("aborted", Some("fraud: version 4 was not promoted: aborted")),
        ("superseded", Some("fraud: version 4 was not promoted: superseded")),
    ] {
        for output in ["table", "json"] {
            let (url, server) = gateway(vec![(200, rollout(state))]);
            let answer = run_line(&format!("tidegate rollout status fraud -o {output}"), &url).unwrap();
            assert_eq!(answer.failure.as_deref(), failure, "{state}");
            assert!(answer.text.contains("fraud"), "{}", answer.text);
            server.join().unwrap();
        }
    }
}

#[test]
fn rollout_is_waited_for_until_it_is_over() {
    for (end, fails) in [("completed", false), ("rolled_back", true)] {
        let answers = ["running", "running", end].map(|state| (200, rollout(state)));
        let (url, server) = gateway(answers.to_vec());
        let answer = run_line("tidegate rollout start fraud --version 4 --wait", &url).unwrap();
        assert_eq!(answer.failure.is_some(), fails, "{end}");
        assert_eq!(server.join().unwrap().len(), 3);
        let (url, server) = gateway(vec![(200, rollout(end))]);
        assert_eq!(run_line("tidegate rollout status fraud --wait", &url).unwrap().failure.is_some(), fails, "{end}");
        server.join().unwrap();
    }
    // Another one began meanwhile: that it went well says nothing of ours.
    let other = String::leak(ROLLOUT.replace("STATE", "completed").replace("03:04:05", "03:05:00"));
    let (url, server) = gateway(vec![(200, rollout("running")), (200, other)]);
    let answer = run_line("tidegate rollout start fraud --version 4 --wait", &url).unwrap();
    assert!(answer.failure.unwrap().contains("another one was started"));
    server.join().unwrap();
}

#[test]
fn watched_rollout_ends_when_it_is_over() {
    let (url, server) = gateway(vec![(200, rollout("running")), (200, rollout("rolled_back"))]);
    let answer = run_line("tidegate rollout status fraud --watch --interval 100ms", &url).unwrap();
    assert!(answer.failure.unwrap().ends_with("rolled back"));
    server.join().unwrap();
}

#[test]
fn drift_is_an_exit_code_where_it_is_wanted() {
    for (state, code) in [("ok", 0), ("drift", 3), ("warning", 4), ("too_few_rows", 5), ("learning", 5)] {
        for (options, code) in [("--exit-code", code), ("--exit-code -o json", code), ("", 0)] {
            let report = String::leak(REPORT.replace("\"ok\"", &format!("\"{state}\"")));
            let (url, server) = gateway(vec![(200, report)]);
            let answer = run_line(&format!("tidegate drift fraud {options}"), &url).unwrap();
            assert_eq!((answer.code, answer.failure), (code, None), "{state} {options}");
            server.join().unwrap();
        }
    }
}

const TWO: &str = r#"{"models":[
    {"model":"fraud","release":{"generation":1,"stable":1,"previous":null,"canary":null,"shadow":null,"labels":{}},"versions":[]},
    {"model":"churn","release":{"generation":1,"stable":7,"previous":null,"canary":null,"shadow":null,"labels":{}},"versions":[]}]}"#;

#[test]
fn status_drift_and_history_are_of_all_models_where_none_is_named() {
    let (url, server) = gateway(vec![(200, TWO)]);
    let shown = run_line("tidegate status", &url).unwrap().text;
    assert!(shown.starts_with("fraud: stable 1") && shown.contains("\nchurn: stable 7"), "{shown}");
    server.join().unwrap();

    let drifted = REPORT.replace("\"ok\"", "\"drift\"");
    let unwatched = r#"{"error":"version 7 of model 'churn' has no profile"}"#;
    for (report, code) in [(REPORT, 5), (&*String::leak(drifted), 3)] {
        let (url, server) = gateway(vec![(200, TWO), (200, report), (409, unwatched)]);
        let answer = run_line("tidegate drift --exit-code", &url).unwrap();
        assert_eq!(answer.code, code);
        assert!(answer.text.contains("fraud        2     0  5m      0 of 0   -"), "{}", answer.text);
        assert!(answer.text.ends_with("not watched: version 7 of model 'churn' has no profile\n"), "{}", answer.text);
        assert_eq!(server.join().unwrap()[2][0], "GET /admin/v1/models/churn/drift HTTP/1.1");
    }

    let entry = |model: &str, sequence: u64| {
        let release = r#"{"generation":1,"stable":1,"previous":null,"canary":null,"shadow":null,"labels":{}}"#;
        let entry = format!(
            r#"{{"model":"{model}","entries":[{{"sequence":{sequence},"at":"2026-01-02T03:04:05Z","actor":"ada","operation":"label",
            "asked":"","outcome":"ok","from":{release},"to":{release},"detail":null,"reason":null,"attempts":1,"hash":"00"}}]}}"#
        );
        &*String::leak(entry)
    };
    let (url, server) = gateway(vec![(200, TWO), (200, entry("fraud", 4)), (200, entry("churn", 9))]);
    let shown = run_line("tidegate history", &url).unwrap().text;
    let lines: Vec<_> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!((lines[0][2], lines[1][0], lines[1][2], lines[2][2]), ("MODEL", "9", "churn", "fraud"), "{shown}");
    server.join().unwrap();
    let (url, server) = gateway(vec![(200, TWO), (200, entry("fraud", 4)), (200, entry("churn", 9))]);
    let json = run_line("tidegate history -o json", &url).unwrap().text;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["histories"][1]["entries"][0]["sequence"], 9);
    server.join().unwrap();
}

#[test]
fn gateway_that_does_not_answer_is_given_up_and_the_change_can_be_asked_for_again() {
    // It takes connections and says nothing, as a process that was stopped.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let told = |line: &str| run_line(line, &url).map(|answer| answer.text).unwrap_err().to_string();
    let error = told("tidegate promote fraud 2 --timeout 100ms -o json");
    let start = format!("no answer from {url} within 100ms");
    assert!(error.starts_with(&start) && error.contains("`tidegate history fraud`"), "{error}");
    let key = error.split("--idempotency-key ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(uuid::Uuid::parse_str(key).is_ok(), "{error}");
    assert!(told("tidegate promote fraud 2 --timeout 100ms -o json --idempotency-key k1").contains("key k1 makes"));
    // A rollback asks first what it is to leave.
    for line in ["models", "rollback fraud"] {
        let error = told(&format!("tidegate {line} --timeout 100ms"));
        assert!(error.starts_with(&start) && error.ends_with("nothing was changed"), "{error}");
    }
}

#[test]
fn token_that_nobody_would_look_at_is_refused_as_bad_usage() {
    let error = run_line("tidegate models --token secret", "http://127.0.0.1:1").map(|answer| answer.text).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("has no authentication"), "{error}");
}

#[test]
fn unknown_model_or_version_is_told_with_those_that_there_are() {
    let (url, server) = gateway(vec![(404, r#"{"error":"unknown model 'fruad'"}"#), (200, TWO)]);
    let error = run_line("tidegate history fruad", &url).map(|answer| answer.text).unwrap_err();
    assert_eq!(error.to_string(), "unknown model 'fruad': did you mean 'fraud'?");
    server.join().unwrap();
    let status = r#"{"model":"fraud","release":{"generation":1,"stable":1,"previous":null,"canary":null,"shadow":null,"labels":{}},
        "versions":[{"version":3,"state":"ready","reason":null,"digest":null,"memory_bytes":null,"loaded_at":null,"requests":0,
        "monitored":false}]}"#;
    let (url, server) = gateway(vec![(404, r#"{"error":"model 'fraud' has no version 9"}"#), (200, status)]);
    let error = run_line("tidegate load fraud 9", &url).map(|answer| answer.text).unwrap_err();
    assert_eq!(error.to_string(), "model 'fraud' has no version 9: it has 3");
    server.join().unwrap();
}
