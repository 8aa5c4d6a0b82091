//! Learning a profile goes on after a restart, a crash and a reload.
//!
//! It ends here with the number of its rows, so that no test depends on how long a restart takes.

use std::{fs, path::PathBuf, thread, time::Duration};

use serde_json::json;
use tidegate::proto::admin::{GetDriftRequest, GetModelRequest, admin_service_client::AdminServiceClient};

use super::{DRIFT, INFER, drift, feature, is_monitored, model, repository_without_profile, rows, send, start, usual};
use crate::harness::{Gateway, Repository};

const SETTINGS: &str = "baseline = { learn = \"1s\" }\nmin_rows = 900\nsave_interval = \"1s\"";

fn state(repository: &Repository, file: &str) -> PathBuf {
    repository.state().join("monitor/m").join(file)
}

/// Sends the last rows, and waits for the profile; its rows.
fn learn_the_rest(gateway: &Gateway) -> u64 {
    send(gateway, &usual(300));
    // The time that learning takes at least.
    thread::sleep(Duration::from_secs(1));
    gateway.wait("the profile to be learnt", || {
        send(gateway, &usual(1));
        is_monitored(gateway, "").then_some(())
    });
    let bins = feature(&drift(gateway, "?window=1h"), "x")["bins"].as_array().unwrap().clone();
    bins.iter().map(|bin| bin["reference"].as_u64().unwrap()).sum()
}

/// Waits until rows are saved that were not at `before` bytes.
fn wait_for_save(gateway: &Gateway, repository: &Repository, before: u64) -> u64 {
    let file = state(repository, "1.learning");
    let length = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    gateway.wait("the rows to be saved", || (length() > before).then(length))
}

#[test]
fn learning_goes_on_after_a_crash_and_a_stop() {
    let repository = repository_without_profile();
    let mut gateway = start(&repository, SETTINGS);
    send(&gateway, &usual(200));
    let saved = wait_for_save(&gateway, &repository, 0);
    send(&gateway, &usual(100));
    wait_for_save(&gateway, &repository, saved);
    gateway.kill();

    // What is not saved yet is saved at a stop.
    let mut gateway = start(&repository, &SETTINGS.replace("save_interval = \"1s\"", "save_interval = \"1h\""));
    assert!(gateway.log().contains("learning the version's profile goes on"), "{}", gateway.log());
    send(&gateway, &usual(300));
    assert_eq!(gateway.terminate(), Some(0));

    let mut gateway = start(&repository, SETTINGS);
    assert_eq!(learn_the_rest(&gateway), 900);
    assert!(state(&repository, "1.profile.json").exists());
    assert!(!state(&repository, "1.learning").exists(), "it is of no use any more");
    gateway.terminate();
    assert!(!state(&repository, "1.learning").exists());
}

#[test]
fn learning_goes_on_when_the_version_is_loaded_again() {
    let repository = repository_without_profile();
    let gateway = start(&repository, &SETTINGS.replace("save_interval = \"1s\"", "save_interval = \"1h\""));
    send(&gateway, &usual(300));
    // While it serves.
    let loaded_at = gateway.version_status("m", 1)["loaded_at"].clone();
    repository.write("m/model.toml", "[monitor]\nsegments = [\"s\"]\n");
    let onnx = repository.version("m", 1).join("model.onnx");
    let renamed = onnx.with_extension("new");
    fs::write(&renamed, model()).unwrap();
    fs::rename(&renamed, &onnx).unwrap();
    gateway.wait("another load", || {
        let status = gateway.version_status("m", 1);
        (status["loaded_at"] != loaded_at && status["state"] == "ready").then_some(())
    });
    send(&gateway, &usual(300));
    assert_eq!(learn_the_rest(&gateway), 900);
    send(&gateway, &usual(10));
    let segments = drift(&gateway, "?window=1h")["segments"].to_string();
    assert!(segments.contains("de"), "the settings are those of the later load: {segments}");
}

