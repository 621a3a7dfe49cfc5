//! The answers to those that ask for metrics, by HTTP/1.1.
//!
//! Clients have threads of their own, of a bounded number, and each has a few seconds in all: one
//! that is slow, or sends no HTTP, holds up neither the server nor, for long, another client.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{send, shutdown, SendFlags, Shutdown};

use super::address::Listener;
use super::text;
use crate::guard::guard;
use crate::server::Server;

/// Clients at a time; others are sent away.
const MAX_CLIENTS: usize = 8;
/// The time that a client has from its connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a request at most.
const LONGEST: usize = 8 << 10;
/// Header lines of a request at most.
const MOST_HEADERS: usize = 64;
/// The pause before accepting again when the system is short of descriptors.
const SHORTAGE: Duration = Duration::from_millis(200);

/// The thread that waits for clients.
pub(crate) struct Responder {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Responder {
    /// Starts the thread; must not be called before the server has forked.
    pub(super) fn start(listener: Listener, server: &Arc<Server>) -> io::Result<Responder> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let watch = stop.clone();
        let server = server.clone();
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            guard(|| {
                let mut clients = Clients { server, of: HashMap::new(), next: 0 };
                if let Err(error) = clients.take_from(&listener, &watch) {
                    clients.server.events().error(&format!("metrics: has ended: {error}"));
                }
            });
        })?;
        Ok(Responder { stop, thread })
    }

    /// Hangs up on every client, and waits for the threads.
    pub(crate) fn stop(self) {
        // Fails only when the counter is full, and then the thread wakes too.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

/// The clients, each with its thread. Dropped, it hangs up on them.
struct Clients {
    server: Arc<Server>,
    /// A client's thread alone holds its connection, which ends with the answer.
    of: HashMap<u64, (Weak<OwnedFd>, JoinHandle<()>)>,
    next: u64,
}

impl Clients {
    /// Accepts clients until `stop` can be read.
    fn take_from(&mut self, listener: &Listener, stop: &OwnedFd) -> io::Result<()> {
        loop {
            let mut watched =
                [PollFd::new(stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !watched[0].revents().is_empty() {
                return Ok(());
            }
            if let Err(error) = self.take_waiting(listener) {
                self.server.events().debug(&format!("metrics: cannot accept a client: {error}"));
                std::thread::sleep(SHORTAGE);
            }
        }
    }

    fn take_waiting(&mut self, listener: &Listener) -> io::Result<()> {
        while let Some(socket) = listener.accept()? {
            self.of.retain(|_, (_, thread)| !thread.is_finished());
            // Dropped, the connection ends.
            if self.of.len() < MAX_CLIENTS {
                self.admit(socket)?;
            }
        }
        Ok(())
    }

    fn admit(&mut self, socket: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = Arc::new(socket);
        let (ours, server) = (Arc::downgrade(&socket), self.server.clone());
        let thread =
            std::thread::Builder::new().name("metrics client".into()).spawn(move || {
                guard(|| {
                    if let Err(error) = answer(&socket, &server) {
                        server.events().debug(&format!("metrics: {error}"));
                    }
                });
            })?;
        self.of.insert(self.next, (ours, thread));
        self.next += 1;
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for socket in self.of.values().filter_map(|(socket, _)| socket.upgrade()) {
            // Fails where the client has hung up already.
            let _ = shutdown(&*socket, Shutdown::Both);
        }
        for (_, (_, thread)) in self.of.drain() {
            let _ = thread.join();
        }
    }
}

/// Answers the one request of a connection.
fn answer(socket: &OwnedFd, server: &Server) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let asked = read_request(socket, end)?;
    let response = match asked {
        Asked::Metrics { body } => {
            let text = text::encode(server);
            let head = head("200 OK", text::CONTENT_TYPE, text.len(), "");
            if body {
                head + &text
            } else {
                head
            }
        }
        Asked::Elsewhere => plain("404 Not Found", "the metrics are at /metrics\n", ""),
        Asked::Otherwise => {
            plain("405 Method Not Allowed", "only GET and HEAD\n", "Allow: GET, HEAD\r\n")
        }
        Asked::TooMuch => plain("431 Request Header Fields Too Large", "too long\n", ""),
        Asked::Nonsense => plain("400 Bad Request", "this is not HTTP\n", ""),
    };
    write_all(socket, response.as_bytes(), end)
}

/// The request of a client.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics { body: bool },
    Elsewhere,
    Otherwise,
    TooMuch,
    Nonsense,
}

fn read_request(socket: &OwnedFd, end: Instant) -> io::Result<Asked> {
    let mut request = Vec::with_capacity(1024);
    loop {
        if let Some(asked) = parse(&request) {
            return Ok(asked);
        }
        let mut piece = [0; 1024];
        wait(socket, PollFlags::IN, end)?;
        match rustix::io::read(socket, &mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => request.extend_from_slice(&piece[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the beginning of a request says; `None` when more of it is needed.
fn parse(bytes: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(status) if status.is_complete() => {}
        Ok(_) if bytes.len() >= LONGEST => return Some(Asked::TooMuch),
        Ok(_) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Asked::TooMuch),
        Err(_) => return Some(Asked::Nonsense),
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Some(match request.method {
        Some("GET" | "HEAD") if !["/metrics", "/"].contains(&path) => Asked::Elsewhere,
        Some("GET") => Asked::Metrics { body: true },
        Some("HEAD") => Asked::Metrics { body: false },
        _ => Asked::Otherwise,
    })
}

fn head(status: &str, content: &str, length: usize, more: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {length}\r\n\
         {more}Connection: close\r\n\r\n"
    )
}

fn plain(status: &str, text: &str, more: &str) -> String {
    head(status, "text/plain; charset=utf-8", text.len(), more) + text
}

fn write_all(socket: &OwnedFd, bytes: &[u8], end: Instant) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        wait(socket, PollFlags::OUT, end)?;
        match send(socket, left, SendFlags::NOSIGNAL) {
            Ok(n) => left = &left[n..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until the client has sent or taken some.
fn wait(socket: &OwnedFd, what: PollFlags, end: Instant) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
        match poll(&mut [PollFd::new(socket, what)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood_as_they_come_in() {
        let request = b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n";
        for end in 0..request.len() {
            assert_eq!(parse(&request[..end]), None, "{end}");
        }
        assert_eq!(parse(request), Some(Asked::Metrics { body: true }));
        let asked = |line: &str| parse(format!("{line} HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(asked("HEAD /"), Some(Asked::Metrics { body: false }));
        assert_eq!(asked("GET /favicon.ico"), Some(Asked::Elsewhere));
        assert_eq!(asked("POST /metrics"), Some(Asked::Otherwise));
        assert_eq!(parse(b"GET / HTTP/1.0\n\n"), Some(Asked::Metrics { body: true }));
    }

    #[test]
    fn what_is_no_request_is_refused_and_takes_no_memory() {
        for garbage in
            [&b"\0\0\0\0"[..], b"\x16\x03\x01\x02\0", b"NBDMAGIC\xff", b"\xff\xfe\r\n\r\n"]
        {
            assert_eq!(parse(garbage), Some(Asked::Nonsense), "{garbage:?}");
        }
        let long = [&b"GET /"[..], &vec![b'a'; LONGEST]].concat();
        assert_eq!(parse(&long), Some(Asked::TooMuch));
        let headers = "A: b\r\n".repeat(MOST_HEADERS + 1);
        let many = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(parse(many.as_bytes()), Some(Asked::TooMuch));
    }
}
