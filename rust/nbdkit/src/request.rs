//! One client's connection, and the data requests that it makes.

use std::ops::ControlFlow;
use std::sync::Arc;

use cowcloop_engine::device::Device;
use cowcloop_engine::layer::join_extents;
use cowcloop_engine::{Error, ErrorKind, Extent, ExtentKind, Result};

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
        match &self.export {
            Export::Device(device) => device.read_at(buf, offset),
            Export::Session(session) => session.read(buf, offset),
        }
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
        let most = if flags & abi::FLAG_REQ_ONE == 0 { MAX_EXTENTS } else { 1 };
        let mut left = most;
        let mut accepted = true;
        let mut sink = |extent: Extent| {
            let kind = match extent.kind {
                ExtentKind::Data => 0,
                ExtentKind::Zero => abi::EXTENT_ZERO_HOLE,
            };
            accepted = list.add(extent.offset, extent.length, kind);
            left -= 1;
            if accepted && left > 0 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        join_extents(&mut sink, |sink| self.reader().extents(offset, length, sink))?;
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
