//! An overlay: a cowfile over a layer that it never writes to.

mod change;
mod cowfile;
mod flush;
mod group_commit;
mod health;
mod kept;
mod open;
mod quota;
mod range_lock;
mod snapshot;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::format::cowfile::head::MAPUNIT;
use crate::format::cowfile::Access;
use crate::layer::{Extent, ExtentKind, ExtentSink};
use crate::storage::Storage;
use crate::{Layer, Result};

use change::Change;
pub use cowfile::{Cowfile, CowfileStatus};
pub use kept::{Keeping, KeptStatus};
pub use snapshot::{copy, SnapshotSummary};

/// Bytes of a discard that are handled under one lock.
const DISCARD_STEP: u64 = 128 << 20;

/// How a layer is read.
type Read = fn(&dyn Layer, &mut [u8], u64) -> Result<()>;

/// A base as a block device shows it through a cowfile.
///
/// Size: the cowfile's blocks, 1024 bytes each. Reads take no lock. A read that runs at the
/// same time as a write of the same bytes may see either.
pub struct Overlay {
    lower: Arc<dyn Layer>,
    cow: Cowfile,
}

impl Overlay {
    /// Puts the cowfile in `storage` over `lower`.
    ///
    /// A device larger than its base (the cowfile says so) continues in zeros.
    ///
    /// # Errors
    /// Those of [`Cowfile::open`].
    pub fn open(
        storage: Arc<dyn Storage>,
        lower: Arc<dyn Layer>,
        access: Access,
    ) -> Result<Overlay> {
        Overlay::open_kept(storage, lower, access, None)
    }

    /// The same, whose bits are kept for a server that takes over, unless it is read-only.
    ///
    /// # Errors
    /// Those of [`Cowfile::open`].
    pub fn open_kept(
        storage: Arc<dyn Storage>,
        lower: Arc<dyn Layer>,
        access: Access,
        keeping: Option<Keeping>,
    ) -> Result<Overlay> {
        let cow = Cowfile::open(storage, &*lower, access, keeping)?;
        Ok(Overlay { lower, cow })
    }

    /// The upper of the two layers, without what lies below.
    pub fn cowfile(&self) -> &Cowfile {
        &self.cow
    }

