//! The room for connections, as nbdkit's threads come for it.
//!
//! nbdkit serves each connection with a thread of its own, which first asks the plugin
//! whether to go on.

use std::cell::Cell;
use std::time::Duration;

use cowcloop_server::{Place, Server};
use parking_lot::{Condvar, Mutex};

/// Descriptors of a connection: its socket, and a pipe of nbdkit's.
const CONNECTION: usize = 3;
/// Connections without room that are let in far enough to be told so.
const TOLD: usize = 8;

thread_local! {
    /// The place of the connection that this thread of nbdkit's serves. It ends with the thread.
    static MINE: Cell<Option<Place>> = const { Cell::new(None) };
    /// The same for a connection that has no place.
    static LEAVING: Cell<Option<Arrival>> = const { Cell::new(None) };
}

/// Connections that have been accepted and have no place yet, nor have been refused one.
static ARRIVING: Mutex<usize> = Mutex::new(0);
static ARRIVED: Condvar = Condvar::new();
/// The most of these; their descriptors are of the reserve.
const MOST_ARRIVING: usize = 8;
/// How long they are waited for: a thread that nbdkit could not start never arrives.
const ARRIVAL: Duration = Duration::from_secs(1);

/// Waits until another connection may be accepted.
pub fn wait() {
    let mut arriving = ARRIVING.lock();
    let crowded = |arriving: &mut usize| *arriving >= MOST_ARRIVING;
    if ARRIVED.wait_while_for(&mut arriving, crowded, ARRIVAL).timed_out() {
        *arriving = 0;
    }
}

/// A connection was accepted.
pub fn begins() {
    *ARRIVING.lock() += 1;
}

/// A connection until it has its place or, where there is none, until it is closed.
struct Arrival;

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut arriving = ARRIVING.lock();
        *arriving = arriving.saturating_sub(1);
        ARRIVED.notify_one();
    }
}

/// A connection has come, and this thread will serve it. False: there is no room even to say why.
pub fn enter(server: Option<&Server>) -> bool {
    let arrival = Arrival;
    let Some(server) = server else { return true };
    let place = server.places().take(CONNECTION, TOLD * CONNECTION);
    let entered = place.is_some();
    MINE.set(place);
    if !entered {
        server.places().tell_full();
        LEAVING.set(Some(arrival));
    }
    entered
}

/// Refuses the client that this thread serves, when it came in only to be told.
pub fn admit(server: &Server) -> Result<(), String> {
    let place = MINE.take();
    let beyond = place.as_ref().is_some_and(Place::is_beyond);
    MINE.set(place);
    if beyond {
        Err(server.places().refusal())
    } else {
        Ok(())
    }
}
