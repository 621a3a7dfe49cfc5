//! The control channel: a Unix socket on which the server's owner, and nobody
//! else, asks for its state and has it do things.
//!
//! Its clients cannot hold up the server that it belongs to: they have threads
//! of their own, of a bounded number, and each must send its line in time.

mod protocol;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Access, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::report::reason;
use crate::server::Server;
use crate::{host, report};

/// Clients at one time.
const MAX_CLIENTS: usize = 16;
/// Bytes of a request.
const MAX_LINE: usize = 64 << 10;
/// How long a client may take over a request, waiting for it included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may take to accept some of the reply.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// The control socket, in the file system as long as this lives.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's name, to remove no other by it.
    id: (u64, u64),
    clients: HashMap<u64, Client>,
    next_client: u64,
}

struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

/// Finds out early whether a control socket can be made at `path`.
pub fn check(path: &Path) -> Result<(), String> {
    let line = |what: &str| format!("control: {}: {what}", path.display());
    if path.symlink_metadata().is_ok() {
        return Err(line("the name is taken; remove it if no server uses it"));
    }
    SocketAddrUnix::new(path).map_err(|_| line("the path is too long for a socket"))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| line(&format!("cannot make a socket here: {}", reason(&error.into()))))
}

impl Control {
    /// Makes the socket, for the server's user alone from its first moment on.
    pub fn bind(path: &Path) -> Result<Control, String> {
        Self::try_bind(path).map_err(|error| {
            format!("control: {}: cannot make the socket: {}", path.display(), reason(&error))
        })
    }

    fn try_bind(path: &Path) -> io::Result<Control> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The name takes its mode from the unbound socket, so that it is never
        // open to others, whatever the umask.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let metadata = path.symlink_metadata()?;
        let control = Control {
            listener: UnixListener::from(socket),
            path: path.to_path_buf(),
            id: (metadata.dev(), metadata.ino()),
            clients: HashMap::new(),
            next_client: 0,
        };
        rustix::net::listen(&control.listener, MAX_CLIENTS as i32)?;
        Ok(control)
    }

    /// Takes the clients that wait. Returns at once.
    pub fn accept(&mut self, server: &Arc<Server>) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            self.clients.retain(|_, client| !client.thread.is_finished());
            if let Err(error) = self.admit(stream, server) {
                host::debug(&format!("control: a client was turned away: {error}"));
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream, server: &Arc<Server>) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            let message = format!("user {} is not the server's", peer.uid.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        if self.clients.len() >= MAX_CLIENTS {
            // A fresh socket's buffer takes this line at once.
            let error = format!("the server has {MAX_CLIENTS} control clients already");
            return stream.write_all(protocol::reply(Err(error)).as_bytes());
        }
        let ours = stream.try_clone()?;
        let server = server.clone();
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            report::guard(|| {
                if let Err(error) = converse(stream, &server) {
                    host::debug(&format!("control: {error}"));
                }
            });
        })?;
        self.clients.insert(self.next_client, Client { stream: ours, thread });
        self.next_client += 1;
        Ok(())
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Control {
    /// Removes the name, hangs up on every client, and waits for the requests that run.
    fn drop(&mut self) {
        if let Ok(metadata) = self.path.symlink_metadata() {
            if (metadata.dev(), metadata.ino()) == self.id {
                let _ = std::fs::remove_file(&self.path);
            }
        }
        for client in self.clients.values() {
            // Fails where the client has hung up already.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        for (_, client) in self.clients.drain() {
            let _ = client.thread.join();
        }
    }
}

/// Answers a client until it hangs up or is too slow.
fn converse(stream: UnixStream, server: &Server) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    while let Some(line) = read_line(&mut reader, &stream)? {
        (&stream).write_all(protocol::answer(&line, server).as_bytes())?;
    }
    Ok(())
}

/// The next line; `None` once the client has hung up.
fn read_line(
    reader: &mut BufReader<&UnixStream>,
    stream: &UnixStream,
) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of 0 would mean none at all.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        if line.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is too long"));
        }
        if end.is_some() {
            return Ok(Some(line));
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        check(&path).unwrap();
        let control = Control::bind(&path).unwrap();
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(control);
        assert!(path.symlink_metadata().is_err());
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(check(&path).unwrap_err().contains("the name is taken"));
        assert!(Control::bind(&path).is_err());
        assert!(path.symlink_metadata().unwrap().is_symlink());
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn another_socket_under_the_name_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let first = Control::bind(&path).unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        let second = Control::bind(&path).unwrap();
        drop(first);
        assert!(path.symlink_metadata().is_ok());
        drop(second);
        assert!(path.symlink_metadata().is_err());
    }

    #[test]
    fn places_where_no_socket_can_be_are_found_early() {
        assert!(check(Path::new("/nonexistent/c.sock")).unwrap_err().contains("cannot make"));
        let long = format!("/tmp/{}", "x".repeat(200));
        assert!(check(Path::new(&long)).unwrap_err().contains("too long"));
    }

    fn lines_of(sent: &[u8]) -> (Vec<Vec<u8>>, io::Result<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sent = sent.to_vec();
        let writer = std::thread::spawn(move || {
            // Fails once the reader has had enough.
            let _ = (&theirs).write_all(&sent);
        });
        let mut lines = Vec::new();
        let result = {
            let mut reader = BufReader::new(&ours);
            loop {
                match read_line(&mut reader, &ours) {
                    Ok(Some(line)) => lines.push(line),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        drop(ours);
        writer.join().unwrap();
        (lines, result)
    }

    #[test]
    fn requests_are_lines_of_bounded_length() {
        let (lines, result) = lines_of(b"one\ntwo\nrest without an end");
        assert_eq!(lines, [b"one\n", b"two\n"]);
        result.unwrap();
        let (lines, result) = lines_of(&vec![b'x'; 10 * MAX_LINE]);
        assert!(lines.is_empty());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
