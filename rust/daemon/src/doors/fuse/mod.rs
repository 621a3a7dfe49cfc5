//! The door by FUSE: a file system with one file, which is the device.
//!
//! ```text
//! kernel -> fuser (its threads read requests) -> file -> crew (who does the work) -> Connection
//! ```

mod arguments;
mod attributes;
mod crew;
mod ending;
mod file;
mod mount;
mod room;
mod take_over;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};

use cowcloop_server::{reason, Connection, Ending};

use super::{Door, Left};
pub use arguments::{Arguments, DEVICE};
use attributes::NAME;
pub use crew::WAITING;
use ending::Unmount;
use file::DeviceFile;

use crate::descriptors;

/// How the device's use came to its end.
enum End {
    /// The kernel has no use for it any more.
    Unmounted(std::io::Result<()>),
    /// The server is to end, though the device is still in use.
    Forced,
}

/// A mounted file system, whose requests wait to be answered.
pub struct Fuse {
    device: String,
    session: fuser::Session<DeviceFile>,
    mount: mount::Place,
    tell: Sender<End>,
    ends: Receiver<End>,
}

impl Fuse {
    /// Mounts the file system, or takes it over. The error is a line for the user.
    pub fn open(arguments: &Arguments, connection: Connection) -> Result<Fuse, String> {
        let folder = arguments.directory()?;
        let read_only = arguments.read_only || !connection.writable();
        let file = DeviceFile::new(connection, read_only);
        let config = mount::config(read_only, arguments.allow_other);
        let session = match arguments.device {
            None => mount::mount(file, &folder, &config)?,
            Some(number) => {
                let device = descriptors::adopt(number);
                let session = device.and_then(|device| take_over::session(file, &device, config));
                session.map_err(|error| failed(&folder, &error))?
            }
        };
        let device = folder.join(NAME).display().to_string();
        let (tell, ends) = channel();
        Ok(Fuse { device, session, mount: mount::Place::new(folder), tell, ends })
    }
}

impl Door for Fuse {
    fn device(&self) -> String {
        self.device.clone()
    }

    fn left(&self) -> Left<'_> {
        Left::Descriptor(self.session.as_fd())
    }

    fn irreplaceable(&self) -> Option<&'static str> {
        (!take_over::is_possible()).then_some(take_over::IMPOSSIBLE)
    }

    fn ending(&mut self) -> Box<dyn Ending> {
        Box::new(Unmount::new(self.mount.clone(), self.tell.clone()))
    }

    fn give_up(self: Box<Self>) {
        // With the session ends what it has mounted itself.
    }

    fn serve(self: Box<Self>) -> Result<(), String> {
        let Fuse { device, session, tell, ends, .. } = *self;
        // The threads of a session end only when the kernel has let go of the file system.
        let threads = std::thread::Builder::new().name("fuse".into()).spawn(move || {
            // Fails when the server was forced to its end.
            let _ = tell.send(End::Unmounted(session.run()));
        });
        threads.map_err(|error| format!("cannot start a thread: {}", reason(&error)))?;
        match ends.recv() {
            Ok(End::Unmounted(Err(error))) => Err(failed(Path::new(&device), &error)),
            Ok(End::Unmounted(Ok(())) | End::Forced) | Err(_) => Ok(()),
        }
    }
}

fn failed(place: &Path, error: &std::io::Error) -> String {
    format!("{}: FUSE: {}", place.display(), reason(error))
}
