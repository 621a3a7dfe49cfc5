//! Cowfiles on the medium: the sparse files in which AT Computing's cowloop driver kept the
//! blocks that were written. A cowfile in use is the matter of [`overlay`](crate::overlay).

mod at_rest;
pub mod bitmap;
mod create;
mod encoding;
pub mod files;
mod fingerprint;
pub mod head;
pub(crate) mod kept;
pub mod mark;
pub(crate) mod packed;
pub(crate) mod settle;
mod state;

pub use at_rest::read_head;
pub(crate) use at_rest::{check_bits, missing_blocks, refuse_dirty, write_around, AtRest};
pub(crate) use create::check_length;
pub use create::create;
pub use fingerprint::fingerprint;
pub use state::CowState;

/// Bytes of the sector that holds every field of a head, and our mark.
pub const HEAD_SECTOR: usize = 512;

/// What every gzip stream begins with: a packed cowfile may be one.
pub const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How a cowfile is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing in the file is changed.
    ReadOnly,
    /// Blocks are written, and the head and bitmap with them.
    Writable,
}
