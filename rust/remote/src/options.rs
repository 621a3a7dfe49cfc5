//! How an image far away is read and kept.

use std::path::PathBuf;
use std::time::Duration;

/// How an image far away is read and kept.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Where what was fetched is kept; `None`: nothing is.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that all images in that directory may take; `None`: what leaves a tenth of its file
    /// system free.
    pub cache_limit: Option<u64>,
    /// Ask no server: only what is kept can be read.
    pub offline: bool,
    /// How long a read waits for a server at most.
    pub timeout: Duration,
    /// Certificates (PEM) of authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl RemoteOptions {
    /// How long a read waits unless another time is given.
    pub const TIMEOUT: Duration = Duration::from_secs(60);

    /// The directory below `$XDG_CACHE_HOME` or `~/.cache` where images are kept unless another
    /// one is given; `None` for a user without either.
    pub fn default_cache_dir() -> Option<PathBuf> {
        let absolute = |path: PathBuf| path.is_absolute().then_some(path);
        let of = |name: &str| std::env::var_os(name).map(PathBuf::from).and_then(absolute);
        let cache = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
        cache.map(|cache| cache.join("cowcloop").join("images"))
    }

    /// The time without a byte after which an attempt is given up, and another one begun.
    pub(crate) fn idle(&self) -> Duration {
        (self.timeout / 3).clamp(Duration::from_millis(500), Duration::from_secs(15))
    }
}

impl Default for RemoteOptions {
    fn default() -> Self {
        RemoteOptions {
            cache_dir: Self::default_cache_dir(),
            cache_limit: None,
            offline: false,
            timeout: Self::TIMEOUT,
            ca_file: None,
        }
    }
}
