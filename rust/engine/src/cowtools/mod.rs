//! What the original package's tools did with cowfiles, done on files that
//! nobody has in use: repair, merge, pack and unpack.

mod merge;
mod pack;
mod repair;

pub use merge::{merge, MergeSummary};
pub use pack::{pack, unpack, PackSummary};
pub use repair::{repair, RepairOptions, RepairReport};

use crate::cowfile::head::{Head, VERSION_CLOSED};
use crate::{Error, ErrorKind, Result};

/// Refuses a cowfile that the original driver did not close: its bitmap is stale.
pub(crate) fn refuse_dirty(name: &str, head: &Head) -> Result<()> {
    if head.version == VERSION_CLOSED && head.dirty {
        let message = "the original cowloop driver did not close this cowfile, so its bitmap is \
                       not up to date; repair it first with `cowcloop cow repair`";
        return Err(Error::new(ErrorKind::Dirty, name, message));
    }
    Ok(())
}

/// Refuses a cowfile whose head and bitmap disagree.
pub(crate) fn check_count(name: &str, head: &Head, bits: u64) -> Result<()> {
    if head.version == VERSION_CLOSED && head.cowused != bits {
        let message = format!(
            "cowfile head: cowused is {}, but its bitmap has {bits} blocks; repair it with \
             `cowcloop cow repair --force`",
            head.cowused
        );
        return Err(Error::new(ErrorKind::Damaged, name, message));
    }
    Ok(())
}
