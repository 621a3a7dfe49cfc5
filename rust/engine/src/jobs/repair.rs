//! Repair of cowfiles that the original driver did not close.
//!
//! That driver writes data at once and its bitmap only at a sync or close, so after a crash
//! the file has blocks that the bitmap does not know. Written blocks are found where the
//! file has data and the data is not all zeros. One case cannot be found: a block that was
//! *written with zeros* looks like one that was never written, and shows the base again.
//!
//! On a full disk that driver sets bits for blocks that it could not write, and closes the
//! file as clean. Blocks that lie wholly behind the file's end are given up: they show the
//! base.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::format::cowfile::bitmap::{Bitmap, PAGE_BYTES};
use crate::format::cowfile::head::{Head, MAPUNIT, VERSION_CLOSED, VERSION_OPEN};
use crate::format::cowfile::mark::Mark;
use crate::format::cowfile::{missing_blocks, write_around, Access, AtRest};
use crate::progress::{check, NoProgress, Progress};
use crate::storage::directory::sync_name;
use crate::storage::{FileStorage, Storage};
use crate::{Error, ErrorKind, Result};

/// Bytes of data that are examined at once.
const SCAN: u64 = 1 << 20;

/// How a cowfile is repaired.
#[derive(Debug, Clone, Copy, Default)]
pub struct RepairOptions {
    /// Find out what would be done, and change nothing.
    pub dry_run: bool,
    /// Examine a file that is marked as clean, too.
    pub force: bool,
}

/// The findings and changes of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Whether the file needed it (or `force` asked for it).
    pub needed: bool,
    /// Whether the file was changed.
    pub changed: bool,
    /// Blocks that the bitmap knew.
    pub known: u64,
    /// Blocks with data that the bitmap did not know: they live in the cowfile now.
    pub found: u64,
    /// Blocks that the bitmap knew and that lie behind the file's end: the base shows
    /// again.
    pub missing: u64,
    /// The head's count of blocks before.
    pub cowused_before: u64,
    /// The path of a copy of the head and bitmap as they were.
    #[serde(serialize_with = "shown")]
    pub backup: Option<PathBuf>,
}

/// Serde refuses paths that are not UTF-8; a reader is shown them as far as possible.
fn shown<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.display().to_string()).serialize(serializer)
}

impl RepairReport {
    /// One line on the changes to the cowfile at `path`.
    pub fn summary(&self, path: &Path) -> String {
        let copy = match &self.backup {
            Some(backup) => format!("; head and bitmap as they were: {}", backup.display()),
            None => String::new(),
        };
        let missing = match self.missing {
            0 => String::new(),
            n => format!("; {n} blocks that the file ends before were given up"),
        };
        format!(
            "{}: found {} blocks beside the {} that its bitmap knew{missing}{copy}; blocks that \
             were written with zeros cannot be told from untouched ones",
            path.display(),
            self.found,
            self.known
        )
    }
}

/// Repairs the cowfile at `path`. No bit is cleared but those of blocks behind the file's end.
///
/// A file that we left behind in a crash needs no repair and is not touched.
///
/// # Errors
/// `Damaged` when a file that we left is too short, which no crash makes it; `Busy` when it is in use; `Unsupported` when it is packed; `Format` when it
/// is no cowfile; `Cancelled`, and nothing was changed; the system's errors.
/// Head and bitmap change only after a copy of them is durable, the head last.
pub fn repair(
    path: &Path,
    options: RepairOptions,
    progress: &dyn Progress,
) -> Result<RepairReport> {
    let access = if options.dry_run { Access::ReadOnly } else { Access::Writable };
    let AtRest { storage, head, sector, mut bitmap } = AtRest::open_unchecked(path, access)?;
    let name = storage.name();
    if head.packed {
        let message = "this cowfile is packed, and only clean ones are; there is nothing to repair";
        return Err(Error::new(ErrorKind::Unsupported, name, message));
    }
    let failed = |error| Error::io(name, "cannot read the cowfile", error);
    let known = bitmap.count();
    let length = storage.len().map_err(failed)?;
    let last = bitmap.last();
    bitmap.clear_from(length.saturating_sub(head.doffset).div_ceil(MAPUNIT));
    let missing = known - bitmap.count();
    if let (VERSION_OPEN, Some(last), 1..) = (head.version, last, missing) {
        return Err(missing_blocks(name, &head, length, last));
    }
    let scan = head.dirty || options.force;
    let mut report = RepairReport {
        needed: head.version == VERSION_CLOSED && (scan || missing > 0),
        changed: false,
        known,
        found: 0,
        missing,
        cowused_before: head.cowused,
        backup: None,
    };
    if !report.needed {
        return Ok(report);
    }
    if scan {
        find_blocks(&*storage, &head, &bitmap, progress)?;
        report.found = bitmap.count() - (known - missing);
    }
    if !options.dry_run {
        report.backup = Some(back_up(path, &*storage, head.doffset)?);
        // A cowfile above must not take the device for the one that it was made for.
        let mut head = head;
        if head.dirty || report.found > 0 || missing > 0 {
            head.mark = head.mark.map(Mark::changed).transpose()?;
        }
        let mut sector = sector;
        let head = Head { dirty: false, cowused: bitmap.count(), ..head };
        write_around(&*storage, &bitmap, &head, &mut sector)
            .map_err(|error| Error::io(name, "cannot write the repaired head and bitmap", error))?;
        report.changed = true;
    }
    Ok(report)
}

