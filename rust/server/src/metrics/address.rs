//! Where metrics are asked for: a TCP port, or a Unix socket.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::control::Socket;
use crate::words::reason;

/// An address, as users write it: `[HOST:]PORT`, or the path of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Host and port.
    Tcp(String, u16),
    /// A socket that is to be made.
    Unix(PathBuf),
}

impl MetricsAddress {
    /// From the text of a user. The error is a part of a line.
    ///
    /// # Errors
    /// A port that is no number up to 65535, or a host that is empty.
    pub fn parse(text: &str) -> Result<MetricsAddress, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if text.contains('/') || !digits {
            return match text {
                "" => Err("is empty: name [HOST:]PORT or a socket".into()),
                path => Ok(MetricsAddress::Unix(path.into())),
            };
        }
        let port = port.parse().map_err(|_| "has a port that is not from 0 to 65535")?;
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match host {
            "" => Err("names no host: write HOST:PORT or PORT".into()),
            "*" => Ok(MetricsAddress::Tcp("0.0.0.0".into(), port)),
            host => Ok(MetricsAddress::Tcp(host.into(), port)),
        }
    }

    /// Listens there. The error is a line for the user.
    pub(super) fn listen(&self) -> Result<Listener, String> {
        match self {
            MetricsAddress::Tcp(host, port) => {
                let failed = |error| {
                    format!("metrics: {host}:{port}: cannot listen here: {}", reason(&error))
                };
                listen_on_tcp(host, *port).map_err(failed)
            }
            MetricsAddress::Unix(path) => {
                remove_dead(path);
                Socket::bind("metrics", path).map(Listener::Unix)
            }
        }
    }
}

/// A socket that clients can connect to.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(Socket),
}

impl Listener {
    /// Where it is: the port is known only now when any free one was asked for.
    pub(super) fn place(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// The next client; `None` when none waits.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Listener::Unix(socket) => Ok(socket.accept()?.map(OwnedFd::from)),
            Listener::Tcp(listener) => match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(socket) => socket.as_fd(),
        }
    }
}

fn listen_on_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let places: Vec<_> = (host, port).to_socket_addrs()?.collect();
    let listener = TcpListener::bind(&places[..])?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(listener))
}

/// Removes a socket that a server has left behind which was killed.
fn remove_dead(path: &Path) {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        // What remains is reported when the socket is made.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MetricsAddress::{Tcp, Unix};

    #[test]
    fn addresses_are_ports_hosts_or_paths() {
        for (text, wanted) in [
            ("9100", Tcp("127.0.0.1".into(), 9100)),
            ("0", Tcp("127.0.0.1".into(), 0)),
            ("lab:9100", Tcp("lab".into(), 9100)),
            ("[::1]:9100", Tcp("::1".into(), 9100)),
            ("*:80", Tcp("0.0.0.0".into(), 80)),
            ("/run/m.sock", Unix("/run/m.sock".into())),
            ("./9100", Unix("./9100".into())),
            ("/a:9100", Unix("/a:9100".into())),
            ("m.sock", Unix("m.sock".into())),
        ] {
            assert_eq!(MetricsAddress::parse(text), Ok(wanted), "{text}");
        }
        for text in ["", "65536", ":9100", "lab:99999999999"] {
            assert!(MetricsAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_refused_by_name() {
        let first = Tcp("127.0.0.1".into(), 0).listen().unwrap();
        let taken = first.place().unwrap();
        let error = Tcp("127.0.0.1".into(), taken.port()).listen().err().unwrap();
        assert!(error.starts_with(&format!("metrics: {taken}: cannot listen here: ")), "{error}");
    }

    #[test]
    fn a_socket_of_a_dead_server_is_replaced_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let alive = Unix(path.clone()).listen().unwrap();
        assert!(Unix(path.clone()).listen().err().unwrap().contains("cannot make the socket"));
        drop(alive);
        std::fs::write(&path, "mine").unwrap();
        assert!(Unix(path.clone()).listen().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
