//! One block: from the storage through its codec, and what is wrong with it.
//!
//! Nothing is remembered of a block here.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::block::{BadBlock, BlockError, StoredBlock};
use crate::codec::{decode_blocks, DecodeError, Task};
use crate::format::cloop::{BlockLocation, Index};
use crate::storage::Storage;

use super::shares::Shares;

/// Compressed bytes for which a thread keeps room between reads.
const KEPT_INPUT: usize = 1 << 20;

/// Compressed bytes of blocks that are decoded together, unless two blocks have more.
const MOST_TOGETHER: usize = 256 << 10;

/// Decoded bytes of blocks that are checked together, unless two blocks have more.
const MOST_CHECKED: usize = 512 << 10;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A block that is wanted whole, and the room for it.
pub(super) struct Wanted<'a> {
    pub(super) block: u64,
    pub(super) output: &'a mut [u8],
}

/// The compressed blocks of an image, and the way to decode them.
#[derive(Debug)]
pub(crate) struct Decoder {
    storage: Arc<dyn Storage>,
    index: Index,
    block_size: u32,
    last_may_be_short: bool,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    /// `None`: whoever comes may decode.
    shares: Option<Shares>,
}

impl Decoder {
    /// `last_may_be_short`: the last block's stream may end early; zeros follow.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        index: Index,
        block_size: u32,
        last_may_be_short: bool,
    ) -> Self {
        let (reads, read_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let shares = None;
        Decoder { storage, index, block_size, last_may_be_short, reads, read_bytes, shares }
    }

    /// Has readers share so many places for decoding.
    pub(super) fn share_out(&mut self, places: usize) {
        self.shares = Some(Shares::new(places));
    }

    /// The image's name in messages.
    pub(crate) fn name(&self) -> &str {
        self.storage.name()
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Bytes of a block, decoded.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size as usize
    }

    pub(crate) fn block_count(&self) -> u64 {
        self.index.block_count()
    }

    /// Where a block's compressed bytes are; `block` is below the count.
    pub(crate) fn location(&self, block: u64) -> BlockLocation {
        self.index.block(block)
    }

    /// Whether the block's stream may end before the block does.
    pub(super) fn may_be_short(&self, block: u64) -> bool {
        self.last_may_be_short && block + 1 == self.block_count()
    }

    /// Read requests to the storage, and the bytes that they asked for.
    pub(crate) fn reads(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.read_bytes.load(Ordering::Relaxed))
    }

    /// Reads compressed bytes from an offset in the file.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.storage.read_exact_at(buf, offset)
    }

    /// Gives the compressed bytes of blocks to `work`.
    fn with_inputs<T>(
        &self,
        locations: &[BlockLocation],
        work: impl FnOnce(Vec<io::Result<&[u8]>>) -> T,
    ) -> T {
        let mut input = INPUT.take();
        let length = locations.iter().map(|location| location.length as usize).sum();
        if input.len() < length {
            input.resize(length, 0);
        }
        let mut rest = &mut input[..];
        let read = |location: &BlockLocation| {
            let (bytes, after) = std::mem::take(&mut rest).split_at_mut(location.length as usize);
            rest = after;
            self.read(bytes, location.offset).map(|()| &*bytes)
        };
        let result = work(locations.iter().map(read).collect());
        if input.len() <= KEPT_INPUT {
            INPUT.set(input);
        }
        result
    }

    /// Gives the compressed bytes of a block to `work`.
    fn with_input<T>(
        &self,
        location: BlockLocation,
        work: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        self.with_inputs(&[location], |mut inputs| inputs.pop().expect("one is read").map(work))
    }

    /// Reads and decodes whole blocks, as many together as is good. `known` may have the outcome
    /// of a block before it is decoded, from its compressed bytes, and fills the room for it
    /// then; `decoded` sees the others. What is wrong and was kept of something far away is
    /// fetched once more.
    pub(super) fn decode_all<T>(
        &self,
        wanted: &mut [Wanted<'_>],
        known: impl Fn(u64, &[u8], &mut [u8]) -> Option<T>,
        decoded: impl Fn(u64, &[u8], &[u8]) -> T,
    ) -> Vec<Result<T, BlockError>> {
        let mut results = Vec::with_capacity(wanted.len());
        let mut rest = wanted;
        while !rest.is_empty() {
            let together = self.together(rest);
            let (group, after) = rest.split_at_mut(together);
            rest = after;
            for (at, result) in self.decode_group(group, &known, &decoded).into_iter().enumerate() {
                let damaged = matches!(result, Err(BlockError::Decode(_)));
                results.push(if damaged && self.renew(self.location(group[at].block)) {
                    let mut again = self.decode_group(&mut group[at..=at], &known, &decoded);
                    again.pop().expect("one is decoded")
                } else {
                    result
                });
            }
        }
        results
    }

    /// How many of the blocks to read and decode together: so many that their compressed bytes
    /// stay in a processor's cache, or two.
    fn together(&self, wanted: &[Wanted<'_>]) -> usize {
        let mut length = 0;
        let fits = |(number, wanted): &(usize, &Wanted<'_>)| {
            length += self.location(wanted.block).length as usize;
            *number < 2 || length <= MOST_TOGETHER
        };
        wanted.iter().enumerate().take_while(fits).count()
    }

    fn decode_group<T>(
        &self,
        group: &mut [Wanted<'_>],
        known: &impl Fn(u64, &[u8], &mut [u8]) -> Option<T>,
        decoded: &impl Fn(u64, &[u8], &[u8]) -> T,
    ) -> Vec<Result<T, BlockError>> {
        let locations: Vec<_> = group.iter().map(|wanted| self.location(wanted.block)).collect();
        self.with_inputs(&locations, |inputs| {
            let _share = self.shares.as_ref().map(Shares::take);
            // `None`: a task has it.
            let mut results: Vec<Option<Result<T, BlockError>>> = Vec::with_capacity(group.len());
            let (mut blocks, mut tasks) = (Vec::new(), Vec::new());
            for (Wanted { block, output }, input) in group.iter_mut().zip(inputs) {
                results.push(match input {
                    Err(error) => Some(Err(error.into())),
                    Ok(input) => known(*block, input, output).map(Ok).or_else(|| {
                        blocks.push(*block);
                        tasks.push(self.task(*block, input, output));
                        None
                    }),
                });
            }
            let ends = decode_blocks(&mut tasks);
            let mut ends = blocks.into_iter().zip(tasks).zip(ends).map(|((block, task), end)| {
                end.map(|()| decoded(block, task.input, task.output)).map_err(BlockError::from)
            });
            let mut task = || ends.next().expect("a task for each that was not known");
            results.into_iter().map(|result| result.unwrap_or_else(&mut task)).collect()
        })
    }

    fn task<'a>(&self, block: u64, input: &'a [u8], output: &'a mut [u8]) -> Task<'a> {
        let codec = self.location(block).codec;
        Task { codec, input, output, short: self.may_be_short(block) }
    }

    /// Gives the compressed bytes of a block to `decode`. Where these turn out to be wrong and
    /// were kept of something far away, they are fetched once more, and `decode` gets those.
    pub(super) fn with_right<T>(
        &self,
        location: BlockLocation,
        mut decode: impl FnMut(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, BlockError> {
        match self.with_input(location, &mut decode)? {
            Err(_) if self.renew(location) => Ok(self.with_input(location, decode)??),
            decoded => Ok(decoded?),
        }
    }

    /// Throws away what was kept, and is wrong, of a block that is far away.
    pub(super) fn renew(&self, location: BlockLocation) -> bool {
        self.storage.renew(location.offset, location.length.into())
    }

    /// A hint that the blocks `[first, end)` will be read soon.
    pub(super) fn expect(&self, first: u64, end: u64) {
        let (from, to) = self.span(first, end);
        self.storage.expect(from, to - from);
    }

    /// Whether the blocks `[first, end)` can be read without waiting for what is far away.
    pub(super) fn is_near(&self, first: u64, end: u64) -> bool {
        let (from, to) = self.span(first, end);
        self.storage.is_near(from, to - from)
    }

    /// Where the blocks `[first, end)` lie, those aside that share the bytes of others.
    fn span(&self, first: u64, end: u64) -> (u64, u64) {
        let from = self.location(first).offset;
        (from, self.location(end - 1).end().max(from))
    }

    /// Whether blocks may have changed where they are kept.
    pub(super) fn may_rot(&self) -> bool {
        self.storage.may_rot()
    }

    /// Lets the storage use threads of its own.
    pub(super) fn start(&self) {
        self.storage.start();
    }

    /// Reads a block's compressed bytes as they are; none for a block of zeros
    /// that is not stored.
    pub(crate) fn read_compressed(&self, block: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let location = self.location(block);
        if self.storage.may_rot() && location.length > 0 {
            let mut output = vec![0; self.block_size()];
            let copied = self.with_right(location, |input| {
                bytes.clear();
                bytes.extend_from_slice(input);
                self.decode(block, input, &mut output)
            });
            return copied.map_err(|error| match error {
                BlockError::Io(error) => error,
                BlockError::Decode(reason) => io::Error::other(reason.to_string()),
            });
        }
        bytes.resize(location.length as usize, 0);
        self.read(bytes, location.offset)
    }

    /// Decodes the compressed bytes of a block, all of it.
    pub(super) fn decode(
        &self,
        block: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(), DecodeError> {
        self.location(block).codec.decode_block(input, output, self.may_be_short(block))
    }

    /// What is known of a block without reading it.
    pub(crate) fn stored(&self, block: u64) -> StoredBlock {
        let (location, may_be_short) = (self.location(block), self.may_be_short(block));
        StoredBlock { block, location, may_be_short }
    }

    /// Reads and decodes blocks and says what is wrong with which. `scratch` is working space
    /// that may be reused.
    pub(crate) fn check(&self, blocks: &[u64], scratch: &mut Vec<u8>) -> Vec<BadBlock> {
        let block_size = self.block_size();
        let most = (MOST_CHECKED / block_size).max(2);
        scratch.resize(scratch.len().max(most.min(blocks.len()) * block_size), 0);
        let mut bad = Vec::new();
        for blocks in blocks.chunks(most) {
            let rooms = blocks.iter().zip(scratch.chunks_exact_mut(block_size));
            let rooms = rooms.map(|(block, output)| Wanted { block: *block, output });
            let mut rooms: Vec<_> = rooms.collect();
            // Zeros that are not stored.
            let known = |_, input: &[u8], _: &mut [u8]| input.is_empty().then_some(());
            let results = self.decode_all(&mut rooms, known, |_, _, _| ());
            for (block, result) in blocks.iter().zip(results) {
                if let Err(error) = result {
                    bad.push(self.stored(*block).bad(&error));
                }
            }
        }
        bad
    }
}
