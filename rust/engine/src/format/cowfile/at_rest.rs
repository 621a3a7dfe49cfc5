//! A cowfile at rest: opened, checked before anything in it is believed, and written. Every
//! command that takes a cowfile begins here; a repair alone leaves out the checks.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::bitmap::Bitmap;
use super::head::{Head, HEAD_BYTES, HEAD_SECTOR, MAPUNIT, VERSION_CLOSED, VERSION_OPEN};
use super::settle::{read_settled_head, settle};
use super::{files, fingerprint, Access};
use crate::storage::{Rounded, Storage};
use crate::{Error, ErrorKind, Layer, Remedy, Result};

/// A cowfile whose head, bitmap and length agree, with nothing in it changed yet.
#[derive(Debug)]
pub(crate) struct AtRest {
    pub storage: Arc<dyn Storage>,
    pub head: Head,
    /// The sector that the head was read from: bytes outside of the fields are kept.
    pub sector: [u8; HEAD_SECTOR],
    pub bitmap: Bitmap,
}

impl AtRest {
    /// Opens the cowfile at `path` under its lock and checks it.
    ///
    /// # Errors
    /// `Busy` when it is in use, and those of [`check`](Self::check).
    pub(crate) fn open(path: &Path, access: Access) -> Result<AtRest> {
        AtRest::check(files::open(path, access)?, access)
    }

    /// Checks the cowfile in `storage`.
    ///
    /// # Errors
    /// `Format` and `Unsupported` for a file that is no cowfile or is packed; `Dirty` when
    /// the original driver did not close it; `Damaged` when head, bitmap and length
    /// contradict each other; `Io` when it was left in use and its last writes did not
    /// reach its medium.
    pub(crate) fn check(storage: Arc<dyn Storage>, access: Access) -> Result<AtRest> {
        let (head, sector) = read_settled_head(&*storage, access)?;
        let name = storage.name();
        if head.packed {
            let error = Error::new(ErrorKind::Unsupported, name, "this cowfile is packed");
            return Err(error.with_remedy(Remedy::Unpack));
        }
        refuse_dirty(name, &head)?;
        let mut cow = AtRest::with_head(storage, head, sector)?;
        cow.storage = check_bitmap(cow.storage, &cow.head, &cow.bitmap)?;
        Ok(cow)
    }

    /// Reads the cowfile at `path` under its lock, of which head and bitmap may contradict each
    /// other: for a repair.
    ///
    /// # Errors
    /// `Busy` when it is in use; `Format` for what is no cowfile; those of [`settle`].
    pub(crate) fn open_unchecked(path: &Path, access: Access) -> Result<AtRest> {
        let storage = files::open(path, access)?;
        settle(&*storage, access)?;
        let (head, sector) = read_head(&*storage)?;
        AtRest::with_head(storage, head, sector)
    }

    fn with_head(
        storage: Arc<dyn Storage>,
        head: Head,
        sector: [u8; HEAD_SECTOR],
    ) -> Result<AtRest> {
        let bitmap = Bitmap::load(&*storage, head.mapsize).map_err(|error| {
            Error::io(storage.name(), "cannot read the cowfile's bitmap", error)
        })?;
        Ok(AtRest { storage, head, sector, bitmap })
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> &str {
        self.storage.name()
    }

    /// Reads bytes of the device that live in the cowfile.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.storage
            .read_exact_at(buf, self.head.doffset + offset)
            .map_err(|error| Error::io(self.name(), "cannot read the cowfile", error))
    }

    /// Refuses a cowfile whose merge into its base has begun and not ended: the base is another
    /// one by now, and more writes would leave nothing to complete the merge with.
    pub(crate) fn refuse_merging(&self) -> Result<()> {
        if self.head.mark.as_ref().is_some_and(|mark| mark.merging.is_some()) {
            let message = "a merge of this cowfile was interrupted";
            let error = Error::new(ErrorKind::Dirty, self.name(), message);
            return Err(error.with_remedy(Remedy::CompleteMerge));
        }
        Ok(())
    }

    /// Checks that the cowfile was made for `base`, and returns the identity of `base`.
    ///
    /// Our mark in the head names the base by its strong identity, which includes that of a
    /// lower cowfile. A file without the mark is checked by the original driver's rule,
    /// size and fingerprint.
    ///
    /// # Errors
    /// `Mismatch`.
    pub(crate) fn belongs_to(&self, base: &dyn Layer) -> Result<[u8; 32]> {
        let identity = base.identity()?;
        let size = base.size();
        let Some(mark) = &self.head.mark else {
            self.has_fingerprint_of(base)?;
            return Ok(identity);
        };
        if mark.base_size != size {
            return Err(self.mismatch(&format!("of {} bytes, not {size}", mark.base_size)));
        }
        if mark.base_identity != identity {
            return Err(self.other_image(base));
        }
        Ok(identity)
    }

    /// The error for a base that has the right size, and is not the image in the mark.
    fn other_image(&self, base: &dyn Layer) -> Error {
        match fingerprint(base, self.head.rdoblocks) {
            Ok(found) if found == self.head.fingerprint => {
                let message = "this cowfile belongs to another base (of the same size and \
                               fingerprint, but its identity differs: another image, or a lower \
                               cowfile is missing)";
                Error::new(ErrorKind::Mismatch, self.name(), message).with_remedy(Remedy::Rebase)
            }
            Ok(_) => self
                .mismatch("its identity differs: another content, or a lower cowfile is missing"),
            Err(error) => error,
        }
    }

