//! Sessions: many cowfiles over one base, each picked by its export name.
//!
//! A session is open while clients are connected to it, and its cowfile is
//! closed cleanly with the last of them, or when the server ends. The cowfile is
//! made by the session's first write, so that to look costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::{Error, ErrorKind, Result};
use serde_json::{json, Value};

use crate::places::{self, Place};
use crate::report::reason;
use crate::server::cowfile_status;
use crate::{host, report};

/// Bytes of the unit that cowfiles map; a device with a cowfile is whole units.
const MAPUNIT: u64 = 1024;
/// Bytes of the longest session name.
const MAX_NAME: usize = 200;
/// What follows a session's name in its cowfile's.
const SUFFIX: &str = ".cow";
/// Sessions that one listing shows; nbdkit takes at most 10000 exports.
const MAX_LISTED: usize = 9999;

/// The sessions of one folder.
pub struct Sessions {
    folder: PathBuf,
    base: Arc<Device>,
    options: DeviceOptions,
    limit: usize,
    open: Mutex<OpenSessions>,
    closed: Condvar,
}

/// The sessions that have clients, by name.
#[derive(Default)]
struct OpenSessions {
    /// One that cannot be upgraded is just being closed.
    by_name: BTreeMap<String, Weak<Session>>,
    /// The server ends: nobody joins any more.
    ended: bool,
}

/// One export's device: the base until the first write, then the cowfile on it.
///
/// It is closed when the last of those who share it lets go.
pub struct Session {
    name: String,
    path: PathBuf,
    sessions: Arc<Sessions>,
    device: OnceLock<Device>,
    /// Held while the device is being made, so that one thread makes it. True
    /// once the server ends, and then none is made.
    birth: Mutex<bool>,
    /// Reads of the base while there was no cowfile, and their bytes.
    before: (AtomicU64, AtomicU64),
    _place: Option<Place>,
}

impl Sessions {
    /// The sessions in `folder`, which is made (mode 0700) when it is missing.
    pub fn new(
        folder: &Path,
        base: Arc<Device>,
        options: DeviceOptions,
        limit: usize,
    ) -> std::result::Result<Sessions, String> {
        let line = |error| format!("sessions: {}: {}", folder.display(), reason(&error));
        if !folder.is_dir() {
            DirBuilder::new().mode(0o700).create(folder).map_err(line)?;
        }
        std::fs::read_dir(folder).map_err(line)?;
        Ok(Sessions {
            folder: folder.to_path_buf(),
            base,
            options,
            limit,
            open: Mutex::default(),
            closed: Condvar::new(),
        })
    }

