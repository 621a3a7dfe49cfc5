//! What the cases are about: a base, cowfiles on it, and where the test looks.

use std::ops::ControlFlow;
use std::sync::Arc;

use cowcloop_engine::format::cowfile::head::{
    ByteOrder, FieldEncoding, Head, WordSize, HEAD_SECTOR, MAPUNIT,
};
use cowcloop_engine::format::cowfile::{self, read_head, Access};
use cowcloop_engine::layer::ExtentSink;
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::storage::Storage;
use cowcloop_engine::{Extent, ExtentKind, Layer, Result};

use crate::disk::SimDisk;
use crate::medium::{Files, Image, SECTOR};

/// Bytes of the device that one page of the bitmap tells of, and what the first one, behind
/// the head, tells of less.
const PAGE: u64 = 32 << 20;
const HEAD: u64 = 8 << 20;

/// Pages of the bitmap.
pub const PAGES: u64 = 200;

/// Size of the device.
pub const DEVICE: u64 = PAGES * PAGE - HEAD;

/// Where the test looks: both ends, and where pages of the bitmap meet.
pub const WINDOWS: [u64; 4] =
    [0, PAGE - HEAD - WINDOW / 2, 64 * PAGE - HEAD - WINDOW / 2, DEVICE - WINDOW];

/// Bytes of a window.
pub const WINDOW: u64 = 12 << 10;

/// A base that is smaller than its device ends here, within a block of the last window.
const SHORT: u64 = DEVICE - 5 * MAPUNIT - 300;

/// Bytes of an extent of the base: they end within blocks.
const EXTENT: u64 = 5 * SECTOR;

/// Where in the device a position of the test's own 48 KiB lies.
pub fn place(at: u64) -> u64 {
    WINDOWS[(at / WINDOW) as usize % WINDOWS.len()] + at % WINDOW
}

/// A block that page `page` of the bitmap tells of.
pub fn block_of_page(page: u64) -> u64 {
    page * PAGE + 5 * MAPUNIT
}

/// The sectors that the test looks at; `wide`: one for each page of the bitmap, too.
pub fn watched(wide: bool) -> Vec<u64> {
    let windows = WINDOWS.iter().flat_map(|w| w / SECTOR..(w + WINDOW) / SECTOR);
    let pages = (0..if wide { PAGES } else { 0 }).map(|page| block_of_page(page) / SECTOR);
    let mut sectors: Vec<u64> = windows.chain(pages).collect();
    sectors.sort_unstable();
    sectors.dedup();
    sectors
}

/// A base of which every third extent is zeros, and known to be.
struct Base {
    size: u64,
}

impl Base {
    fn is_zero(at: u64) -> bool {
        at / EXTENT % 3 == 1
    }

    fn byte(at: u64) -> u8 {
        if Base::is_zero(at) {
            0
        } else {
            (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1
        }
    }
}

impl Layer for Base {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        buf.iter_mut().enumerate().for_each(|(i, byte)| *byte = Base::byte(offset + i as u64));
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let stop = ((at / EXTENT + 1) * EXTENT).min(end);
            let kind = if Base::is_zero(at) { ExtentKind::Zero } else { ExtentKind::Data };
            if sink(Extent { offset: at, length: stop - at, kind }) == ControlFlow::Break(()) {
                break;
            }
            at = stop;
        }
        Ok(())
    }

    fn identity(&self) -> Result<[u8; 32]> {
        Ok([7; 32])
    }
}

/// The base; `short`: the device is larger.
pub fn base(short: bool) -> Arc<dyn Layer> {
    Arc::new(Base { size: if short { SHORT } else { DEVICE } })
}

/// How a cowfile's head is stored.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub big: bool,
    pub wide: bool,
    /// It has our mark; one of the original driver has none.
    pub marked: bool,
}

impl Form {
    /// What a new cowfile of ours gets.
    pub const NEW: Form = Form { big: false, wide: true, marked: true };

    /// One of each, by number.
    pub fn number(number: u64) -> Form {
        Form { big: number & 1 != 0, wide: number & 2 != 0, marked: number & 4 != 0 }
    }
}

/// Makes an empty cowfile durable in an empty file.
pub fn create(disk: &SimDisk, form: Form, lower: &dyn Layer) {
    cowfile::create(disk, lower, DEVICE).unwrap();
    let (mut head, _): (Head, _) = read_head(disk).unwrap();
    head.encoding = FieldEncoding {
        order: if form.big { ByteOrder::Big } else { ByteOrder::Little },
        word: if form.wide { WordSize::Bits64 } else { WordSize::Bits32 },
    };
    // Without a mark nothing tells that the device is larger than its base.
    if !form.marked && lower.size() == DEVICE {
        head.mark = None;
    }
    let mut sector = [0; HEAD_SECTOR];
    head.encode_into(&mut sector);
    disk.write_all_at(&sector, 0).unwrap();
    disk.sync().unwrap();
}

/// The durable image of a new cowfile.
pub fn new_cowfile(form: Form, lower: &dyn Layer) -> Image {
    let disk = SimDisk::default();
    create(&disk, form, lower);
    durable(&disk)
}

fn durable(disk: &SimDisk) -> Image {
    let (start, events) = disk.history();
    let mut files = Files::new(vec![start]);
    events.iter().for_each(|event| files.apply(event));
    let nothing_more = vec![0; files.choices().len()];
    files.cut(&nothing_more).remove(0)
}

/// The durable image of a cowfile that holds something, and was closed.
pub fn used_cowfile(form: Form, base: &Arc<dyn Layer>) -> Image {
    let disk = Arc::new(SimDisk::default());
    create(&disk, form, &**base);
    let overlay = Overlay::open(disk.clone(), base.clone(), Access::Writable).unwrap();
    for window in WINDOWS {
        overlay.write_at(&[0x55; 3000], window + 700).unwrap();
        overlay.write_zeroes(window + 8192, 2048, false).unwrap();
    }
    overlay.close().unwrap();
    durable(&disk)
}

/// A life of a lower cowfile that ends in a kill: some of it was flushed, and some was not.
pub fn leave_unclean(disk: Arc<SimDisk>, base: &Arc<dyn Layer>) {
    let overlay = Overlay::open(disk, base.clone(), Access::Writable).unwrap();
    for (number, window) in WINDOWS.into_iter().enumerate() {
        overlay.write_at(&[0x77; 2500], window + 300).unwrap();
        if number == 1 {
            overlay.flush().unwrap();
        }
        overlay.write_at(&[0x78; 1500], window + 5000).unwrap();
        overlay.write_zeroes(window + 1024, 1024, false).unwrap();
    }
}
