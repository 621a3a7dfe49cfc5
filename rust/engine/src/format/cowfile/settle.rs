//! The remains of a process that did not close its cowfile: brought to the medium or given
//! up, before anything in the file is believed.

use std::io;

use super::head::{Head, HEAD_SECTOR, VERSION_OPEN};
use super::{read_head, Access};
use crate::storage::Storage;
use crate::{Error, Result};

/// Reads the head of a cowfile that is to be used, and whose lock the caller has.
///
/// A file that was left in use by a crash, or by a failed sync, is brought to a state in
/// which what is read from it is what its medium holds: see [`settle`].
///
/// # Errors
/// Those of [`read_head`] and [`settle`].
pub(crate) fn read_settled_head(
    storage: &dyn Storage,
    access: Access,
) -> Result<(Head, [u8; HEAD_SECTOR])> {
    let found = read_head(storage)?;
    if found.0.version != VERSION_OPEN {
        return Ok(found);
    }
    settle(storage, access)?;
    read_head(storage)
}

/// Makes durable what the system holds of a cowfile in memory and has not written yet, and
/// has it forget the rest.
///
/// Pages whose write-back failed earlier count as clean and are still shown: no sync writes
/// them again, and only when they are forgotten does the medium show through.
///
/// # Errors
/// Those of [`sync`].
pub(crate) fn settle(storage: &dyn Storage, access: Access) -> Result<()> {
    sync(storage, access)?;
    let failed = |error| Error::io(storage.name(), "cannot read the cowfile anew", error);
    storage.drop_cache().map_err(failed)
}

/// Makes durable what a killed process has written and the system holds in memory only.
///
/// # Errors
/// The sync's, which may be that of an earlier write: then the writes since the last flush
/// are lost.
pub(crate) fn sync(storage: &dyn Storage, access: Access) -> Result<()> {
    match storage.sync() {
        // A read-only medium has nothing to be synced: a cowfile in a squashfs, or on a
        // disc.
        Err(error) if access == Access::ReadOnly && knows_no_sync(&error) => Ok(()),
        other => other.map_err(|error| {
            let message = "what was written to this cowfile, and not flushed, before it was left \
                           in use did not all reach its medium; when the medium works, attach \
                           again to go on with what is there";
            Error::io(storage.name(), message, error)
        }),
    }
}

fn knows_no_sync(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem)
}