    /// Joins the session `name`, which is opened when nobody has it open.
    /// The error is a line for the log.
    pub fn join(self: &Arc<Self>, name: &[u8]) -> std::result::Result<Arc<Session>, String> {
        let name = valid_name(name).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&name[..name.len().min(MAX_NAME)]);
            format!(
                "export {shown:?}: not a session name; 1 to {MAX_NAME} letters, digits, dots, \
                 underscores and dashes, not beginning with a dot"
            )
        })?;
        let session = self.enter(name)?;
        if session.path.symlink_metadata().is_ok() {
            session.make().map_err(|error| error.to_string())?;
        }
        Ok(session)
    }

    /// Joins a session that has a cowfile. The error is a line for the user.
    pub fn join_existing(
        self: &Arc<Self>,
        name: &str,
    ) -> std::result::Result<Arc<Session>, String> {
        match valid_name(name.as_bytes()) {
            // Its cowfile may have been removed.
            Some(name) if self.in_use(name).is_ok() => self.in_use(name),
            Some(name) if self.path(name).symlink_metadata().is_ok() => self.join(name.as_bytes()),
            _ => Err(format!("session {name:?}: there is none of that name with a cowfile")),
        }
    }

    /// A session that clients have open, with its cowfile. The error is a line for the user.
    pub fn in_use(&self, name: &str) -> std::result::Result<Arc<Session>, String> {
        let session = self.lock().by_name.get(name).and_then(Weak::upgrade);
        session
            .filter(|session| session.device.get().is_some())
            .ok_or_else(|| format!("session {name:?}: nobody has it open with a cowfile"))
    }

    fn lock(&self) -> MutexGuard<'_, OpenSessions> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, name: &str) -> std::result::Result<Arc<Session>, String> {
        let mut open = self.lock();
        loop {
            if open.ended {
                return Err(format!("session {name}: the server is ending"));
            }
            match open.by_name.get(name).map(Weak::upgrade) {
                None => break,
                Some(Some(session)) => return Ok(session),
                Some(None) => {}
            }
            open = self.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        let path = self.path(name);
        // A name without a cowfile takes a place from the start, so that no
        // number of clients that begin to write at once exceeds the limit.
        if path.symlink_metadata().is_err() {
            let mut names = self.stored();
            names.extend(open.by_name.keys().cloned());
            if names.len() >= self.limit {
                return Err(format!(
                    "session {name}: there are {} sessions, and max-sessions allows {}",
                    names.len(),
                    self.limit
                ));
            }
        }
        let place = places::session().map_err(|why| format!("session {name}: {why}"))?;
        let session = Arc::new(Session {
            name: name.to_string(),
            path,
            sessions: self.clone(),
            device: OnceLock::new(),
            birth: Mutex::new(false),
            before: Default::default(),
            _place: place,
        });
        open.by_name.insert(name.to_string(), Arc::downgrade(&session));
        Ok(session)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }

    /// The names of the sessions that have a cowfile.
    fn stored(&self) -> BTreeSet<String> {
        let Ok(folder) = std::fs::read_dir(&self.folder) else { return BTreeSet::new() };
        folder
            .filter_map(|entry| {
                let file = entry.ok()?.file_name();
                let name = file.to_str()?.strip_suffix(SUFFIX)?;
                valid_name(name.as_bytes()).map(str::to_string)
            })
            .collect()
    }

    /// The sessions that clients have open now.
    fn all_in_use(&self) -> Vec<Arc<Session>> {
        // Let go of by the caller, outside of the lock: the last one closes.
        self.lock().by_name.values().filter_map(Weak::upgrade).collect()
    }

    /// Every session, open or not, in the order of the names, with a line for people.
    pub fn list(&self) -> Vec<(String, String)> {
        let base = self.base.description();
        let mut names = self.stored();
        names.extend(self.lock().by_name.keys().cloned());
        names
            .into_iter()
            .take(MAX_LISTED)
            .map(|name| {
                let description = format!("{base} + {}", self.path(&name).display());
                (name, description)
            })
            .collect()
    }

    /// Each session's part of the reply to a status request.
    pub fn status(&self) -> Vec<Value> {
        let mut sessions: BTreeMap<String, Value> =
            self.stored().into_iter().map(|name| (name.clone(), self.at_rest(&name))).collect();
        for session in self.all_in_use() {
            let cow = session.device.get().and_then(|device| device.status().cowfiles.pop());
            let mut status = match cow {
                Some(cow) => cowfile_status(&cow),
                None => {
                    json!({ "path": session.path.display().to_string(), "state": "not created" })
                }
            };
            let Session { before: (reads, bytes), .. } = &*session;
            for (key, before) in [("base_reads", reads), ("base_read_bytes", bytes)] {
                let later = status[key].as_u64().unwrap_or(0);
                status[key] = (before.load(Ordering::Relaxed) + later).into();
            }
            // One hold is ours.
            status["connections"] = (Arc::strong_count(&session) - 1).into();
            sessions.insert(session.name.clone(), status);
        }
        sessions
            .into_iter()
            .map(|(name, mut status)| {
                status["name"] = name.into();
                status
            })
            .collect()
    }

    /// What can be said of a session that nobody has open.
    fn at_rest(&self, name: &str) -> Value {
        let path = self.path(name);
        let allocated = path.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        json!({
            "path": path.display().to_string(),
            "state": "closed",
            "allocated": allocated,
            "connections": 0,
        })
    }

    /// Brings everything that is open to the medium, to stay there. All are tried; the first
    /// error is told.
    pub fn sync(&self) -> Result<()> {
        let kept = |session: &Arc<Session>| session.device.get().map_or(Ok(()), Device::check_kept);
        let sync = |session: &Arc<Session>| session.flush().and_then(|()| kept(session));
        self.all_in_use().iter().map(sync).fold(Ok(()), Result::and)
    }

    /// Closes every session cleanly, with or without clients; returns when all
    /// are closed. Errors are told to the log.
    ///
    /// nbdkit does not close the connections that it has when it ends.
    pub fn close(&self) {
        self.lock().ended = true;
        for session in self.all_in_use() {
            session.end();
        }
        let mut open = self.lock();
        while open.by_name.values().any(|session| session.strong_count() == 0) {
            open = self.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Session {
    /// Fills `buf` from `offset` on.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.device.get().is_none() {
            self.before.0.fetch_add(1, Ordering::Relaxed);
            self.before.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        }
        self.reader().read_at(buf, offset)
    }

    /// Where reads go.
    pub fn reader(&self) -> &Device {
        self.device.get().unwrap_or(&self.sessions.base)
    }

    /// Where writes go: makes the cowfile when there is none yet.
    pub fn writer(&self) -> Result<&Device> {
        match self.device.get() {
            Some(device) => Ok(device),
            None => self.make(),
        }
    }

    /// The device with the cowfile, which is there.
    pub fn existing(&self) -> Result<&Device> {
        self.make()
    }

    /// Size in bytes, the same before and after the cowfile is made.
    pub fn size(&self) -> u64 {
        match self.device.get() {
            Some(device) => device.size(),
            None => self.sessions.base.size() / MAPUNIT * MAPUNIT,
        }
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.sessions.options.read_only
    }

    /// One line for people.
    pub fn description(&self) -> String {
        format!("{} + {}", self.sessions.base.description(), self.path.display())
    }

    /// Makes what was written durable; there may have been nothing.
    pub fn flush(&self) -> Result<()> {
        self.device.get().map_or(Ok(()), Device::flush)
    }

    #[cold]
    fn make(&self) -> Result<&Device> {
        let ended = self.birth.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = self.device.get() {
            return Ok(device);
        }
        if *ended {
            let path = self.path.display().to_string();
            return Err(Error::new(ErrorKind::ReadOnly, path, "the server is ending"));
        }
        let _making = places::making();
        let Sessions { base, options, .. } = &*self.sessions;
        let cows = std::slice::from_ref(&self.path);
        let device = Device::on(base.status().image, base.base().clone(), cows, options)?;
        Ok(self.device.get_or_init(|| device))
    }

    /// Closes the cowfile; changes are refused from then on. May be repeated.
    fn end(&self) {
        *self.birth.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(device) = self.device.get() {
            if let Some(Err(error)) = report::guard(|| device.close()) {
                host::error(&error.to_string());
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
        // Gone with its lock on the cowfile before the name may be used again.
        drop(self.device.take());
        self.sessions.lock().by_name.remove(&self.name);
        self.sessions.closed.notify_all();
    }
}

/// The name as text when it is one that stays within the folder.
fn valid_name(name: &[u8]) -> Option<&str> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    let valid = (1..=MAX_NAME).contains(&name.len()) && name[0] != b'.' && name.iter().all(allowed);
    std::str::from_utf8(name).ok().filter(|_| valid)
}

#[cfg(test)]
mod tests {
    use super::valid_name;

    #[test]
    fn names_stay_within_their_folder() {
        for name in ["a", "Alice", "room-3.seat_7", "a..b", "-", &"x".repeat(200)] {
            assert_eq!(valid_name(name.as_bytes()), Some(name));
        }
        for name in ["", ".", "..", ".hidden", "../x", "a/b", "a b", "a\0b", "é", "a\n"] {
            assert_eq!(valid_name(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(valid_name(&[b'x'; 201]), None);
        assert_eq!(valid_name(b"a\xff"), None);
    }
}
