//! A state directory on a disk that is full, or cannot be written.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    harness::{Gateway, Repository, command, skipped},
    onnx,
};

const ADMIN: &str = "/admin/v1/models/m";

/// A small disk where the state of a repository goes. Unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may mount nothing, which is said.
    fn mounted(repository: &Repository, what: &str) -> Option<Self> {
        let place = repository.state();
        fs::create_dir(&place).unwrap();
        let id = rustix::process::geteuid().as_raw();
        let options = format!("size=8m,mode=0755,uid={id}");
        if system(&["mount", "-t", "tmpfs", "-o", &options, "tidegate-test"], &place) {
            return Some(Self(place));
        }
        skipped(&format!("{what}: this user may mount no tmpfs"));
        None
    }

    fn remount(&self, option: &str) {
        assert!(system(&["mount", "-o", &format!("remount,{option}")], &self.0), "cannot remount {option}");
    }

    /// Writes until nothing more goes in.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 16, 4096, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        system(&["umount", "-l"], &self.0);
    }
}

/// As root, by sudo where that asks nothing.
fn system(words: &[&str], place: &Path) -> bool {
    let run = |program: &str, before: &[&str]| {
        let done = Command::new(program).args(before).arg(place).output();
        done.is_ok_and(|done| done.status.success())
    };
    let as_root: Vec<_> = ["-n"].into_iter().chain(words.iter().copied()).collect();
    run(words[0], &words[1..]) || run("sudo", &as_root)
}

/// Versions 1 and 2; 2 is stable, 1 was.
fn released(repository: &Repository) -> Gateway {
    repository.add("m", 1, &onnx::add(10));
    let gateway = Gateway::start(repository);
    repository.add("m", 2, &onnx::add(20));
    gateway.wait_for_state("m", 2, "ready");
    assert_eq!(promote(&gateway, 2).0, 200);
    gateway
}

fn promote(gateway: &Gateway, version: u64) -> (u16, Value) {
    gateway.admin("POST", &format!("{ADMIN}/promote"), Some(&json!({"version": version})))
}

fn answering(gateway: &Gateway) -> String {
    let (status, answer) = gateway.run_add("/v2/models/m/infer", 0.0);
    assert_eq!(status, 200, "{answer}");
    answer["model_version"].as_str().unwrap().to_owned()
}

/// A change is refused with the cause and the place, requests are answered, and it is told everywhere.
fn assert_read_only(gateway: &Gateway, place: &Path, cause: &str) {
    let before = answering(gateway);
    let (code, _, said) = gateway.cli(&["rollback", "m", "--to", if before == "1" { "2" } else { "1" }]);
    assert_eq!(code, Some(1), "{said}");
    for words in [cause, place.to_str().unwrap(), "was not made"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(answering(gateway), before);
    assert_eq!(gateway.metric("tidegate_state_writable", &[]), Some(0.0));
    let url = format!("http://{}/readyz", gateway.addresses.metrics);
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(text.starts_with("ready\n") && text.contains(cause), "{text}");
    for arguments in [["models", "--output=table"], ["status", "m"]] {
        let (_, _, said) = gateway.cli(&arguments);
        assert!(said.contains("warning: the state is read-only") && said.contains(cause), "{said}");
    }
    assert!(gateway.log().contains(cause), "{}", gateway.log());
}

fn assert_writable_again(gateway: &Gateway) {
    gateway.wait("a change to be made", || (promote(gateway, 2).0 == 200).then_some(()));
    gateway.wait("the metric", || (gateway.metric("tidegate_state_writable", &[]) == Some(1.0)).then_some(()));
    let (_, history) = gateway.admin("GET", &format!("{ADMIN}/history?verify=true"), None);
    assert_eq!(history["verification"]["intact"], true, "{history}");
}

#[test]
fn full_disk_leaves_room_for_a_rollback_then_says_why_not_and_a_restart_serves() {
    let repository = Repository::new();
    let Some(disk) = Disk::mounted(&repository, "a full disk") else { return };
    let mut gateway = released(&repository);
    assert_eq!(gateway.metric("tidegate_state_reserve_bytes", &[]), Some(1_048_576.0));
    disk.fill();
    let (code, shown, said) = gateway.cli(&["rollback", "m", "--reason", "false alarms"]);
    assert!(code == Some(0) && shown.contains("stable 2 → 1"), "the reserve makes room: {shown}{said}");
    assert_eq!((answering(&gateway), gateway.metric("tidegate_state_reserve_bytes", &[])), ("1".into(), Some(0.0)));

    disk.fill();
    assert_read_only(&gateway, &disk.0, "the disk of the state directory is full");
    gateway.kill();
    let gateway = Gateway::start(&repository);
    assert_eq!(answering(&gateway), "1", "the last release that is known");
    assert_read_only(&gateway, &disk.0, "the disk of the state directory is full");

    disk.make_room();
    assert_writable_again(&gateway);
    gateway.wait("the reserve", || {
        (gateway.metric("tidegate_state_reserve_bytes", &[]) == Some(1_048_576.0)).then_some(())
    });
}

#[test]
fn read_only_file_system_is_read_at_a_start_and_written_once_it_can_be() {
    let repository = Repository::new();
    let Some(disk) = Disk::mounted(&repository, "a read-only file system") else { return };
    let mut gateway = released(&repository);
    // Killed: the last change is in the write-ahead log only.
    gateway.kill();
    disk.remount("ro");
    let gateway = Gateway::start(&repository);
    assert_eq!(answering(&gateway), "2", "the last release that is known");
    assert_read_only(&gateway, &disk.0, "the file system of the state directory is read-only");
    disk.remount("rw");
    assert_writable_again(&gateway);
}

#[test]
fn state_directory_of_somebody_else_is_read_at_a_start() {
    use std::os::unix::fs::PermissionsExt;
    let repository = Repository::new();
    let mut gateway = released(&repository);
    gateway.kill();
    let mode = |directory: u32, file: u32| {
        fs::set_permissions(repository.state(), fs::Permissions::from_mode(directory)).unwrap();
        for entry in fs::read_dir(repository.state()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::set_permissions(path, fs::Permissions::from_mode(file)).unwrap();
            }
        }
    };
    mode(0o555, 0o444);
    if fs::write(repository.state().join("probe"), b"x").is_ok() {
        skipped("a state directory of somebody else: this user may write everything");
        return;
    }
    let gateway = Gateway::start(&repository);
    assert_read_only(&gateway, &repository.state(), "may not be written by this user");
    mode(0o755, 0o644);
    assert_writable_again(&gateway);
}

#[test]
fn first_start_needs_a_disk_that_it_can_write() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(10));
    let Some(disk) = Disk::mounted(&repository, "a first start on a read-only file system") else { return };
    disk.remount("ro");
    let done = command(&repository).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    for words in ["read-only", disk.0.to_str().unwrap(), "there is no state to go on from"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