#[test]
fn learning_goes_on_when_the_version_was_unloaded_and_begins_anew_with_another_model() {
    let repository = repository_without_profile();
    repository.add_files("m", 2, &[("model.onnx", &model())]);
    let gateway = start(&repository, &SETTINGS.replace("save_interval = \"1s\"", "save_interval = \"1h\""));
    // Version 2 serves; version 1 is none of the release, and may be unloaded.
    let first = "/v2/models/m/versions/1/infer";
    let operation = |what: &str| {
        let (status, answer) = gateway.admin("POST", &format!("/admin/v1/models/m/versions/1/{what}"), None);
        assert_eq!(status, 200, "{answer}");
    };
    super::send_to(&gateway, first, &usual(300), &serde_json::json!({}));
    operation("unload");
    gateway.wait_for_state("m", 1, "unloaded");
    assert!(state(&repository, "1.learning").exists());
    operation("load");
    assert!(gateway.log().contains("learning the version's profile goes on"), "{}", gateway.log());

    operation("unload");
    gateway.wait_for_state("m", 1, "unloaded");
    let other = crate::onnx::with_metadata(&model(), "made", "later");
    fs::write(repository.version("m", 1).join("model.onnx"), other).unwrap();
    operation("load");
    let log = gateway.log();
    assert!(log.contains("saved rows to learn from are of another model"), "{log}");
}

