//! Why bytes could not be had from a server.

use std::io;
use std::time::Duration;

/// What to do about it depends on these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The image on the server is another one now: for good.
    Changed,
    /// The server says that it does not exist.
    Missing,
    /// The server wants other credentials, or any.
    Refused,
    /// The answer is not what was asked for.
    Wrong,
    /// No answer, or an excuse.
    Away,
    /// Nothing has the server's name: as on a machine without a network, or for good.
    NoHost,
    /// Our own options do not allow it: for good.
    Ours,
    /// The device is being closed.
    Closing,
    /// The request was dropped on its way: another one may work.
    Dropped,
}

/// A failure: its kind, and one phrase.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub kind: Kind,
    pub reason: String,
    /// The server asked to be left alone for so long.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(kind: Kind, reason: impl Into<String>) -> Failure {
        Failure { kind, reason: reason.into(), retry_after: None }
    }

    pub fn changed() -> Failure {
        let reason = "the image on the server has changed since it was opened: attach it again \
                      to go on with the new one";
        Failure::new(Kind::Changed, reason)
    }

    pub fn closing() -> Failure {
        Failure::new(Kind::Closing, "the device is being closed")
    }

    pub fn interrupted() -> Failure {
        Failure::new(Kind::Closing, "interrupted")
    }

    /// Whether another attempt cannot help.
    pub fn is_final(&self) -> bool {
        matches!(self.kind, Kind::Changed | Kind::Ours | Kind::Closing)
    }
}

/// For a read: a device has one word for all of this.
impl From<&Failure> for io::Error {
    fn from(failure: &Failure) -> io::Error {
        io::Error::other(failure.reason.clone())
    }
}
