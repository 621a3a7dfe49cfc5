//! How many clients there is room for: each costs descriptors, and the process may have so many.
//!
//! A client that does not fit is told so at once. A server without descriptors would fail the
//! first write of a session that it has let in, and leave new clients waiting.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use crate::host;

/// Descriptors of a connection: its socket, and a pipe of nbdkit's.
const CONNECTION: usize = 3;
/// Descriptors of a session: its cowfile.
const SESSION: usize = 1;
/// Kept for all else: control clients, cowfiles in the making, connections that come and go.
const RESERVE: usize = 96;
/// Connections beyond those that fit that are let in far enough to be told so.
const TOLD: usize = 8;

static PLACES: OnceLock<Arc<Places>> = OnceLock::new();

thread_local! {
    /// The place of the connection that this thread of nbdkit's serves. It ends with the thread.
    static MINE: Cell<Option<Place>> = const { Cell::new(None) };
    /// The same of one that has no place.
    static LEAVING: Cell<Option<Arrival>> = const { Cell::new(None) };
}

/// Connections that have been accepted and have no place yet, nor have been refused one.
static ARRIVING: Mutex<usize> = Mutex::new(0);
static ARRIVED: Condvar = Condvar::new();
/// So many of these at most: their descriptors are of the reserve.
const MOST_ARRIVING: usize = 8;
/// How long they are waited for: a thread of nbdkit's that cannot be made does not arrive.
const ARRIVAL: Duration = Duration::from_secs(1);

/// Waits until another connection may be accepted.
pub fn wait_for_arrivals() {
    let crowded = |arriving: &mut usize| *arriving >= MOST_ARRIVING;
    let arriving = ARRIVING.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut arriving, waited) = ARRIVED
        .wait_timeout_while(arriving, ARRIVAL, crowded)
        .unwrap_or_else(PoisonError::into_inner);
    if waited.timed_out() {
        *arriving = 0;
    }
}

/// A connection was accepted.
pub fn arrives() {
    *ARRIVING.lock().unwrap_or_else(PoisonError::into_inner) += 1;
}

/// A connection until it has its place or, where there is none, until it is closed.
struct Arrival;

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut arriving = ARRIVING.lock().unwrap_or_else(PoisonError::into_inner);
        *arriving = arriving.saturating_sub(1);
        ARRIVED.notify_one();
    }
}

/// Raises the limit of open files as far as it may be raised.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where that fails, fewer clients fit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Counts what is open before the first client comes: the rest is for clients.
pub fn prepare() {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = fs::read_dir("/proc/self/fd").map_or(RESERVE, Iterator::count);
    PLACES.get_or_init(|| Arc::new(Places::new(limit, open)));
}

/// A connection has come, and this thread will serve it. False: there is no room even to say why.
pub fn enter() -> bool {
    let arrival = Arrival;
    let Some(places) = PLACES.get() else { return true };
    let place = places.take(CONNECTION, TOLD * CONNECTION);
    let entered = place.is_some();
    MINE.set(place);
    if !entered {
        places.tell();
        LEAVING.set(Some(arrival));
    }
    entered
}

/// Refuses the client that this thread serves, when it came in only to be told.
pub fn admit() -> Result<(), String> {
    let place = MINE.take();
    let beyond = place.as_ref().is_some_and(|place| place.beyond);
    MINE.set(place);
    match PLACES.get().filter(|_| beyond) {
        Some(places) => Err(places.words()),
        None => Ok(()),
    }
}

/// Takes the place of a session that is opened.
pub fn session() -> Result<Option<Place>, String> {
    match PLACES.get() {
        None => Ok(None),
        Some(places) => places.take(SESSION, 0).map(Some).ok_or_else(|| places.words()),
    }
}

/// Held while a cowfile is made or opened, which takes some descriptors for a moment.
pub fn making() -> MutexGuard<'static, ()> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    static MAKERS: [Mutex<()>; 8] = [const { Mutex::new(()) }; 8];
    let maker = &MAKERS[TURN.fetch_add(1, Ordering::Relaxed) % MAKERS.len()];
    maker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptors that clients may have.
#[derive(Debug)]
struct Places {
    /// What the process may have open in all.
    limit: u64,
    room: usize,
    taken: AtomicUsize,
    /// That there is no room has been said, and it has not been otherwise for long.
    told: AtomicBool,
}

impl Places {
    fn new(limit: u64, open: usize) -> Places {
        let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open);
        let room = left - RESERVE.min(left / 2);
        Places { limit, room, taken: AtomicUsize::new(0), told: AtomicBool::new(false) }
    }

    /// Takes so many descriptors, `over` the room at most.
    fn take(self: &Arc<Self>, cost: usize, over: usize) -> Option<Place> {
        let most = self.room.saturating_add(over);
        let fits = |taken: usize| taken.checked_add(cost).filter(|taken| *taken <= most);
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        let beyond = before + cost > self.room;
        Some(Place { places: self.clone(), cost, beyond })
    }

    fn words(&self) -> String {
        format!(
            "no room for another client: this process may have {} files open; raise the limit \
             (ulimit -n)",
            self.limit
        )
    }

    /// Says that there is no room, once.
    fn tell(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            host::error(&self.words());
        }
    }
}

/// Some of the descriptors, given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    cost: usize,
    /// It lies beyond those that there is room for.
    beyond: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.places.taken.fetch_sub(self.cost, Ordering::AcqRel);
        if before - self.cost < self.places.room / 4 * 3 {
            self.places.told.store(false, Ordering::Release);
        }
    }
}
