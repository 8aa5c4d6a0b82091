//! The house rules that a program can check.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The code of a file without its inline tests.
fn production(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

fn room(path: &Path) -> String {
    let inside = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn every_file_opens_with_its_purpose() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{}", path.display());
    }
}

#[test]
fn no_file_outgrows_its_room() {
    for (path, text) in sources() {
        let lines = production(&text).lines().count();
        assert!(lines <= 500, "{}: {lines} lines", path.display());
    }
}

#[test]
fn only_the_engine_names_onnx_runtime_and_only_two_of_its_modules_are_unsafe() {
    for (path, text) in sources() {
        let uses_ort = text.contains("use ort::") || text.contains(" ort::");
        assert!(room(&path) == "engine" || !uses_ort, "{}", path.display());
        let is_unsafe = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe "));
        let may_be = path.ends_with("engine/native.rs") || path.ends_with("engine/native/rank.rs");
        assert!(may_be || !is_unsafe, "{}", path.display());
    }
}

/// What a room must not know. `crate::` paths are how one room names another.
#[test]
fn rooms_import_only_what_they_may() {
    let forbidden: [(&str, &[&str]); 10] = [
        (
            "domain",
            &[
                "protocol",
                "gateway",
                "route",
                "schedule",
                "engine",
                "observe",
                "monitor",
                "registry",
                "store",
                "admin",
                "config",
                "telemetry",
            ],
        ),
        (
            "fault",
            &[
                "protocol", "gateway", "route", "schedule", "engine", "observe", "monitor", "registry", "store",
                "admin", "config",
            ],
        ),
        ("release", &["protocol", "gateway", "route", "registry", "store", "admin", "config", "telemetry"]),
        ("gateway", &["protocol", "registry", "store", "admin", "config", "proto"]),
        ("route", &["protocol", "gateway", "registry", "store", "admin", "config", "proto"]),
        ("schedule", &["protocol", "gateway", "route", "registry", "store", "admin", "config", "proto"]),
        ("engine", &["protocol", "gateway", "route", "schedule", "registry", "store", "admin", "config", "proto"]),
        ("registry", &["protocol", "gateway", "admin", "app", "cli"]),
        ("monitor", &["protocol", "gateway", "route", "schedule", "engine", "registry", "store", "admin"]),
        ("protocol", &["route", "schedule", "engine", "registry", "store", "admin", "config"]),
    ];
    for (path, text) in sources() {
        let Some((_, rooms)) = forbidden.iter().find(|(name, _)| *name == room(&path)) else { continue };
        // Tests in files of their own may use the real neighbour.
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = production(&text);
        for other in *rooms {
            let imported = [format!("crate::{other}::"), format!("    {other}::"), format!("crate::{{{other}::")];
            let is_imported = imported.iter().any(|form| {
                text.lines().any(|line| {
                    let code = line.trim_end();
                    !code.trim_start().starts_with("//")
                        && (code.starts_with(form) || code.contains(&format!("crate::{other}::")))
                })
            });
            assert!(!is_imported, "{} imports {other}", path.display());
        }
    }
}

#[test]
fn status_numbers_stand_in_the_table_of_errors_only() {
    for (path, text) in sources() {
        let text = production(&text);
        let is_elsewhere = room(&path) != "fault" && !path.ends_with("tests.rs");
        assert!(!(is_elsewhere && text.contains("tonic::Code::")), "{}", path.display());
    }
}