    /// Writes `buf` at `offset`.
    ///
    /// On an error each of the bytes is as before or as written.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.cow.noted(self.write(buf, offset))
    }

    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset + buf.len() as u64;
        let (first, last) = (offset / MAPUNIT, (end - 1) / MAPUNIT);
        let change = self.cow.change(first, last + 1)?;
        // A block that is written in part and does not live in the cowfile yet
        // needs the rest of its bytes from below.
        let mut at = offset;
        if !offset.is_multiple_of(MAPUNIT) && !self.cow.bitmap().get(first) {
            let n = (MAPUNIT - offset % MAPUNIT).min(end - offset);
            self.fill_block(&change, &buf[..n as usize], offset)?;
            at += n;
        }
        let mut stop = end;
        if at < end && !end.is_multiple_of(MAPUNIT) && !self.cow.bitmap().get(last) {
            stop = (last * MAPUNIT).max(at);
            self.fill_block(&change, &buf[(stop - offset) as usize..], stop)?;
        }
        if at < stop {
            change.write(&buf[(at - offset) as usize..(stop - offset) as usize], at)?;
            let block = at / MAPUNIT;
            change.set(block, stop.div_ceil(MAPUNIT) - block)?;
        }
        Ok(())
    }

    /// Writes bytes of one block that does not live in the cowfile yet.
    fn fill_block(&self, change: &Change<'_>, bytes: &[u8], offset: u64) -> Result<()> {
        let block = offset / MAPUNIT;
        let start = block * MAPUNIT;
        let mut whole = [0; MAPUNIT as usize];
        // This copy stays: damage below must not become valid data here.
        self.read_lower(&mut whole, start, |lower, buf, at| lower.read_checked(buf, at))?;
        whole[(offset - start) as usize..][..bytes.len()].copy_from_slice(bytes);
        change.write(&whole, start)?;
        change.set(block, 1)
    }

    /// Makes a range read as zeros: holes in the cowfile, or nothing at all
    /// where the layer below is known to be zeros.
    ///
    /// # Errors
    /// `Unsupported`, with nothing changed, when `fast` is asked for and the
    /// medium cannot punch holes.
    pub fn write_zeroes(&self, offset: u64, length: u64, fast: bool) -> Result<()> {
        self.cow.noted(self.zero(offset, length, fast))
    }

    fn zero(&self, offset: u64, length: u64, fast: bool) -> Result<()> {
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let step = (at / DISCARD_STEP + 1) * DISCARD_STEP;
            let stop = step.min(end);
            self.zero_step(at, stop, fast)?;
            at = stop;
        }
        Ok(())
    }

    fn zero_step(&self, offset: u64, end: u64, fast: bool) -> Result<()> {
        let whole = offset.div_ceil(MAPUNIT)..end / MAPUNIT;
        if whole.start >= whole.end {
            return self.zero_part(offset, end);
        }
        self.zero_blocks(whole.start, whole.end, fast)?;
        self.zero_part(offset, whole.start * MAPUNIT)?;
        self.zero_part(whole.end * MAPUNIT, end)
    }

    /// Zeros a range that covers no whole block (and lies in two at most).
    fn zero_part(&self, offset: u64, end: u64) -> Result<()> {
        if offset >= end {
            return Ok(());
        }
        const ZEROS: [u8; 2 * MAPUNIT as usize] = [0; 2 * MAPUNIT as usize];
        self.write(&ZEROS[..(end - offset) as usize], offset)
    }

    fn zero_blocks(&self, first: u64, end: u64, fast: bool) -> Result<()> {
        let change = self.cow.change(first, end)?;
        for (start, length) in self.not_yet_zero(first, end)? {
            change.zero(start, length, fast)?;
            change.set(start, length)?;
        }
        Ok(())
    }

    /// The runs of blocks that live in the cowfile, or that hold data below.
    fn not_yet_zero(&self, first: u64, end: u64) -> Result<Vec<(u64, u64)>> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut add = |start: u64, end: u64| match runs.last_mut() {
            Some((last, length)) if *last + *length >= start => *length = end - *last,
            _ => runs.push((start, end - start)),
        };
        let mut block = first;
        while block < end {
            let (set, length) = self.cow.bitmap().run(block, end - block);
            if set {
                add(block, block + length);
            } else {
                self.lower_extents(block * MAPUNIT, length * MAPUNIT, &mut |extent| {
                    if extent.kind == ExtentKind::Data {
                        add(extent.offset / MAPUNIT, extent.end().div_ceil(MAPUNIT));
                    }
                    ControlFlow::Continue(())
                })?;
            }
            block += length;
        }
        Ok(runs)
    }

    /// Reads the blocks of the cowfile from there, and the rest with `read` below.
    fn read(&self, buf: &mut [u8], offset: u64, read: Read) -> Result<()> {
        let end = offset + buf.len() as u64;
        let mut rest = buf;
        let mut at = offset;
        while at < end {
            let block = at / MAPUNIT;
            let (set, length) = self.cow.bitmap().run(block, end.div_ceil(MAPUNIT) - block);
            let n = ((block + length) * MAPUNIT).min(end) - at;
            let (piece, later) = rest.split_at_mut(n as usize);
            if set {
                self.cow.read_at(piece, at)?
            } else {
                self.read_lower(piece, at, read)?
            }
            rest = later;
            at += n;
        }
        Ok(())
    }

    /// Reads below, where the device may end later than the layer.
    fn read_lower(&self, buf: &mut [u8], offset: u64, read: Read) -> Result<()> {
        let inside = self.lower.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let (inside, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        if inside.is_empty() {
            Ok(())
        } else {
            self.cow.count_base_read(inside.len());
            read(&*self.lower, inside, offset)
        }
    }

    fn lower_extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let end = offset + length;
        let inside = self.lower.size().clamp(offset, end);
        let mut stopped = false;
        if offset < inside {
            self.lower.extents(offset, inside - offset, &mut |extent| {
                let flow = sink(extent);
                stopped = flow.is_break();
                flow
            })?;
        }
        if inside < end && !stopped {
            let _ = sink(Extent { offset: inside, length: end - inside, kind: ExtentKind::Zero });
        }
        Ok(())
    }

    /// See [`Cowfile::flush`].
    pub fn flush(&self) -> Result<()> {
        self.cow.noted(self.cow.flush())
    }

    /// See [`Cowfile::close`].
    pub fn close(&self) -> Result<()> {
        self.cow.close()
    }
}

impl Layer for Overlay {
    fn size(&self) -> u64 {
        self.cow.blocks() * MAPUNIT
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read(buf, offset, |lower, buf, at| lower.read_at(buf, at))
    }

    fn read_checked(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read(buf, offset, |lower, buf, at| lower.read_checked(buf, at))
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let end = offset + length;
        let mut at = offset;
        let mut stopped = false;
        while at < end && !stopped {
            let block = at / MAPUNIT;
            let (set, length) = self.cow.bitmap().run(block, end.div_ceil(MAPUNIT) - block);
            let n = ((block + length) * MAPUNIT).min(end) - at;
            let mut send = |extent| {
                let flow = sink(extent);
                stopped = flow.is_break();
                flow
            };
            if set {
                let mut start = at;
                self.cow.holes(at, n, &mut |length, hole| {
                    let kind = if hole { ExtentKind::Zero } else { ExtentKind::Data };
                    let flow = send(Extent { offset: start, length, kind });
                    start += length;
                    flow.is_continue()
                })?;
            } else {
                self.lower_extents(at, n, &mut send)?;
            }
            at += n;
        }
        Ok(())
    }

    fn read_unit(&self) -> u64 {
        self.lower.read_unit().max(MAPUNIT)
    }

    fn start(&self) {
        self.lower.start();
    }

    fn prefetch(&self, offset: u64, length: u64) {
        let end = (offset + length).min(self.lower.size());
        let mut at = offset;
        while at < end {
            let block = at / MAPUNIT;
            let (set, length) = self.cow.bitmap().run(block, end.div_ceil(MAPUNIT) - block);
            let n = ((block + length) * MAPUNIT).min(end) - at;
            if !set {
                self.lower.prefetch(at, n);
            }
            at += n;
        }
    }

    fn identity(&self) -> Result<[u8; 32]> {
        self.cow.identity(self.lower.identity()?)
    }
}
