//! Going on with a file system that a dead server has mounted.
//!
//! The kernel greets a file system once, when it is mounted, and fuser answers nothing before it
//! has been greeted. So it is greeted by us, through a socket, and then gets the kernel's
//! descriptor in the socket's place. What the dead server had read, and not answered, the kernel
//! sends again when it is asked to (`FUSE_NOTIFY_RESEND`, since Linux 6.9): all that this file
//! system does may be done twice.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use fuser::{Config, Session};
use rustix::io::{dup3, read, write, DupFlags};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

use super::file::DeviceFile;

/// The request with which the kernel begins, and the version of its protocol that Linux 6.9 has.
const INIT: u32 = 26;
const PROTOCOL: (u32, u32) = (7, 40);
/// Bytes that the kernel reads ahead at most: any number will do.
const READ_AHEAD: u32 = 1 << 20;
/// Bytes of a request's head, and of what follows in that request.
const HEAD: usize = 40;
const GREETING: usize = HEAD + 64;
/// The notice that asks for what was not answered.
const RESEND: u32 = 7;
/// Bytes of a notice's head, and of an answer's.
const NOTICE: usize = 16;

/// The first kernel that sends again what a server has not answered.
const SENDS_AGAIN: (u32, u32) = (6, 9);
/// What older ones cannot do.
pub const IMPOSSIBLE: &str =
    "before Linux 6.9 the kernel cannot be asked for what the server has not answered";

/// Whether the kernel that runs lets another server go on.
pub fn is_possible() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next()) >= SENDS_AGAIN
}

/// A session on a descriptor that the kernel knows already.
///
/// # Errors
/// `InvalidInput` where the kernel cannot send again what was not answered.
pub fn session(
    file: DeviceFile,
    device: &OwnedFd,
    config: Config,
) -> io::Result<Session<DeviceFile>> {
    let kind = SocketType::SEQPACKET;
    let (kernel, ours) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    write(&kernel, &greeting())?;
    let session = Session::from_fd(file, ours, config.acl, config)?;
    let mut answer = [0; 256];
    if read(&kernel, &mut answer)? < NOTICE || answer[4..8] != [0; 4] {
        return Err(io::Error::other("the file system does not answer a greeting"));
    }
    put_in_place(device, &session)?;
    write(device, &notice())?;
    Ok(session)
}

/// Gives the session the kernel's descriptor in the place of the one that it has.
#[allow(unsafe_code)]
fn put_in_place(device: &OwnedFd, session: &Session<DeviceFile>) -> io::Result<()> {
    let number = session.as_fd().as_raw_fd();
    // SAFETY: the number is the session's, which goes on owning it: it is not closed here, and
    // stays open all the time, as another file. No thread uses it yet.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(dup3(device, &mut place, DupFlags::CLOEXEC)?)
}

/// What the kernel says first. It has agreed with the dead server on the same, so that nothing
/// of the answer is of any use; every ability is offered.
fn greeting() -> [u8; GREETING] {
    let mut request = [0; GREETING];
    let words = [(0, GREETING as u32), (4, INIT), (8, 1), (16, 1)];
    let (major, minor) = PROTOCOL;
    let body = [major, minor, READ_AHEAD, u32::MAX, u32::MAX];
    let body = body.into_iter().enumerate().map(|(i, word)| (HEAD + 4 * i, word));
    for (at, word) in words.into_iter().chain(body) {
        request[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    request
}

fn notice() -> [u8; NOTICE] {
    let mut notice = [0; NOTICE];
    notice[..4].copy_from_slice(&(NOTICE as u32).to_ne_bytes());
    notice[4..8].copy_from_slice(&RESEND.to_ne_bytes());
    notice
}
