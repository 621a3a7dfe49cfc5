//! What is to be served.

use std::path::PathBuf;

use cowcloop_engine::device::DeviceOptions;

/// Sessions when no limit is given.
const MAX_SESSIONS: usize = 1000;

/// An image, what lies on it, and how the server's owner reaches the server.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The image's file.
    pub image: PathBuf,
    /// Cowfiles of the one device, lowest first; none with sessions.
    pub cows: Vec<PathBuf>,
    /// How the engine opens it all.
    pub device: DeviceOptions,
    /// Where each export name is a device of its own.
    pub sessions: Option<SessionOptions>,
    /// Blocks of the image to read into the cache at the start.
    pub preload: Option<u64>,
    /// Requests of a connection that may wait for a suspended image: fewer than it has threads.
    /// `None`: as many as leave a quarter of nbdkit's.
    pub waiting: Option<usize>,
    /// Where the control socket is to be.
    pub control: Option<PathBuf>,
}

/// The sessions over an image.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Where their cowfiles are.
    pub folder: PathBuf,
    /// How many there may be, open or not.
    pub limit: usize,
}

impl SessionOptions {
    /// Sessions with their cowfiles in `folder`, as many as usual.
    pub fn new(folder: PathBuf) -> SessionOptions {
        SessionOptions { folder, limit: MAX_SESSIONS }
    }
}
