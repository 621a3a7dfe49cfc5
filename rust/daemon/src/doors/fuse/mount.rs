//! Mounting and unmounting, as root by the system's calls, as another user by fusermount3.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cowcloop_server::reason;
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::mount::{unmount, UnmountFlags};
use rustix::process::geteuid;

use super::file::DeviceFile;

/// The source of the mount, as users see it.
const SOURCE: &str = "cowcloop";
/// The program that may mount for users, and its package.
const HELPER: (&str, &str) = ("fusermount3", "fuse3");

/// Threads that read requests: one for each core to answer, and one to go on reading.
pub fn readers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 7) + 1
}

/// How the file system is mounted, and its requests are read.
pub fn config(read_only: bool, allow_other: bool) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(SOURCE.into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        if read_only { MountOption::RO } else { MountOption::RW },
    ];
    // Root's may be used by others as far as its mode lets them; users have to be allowed that
    // by /etc/fuse.conf.
    if allow_other || geteuid().is_root() {
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(readers());
    config
}

/// Mounts the file system on an empty directory, as the kernel knows that. The error is a line
/// for the user.
pub fn mount(
    file: DeviceFile,
    folder: &Path,
    config: &Config,
) -> Result<Session<DeviceFile>, String> {
    Session::new(file, folder, config).map_err(|error| refusal(folder, &error))
}

fn refusal(folder: &Path, error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::NotFound && !Path::new("/dev/fuse").exists() {
        return "/dev/fuse does not exist: load the kernel's module with: modprobe fuse".into();
    }
    if error.kind() == std::io::ErrorKind::NotFound && !geteuid().is_root() {
        let (program, package) = HELPER;
        return format!("{program} is missing: install it (Debian, Ubuntu: {package})");
    }
    // What the helper has to say may be several lines, each with its name.
    let text = reason(error);
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches(HELPER.0).trim_start_matches(": ");
    format!("{}: cannot mount: {line}", folder.display())
}

/// Where it is mounted.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// The directory, without links in its path.
    pub fn new(folder: PathBuf) -> Place {
        Place(folder)
    }

    /// Takes the file system away from its directory, even while it is in use.
    pub fn detach(&self) {
        // Of either, a failure means that it is not mounted there any more.
        if geteuid().is_root() {
            let _ = unmount(&self.0, UnmountFlags::DETACH);
            return;
        }
        let mut helper = Command::new(HELPER.0);
        helper.args(["-u", "-q", "-z", "--"]).arg(&self.0);
        let _ = helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
