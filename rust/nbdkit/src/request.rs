//! One client's connection, and the data requests that it makes.

use std::ops::ControlFlow;
use std::sync::Arc;

use cowcloop_engine::device::Device;
use cowcloop_engine::{Error, ErrorKind, ExtentKind, Result};

use crate::abi;
use crate::host::ExtentList;
use crate::server::{ConnectionCount, Export, Server};

/// Extents that one answer may hold; the client asks again for what follows.
const MAX_EXTENTS: usize = 1 << 16;

/// What nbdkit holds for a client.
pub struct Connection {
    export: Export,
    writable: bool,
    _counted: ConnectionCount,
}

impl Connection {
    /// A connection to the export that the client named; `read_only` by nbdkit's own option.
    pub fn open(
        server: &Arc<Server>,
        name: &[u8],
        read_only: bool,
    ) -> std::result::Result<Connection, String> {
        let export = server.export(name)?;
        let writable = !read_only
            && match &export {
                Export::Device(device) => !device.read_only(),
                Export::Session(session) => !session.read_only(),
            };
        Ok(Connection { export, writable, _counted: server.count_connection() })
    }

    fn reader(&self) -> &Device {
        match &self.export {
            Export::Device(device) => device,
            Export::Session(session) => session.reader(),
        }
    }

    fn writer(&self) -> Result<&Device> {
        match &self.export {
            Export::Device(device) => Ok(device),
            Export::Session(session) => session.writer(),
        }
    }

    /// The device's size in bytes.
    pub fn size(&self) -> u64 {
        match &self.export {
            Export::Device(device) => device.size(),
            Export::Session(session) => session.size(),
        }
    }

    /// Whether the client may write.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// One line for people.
    pub fn description(&self) -> String {
        match &self.export {
            Export::Device(device) => device.description(),
            Export::Session(session) => session.description(),
        }
    }

    /// Fills `buf` from `offset` on.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reader().read_at(buf, offset)
    }

    /// Writes `buf`; with FUA in `flags` it is durable on return.
    pub fn write(&self, buf: &[u8], offset: u64, flags: u32) -> Result<()> {
        let device = self.writer()?;
        device.write_at(buf, offset)?;
        flush_if_asked(device, flags)
    }

    /// Makes everything acknowledged before durable, on every connection.
    pub fn flush(&self) -> Result<()> {
        match &self.export {
            Export::Device(device) => device.flush(),
            Export::Session(session) => session.flush(),
        }
    }

    /// Discards a range.
    pub fn trim(&self, offset: u64, length: u64, flags: u32) -> Result<()> {
        let device = self.writer()?;
        device.trim(offset, length)?;
        flush_if_asked(device, flags)
    }

    /// Makes a range read as zeros.
    pub fn zero(&self, offset: u64, length: u64, flags: u32) -> Result<()> {
        if flags & abi::FLAG_MAY_TRIM == 0 {
            // The client wants the space taken, not freed. nbdkit answers this
            // by writing zeros, unless that is too slow for the client.
            let message = "zeros without a hole have to be written";
            return Err(Error::new(ErrorKind::Unsupported, "zero request", message));
        }
        let device = self.writer()?;
        device.write_zeroes(offset, length, flags & abi::FLAG_FAST_ZERO != 0)?;
        flush_if_asked(device, flags)
    }

    /// Reports which parts of a range are zeros.
    pub fn extents(
        &self,
        offset: u64,
        length: u64,
        flags: u32,
        list: &mut ExtentList,
    ) -> Result<bool> {
        let first_only = flags & abi::FLAG_REQ_ONE != 0;
        let mut accepted = true;
        let mut runs = Runs::new(|offset, length, kind| {
            let kind = match kind {
                ExtentKind::Data => 0,
                ExtentKind::Zero => abi::EXTENT_ZERO_HOLE,
            };
            accepted = list.add(offset, length, kind);
            accepted && !first_only
        });
        self.reader().extents(offset, length, &mut |extent| {
            runs.add(extent.offset, extent.length, extent.kind)
        })?;
        runs.finish();
        Ok(accepted)
    }

    /// A hint that a range will be read.
    pub fn cache(&self, offset: u64, length: u64) {
        self.reader().prefetch(offset, length);
    }
}

fn flush_if_asked(device: &Device, flags: u32) -> Result<()> {
    match flags & abi::FLAG_FUA != 0 {
        true => device.flush(),
        false => Ok(()),
    }
}

/// Joins neighbouring extents of one kind, so that each run is passed on once.
struct Runs<F> {
    run: Option<(u64, u64, ExtentKind)>,
    left: usize,
    pass_on: F,
}

impl<F: FnMut(u64, u64, ExtentKind) -> bool> Runs<F> {
    fn new(pass_on: F) -> Self {
        Runs { run: None, left: MAX_EXTENTS, pass_on }
    }

    fn add(&mut self, offset: u64, length: u64, kind: ExtentKind) -> ControlFlow<()> {
        if let Some(run) = &mut self.run {
            if run.2 == kind {
                run.1 += length;
                return ControlFlow::Continue(());
            }
            let (start, length, kind) = *run;
            self.run = None;
            self.left -= 1;
            if !(self.pass_on)(start, length, kind) || self.left == 0 {
                self.left = 0;
                return ControlFlow::Break(());
            }
        }
        self.run = Some((offset, length, kind));
        ControlFlow::Continue(())
    }

    /// Passes the last run on, unless the walk was ended before.
    fn finish(mut self) {
        if let Some((offset, length, kind)) = self.run.take() {
            (self.pass_on)(offset, length, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ExtentKind::{Data, Zero};

    fn runs_of(
        extents: &[(u64, u64, ExtentKind)],
        first_only: bool,
    ) -> Vec<(u64, u64, ExtentKind)> {
        let mut found = Vec::new();
        let mut runs = Runs::new(|offset, length, kind| {
            found.push((offset, length, kind));
            !first_only
        });
        for &(offset, length, kind) in extents {
            if runs.add(offset, length, kind).is_break() {
                break;
            }
        }
        runs.finish();
        found
    }

    #[test]
    fn neighbours_of_one_kind_become_one_run() {
        let extents = [(0, 10, Data), (10, 5, Data), (15, 1, Zero), (16, 4, Zero), (20, 2, Data)];
        assert_eq!(runs_of(&extents, false), [(0, 15, Data), (15, 5, Zero), (20, 2, Data)]);
        assert_eq!(runs_of(&extents, true), [(0, 15, Data)]);
        assert_eq!(runs_of(&extents[..2], true), [(0, 15, Data)]);
        assert_eq!(runs_of(&[], false), []);
    }

    #[test]
    fn an_answer_has_an_end() {
        let many: Vec<_> = (0..MAX_EXTENTS as u64 * 2)
            .map(|i| (i, 1, if i % 2 == 0 { Data } else { Zero }))
            .collect();
        assert_eq!(runs_of(&many, false).len(), MAX_EXTENTS);
    }
}
