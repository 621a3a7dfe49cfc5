//! Sessions: many cowfiles over one base, each picked by its export name.
//!
//! A session is open while clients are connected to it, and its cowfile is closed cleanly
//! when the last of them leaves, or when the server ends. The session's first write makes
//! the cowfile, so that reading alone costs no space.

mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use cowcloop_engine::device::{Device, DeviceOptions};
use cowcloop_engine::format::cowfile::CowState;
use cowcloop_engine::Result;
use parking_lot::{Condvar, Mutex};

use crate::events::Events;
use crate::kept::Kept;
use crate::options::SessionOptions;
use crate::places::Places;
use crate::status::{SessionCowfile, SessionStatus};
use crate::words::reason;

pub(crate) use session::Session;

/// Descriptors of a session: its cowfile, and its kept file.
const DESCRIPTORS: usize = 2;
/// Bytes of the longest session name.
const MAX_NAME: usize = 200;
/// The end of a cowfile's name, after the session's name.
const SUFFIX: &str = ".cow";
/// Sessions that one listing shows; nbdkit takes 10000 exports at most.
const MAX_LISTED: usize = 9999;

/// The sessions of one folder.
pub(crate) struct Sessions {
    folder: PathBuf,
    base: Arc<Device>,
    options: DeviceOptions,
    kept: Option<Kept>,
    limit: usize,
    places: Arc<Places>,
    events: Arc<dyn Events>,
    open: Mutex<OpenSessions>,
    closed: Condvar,
}

/// The sessions that have clients, by name.
#[derive(Default)]
struct OpenSessions {
    /// A reference that cannot be upgraded is to a session that is being closed.
    by_name: BTreeMap<String, Weak<Session>>,
    /// The server ends: no client joins any more.
    ended: bool,
}

impl Sessions {
    /// The sessions over `base`, in a folder that is made (mode 0700) when it is missing.
    pub(crate) fn new(
        wanted: &SessionOptions,
        base: Arc<Device>,
        options: DeviceOptions,
        kept: Option<Kept>,
        places: Arc<Places>,
        events: Arc<dyn Events>,
    ) -> std::result::Result<Sessions, String> {
        let SessionOptions { folder, limit } = wanted;
        let line = |error| format!("sessions: {}: {}", folder.display(), reason(&error));
        if !folder.is_dir() {
            DirBuilder::new().mode(0o700).create(folder).map_err(line)?;
        }
        std::fs::read_dir(folder).map_err(line)?;
        if let Some(kept) = &kept {
            kept.make_folder()?;
        }
        Ok(Sessions {
            folder: folder.to_path_buf(),
            base,
            options,
            kept,
            limit: *limit,
            places,
            events,
            open: Mutex::default(),
            closed: Condvar::new(),
        })
    }

    /// Joins the session `name`, which is opened when it is not open yet.
    /// The error is a line for the log.
    pub(crate) fn join(self: &Arc<Self>, name: &[u8]) -> std::result::Result<Arc<Session>, String> {
        let name = valid_name(name).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&name[..name.len().min(MAX_NAME)]);
            format!(
                "export {shown:?}: not a session name; 1 to {MAX_NAME} letters, digits, dots, \
                 underscores and dashes, not beginning with a dot"
            )
        })?;
        let session = self.enter(name)?;
        if session.path().symlink_metadata().is_ok() {
            session.make().map_err(|error| error.to_string())?;
        }
        Ok(session)
    }

    /// Joins a session that has a cowfile. The error is a line for the user.
    pub(crate) fn join_existing(
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
    pub(crate) fn in_use(&self, name: &str) -> std::result::Result<Arc<Session>, String> {
        let session = self.open.lock().by_name.get(name).and_then(Weak::upgrade);
        session
            .filter(|session| session.has_cowfile())
            .ok_or_else(|| format!("session {name:?}: no client has it open with a cowfile"))
    }

    fn enter(self: &Arc<Self>, name: &str) -> std::result::Result<Arc<Session>, String> {
        let mut open = self.open.lock();
        loop {
            if open.ended {
                return Err(format!("session {name}: the server is ending"));
            }
            match open.by_name.get(name).map(Weak::upgrade) {
                None => break,
                Some(Some(session)) => return Ok(session),
                Some(None) => {}
            }
            self.closed.wait(&mut open);
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
        let Some(place) = self.places.take(DESCRIPTORS, 0) else {
            return Err(format!("session {name}: {}", self.places.refusal()));
        };
        let session = Arc::new(Session::new(name, path, self.clone(), place));
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
        // The caller lets go of them outside of the lock: the last one closes.
        self.open.lock().by_name.values().filter_map(Weak::upgrade).collect()
    }

    /// Every session, open or not, in the order of the names, with a line for users.
    pub(crate) fn list(&self) -> Vec<(String, String)> {
        let base = self.base.description();
        let mut names = self.stored();
        names.extend(self.open.lock().by_name.keys().cloned());
        names
            .into_iter()
            .take(MAX_LISTED)
            .map(|name| {
                let description = format!("{base} + {}", self.path(&name).display());
                (name, description)
            })
            .collect()
    }

    /// Each session's part of the reply to a status request, in the order of the names.
    pub(crate) fn status(&self) -> Vec<SessionStatus> {
        let at_rest = |name: String| (name.clone(), self.at_rest(name));
        let mut sessions: BTreeMap<_, _> = self.stored().into_iter().map(at_rest).collect();
        for session in self.all_in_use() {
            // One reference is ours.
            let status = session.status(Arc::strong_count(&session) - 1);
            sessions.insert(status.name.clone(), status);
        }
        sessions.into_values().collect()
    }

    /// The status of a session that no client has open.
    fn at_rest(&self, name: String) -> SessionStatus {
        let path = self.path(&name);
        let allocated = path.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let path = path.display().to_string();
        let cowfile = SessionCowfile::Closed { path, state: CowState::Closed, allocated };
        SessionStatus { name, connections: 0, cowfile }
    }

    /// Brings everything that is open to the medium, durably. All are tried; the first
    /// error is reported.
    pub(crate) fn sync(&self) -> Result<()> {
        self.all_in_use().iter().map(|session| session.sync()).fold(Ok(()), Result::and)
    }

    /// Closes every session cleanly, with or without clients; returns when all are closed.
    /// Errors go to the log.
    ///
    /// A door may end without closing its connections, as nbdkit does.
    pub(crate) fn close(&self) {
        self.open.lock().ended = true;
        for session in self.all_in_use() {
            session.end();
        }
        let mut open = self.open.lock();
        while open.by_name.values().any(|session| session.strong_count() == 0) {
            self.closed.wait(&mut open);
        }
    }

    /// A session has been closed: its name may be used again.
    fn forget(&self, name: &str) {
        self.open.lock().by_name.remove(name);
        self.closed.notify_all();
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
