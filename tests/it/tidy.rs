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
fn only_the_engine_names_onnx_runtime_and_only_some_of_its_modules_are_unsafe() {
    for (path, text) in sources() {
        let uses_ort = text.contains("use ort::") || text.contains(" ort::");
        assert!(room(&path) == "engine" || !uses_ort, "{}", path.display());
        let is_unsafe = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe "));
        let may_be =
            ["native.rs", "native/memory.rs", "native/memory/block.rs", "native/memory/tests.rs", "native/rank.rs"]
                .map(|file| format!("engine/{file}"));
        let may_be = may_be.iter().any(|file| path.ends_with(file));
        assert!(may_be || !is_unsafe, "{}", path.display());
    }
}

/// What a room must not know. `crate::` paths are how one room names another.
#[test]
fn rooms_import_only_what_they_may() {
    let forbidden: [(&str, &[&str]); 14] = [
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
        (
            "events",
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
        ("shadow", &["protocol", "gateway", "registry", "store", "admin", "config", "proto"]),
        ("store", &["protocol", "gateway", "route", "schedule", "engine", "observe", "monitor", "admin", "config"]),
        ("release", &["protocol", "gateway", "route", "registry", "store", "admin", "config", "telemetry"]),
        (
            "rollout",
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
            let is_imported = imports(text).any(|import| import.starts_with(&format!("{other}::")));
            assert!(!is_imported, "{} imports {other}", path.display());
        }
    }
}

/// What follows `crate::` in a file, in each of the ways to write it.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    let mut is_in_list = false;
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(move |line| {
        let listed = line.strip_prefix("    ").filter(|_| is_in_list);
        is_in_list = line == "use crate::{" || (is_in_list && line != "};");
        let inline = line.split("crate::").skip(1).map(|rest| rest.trim_start_matches('{'));
        listed.into_iter().chain(inline)
    })
}

#[test]
fn status_numbers_stand_in_the_table_of_errors_only() {
    for (path, text) in sources() {
        let text = production(&text);
        let is_elsewhere = room(&path) != "fault" && !path.ends_with("tests.rs");
        assert!(!(is_elsewhere && text.contains("tonic::Code::")), "{}", path.display());
    }
}

#[test]
fn everything_in_our_proto_is_commented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/tidegate_admin.proto");
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (above, line) in lines.iter().zip(&lines[1..]) {
        if ["service ", "rpc ", "message "].iter().any(|start| line.starts_with(start)) {
            assert!(above.starts_with("//"), "{line}");
        }
    }
}
