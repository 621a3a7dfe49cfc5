//! cloop images and their uzip relatives on the medium: header, index, and the end of the
//! data.

mod ending;
mod header;
mod index;
pub(crate) mod writer;

pub(crate) use header::{Header, Kind, Layout, HEADER_BYTES, MAX_BLOCK_SIZE};
pub use index::BlockLocation;
pub(crate) use index::Index;
pub use writer::Format;
