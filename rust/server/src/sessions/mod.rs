//! Sessions: many cowfiles over one base, each picked by its export name.
//!
//! A session is open while clients are connected to it, and its cowfile is closed cleanly
//! when the last of them leaves, or when the server ends. The session's first write makes
//! the cowfile, so that reading alone costs no space.

mod anew;
mod name;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

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

use anew::Boots;
use name::{valid_name, Wanted};
pub(crate) use session::{Client, Session};

/// Descriptors of a session: its cowfile, and its kept file.
const DESCRIPTORS: usize = 2;
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
    /// `None`: no session begins anew by itself.
    boots: Option<Boots>,
    places: Arc<Places>,
    events: Arc<dyn Events>,
    open: Mutex<OpenSessions>,
    closed: Condvar,
}

/// The sessions that have clients, by name.
#[derive(Default)]
struct OpenSessions {
    /// A reference that cannot be upgraded is to a session that is being closed, or begins
    /// anew.
    by_name: BTreeMap<String, Weak<Session>>,
    /// When the last client left, of the sessions that had one since the server's start.
    left: BTreeMap<String, Instant>,
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
        let SessionOptions { folder, limit, reset_on_boot } = wanted;
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
            boots: reset_on_boot.map(Boots::new),
            places,
            events,
            open: Mutex::default(),
            closed: Condvar::new(),
        })
    }

    /// Joins the session that an export name names, which is opened when it is not open yet.
    /// The error is a line for the log.
    pub(crate) fn join(self: &Arc<Self>, export: &[u8]) -> std::result::Result<Client, String> {
        self.join_wanted(Wanted::parse(export)?)
    }

    fn join_wanted(self: &Arc<Self>, wanted: Wanted<'_>) -> std::result::Result<Client, String> {
        let session = self.enter(wanted)?;
        if session.path().symlink_metadata().is_ok() {
            session.make().map_err(|error| error.to_string())?;
        }
        Ok(session)
    }

    /// Joins a session that has a cowfile. The error is a line for the user.
    pub(crate) fn join_existing(
        self: &Arc<Self>,
        name: &str,
    ) -> std::result::Result<Client, String> {
        let none = || format!("session {name:?}: there is none of that name with a cowfile");
        let name = valid_name(name.as_bytes()).ok_or_else(none)?;
        let mut open = self.open.lock();
        loop {
            match open.by_name.get(name).map(Weak::upgrade) {
                Some(Some(session)) => {
                    let session = Client::new(session);
                    // The last client of a session closes it, which takes the lock.
                    drop(open);
                    return if session.has_cowfile() { Ok(session) } else { Err(none()) };
                }
                _ if open.ended => return Err(format!("session {name}: the server is ending")),
                Some(None) => self.closed.wait(&mut open),
                None if self.path(name).symlink_metadata().is_err() => return Err(none()),
                // A look at a session is no boot of its machine, which may come meanwhile.
                None => {
                    let boot = self.stored_boot(name);
                    let wanted = Wanted { name, boot: boot.as_deref() };
                    let session = self.open_session(wanted, &mut open)?;
                    drop(open);
                    session.make().map_err(|error| error.to_string())?;
                    return Ok(session);
                }
            }
        }
    }

    /// A session that clients have open, with its cowfile. The error is a line for the user.
    pub(crate) fn in_use(&self, name: &str) -> std::result::Result<Client, String> {
        let open = self.open.lock();
        let session = open.by_name.get(name).and_then(Weak::upgrade);
        let session = session.map(Client::new);
        drop(open);
        session
            .filter(|session| session.has_cowfile())
            .ok_or_else(|| format!("session {name:?}: no client has it open with a cowfile"))
    }

    /// Opens a session that is not open.
    fn open_session(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        open: &mut OpenSessions,
    ) -> std::result::Result<Client, String> {
        let name = wanted.name;
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
        let session = Arc::new(Session::new(wanted, path, self.clone(), place));
        open.by_name.insert(name.to_string(), Arc::downgrade(&session));
        Ok(Client::new(session))
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
            let status = session.status();
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

    /// The last client of a session has gone, and it is closed.
    fn left(&self, name: &str) {
        self.open.lock().left.insert(name.to_string(), Instant::now());
        self.forget(name);
    }

    /// A session is closed, or has begun anew: its name may be used again.
    fn forget(&self, name: &str) {
        let mut open = self.open.lock();
        open.by_name.remove(name);
        drop(open);
        self.closed.notify_all();
    }
}
