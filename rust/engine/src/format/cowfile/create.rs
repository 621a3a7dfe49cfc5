//! The beginning of a cowfile.

use rustix::process::{getrlimit, Resource};

use super::fingerprint;
use super::head::{Head, HEAD_SECTOR, MAPUNIT};
use super::mark::Mark;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Layer, Result};

/// Writes the head of a new cowfile for a device of `size` bytes on `base`
/// into empty `storage`, and makes it durable.
///
/// # Errors
/// `InvalidInput` when the device has no whole block.
pub fn create(storage: &dyn Storage, base: &dyn Layer, size: u64) -> Result<()> {
    let name = storage.name();
    let blocks = size / MAPUNIT;
    if blocks == 0 {
        let message = format!("the base has {size} bytes, less than one block of {MAPUNIT}");
        return Err(Error::new(ErrorKind::InvalidInput, name, message));
    }
    let mark = Mark::new(base.size(), base.identity()?)?;
    let head = Head::new(blocks, fingerprint(base, blocks)?, mark);
    check_length(storage, &head)?;
    // The last byte before the data fixes the length; the bytes up to it are a hole.
    storage
        .write_all_at(&[0], head.doffset - 1)
        .and_then(|()| head.write(storage, &mut [0; HEAD_SECTOR]))
        .and_then(|()| storage.sync())
        .map_err(|error| Error::io(name, "cannot write a new cowfile", error))
}

/// Refuses a cowfile that could not become as long as its last block needs.
pub(crate) fn check_length(storage: &dyn Storage, head: &Head) -> Result<()> {
    let name = storage.name();
    let needed = head.doffset + head.rdoblocks * MAPUNIT;
    match storage.can_be_long(needed) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let reason = match getrlimit(Resource::Fsize).current {
                Some(limit) if limit < needed => format!(
                    "no file of this process may be over {limit} bytes (see ulimit -f); raise that"
                ),
                _ => "a file must not be as long here (on FAT: 4 GiB less one byte); put it on \
                      another file system"
                    .into(),
            };
            let message = format!("the cowfile can become {needed} bytes long, and {reason}");
            Err(Error::new(ErrorKind::NoSpace, name, message))
        }
        Err(error) => Err(Error::io(name, "cannot find out how long it may become", error)),
    }
}
