//! Work on whole images and cowfiles. On every core: [`extract()`], [`create()`],
//! [`verify()`], [`commit()`]. On cowfiles that are not in use, as the original package's
//! tools did: [`repair()`], [`merge()`], [`pack()`] and [`unpack()`]; and [`rebase()`],
//! which they left to the driver.
//!
//! Each of the first group is a pipeline of three stages that overlap: pieces are handed
//! out in order, worked on by any number of threads, and taken in order again (see
//! `ordered`). The number of pieces in flight bounds the memory, whatever the size of the
//! image.

mod assembly;
mod commit;
mod create;
mod digest;
mod encode;
mod extract;
mod input;
mod map;
mod merge;
mod merging;
mod ordered;
mod output;
mod pack;
mod piece;
mod pipe;
mod place;
mod rebase;
mod repair;
mod replace;
mod verify;
mod writer;

pub use crate::codec::Level;
pub use crate::format::cloop::Format;
pub use crate::read::{BadBlock, StoredBlock};
pub use assembly::Assembly;
pub use commit::{commit, CommitOptions, CommitSummary};
pub use create::{create, CreateOptions, CreateSummary};
pub use digest::digest;
pub use extract::{extract, ExtractOptions, ExtractSummary};
pub use input::{Input, STANDARD_INPUT};
pub use map::{map, Cell};
pub use merge::{merge, MergeSummary};
pub use output::{take_place, Output, STANDARD_OUTPUT};
pub use pack::{pack, packed_head, unpack, PackSummary};
pub use piece::{Compressor, Piece};
pub use rebase::{rebase, RebaseSummary};
pub use repair::{repair, repair_before_use, RepairOptions, RepairReport};
pub use replace::Replace;
pub use verify::{check_range, check_taken, take_range, verify, Taken, VerifyReport};

/// The number of threads to use when `wanted` are asked for; 0: one per core.
fn thread_count(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        // More than this only costs memory.
        n => n.min(1024),
    }
}

/// How many pieces of this many bytes may be in flight: enough that no thread waits for
/// another's, without wasting memory on large blocks.
fn window(threads: usize, piece: usize) -> usize {
    match piece {
        ..=0x80_0000 => 2 * threads + 2,
        _ => threads + 1,
    }
}

/// Whether all bytes are 0. Most data begins with another byte, and then the answer is
/// immediate.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(output::ZEROS.len()).all(|chunk| *chunk == output::ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests;
