//! Storage in memory, for throw-away overlays and tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::Storage;

/// Bytes per page: a hole is a page that is not there.
const PAGE: u64 = 4096;

/// Number of independently locked parts; neighbouring pages lie in different ones.
const SHARDS: usize = 16;

type Page = Box<[u8; PAGE as usize]>;

/// Sparse storage in memory that takes up to a limit.
#[derive(Debug)]
pub struct MemoryStorage {
    name: String,
    shards: [RwLock<BTreeMap<u64, Page>>; SHARDS],
    pages: AtomicU64,
    page_limit: u64,
    len: AtomicU64,
}

impl MemoryStorage {
    /// Empty storage that takes at most `limit` bytes of data.
    pub fn new(name: impl Into<String>, limit: u64) -> Self {
        MemoryStorage {
            name: name.into(),
            shards: Default::default(),
            pages: AtomicU64::new(0),
            page_limit: limit.div_ceil(PAGE),
            len: AtomicU64::new(0),
        }
    }

    fn shard(&self, page: u64) -> &RwLock<BTreeMap<u64, Page>> {
        &self.shards[(page % SHARDS as u64) as usize]
    }

    fn take_page(&self) -> io::Result<Page> {
        self.pages
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < self.page_limit).then_some(n + 1)
            })
            .map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        Ok(Box::new([0; PAGE as usize]))
    }
}

/// The pieces of `[offset, offset + length)` that lie in one page each:
/// page number, start in the page, start in the range, length.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = offset + done;
            let within = at % PAGE;
            let n = (PAGE - within).min(length - done);
            let piece = (at / PAGE, within as usize, done as usize, n as usize);
            done += n;
            piece
        })
    })
}

impl Storage for MemoryStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let available = self.len()?.saturating_sub(offset);
        let length = available.min(buf.len() as u64);
        for (page, within, at, n) in pieces(offset, length) {
            let shard = self.shard(page).read();
            match shard.get(&page) {
                Some(data) => buf[at..at + n].copy_from_slice(&data[within..within + n]),
                None => buf[at..at + n].fill(0),
            }
        }
        Ok(length as usize)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        for (page, within, at, n) in pieces(offset, buf.len() as u64) {
            let mut shard = self.shard(page).write();
            let data = match shard.entry(page) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(self.take_page()?)
                }
            };
            data[within..within + n].copy_from_slice(&buf[at..at + n]);
        }
        self.len.fetch_max(offset + buf.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        for (page, within, _, n) in pieces(offset, length) {
            let mut shard = self.shard(page).write();
            if n == PAGE as usize {
                if shard.remove(&page).is_some() {
                    self.pages.fetch_sub(1, Ordering::Relaxed);
                }
            } else if let Some(data) = shard.get_mut(&page) {
                data[within..within + n].fill(0);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let first = offset / PAGE;
        let found = self.shards.iter().filter_map(|shard| {
            let shard = shard.read();
            shard.range(first..).next().map(|(page, _)| *page)
        });
        let len = self.len()?;
        Ok(found.min().map(|page| (page * PAGE).max(offset)).filter(|at| *at < len))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let len = self.len()?.max(offset);
        let mut page = offset / PAGE;
        while page * PAGE < len && self.shard(page).read().contains_key(&page) {
            page += 1;
        }
        Ok((page * PAGE).clamp(offset, len))
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.pages.load(Ordering::Relaxed) * PAGE)
    }
}
