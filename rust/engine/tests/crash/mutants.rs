//! Storage that breaks the rules: what a wrong order of writes and syncs would
//! do, made by swallowing or moving calls below the real code.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::format::cowfile::bitmap::PAGE_BYTES;
use cowcloop_engine::format::cowfile::head::{mapsize, HEAD_BYTES, MAPUNIT};
use cowcloop_engine::storage::Storage;

use crate::cases::Kind;
use crate::disk::SimDisk;
use crate::passed_on::reads_pass;
use crate::scenario::Rules;
use crate::world::DEVICE;

/// Pages of the bitmap at which a careless program might take another way.
const MANY: u64 = 64;

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Data is synced before the bitmap is written.
    DataSync,
    /// The bitmap is synced before a flush is acknowledged.
    BitmapSync,
    /// ... however many pages of it there are.
    BitmapSyncOfMany,
    /// Every changed page of the bitmap is written.
    Page,
    /// ... those far behind too.
    FarPages,
    /// The head that says "in use" is synced before the first change.
    HeadSync,
    /// What a process left is synced before it is read.
    SettleSync,
    /// What a failed sync left in the cache is forgotten before anything is read.
    DropCache,
}

macro_rules! breaking {
    ($rule:expr) => {
        Rules { cow: |disk| mutant(disk, $rule), ..Rules::PLAIN }
    };
}

/// Each rule in words, the cases that tell, and the storage that breaks it.
pub const RULES: [(&str, Kind, Rules); 8] = [
    ("data is synced before the bitmap is written", Kind::Plain, breaking!(Rule::DataSync)),
    ("the bitmap is synced before a flush is done", Kind::Plain, breaking!(Rule::BitmapSync)),
    ("so are many pages of it", Kind::Wide, breaking!(Rule::BitmapSyncOfMany)),
    ("every changed page of the bitmap is written", Kind::Plain, breaking!(Rule::Page)),
    ("those far behind as well", Kind::Plain, breaking!(Rule::FarPages)),
    ("the head says 'in use' before a change", Kind::Plain, breaking!(Rule::HeadSync)),
    ("what a process left is synced first", Kind::Stacked, breaking!(Rule::SettleSync)),
    ("and the cache is emptied", Kind::WriteBackFails, breaking!(Rule::DropCache)),
];

#[derive(Debug)]
struct Mutant {
    disk: Arc<SimDisk>,
    rule: Rule,
    wrote_head: AtomicBool,
    wrote_data: AtomicBool,
    /// Bytes of bitmap since the last sync.
    bitmap: AtomicU64,
    /// It was synced before.
    synced: AtomicBool,
}

fn mutant(disk: Arc<SimDisk>, rule: Rule) -> Arc<dyn Storage> {
    Arc::new(Mutant {
        disk,
        rule,
        wrote_head: AtomicBool::new(false),
        wrote_data: AtomicBool::new(false),
        bitmap: AtomicU64::new(0),
        synced: AtomicBool::new(false),
    })
}

impl Storage for Mutant {
    reads_pass!();

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let bitmap = HEAD_BYTES..HEAD_BYTES + mapsize(DEVICE / MAPUNIT);
        if bitmap.contains(&offset) {
            self.bitmap.fetch_add(buf.len() as u64, Ordering::Relaxed);
            if self.rule == Rule::Page && offset == PAGE_BYTES {
                return Ok(());
            }
            if self.rule == Rule::FarPages {
                let near = (MANY * PAGE_BYTES).saturating_sub(offset).min(buf.len() as u64);
                return self.disk.write_all_at(&buf[..near as usize], offset);
            }
        } else if offset >= bitmap.end {
            self.wrote_data.store(true, Ordering::Relaxed);
        } else {
            self.wrote_head.store(true, Ordering::Relaxed);
        }
        self.disk.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.wrote_data.store(true, Ordering::Relaxed);
        self.disk.punch_hole(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        let head = self.wrote_head.swap(false, Ordering::Relaxed);
        let data = self.wrote_data.swap(false, Ordering::Relaxed);
        let bitmap = self.bitmap.swap(0, Ordering::Relaxed);
        let first = !self.synced.swap(true, Ordering::Relaxed);
        let swallowed = match self.rule {
            Rule::DataSync => data && bitmap == 0,
            Rule::BitmapSync => bitmap > 0,
            Rule::BitmapSyncOfMany => bitmap >= (MANY - 1) * PAGE_BYTES,
            Rule::HeadSync => head,
            Rule::SettleSync => first && !head && !data && bitmap == 0,
            Rule::Page | Rule::FarPages | Rule::DropCache => false,
        };
        if swallowed {
            Ok(())
        } else {
            self.disk.sync()
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        match self.rule {
            Rule::DropCache => Ok(()),
            _ => self.disk.drop_cache(),
        }
    }
}
