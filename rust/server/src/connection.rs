//! One client's connection, and the requests that it makes.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use cowcloop_engine::device::Device;
use cowcloop_engine::image::as_reader;
use cowcloop_engine::layer::{join_extents, ExtentSink};
use cowcloop_engine::{Error, ErrorKind, Extent, Result};

use crate::export::Export;
use crate::metrics::Kind;
use crate::server::Server;
use crate::waiting::Waiting;

/// Whether a change is to be durable before it is answered (force unit access).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fua(pub bool);

/// How zeros are to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZeroFlags {
    /// The range may become a hole.
    pub may_trim: bool,
    /// Rather fail than take as long as a write.
    pub fast: bool,
    /// As for a write.
    pub fua: Fua,
}

/// A client's export, open until this is dropped. Any thread may make any request at any
/// time.
///
/// A failed request is reported as an event as well, unless it was reported before or is no
/// fault.
pub struct Connection {
    export: Export,
    read_only: bool,
    writable: bool,
    waiting: Waiting,
    server: Arc<Server>,
}

impl Connection {
    /// A connection to `export`, which may be written unless it is `read_only`.
    pub(crate) fn new(server: &Arc<Server>, export: Export, read_only: bool) -> Connection {
        server.connection_begins();
        let writable = !read_only && !export.read_only();
        let waiting = Waiting::new(server.options().waiting, writable);
        Connection { export, read_only, writable, waiting, server: server.clone() }
    }

    /// The device's size in bytes.
    pub fn size(&self) -> u64 {
        self.export.size()
    }

    /// Reads of whole blocks of this many bytes, at multiples of it, cost least.
    pub fn read_unit(&self) -> u64 {
        self.export.reader().base().read_unit()
    }

    /// A number by which another server of the same device is known: see [`Device::place`]. The
    /// same device, read-only, has another one.
    ///
    /// # Errors
    /// Those of reading the image.
    pub fn identity(&self) -> Result<u32> {
        let place = self.export.reader().place()?;
        let bytes = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        Ok(if self.writable { bytes | 1 } else { bytes & !1 })
    }

    /// Whether the client may write.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// One line for users.
    pub fn description(&self) -> String {
        self.export.description()
    }

    /// Fills `buf` from `offset` on.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let reader = self.export.reader();
        self.counted(Kind::Read, buf.len() as u64, || {
            let _reading = self.server.readers().begin();
            self.waiting.patiently(reader, || self.export.read(buf, offset))
        })
    }

    /// Writes `buf` from `offset` on.
    pub fn write(&self, buf: &[u8], offset: u64, fua: Fua) -> Result<()> {
        self.counted(Kind::Write, buf.len() as u64, || {
            self.change(fua, |device| device.write_at(buf, offset))
        })
    }

    /// Makes everything acknowledged before durable, on every connection.
    pub fn flush(&self) -> Result<()> {
        self.counted(Kind::Flush, 0, || self.export.flush())
    }

    /// Discards a range.
    pub fn trim(&self, offset: u64, length: u64, fua: Fua) -> Result<()> {
        self.counted(Kind::Trim, length, || self.change(fua, |device| device.trim(offset, length)))
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// `Unsupported` where the client does not want a hole: such zeros have to be written.
    pub fn zero(&self, offset: u64, length: u64, flags: ZeroFlags) -> Result<()> {
        self.counted(Kind::Zero, length, || {
            if flags.may_trim {
                self.change(flags.fua, |device| device.write_zeroes(offset, length, flags.fast))
            } else {
                let message = "zeros without a hole have to be written";
                Err(Error::new(ErrorKind::Unsupported, "zero request", message))
            }
        })
    }

    /// Reports the parts of a range that are zeros, in order, each as long as possible.
    pub fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let reader = self.export.reader();
        let end = offset.saturating_add(length);
        // When it is repeated, a walk goes on from where it stopped.
        let at = Cell::new(offset);
        let mut note = |extent: Extent| {
            at.set(extent.end());
            sink(extent)
        };
        self.counted(Kind::Extents, 0, || {
            self.waiting.patiently(reader, || {
                let start = at.get();
                join_extents(&mut note, |sink| reader.extents(start, end - start, sink))
            })
        })
    }

    /// A hint that a range will be read.
    pub fn cache(&self, offset: u64, length: u64) {
        let hint = || {
            self.export.reader().prefetch(offset, length);
            Ok(())
        };
        // A hint does not fail.
        let _ = self.counted(Kind::Cache, length, hint);
    }

    fn change(&self, fua: Fua, change: impl Fn(&Device) -> Result<()>) -> Result<()> {
        if self.read_only {
            let message = "the connection is read-only";
            return Err(Error::new(ErrorKind::ReadOnly, self.description(), message));
        }
        self.waiting.patiently(self.export.reader(), || change(self.export.writer()?))?;
        if fua.0 {
            self.export.flush()?;
        }
        Ok(())
    }

    /// Makes a request of so many bytes, tells of its failure, and counts it where that is
    /// wanted.
    fn counted(&self, kind: Kind, bytes: u64, request: impl FnOnce() -> Result<()>) -> Result<()> {
        let counts = self.server.requests().map(|requests| (requests, Instant::now()));
        // Each session has its own share of the processors.
        let done = as_reader(self.export.reader_number(), request);
        if let Some((requests, begin)) = counts {
            requests.note(kind, bytes, begin.elapsed(), done.is_ok());
        }
        if let Err(error) = &done {
            self.server.reports().request_failed(error);
        }
        done
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.connection_ends();
    }
}

#[cfg(test)]
mod tests {
    use cowcloop_engine::image::reader;

    use super::*;
    use crate::events::tests::Kept;
    use crate::options::{ServerOptions, SessionOptions};

    /// The number of the reader whose share a request of this connection takes.
    fn whose(connection: &Connection) -> u64 {
        let mut found = None;
        let request = || {
            found = Some(reader());
            Ok(())
        };
        connection.counted(Kind::Read, 0, request).unwrap();
        assert_eq!(reader(), 0);
        found.unwrap()
    }

    #[test]
    fn each_session_is_one_reader_whatever_the_number_of_its_clients() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, [0; 4096]).unwrap();
        let sessions = Some(SessionOptions::new(folder.path().join("sessions")));
        let options = ServerOptions { image, sessions, ..Default::default() };
        let server = Arc::new(Server::open(options, Arc::<Kept>::default()).unwrap());
        let [anna, again, bert, base] = ["anna", "anna", "bert", ""]
            .map(|name| server.connect(name.as_bytes(), false).unwrap());
        assert_eq!(whose(&anna), whose(&again));
        let numbers = [&base, &anna, &bert].map(whose);
        assert!(numbers[0] == 0 && numbers[1] != 0 && numbers[2] != 0, "{numbers:?}");
        assert_ne!(numbers[1], numbers[2]);
        drop([anna, again, bert, base]);
        server.close().unwrap();
    }
}
