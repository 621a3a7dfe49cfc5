//! The trace of an image: which of its blocks are read first, in their order.
//!
//! A trace is a text of JSON lines. The first says of which image it is; each other line is a
//! run of blocks that were read one after the other, and when, in milliseconds since the start:
//!
//! ```text
//! {"cowcloop_trace":1,"image":"chicken","size":6291456,"block_size":65536,"identity":"5f0c…"}
//! {"ms":12,"block":0,"count":1}
//! {"ms":12,"block":17,"count":3}
//! ```
//!
//! Any program may have written it: a line that is damaged, or names blocks that the image does not
//! have, is left out and counted. So is one that names more blocks than the image has left, each
//! taken once: however long a trace is, the work that it makes is bounded.

use std::fmt::Write;
use std::io::{self, BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use crate::storage::{Storage, StorageReader};
use crate::{Layer, Result};

/// The version of the format.
const VERSION: u32 = 1;

/// Bytes of a block where the image has none of its own.
const PLAIN_BLOCK: u64 = 64 << 10;

/// Blocks that a trace is about, at most: of a larger image, each block is larger.
const MOST_BLOCKS: u64 = 1 << 26;

/// Bytes of a line at most.
const LONGEST: u64 = 4096;

/// Bytes of the name of an image.
const LONGEST_NAME: usize = 255;

/// Bytes of a trace that are looked at.
const MOST_BYTES: u64 = 64 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    cowcloop_trace: u32,
    /// For readers alone: it may have another name by now.
    pub image: String,
    /// Bytes of the device.
    pub size: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// The identity of the image, in hexadecimal.
    pub identity: String,
}

impl Header {
    /// That of a trace of an image. Of its path, `name`, a trace has the last part alone.
    ///
    /// # Errors
    /// Those of [`Layer::identity`].
    pub fn of(name: &str, base: &dyn Layer) -> Result<Header> {
        let mut identity = String::new();
        for byte in base.identity()? {
            let _ = write!(identity, "{byte:02x}");
        }
        Ok(Header {
            cowcloop_trace: VERSION,
            image: last_part(name).to_string(),
            size: base.size(),
            block_size: block_size(base),
            identity,
        })
    }

    /// Whether a trace with this header is of the image of the other.
    pub fn fits(&self, image: &Header) -> bool {
        let essence = |header: &Header| (header.size, header.block_size, header.identity.clone());
        essence(self) == essence(image)
    }

    /// Blocks of the image.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block_size)
    }

    /// The header in a line, if it is one and of a kind that there can be.
    fn parse(line: &[u8]) -> Option<Header> {
        let header: Header = serde_json::from_slice(line).ok()?;
        let possible = header.cowcloop_trace == VERSION
            && header.block_size > 0
            && header.size.checked_add(header.block_size).is_some()
            && header.blocks() <= MOST_BLOCKS;
        possible.then_some(header)
    }
}

/// The last part of a path, as long as a file's name may be.
fn last_part(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn block_size(base: &dyn Layer) -> u64 {
    let unit = base.read_unit().max(1);
    // Images that have blocks have larger ones than pages.
    let mut size = if unit <= 4096 { unit * PLAIN_BLOCK.div_ceil(unit) } else { unit };
    while base.size().div_ceil(size) > MOST_BLOCKS {
        size *= 2;
    }
    size
}

/// Each further line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Milliseconds since the start.
    pub ms: u64,
    /// The first block.
    pub block: u64,
    /// How many follow each other, with the first.
    pub count: u64,
}

/// Reads a trace, line by line.
pub struct TraceReader<'a> {
    header: Header,
    lines: BufReader<io::Take<StorageReader<'a>>>,
    /// Blocks that further lines may name.
    left: u64,
    damaged: u64,
}

