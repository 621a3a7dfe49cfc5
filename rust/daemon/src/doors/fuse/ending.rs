//! The end of the device, when the server is to end.

use std::sync::mpsc::Sender;

use cowcloop_server::{Cause, Ending};

use super::mount::Place;
use super::End;

/// Calls of `go_on`, ten a second, that a device may still be in use before it is taken away.
const PATIENCE: u32 = 10;

/// Unmounts the file system.
pub struct Unmount {
    place: Place,
    tell: Sender<End>,
    calls: u32,
}

impl Unmount {
    /// `tell` is told when the device is taken away from its users.
    pub fn new(place: Place, tell: Sender<End>) -> Unmount {
        Unmount { place, tell, calls: 0 }
    }
}

impl Ending for Unmount {
    fn begin(&mut self, _cause: Cause) {
        // Gone from its directory at once. The kernel ends it when its last user has left.
        self.place.detach();
    }

    fn go_on(&mut self) {
        self.calls += 1;
        if self.calls == PATIENCE {
            // Fails when it has ended meanwhile.
            let _ = self.tell.send(End::Forced);
        }
    }
}
