//! What is noted of reads, and made ready for the next ones.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::once;
use super::values::{path, place, size, url};
use crate::options::TraceOptions;
use crate::trace::Prefetch;

/// The parameters as given.
#[derive(Debug, Default)]
pub(super) struct TraceParameters {
    record: Option<PathBuf>,
    replay: Option<PathBuf>,
    prefetch: Option<Prefetch>,
    rate: Option<u64>,
}

impl TraceParameters {
    /// Takes one parameter; `None`: it is none of these.
    pub(super) fn set(&mut self, key: &str, value: &OsStr) -> Option<Result<(), String>> {
        Some(match key {
            "record-trace" => path(key, value).and_then(|path| once(&mut self.record, key, path)),
            "trace" => place(key, value).and_then(|place| once(&mut self.replay, key, place)),
            "trace-url" => url(key, value).and_then(|url| once(&mut self.replay, key, url)),
            "prefetch" => prefetch(key, value).and_then(|what| once(&mut self.prefetch, key, what)),
            "rate" => rate(key, value).and_then(|rate| once(&mut self.rate, key, rate)),
            _ => return None,
        })
    }

    /// What they come to.
    pub(super) fn options(&self) -> TraceOptions {
        TraceOptions {
            record: self.record.clone(),
            replay: self.replay.clone(),
            prefetch: self.prefetch.unwrap_or_default(),
            rate: self.rate,
        }
    }
}

fn prefetch(key: &str, value: &OsStr) -> Result<Prefetch, String> {
    match value.to_str() {
        Some("none") => Ok(Prefetch::None),
        Some("trace") => Ok(Prefetch::Trace),
        Some("all") => Ok(Prefetch::All),
        _ => Err(format!("{key}: {value:?} is not none, trace or all")),
    }
}

fn rate(key: &str, value: &OsStr) -> Result<u64, String> {
    match size(key, value)? {
        0 => Err(format!("{key}: 0 bytes a second are nothing: give prefetch=none for that")),
        rate => Ok(rate),
    }
}
