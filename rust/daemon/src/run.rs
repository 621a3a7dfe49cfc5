//! A device from its start to its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cowcloop_server::{reason, Event, Events, Server, Service};

use crate::arguments::Arguments;
use crate::descriptors;
use crate::doors::Door;
use crate::memory;
use crate::report::TOLD;
use crate::supervisor::Link;

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
    let link = arguments.supervisor.map(descriptors::adopt).transpose();
    let link = link.map_err(unheard)?.map(Link::inherited);
    let mut door = arguments.door.open(connection)?;
    let service = match begin(server, lifeline, &mut *door, link.as_ref()) {
        Ok(service) => service,
        Err(line) => {
            door.give_up();
            return Err(line);
        }
    };
    TOLD.tell(Event::Ready { pid: answerable(link.is_some()), device: Some(&door.device()) });
    let served = door.serve();
    service.stop();
    served
}

/// All that can fail while the device is there already, and not yet served.
fn begin(
    server: &Arc<Server>,
    lifeline: Option<OwnedFd>,
    door: &mut dyn Door,
    link: Option<&Link>,
) -> Result<Service, String> {
    let service = Service::start(server.clone(), lifeline, door.ending());
    let service = service.map_err(|error| format!("cannot start a thread: {}", reason(&error)))?;
    let heard = link.map_or(Ok(()), |link| {
        link.device(&door.left()).and_then(|()| link.ready()).map_err(unheard)
    });
    match heard {
        Ok(()) => Ok(service),
        Err(line) => {
            service.stop();
            Err(line)
        }
    }
}

/// The process that ends the device when it gets a signal.
fn answerable(supervised: bool) -> u32 {
    let supervisor = rustix::process::getppid().filter(|_| supervised);
    supervisor.map_or_else(std::process::id, |pid| pid.as_raw_pid().unsigned_abs())
}

fn unheard(error: std::io::Error) -> String {
    format!("the supervisor does not listen: {}", reason(&error))
}

fn take_lifeline(number: i32) -> Result<OwnedFd, String> {
    descriptors::adopt(number).map_err(|error| format!("lifeline: {number}: {}", reason(&error)))
}
