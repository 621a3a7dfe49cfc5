//! The door by ublk: a block device of the kernel's, `/dev/ublkbN`, whose requests come here.
//!
//! ```text
//! kernel -> queue (a thread each) -> pool (a thread for each request) -> handler -> Connection
//!        <- queue                 <- answers
//! ```
//!
//! `control` makes and removes the device, `data` moves the bytes, `abi` is the kernel's interface.
//!
//! The interface is spoken here, over the crate io-uring alone. The crate libublk would bring
//! bindgen, which needs libclang wherever it is compiled, an asynchronous runtime in which one
//! thread of a queue does all the work, and files of its own below /run; what would be left to it
//! are the few numbers of `abi`.

mod abi;
mod arguments;
#[allow(unsafe_code)]
mod control;
#[allow(unsafe_code)]
mod data;
mod device;
mod handler;
mod left_behind;
#[allow(unsafe_code)]
mod node;
mod pool;
#[allow(unsafe_code)]
mod queue;

use std::ffi::OsStr;
use std::sync::mpsc::{channel, Receiver, Sender};

use cowcloop_server::{Cause, Connection, Ending};

use super::{Door, Left};
pub use arguments::Arguments;
pub use device::most_requests;
use device::Device;

/// Why the device is not served any more.
enum End {
    /// The server is to end.
    Wanted,
    /// The kernel asks for nothing any more.
    Stopped,
}

/// A block device, whose requests are answered.
pub struct Ublk {
    device: Device,
    tell: Sender<End>,
    ends: Receiver<End>,
}

impl Ublk {
    /// Makes the device, or takes over one that a server has left behind. The error is a line
    /// for the user.
    pub fn open(arguments: &Arguments, connection: Connection) -> Result<Ublk, String> {
        let (tell, ends) = channel();
        let device = Device::open(connection, arguments.wanted(), &tell)?;
        Ok(Ublk { device, tell, ends })
    }
}

impl Door for Ublk {
    fn device(&self) -> String {
        self.device.path().display().to_string()
    }

    fn left(&self) -> Left<'_> {
        Left::Named(self.device().into())
    }

    fn irreplaceable(&self) -> Option<&'static str> {
        (!self.device.outlives_its_server()).then_some(left_behind::USERS_OWN)
    }

    fn ending(&mut self) -> Box<dyn Ending> {
        Box::new(Stop(self.tell.clone()))
    }

    fn give_up(self: Box<Self>) {
        self.device.give_up();
    }

    fn serve(self: Box<Self>) -> Result<(), String> {
        match self.ends.recv() {
            // What the kernel still holds for the device may wait for another server.
            Ok(End::Stopped) => Err(format!("{}: is not served any more", self.device())),
            Ok(End::Wanted) | Err(_) => self.device.close(),
        }
    }
}

/// Removes a device that a server has left behind, with what the kernel holds for it. The error
/// is a line for the user.
pub fn remove(device: &OsStr) -> Result<(), String> {
    left_behind::remove(arguments::number(device)?)
}

/// Has the device removed.
struct Stop(Sender<End>);

impl Ending for Stop {
    fn begin(&mut self, _cause: Cause) {
        // Fails when it has ended meanwhile.
        let _ = self.0.send(End::Wanted);
    }

    fn go_on(&mut self) {}
}
