//! The parameters of a server, whatever its door: `key=value` on a command line.

mod help;
mod remote;
mod traces;
mod values;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cowcloop_engine::device::{DeviceOptions, DigestTree, Prepare, VerityOptions, MEMORY};
use cowcloop_engine::format::verity::Digest;
use cowcloop_engine::image::ImageOptions;
use cowcloop_engine::jobs::repair_before_use;
pub use help::HELP;
use remote::RemoteParameters;
use traces::TraceParameters;
use values::{boolean, descriptor, digest, metrics, number, path, place, range, size, url};

use crate::metrics::MetricsAddress;
use crate::options::{ServerOptions, SessionOptions};

/// More restarts than a supervisor will ever count.
const MANY: usize = u32::MAX as usize;

/// As long as a machine needs at least, from its last request to the first of its next boot.
const BOOT_GAP: Duration = Duration::from_secs(60);

/// The parameters as given.
#[derive(Debug, Default)]
pub struct Parameters {
    image: Option<PathBuf>,
    image_ranges: Vec<(u64, u64)>,
    image_name: Option<String>,
    verity: Option<Digest>,
    verity_tree: Option<PathBuf>,
    remote: RemoteParameters,
    cows: Vec<PathBuf>,
    create: Option<bool>,
    read_only: Option<bool>,
    repair: Option<bool>,
    size: Option<u64>,
    memory_limit: Option<u64>,
    cache: Option<u64>,
    threads: Option<usize>,
    strict: Option<bool>,
    preload: Option<u64>,
    traces: TraceParameters,
    waiting: Option<usize>,
    sessions: Option<PathBuf>,
    max_sessions: Option<usize>,
    session_quota: Option<u64>,
    kept: Option<PathBuf>,
    restarts: Option<u64>,
    reset_on_boot: Option<bool>,
    boot_gap: Option<usize>,
    control: Option<PathBuf>,
    metrics: Option<MetricsAddress>,
    /// The descriptor for events.
    pub events: Option<i32>,
    /// Whether these events are in the log too.
    pub log: Option<bool>,
    /// The descriptor whose end ends the server.
    pub lifeline: Option<i32>,
}

impl Parameters {
    /// Takes one parameter. The error is a line for the user.
    pub fn set(&mut self, key: &str, value: &OsStr) -> Result<(), String> {
        match key {
            "image" => once(&mut self.image, key, place(key, value)?),
            "image-url" => once(&mut self.image, key, url(key, value)?),
            "image-range" => {
                self.image_ranges.push(range(key, value)?);
                Ok(())
            }
            "image-name" => once(&mut self.image_name, key, value.to_string_lossy().into_owned()),
            "verity" => once(&mut self.verity, key, digest(key, value)?),
            "verity-tree" => once(&mut self.verity_tree, key, path(key, value)?),
            "cow" => {
                let in_memory = value == MEMORY;
                self.cows.push(if in_memory { value.into() } else { path(key, value)? });
                Ok(())
            }
            "create" => once(&mut self.create, key, boolean(key, value)?),
            "read-only" => once(&mut self.read_only, key, boolean(key, value)?),
            "repair" => once(&mut self.repair, key, boolean(key, value)?),
            "size" => once(&mut self.size, key, size(key, value)?),
            "memory-limit" => once(&mut self.memory_limit, key, size(key, value)?),
            "cache" => once(&mut self.cache, key, size(key, value)?),
            "threads" => once(&mut self.threads, key, number(key, value, 0..=1024)?),
            "strict" => once(&mut self.strict, key, boolean(key, value)?),
            "preload" => {
                once(&mut self.preload, key, number(key, value, 0..=u32::MAX as usize)? as u64)
            }
            "waiting" => once(&mut self.waiting, key, number(key, value, 0..=100_000)?),
            "sessions" => once(&mut self.sessions, key, path(key, value)?),
            "max-sessions" => once(&mut self.max_sessions, key, number(key, value, 1..=100_000)?),
            "session-quota" => once(&mut self.session_quota, key, size(key, value)?),
            "kept" => once(&mut self.kept, key, path(key, value)?),
            "restarts" => once(&mut self.restarts, key, number(key, value, 0..=MANY)? as u64),
            "reset-on-boot" => once(&mut self.reset_on_boot, key, boolean(key, value)?),
            "boot-gap" => once(&mut self.boot_gap, key, number(key, value, 0..=10_000_000)?),
            "control" => once(&mut self.control, key, path(key, value)?),
            "metrics" => once(&mut self.metrics, key, metrics(key, value)?),
            "events" => once(&mut self.events, key, descriptor(key, value)?),
            "log" => once(&mut self.log, key, boolean(key, value)?),
            "lifeline" => once(&mut self.lifeline, key, descriptor(key, value)?),
            _ => {
                let set = self.remote.set(key, value).or_else(|| self.traces.set(key, value));
                let unknown = || Err(format!("{key}: no such parameter; --help lists them all"));
                set.unwrap_or_else(unknown)
            }
        }
    }

