//! A cowfile that is served, and what it may show.

use std::sync::Arc;

use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::Layer;

use crate::disk::SimDisk;
use crate::model::Model;
use crate::mortal::Process;
use crate::promise::{check_refused, Outcome};

/// A cowfile that is served.
pub struct Session {
    pub disk: Arc<SimDisk>,
    pub overlay: Overlay,
    pub model: Arc<Model>,
    pub poisoned: bool,
    /// Something was given up since it was opened: what it shows may go back.
    pub lossy: bool,
    pub process: Arc<Process>,
    /// Its bits are kept for a server that takes over.
    pub kept: bool,
    /// The change during which the process was killed.
    pub in_flight: Option<(u64, u64)>,
}

impl Session {
    pub fn read(&self, at: u64, buf: &mut [u8]) {
        let read = || self.disk.inspect(|| self.overlay.read_at(buf, at));
        self.process.inspect(read).expect("reads go on");
    }
}

/// The models of all sessions, by note.
pub struct Notes(pub Vec<Vec<Arc<Model>>>);

impl Notes {
    pub fn take(&mut self, sessions: &[Session]) {
        self.0.push(sessions.iter().map(|session| session.model.clone()).collect());
        sessions[0].disk.note(self.0.len() - 1);
    }

    /// What only the disk knows, from some moment of a change that failed half-way on.
    pub fn amend(&mut self, which: usize, model: &Arc<Model>) {
        self.0.last_mut().expect("there is one")[which] = model.clone();
    }
}

/// Writes to a session, or zeros it, and notes what it may show from now on.
pub fn change(
    sessions: &mut [Session],
    which: usize,
    notes: &mut Notes,
    (at, length): (u64, u64),
    byte: impl Fn(u64) -> u8 + Copy,
    zero: bool,
) -> Outcome {
    Arc::make_mut(&mut sessions[which].model).write(at, length, byte);
    notes.take(sessions);
    let session = &mut sessions[which];
    let outcome = if zero {
        session.overlay.write_zeroes(at, length, false)
    } else {
        session.overlay.write_at(&(0..length).map(byte).collect::<Vec<u8>>(), at)
    };
    check_refused(&mut session.poisoned, &outcome)?;
    if outcome.is_err() && session.process.is_dead() {
        session.in_flight = Some((at, length));
    } else if outcome.is_err() {
        let mut model = session.model.clone();
        let read = |at, buf: &mut [u8]| session.read(at, buf);
        let lossy = session.lossy || session.disk.gave_up();
        Arc::make_mut(&mut model).settle(at, length, lossy, read);
        session.lossy = lossy;
        notes.amend(which, &model);
        session.model = model;
    }
    Ok(())
}
