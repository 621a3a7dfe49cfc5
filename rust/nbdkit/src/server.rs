//! What is served, from the start of the server to its end.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::device::{Device, DeviceStatus};
use cowcloop_engine::overlay::{CowfileStatus, SnapshotSummary};
use cowcloop_engine::Layer;
use serde_json::{json, Value};

use crate::config::Config;
use crate::sessions::{Session, Sessions};

/// Sessions when no limit is given.
const MAX_SESSIONS: usize = 1000;

/// The open device, and what is known of its users.
pub struct Server {
    /// What a client gets that names no session.
    device: Arc<Device>,
    sessions: Option<Arc<Sessions>>,
    connections: AtomicU64,
}

/// What an export name leads to.
pub enum Export {
    /// The one device that all clients share.
    Device(Arc<Device>),
    /// A cowfile of its own on the shared base.
    Session(Arc<Session>),
}

impl Server {
    /// Opens the image and the cowfiles. The error is a line for the user.
    pub fn open(config: &Config) -> Result<Server, String> {
        let options = config.device_options();
        let device = Device::open(config.image()?, &config.cows, &options)
            .map_err(|error| error.to_string())?;
        let device = Arc::new(device);
        let sessions = match &config.sessions {
            None => None,
            Some(folder) => {
                device.tell_if_cut();
                let limit = config.max_sessions.unwrap_or(MAX_SESSIONS);
                Some(Arc::new(Sessions::new(folder, device.clone(), options, limit)?))
            }
        };
        Ok(Server { device, sessions, connections: AtomicU64::new(0) })
    }

    /// The export that a client named. The error is a line for the log.
    pub fn export(&self, name: &[u8]) -> Result<Export, String> {
        match &self.sessions {
            Some(sessions) if !name.is_empty() => sessions.join(name).map(Export::Session),
            _ => Ok(Export::Device(self.device.clone())),
        }
    }

    /// The exports to choose from: names and descriptions.
    pub fn exports(&self) -> Vec<(String, String)> {
        let mut exports = vec![(String::new(), self.device.description())];
        exports.extend(self.sessions.iter().flat_map(|sessions| sessions.list()));
        exports
    }

    /// The image without any cowfile.
    pub fn base(&self) -> Arc<dyn Layer> {
        self.device.base().clone()
    }

    /// Counts a connection for as long as the result lives.
    pub fn count_connection(self: &Arc<Self>) -> ConnectionCount {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionCount(self.clone())
    }

    /// The reply to a status request.
    pub fn status(&self) -> Value {
        let mut status = device_status(&self.device.status());
        if let Some(sessions) = &self.sessions {
            status["sessions"] = sessions.status().into();
        }
        status["suspended"] = self.is_suspended().into();
        status["pid"] = std::process::id().into();
        status["connections"] = self.connections.load(Ordering::Relaxed).into();
        status
    }

    /// Brings everything acknowledged to the medium, to stay there. The error is a line for
    /// the user.
    pub fn sync(&self) -> Result<(), String> {
        let result = self.device.flush().and_then(|()| self.device.check_kept());
        let sessions = self.sessions.as_ref().map_or(Ok(()), |sessions| sessions.sync());
        result.and(sessions).map_err(|error| error.to_string())
    }

    /// Copies the cowfile, or a session's, as it is now. The error is a line for the user.
    pub fn snapshot(&self, session: Option<&str>, path: &Path) -> Result<SnapshotSummary, String> {
        let done = match session {
            None => self.sole_device()?.snapshot(path),
            Some(name) => {
                let session = self.sessions()?.join_existing(name)?;
                session.existing().and_then(|device| device.snapshot(path))
            }
        };
        done.map_err(|error| error.to_string())
    }

    /// Closes the cowfile, or a session's, and goes on read-only. The error is
    /// a line for the user.
    pub fn reopen_read_only(&self, session: Option<&str>) -> Result<(), String> {
        let done = match session {
            None => self.sole_device()?.make_read_only(),
            Some(name) => {
                let session = self.sessions()?.in_use(name)?;
                session.existing().and_then(Device::make_read_only)
            }
        };
        done.map_err(|error| error.to_string())
    }

    fn sole_device(&self) -> Result<&Device, String> {
        match self.sessions {
            None => Ok(&self.device),
            Some(_) => Err("name the session that is meant".into()),
        }
    }

    fn sessions(&self) -> Result<&Arc<Sessions>, String> {
        self.sessions.as_ref().ok_or_else(|| "this server has no sessions".into())
    }

    /// Lets go of the image's file; reads of it wait. The error is a line for the user.
    pub fn suspend(&self) -> Result<(), String> {
        self.device.suspend().map_err(|error| error.to_string())
    }

    /// Opens the image's file anew. The error is a line for the user.
    pub fn resume(&self) -> Result<(), String> {
        self.device.resume().map_err(|error| error.to_string())
    }

    /// Lets the reads fail that wait for a suspended image.
    pub fn give_up(&self) {
        self.device.give_up();
    }

    /// Whether reads of the image wait.
    pub fn is_suspended(&self) -> bool {
        self.device.is_suspended()
    }

    /// Closes the cowfile cleanly, or those of the sessions. The error is a line for the user.
    pub fn close(&self) -> Result<(), String> {
        if let Some(sessions) = &self.sessions {
            sessions.close();
        }
        self.device.close().map_err(|error| error.to_string())
    }
}

/// A connection in the count, taken off it when dropped.
pub struct ConnectionCount(Arc<Server>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn device_status(status: &DeviceStatus) -> Value {
    let base = &status.base;
    json!({
        "image": status.image,
        "size": status.size,
        "read_only": status.read_only,
        "base": { "reads": base.base_reads, "read_bytes": base.base_read_bytes },
        "cache": {
            "hits": base.cache_hits,
            "misses": base.cache_misses,
            "bytes": base.cache_bytes,
            "limit": base.cache_limit,
        },
        "cowfiles": status.cowfiles.iter().map(cowfile_status).collect::<Vec<_>>(),
    })
}

/// A cowfile's part of the reply to a status request.
pub fn cowfile_status(cow: &CowfileStatus) -> Value {
    json!({
        "path": cow.path,
        "state": cow.state,
        "blocks_used": cow.blocks_used,
        "blocks_total": cow.blocks_total,
        "bitmap_bytes": cow.bitmap_bytes,
        "allocated": cow.allocated,
        "reads": cow.reads,
        "writes": cow.writes,
        "flushes": cow.flushes,
        "base_reads": cow.base_reads,
        "base_read_bytes": cow.base_read_bytes,
        "failures": cow.failures,
    })
}
