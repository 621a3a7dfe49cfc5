//! The control channel: a Unix socket on which the server's owner and root, and no other
//! user, ask for the server's state and give it commands.
//!
//! Its clients cannot hold up the server: they have threads of their own, of a bounded
//! number, and each must send its line in time.

mod lines;
mod protocol;
mod socket;

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use crate::guard::guard;
use crate::server::Server;

pub(crate) use socket::{check, Socket};

/// Clients at a time.
const MAX_CLIENTS: usize = 16;
/// The time that a client has to accept some of the reply.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// The pause before accepting again when the system is short of descriptors.
const SHORTAGE: Duration = Duration::from_millis(200);

/// The thread that waits for clients.
pub(crate) struct Control {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Starts the thread; must not be called before the server has forked.
    pub(crate) fn start(socket: Socket, server: &Arc<Server>) -> io::Result<Control> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let watch = stop.clone();
        let server = server.clone();
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            guard(|| {
                let mut clients = Clients { server, of: HashMap::new(), next: 0 };
                if let Err(error) = clients.take_from(&socket, &watch) {
                    clients.server.events().error(&format!("control: has ended: {error}"));
                }
                // First, so that no client comes to a server that does not answer.
                drop(socket);
            });
        })?;
        Ok(Control { stop, thread })
    }

    /// Removes the socket, hangs up on every client, and waits for the running requests.
    pub(crate) fn stop(self) {
        // Fails only when the counter is full, and then the thread wakes too.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

/// The clients, each with its thread. Dropped, it hangs up on them.
struct Clients {
    server: Arc<Server>,
    of: HashMap<u64, Client>,
    next: u64,
}

struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Clients {
    /// Accepts clients until `stop` can be read.
    fn take_from(&mut self, socket: &Socket, stop: &OwnedFd) -> io::Result<()> {
        loop {
            let mut watched =
                [PollFd::new(stop, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !watched[0].revents().is_empty() {
                return Ok(());
            }
            if let Err(error) = self.take_waiting(socket) {
                self.server.events().debug(&format!("control: cannot accept a client: {error}"));
                std::thread::sleep(SHORTAGE);
            }
        }
    }

    fn take_waiting(&mut self, socket: &Socket) -> io::Result<()> {
        while let Some(stream) = socket.accept()? {
            self.of.retain(|_, client| !client.thread.is_finished());
            if let Err(error) = self.admit(stream) {
                self.server.events().debug(&format!("control: a client was turned away: {error}"));
            }
        }
        Ok(())
    }

    fn admit(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            let message = format!("user {} is not the server's", peer.uid.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        if self.of.len() >= MAX_CLIENTS {
            // A fresh socket's buffer takes this line at once.
            let error = format!("the server has {MAX_CLIENTS} control clients already");
            return stream.write_all(protocol::refusal(error).as_bytes());
        }
        let ours = stream.try_clone()?;
        let server = self.server.clone();
        let thread =
            std::thread::Builder::new().name("control client".into()).spawn(move || {
                guard(|| {
                    if let Err(error) = converse(stream, &server) {
                        server.events().debug(&format!("control: {error}"));
                    }
                });
            })?;
        self.of.insert(self.next, Client { stream: ours, thread });
        self.next += 1;
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for client in self.of.values() {
            // Fails where the client has hung up already.
            let _ = client.stream.shutdown(Shutdown::Read);
        }
        for (_, client) in self.of.drain() {
            let _ = client.thread.join();
        }
    }
}

/// Answers a client until it hangs up or is too slow.
fn converse(stream: UnixStream, server: &Server) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    while let Some(line) = lines::read_line(&mut reader, &stream)? {
        (&stream).write_all(protocol::answer(&line, server).as_bytes())?;
    }
    Ok(())
}
