//! A socket of the server's own, and its name in the file system.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::words::reason;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A socket for the server's user, in the file system as long as this lives.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's name, to remove no other by it.
    id: (u64, u64),
}

/// Finds out early whether the socket of the parameter `what` can be made at `path`.
pub(crate) fn check(what: &str, path: &Path) -> Result<(), String> {
    let line = |problem: &str| format!("{what}: {}: {problem}", path.display());
    if path.symlink_metadata().is_ok() {
        return Err(line("the name is taken; remove it if no server uses it"));
    }
    SocketAddrUnix::new(path).map_err(|_| line("the path is too long for a socket"))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| line(&format!("cannot make a socket here: {}", reason(&error.into()))))
}

impl Socket {
    /// Makes the socket, open only to the server's user from its first moment on.
    pub(crate) fn bind(what: &str, path: &Path) -> Result<Socket, String> {
        Self::try_bind(path).map_err(|error| {
            format!("{what}: {}: cannot make the socket: {}", path.display(), reason(&error))
        })
    }

    fn try_bind(path: &Path) -> io::Result<Socket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The name takes its mode from the unbound socket, so that it is never
        // open to others, whatever the umask.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let metadata = path.symlink_metadata()?;
        let socket = Socket {
            listener: UnixListener::from(socket),
            path: path.to_path_buf(),
            id: (metadata.dev(), metadata.ino()),
        };
        rustix::net::listen(&socket.listener, BACKLOG)?;
        Ok(socket)
    }

    /// The next waiting client; `None` when there is none.
    pub(crate) fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    /// Removes the name.
    fn drop(&mut self) {
        if let Ok(metadata) = self.path.symlink_metadata() {
            if (metadata.dev(), metadata.ino()) == self.id {
                let _ = std::fs::remove_file(&self.path);
            }
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
        check("control", &path).unwrap();
        let socket = Socket::bind("control", &path).unwrap();
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(path.symlink_metadata().is_err());
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(check("control", &path).unwrap_err().contains("the name is taken"));
        assert!(Socket::bind("control", &path).is_err());
        assert!(path.symlink_metadata().unwrap().is_symlink());
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn another_socket_under_the_name_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let first = Socket::bind("control", &path).unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        let second = Socket::bind("control", &path).unwrap();
        drop(first);
        assert!(path.symlink_metadata().is_ok());
        drop(second);
        assert!(path.symlink_metadata().is_err());
    }

    #[test]
    fn places_where_no_socket_can_be_are_found_early() {
        assert!(check("control", Path::new("/nonexistent/c.sock"))
            .unwrap_err()
            .contains("cannot make"));
        let long = format!("/tmp/{}", "x".repeat(200));
        assert!(check("control", Path::new(&long)).unwrap_err().contains("too long"));
    }
}
