//! A device from its start to its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cowcloop_server::{reason, Event, Events, Server, Service};

use crate::arguments::Arguments;
use crate::descriptors;
use crate::memory;
use crate::report::TOLD;

/// Serves the device until it ends, and closes it. The error is a line for the user.
pub fn run(arguments: Arguments) -> Result<(), String> {
    memory::stay_clear_of_our_own_device();
    let lifeline = arguments.parameters.lifeline.map(take_lifeline).transpose()?;
    let mut options = arguments.parameters.server_options()?;
    options.waiting = options.waiting.or(Some(arguments.door.waiting()));
    let server = Arc::new(Server::open(options, Arc::new(&TOLD))?);
    let served = serve(&server, &arguments, lifeline);
    // The device is closed whatever has happened, and of two errors the first is the reason.
    served.and(server.close())
}

fn serve(
    server: &Arc<Server>,
    arguments: &Arguments,
    lifeline: Option<OwnedFd>,
) -> Result<(), String> {
    server.start()?;
    let connection = server.connect(b"", false)?;
    let mut door = arguments.door.open(connection)?;
    let no_thread = |error| format!("cannot start a thread: {}", reason(&error));
    let service = Service::start(server.clone(), lifeline, door.ending());
    let service = service.map_err(no_thread)?;
    TOLD.tell(Event::Ready { pid: std::process::id(), device: Some(&door.device()) });
    let served = door.serve();
    service.stop();
    served
}

fn take_lifeline(number: i32) -> Result<OwnedFd, String> {
    descriptors::adopt(number).map_err(|error| format!("lifeline: {number}: {}", reason(&error)))
}
