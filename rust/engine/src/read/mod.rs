//! Reading blocks that are compressed: each part has its own state and knows
//! only those before it.
//!
//! ```text
//! block       what is told of one block
//! decoder     a block from the storage through its codec; stateless
//! known       what was found out about blocks: zeros, data, damage
//! zeros       which ranges are zeros, asked of the index and of `known`
//! cache       decoded blocks, within a budget of bytes
//! shares      whose block is decoded next, where many readers share an image
//! queue       work that waits for a thread, and threads that wait for work
//! workers     threads for the work that no reader waits for
//! readahead   which block a reader will want next
//! neighbours  which blocks a reader will want that jumps about
//! checker     blocks that were served in part and are to be checked
//! reader      a request: from the cache, else decoded into it or past it
//! ```

mod block;
mod cache;
mod checker;
mod decoder;
mod entry;
mod growing;
mod history;
mod known;
mod neighbours;
mod queue;
mod readahead;
mod reader;
mod shares;
mod workers;
mod zeros;

pub use block::{BadBlock, StoredBlock};
pub(crate) use decoder::Decoder;
pub(crate) use reader::{BlockReader, ReaderOptions};
pub use shares::{as_reader, reader};
pub(crate) use zeros::ZeroFinder;

#[cfg(test)]
pub(crate) use entry::{heaviest, Data};
#[cfg(test)]
pub(crate) use known::Known;
