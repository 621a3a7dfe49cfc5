//! What the original package's tools did with cowfiles, done on files that
//! nobody has in use: repair, merge, pack and unpack; and what they left to the driver: rebase.

mod beginning;
mod members;
mod merge;
mod merging;
mod pack;
mod packed;
mod rebase;
mod repair;
mod unpack;

pub use merge::{merge, MergeSummary};
pub use pack::{pack, PackSummary};
pub use rebase::{rebase, RebaseSummary};
pub use repair::{repair, RepairOptions, RepairReport};
pub use unpack::{packed_head, unpack};
