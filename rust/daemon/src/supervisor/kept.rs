//! What outlives the server: the bits of new blocks, and whether the cowfile's medium has failed.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{fdatasync, ftruncate, memfd_create, MemfdFlags};

/// The kept file in memory, for the server to inherit, and a witness of the cowfile.
#[derive(Debug)]
pub struct Kept {
    file: OwnedFd,
    cowfile: PathBuf,
    /// Open since the first server was ready. The kernel tells each such descriptor of a failed
    /// write once, even if a server that then died was told as well.
    witness: Option<File>,
}

impl Kept {
    /// One for the cowfile at this path.
    pub fn new(cowfile: PathBuf) -> io::Result<Kept> {
        let file = memfd_create("cowcloop-kept", MemfdFlags::empty())?;
        Ok(Kept { file, cowfile, witness: None })
    }

    /// The name by which a server that inherits it opens it. A machine without udev, as it boots,
    /// has no /dev/fd.
    pub fn name(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// A server has the cowfile open.
    pub fn watch(&mut self) {
        if self.witness.is_none() {
            // Without it, only what the server itself has seen counts.
            self.witness = File::open(&self.cowfile).ok();
        }
    }

    /// The server is dead. Where what it wrote may be lost, its bits count for nothing.
    pub fn settle(&self) {
        let lost = self.witness.as_ref().is_some_and(|witness| fdatasync(witness).is_err());
        if lost {
            // Nothing else can be done about it; the next server refuses what is no kept file.
            let _ = ftruncate(&self.file, 0);
        }
    }
}
