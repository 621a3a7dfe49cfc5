//! What is served, from the start of the server to its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::device::{Device, DeviceStatus};
use serde_json::{json, Value};

use crate::config::Config;

/// The open device, and what is known of its users.
pub struct Server {
    device: Arc<Device>,
    cache_limit: u64,
    connections: AtomicU64,
}

impl Server {
    /// Opens the image and the cowfiles. The error is a line for the user.
    pub fn open(config: &Config) -> Result<Server, String> {
        let options = config.device_options();
        let device = Device::open(config.image()?, &config.cows, &options)
            .map_err(|error| error.to_string())?;
        Ok(Server {
            device: Arc::new(device),
            cache_limit: options.image.cache_bytes,
            connections: AtomicU64::new(0),
        })
    }

    /// The device that every export name leads to.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Counts a connection for as long as the result lives.
    pub fn count_connection(self: &Arc<Self>) -> ConnectionCount {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionCount(self.clone())
    }

    /// The reply to a status request.
    pub fn status(&self) -> Value {
        let mut status = device_status(&self.device.status(), self.cache_limit);
        status["pid"] = std::process::id().into();
        status["connections"] = self.connections.load(Ordering::Relaxed).into();
        status
    }

    /// Brings everything acknowledged to the medium. The error is a line for the user.
    pub fn sync(&self) -> Result<(), String> {
        self.device.flush().map_err(|error| error.to_string())
    }

    /// Closes the cowfile cleanly. The error is a line for the user.
    pub fn close(&self) -> Result<(), String> {
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

fn device_status(status: &DeviceStatus, cache_limit: u64) -> Value {
    let cowfiles: Vec<Value> = status
        .cowfiles
        .iter()
        .map(|cow| {
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
            })
        })
        .collect();
    json!({
        "image": status.image,
        "size": status.size,
        "read_only": status.read_only,
        "base": { "reads": status.base.base_reads, "read_bytes": status.base.base_read_bytes },
        "cache": {
            "hits": status.base.cache_hits,
            "misses": status.base.cache_misses,
            "bytes": status.base.cache_bytes,
            "limit": cache_limit,
        },
        "cowfiles": cowfiles,
    })
}
