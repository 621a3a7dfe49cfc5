//! The values of parameters. The error of each is a line for the user.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cowcloop_engine::format::verity::Digest;
use cowcloop_remote::is_url;

use crate::metrics::MetricsAddress;

/// An absolute path: a server may change to the root directory before it serves.
pub(super) fn path(key: &str, value: &OsStr) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err(format!("{key}: the path is empty"));
    }
    let failed = |error| format!("{key}: {}: {error}", Path::new(value).display());
    std::path::absolute(value).map_err(failed)
}

/// The same, or a URL.
pub(super) fn place(key: &str, value: &OsStr) -> Result<PathBuf, String> {
    let url = value.to_str().is_some_and(is_url);
    if url {
        Ok(value.into())
    } else {
        path(key, value)
    }
}

/// True or false, in the words that nbdkit takes.
pub(super) fn boolean(key: &str, value: &OsStr) -> Result<bool, String> {
    match value.to_string_lossy().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err(format!("{key}: {value:?} is neither true nor false")),
    }
}

/// A decimal number in a range.
pub(super) fn number(
    key: &str,
    value: &OsStr,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    let found = value.to_str().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    found.and_then(|text| text.parse().ok()).filter(|n| range.contains(n)).ok_or_else(|| {
        format!("{key}: {value:?} is not a number from {} to {}", range.start(), range.end())
    })
}

/// A file descriptor, other than the standard three.
pub(super) fn descriptor(key: &str, value: &OsStr) -> Result<i32, String> {
    number(key, value, 3..=i32::MAX as usize).map(|found| found as i32)
}

/// The URL in the file that is open as this descriptor: others could read it on a command line.
pub(super) fn url(key: &str, value: &OsStr) -> Result<PathBuf, String> {
    let number = descriptor(key, value)?;
    let text = std::fs::read_to_string(format!("/proc/self/fd/{number}"))
        .map_err(|error| format!("{key}: descriptor {number}: {error}"))?;
    if is_url(&text) {
        Ok(text.into())
    } else {
        Err(format!("{key}: descriptor {number} holds no URL"))
    }
}

/// `OFFSET+LENGTH`, in bytes.
pub(super) fn range(key: &str, value: &OsStr) -> Result<(u64, u64), String> {
    let text = value.to_string_lossy();
    text.split_once('+')
        .and_then(|(offset, length)| Some((parse_size(offset)?, parse_size(length)?)))
        .ok_or_else(|| format!("{key}: {value:?} is not OFFSET+LENGTH, in bytes"))
}

/// Bytes: a decimal number, and `K`, `M`, `G`, `T`, `P` or `E` for powers of 1024.
pub(super) fn size(key: &str, value: &OsStr) -> Result<u64, String> {
    parse_size(&value.to_string_lossy())
        .ok_or_else(|| format!("{key}: {value:?} is not a size such as 512, 64K, 64M or 1G"))
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A digest as `fsverity digest` prints it.
pub(super) fn digest(key: &str, value: &OsStr) -> Result<Digest, String> {
    let parsed = value.to_string_lossy().parse();
    parsed.map_err(|reason| format!("{key}: {value:?} is {reason}"))
}

/// `[HOST:]PORT`, or the path of a socket, absolute.
pub(super) fn metrics(key: &str, value: &OsStr) -> Result<MetricsAddress, String> {
    let text = value.to_str().ok_or_else(|| format!("{key}: {value:?} is not text"))?;
    match MetricsAddress::parse(text) {
        Ok(MetricsAddress::Unix(_)) => path(key, value).map(MetricsAddress::Unix),
        parsed => parsed.map_err(|problem| format!("{key}: {value:?} {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("64M", 64 << 20),
            ("1G", 1 << 30),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in
            ["", "K", "-1", "+1", "1.5G", "64KK", "64X", "16E", "1 K", "18446744073709551616"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
