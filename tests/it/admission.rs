//! What a version must pass before it serves, and how it says what it did not pass.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate::domain::DataType;

use crate::{
    harness::{Gateway, Repository, command},
    onnx,
};

fn serving_one() -> (Repository, Gateway) {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(&repository);
    (repository, gateway)
}

fn still_serves(gateway: &Gateway) {
    let (status, answer) = gateway.run_add("/v2/models/m/infer", 0.0);
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([10.0])));
}

/// The steps of a version's admission, as the admin plane shows them: name, outcome, why.
fn steps(gateway: &Gateway, version: u64) -> Vec<(String, String, String)> {
    let (_, answer) = gateway.admin("GET", "/admin/v1/models/m", None);
    let versions = answer["versions"].as_array().unwrap();
    steps_of(&versions.iter().find(|entry| entry["version"] == version).unwrap()["admission"])
}

fn steps_of(admission: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let why = |step: &Value| step["why"].as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("; ");
    let steps = admission.as_array().unwrap().iter();
    steps.map(|step| (text(&step["step"]), text(&step["outcome"]), why(step))).collect()
}

/// Why the one step failed that did.
fn failed_step(steps: &[(String, String, String)]) -> (&str, &str) {
    let failed: Vec<_> = steps.iter().filter(|(_, outcome, _)| outcome == "failed").collect();
    assert_eq!(failed.len(), 1, "{steps:?}");
    (&failed[0].0, &failed[0].2)
}

fn manifest(files: &[(&str, &[u8])]) -> String {
    let digest = |bytes: &[u8]| {
        let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{}", hex.concat())
    };
    let files: serde_json::Map<_, _> =
        files.iter().map(|(name, bytes)| ((*name).to_owned(), json!(digest(bytes)))).collect();
    json!({ "files": files }).to_string()
}

#[test]
fn version_that_is_ready_shows_every_step() {
    let (_repository, gateway) = serving_one();
    let steps = steps(&gateway, 1);
    let names: Vec<&str> = steps.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["complete", "digest", "containment", "trial", "load", "signature", "golden", "warmup"]);
    for (name, outcome, why) in &steps {
        let expected = if matches!(name.as_str(), "signature" | "golden") { "skipped" } else { "passed" };
        assert_eq!(outcome, expected, "{name}: {why}");
    }
}

#[test]
fn file_that_is_not_as_the_manifest_says_is_never_loaded() {
    let (repository, gateway) = serving_one();
    let (good, bad) = (onnx::add(20), onnx::add(21));
    let manifest = manifest(&[("model.onnx", &good)]);
    repository.add_files("m", 2, &[("model.onnx", &bad), ("manifest.json", manifest.as_bytes())]);
    repository.add_files("m", 3, &[("model.onnx", &good), ("manifest.json", manifest.as_bytes())]);
    repository.add_files("m", 4, &[("model.onnx", &good), ("manifest.json", manifest.as_bytes()), ("more", b"x")]);
    gateway.wait_for_state("m", 2, "failed");
    let tampered = steps(&gateway, 2);
    let (step, why) = failed_step(&tampered);
    assert!(step == "digest" && why.contains("model.onnx was changed"), "{step}: {why}");
    assert_eq!(tampered[3].2, "not run: the step digest failed");
    gateway.wait_for_state("m", 3, "ready");
    let reason = gateway.wait_for_state("m", 4, "failed");
    assert!(reason.contains("more is not named by manifest.json"), "{reason}");
    still_serves(&gateway);
}

