//! The replies of the control channel, as they are written.

use cowcloop_engine::device::DeviceStatus;
use cowcloop_engine::format::cowfile::CowState;
use cowcloop_engine::overlay::CowfileStatus;
use serde::Serialize;

/// The reply to a status request.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// The server's process.
    pub pid: u32,
    /// What is served to clients that name no session.
    #[serde(flatten)]
    pub device: DeviceStatus,
    /// How often a supervisor has started the server again; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
    /// Reads of the image wait.
    pub suspended: bool,
    /// Where metrics are asked for: host and port, or a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Connections of clients, to any export.
    pub connections: u64,
    /// Every session, open or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<SessionStatus>>,
}

/// A session's part of it.
#[derive(Debug, Serialize)]
pub(crate) struct SessionStatus {
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
pub(crate) enum SessionCowfile {
    /// No client has the session open.
    Closed {
        /// The cowfile.
        path: String,
        /// It is closed.
        state: CowState,
        /// Bytes on its medium.
        allocated: u64,
    },
    /// Nothing has been written yet.
    NotCreated {
        /// The future path of the cowfile.
        path: String,
        /// It is not created.
        state: CowState,
        /// Reads of the base by its clients.
        base_reads: u64,
        /// Bytes of these reads.
        base_read_bytes: u64,
    },
    /// In use.
    Open(CowfileStatus),
}
