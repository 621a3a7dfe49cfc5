//! How an image at a URL is read and kept.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use cowcloop_remote::RemoteOptions;

use super::once;
use super::values::{boolean, number, path, size};

/// The longest time that a read may wait, in seconds.
const DAY: usize = 86_400;

/// The parameters as given.
#[derive(Debug, Default)]
pub(super) struct RemoteParameters {
    cache_dir: Option<PathBuf>,
    cache_limit: Option<u64>,
    offline: Option<bool>,
    timeout: Option<usize>,
    ca_file: Option<PathBuf>,
}

impl RemoteParameters {
    /// Takes one parameter; `None`: it is none of these.
    pub(super) fn set(&mut self, key: &str, value: &OsStr) -> Option<Result<(), String>> {
        Some(match key {
            "cache-dir" => path(key, value).and_then(|path| once(&mut self.cache_dir, key, path)),
            "cache-limit" => {
                size(key, value).and_then(|size| once(&mut self.cache_limit, key, size))
            }
            "offline" => {
                boolean(key, value).and_then(|wanted| once(&mut self.offline, key, wanted))
            }
            "timeout" => {
                number(key, value, 1..=DAY).and_then(|time| once(&mut self.timeout, key, time))
            }
            "ca-file" => path(key, value).and_then(|path| once(&mut self.ca_file, key, path)),
            _ => return None,
        })
    }

    /// What they come to.
    pub(super) fn options(&self) -> RemoteOptions {
        let default = RemoteOptions::default();
        let seconds = |seconds: usize| Duration::from_secs(seconds as u64);
        RemoteOptions {
            cache_dir: self.cache_dir.clone().or(default.cache_dir),
            cache_limit: self.cache_limit,
            offline: self.offline.unwrap_or(false),
            timeout: self.timeout.map_or(default.timeout, seconds),
            ca_file: self.ca_file.clone(),
        }
    }
}
