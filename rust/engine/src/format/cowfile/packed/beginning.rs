//! The beginning of what is read, kept without its runs of zeros: most of a bitmap is zeros.

use std::io::{self, Read};
use std::ops::Range;

const PAGE: u64 = 4096;

/// So many bytes, or as many as there were.
pub(super) struct Beginning {
    /// `None`: zeros.
    pages: Vec<Option<Box<[u8]>>>,
    length: u64,
}

impl Beginning {
    /// Reads `limit` bytes, or all where there are fewer.
    pub(super) fn read(reader: &mut dyn Read, limit: u64) -> io::Result<Beginning> {
        let mut beginning = Beginning { pages: Vec::new(), length: 0 };
        let mut page = [0; PAGE as usize];
        while beginning.length < limit {
            let bytes = &mut page[..PAGE.min(limit - beginning.length) as usize];
            let read = read_up_to(reader, bytes)?;
            let filled = bytes[..read].iter().any(|byte| *byte != 0);
            beginning.pages.push(filled.then(|| bytes[..read].into()));
            beginning.length += read as u64;
            if read < bytes.len() {
                break;
            }
        }
        Ok(beginning)
    }

    /// Bytes that were read.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Bits that are set in the range, as far as it was read.
    pub(super) fn ones(&self, range: Range<u64>) -> u64 {
        let end = range.end.min(self.length);
        let mut at = range.start;
        let mut ones = 0;
        while at < end {
            let stop = ((at / PAGE + 1) * PAGE).min(end);
            if let Some(bytes) = &self.pages[(at / PAGE) as usize] {
                let bytes = &bytes[(at % PAGE) as usize..][..(stop - at) as usize];
                ones += bytes.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            }
            at = stop;
        }
        ones
    }

    /// The bytes from `at` on.
    pub(super) fn at(&self, at: u64) -> impl Read + '_ {
        Reader { beginning: self, at }
    }
}

struct Reader<'a> {
    beginning: &'a Beginning,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.beginning.length.saturating_sub(self.at);
        let within = self.at % PAGE;
        let n = left.min(PAGE - within).min(buf.len() as u64) as usize;
        if n > 0 {
            match &self.beginning.pages[(self.at / PAGE) as usize] {
                Some(bytes) => buf[..n].copy_from_slice(&bytes[within as usize..][..n]),
                None => buf[..n].fill(0),
            }
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// Reads until `buf` is full or there is nothing left.
pub(super) fn read_up_to(reader: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match reader.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
