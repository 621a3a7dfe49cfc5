//! Where the bits of cowfiles are kept for a server that takes over: see the crash promise.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cowcloop_engine::device::KeptOptions;

use crate::words::reason;

/// What the kernel made up when the machine was started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The end of a kept file's name, after the session's name.
const SUFFIX: &str = ".kept";

/// A place for kept files, on this boot of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    place: PathBuf,
    boot: [u8; 16],
}

impl Kept {
    /// Those at `place`: a file for one device, a folder for sessions. The error is a line for the
    /// user.
    pub(crate) fn at(place: &Path) -> Result<Kept, String> {
        let text = fs::read_to_string(BOOT_ID)
            .map_err(|error| format!("kept: {BOOT_ID}: {}", reason(&error)))?;
        let boot = boot_id(&text)
            .ok_or_else(|| format!("kept: {BOOT_ID} holds no identity of the machine's boot"))?;
        Ok(Kept { place: place.to_path_buf(), boot })
    }

    /// Makes the folder for sessions, mode 0700, when it is missing. The error is a line for the
    /// user.
    pub(crate) fn make_folder(&self) -> Result<(), String> {
        let place = &self.place;
        match fs::DirBuilder::new().mode(0o700).create(place) {
            Err(_) if place.is_dir() => Ok(()),
            other => {
                other.map_err(|error| format!("kept: {}: {}", place.display(), reason(&error)))
            }
        }
    }

    /// The kept file of the one device.
    pub(crate) fn file(&self) -> KeptOptions {
        KeptOptions { path: self.place.clone(), boot: self.boot }
    }

    /// The kept file of a session.
    pub(crate) fn of_session(&self, name: &str) -> KeptOptions {
        KeptOptions { path: self.place.join(format!("{name}{SUFFIX}")), boot: self.boot }
    }
}

fn boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_its_identity() {
        let found = boot_id("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n").unwrap();
        assert_eq!(found[..4], [0x0f, 0x1e, 0x2d, 0x3c]);
        assert_eq!(found[15], 0xf0);
        for text in ["", "none", "0f1e2d3c", &"0f".repeat(17)] {
            assert_eq!(boot_id(text), None, "{text}");
        }
        assert!(Kept::at(Path::new("/run/x")).is_ok());
    }
}
