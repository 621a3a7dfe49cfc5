//! Devices that a server has left behind: for another server to go on with, or to be removed.

use std::io;

use cowcloop_server::{reason, Connection};

use super::abi::{flags, Info};
use super::control::Control;
use super::node;

/// The lower half of what the driver keeps for us with a device of ours. The upper half is of what
/// the device is made.
const MARK: u32 = u32::from_le_bytes(*b"cowc");

/// Why no server can take over some devices.
pub const USERS_OWN: &str =
    "the kernel lets no other server take over a device that a user has made";

/// What the driver keeps with the device of a connection.
pub fn mark(connection: &Connection) -> Result<u64, String> {
    let identity = connection.identity().map_err(|error| error.to_string())?;
    Ok(u64::from(identity) << 32 | u64::from(MARK))
}

/// A device that waits for another server, with this mark.
pub fn take(control: &mut Control, id: u32, mark: u64) -> Result<Info, String> {
    let info = ours(control, id)?;
    let path = node::block_device(id);
    let path = path.display();
    if info.mark != mark {
        return Err(format!("{path}: is the device of another image, or of other cowfiles"));
    }
    if info.flags & flags::USER_RECOVERY == 0 {
        return Err(format!("{path}: {USERS_OWN}; remove it with: cowcloopd remove {path}"));
    }
    let begun = control.start_recovery(&info);
    begun.map_err(|error| refusal(&info, "cannot be taken over", &error))?;
    Ok(info)
}

/// A device of cowcloop's.
fn ours(control: &mut Control, id: u32) -> Result<Info, String> {
    let path = node::block_device(id);
    let path = path.display();
    let info = control.info(id).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{path}: there is no such device"),
        _ => match error.raw_os_error() {
            Some(libc::ENODEV) => format!("{path}: there is no such device"),
            _ => format!("{path}: {}", reason(&error)),
        },
    })?;
    if info.mark as u32 != MARK {
        return Err(format!("{path}: is not a device of cowcloop's"));
    }
    Ok(info)
}

fn refusal(info: &Info, what: &str, error: &io::Error) -> String {
    let path = node::block_device(info.id);
    let path = path.display();
    match error.kind() {
        io::ErrorKind::ResourceBusy => format!("{path}: is served by process {}", info.pid),
        _ => format!("{path}: {what}: {}", reason(error)),
    }
}

/// Removes a device that a server has left behind, with all that the kernel holds for it. The
/// error is a line for the user.
pub fn remove(id: u32) -> Result<(), String> {
    let mut control = Control::open()?;
    let info = ours(&mut control, id)?;
    control
        .unserved(id)
        .and_then(|_| control.stop(&info))
        .and_then(|()| control.delete(&info))
        .map_err(|error| refusal(&info, "cannot be removed", &error))
}