    /// Checks what only all parameters together show.
    pub fn check(&self) -> Result<(), String> {
        self.image()?;
        if self.image_name.is_some() && self.image_ranges.is_empty() {
            return Err("image-name: only with image-range, for a part of a file".into());
        }
        if self.sessions.is_some() {
            if !self.cows.is_empty() {
                return Err("sessions: each has its own cowfile; leave out cow=PATH".into());
            }
            if self.size.is_some() {
                return Err("size: not with sessions, which are as large as the image".into());
            }
        } else if self.max_sessions.is_some() || self.session_quota.is_some() {
            return Err("max-sessions, session-quota: only with sessions=DIR".into());
        } else if self.reset_on_boot == Some(true) {
            return Err("reset-on-boot: only with sessions=DIR".into());
        }
        if self.boot_gap.is_some() && self.reset_on_boot != Some(true) {
            return Err("boot-gap: only with reset-on-boot=true".into());
        }
        if self.log == Some(false) && self.events.is_none() {
            return Err("log: false leaves nothing that errors are told by; add events=FD".into());
        }
        if self.size.is_some() && self.cows.is_empty() {
            return Err("size: only a cowfile makes a device larger; add cow=PATH".into());
        }
        Ok(())
    }

    /// The image to serve.
    fn image(&self) -> Result<&Path, String> {
        self.image.as_deref().ok_or_else(|| "image: missing; name the image to serve".into())
    }

    /// What is to be served.
    pub fn server_options(&self) -> Result<ServerOptions, String> {
        Ok(ServerOptions {
            image: self.image()?.to_path_buf(),
            cows: self.cows.clone(),
            remote: self.remote.options(),
            device: self.device_options(),
            sessions: self.sessions.clone().map(|folder| {
                let sessions = SessionOptions::new(folder);
                let limit = self.max_sessions.unwrap_or(sessions.limit);
                let reset_on_boot = self.reset_on_boot.unwrap_or(false).then_some(self.boot_gap());
                SessionOptions { limit, reset_on_boot, ..sessions }
            }),
            preload: self.preload,
            trace: self.traces.options(),
            waiting: self.waiting,
            control: self.control.clone(),
            metrics: self.metrics.clone(),
            kept: self.kept.clone(),
            restarts: self.restarts,
        })
    }

    /// How long a machine without a client is taken for one that is off.
    fn boot_gap(&self) -> Duration {
        self.boot_gap.map_or(BOOT_GAP, |seconds| Duration::from_secs(seconds as u64))
    }

