//! One session: the base until the first write, then a cowfile on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cowcloop_engine::device::{Device, DeviceOptions, KeptOptions};
use cowcloop_engine::format::cowfile::CowState;
use cowcloop_engine::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::Sessions;
use crate::guard::guard;
use crate::places::Place;
use crate::status::{SessionCowfile, SessionStatus};

/// Bytes of the unit that cowfiles map; a device with a cowfile is whole units.
const MAPUNIT: u64 = 1024;

/// One export's device: the base until the first write, then the cowfile on it.
///
/// It is closed when the last connection that shares it ends.
pub(crate) struct Session {
    name: String,
    path: PathBuf,
    sessions: Arc<Sessions>,
    device: OnceLock<Device>,
    /// Held while the device is being made, so that one thread makes it. True
    /// once the server ends, and then none is made.
    birth: Mutex<bool>,
    /// Reads of the base while there was no cowfile, and their bytes.
    before: (AtomicU64, AtomicU64),
    _place: Place,
}

impl Session {
    /// A session that clients are about to open; its cowfile is, or will be, at `path`.
    pub(crate) fn new(name: &str, path: PathBuf, sessions: Arc<Sessions>, place: Place) -> Session {
        Session {
            name: name.to_string(),
            path,
            sessions,
            device: OnceLock::new(),
            birth: Mutex::new(false),
            before: Default::default(),
            _place: place,
        }
    }

    /// The cowfile's path, whether the file exists or not.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a cowfile, open.
    pub(crate) fn has_cowfile(&self) -> bool {
        self.device.get().is_some()
    }

    /// Its part of the reply to a status request, while `connections` clients have it open.
    pub(crate) fn status(&self, connections: usize) -> SessionStatus {
        let reads = self.before.0.load(Ordering::Relaxed);
        let bytes = self.before.1.load(Ordering::Relaxed);
        let cow = self.device.get().and_then(|device| device.status().cowfiles.pop());
        let cowfile = match cow {
            Some(mut cow) => {
                cow.base_reads += reads;
                cow.base_read_bytes += bytes;
                SessionCowfile::Open(cow)
            }
            None => SessionCowfile::NotCreated {
                path: self.path.display().to_string(),
                state: CowState::NotCreated,
                base_reads: reads,
                base_read_bytes: bytes,
            },
        };
        SessionStatus { name: self.name.clone(), connections, cowfile }
    }

    /// Brings the writes to the medium, durably.
    pub(crate) fn sync(&self) -> Result<()> {
        self.flush()?;
        self.device.get().map_or(Ok(()), Device::check_kept)
    }

    /// Fills `buf` from `offset` on.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.device.get().is_none() {
            self.before.0.fetch_add(1, Ordering::Relaxed);
            self.before.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        }
        self.reader().read_at(buf, offset)
    }

    /// Where reads go.
    pub(crate) fn reader(&self) -> &Device {
        self.device.get().unwrap_or(&self.sessions.base)
    }

    /// Where writes go: makes the cowfile when there is none yet.
    pub(crate) fn writer(&self) -> Result<&Device> {
        match self.device.get() {
            Some(device) => Ok(device),
            None => self.make(),
        }
    }

    /// The device with the cowfile, which exists.
    pub(crate) fn existing(&self) -> Result<&Device> {
        self.make()
    }

    /// Size in bytes, the same before and after the cowfile is made.
    pub(crate) fn size(&self) -> u64 {
        match self.device.get() {
            Some(device) => device.size(),
            None => self.sessions.base.size() / MAPUNIT * MAPUNIT,
        }
    }

    /// Whether writes are refused.
    pub(crate) fn read_only(&self) -> bool {
        self.sessions.options.read_only
    }

    /// One line for users.
    pub(crate) fn description(&self) -> String {
        format!("{} + {}", self.sessions.base.description(), self.path.display())
    }

    /// Makes the writes durable; there may have been none.
    pub(crate) fn flush(&self) -> Result<()> {
        self.device.get().map_or(Ok(()), Device::flush)
    }

    #[cold]
    pub(crate) fn make(&self) -> Result<&Device> {
        let ended = self.birth.lock();
        if let Some(device) = self.device.get() {
            return Ok(device);
        }
        if *ended {
            let path = self.path.display().to_string();
            return Err(Error::new(ErrorKind::ReadOnly, path, "the server is ending"));
        }
        let Sessions { base, options, places, .. } = &*self.sessions;
        let _making = places.making();
        let cows = std::slice::from_ref(&self.path);
        let options = DeviceOptions { kept: self.kept(), ..options.clone() };
        let device = base.beside(cows, &options)?;
        Ok(self.device.get_or_init(|| device))
    }

    /// What is kept of it for a server that takes over.
    fn kept(&self) -> Option<KeptOptions> {
        self.sessions.kept.as_ref().map(|kept| kept.of_session(&self.name))
    }

    /// Closes the cowfile; changes are refused from then on. May be repeated.
    pub(crate) fn end(&self) {
        *self.birth.lock() = true;
        if let Some(device) = self.device.get() {
            match (guard(|| device.close()), self.kept()) {
                (Some(Err(error)), _) => self.sessions.events.error(&error.to_string()),
                // Nothing in it counts any more, and there may be thousands of them.
                (Some(Ok(())), Some(kept)) => _ = std::fs::remove_file(kept.path),
                _ => {}
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
        // Dropped with its lock on the cowfile before the name may be used again.
        drop(self.device.take());
        self.sessions.forget(&self.name);
    }
}
