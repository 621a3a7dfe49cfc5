//! One session: the base until the first write, then a cowfile on it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cowcloop_engine::device::{Device, DeviceOptions, KeptOptions};
use cowcloop_engine::format::cowfile::CowState;
use cowcloop_engine::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::name::Wanted;
use super::Sessions;
use crate::guard::guard;
use crate::places::Place;
use crate::status::{SessionCowfile, SessionStatus};

/// Bytes of the unit that cowfiles map; a device with a cowfile is whole units.
const MAPUNIT: u64 = 1024;

/// The number of the next session.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Why a session that has begun anew refuses the clients from before.
const CUT: &str = "the session has begun anew: connect again";

/// One export's device: the base until the first write, then the cowfile on it.
///
/// It is closed when the last connection that shares it ends.
pub(crate) struct Session {
    name: String,
    /// Its number as a reader of the image.
    number: u64,
    /// The boot of its machine, where that was named.
    boot: Option<String>,
    path: PathBuf,
    clients: AtomicUsize,
    /// It is no session any more: another one has its name.
    cut: AtomicBool,
    sessions: Arc<Sessions>,
    device: OnceLock<Device>,
    /// Held while the device is being made, so that one thread makes it; or the reason why
    /// none is made any more.
    birth: Mutex<Option<&'static str>>,
    /// Reads of the base while there was no cowfile, and their bytes.
    before: (AtomicU64, AtomicU64),
    _place: Place,
}

impl Session {
    /// A session that clients are about to open; its cowfile is, or will be, at `path`.
    pub(super) fn new(
        wanted: Wanted<'_>,
        path: PathBuf,
        sessions: Arc<Sessions>,
        place: Place,
    ) -> Session {
        Session {
            name: wanted.name.to_string(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            boot: wanted.boot.map(str::to_string),
            path,
            clients: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
            sessions,
            device: OnceLock::new(),
            birth: Mutex::new(None),
            before: Default::default(),
            _place: place,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its number as a reader of the image.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a client of this boot belongs to it; one that names none does.
    pub(super) fn is_of(&self, boot: Option<&str>) -> bool {
        boot.is_none() || boot == self.boot.as_deref()
    }

    /// Clients that have it open.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Ordering::Acquire)
    }

    /// The cowfile's path, whether the file exists or not.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a cowfile, open.
    pub(crate) fn has_cowfile(&self) -> bool {
        self.device.get().is_some()
    }

    /// Its part of the reply to a status request.
    pub(crate) fn status(&self) -> SessionStatus {
        let connections = self.clients();
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
        self.refuse_if_cut()?;
        if self.device.get().is_none() {
            self.before.0.fetch_add(1, Ordering::Relaxed);
            self.before.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        }
        self.reader().read_at(buf, offset)
    }

    fn refuse_if_cut(&self) -> Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Io, self.path.display().to_string(), CUT));
        }
        Ok(())
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
        self.refuse_if_cut()?;
        self.device.get().map_or(Ok(()), Device::flush)
    }

    #[cold]
    pub(crate) fn make(&self) -> Result<&Device> {
        let ended = self.birth.lock();
        if let Some(device) = self.device.get() {
            return Ok(device);
        }
        if let Some(reason) = *ended {
            let path = self.path.display().to_string();
            return Err(Error::new(ErrorKind::ReadOnly, path, reason));
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
        self.end_because("the server is ending");
    }

    /// Ends it for the clients that it has: the next one opens another session of this name.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.end_because(CUT);
    }

    fn end_because(&self, reason: &'static str) {
        self.birth.lock().get_or_insert(reason);
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
        let cut = self.cut.load(Ordering::Acquire);
        // One that was cut off has been closed, and what is kept is another session's now.
        if !cut {
            self.end();
        }
        // Dropped with its lock on the cowfile before the name may be used again.
        drop(self.device.take());
        if !cut {
            self.sessions.left(&self.name);
        }
    }
}

/// A client of a session.
pub(crate) struct Client(Arc<Session>);

impl Client {
    /// Called with the table of sessions locked.
    pub(super) fn new(session: Arc<Session>) -> Client {
        session.clients.fetch_add(1, Ordering::AcqRel);
        Client(session)
    }
}

impl Deref for Client {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}
