//! Where each block lies in the file.
//!
//! One rule serves every kind. `stored` is the end of what is stored so far. An entry at or
//! above it is the beginning of a block that ends at the first later entry that is not
//! below it (an empty one is a block of zeros). An entry below it refers back to an earlier
//! block, which must begin exactly there, and is legal only in the de-duplicated kinds.

use crate::codec::Codec;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

use super::ending::end_of_data;
use super::header::{Header, Kind};

/// Bits of a V4.0 entry that are the offset; the codec lies above them.
pub(super) const OFFSET_BITS: u32 = 60;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

/// The flags below this one name a codec.
const V4_CODECS: u64 = {
    let mut count = 0;
    let mut codec = 0;
    while codec < Codec::ALL.len() {
        if Codec::ALL[codec].v4_flag().is_some() {
            count += 1;
        }
        codec += 1;
    }
    count
};

/// Bytes of index that are read at a time.
const CHUNK: usize = 1 << 20;

/// Where a block's compressed bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockLocation {
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes; 0: a block of zeros.
    pub length: u32,
    /// The codec that compressed them.
    pub codec: Codec,
}

impl BlockLocation {
    /// The byte after the last.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// The index in memory: 8 bytes per block, 12 in the de-duplicated kinds.
#[derive(Debug)]
pub(crate) struct Index {
    kind: Kind,
    /// The entries as they stand in the file, the end among them.
    entries: Vec<u64>,
    /// The lengths, where they do not follow from the next entry.
    lengths: Option<Vec<u32>>,
    /// The end of the last block.
    end: u64,
    shared_blocks: u64,
}

/// The longest compressed block that is legal: every encoder stays far below.
pub(crate) fn max_compressed_length(block_size: u32) -> u64 {
    2 * u64::from(block_size) + 4096
}

impl Index {
    /// Reads and checks every entry.
    ///
    /// # Errors
    /// `Format`, naming the entry and its value; `Unsupported` for an unknown
    /// codec; `Io`.
    pub(crate) fn read(storage: &dyn Storage, header: &Header) -> Result<Index> {
        let entries = read_entries(storage, header)?;
        let (blocks, end) = entries.split_at(header.num_blocks as usize);
        let (end, _) = split(header.kind, end[0]);
        if let Some(last) = quick_look(header, blocks) {
            let end = end_of_data(storage, header, last, end)?;
            if end - last <= max_compressed_length(header.block_size) {
                let (lengths, shared_blocks) = (None, 0);
                return Ok(Index { kind: header.kind, entries, lengths, end, shared_blocks });
            }
        }
        let mut checker = Checker::new(storage.name(), header, blocks);
        for entry in blocks {
            checker.block(*entry)?;
        }
        let end = end_of_data(storage, header, checker.last(), end)?;
        checker.close(end)?;
        let Checker { lengths, stored_end, shared_blocks, .. } = checker;
        Ok(Index { kind: header.kind, entries, lengths, end: stored_end, shared_blocks })
    }

    /// Number of blocks.
    pub(crate) fn block_count(&self) -> u64 {
        self.entries.len() as u64 - 1
    }

    /// Blocks whose bytes are those of an earlier block.
    pub(crate) fn shared_blocks(&self) -> u64 {
        self.shared_blocks
    }

    /// The entries as they stand in the file, the end among them.
    pub(crate) fn entries(&self) -> &[u64] {
        &self.entries
    }

    /// Where block `block` lies, which must be below [`block_count`](Self::block_count).
    pub(crate) fn block(&self, block: u64) -> BlockLocation {
        let block = block as usize;
        let entry = self.entries[block];
        let (offset, codec) = split(self.kind, entry);
        let length = match &self.lengths {
            Some(lengths) => lengths[block],
            None if block + 2 == self.entries.len() => (self.end - offset) as u32,
            None => (split(self.kind, self.entries[block + 1]).0 - offset) as u32,
        };
        // Checked when the index was read, for all blocks that have bytes.
        BlockLocation { offset, length, codec: codec.unwrap_or(Codec::Zlib) }
    }
}

/// The entries. The header was checked, so the file has room for them; but a sparse file
/// has room for any number, so an obvious error ends the reading at once.
fn read_entries(storage: &dyn Storage, header: &Header) -> Result<Vec<u64>> {
    let blocks = header.num_blocks as usize;
    let count = blocks + 1;
    let mut entries = Vec::new();
    entries.try_reserve_exact(count).map_err(|_| {
        let message = format!("its index of {blocks} blocks needs more memory than there is");
        Error::new(ErrorKind::Unsupported, storage.name(), message)
    })?;
    let data = header.data_range();
    let mut bytes = vec![0; CHUNK.min(count * 8)];
    while entries.len() < count {
        let n = bytes.len().min((count - entries.len()) * 8);
        let at = header.index_offset() + 8 * entries.len() as u64;
        storage
            .read_exact_at(&mut bytes[..n], at)
            .map_err(|error| Error::io(storage.name(), "cannot read the index", error))?;
        let numbers = bytes[..n].chunks_exact(8);
        let first = entries.len();
        entries.extend(numbers.map(|b| u64::from_be_bytes(b.try_into().expect("8 bytes"))));
        let (offset, _) = split(header.kind, entries[first]);
        if first < blocks && !(data.start..=data.end).contains(&offset) {
            let so_far = &entries[..entries.len().min(blocks)];
            let mut checker = Checker::new(storage.name(), header, so_far);
            so_far.iter().try_for_each(|entry| checker.block(*entry))?;
        }
    }
    Ok(entries)
}

/// Most indexes only rise, within their bounds. That is checked in a fraction of the time
/// of a [`Checker`], which decides on all others. Returns where the last block begins.
fn quick_look(header: &Header, blocks: &[u64]) -> Option<u64> {
    let kind = header.kind;
    let (mask, codecs) = match kind.codec() {
        _ if kind.shares_blocks() => return None,
        Some(_) => (u64::MAX, u64::MAX),
        None => (OFFSET_MASK, V4_CODECS),
    };
    let data = header.data_range();
    let max_length = max_compressed_length(header.block_size);
    let mut before = blocks.first().map_or(data.start, |first| first & mask);
    let mut sound = before >= data.start;
    for entry in blocks {
        let offset = entry & mask;
        // An offset below the one before wraps to a length beyond any.
        sound &= offset.wrapping_sub(before) <= max_length && entry >> OFFSET_BITS < codecs;
        before = offset;
    }
    (sound && before <= data.end).then_some(before)
}

/// An entry's offset, and its codec where that is known.
fn split(kind: Kind, entry: u64) -> (u64, Option<Codec>) {
    match kind.codec() {
        Some(codec) => (entry, Some(codec)),
        None => (entry & OFFSET_MASK, Codec::from_v4_flag(entry >> OFFSET_BITS)),
    }
}

/// Takes the entries one by one.
struct Checker<'a> {
    name: &'a str,
    kind: Kind,
    /// All entries but the end.
    entries: &'a [u64],
    data: std::ops::Range<u64>,
    max_length: u64,
    /// Entries seen.
    count: u64,
    /// The latest entry that is no reference back: it begins a block, whose
    /// length the next such entry gives.
    open: Option<Open>,
    /// The end of what is stored, so far as it is known.
    stored_end: u64,
    /// De-duplicated kinds: the length of each block …
    lengths: Option<Vec<u32>>,
    /// … and the blocks that have bytes of their own, in order.
    stored: Vec<u32>,
    shared_blocks: u64,
}

