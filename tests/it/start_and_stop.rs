//! Starting with what is wrong, stopping while work is going on.

use std::{fs, net::TcpListener, process::Output};

use crate::{
    harness::{Gateway, Repository, command, request},
    onnx,
};

fn fails_to_start(repository: &Repository, adjust: impl FnOnce(&mut std::process::Command)) -> (i32, String) {
    let mut command = command(repository);
    adjust(&mut command);
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn missing_library_is_one_clear_line() {
    let repository = Repository::new();
    let (code, text) = fails_to_start(&repository, |command| {
        command.env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    });
    assert_eq!(code, 1);
    let line = text.lines().last().unwrap();
    assert!(line.starts_with("error: ONNX Runtime not found") && line.contains("make setup"), "{text}");
}

#[test]
fn library_that_is_none_is_one_clear_line() {
    let repository = Repository::new();
    let file = repository.path().join("libonnxruntime.so");
    fs::write(&file, b"not a library").unwrap();
    let (code, text) = fails_to_start(&repository, |command| {
        command.env("ORT_DYLIB_PATH", &file);
    });
    let line = text.lines().last().unwrap();
    assert!(code == 1 && line.contains("cannot be used") && line.contains("ORT_DYLIB_PATH"), "{text}");
}

#[test]
fn wrong_configuration_ends_with_2_before_anything_starts() {
    let repository = Repository::new();
    let (code, text) = fails_to_start(&repository, |command| {
        command.env("TIDEGATE_SERVER__HTPP", "127.0.0.1:1");
    });
    assert!(code == 2 && text.contains("TIDEGATE_SERVER__HTPP"), "{code} {text}");
    assert!(!repository.state().exists());
}

#[test]
fn missing_repository_is_named() {
    let repository = Repository::new();
    fs::remove_dir(repository.models()).unwrap();
    let (code, text) = fails_to_start(&repository, |_| ());
    assert!(code == 1 && text.contains(repository.models().to_str().unwrap()), "{text}");
}

#[test]
fn taken_port_is_named() {
    let repository = Repository::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--http", &address, "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0", "--models"])
        .arg(repository.models())
        .arg("--state")
        .arg(repository.state())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&format!("cannot listen on {address} (server.http)")), "{text}");
}

#[test]
fn state_in_use_is_refused() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let _gateway = Gateway::start(&repository);
    let (code, text) = fails_to_start(&repository, |_| ());
    assert!(code == 1 && text.contains("in use"), "{text}");
}

#[test]
fn empty_repository_is_served() {
    let repository = Repository::new();
    let gateway = Gateway::start(&repository);
    assert_eq!(gateway.get("/v2/health/live").0, 200);
    assert_eq!(gateway.get("/v2/models/m").0, 404);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(request("GET", gateway.addresses.metrics, path, None).0, 200, "{path}");
    }
}

#[test]
fn sigterm_finishes_what_has_begun_and_exits_0() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let mut gateway = Gateway::start(&repository);
    let addresses = gateway.addresses;
    let (failed, answered) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let body = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[0]}]}"#;
            let (mut failed, mut answered) = (0, 0);
            loop {
                match request("POST", addresses.http, "/v2/models/m/infer", Some(body)).0 {
                    200 => answered += 1,
                    // Refused connections: the gateway is gone.
                    0 => return (failed, answered),
                    _ => failed += 1,
                }
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
        client.join().unwrap()
    });
    assert!(failed == 0 && answered > 0, "{failed} failed, {answered} answered");
    assert!(gateway.log().contains("stopped"));
}