fn openssl(directory: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("openssl");
    let command = command.args(arguments).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn only_what_a_known_key_has_signed_is_admitted_where_that_is_required() {
    let repository = Repository::new();
    let keys = repository.path().to_path_buf();
    let is_there = ["good", "bad"].iter().all(|name| {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        openssl(&keys, &["genpkey", "-algorithm", "ed25519", "-out", &private])
            && openssl(&keys, &["pkey", "-in", &private, "-pubout", "-out", &public])
    });
    if !is_there {
        eprintln!("openssl with Ed25519 is not installed: signatures are not tried");
        return;
    }
    let model = onnx::add(10);
    let manifest = manifest(&[("model.onnx", &model)]);
    fs::write(keys.join("manifest.json"), &manifest).unwrap();
    let signature = |key: &str| {
        let key = format!("{key}.pem");
        assert!(openssl(
            &keys,
            &["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", "manifest.json", "-out", "signature"]
        ));
        fs::read(keys.join("signature")).unwrap()
    };
    for (version, key) in [(1, "good"), (2, "bad")] {
        let files: [(&str, &[u8]); 3] =
            [("model.onnx", &model), ("manifest.json", manifest.as_bytes()), ("manifest.json.sig", &signature(key))];
        repository.add_files("m", version, &files);
    }
    repository.add("m", 3, &model);
    let public = keys.join("good.pub");
    let config = keys.join("tidegate.toml");
    let text = format!("[admission]\nkeys = [{:?}]\nrequire_signature = true\n", public.to_str().unwrap());
    fs::write(&config, text).unwrap();
    let gateway = Gateway::start_with(&repository, |command| command.arg("--config").arg(&config));
    assert!(steps(&gateway, 1)[1].2.contains("signed by"), "{:?}", steps(&gateway, 1));
    for (version, words) in [(2, "not the signature of manifest.json"), (3, "manifest.json is missing")] {
        let reason = gateway.wait_for_state("m", version, "failed");
        assert!(reason.contains(words), "{version}: {reason}");
    }
    still_serves(&gateway);
}

#[test]
fn no_file_of_a_version_leads_out_of_it() {
    let (repository, gateway) = serving_one();
    let secret = repository.path().join("secret");
    fs::write(&secret, onnx::add(20)).unwrap();
    let publish = |version: u64, fill: &dyn Fn(&Path)| {
        let temporary = repository.path().join(format!("links-{version}"));
        fs::create_dir(&temporary).unwrap();
        fill(&temporary);
        fs::rename(&temporary, repository.version("m", version)).unwrap();
    };
    publish(2, &|directory| symlink(&secret, directory.join("model.onnx")).unwrap());
    publish(3, &|directory| fs::hard_link(&secret, directory.join("model.onnx")).unwrap());
    publish(4, &|directory| {
        fs::write(directory.join("model.onnx"), onnx::add(20)).unwrap();
        assert!(Command::new("mkfifo").arg(directory.join("pipe")).status().unwrap().success());
    });
    let inside = repository.version("m", 1).join("model.onnx");
    publish(5, &|directory| fs::hard_link(&inside, directory.join("model.onnx")).unwrap());
    for (version, words) in [(2, "leads out"), (3, "hard link"), (4, "pipe is not a plain file")] {
        let reason = gateway.wait_for_state("m", version, "failed");
        assert!(reason.contains(words), "{version}: {reason}");
    }
    gateway.wait_for_state("m", 5, "ready");
    still_serves(&gateway);
}

#[test]
fn hostile_model_ends_its_own_process_and_says_how() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start_with(&repository, |command| {
        command.env("TIDEGATE_ADMISSION__TIME_LIMIT", "1s").env("TIDEGATE_ADMISSION__MEMORY_LIMIT", "256MiB")
    });
    repository.add("m", 2, &onnx::endless_loop());
    repository.add("m", 3, &onnx::zeros(1 << 28));
    repository.add("m", 4, &onnx::zeros(10));
    gateway.wait_for_state("m", 2, "failed");
    let (step, why) = (steps(&gateway, 2), "more than 1 s of processor time (admission.time_limit)");
    assert!(failed_step(&step).0 == "trial" && failed_step(&step).1.contains(why), "{step:?}");
    gateway.wait_for_state("m", 3, "failed");
    let (step, why) = (steps(&gateway, 3), "admission.memory_limit");
    assert!(failed_step(&step).0 == "trial" && failed_step(&step).1.contains(why), "{step:?}");
    gateway.wait_for_state("m", 4, "ready");
    still_serves(&gateway);
}