#[test]
fn other_weights_beside_the_model_are_another_model_and_other_files_are_not() {
    let repository = Repository::new();
    let onnx = crate::onnx::external_data("w.bin");
    repository.add_files("m", 1, &[("model.onnx", &onnx), ("w.bin", &1.0_f32.to_le_bytes())]);
    repository.write("m/model.toml", "[release]\nreload_changed = \"auto\"\n");
    let send = |gateway: &Gateway, rows: u16| {
        let data: Vec<_> = (0..rows).map(|row| f32::from(row % 97)).collect();
        let input = json!({"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": data});
        assert_eq!(gateway.post(INFER, &json!({"inputs": [input]})).0, 200);
    };
    let write = |name: &str, bytes: &[u8]| fs::write(repository.version("m", 1).join(name), bytes).unwrap();
    let settings = "baseline = { learn = \"1s\" }\nmin_rows = 600";

    let mut gateway = start(&repository, settings);
    send(&gateway, 300);
    gateway.terminate();
    write("notes.txt", b"of no meaning to the model");
    let mut gateway = start(&repository, settings);
    assert_eq!(rows(&drift(&gateway, "")), 300);
    gateway.terminate();
    write("w.bin", &2.0_f32.to_le_bytes());
    let mut gateway = start(&repository, settings);
    assert_eq!(rows(&drift(&gateway, "")), 0);
    assert!(gateway.log().contains("saved rows to learn from are of another model"), "{}", gateway.log());
    send(&gateway, 600);
    gateway.wait("the profile to be learnt", || {
        send(&gateway, 1);
        is_monitored(&gateway, "").then_some(())
    });
    gateway.terminate();

    // What was learnt is of one model too.
    write("notes.txt", b"");
    let mut gateway = start(&repository, settings);
    assert!(is_monitored(&gateway, ""));
    gateway.terminate();
    write("w.bin", &3.0_f32.to_le_bytes());
    let mut gateway = start(&repository, settings);
    assert_eq!((drift(&gateway, "")["state"].clone(), rows(&drift(&gateway, ""))), (json!("learning"), 0));
    assert!(gateway.log().contains("is of another model: it learns anew"), "{}", gateway.log());
    gateway.terminate();

    // One that an earlier program kept does not say of which model it is.
    let kept = state(&repository, "1.profile.json");
    let profile = fs::read_to_string(&kept).unwrap();
    let without: Vec<_> = profile.lines().filter(|line| !line.starts_with("\"learnt_from\"")).collect();
    assert_eq!(without.len() + 1, profile.lines().count(), "{profile}");
    fs::write(&kept, without.join("\n")).unwrap();
    assert!(is_monitored(&start(&repository, settings), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_by_the_report_the_status_and_the_metrics_over_both_protocols() {
    let repository = repository_without_profile();
    let gateway = start(&repository, "baseline = { learn = \"6h\" }\nmin_rows = 900");
    let learning = |gateway: &Gateway| {
        let report = drift(gateway, "");
        assert_eq!(
            (&report["state"], &report["features"], &report["version"]),
            (&json!("learning"), &json!([]), &json!(1))
        );
        report["learning"].clone()
    };
    let before = json!({"rows": 0, "min_rows": 900, "rows_left": 900, "since": null, "length": "6h",
        "earliest_end": null, "seconds_left": 21600.0, "full": false});
    let (of_nothing, report) = tokio::task::block_in_place(|| {
        let of_nothing = learning(&gateway);
        send(&gateway, &usual(250));
        (of_nothing, learning(&gateway))
    });
    assert_eq!(of_nothing, before);
    assert_eq!((&report["rows"], &report["rows_left"], &report["min_rows"]), (&json!(250), &json!(650), &json!(900)));
    let left = report["seconds_left"].as_f64().unwrap();
    assert!(left > 0.0 && left < 21600.0, "{left}");
    let time = |name: &str| humantime::parse_rfc3339(report[name].as_str().unwrap()).unwrap();
    assert_eq!(time("earliest_end").duration_since(time("since")).unwrap(), Duration::from_hours(6));

    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let asked = GetDriftRequest { model: "m".into(), ..GetDriftRequest::default() };
    let grpc = admin.get_drift(asked).await.unwrap().into_inner();
    assert_eq!((&*grpc.state, grpc.rows), ("learning", 250));
    let grpc = grpc.learning.unwrap();
    assert_eq!((grpc.rows, grpc.rows_left, grpc.min_rows, &*grpc.length, grpc.full), (250, 650, 900, "6h", false));
    assert_eq!(
        (json!(grpc.since), json!(grpc.earliest_end)),
        (report["since"].clone(), report["earliest_end"].clone())
    );
    let model = admin.get_model(GetModelRequest { model: "m".into() }).await.unwrap().into_inner();
    assert_eq!(model.versions[0].learning.as_ref().unwrap().rows, 250);

    tokio::task::block_in_place(|| {
        let status = gateway.version_status("m", 1);
        assert_eq!((&status["monitored"], &status["learning"]["rows"]), (&json!(false), &json!(250)));
        let of = [("model", "m"), ("version", "1")];
        assert_eq!(gateway.metric("tidegate_monitor_learning_rows", &of), Some(250.0));
        assert_eq!(gateway.metric("tidegate_monitor_learning_remaining_rows", &of), Some(650.0));
        assert!(gateway.metric("tidegate_monitor_learning_remaining_seconds", &of).unwrap() < 21600.0);
        // What it has nothing for yet says so too.
        for place in ["drift/self-test", "drift?against=stable&version=1"] {
            let (status, answer) = gateway.admin("GET", &format!("/admin/v1/models/m/{place}"), None);
            let error = answer["error"].as_str().unwrap();
            assert!(
                status == 404 && error.contains("250 of at least 900 rows") && error.contains("650 rows left"),
                "{error}"
            );
        }
        assert_eq!(gateway.admin("GET", &format!("{DRIFT}?window=90d"), None).0, 400);
    });
}

#[test]
fn rows_beyond_the_bound_are_not_learnt_from() {
    let repository = repository_without_profile();
    let gateway = start(&repository, "baseline = { learn = \"6h\" }\nmax_rows_per_second = 200");
    for _ in 0..20 {
        send(&gateway, &usual(100));
    }
    let learnt = rows(&drift(&gateway, ""));
    let left_out = gateway.metric("tidegate_monitor_left_out_rows_total", &[]).unwrap();
    assert_eq!(learnt as f64 + left_out, 2000.0);
    assert!(left_out > 0.0 && learnt >= 200, "{learnt}");
}
