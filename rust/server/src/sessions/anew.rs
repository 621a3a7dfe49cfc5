//! Sessions that begin anew: without their cowfile, from the base.
//!
//! A session does so when its owner resets it and, where the server is told so, when its
//! machine has been started again. A machine that names its boot (see `name.rs`) is known for
//! certain to have been started again: the boot that a session belongs to is kept in a file
//! beside its cowfile, made durable before the first client of that boot is let in. So a
//! client that comes back within a boot finds what it wrote, however long it was away and
//! whatever became of the server. Of a machine that does not name its boot only its absence
//! is known.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cowcloop_engine::format::cowfile::files;
use parking_lot::MutexGuard;

use super::name::{valid_name, Wanted};
use super::{Client, OpenSessions, Session, Sessions};
use crate::words::reason;

/// How long a reset waits for clients that may have hung up just now.
const PATIENCE: Duration = Duration::from_secs(3);

/// The end of the name of the file with a session's boot.
const SUFFIX: &str = ".boot";

type Result<T> = std::result::Result<T, String>;

/// When sessions begin anew by themselves.
#[derive(Debug)]
pub(super) struct Boots {
    /// So long without a client means a new boot, where the client does not name it.
    gap: Duration,
    /// No client was seen before.
    started: Instant,
}

impl Boots {
    pub(super) fn new(gap: Duration) -> Boots {
        Boots { gap, started: Instant::now() }
    }
}

impl Sessions {
    /// Joins a session, which begins anew if its machine has been started again.
    pub(super) fn enter(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<Client> {
        let Wanted { name, boot } = wanted;
        let mut open = self.open.lock();
        loop {
            if open.ended {
                return Err(format!("session {name}: the server is ending"));
            }
            match open.by_name.get(name).map(Weak::upgrade) {
                // It is being closed, or begins anew just now.
                Some(None) => {
                    self.closed.wait(&mut open);
                    continue;
                }
                Some(Some(session)) if self.boots.is_none() || session.is_of(boot) => {
                    return Ok(Client::new(session));
                }
                None if !self.is_new_boot(wanted, &open) => {
                    return self.open_session(wanted, &mut open);
                }
                // Clients of the boot before, which the network has not told of their end.
                Some(Some(session)) => {
                    let held = self.hold(name, &mut open);
                    drop(open);
                    self.tell_cut(&session);
                    self.begin_anew(&held, Some(&session), boot)?;
                }
                None => {
                    let held = self.hold(name, &mut open);
                    drop(open);
                    self.begin_anew(&held, None, boot)?;
                }
            }
            open = self.open.lock();
        }
    }

    /// Discards what was written in a session. With clients only when it is `forced`: they are
    /// cut off then. The error is a line for the user.
    pub(crate) fn reset(&self, name: &str, forced: bool) -> Result<()> {
        let none = || format!("session {name:?}: there is none of that name");
        let name = valid_name(name.as_bytes()).ok_or_else(none)?;
        let patient_until = Instant::now() + PATIENCE;
        let mut open = self.open.lock();
        let session = loop {
            if open.ended {
                return Err(format!("session {name}: the server is ending"));
            }
            match open.by_name.get(name).map(Weak::upgrade) {
                Some(Some(session)) if forced => break Some(session),
                Some(Some(session)) if session.clients() > 0 && Instant::now() >= patient_until => {
                    let clients = session.clients();
                    drop(open);
                    return Err(format!(
                        "session {name}: {clients} connections have it open: end them, or cut \
                         them off with --force"
                    ));
                }
                None if self.path(name).symlink_metadata().is_ok() => break None,
                None => return Err(none()),
                // It is being closed, or soon. The last client closes it, which takes the lock.
                Some(session) => MutexGuard::unlocked(&mut open, || drop(session)),
            }
            self.closed.wait_for(&mut open, Duration::from_millis(50));
        };
        let held = self.hold(name, &mut open);
        drop(open);
        self.begin_anew(&held, session.as_deref(), None)
    }

    /// Keeps clients from a session until the result is dropped.
    fn hold<'a>(&'a self, name: &str, open: &mut OpenSessions) -> Held<'a> {
        open.by_name.insert(name.to_string(), Weak::new());
        Held { sessions: self, name: name.to_string() }
    }

    /// Whether a client that comes to a session without clients has been started again since.
    fn is_new_boot(&self, wanted: Wanted<'_>, open: &OpenSessions) -> bool {
        let Some(boots) = &self.boots else { return false };
        match wanted.boot {
            Some(boot) => self.stored_boot(wanted.name).as_deref() != Some(boot),
            None => {
                let since = open.left.get(wanted.name).unwrap_or(&boots.started);
                since.elapsed() >= boots.gap && self.path(wanted.name).symlink_metadata().is_ok()
            }
        }
    }

    /// The boot that a session belongs to, if its machine has named it.
    pub(super) fn stored_boot(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.boot_path(name)).ok()
    }

    /// Removes the cowfile of a session that is held, and notes the boot that it is of now.
    fn begin_anew(
        &self,
        held: &Held<'_>,
        session: Option<&Session>,
        boot: Option<&str>,
    ) -> Result<()> {
        let path = self.path(&held.name);
        if let Some(session) = session {
            session.cut();
        }
        let removed = match session {
            // Its device holds the lock until the last client has gone.
            Some(session) if session.has_cowfile() => files::remove_own(&path),
            _ => files::remove(&path),
        };
        removed.map_err(|error| format!("session {}: {error}", held.name))?;
        if let Some(kept) = &self.kept {
            // It names the file that it is of, and so is of no use to another one.
            let _ = fs::remove_file(kept.of_session(&held.name).path);
        }
        let note = self.boot_path(&held.name);
        write_boot(&note, boot).map_err(|error| {
            format!("session {}: {}: {}", held.name, note.display(), reason(&error))
        })
    }

    fn tell_cut(&self, session: &Session) {
        self.events.warning(&format!(
            "session {}: its machine has been started again: {} connections from before are cut \
             off",
            session.name(),
            session.clients()
        ));
    }

    fn boot_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }
}

/// The name of a session that no client joins meanwhile.
struct Held<'a> {
    sessions: &'a Sessions,
    name: String,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.sessions.forget(&self.name);
    }
}

/// Writes the file with a session's boot, durably; removes it where there is none.
fn write_boot(path: &Path, boot: Option<&str>) -> io::Result<()> {
    let Some(boot) = boot else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    // A name that no session has: none begins with a dot.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(boot.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
