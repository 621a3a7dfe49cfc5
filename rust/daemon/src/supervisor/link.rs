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
const IRREPLACEABLE: u8 = b'i';
const READY: u8 = b'r';
/// Bytes of the longest message.
const LONGEST: usize = 4200;

/// One end of the socket.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// What the next server needs to go on with the device.
#[derive(Debug)]
pub struct Device {
    /// By which a server of anything else is known.
    pub identity: u32,
    pub handle: Handle,
}

/// How the next server finds the device.
#[derive(Debug)]
pub enum Handle {
    /// By this descriptor the kernel and the server talk.
    Descriptor(OwnedFd),
    /// The device has this name.
    Named(OsString),
}

/// What a server says.
#[derive(Debug)]
pub enum Word {
    /// The device is there.
    Device(Device),
    /// Why no other server could go on with the device.
    Irreplaceable(String),
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

    /// Says why no other server could go on with the device.
    pub fn irreplaceable(&self, why: &str) -> io::Result<()> {
        send(&self.0, &[&[IRREPLACEABLE], why.as_bytes()].concat(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Says what another server needs to go on with the device.
    pub fn device(&self, left: &Left<'_>, identity: u32) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let (name, descriptors) = match left {
            Left::Named(name) => (name.as_bytes(), None),
            Left::Descriptor(descriptor) => (&[][..], Some([*descriptor])),
        };
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let identity = identity.to_le_bytes();
        let pieces = [IoSlice::new(&[DEVICE]), IoSlice::new(&identity), IoSlice::new(name)];
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
        let invalid = || io::ErrorKind::InvalidData.into();
        match message[..got.bytes].split_first() {
            Some((&DEVICE, rest)) => {
                let (identity, name) = rest.split_first_chunk().ok_or_else(invalid)?;
                let handle = match descriptor {
                    Some(descriptor) => Handle::Descriptor(descriptor),
                    None => Handle::Named(OsString::from_vec(name.to_vec())),
                };
                Ok(Word::Device(Device { identity: u32::from_le_bytes(*identity), handle }))
            }
            Some((&IRREPLACEABLE, why)) => {
                Ok(Word::Irreplaceable(String::from_utf8_lossy(why).into_owned()))
            }
            Some((&READY, _)) => Ok(Word::Ready),
            Some(_) => Err(invalid()),
            None => Ok(Word::End),
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
        theirs.irreplaceable("too old").unwrap();
        theirs.device(&Left::Descriptor(file.as_fd()), 7).unwrap();
        theirs.device(&Left::Named("/dev/ublkb3".into()), u32::MAX).unwrap();
        theirs.ready().unwrap();
        drop(theirs);
        assert!(matches!(ours.next().unwrap(), Word::Irreplaceable(why) if why == "too old"));
        let device = || match ours.next().unwrap() {
            Word::Device(Device { identity, handle }) => (identity, handle),
            word => panic!("{word:?}"),
        };
        assert!(matches!(device(), (7, Handle::Descriptor(_))));
        assert!(matches!(device(), (u32::MAX, Handle::Named(name)) if name == "/dev/ublkb3"));
        assert!(matches!(ours.next().unwrap(), Word::Ready));
        assert!(matches!(ours.next().unwrap(), Word::End));
    }
}
