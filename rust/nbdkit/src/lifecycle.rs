//! The steps from the first parameter to the last close, in nbdkit's order.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use cowcloop_server::{reason, Connection, Event, Events, Parameters, Server, Service};
use parking_lot::Mutex;
use rustix::process::set_parent_process_death_signal;

use crate::arrivals;
use crate::clients::Listeners;
use crate::ending::Clients;
use crate::host;
use crate::mend;
use crate::report::TOLD;

/// Each step leaves the state whole, so a panic in one harms no other.
static STATE: Mutex<State> = Mutex::new(State::new());

struct State {
    parameters: Option<Parameters>,
    lifeline: Option<OwnedFd>,
    server: Option<Arc<Server>>,
    service: Option<Service>,
}

impl State {
    const fn new() -> Self {
        State { parameters: None, lifeline: None, server: None, service: None }
    }

    fn parameters(&mut self) -> &mut Parameters {
        self.parameters.get_or_insert_default()
    }
}

/// Takes one parameter.
pub fn configure(key: &str, value: &std::ffi::OsStr) -> Result<(), String> {
    let mut state = STATE.lock();
    let parameters = state.parameters();
    parameters.set(key, value)?;
    // At once, so that an error in the next parameter is already reported there.
    match (key, parameters.events, parameters.log) {
        ("events", Some(fd), _) => {
            let failed = |error| format!("events: {fd}: {}", reason(&error));
            TOLD.tell_by(fd, host::adopt_fd(fd).map_err(failed)?)
        }
        ("log", _, Some(wanted)) => {
            TOLD.log_as_well(wanted);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// All parameters have been given.
pub fn check_config() -> Result<(), String> {
    STATE.lock().parameters().check()
}

/// Opens everything that may fail, while the user still reads our errors. Starts no thread:
/// a fork may follow.
pub fn get_ready() -> Result<(), String> {
    let mut state = STATE.lock();
    mend::nbdkit().map_err(|error| reason(&error))?;
    let parameters = state.parameters();
    let lifeline = parameters.lifeline.map(take_lifeline).transpose()?;
    let server = Server::open(parameters.server_options()?, Arc::new(&TOLD))?;
    state.lifeline = lifeline;
    state.server = Some(Arc::new(server));
    Ok(())
}

/// Takes over the descriptor that ties the server to the process that started it.
fn take_lifeline(fd: RawFd) -> Result<OwnedFd, String> {
    let failed = |error| format!("lifeline: {fd}: {}", reason(&error));
    // In the foreground nbdkit ends with the thread that started it; this replaces that.
    set_parent_process_death_signal(None).map_err(|error| failed(error.into()))?;
    host::adopt_fd(fd).map_err(failed)
}

/// Starts what must not be started before the fork.
pub fn after_fork() -> Result<(), String> {
    let mut state = STATE.lock();
    // Before the control socket is made, which is none of theirs.
    let listeners = Listeners::find();
    let lifeline = state.lifeline.take();
    let Some(server) = state.server.clone() else {
        return Err("the server was never made ready".into());
    };
    server.start()?;
    let no_thread = |error| format!("cannot start a thread: {}", reason(&error));
    let service = Service::start(server, lifeline, Clients(listeners));
    state.service = Some(service.map_err(no_thread)?);
    // The sockets listen already.
    TOLD.tell(Event::Ready { pid: std::process::id(), device: None, irreplaceable: None });
    Ok(())
}

/// A client has connected. False: there is no room even to say why it is refused.
pub fn enter() -> bool {
    let server = STATE.lock().server.clone();
    arrivals::enter(server.as_deref())
}

/// The client has named its export. `None`: it was refused, and the reason was reported.
pub fn open(read_only: bool) -> Option<Connection> {
    let Some(server) = STATE.lock().server.clone() else {
        TOLD.tell(Event::Error { text: "the server is not ready" });
        return None;
    };
    let connected = arrivals::admit(&server).and_then(|()| {
        let name = host::export_name().ok_or("the client's export name is not known")?;
        server.connect(&name, read_only)
    });
    connected.inspect_err(|line| server.client_refused(line)).ok()
}

/// The names and descriptions for a client that lists the exports.
pub fn exports() -> Vec<(String, String)> {
    let server = STATE.lock().server.clone();
    server.map_or_else(Vec::new, |server| server.exports())
}

/// Ends everything: the threads, then the device. Further calls do nothing.
pub fn end() -> Result<(), String> {
    let (service, server) = {
        let mut state = STATE.lock();
        (state.service.take(), state.server.take())
    };
    if let Some(service) = service {
        service.stop();
    }
    server.map_or(Ok(()), |server| server.close())
}
