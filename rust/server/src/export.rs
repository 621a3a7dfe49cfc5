//! The device behind an export name.

use std::sync::Arc;

use cowcloop_engine::device::Device;
use cowcloop_engine::Result;

use crate::sessions::Client;

/// A device for a client.
pub(crate) enum Export {
    /// The one device that all clients share.
    Device(Arc<Device>),
    /// A cowfile of its own on the shared base.
    Session(Client),
}

impl Export {
    /// Where reads go that are not counted.
    pub(crate) fn reader(&self) -> &Device {
        match self {
            Export::Device(device) => device,
            Export::Session(session) => session.reader(),
        }
    }

    /// Where changes go.
    pub(crate) fn writer(&self) -> Result<&Device> {
        match self {
            Export::Device(device) => Ok(device),
            Export::Session(session) => session.writer(),
        }
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Export::Device(device) => device.size(),
            Export::Session(session) => session.size(),
        }
    }

    /// Whether writes are refused.
    pub(crate) fn read_only(&self) -> bool {
        match self {
            Export::Device(device) => device.read_only(),
            Export::Session(session) => session.read_only(),
        }
    }

    /// One line for users.
    pub(crate) fn description(&self) -> String {
        match self {
            Export::Device(device) => device.description(),
            Export::Session(session) => session.description(),
        }
    }

    /// The reader that the work is done for; 0 where there is no other.
    pub(crate) fn reader_number(&self) -> u64 {
        match self {
            Export::Device(_) => 0,
            Export::Session(session) => session.number(),
        }
    }

    /// Fills `buf` from `offset` on.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Export::Device(device) => device.read_at(buf, offset),
            Export::Session(session) => session.read(buf, offset),
        }
    }

    /// Makes everything acknowledged before durable.
    pub(crate) fn flush(&self) -> Result<()> {
        match self {
            Export::Device(device) => device.flush(),
            Export::Session(session) => session.flush(),
        }
    }
}
