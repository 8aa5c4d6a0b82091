//! The memory that this process may use.

use std::{
    fs,
    path::{Component, Path},
};

/// In bytes: the machine's, or less where a control group or its parents say so. `None` where
/// neither can be found out.
#[must_use]
pub fn usable_memory() -> Option<u64> {
    usable(Path::new("/"))
}

fn usable(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        match (fields.next()?, fields.next()?) {
            ("", group) => least(&root.join("sys/fs/cgroup"), group, "memory.max"),
            (controllers, group) if controllers.split(',').any(|controller| controller == "memory") => {
                least(&root.join("sys/fs/cgroup/memory"), group, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.chain(machine(root)).min()
}

/// The least limit of the group and its parents. In a container the path may be that on the host,
/// of which only the mount itself is to be seen.
fn least(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let inside: Vec<_> = Path::new(group).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let directories =
        (0..=inside.len()).map(|depth| mount.join(inside[..depth].iter().collect::<std::path::PathBuf>()));
    let limit = |directory: std::path::PathBuf| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok();
    directories.filter_map(limit).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        usable(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\n");

    #[test]
    fn machine_is_the_limit_where_no_group_says_less() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MACHINE]), Some(16 << 20));
        let unlimited = ("sys/fs/cgroup/a/memory.max", "max\n");
        assert_eq!(system(&[MACHINE, ("proc/self/cgroup", "0::/a\n"), unlimited]), Some(16 << 20));
    }

    #[test]
    fn least_of_a_group_and_its_parents_counts() {
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let (a, b) = (("sys/fs/cgroup/a/memory.max", "1048576\n"), ("sys/fs/cgroup/a/b/memory.max", "2097152\n"));
        assert_eq!(system(&[MACHINE, group, a, b]), Some(1 << 20));
    }

    #[test]
    fn container_sees_its_own_group_at_the_mount() {
        let group = ("proc/self/cgroup", "0::/../host/slice\n");
        assert_eq!(system(&[MACHINE, group, ("sys/fs/cgroup/memory.max", "4096\n")]), Some(4096));
    }

    #[test]
    fn old_groups_are_understood() {
        let group = ("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/a\n0::/\n");
        let (a, root) = (
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8192\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        );
        assert_eq!(system(&[MACHINE, group, a, root]), Some(8192));
    }
}
