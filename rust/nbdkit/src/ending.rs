//! The end of nbdkit, when the server is to end.

use cowcloop_server::{Cause, Ending};

use crate::clients::Listeners;
use crate::{host, mend};

/// The clients that nbdkit would wait for, at the addresses where it listens.
pub struct Clients(pub Listeners);

impl Ending for Clients {
    fn begin(&mut self, cause: Cause) {
        // nbdkit's own handler has seen a signal as well, and ends the server.
        if cause == Cause::Lifeline {
            host::shutdown();
        }
    }

    fn go_on(&mut self) {
        mend::end();
        // If it fails, nbdkit waits for the clients by itself. A client may have been accepted
        // just before: it is sent away next time.
        let _ = self.0.send_clients_away();
    }
}
