//! A server, from its start to its end.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::device::{Device, DeviceOptions, DigestTree};
use cowcloop_engine::overlay::SnapshotSummary;
use cowcloop_engine::Error;
use cowcloop_remote::{is_url, tree_beside, RemoteImage};
use parking_lot::Mutex;

use crate::connection::Connection;
use crate::control::{self, Control};
use crate::events::{Event, Events};
use crate::export::Export;
use crate::kept::Kept;
use crate::metrics::{Metrics, Requests};
use crate::options::ServerOptions;
use crate::places::Places;
use crate::preload::Preload;
use crate::reports::Reports;
use crate::sessions::Sessions;
use crate::status::Status;
use crate::trace::{Prefetching, Readers, Recorder, Recording};
use crate::words::reason;

/// The device of an image in a file, or far away.
fn open_device(options: &ServerOptions, open: &DeviceOptions) -> Result<Device, Error> {
    let ServerOptions { image, cows, remote, .. } = options;
    let Some(url) = image.to_str().filter(|image| is_url(image)) else {
        return Device::open(image, cows, open);
    };
    let image = Arc::new(RemoteImage::open(url, remote)?);
    let mut open = open.clone();
    let tree = tree_beside(url, remote, &open)?;
    if let Some(tree) = &tree {
        open.verity.tree = DigestTree::Open(tree.clone());
    }
    let device = Device::open_storage(image.clone(), cows, &open)?;
    // A fork may follow.
    [Some(image), tree].iter().flatten().for_each(|each| each.rest());
    Ok(device)
}

/// What notes the reads of clients, if that is wanted.
fn recorder(options: &ServerOptions, events: &dyn Events) -> Option<Arc<Recorder>> {
    let path = options.trace.record.as_ref()?;
    if options.restarts.is_some_and(|restarts| restarts > 0) {
        // It noted what was read first; what clients read from now on is not that.
        events.warning(&format!(
            "record-trace: {}: not recorded: the server that had begun to has ended",
            path.display()
        ));
        return None;
    }
    Some(Arc::default())
}

/// The open device, and its users.
pub struct Server {
    options: ServerOptions,
    /// The export of a client that names no session.
    device: Arc<Device>,
    sessions: Option<Arc<Sessions>>,
    connections: AtomicU64,
    places: Arc<Places>,
    reports: Reports,
    requests: Option<Requests>,
    events: Arc<dyn Events>,
    /// Until it ends.
    recording: Mutex<Option<Recording>>,
    readers: Arc<Readers>,
    running: Mutex<Running>,
}

/// The threads that serve no client.
#[derive(Default)]
struct Running {
    preload: Option<Preload>,
    prefetching: Option<Prefetching>,
    control: Option<Control>,
    metrics: Option<Metrics>,
}

impl Server {
    /// Opens the image and the cowfiles. No thread is started: the process may fork before
    /// [`Server::start`]. The error is a line for the user.
    pub fn open(options: ServerOptions, events: Arc<dyn Events>) -> Result<Server, String> {
        Places::raise_limit();
        if let Some(path) = &options.control {
            control::check("control", path)?;
        }
        let mut options = options;
        // What one machine of a classroom reads, the others read as well.
        options.device.image.shared = options.sessions.is_some();
        let kept = options.kept.as_deref().map(Kept::at).transpose()?;
        let mut open = options.device.clone();
        if options.sessions.is_none() {
            open.kept = kept.as_ref().map(Kept::file);
        }
        let recorder = recorder(&options, &*events);
        open.watch = recorder.clone().map(|recorder| recorder as _);
        let device = open_device(&options, &open).map_err(|error| error.to_string())?;
        let device = Arc::new(device);
        let places = Arc::new(Places::new(events.clone()));
        let sessions = match &options.sessions {
            None => None,
            Some(wanted) => {
                device.tell_if_cut();
                let base = device.clone();
                Some(Sessions::new(wanted, base, open, kept, places.clone(), events.clone())?)
            }
        };
        let recording = match (&recorder, &options.trace.record) {
            (Some(recorder), Some(path)) => Some(recorder.begin(&device, path)?),
            _ => None,
        };
        let requests = options.metrics.is_some().then(Requests::new);
        Ok(Server {
            options,
            requests,
            recording: Mutex::new(recording),
            readers: Arc::default(),
            device,
            sessions: sessions.map(Arc::new),
            connections: AtomicU64::new(0),
            places,
            reports: Reports::new(events.clone()),
            events,
            running: Mutex::default(),
        })
    }