    fn has_fingerprint_of(&self, base: &dyn Layer) -> Result<()> {
        let Head { rdoblocks, fingerprint: stored, .. } = self.head;
        let blocks = base.size() / MAPUNIT;
        if rdoblocks != blocks {
            return Err(self.mismatch(&format!("of {rdoblocks} blocks, not {blocks}")));
        }
        let found = fingerprint(base, blocks)?;
        if stored != found {
            let message = format!("with fingerprint {stored:#010x}, not {found:#010x}");
            return Err(self.mismatch(&message));
        }
        Ok(())
    }

    /// The error for a base that is not this cowfile's.
    pub(crate) fn mismatch(&self, how: &str) -> Error {
        let message = format!("this cowfile belongs to another base ({how}); use that one");
        Error::new(ErrorKind::Mismatch, self.name(), message)
    }

    /// Writes a new head, durably. The rest of the file stays as it was.
    pub(crate) fn write_head(&mut self, head: Head) -> Result<()> {
        head.write(&*self.storage, &mut self.sector)
            .and_then(|()| self.storage.sync())
            .map_err(|error| Error::io(self.name(), "cannot write the cowfile's head", error))?;
        self.head = head;
        Ok(())
    }
}

/// Makes a cowfile of a file that has the blocks in its data area: the bitmap first, and then the
/// head that declares it right.
pub(crate) fn write_around(
    storage: &dyn Storage,
    bitmap: &Bitmap,
    head: &Head,
    sector: &mut [u8; HEAD_SECTOR],
) -> io::Result<()> {
    // A block that lives in the file lies within its length, and what precedes the data always.
    let blocks = bitmap.last().map_or(0, |last| last.min(head.rdoblocks - 1) + 1);
    let end = head.doffset + blocks * MAPUNIT;
    if storage.len()? < end {
        storage.write_all_at(&[0], end - 1)?;
    }
    storage.sync()?;
    // All of them: bits written by a repair that failed later may be in the system's cache only.
    for page in bitmap.pages() {
        storage.write_all_at(&page.bytes, page.offset)?;
    }
    storage.sync()?;
    head.write(storage, sector)?;
    storage.sync()
}

/// Reads and checks a cowfile's head.
pub fn read_head(storage: &dyn Storage) -> Result<(Head, [u8; HEAD_SECTOR])> {
    let name = storage.name();
    let mut sector = [0; HEAD_SECTOR];
    let n = storage
        .read_at(&mut sector, 0)
        .map_err(|error| Error::io(name, "cannot read the cowfile's head", error))?;
    let length = storage.len().map_err(|error| Error::io(name, "cannot read the length", error))?;
    if n < HEAD_SECTOR || length < HEAD_BYTES {
        let message = match length {
            0 => "empty, and no cowfile yet: attach, mount, serve and open() make one of it".into(),
            _ => format!("not a cowfile: it has only {length} bytes"),
        };
        return Err(Error::new(ErrorKind::Format, name, message));
    }
    Ok((Head::parse(name, &sector)?, sector))
}

/// Refuses a cowfile that the original driver did not close: its bitmap is stale.
pub(crate) fn refuse_dirty(name: &str, head: &Head) -> Result<()> {
    if head.version == VERSION_CLOSED && head.dirty {
        let message = "the original cowloop driver did not close this cowfile, so its bitmap is \
                       not up to date";
        return Err(Error::new(ErrorKind::Dirty, name, message).with_remedy(Remedy::Repair));
    }
    Ok(())
}

/// Refuses a cowfile whose head, bitmap and length contradict each other. Returns it with
/// its last block filled up: the original driver may end a file within that block, and
/// reads zeros from there on.
fn check_bitmap(
    storage: Arc<dyn Storage>,
    head: &Head,
    bitmap: &Bitmap,
) -> Result<Arc<dyn Storage>> {
    let name = storage.name();
    check_bits(name, head, bitmap)?;
    let Some(last) = bitmap.last() else { return Ok(storage) };
    let needed = head.doffset + (last + 1) * MAPUNIT;
    let length = storage.len().map_err(|error| Error::io(name, "cannot read the length", error))?;
    if length >= needed {
        return Ok(storage);
    }
    if length > needed - MAPUNIT {
        // The driver writes whole sectors.
        if !length.is_multiple_of(512) {
            log::warn!("{name}: ends within a sector: a cut copy? What is missing reads as zeros");
        }
        return Ok(Arc::new(Rounded::new(storage, length, needed)));
    }
    Err(missing_blocks(name, head, length, last))
}

/// A file that ends before the blocks that it should have.
pub(crate) fn missing_blocks(name: &str, head: &Head, length: u64, last: u64) -> Error {
    let needed = head.doffset + (last + 1) * MAPUNIT;
    let message = format!(
        "the cowfile is {length} bytes long, but block {last} ends at {needed}: a cut copy? Take a \
         whole one"
    );
    let error = Error::new(ErrorKind::Damaged, name, message).at(length);
    // No crash makes a file of ours too short.
    if head.version == VERSION_OPEN {
        error
    } else {
        error.with_remedy(Remedy::RepairGivesUp)
    }
}

/// Refuses a bitmap that does not fit the head.
pub(crate) fn check_bits(name: &str, head: &Head, bitmap: &Bitmap) -> Result<()> {
    if let Some(last) = bitmap.last().filter(|last| *last >= head.rdoblocks) {
        let message = format!(
            "cowfile bitmap: block {last} is set, but the device has {} blocks",
            head.rdoblocks
        );
        return Err(Error::new(ErrorKind::Damaged, name, message));
    }
    let bits = bitmap.count();
    if head.version == VERSION_CLOSED && head.cowused != bits {
        let message =
            format!("cowfile head: cowused is {}, but its bitmap has {bits} blocks", head.cowused);
        let error = Error::new(ErrorKind::Damaged, name, message);
        return Err(error.with_remedy(Remedy::RepairForced));
    }
    Ok(())
}
