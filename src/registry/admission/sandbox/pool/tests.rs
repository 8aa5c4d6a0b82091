//! Workers that answer, die and hang: programs of the shell stand in for them here, the real one is
//! tried by the integration tests.

use std::fs;

use super::*;

fn sandbox(script: &str) -> Sandbox {
    Sandbox::new(SandboxOptions {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into(), "worker".into()],
        library: "library".into(),
        time_limit: Duration::from_secs(1),
        memory_limit: 1000,
    })
}

fn job() -> Job {
    let (directory, model_file, digest) = ("/".into(), "model.onnx".into(), String::new());
    Job { directory, link_roots: Vec::new(), model_file, digest, size: 10, seconds: 1, memory: 1040, is_urgent: true }
}

const PASSED: &str = "echo '\"Passed\"'";

#[test]
fn worker_answers_many_jobs_and_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let starts = directory.path().join("starts");
    let sandbox = sandbox(&format!("echo x >> {}; while read job; do {PASSED}; done", starts.display()));
    for _ in 0..3 {
        assert_eq!(sandbox.try_out(&job()).unwrap(), Reply::Passed);
    }
    assert_eq!(fs::read_to_string(starts).unwrap(), "x\n");
    assert_eq!(sandbox.limits(10), (1040, 1));
}

#[test]
fn death_on_a_later_job_is_judged_by_a_fresh_worker() {
    // Each worker dies on its second job: no job is ever its fault.
    let harmed = sandbox(&format!("read job; {PASSED}; read job; kill -SEGV $$"));
    for _ in 0..3 {
        assert_eq!(harmed.try_out(&job()).unwrap(), Reply::Passed);
    }
}

#[test]
fn death_says_its_signal_and_its_last_words() {
    let cases = [
        ("echo terminate called >&2; kill -ABRT $$", false, "(signal 6, SIGABRT): terminate called"),
        ("kill -SEGV $$", false, "(signal 11, SIGSEGV)"),
        ("kill -XCPU $$", false, "more than 1 s of processor time"),
        ("kill -KILL $$", true, "out of memory"),
        ("exit 3", false, "exit code 3"),
        ("echo nonsense; exit 0", false, "exit code 0"),
    ];
    for (script, is_transient, words) in cases {
        let faults = sandbox(&format!("read job; {script}")).try_out(&job()).unwrap_err();
        assert!(faults.reasons[0].contains(words), "{script}: {faults:?}");
        assert_eq!(faults.is_transient, is_transient, "{script}");
    }
}

#[test]
fn worker_that_floods_stderr_is_heard_out() {
    let script = format!("read job; head -c 300000 /dev/zero | tr '\\0' 'x' >&2; {PASSED}");
    assert_eq!(sandbox(&script).try_out(&job()).unwrap(), Reply::Passed);
}

#[test]
fn worker_that_never_answers_is_given_up() {
    let mut worker = Worker::start(&sandbox("read job; read nothing").0.options).unwrap();
    let death = worker.ask(b"job\n", Duration::ZERO).unwrap_err();
    assert!(death.is_late);
    let faults = death.faults(&job());
    assert!(faults.is_transient && faults.reasons[0].contains("within 10 s"), "{faults:?}");
}

#[test]
fn program_that_cannot_be_started_may_be_there_later() {
    let mut options = sandbox("").0.options.clone();
    options.program = "/nonexistent".into();
    let faults = Sandbox::new(options).try_out(&job()).unwrap_err();
    assert!(faults.is_transient && faults.reasons[0].contains("cannot start"), "{faults:?}");
}

#[test]
fn workers_get_no_variables_of_the_gateway() {
    assert!(std::env::var_os("PATH").is_some());
    let script = "read job; test -z \"$HOME$CARGO_MANIFEST_DIR\" && echo '\"Passed\"'";
    assert_eq!(sandbox(script).try_out(&job()).unwrap(), Reply::Passed);
}