/// Repairs the cowfile at `path` if it needs that, and warns of the changes: for a device
/// that is about to use it.
///
/// # Errors
/// Those of [`repair`].
pub fn repair_before_use(path: &Path) -> Result<()> {
    let report = repair(path, RepairOptions::default(), &NoProgress)?;
    if report.changed {
        log::warn!("{}", report.summary(path));
    }
    Ok(())
}

/// Sets the bit of every block that has data other than zeros in the file.
fn find_blocks(
    storage: &dyn Storage,
    head: &Head,
    bitmap: &Bitmap,
    progress: &dyn Progress,
) -> Result<()> {
    let name = storage.name();
    let failed = |error| Error::io(name, "cannot read the cowfile", error);
    let end = storage.len().map_err(failed)?.min(head.doffset + head.device_size());
    let mut buf = vec![0; SCAN as usize];
    let mut at = head.doffset;
    // Holes count as looked at.
    let mut told = at;
    progress.total(end.saturating_sub(at));
    while let Some(data) = storage.next_data(at).map_err(failed)?.filter(|data| *data < end) {
        let hole = storage.next_hole(data).map_err(failed)?.clamp(data + 1, end);
        // From the block in which the data begins, which was seen in part at most.
        at = (data - head.doffset) / MAPUNIT * MAPUNIT + head.doffset;
        while at < hole {
            check(progress, name)?;
            let n = SCAN.min(end - at) as usize;
            let read = storage.read_at(&mut buf[..n], at).map_err(failed)?;
            buf[read..n].fill(0);
            let first = (at - head.doffset) / MAPUNIT;
            for (block, bytes) in (first..).zip(buf[..n].chunks(MAPUNIT as usize)) {
                if bytes.iter().any(|byte| *byte != 0) {
                    bitmap.set(block, 1);
                }
            }
            at += (n as u64).next_multiple_of(MAPUNIT);
            progress.advance(at.min(end).saturating_sub(told));
            told = told.max(at.min(end));
        }
    }
    progress.advance(end.saturating_sub(told));
    check(progress, name)
}

/// Copies the head and bitmap beside the file, under a name not taken yet.
fn back_up(path: &Path, storage: &dyn Storage, doffset: u64) -> Result<PathBuf> {
    for number in 1..1000 {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".before-repair-{number}"));
        let backup = PathBuf::from(name);
        let failed = |error| {
            Error::io(backup.display().to_string(), "cannot keep a copy of the head", error)
        };
        let copy = match FileStorage::create_new(&backup) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other.map_err(failed)?,
        };
        let whole = copy_beginning(storage, &copy, doffset)
            .and_then(|()| copy.sync())
            .and_then(|()| sync_name(&backup));
        if let Err(error) = whole {
            let _ = fs::remove_file(&backup);
            return Err(failed(error));
        }
        return Ok(backup);
    }
    let message = "has a thousand copies of its head already; remove some";
    Err(Error::new(ErrorKind::InvalidInput, path.display().to_string(), message))
}

fn copy_beginning(from: &dyn Storage, to: &FileStorage, length: u64) -> io::Result<()> {
    let mut page = [0; PAGE_BYTES as usize];
    let end = length.min(from.len()?);
    let mut at = 0;
    while let Some(data) = from.next_data(at)?.filter(|data| *data < end) {
        at = data - data % PAGE_BYTES;
        let n = PAGE_BYTES.min(end - at) as usize;
        from.read_exact_at(&mut page[..n], at)?;
        to.write_all_at(&page[..n], at)?;
        at += PAGE_BYTES;
    }
    Ok(())
}