    /// The engine's options for it.
    fn device_options(&self) -> DeviceOptions {
        let default = ImageOptions::default();
        DeviceOptions {
            image: ImageOptions {
                cache_bytes: self.cache.unwrap_or(default.cache_bytes),
                threads: self.threads.unwrap_or(default.threads),
                strict: self.strict.unwrap_or(default.strict),
                ..default
            },
            image_ranges: self.image_ranges.clone(),
            image_name: self.image_name.clone(),
            verity: VerityOptions {
                root: self.verity,
                tree: self.verity_tree.clone().map_or(DigestTree::Beside, DigestTree::File),
            },
            read_only: self.read_only.unwrap_or(false),
            create: self.create.unwrap_or(true),
            prepare: self.repair.unwrap_or(false).then_some(repair_before_use as Prepare),
            memory_limit: self.memory_limit,
            device_size: self.size,
            cow_limit: self.session_quota,
            watch: None,
            kept: None,
            takes_over: false,
        }
    }
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    if slot.is_some() {
        return Err(format!("{key}: given twice"));
    }
    *slot = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trace::Prefetch;

    const DIGEST: &str = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";

    fn set(config: &mut Parameters, key: &str, value: &str) -> Result<(), String> {
        config.set(key, OsStr::new(value))
    }

    #[test]
    fn every_parameter_reaches_the_options() {
        let mut config = Parameters::default();
        for (key, value) in [
            ("image", "/a/chicken.img"),
            ("image-range", "1M+4096"),
            ("image-range", "0+512"),
            ("image-name", "a.iso:/b"),
            ("verity", DIGEST),
            ("verity-tree", "/a/tree"),
            ("cow", "/a/low.cow"),
            ("cow", ":memory:"),
            ("cache", "1M"),
            ("threads", "3"),
            ("strict", "yes"),
            ("create", "off"),
            ("read-only", "1"),
            ("repair", "TRUE"),
            ("size", "8G"),
            ("memory-limit", "16M"),
            ("control", "/a/control.sock"),
            ("kept", "/run/a.kept"),
            ("restarts", "2"),
            ("lifeline", "7"),
            ("metrics", "9100"),
            ("events", "8"),
            ("log", "false"),
            ("preload", "100"),
            ("cache-dir", "/c"),
            ("cache-limit", "4G"),
            ("offline", "true"),
            ("timeout", "5"),
            ("ca-file", "/ca.pem"),
            ("record-trace", "/a/new.trace"),
            ("trace", "/a/old.trace"),
            ("prefetch", "all"),
            ("rate", "3M"),
        ] {
            set(&mut config, key, value).unwrap();
        }
        config.check().unwrap();
        assert_eq!(config.image(), Ok(Path::new("/a/chicken.img")));
        assert_eq!(config.cows, [Path::new("/a/low.cow"), Path::new(":memory:")]);
        assert_eq!(config.control.as_deref(), Some(Path::new("/a/control.sock")));
        let options = config.server_options().unwrap();
        assert_eq!(options.kept.as_deref(), Some(Path::new("/run/a.kept")));
        assert_eq!(options.restarts, Some(2));
        assert_eq!(config.lifeline, Some(7));
        assert_eq!(config.metrics, Some(MetricsAddress::Tcp("127.0.0.1".into(), 9100)));
        assert_eq!((config.events, config.log), (Some(8), Some(false)));
        assert_eq!(config.preload, Some(100));
        let remote = config.remote.options();
        assert_eq!((remote.cache_dir, remote.cache_limit), (Some("/c".into()), Some(4 << 30)));
        assert_eq!((remote.offline, remote.timeout), (true, Duration::from_secs(5)));
        assert_eq!(remote.ca_file, Some("/ca.pem".into()));
        assert_eq!(options.trace.record.as_deref(), Some(Path::new("/a/new.trace")));
        assert_eq!(options.trace.replay.as_deref(), Some(Path::new("/a/old.trace")));
        assert_eq!((options.trace.prefetch, options.trace.rate), (Prefetch::All, Some(3 << 20)));
        let options = config.device_options();
        assert_eq!(options.image.cache_bytes, 1 << 20);
        assert_eq!(options.image.threads, 3);
        assert!(options.image.strict);
        assert!(!options.create);
        assert!(options.read_only);
        assert!(options.prepare.is_some());
        assert_eq!(options.image_ranges, [(1 << 20, 4096), (0, 512)]);
        assert_eq!(options.image_name.as_deref(), Some("a.iso:/b"));
        assert_eq!(options.verity.root, Some(DIGEST.parse().unwrap()));
        assert!(
            matches!(options.verity.tree, DigestTree::File(path) if path == Path::new("/a/tree"))
        );
        assert_eq!(options.device_size, Some(8 << 30));
        assert_eq!(options.memory_limit, Some(16 << 20));
    }