struct Open {
    block: u64,
    offset: u64,
    codec: Option<Codec>,
    /// The codec flag of a V4.0 entry.
    flags: u64,
}

impl<'a> Checker<'a> {
    fn new(name: &'a str, header: &Header, entries: &'a [u64]) -> Self {
        let lengths = header.kind.shares_blocks();
        Checker {
            name,
            kind: header.kind,
            entries,
            data: header.data_range(),
            max_length: max_compressed_length(header.block_size),
            count: 0,
            open: None,
            stored_end: header.data_range().start,
            lengths: lengths.then(|| Vec::with_capacity(entries.len())),
            stored: Vec::new(),
            shared_blocks: 0,
        }
    }

    fn bad<T>(&self, kind: ErrorKind, message: String) -> Result<T> {
        Err(Error::new(kind, self.name, message))
    }

    /// The next entry.
    fn block(&mut self, entry: u64) -> Result<()> {
        let (offset, codec) = split(self.kind, entry);
        let block = self.count;
        if offset > self.data.end {
            let message = format!(
                "offset {block} is {offset}, beyond the end of the file at {}: it is damaged or \
                 cut short",
                self.data.end
            );
            return self.bad(ErrorKind::Format, message);
        }
        if offset < self.data.start {
            return self.bad(
                ErrorKind::Format,
                format!(
                    "offset {block} is {offset}, before the data, which begin at {}",
                    self.data.start
                ),
            );
        }
        let begun = self.open.as_ref().map_or(offset, |open| open.offset);
        if offset < begun {
            self.refer_back(block, offset)?;
        } else {
            self.close(offset)?;
            self.open = Some(Open { block, offset, codec, flags: entry >> OFFSET_BITS });
            if let Some(lengths) = &mut self.lengths {
                lengths.push(0);
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Where the last block that is stored begins.
    fn last(&self) -> u64 {
        self.open.as_ref().map_or(self.data.start, |open| open.offset)
    }

    /// The open block ends here.
    fn close(&mut self, end: u64) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let length = end - open.offset;
        if length > self.max_length {
            let message = format!(
                "block {} takes {length} compressed bytes, more than any block can ({})",
                open.block, self.max_length
            );
            return self.bad(ErrorKind::Format, message);
        }
        if length > 0 {
            if open.codec.is_none() {
                let message = format!(
                    "block {} is of compressor {}, and only 0 to 4 are known",
                    open.block, open.flags
                );
                return self.bad(ErrorKind::Unsupported, message);
            }
            if let Some(lengths) = &mut self.lengths {
                lengths[open.block as usize] = length as u32;
                self.stored.push(open.block as u32);
            }
        }
        self.stored_end = end;
        Ok(())
    }

    fn refer_back(&mut self, block: u64, offset: u64) -> Result<()> {
        let Some(lengths) = &mut self.lengths else {
            let before = self.open.as_ref().map_or(0, |open| open.offset);
            let message =
                format!("offset {block} is {offset}, below offset {} ({before})", block - 1);
            return self.bad(ErrorKind::Format, message);
        };
        // De-duplicated kinds have no flags in their entries.
        match self.stored.binary_search_by_key(&offset, |stored| self.entries[*stored as usize]) {
            Ok(found) => lengths.push(lengths[self.stored[found] as usize]),
            Err(_) => {
                let message = format!("offset {block} is {offset}, where no earlier block begins");
                return self.bad(ErrorKind::Format, message);
            }
        }
        self.shared_blocks += 1;
        Ok(())
    }
}
