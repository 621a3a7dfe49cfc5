//! The replies of the control channel, as they are written.

use cowcloop_engine::device::DeviceStatus;
use cowcloop_engine::overlay::{CowfileStatus, SnapshotSummary};
use serde::Serialize;

/// The reply to a status request.
#[derive(Debug, Serialize)]
pub struct Status {
    pid: u32,
    image: String,
    size: u64,
    read_only: bool,
    suspended: bool,
    connections: u64,
    base: BaseStatus,
    cache: CacheStatus,
    cowfiles: Vec<CowStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Vec<SessionStatus>>,
}

#[derive(Debug, Serialize)]
struct BaseStatus {
    reads: u64,
    read_bytes: u64,
}

#[derive(Debug, Serialize)]
struct CacheStatus {
    hits: u64,
    misses: u64,
    bytes: u64,
    limit: u64,
}

/// A cowfile's part of it.
#[derive(Debug, Serialize)]
pub struct CowStatus {
    path: String,
    state: &'static str,
    blocks_used: u64,
    blocks_total: u64,
    bitmap_bytes: u64,
    allocated: u64,
    reads: u64,
    writes: u64,
    flushes: u64,
    base_reads: u64,
    base_read_bytes: u64,
    failures: u64,
}

/// A session's part of it.
#[derive(Debug, Serialize)]
pub struct SessionStatus {
    /// The export name.
    pub name: String,
    /// Clients that have it open.
    pub connections: usize,
    /// Its state.
    #[serde(flatten)]
    pub cowfile: SessionCowfile,
}

/// The cowfile of a session.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum SessionCowfile {
    /// No client has the session open.
    Closed {
        /// The cowfile.
        path: String,
        /// In words.
        state: &'static str,
        /// Bytes on its medium.
        allocated: u64,
    },
    /// Nothing has been written yet.
    NotCreated {
        /// The future path of the cowfile.
        path: String,
        /// In words.
        state: &'static str,
        /// Reads of the base.
        base_reads: u64,
        /// Bytes of these reads.
        base_read_bytes: u64,
    },
    /// In use.
    Open(CowStatus),
}

impl Status {
    /// What is known of a device and of its sessions and clients.
    pub fn new(
        device: DeviceStatus,
        sessions: Option<Vec<SessionStatus>>,
        suspended: bool,
        connections: u64,
    ) -> Status {
        let base = device.base;
        Status {
            pid: std::process::id(),
            image: device.image,
            size: device.size,
            read_only: device.read_only,
            suspended,
            connections,
            base: BaseStatus { reads: base.base_reads, read_bytes: base.base_read_bytes },
            cache: CacheStatus {
                hits: base.cache_hits,
                misses: base.cache_misses,
                bytes: base.cache_bytes,
                limit: base.cache_limit,
            },
            cowfiles: device.cowfiles.into_iter().map(CowStatus::from).collect(),
            sessions,
        }
    }
}

impl CowStatus {
    /// The same, plus the reads of the base from before there was a cowfile.
    pub fn with_earlier_reads(mut self, reads: u64, bytes: u64) -> CowStatus {
        self.base_reads += reads;
        self.base_read_bytes += bytes;
        self
    }
}

impl From<CowfileStatus> for CowStatus {
    fn from(cow: CowfileStatus) -> CowStatus {
        CowStatus {
            path: cow.path,
            state: cow.state,
            blocks_used: cow.blocks_used,
            blocks_total: cow.blocks_total,
            bitmap_bytes: cow.bitmap_bytes,
            allocated: cow.allocated,
            reads: cow.reads,
            writes: cow.writes,
            flushes: cow.flushes,
            base_reads: cow.base_reads,
            base_read_bytes: cow.base_read_bytes,
            failures: cow.failures,
        }
    }
}

/// The reply to a snapshot request.
#[derive(Debug, Serialize)]
pub struct SnapshotReply {
    blocks_used: u64,
    shared: bool,
}

impl From<SnapshotSummary> for SnapshotReply {
    fn from(done: SnapshotSummary) -> SnapshotReply {
        SnapshotReply { blocks_used: done.blocks, shared: done.shared }
    }
}
