//! How much memory this process may use.

use std::fs;
use std::path::{Path, PathBuf};

/// Where version 2 of the kernel's control groups has its files.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Bytes: the machine's memory, or less where a control group allows less.
pub(crate) fn limit() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram as u64 * u64::from(info.mem_unit);
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(Path::new(CONTROL_GROUPS), &group).map_or(machine, |group| group.min(machine))
}

/// The least that the control group and those around it allow; `membership` is
/// `/proc/self/cgroup` (cgroups(7)).
fn group_limit(root: &Path, membership: &str) -> Option<u64> {
    let group = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of what this process sees is shown with dots.
    let group: PathBuf = Path::new(group)
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect();
    let folder = root.join(group);
    let limit = |folder: &Path| -> Option<u64> {
        // "max" where there is no limit.
        fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()
    };
    folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        assert_eq!(group_limit(root, "0::/a/b\n"), None);
        fs::write(root.join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(group_limit(root, "0::/a/b\n"), None);
        fs::write(root.join("a/memory.max"), "4096\n").unwrap();
        assert_eq!(group_limit(root, "12:memory:/x\n0::/a/b\n"), Some(4096));
        fs::write(root.join("a/b/memory.max"), "1024\n").unwrap();
        assert_eq!(group_limit(root, "0::/a/b\n"), Some(1024));
        assert_eq!(group_limit(root, "0::/../a\n"), Some(4096));
        assert_eq!(group_limit(root, "0::/\n"), None);
        assert_eq!(group_limit(root, ""), None);
    }

    #[test]
    fn there_is_some() {
        assert!(limit() > 1 << 20);
    }
}
