//! The steps from the first parameter to the last close, in nbdkit's order.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::set_parent_process_death_signal;

use crate::clients::Listeners;
use crate::config::Config;
use crate::control::{self, Control};
use crate::host;
use crate::mend;
use crate::places;
use crate::preload::Preload;
use crate::report::reason;
use crate::request::Connection;
use crate::server::Server;
use crate::service::Service;

static STATE: Mutex<State> = Mutex::new(State::new());

struct State {
    config: Option<Config>,
    lifeline: Option<OwnedFd>,
    server: Option<Arc<Server>>,
    service: Option<Service>,
    preload: Option<Preload>,
}

impl State {
    const fn new() -> Self {
        State { config: None, lifeline: None, server: None, service: None, preload: None }
    }

    fn config(&mut self) -> &mut Config {
        self.config.get_or_insert_default()
    }
}

fn state() -> MutexGuard<'static, State> {
    // Each step leaves the state whole, so a panic in one harms no other.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one parameter.
pub fn configure(key: &str, value: &std::ffi::OsStr) -> Result<(), String> {
    state().config().set(key, value)
}

/// All parameters have been given.
pub fn check_config() -> Result<(), String> {
    state().config().check()
}

/// Opens everything that may fail, while the user still reads our errors.
/// Starts no thread: a fork may follow.
pub fn get_ready() -> Result<(), String> {
    let mut state = state();
    mend::nbdkit().map_err(|error| reason(&error))?;
    places::raise_limit();
    let config = state.config();
    if let Some(path) = &config.control {
        control::check(path)?;
    }
    let lifeline = config.lifeline.map(take_lifeline).transpose()?;
    let server = Server::open(config)?;
    state.lifeline = lifeline;
    state.server = Some(Arc::new(server));
    Ok(())
}

/// Takes over the descriptor that holds us to the process that started us.
fn take_lifeline(fd: RawFd) -> Result<OwnedFd, String> {
    let failed = |error| format!("lifeline: {fd}: {}", reason(&error));
    // In the foreground nbdkit ends with the thread that started it, which this replaces.
    set_parent_process_death_signal(None).map_err(|error| failed(error.into()))?;
    host::adopt_fd(fd).map_err(failed)
}

/// Starts what must not be started before the fork.
pub fn after_fork() -> Result<(), String> {
    let mut state = state();
    // Before the control socket is made, which is not theirs.
    let listeners = Listeners::find();
    let control = state.config().control.as_deref().map(Control::bind).transpose()?;
    let lifeline = state.lifeline.take();
    let Some(server) = state.server.clone() else {
        return Err("the server was never made ready".into());
    };
    server.base().start();
    let no_thread = |error| format!("cannot start a thread: {}", reason(&error));
    if let Some(blocks) = state.config().preload {
        state.preload = Some(Preload::start(server.base(), blocks).map_err(no_thread)?);
    }
    places::prepare();
    state.service = Some(Service::start(server, control, lifeline, listeners).map_err(no_thread)?);
    Ok(())
}

/// A client has connected, and says what it wants.
pub fn open(read_only: bool) -> Result<Connection, String> {
    places::admit()?;
    let server = state().server.clone().ok_or("the server is not ready")?;
    let name = host::export_name().ok_or("the client's export name is not known")?;
    Connection::open(&server, &name, read_only)
}

/// What a client that lists the exports is told: names and descriptions.
pub fn exports() -> Vec<(String, String)> {
    let server = state().server.clone();
    server.map_or_else(Vec::new, |server| server.exports())
}

/// Ends it all: threads, then the device. May be called again, and then does nothing.
pub fn end() -> Result<(), String> {
    let (service, preload, server) = {
        let mut state = state();
        (state.service.take(), state.preload.take(), state.server.take())
    };
    if let Some(preload) = preload {
        preload.stop();
    }
    if let Some(service) = service {
        service.stop();
    }
    server.map_or(Ok(()), |server| server.close())
}