    #[test]
    fn the_last_cowfile_is_created_unless_told_otherwise() {
        let options = Parameters::default().device_options();
        assert!(options.create && !options.read_only && options.prepare.is_none());
    }

    #[test]
    fn relative_paths_become_absolute() {
        let mut config = Parameters::default();
        set(&mut config, "image", "chicken.img").unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(config.image(), Ok(here.join("chicken.img").as_path()));
    }

    #[test]
    fn urls_stay_as_they_are() {
        let mut config = Parameters::default();
        set(&mut config, "image", "https://host/a.img").unwrap();
        assert_eq!(config.image(), Ok(Path::new("https://host/a.img")));
    }

    #[test]
    fn errors_name_the_parameter_and_the_value() {
        let mut config = Parameters::default();
        for (key, value, part) in [
            ("cache", "12Q", "\"12Q\" is not a size"),
            ("strict", "maybe", "\"maybe\" is neither"),
            ("threads", "-1", "\"-1\" is not a number from 0 to 1024"),
            ("threads", "9999", "\"9999\" is not a number from 0 to 1024"),
            ("lifeline", "2", "\"2\" is not a number from 3"),
            ("lifeline", "99999999999999999999", "is not a number from 3"),
            ("events", "1", "\"1\" is not a number from 3"),
            ("image", "", "the path is empty"),
            ("prefetch", "some", "\"some\" is not none, trace or all"),
            ("rate", "0", "0 bytes a second"),
            ("metrics", "70000", "\"70000\" has a port"),
            ("verity", "sha256:12", "\"sha256:12\" is not a digest"),
            ("cows", "x", "no such parameter"),
        ] {
            let error = set(&mut config, key, value).unwrap_err();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let mut config = Parameters::default();
        assert!(config.check().unwrap_err().starts_with("image: missing"));
        set(&mut config, "image", "a").unwrap();
        assert!(set(&mut config, "image", "b").unwrap_err().contains("given twice"));
        config.check().unwrap();
        set(&mut config, "log", "false").unwrap();
        assert!(config.check().unwrap_err().contains("add events=FD"));
        set(&mut config, "events", "9").unwrap();
        set(&mut config, "size", "1G").unwrap();
        assert!(config.check().unwrap_err().starts_with("size: "));
        set(&mut config, "sessions", "d").unwrap();
        assert!(config.check().unwrap_err().starts_with("size: not with sessions"));
        set(&mut config, "cow", "c").unwrap();
        assert!(config.check().unwrap_err().starts_with("sessions: "));
        let mut config = Parameters::default();
        set(&mut config, "image", "a").unwrap();
        set(&mut config, "image-name", "b").unwrap();
        assert!(config.check().unwrap_err().starts_with("image-name: only with image-range"));
        let mut config = Parameters::default();
        set(&mut config, "image", "a").unwrap();
        set(&mut config, "max-sessions", "3").unwrap();
        assert!(config.check().unwrap_err().contains("only with sessions=DIR"));
        set(&mut config, "sessions", "d").unwrap();
        set(&mut config, "session-quota", "1M").unwrap();
        config.check().unwrap();
        assert_eq!(config.device_options().cow_limit, Some(1 << 20));
    }
}
