//! The ways from the kernel to a device, one folder each.

mod fuse;
mod ublk;

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;

use cowcloop_server::{Connection, Ending};

pub use fuse::DEVICE;

/// A device that the kernel has, and whose requests are ours to answer.
pub trait Door {
    /// The path of the device, for users.
    fn device(&self) -> String;

    /// What another server needs to go on with the device.
    fn left(&self) -> Left<'_>;

    /// Why no other server could go on with the device, where none could.
    fn irreplaceable(&self) -> Option<&'static str>;

    /// What ends the device, from another thread, when the server is to end.
    fn ending(&mut self) -> Box<dyn Ending>;

    /// Gives the device up before it was served, and removes it; one that was taken over is left
    /// to another server.
    fn give_up(self: Box<Self>);

    /// Answers requests until the device has ended, by `ending` or from outside. The error is a
    /// line for the user.
    fn serve(self: Box<Self>) -> Result<(), String>;
}

/// What a server leaves to the next one.
#[derive(Debug)]
pub enum Left<'a> {
    /// The kernel's descriptor, which must not be closed.
    Descriptor(BorrowedFd<'a>),
    /// The name by which the door finds the device.
    Named(OsString),
}

/// A door that was asked for, with its arguments.
pub enum Wanted {
    /// A file of a FUSE file system.
    Fuse(fuse::Arguments),
    /// A block device, by the kernel's driver ublk.
    Ublk(ublk::Arguments),
}

impl Wanted {
    /// The doors and their arguments, for users.
    pub const NAMES: &str = "fuse DIR|ublk [DEVICE]";

    /// The door of this name, without arguments yet. The error is a line for the user.
    pub fn named(name: &str) -> Result<Wanted, String> {
        match name {
            "fuse" => Ok(Wanted::Fuse(fuse::Arguments::default())),
            "ublk" => Ok(Wanted::Ublk(ublk::Arguments::default())),
            _ => Err(format!("{name}: no such door; there is {}", Self::NAMES)),
        }
    }

    /// Takes an argument. The error is a line for the user.
    pub fn take(&mut self, word: &OsStr) -> Result<(), String> {
        match self {
            Wanted::Fuse(arguments) => arguments.take(word),
            Wanted::Ublk(arguments) => arguments.take(word),
        }
    }

    /// Checks what only all arguments together show.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Wanted::Fuse(arguments) => arguments.check(),
            Wanted::Ublk(_) => Ok(()),
        }
    }

    /// Whether it is a device that another server has left.
    pub fn takes_over(&self) -> bool {
        match self {
            Wanted::Fuse(arguments) => arguments.device.is_some(),
            Wanted::Ublk(arguments) => arguments.takes_over(),
        }
    }

    /// Requests that may wait for a suspended image while the door goes on with others.
    pub fn waiting(&self) -> usize {
        match self {
            Wanted::Fuse(_) => fuse::WAITING,
            Wanted::Ublk(_) => ublk::most_requests(),
        }
    }

    /// Makes the device. The error is a line for the user.
    pub fn open(&self, connection: Connection) -> Result<Box<dyn Door>, String> {
        match self {
            Wanted::Fuse(arguments) => Ok(Box::new(fuse::Fuse::open(arguments, connection)?)),
            Wanted::Ublk(arguments) => Ok(Box::new(ublk::Ublk::open(arguments, connection)?)),
        }
    }
}

/// Removes a device that a server has left behind, with what the kernel holds for it. The error
/// is a line for the user.
pub fn remove(device: &OsStr) -> Result<(), String> {
    ublk::remove(device)
}
