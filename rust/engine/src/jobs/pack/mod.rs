//! Packing a cowfile that is not in use.

mod unpack;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::format::cowfile::head::{Head, MAPUNIT};
use crate::format::cowfile::packed::Writer;
use crate::format::cowfile::{Access, AtRest};
use crate::jobs::{Output, Replace};
use crate::progress::{check, Progress};
use crate::storage::FileIdentity;
use crate::{Error, Result};

pub use unpack::{packed_head, unpack};

/// The outcome of packing or unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PackSummary {
    /// Blocks of 1 KiB that live in the cowfile.
    pub blocks_used: u64,
    /// Bytes of the result; for gzip, of what was compressed.
    pub bytes: u64,
}

/// Packs the cowfile `source` into `target`, which replaces what `replace` allows.
///
/// # Errors
/// `Busy`, `Dirty` or `Damaged` for a cowfile that is in use or damaged; `Unsupported` for
/// one that is packed already.
pub fn pack(
    source: &Path,
    target: &Path,
    gzip: bool,
    replace: Replace,
    progress: &dyn Progress,
) -> Result<PackSummary> {
    let cow = AtRest::open(source, Access::ReadOnly)?;
    cow.refuse_merging()?;
    let AtRest { storage, head, mut sector, bitmap } = cow;
    let failed = |error| Error::io(storage.name(), "cannot read the cowfile", error);
    let head = Head { packed: true, ..head.closed(bitmap.count()) };
    head.encode_into(&mut sector);

    let identity = FileIdentity::of_path(source).map_err(failed)?;
    let output = Output::open_private(target, &[identity], replace)?;
    let mut output = Appender { output, progress, error: None };
    progress.total(bitmap.count() * MAPUNIT);
    let (storage, bitmap) = (&*storage, &bitmap);
    let writer = Writer { storage, head: &head, sector: &sector, bitmap, progress };
    let written = if gzip { writer.compact(&mut output) } else { writer.padded(&mut output) };
    if let Some(error) = output.error {
        return Err(error);
    }
    let bytes = written.map_err(failed)?;
    let shown = output.output.name().to_string();
    output.output.finish(&|| check(progress, &shown))?;
    Ok(PackSummary { blocks_used: bitmap.count(), bytes })
}

/// An output that is appended to; keeps the error that says which file it was.
struct Appender<'a> {
    output: Output,
    progress: &'a dyn Progress,
    error: Option<Error>,
}

impl Write for Appender<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let name = self.output.name().to_string();
        let check = || check(self.progress, &name);
        match check().and_then(|()| self.output.append(buf, &check)) {
            Ok(()) => Ok(buf.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("the output failed"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
