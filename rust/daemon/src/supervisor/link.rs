//! The socket between the supervisor and its server: what must outlive the server goes through it.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::{fcntl_setfd, FdFlags};
use rustix::net::{
    recvmsg, send, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::doors::Left;

/// What a message begins with.
const DEVICE: u8 = b'd';
const MORTAL: u8 = b'm';
const READY: u8 = b'r';
/// Bytes of the longest message.
const LONGEST: usize = 4200;

/// One end of the socket.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// What a server says.
#[derive(Debug)]
pub enum Word {
    /// By this descriptor the kernel and the server talk.
    Descriptor(OwnedFd),
    /// The device has this name.
    Named(OsString),
    /// The same of a device that ends with its server.
    Mortal(OsString),
    /// Requests are being answered.
    Ready,
    /// The server has gone.
    End,
}

impl Link {
    /// The supervisor's end, and the one that its server inherits.
    pub fn pair() -> io::Result<(Link, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None)?;
        fcntl_setfd(&ours, FdFlags::CLOEXEC)?;
        Ok((Link(ours), theirs))
    }

    /// The server's end, which it has inherited.
    pub fn inherited(end: OwnedFd) -> Link {
        Link(end)
    }

    /// Says what another server needs to go on with the device.
    pub fn device(&self, left: &Left<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let (kind, name, descriptors) = match left {
            Left::Named(name) => (DEVICE, name.as_bytes(), None),
            Left::Mortal(name) => (MORTAL, name.as_bytes(), None),
            Left::Descriptor(descriptor) => (DEVICE, &[][..], Some([*descriptor])),
        };
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let pieces = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(name)];
        sendmsg(&self.0, &pieces, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Says that requests are being answered.
    pub fn ready(&self) -> io::Result<()> {
        send(&self.0, &[READY], SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next word of the server's.
    pub fn next(&self) -> io::Result<Word> {
        let mut message = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut message)];
        // Without close-on-exec: the next server is to inherit the descriptor.
        let got = recvmsg(&self.0, &mut pieces, &mut ancillary, RecvFlags::empty())?;
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (message[..got.bytes].split_first(), descriptor) {
            (Some((&DEVICE, _)), Some(descriptor)) => Ok(Word::Descriptor(descriptor)),
            (Some((&DEVICE, name)), None) => Ok(Word::Named(OsString::from_vec(name.to_vec()))),
            (Some((&MORTAL, name)), _) => Ok(Word::Mortal(OsString::from_vec(name.to_vec()))),
            (Some((&READY, _)), _) => Ok(Word::Ready),
            (None, _) => Ok(Word::End),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_arrives_in_its_order() {
        let (ours, theirs) = Link::pair().unwrap();
        let theirs = Link::inherited(theirs);
        let file = tempfile::tempfile().unwrap();
        theirs.device(&Left::Descriptor(file.as_fd())).unwrap();
        theirs.device(&Left::Named("/dev/ublkb3".into())).unwrap();
        theirs.device(&Left::Mortal("/dev/ublkb4".into())).unwrap();
        theirs.ready().unwrap();
        drop(theirs);
        assert!(matches!(ours.next().unwrap(), Word::Descriptor(_)));
        assert!(matches!(ours.next().unwrap(), Word::Named(name) if name == "/dev/ublkb3"));
        assert!(matches!(ours.next().unwrap(), Word::Mortal(name) if name == "/dev/ublkb4"));
        assert!(matches!(ours.next().unwrap(), Word::Ready));
        assert!(matches!(ours.next().unwrap(), Word::End));
    }
}
