//! Tables of requests and what they are understood as.

use std::time::Duration;

use super::*;
use crate::admin::openapi::OPERATIONS;

fn request(line: &str, headers: &[(&'static str, &str)], body: &str) -> Result<AdminRequest, AdminError> {
    let (method, uri) = line.split_once(' ').unwrap();
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    AdminRequest::parse(&request.body(()).unwrap().into_parts().0, body.as_bytes())
}

fn change(line: &str, body: &str) -> Change {
    match request(line, &[], body) {
        Ok(AdminRequest::Change { model, change, .. }) => {
            assert_eq!(model.as_str(), "fraud");
            change
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn rollout_is_read_from_method_path_and_body() {
    let m = "/admin/v1/models/fraud/rollout";
    let body = r#"{"version":4,"steps":[1,12.5,100],"interval":"1m30s","alpha":0.05,"min_requests":7,
        "max_error_rate":0.2,"max_p99_ratio":3,"latency_tolerance":"1ms","output_tolerance":0,"on_drift":"ignore","reason":"why"}"#;
    let Ok(AdminRequest::StartRollout { model, ask, options }) = request(&format!("POST {m}"), &[], body) else {
        panic!("{body}");
    };
    let steps = [1.0, 12.5, 100.0].map(|step| crate::domain::Percent::new(step).unwrap()).to_vec();
    let expected = RolloutAsk {
        version: v(4),
        steps: Some(steps),
        interval: Some(Duration::from_secs(90)),
        alpha: Some(0.05),
        min_requests: Some(7),
        max_error_rate: Some(0.2),
        max_p99_ratio: Some(3.0),
        latency_tolerance: Some(Duration::from_millis(1)),
        output_tolerance: Some(0.0),
        on_drift: Some(crate::rollout::OnDrift::Ignore),
    };
    assert_eq!((model.as_str(), ask, options.reason.as_deref()), ("fraud", expected, Some("why")));
    for (line, expected) in [
        (format!("DELETE {m}"), RolloutChange::Abort),
        (format!("POST {m}/pause?dry_run=true"), RolloutChange::Pause),
        (format!("POST {m}/resume"), RolloutChange::Resume),
    ] {
        match request(&line, &[("if-match", "7")], "") {
            Ok(AdminRequest::ChangeRollout { change, options, .. }) => {
                assert_eq!((change, options.dry_run, options.if_generation), (expected, line.contains("dry"), Some(7)));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    assert!(matches!(request(&format!("GET {m}"), &[], ""), Ok(AdminRequest::Rollout(_))));
    for bad in [r#"{"version":4,"step":[100]}"#, r#"{"version":0}"#, r#"{"steps":[100]}"#, ""] {
        assert_eq!(refusal(&format!("POST {m}"), &[], bad).0, 400, "{bad}");
    }
    assert_eq!(refusal(&format!("PUT {m}"), &[], "{}").0, 405);
}

fn options(line: &str, headers: &[(&'static str, &str)], body: &str) -> ChangeOptions {
    match request(line, headers, body) {
        Ok(AdminRequest::Change { options, .. } | AdminRequest::Load { options, .. }) => options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str, headers: &[(&'static str, &str)], body: &str) -> (u16, String) {
    use crate::fault::Fault;
    let error = request(line, headers, body).unwrap_err();
    (error.code().http().as_u16(), error.message())
}

fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn split(version: u64, percent: f64) -> Split {
    Split { version: v(version), percent: crate::domain::Percent::new(percent).unwrap() }
}

#[test]
fn change_is_read_from_method_path_and_body() {
    let canary = r#"{"version":4,"percent":12.5}"#;
    let label = || "champion".parse().unwrap();
    let m = "/admin/v1/models/fraud";
    assert_eq!(change(&format!("POST {m}/promote"), r#"{"version":4}"#), Change::Promote(v(4)));
    assert_eq!(change(&format!("POST {m}/rollback"), "{}"), Change::Rollback(None));
    assert_eq!(change(&format!("POST {m}/rollback"), ""), Change::Rollback(None));
    assert_eq!(change(&format!("POST {m}/rollback"), r#"{"to":3,"reason":"why"}"#), Change::Rollback(Some(v(3))));
    assert_eq!(change(&format!("POST {m}/rollback"), r#"{"to":null}"#), Change::Rollback(None));
    assert!(options(&format!("POST {m}/promote?strict=true"), &[], r#"{"version":4}"#).strict);
    for (bad, words) in [(r#"{"to":0}"#, "'to' is 0"), (r#"{"to":"3"}"#, "'to' is"), (r#"{"version":3}"#, "version")] {
        let (status, message) = refusal(&format!("POST {m}/rollback"), &[], bad);
        assert!(status == 400 && message.contains(words), "{message}");
    }
    assert_eq!(change(&format!("PUT {m}/canary"), canary), Change::SetCanary(split(4, 12.5)));
    assert_eq!(change(&format!("DELETE {m}/canary"), ""), Change::ClearCanary);
    assert_eq!(change(&format!("PUT {m}/shadow"), canary), Change::SetShadow(split(4, 12.5)));
    assert_eq!(change(&format!("DELETE {m}/shadow"), ""), Change::ClearShadow);
    assert_eq!(change(&format!("PUT {m}/labels/champion"), r#"{"version":3}"#), Change::SetLabel(label(), v(3)));
    assert_eq!(change(&format!("DELETE {m}/labels/champ%69on"), ""), Change::ClearLabel(label()));
}

#[test]
fn read_is_understood_with_its_query() {
    let model = "/admin/v1/models/fraud";
    assert!(matches!(request("GET /", &[], ""), Ok(AdminRequest::Endpoints)));
    assert!(matches!(request("HEAD /admin/v1/models", &[], ""), Ok(AdminRequest::Models)));
    assert!(matches!(request(&format!("GET {model}"), &[], ""), Ok(AdminRequest::Model(_))));
    assert!(matches!(request(&format!("GET {model}/history"), &[], ""), Ok(AdminRequest::History { limit: 100, .. })));
    assert!(matches!(
        request(&format!("GET {model}/history?limit=7"), &[], ""),
        Ok(AdminRequest::History { limit: 7, .. })
    ));
    assert!(matches!(
        request(&format!("GET {model}/drift"), &[], ""),
        Ok(AdminRequest::Drift { query: DriftQuery { version: None, window: None, .. }, .. })
    ));
    let five_minutes = Duration::from_mins(5);
    assert!(matches!(
        request(&format!("GET {model}/drift?version=2&window=5m"), &[], ""),
        Ok(AdminRequest::Drift { query: DriftQuery { version: Some(version), window: Some(window), .. }, .. })
            if version == v(2) && window == five_minutes
    ));
    assert!(matches!(
        request("POST /v2/repository/index", &[], ""),
        Ok(AdminRequest::RepositoryIndex { only_ready: false })
    ));
    assert!(matches!(
        request("POST /v2/repository/index", &[], r#"{"ready":true}"#),
        Ok(AdminRequest::RepositoryIndex { only_ready: true })
    ));
}

#[test]
fn tritons_load_and_unload_take_no_files_and_no_configuration() {
    let line = |verb: &str| format!("POST /v2/repository/models/fraud/{verb}");
    assert!(matches!(request(&line("load"), &[], ""), Ok(AdminRequest::RepositoryLoad { .. })));
    assert!(matches!(request(&line("load"), &[], r#"{"parameters":{}}"#), Ok(AdminRequest::RepositoryLoad { .. })));
    let body = r#"{"parameters":{"unload_dependents":true}}"#;
    assert!(matches!(request(&line("unload"), &[], body), Ok(AdminRequest::RepositoryUnload { .. })));
    for name in ["config", "file:1/model.onnx"] {
        let (code, message) = refusal(&line("load"), &[], &format!(r#"{{"parameters":{{"{name}":"x"}}}}"#));
        assert_eq!(code, 400);
        assert!(message.contains(name) && message.contains("those in the repository"), "{message}");
    }
}

#[test]
fn log_settings_are_levels_and_never_files() {
    assert!(matches!(request("GET /v2/logging", &[], ""), Ok(AdminRequest::LogSettings)));
    let body = r#"{"log_verbose_level":1,"log_info":false}"#;
    let asked = request("POST /v2/logging", &[(ACTOR_HEADER, "ada")], body).unwrap();
    let AdminRequest::ChangeLogSettings { change, actor } = asked else { panic!("a change of log settings") };
    assert_eq!((change.log_info, change.log_verbose_level, change.log_error), (Some(false), Some(1), None));
    assert_eq!(actor, "ada");
    for body in [r#"{"log_file":"/etc/passwd"}"#, r#"{"log_format":"default"}"#, r#"{"log_info":"yes"}"#, ""] {
        assert_eq!(refusal("POST /v2/logging", &[], body).0, 400, "{body}");
    }
}

#[test]
fn load_and_unload_take_the_version_from_the_path() {
    let load = request("POST /admin/v1/models/fraud/versions/3/load", &[], "").unwrap();
    assert!(matches!(load, AdminRequest::Load { version, .. } if version == v(3)));
    let load = request("POST /admin/v1/models/fraud/versions/3/load?allow_signature_change=true", &[], "").unwrap();
    assert!(matches!(load, AdminRequest::Load { options, .. } if options.allow_signature_change));
    let unload = request("POST /admin/v1/models/fraud/versions/3/unload?dry_run=true", &[], "").unwrap();
    assert!(matches!(unload, AdminRequest::Unload { version, options, .. } if version == v(3) && options.dry_run));
}

#[test]
fn options_come_from_query_headers_and_body() {
    let line = "POST /admin/v1/models/fraud/rollback";
    let none = options(line, &[], "");
    assert_eq!((none.dry_run, none.if_generation, none.reason, none.actor.as_str()), (false, None, None, "anonymous"));

    let query = options(&format!("{line}?dry_run=true&reason=p99%20too+high"), &[], "");
    assert!(query.dry_run);
    assert_eq!(query.reason.as_deref(), Some("p99 too high"));

    let both = options(&format!("{line}?reason=query"), &[(ACTOR_HEADER, "ada")], r#"{"reason":"body"}"#);
    assert_eq!((both.reason.as_deref(), both.actor.as_str()), (Some("body"), "ada"));
}

#[test]
fn if_match_is_a_generation_with_or_without_quotes() {
    let line = "POST /admin/v1/models/fraud/rollback";
    for (text, generation) in [("7", 7), ("\"7\"", 7), (" 0 ", 0)] {
        assert_eq!(options(line, &[("if-match", text)], "").if_generation, Some(generation), "{text}");
    }
    for bad in ["", "seven", "W/\"7\"", "\"7", "+7", "-1", "*", "7, 8", "99999999999999999999"] {
        let (code, message) = refusal(line, &[("if-match", bad)], "");
        assert_eq!(code, 400, "{bad}");
        assert!(message.contains("If-Match"), "{message}");
    }
    assert_eq!(refusal(line, &[("if-match", "7"), ("if-match", "8")], "").0, 400);
}

#[test]
fn actor_is_the_peer_when_no_header_names_one() {
    let mut head = http::Request::post("/admin/v1/models/fraud/rollback").body(()).unwrap().into_parts().0;
    head.extensions.insert(SocketAddr::from(([10, 0, 0, 7], 4711)));
    let request = AdminRequest::parse(&head, b"").unwrap();
    assert!(matches!(request, AdminRequest::Change { options, .. } if options.actor == "10.0.0.7"));
}

#[test]
fn actor_is_utf_8_or_refused_as_such() {
    let mut head = http::Request::post("/admin/v1/models/fraud/rollback").body(()).unwrap().into_parts().0;
    head.headers.insert("tidegate-actor", http::HeaderValue::from_bytes(b"J\xfcrgen").unwrap());
    let error = AdminRequest::parse(&head, b"").unwrap_err().to_string();
    assert!(error.contains("'J\u{fffd}rgen', which is not UTF-8"), "{error}");
}

/// What is refused, with the status and the words that the message must have.
#[test]
fn wrong_request_is_refused_with_what_is_accepted() {
    let table: &[(&str, &str, u16, &[&str])] = &[
        ("GET /nothing", "", 404, &["/nothing", "GET /"]),
        ("GET /admin/v1/models/", "", 404, &["/admin/v1/models/"]),
        ("GET /admin/v1/models/%ff", "", 404, &[]),
        ("GET /admin/v1/models/fraud/promote/now", "", 404, &[]),
        ("POST /admin/v1/models", "", 405, &["POST", "GET, HEAD"]),
        ("GET /admin/v1/models/fraud/promote", "", 405, &["use POST"]),
        ("POST /admin/v1/models/fraud/canary", "", 405, &["PUT, DELETE"]),
        ("GET /admin/v1/models/a%2Fb", "", 400, &["not a model name"]),
        ("GET /admin/v1/models/fraud?verbose=1", "", 400, &["verbose", "none"]),
        ("POST /admin/v1/models/fraud/versions/01/load", "", 400, &["whole numbers from 1"]),
        ("POST /admin/v1/models/fraud/promote", "", 400, &["empty", "{\"version\": 4}"]),
        ("POST /admin/v1/models/fraud/promote", "{", 400, &["EOF", "{\"version\": 4}"]),
        ("POST /admin/v1/models/fraud/promote", "{}", 400, &["missing field `version`"]),
        ("POST /admin/v1/models/fraud/promote", r#"{"version":0}"#, 400, &["'version' is 0", "whole number from 1"]),
        ("POST /admin/v1/models/fraud/promote", r#"{"version":"4"}"#, 400, &["'version' is \"4\""]),
        ("POST /admin/v1/models/fraud/promote", r#"{"version":4.5}"#, 400, &["'version' is 4.5"]),
        ("POST /admin/v1/models/fraud/promote", r#"{"version":4,"dry":1}"#, 400, &["`dry`", "`version` or `reason`"]),
        ("POST /admin/v1/models/fraud/promote", "[4]", 400, &["not a JSON object", "{\"version\": 4}"]),
        ("POST /admin/v1/models/fraud/rollback", "[]", 400, &["not a JSON object"]),
        ("POST /admin/v1/models/fraud/promote", r#"{"version":4}{}"#, 400, &["trailing"]),
        ("POST /admin/v1/models/fraud/promote?dryrun=true", r#"{"version":4}"#, 400, &["dryrun", "dry_run, reason"]),
        ("POST /admin/v1/models/fraud/promote?dry_run=yes", r#"{"version":4}"#, 400, &["'yes'", "true or false"]),
        ("POST /admin/v1/models/fraud/promote?dry_run=true&dry_run=false", r#"{"version":4}"#, 400, &["twice"]),
        ("PUT /admin/v1/models/fraud/canary", r#"{"version":4}"#, 400, &["missing field `percent`"]),
        ("PUT /admin/v1/models/fraud/canary", r#"{"version":4,"percent":101}"#, 400, &["'percent'", "0 to 100"]),
        ("PUT /admin/v1/models/fraud/canary", r#"{"version":4,"percent":"ten"}"#, 400, &["'percent' is \"ten\""]),
        ("PUT /admin/v1/models/fraud/labels/3", r#"{"version":4}"#, 400, &["not a label"]),
        ("DELETE /admin/v1/models/fraud/canary", r#"{"reason":5}"#, 400, &["'reason' is 5", "a text"]),
        ("GET /admin/v1/models/fraud/history?limit=0", "", 400, &["'limit' is 0", "10000"]),
        ("GET /admin/v1/models/fraud/history?limit=many", "", 400, &["'limit' is 'many'"]),
        ("GET /admin/v1/models/fraud/drift?window=soon", "", 400, &["'soon'", "5m"]),
        ("GET /admin/v1/models/fraud/drift?version=latest", "", 400, &["'latest'"]),
        ("GET /admin/v1/models/fraud/drift/self-test?version=latest", "", 400, &["'latest'"]),
        ("GET /admin/v1/models/fraud/drift/self-test?segment=a=b", "", 400, &["'segment'"]),
        ("POST /v2/repository/index", r#"{"ready":"yes"}"#, 400, &["boolean"]),
    ];
    for (line, body, code, words) in table {
        let (refused, message) = refusal(line, &[], body);
        assert_eq!(refused, *code, "{line} {body}: {message}");
        for word in *words {
            assert!(message.contains(word), "{line} {body}: {message}");
        }
    }
}

#[test]
fn body_of_a_read_is_not_looked_at() {
    assert!(matches!(request("GET /admin/v1/models", &[], "not json"), Ok(AdminRequest::Models)));
}

/// A path of the document with names in place of its parameters.
fn sample(path: &str) -> String {
    path.replace("{model}", "fraud").replace("{version}", "3").replace("{label}", "champion")
}

/// The path under which the document has a place. A new place does not compile here until it has one.
fn documented(place: &Place<'_>) -> &'static str {
    match place {
        Place::Endpoints => "/",
        Place::OpenApi => "/admin/v1/openapi.json",
        Place::Events => "/admin/v1/events",
        Place::RepositoryIndex => "/v2/repository/index",
        Place::RepositoryLoad(_) => "/v2/repository/models/{model}/load",
        Place::RepositoryUnload(_) => "/v2/repository/models/{model}/unload",
        Place::Logging => "/v2/logging",
        Place::Models => "/admin/v1/models",
        Place::Model(_) => "/admin/v1/models/{model}",
        Place::Load(..) => "/admin/v1/models/{model}/versions/{version}/load",
        Place::Unload(..) => "/admin/v1/models/{model}/versions/{version}/unload",
        Place::Release(_, Part::Promote) => "/admin/v1/models/{model}/promote",
        Place::Release(_, Part::Rollback) => "/admin/v1/models/{model}/rollback",
        Place::Release(_, Part::Canary) => "/admin/v1/models/{model}/canary",
        Place::Release(_, Part::Shadow) => "/admin/v1/models/{model}/shadow",
        Place::Release(_, Part::Label(_)) => "/admin/v1/models/{model}/labels/{label}",
        Place::Rollout(_) => "/admin/v1/models/{model}/rollout",
        Place::RolloutPause(_) => "/admin/v1/models/{model}/rollout/pause",
        Place::RolloutResume(_) => "/admin/v1/models/{model}/rollout/resume",
        Place::History(_) => "/admin/v1/models/{model}/history",
        Place::Drift(_) => "/admin/v1/models/{model}/drift",
        Place::DriftSelfTest(_) => "/admin/v1/models/{model}/drift/self-test",
    }
}

#[test]
fn every_documented_path_is_a_place_with_the_documented_methods() {
    let mut methods: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for operation in OPERATIONS {
        methods.entry(operation.path).or_default().push(operation.method.as_str());
    }
    for (path, mut documented_methods) in methods {
        let sample = sample(path);
        let segments = place::segments(&sample).unwrap();
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let place = Place::find(&segments).unwrap_or_else(|| panic!("{path} is documented, and not there"));
        assert_eq!(documented(&place), path);
        let mut allowed: Vec<&str> = place.methods().split(", ").filter(|method| *method != "HEAD").collect();
        allowed.sort_unstable();
        documented_methods.sort_unstable();
        assert_eq!(allowed, documented_methods, "{path}");
    }
}

#[test]
fn every_place_is_documented() {
    let part = |part| Place::Release("m", part);
    let places = [
        Place::Endpoints,
        Place::OpenApi,
        Place::Events,
        Place::RepositoryIndex,
        Place::RepositoryLoad("m"),
        Place::RepositoryUnload("m"),
        Place::Logging,
        Place::Models,
        Place::Model("m"),
        Place::Load("m", "1"),
        Place::Unload("m", "1"),
        part(Part::Promote),
        part(Part::Rollback),
        part(Part::Canary),
        part(Part::Shadow),
        part(Part::Label("l")),
        Place::History("m"),
        Place::Drift("m"),
        Place::DriftSelfTest("m"),
    ];
    for place in places {
        let path = documented(&place);
        assert!(OPERATIONS.iter().any(|operation| operation.path == path), "{path} is not documented");
    }
}
