//! The options of a server.

use std::path::PathBuf;
use std::time::Duration;

use cowcloop_engine::device::{DeviceOptions, MEMORY};
use cowcloop_remote::RemoteOptions;

use crate::metrics::MetricsAddress;
use crate::trace::Prefetch;

/// Sessions if no limit is given.
const MAX_SESSIONS: usize = 1000;

/// An image, the cowfiles on it, and the way of the server's owner to the server.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The image's file, or its URL.
    pub image: PathBuf,
    /// How an image at a URL is read and kept.
    pub remote: RemoteOptions,
    /// Cowfiles of the one device, lowest first; none with sessions.
    pub cows: Vec<PathBuf>,
    /// The engine's options for all of it.
    pub device: DeviceOptions,
    /// Each export name is then a device of its own.
    pub sessions: Option<SessionOptions>,
    /// Blocks of the image to read into the cache at the start.
    pub preload: Option<u64>,
    /// What is noted of reads, and made ready for the next ones.
    pub trace: TraceOptions,
    /// Requests of a connection that may wait for a suspended image: fewer than it has threads.
    /// `None`: 12, which leaves a quarter of nbdkit's, or all where the client may not write.
    pub waiting: Option<usize>,
    /// Where the control socket is to be.
    pub control: Option<PathBuf>,
    /// Where metrics are asked for; `None`: none are kept.
    pub metrics: Option<MetricsAddress>,
    /// Where bits are kept for a server that takes over: a file, or with sessions a folder.
    pub kept: Option<PathBuf>,
    /// How often a supervisor has started the server again; `None` without one.
    pub restarts: Option<u64>,
}

impl ServerOptions {
    /// Whether what is written ends with the server.
    pub fn in_memory(&self) -> bool {
        self.cows.last().is_some_and(|cow| cow.as_os_str() == MEMORY)
    }
}

/// The sessions over an image.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The folder of their cowfiles.
    pub folder: PathBuf,
    /// How many there may be, open or not.
    pub limit: usize,
    /// A session begins anew when its machine has been started again. So long without a client
    /// means that, for clients that do not name their boot. `None`: no session does.
    pub reset_on_boot: Option<Duration>,
}

impl SessionOptions {
    /// Sessions with their cowfiles in `folder`, up to the usual number.
    pub fn new(folder: PathBuf) -> SessionOptions {
        SessionOptions { folder, limit: MAX_SESSIONS, reset_on_boot: None }
    }
}

/// What is noted of reads, and made ready for the next ones.
#[derive(Debug, Clone, Default)]
pub struct TraceOptions {
    /// The trace to write at the end, of what clients read first.
    pub record: Option<PathBuf>,
    /// The trace to make ready by; `None`: IMAGE.trace beside the image, where there is one.
    pub replay: Option<PathBuf>,
    /// What is made ready for clients.
    pub prefetch: Prefetch,
    /// How much may be fetched for that, or read, in bytes a second.
    pub rate: Option<u64>,
}
