//! Sends the clients away when the server is to end.
//!
//! nbdkit waits for its clients to leave by themselves, however idle they are, before it
//! closes the device. This shuts their connections for reading: requests that a client has
//! sent are still served and answered, then nbdkit sees the client leave.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    getsockname, shutdown, sockopt, AddressFamily, Shutdown, SocketAddrAny, SocketAddrV4,
    SocketAddrV6, SocketType,
};

use crate::host;

/// The addresses at which nbdkit listens.
#[derive(Debug)]
pub struct Listeners(Vec<SocketAddrAny>);

impl Listeners {
    /// Those of this process now; sockets made later are not nbdkit's.
    pub fn find() -> Listeners {
        let mut found = Vec::new();
        let note = |socket: OwnedFd| {
            if let (Ok(true), Ok(name)) =
                (sockopt::socket_acceptconn(&socket), getsockname(&socket))
            {
                found.push(name);
            }
        };
        // A socket that cannot be examined counts as none.
        let _ = each_stream_socket(note);
        Listeners(found)
    }

    /// Ends every connection that was made to one of these addresses.
    ///
    /// # Errors
    /// The system's, when the connections cannot be listed.
    pub fn send_clients_away(&self) -> io::Result<()> {
        each_stream_socket(|socket| {
            let Ok(name) = getsockname(&socket) else { return };
            let listens = sockopt::socket_acceptconn(&socket) == Ok(true);
            if !listens && self.0.iter().any(|listener| same_door(listener, &name)) {
                // Fails for a client that has gone.
                let _ = shutdown(&socket, Shutdown::Read);
            }
        })
    }
}

/// Whether a connection's own address is that of a listening socket. TCP ones
/// may listen at every address of the machine, so there the port decides.
fn same_door(listener: &SocketAddrAny, connection: &SocketAddrAny) -> bool {
    match (port(listener), port(connection)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        (None, None) => listener == connection,
        _ => false,
    }
}

fn port(name: &SocketAddrAny) -> Option<u16> {
    match name.address_family() {
        AddressFamily::INET => SocketAddrV4::try_from(name.clone()).ok().map(|name| name.port()),
        AddressFamily::INET6 => SocketAddrV6::try_from(name.clone()).ok().map(|name| name.port()),
        _ => None,
    }
}

/// Examines the process's stream sockets, one after the other, each duplicated so that it
/// is not closed meanwhile.
fn each_stream_socket(mut look: impl FnMut(OwnedFd)) -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?.collect::<io::Result<Vec<_>>>()?;
    for number in open.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        match host::duplicate_fd(number) {
            Ok(fd) if sockopt::socket_type(&fd) == Ok(SocketType::STREAM) => look(fd),
            Ok(_) => {}
            // Closed meanwhile.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BADF) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn only_clients_of_the_listeners_are_sent_away() {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("a.sock")).unwrap();
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let names = vec![getsockname(&unix).unwrap(), getsockname(&tcp).unwrap()];
        // Other tests of this process have sockets of their own.
        let found = Listeners::find();
        assert!(names.iter().all(|name| found.0.contains(name)));
        let other = UnixListener::bind(folder.path().join("b.sock")).unwrap();
        assert!(!found.0.contains(&getsockname(&other).unwrap()));

        let _unix_client = UnixStream::connect(folder.path().join("a.sock")).unwrap();
        let (mut by_unix, _) = unix.accept().unwrap();
        let port = tcp.local_addr().unwrap().port();
        let mut tcp_client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (mut by_tcp, _) = tcp.accept().unwrap();
        let mut other_client = UnixStream::connect(folder.path().join("b.sock")).unwrap();
        let (mut by_other, _) = other.accept().unwrap();

        Listeners(names).send_clients_away().unwrap();
        assert_eq!(by_unix.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(by_tcp.read(&mut [0; 1]).unwrap(), 0);
        // An answer still gets through.
        by_tcp.write_all(b"x").unwrap();
        tcp_client.read_exact(&mut [0; 1]).unwrap();
        other_client.write_all(b"y").unwrap();
        assert_eq!(by_other.read(&mut [0; 1]).unwrap(), 1);
    }
}