#[test]
fn change_of_the_signature_must_be_meant() {
    let (repository, gateway) = serving_one();
    repository.add("m", 2, &onnx::identity(DataType::Fp64, &[onnx::ANY, 1]));
    gateway.wait_for_state("m", 2, "failed");
    let found = steps(&gateway, 2);
    let (step, why) = failed_step(&found);
    assert_eq!(step, "signature");
    for words in ["unlike version 1", "input 'x' has datatype FP64, not FP32", "--allow-signature-change"] {
        assert!(why.contains(words), "{words}: {why}");
    }
    let (status, refused) = gateway.admin("POST", "/admin/v1/models/m/versions/2/load", None);
    assert_eq!(status, 409, "{refused}");
    let (status, answer) =
        gateway.admin("POST", "/admin/v1/models/m/versions/2/load?allow_signature_change=true", None);
    assert_eq!((status, answer["state"].as_str()), (200, Some("ready")), "{answer}");
    let (_, history) = gateway.admin("GET", "/admin/v1/models/m/history", None);
    let attempts = [&history["entries"][0], &history["entries"][1]];
    let attempts = attempts.map(|entry| (entry["asked"].as_str().unwrap(), entry["outcome"].as_str().unwrap()));
    assert_eq!(attempts, [("version 2, allow_signature_change", "ok"), ("version 2", "failed")]);
    let (status, _) = gateway.admin("POST", "/admin/v1/models/m/promote", Some(&json!({ "version": 2 })));
    assert_eq!(status, 200);
    drop(gateway);
    // What the release names was admitted before: a restart keeps the rollback target.
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 1, "ready");
    gateway.wait_for_state("m", 2, "ready");
    repository.write("m/model.toml", "[release]\nallow_signature_change = true\n");
    repository.add("m", 3, &onnx::add(30));
    gateway.wait_for_state("m", 3, "ready");
}

#[test]
fn change_that_was_meant_holds_after_a_restart_for_the_same_file() {
    let (repository, gateway) = serving_one();
    repository.add("m", 2, &onnx::identity(DataType::Fp64, &[onnx::ANY, 1]));
    gateway.wait_for_state("m", 2, "failed");
    let load = "/admin/v1/models/m/versions/2/load?allow_signature_change=true";
    assert_eq!(gateway.admin("POST", load, None).0, 200);
    drop(gateway);
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 2, "ready");
    let found = steps(&gateway, 2);
    let signature = found.iter().find(|(step, ..)| step == "signature").unwrap();
    assert!(signature.2.contains("a change was allowed when it was loaded before"), "{found:?}");
    drop(gateway);
    // Another model under the number: nobody said that its break is meant.
    let file = repository.version("m", 2).join("model.onnx");
    fs::write(&file, onnx::identity(DataType::Int64, &[onnx::ANY, 1])).unwrap();
    let gateway = Gateway::start(&repository);
    gateway.wait_for_state("m", 2, "failed");
    assert_eq!(failed_step(&steps(&gateway, 2)).0, "signature");
}

fn golden(answer: f64) -> String {
    let tensor = |name: &str, value: f64| json!({"name": name, "datatype": "FP32", "shape": [1, 1], "data": [value]});
    json!({
        "request": {"inputs": [tensor("x", 1.0)]}, "response": {"outputs": [tensor("y", answer)]},
        "rtol": 1e-4, "atol": 0.0
    })
    .to_string()
}

/// Publishes a version with a golden request.
fn add_golden(repository: &Repository, version: u64, answer: f64) {
    let temporary = repository.path().join(format!("golden-{version}"));
    fs::create_dir_all(temporary.join("golden")).unwrap();
    fs::write(temporary.join("model.onnx"), onnx::add(20)).unwrap();
    fs::write(temporary.join("golden/one.json"), golden(answer)).unwrap();
    fs::rename(&temporary, repository.version("m", version)).unwrap();
}