    /// Starts the threads, and makes the control socket. The error is a line for the user.
    pub fn start(self: &Arc<Self>) -> Result<(), String> {
        let bind = |path: &Path| control::Socket::bind("control", path);
        let socket = self.options.control.as_deref().map(bind).transpose()?;
        let base = self.device.base();
        base.start();
        let no_thread = |error| format!("cannot start a thread: {}", reason(&error));
        let mut running = self.running.lock();
        if let Some(blocks) = self.options.preload {
            let preload = Preload::start(base.clone().layer(), blocks, self.events.clone());
            running.preload = Some(preload.map_err(no_thread)?);
        }
        let (device, readers) = (self.device.clone(), self.readers.clone());
        let prefetching = Prefetching::start(&self.options, device, readers, self.events.clone());
        running.prefetching = prefetching.map_err(no_thread)?;
        if let Some(socket) = socket {
            running.control = Some(Control::start(socket, self).map_err(no_thread)?);
        }
        if let Some(address) = &self.options.metrics {
            running.metrics = Some(Metrics::start(address, self)?);
        }
        self.places.count();
        Ok(())
    }

    /// A connection to the export that a client named; `read_only` as the door has it. The error
    /// is a line for the log.
    pub fn connect(self: &Arc<Self>, name: &[u8], read_only: bool) -> Result<Connection, String> {
        let export = match &self.sessions {
            Some(sessions) if !name.is_empty() => Export::Session(sessions.join(name)?),
            _ => Export::Device(self.device.clone()),
        };
        Ok(Connection::new(self, export, read_only))
    }

    /// The exports to choose from: names and descriptions.
    pub fn exports(&self) -> Vec<(String, String)> {
        let mut exports = vec![(String::new(), self.device.description())];
        exports.extend(self.sessions.iter().flat_map(|sessions| sessions.list()));
        exports
    }

    /// The room for clients.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Reports why a client was turned away, without flooding the log.
    pub fn client_refused(&self, line: &str) {
        self.reports.client_refused(line);
    }

    pub(crate) fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// What requests took, if that is counted.
    pub(crate) fn requests(&self) -> Option<&Requests> {
        self.requests.as_ref()
    }

    /// The reads of clients that are under way.
    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(crate) fn events(&self) -> &Arc<dyn Events> {
        &self.events
    }

    pub(crate) fn connection_begins(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_ends(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// State and counters.
    pub(crate) fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            device: self.device.status(),
            restarts: self.options.restarts,
            suspended: self.device.is_suspended(),
            metrics: self.running.lock().metrics.as_ref().and_then(Metrics::place),
            connections: self.connections.load(Ordering::Relaxed),
            sessions: self.sessions.as_ref().map(|sessions| sessions.status()),
        }
    }

    /// Brings everything acknowledged to the medium, durably. The error is a line for the
    /// user.
    pub(crate) fn sync(&self) -> Result<(), String> {
        let result = self.device.flush().and_then(|()| self.device.check_kept());
        let sessions = self.sessions.as_ref().map_or(Ok(()), |sessions| sessions.sync());
        result.and(sessions).map_err(|error| error.to_string())
    }

    /// Copies the cowfile, or a session's, as it is now. The error is a line for the user.
    pub(crate) fn snapshot(
        &self,
        session: Option<&str>,
        path: &Path,
    ) -> Result<SnapshotSummary, String> {
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
    pub(crate) fn reopen_read_only(&self, session: Option<&str>) -> Result<(), String> {
        let done = match session {
            None => self.sole_device()?.make_read_only(),
            Some(name) => {
                let session = self.sessions()?.in_use(name)?;
                session.existing().and_then(Device::make_read_only)
            }
        };
        done.map_err(|error| error.to_string())
    }

    /// Discards what was written in a session. The error is a line for the user.
    pub(crate) fn reset(&self, session: &str, force: bool) -> Result<(), String> {
        self.sessions()?.reset(session, force)
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
    pub(crate) fn suspend(&self) -> Result<(), String> {
        self.device.suspend().map_err(|error| error.to_string())
    }

    /// Opens the image's file anew. The error is a line for the user.
    pub(crate) fn resume(&self) -> Result<(), String> {
        self.device.resume().map_err(|error| error.to_string())
    }

    /// Fails the reads that wait for a suspended image: the server is about to end.
    pub fn give_up(&self) {
        self.device.give_up();
    }

    /// Ends the threads, and closes the cowfile cleanly, or those of the sessions, with or
    /// without clients. The error is a line for the user.
    pub fn close(&self) -> Result<(), String> {
        // The threads may wait for what is far away.
        self.device.give_up();
        let Running { preload, prefetching, control, metrics } =
            std::mem::take(&mut *self.running.lock());
        preload.iter().for_each(Preload::end);
        prefetching.iter().for_each(Prefetching::end);
        if let Some(metrics) = metrics {
            metrics.stop();
        }
        if let Some(control) = control {
            control.stop();
        }
        if let Some(sessions) = &self.sessions {
            sessions.close();
        }
        let closed = self.device.close();
        // Now that what was written is safe, there is time for the rest: a trace may lie elsewhere.
        if let Some(preload) = preload {
            preload.join();
        }
        if let Some(prefetching) = prefetching {
            prefetching.join();
        }
        if let Some(recording) = self.recording.lock().take() {
            let published = recording.publish();
            published.unwrap_or_else(|problem| self.events.warning(&problem));
        }
        closed.map_err(|error| error.to_string())?;
        self.events.tell(Event::Ended);
        Ok(())
    }
}
