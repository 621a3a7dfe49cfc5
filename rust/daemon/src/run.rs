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

/// Why a server of what is in memory cannot be replaced.
const IN_MEMORY: &str = "what is written is in the memory of the server, and ends with it";

/// Serves the device until it ends, and closes it. The error is a line for the user.
pub fn run(arguments: Arguments) -> Result<(), String> {
    memory::stay_clear_of_our_own_device();
    let lifeline = arguments.parameters.lifeline.map(take_lifeline).transpose()?;
    let mut options = arguments.parameters.server_options()?;
    options.device.takes_over = arguments.door.takes_over();
    let in_memory = options.in_memory().then_some(IN_MEMORY);
    options.waiting = options.waiting.or(Some(arguments.door.waiting()));
    let server = Arc::new(Server::open(options, Arc::new(&TOLD))?);
    let served = serve(&server, &arguments, lifeline, in_memory);
    // The device is closed whatever has happened, and of two errors the first is the reason.
    served.and(server.close())
}

fn serve(
    server: &Arc<Server>,
    arguments: &Arguments,
    lifeline: Option<OwnedFd>,
    in_memory: Option<&str>,
) -> Result<(), String> {
    let connection = server.connect(b"", false)?;
    let link = arguments.supervisor.map(descriptors::adopt).transpose();
    let link = link.map_err(unheard)?.map(Link::inherited);
    let identity = link.is_some().then(|| connection.identity()).transpose();
    let identity = identity.map_err(|error| error.to_string())?;
    if arguments.identity.is_some_and(|wanted| identity != Some(wanted)) {
        return Err(format!(
            "{}: is not the device that a server has left, but one of another image, size or \
             cowfiles: put back what was replaced",
            connection.description()
        ));
    }
    server.start()?;
    let mut door = arguments.door.open(connection)?;
    let irreplaceable = in_memory.or(door.irreplaceable());
    let heard = link.zip(identity).map(|(link, identity)| Heard { link, identity, irreplaceable });
    let service = match begin(server, lifeline, &mut *door, heard.as_ref()) {
        Ok(service) => service,
        Err(line) => {
            door.give_up();
            return Err(line);
        }
    };
    TOLD.tell(Event::Ready {
        pid: answerable(heard.is_some()),
        device: Some(&door.device()),
        irreplaceable,
    });
    let served = door.serve();
    service.stop();
    served
}

/// A supervisor, and what it is told of the device.
struct Heard<'a> {
    link: Link,
    identity: u32,
    irreplaceable: Option<&'a str>,
}

impl Heard<'_> {
    fn tell(&self, door: &dyn Door) -> std::io::Result<()> {
        // First: from the device on another server would be started.
        if let Some(why) = self.irreplaceable {
            self.link.irreplaceable(why)?;
        }
        self.link.device(&door.left(), self.identity)?;
        self.link.ready()
    }
}

/// All that can fail while the device is there already, and not yet served.
fn begin(
    server: &Arc<Server>,
    lifeline: Option<OwnedFd>,
    door: &mut dyn Door,
    heard: Option<&Heard<'_>>,
) -> Result<Service, String> {
    let service = Service::start(server.clone(), lifeline, door.ending());
    let service = service.map_err(|error| format!("cannot start a thread: {}", reason(&error)))?;
    match heard.map_or(Ok(()), |heard| heard.tell(door).map_err(unheard)) {
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