#[test]
fn golden_request_that_is_answered_otherwise_is_told_in_numbers() {
    let (repository, gateway) = serving_one();
    add_golden(&repository, 2, 21.0);
    add_golden(&repository, 3, 22.0);
    gateway.wait_for_state("m", 2, "ready");
    gateway.wait_for_state("m", 3, "failed");
    let found = steps(&gateway, 3);
    let (step, why) = failed_step(&found);
    assert_eq!(step, "golden");
    assert!(why.contains("golden/one.json: output 'y' at [0, 0]: expected 22.0, got 21.0"), "{why}");
}

#[test]
fn fault_that_passes_is_tried_again_by_itself() {
    let repository = Repository::new();
    let library = repository.path().join("libonnxruntime.so");
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".artifacts/onnxruntime/libonnxruntime.so");
    let original = std::env::var_os("ORT_DYLIB_PATH").map_or(fetched, PathBuf::from);
    fs::copy(original, &library).unwrap();
    let gateway = Gateway::start_with(&repository, |command| command.env("ORT_DYLIB_PATH", &library));
    let away = library.with_extension("away");
    fs::rename(&library, &away).unwrap();
    repository.add("m", 1, &onnx::add(10));
    let reason = gateway.wait_for_state("m", 1, "failed");
    assert!(reason.contains("no trial") && reason.contains("tried again by itself"), "{reason}");
    fs::rename(&away, &library).unwrap();
    gateway.wait_for_state("m", 1, "ready");
    gateway.wait("version 1 to be stable", || (gateway.run_add("/v2/models/m/infer", 0.0).0 == 200).then_some(()));
}

#[test]
fn recent_requests_warm_the_next_version() {
    let (repository, gateway) = serving_one();
    still_serves(&gateway);
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    let warmed = &steps(&gateway, 2)[7].2;
    assert!(warmed.contains("1 recent requests run"), "{warmed}");
}

#[test]
fn trials_leave_no_process_behind() {
    let (repository, mut gateway) = serving_one();
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    let parent = gateway.id();
    gateway.wait("the trial's process to end", || children(parent).is_empty().then_some(()));
    repository.add("m", 3, &onnx::endless_loop());
    let worker = gateway.wait("a trial", || children(parent).first().copied());
    gateway.kill();
    // Nobody is there to end it: it ends by itself, in the middle of an endless run.
    gateway.wait("the orphan to end", || (!is_running(worker)).then_some(()));
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|id| stat(*id).is_some_and(|(state, of)| of == parent && state != "Z")).collect()
}

fn is_running(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| state != "Z")
}

/// The state of a process and its parent.
fn stat(id: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// `tidegate check` with these arguments: its exit code and its JSON.
fn check(arguments: &[&Path]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("check")
        .args(arguments)
        .args(["--output", "json"])
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn check_prints_the_same_steps_and_says_all_that_is_wrong() {
    let (repository, gateway) = serving_one();
    repository.add_files("m", 2, &[("model.onnx", &onnx::add(20)), ("profile.json", b"{")]);
    fs::create_dir(repository.version("m", 2).join("golden")).unwrap();
    fs::write(repository.version("m", 2).join("golden/one.json"), golden(5.0)).unwrap();
    gateway.wait_for_state("m", 2, "failed");
    let (code, found) = check(&[&repository.version("m", 1)]);
    assert_eq!((code, found[0]["ok"].as_bool()), (Some(0), Some(true)), "{found}");
    let (code, found) = check(&[&repository.version("m", 2), Path::new("--against"), &repository.version("m", 1)]);
    assert_eq!(code, Some(1));
    let offline = steps_of(&found[0]["admission"]);
    let online = gateway.wait("the golden request to be seen", || {
        let online = steps(&gateway, 2);
        (online.iter().filter(|(_, outcome, _)| outcome == "failed").count() == 2).then_some(online)
    });
    assert_eq!(offline, online);
    let faults = found[0]["faults"].to_string();
    assert!(faults.contains("profile.json") && faults.contains("golden/one.json"), "{faults}");
}

#[test]
fn gateway_that_could_admit_nothing_does_not_start() {
    let repository = Repository::new();
    let mut command = command(&repository);
    let output = command.env("TIDEGATE_ADMISSION__REQUIRE_SIGNATURE", "true").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("admission.require_signature needs a key in admission.keys"), "{said}");
}