impl<'a> TraceReader<'a> {
    /// The trace in `storage`; `None`: it holds none.
    ///
    /// # Errors
    /// The system's.
    pub fn open(storage: &'a dyn Storage) -> io::Result<Option<TraceReader<'a>>> {
        let mut lines = BufReader::new(StorageReader::new(storage).take(MOST_BYTES));
        let line = next_line(&mut lines)?;
        let header = line.as_deref().and_then(Header::parse);
        let begun =
            |header: Header| TraceReader { left: header.blocks(), header, lines, damaged: 0 };
        Ok(header.map(begun))
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Lines that were left out so far.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next run, with blocks of the image alone; `None`: that is all.
    ///
    /// # Errors
    /// The system's.
    pub fn next_run(&mut self) -> io::Result<Option<Run>> {
        let blocks = self.header.blocks();
        while let Some(line) = next_line(&mut self.lines)? {
            let run = serde_json::from_slice::<Run>(&line).ok();
            let fits = |run: &Run| {
                let end = run.block.checked_add(run.count);
                (1..=self.left).contains(&run.count) && end.is_some_and(|end| end <= blocks)
            };
            if let Some(run) = run.filter(fits) {
                self.left -= run.count;
                return Ok(Some(run));
            }
            self.damaged += 1;
        }
        Ok(None)
    }
}

/// A line without its end; one that is too long comes in pieces, which are no lines.
fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.take(LONGEST).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

/// The blocks that were met so far.
#[derive(Debug)]
pub struct Blocks(Vec<u64>);

impl Blocks {
    /// None of so many.
    pub fn new(count: u64) -> Blocks {
        Blocks(vec![0; count.div_ceil(64) as usize])
    }

    /// Notes a block; whether it is met for the first time.
    pub fn note(&mut self, block: u64) -> bool {
        let word = &mut self.0[(block / 64) as usize];
        let bit = 1 << (block % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }
}

/// What a trace holds. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The image that it is of, and that image's identity.
    pub image: String,
    /// The same.
    pub identity: String,
    /// Size of the device.
    pub size: u64,
    /// Size of a block.
    pub block_size: u64,
    /// Blocks of the image.
    pub blocks_total: u64,
    /// Those that the trace names, each counted once.
    pub blocks: u64,
    /// The bytes of these.
    pub bytes: u64,
    /// Their part of the image's.
    pub share: f64,
    /// Lines that name blocks.
    pub runs: u64,
    /// When the last of these runs began, in milliseconds since the start.
    pub last_run_ms: u64,
    /// Lines that are damaged, or name blocks that the image does not have.
    pub damaged_lines: u64,
}

impl Summary {
    /// What the trace in `storage` holds; `None`: it is none.
    ///
    /// # Errors
    /// The system's.
    pub fn of(storage: &dyn Storage) -> io::Result<Option<Summary>> {
        let Some(mut trace) = TraceReader::open(storage)? else { return Ok(None) };
        let Header { image, size, block_size, identity, .. } = trace.header().clone();
        let total = trace.header().blocks();
        let (mut seen, mut blocks, mut bytes) = (Blocks::new(total), 0, 0);
        let (mut runs, mut last_run_ms) = (0, 0);
        while let Some(run) = trace.next_run()? {
            runs += 1;
            last_run_ms = last_run_ms.max(run.ms);
            for block in run.block..run.block + run.count {
                if seen.note(block) {
                    blocks += 1;
                    bytes += block_size.min(size - block * block_size);
                }
            }
        }
        let share = if size == 0 { 0.0 } else { bytes as f64 / size as f64 };
        let damaged_lines = trace.damaged();
        let blocks_total = total;
        Ok(Some(Summary {
            image,
            identity,
            size,
            block_size,
            blocks_total,
            blocks,
            bytes,
            share,
            runs,
            last_run_ms,
            damaged_lines,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::image::{Image, ImageOptions};
    use crate::storage::MemoryStorage;

    const HEADER: &str = concat!(
        r#"{"cowcloop_trace":1,"image":"a","size":6553000,"block_size":65536,"identity":"00"}"#,
        "\n"
    );

    fn storage(text: &[u8]) -> MemoryStorage {
        let storage = MemoryStorage::new("trace", u64::MAX);
        storage.write_all_at(text, 0).unwrap();
        storage
    }

    fn runs(text: &str) -> (Vec<(u64, u64)>, u64) {
        let storage = storage(text.as_bytes());
        let mut trace = TraceReader::open(&storage).unwrap().unwrap();
        let mut found = Vec::new();
        while let Some(run) = trace.next_run().unwrap() {
            found.push((run.block, run.count));
        }
        (found, trace.damaged())
    }

    #[test]
    fn damaged_lines_are_left_out_and_counted() {
        let long = "x".repeat(10_000);
        let text = format!(
            "{HEADER}{{\"ms\":1,\"block\":7,\"count\":2}}\n\nnonsense\n\
             {{\"ms\":1,\"block\":99,\"count\":2}}\n\
             {{\"ms\":1,\"block\":18446744073709551615,\"count\":2}}\n\
             {{\"ms\":1,\"block\":3,\"count\":0}}\n{long}\n\
             {{\"ms\":2,\"block\":0,\"count\":1}}\n{{\"ms\":3,\"blo"
        );
        assert_eq!(runs(&text), (vec![(7, 2), (0, 1)], 6 + 10_001_u64.div_ceil(LONGEST)));
    }

    #[test]
    fn a_header_tells_the_name_of_the_image_alone_and_can_be_read_again() {
        let long = "\u{1}".repeat(LONGEST_NAME - 1) + "\u{e9}" + &"x".repeat(10_000);
        for (path, name) in [
            ("/home/me/chicken", "chicken"),
            ("https://host/a/b.img?...", "b.img?..."),
            ("/a/cd.iso:/KNOPPIX/KNOPPIX", "KNOPPIX"),
            ("chicken", "chicken"),
            (&long, &long[..LONGEST_NAME - 1]),
        ] {
            let image = Image::open(Arc::new(storage(b"x")), &ImageOptions::default()).unwrap();
            let header = Header::of(path, &*image).unwrap();
            assert_eq!(header.image, name);
            let text = serde_json::to_vec(&header).unwrap();
            let storage = storage(&text);
            assert_eq!(TraceReader::open(&storage).unwrap().unwrap().header(), &header);
        }
    }

    #[test]
    fn a_trace_makes_no_more_work_than_its_image_has_blocks() {
        let text = HEADER.to_string() + &"{\"ms\":1,\"block\":0,\"count\":60}\n".repeat(1000);
        assert_eq!(runs(&text), (vec![(0, 60)], 999));
        let summary = Summary::of(&storage(text.as_bytes())).unwrap().unwrap();
        assert_eq!((summary.blocks, summary.runs, summary.damaged_lines), (60, 1, 999));
    }

    #[test]
    fn what_does_not_begin_as_a_trace_is_none() {
        let header = |size: u64, block: u64| {
            let rest = format!("\"size\":{size},\"block_size\":{block},\"identity\":\"\"}}\n");
            format!("{{\"cowcloop_trace\":1,\"image\":\"a\",{rest}")
        };
        let other = HEADER.replace("trace\":1", "trace\":2");
        for text in [
            String::new(),
            "\n".into(),
            "\0\u{1}\u{2}".repeat(1 << 20),
            "[".repeat(1 << 20),
            header(1, 0),
            header(u64::MAX, 512),
            header(1 << 40, 512),
            other,
        ] {
            let storage = storage(text.as_bytes());
            assert!(TraceReader::open(&storage).unwrap().is_none());
            assert!(Summary::of(&storage).unwrap().is_none());
        }
        assert!(TraceReader::open(&storage(header(0, 512).as_bytes())).unwrap().is_some());
    }

    #[test]
    fn a_summary_counts_each_block_once_and_the_last_one_as_it_is() {
        let text = format!(
            "{HEADER}{{\"ms\":5,\"block\":98,\"count\":2}}\n{{\"ms\":7,\"block\":97,\"count\":2}}\n"
        );
        let summary = Summary::of(&storage(text.as_bytes())).unwrap().unwrap();
        assert_eq!((summary.blocks, summary.blocks_total, summary.runs), (3, 100, 2));
        assert_eq!(summary.bytes, 2 * 65536 + (6_553_000 - 99 * 65536));
        assert_eq!((summary.last_run_ms, summary.damaged_lines), (7, 0));
    }
}
