//! Packed cowfiles: the used blocks one after the other, for keeping or sending.
//!
//! The original `cowpack` has two forms, because its seeks do nothing in a gzip stream:
//! - padded, without gzip: the head with its packed flag, the bitmap at 1024, and from
//!   `doffset` on the used 1 KiB blocks in order, without gaps;
//! - compact, with gzip: the fields of the head alone, immediately followed by the bitmap,
//!   immediately followed by the blocks.
//!
//! Early versions of this program gzipped the padded form. A gzip stream has the form in
//! which the bitmap has as many bits as the head counts.
//!
//! The compact form has no room for our mark: it is in an extra field of the gzip header,
//! which `cowpack` ignores.

mod beginning;
mod members;
mod reader;
mod writer;

pub(crate) use reader::{read_failed, Blocks, Opened};
pub(crate) use writer::Writer;

/// The name of our part of a gzip header's extra field (RFC 1952, 2.3.1.1).
const EXTRA_ID: [u8; 2] = *b"cC";
