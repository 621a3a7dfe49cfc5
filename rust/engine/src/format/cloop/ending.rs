//! Where the last block ends, which not every image says.
//!
//! `mkuzip` gives the last entry of the index to the padding that fills the file up to 512
//! bytes, so the entry is never set when the blocks happen to end there: it is 0 in newer
//! images, and old memory content in older ones. FreeBSD's reader counts the entry from
//! version 4 on, unless it is 0, and otherwise takes the file's size in its place. `V2.0`
//! is cloop's version as well, where an end beyond the file reveals a truncated download.
//!
//! Source: FreeBSD's `mkuzip` and `g_uzip`, and images that they wrote.

use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

use super::header::{Header, Kind};
use super::index::max_compressed_length;

/// So many zeros are padding and not a block: no stream of any codec begins with them.
const PADDING: u64 = 512;

/// The end of the last block, which begins at `last`; `entry` is the index's last entry.
///
/// # Errors
/// `Format` for an impossible end that counts in this kind of image; `Io`.
pub(super) fn end_of_data(
    storage: &dyn Storage,
    header: &Header,
    last: u64,
    entry: u64,
) -> Result<u64> {
    let file = header.data_range().end;
    let possible = (last..=file).contains(&entry);
    let ignored = match header.kind {
        Kind::V4 => false,
        Kind::Zstd | Kind::ZstdShared => entry == 0,
        Kind::V2 if !header.is_uzip() => entry < last,
        Kind::V2 | Kind::ZlibShared | Kind::Lzma | Kind::LzmaShared => true,
    };
    if !ignored {
        return if possible {
            Ok(entry)
        } else {
            Err(impossible(storage.name(), header, last, entry))
        };
    }
    // The rest of the file may be anything: no more of it than a block can take.
    let end = file.min(last + max_compressed_length(header.block_size));
    // If the entry gives the last block bytes, zeros there are damage and no proof against
    // it.
    let says_bytes = possible && entry > last;
    if !says_bytes && is_padding(storage, last..end)? {
        Ok(last)
    } else {
        Ok(end)
    }
}

/// Whether nothing is stored in the range: the last block is zeros, of length 0.
fn is_padding(storage: &dyn Storage, range: std::ops::Range<u64>) -> Result<bool> {
    let mut bytes = [0; PADDING as usize];
    let bytes = &mut bytes[..PADDING.min(range.end - range.start) as usize];
    storage
        .read_exact_at(bytes, range.start)
        .map_err(|error| Error::io(storage.name(), "cannot read the last block", error))?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

fn impossible(name: &str, header: &Header, last: u64, entry: u64) -> Error {
    let number = header.num_blocks;
    let message = if entry > last {
        format!(
            "the end of the data, offset {number} is {entry}, beyond the end of the file at {}: it \
             is damaged or cut short",
            header.data_range().end
        )
    } else {
        format!(
            "offset {number}, the end of the data, is {entry}, below the offset {last} of an \
             earlier block"
        )
    };
    Error::new(ErrorKind::Format, name, message)
}
