//! What the original package's tools did with cowfiles, done on files that
//! nobody has in use: repair, merge, pack and unpack.

mod merge;
mod pack;
mod repair;

pub use merge::{merge, MergeSummary};
pub use pack::{pack, unpack, PackSummary};
pub use repair::{repair, RepairOptions, RepairReport};
