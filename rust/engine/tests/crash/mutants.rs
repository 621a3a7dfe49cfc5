//! Storage that breaks the rules: what a wrong order of writes and syncs would
//! do, made by swallowing or moving calls below the real code.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::cowfile::head::{mapsize, HEAD_BYTES, MAPUNIT};
use cowcloop_engine::storage::Storage;

use crate::disk::SimDisk;
use crate::scenario::DEVICE;

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Data is not synced before the bitmap is written.
    DataSync,
    /// The second sync of a flush, which makes the bitmap durable, is left out.
    BitmapSync,
    /// The second page of the bitmap is never written.
    Page,
    /// The head that says "in use" is not synced before the first change.
    HeadSync,
}

#[derive(Debug)]
struct Mutant {
    disk: Arc<SimDisk>,
    rule: Rule,
    syncs: AtomicU64,
    wrote_data: AtomicBool,
    wrote_bitmap: AtomicBool,
}

fn mutant(disk: Arc<SimDisk>, rule: Rule) -> Arc<dyn Storage> {
    Arc::new(Mutant {
        disk,
        rule,
        syncs: AtomicU64::new(0),
        wrote_data: AtomicBool::new(false),
        wrote_bitmap: AtomicBool::new(false),
    })
}

pub fn no_data_sync(disk: Arc<SimDisk>) -> Arc<dyn Storage> {
    mutant(disk, Rule::DataSync)
}

pub fn no_bitmap_sync(disk: Arc<SimDisk>) -> Arc<dyn Storage> {
    mutant(disk, Rule::BitmapSync)
}

pub fn forgotten_page(disk: Arc<SimDisk>) -> Arc<dyn Storage> {
    mutant(disk, Rule::Page)
}

pub fn no_head_sync(disk: Arc<SimDisk>) -> Arc<dyn Storage> {
    mutant(disk, Rule::HeadSync)
}

impl Storage for Mutant {
    fn name(&self) -> &str {
        self.disk.name()
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let bitmap = HEAD_BYTES..HEAD_BYTES + mapsize(DEVICE / MAPUNIT);
        if bitmap.contains(&offset) {
            self.wrote_bitmap.store(true, Ordering::Relaxed);
            if self.rule == Rule::Page && offset == 4096 {
                return Ok(());
            }
        } else if offset >= bitmap.end {
            self.wrote_data.store(true, Ordering::Relaxed);
        }
        self.disk.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.wrote_data.store(true, Ordering::Relaxed);
        self.disk.punch_hole(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        let first = self.syncs.fetch_add(1, Ordering::Relaxed) == 0;
        let data = self.wrote_data.swap(false, Ordering::Relaxed);
        let bitmap = self.wrote_bitmap.swap(false, Ordering::Relaxed);
        let swallowed = match self.rule {
            Rule::DataSync => data && !bitmap,
            Rule::BitmapSync => bitmap,
            Rule::HeadSync => first,
            Rule::Page => false,
        };
        if swallowed {
            Ok(())
        } else {
            self.disk.sync()
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.disk.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.disk.next_hole(offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.disk.allocated()
    }
}
