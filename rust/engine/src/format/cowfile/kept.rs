//! A kept file: the bits of a cowfile in use, where they survive the server and not the machine.
//!
//! It is laid out as the beginning of the cowfile is, with a head of its own: the bit of a block
//! lies at the same offset in both. Little-endian:
//!
//! | at | size | what |
//! |---|---|---|
//! | 0 | 8 | `cowkept` and a line feed |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | CRC-32 of bytes 0-127, this field taken as zero |
//! | 16 | 16 | the machine's boot |
//! | 32 | 16 | device and inode number of the cowfile |
//! | 48 | 16 | `rdoblocks` and `doffset` of the cowfile |
//! | 64 | 32 | identities, one of which the cowfile's mark has: before and after it is written |
//! | 96 | 1 | 1: the bits count; 0: nothing does |
//! | 1024 | `mapsize` | bits, as in the cowfile |

use std::io;

use super::bitmap::Bitmap;
use super::head::{Head, HEAD_BYTES, MAPUNIT, VERSION_OPEN};
use super::HEAD_SECTOR;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"cowkept\n";
const VERSION: u32 = 1;
/// Bytes of the head that hold fields.
const FIELDS: usize = 128;

/// The head of a kept file: what its bits belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptHead {
    /// The machine's boot: after another one, what was written since the last sync may be gone.
    pub(crate) boot: [u8; 16],
    /// Device and inode number of the cowfile.
    pub(crate) file: (u64, u64),
    /// Where its blocks lie, and how many there are.
    pub(crate) doffset: u64,
    pub(crate) blocks: u64,
    /// The identity in its mark, before and after the head with the second one is written.
    pub(crate) marks: [[u8; 16]; 2],
    /// The bits count.
    pub(crate) valid: bool,
}

impl KeptHead {
    /// Reads the head; `None` of an empty file.
    ///
    /// # Errors
    /// `Format` for a file that is anything else.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Option<KeptHead>> {
        let name = storage.name();
        let mut sector = [0; HEAD_SECTOR];
        let n = storage
            .read_at(&mut sector, 0)
            .map_err(|error| Error::io(name, "cannot read the kept file", error))?;
        if n == 0 {
            return Ok(None);
        }
        let mut fields = [0; FIELDS];
        fields.copy_from_slice(&sector[..FIELDS]);
        let sum = u32::from_le_bytes(field(&fields, 12));
        fields[12..16].fill(0);
        let known = &fields[..8] == MAGIC && u32::from_le_bytes(field(&fields, 8)) == VERSION;
        if n < HEAD_SECTOR || !known || sum != libdeflater::crc32(&fields) {
            let message = "neither empty nor a whole kept file: give another path, or remove it";
            return Err(Error::new(ErrorKind::Format, name, message));
        }
        let number = |at| u64::from_le_bytes(field(&fields, at));
        Ok(Some(KeptHead {
            boot: field(&fields, 16),
            file: (number(32), number(40)),
            blocks: number(48),
            doffset: number(56),
            marks: [field(&fields, 64), field(&fields, 80)],
            valid: fields[96] == 1,
        }))
    }

    /// Writes the head: in place, so that it needs no space but the first time.
    pub(crate) fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        let mut sector = [0; HEAD_SECTOR];
        sector[..8].copy_from_slice(MAGIC);
        sector[8..12].copy_from_slice(&VERSION.to_le_bytes());
        sector[16..32].copy_from_slice(&self.boot);
        let numbers = [self.file.0, self.file.1, self.blocks, self.doffset];
        for (place, number) in sector[32..64].chunks_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        sector[64..80].copy_from_slice(&self.marks[0]);
        sector[80..96].copy_from_slice(&self.marks[1]);
        sector[96] = u8::from(self.valid);
        let sum = libdeflater::crc32(&sector[..FIELDS]);
        sector[12..16].copy_from_slice(&sum.to_le_bytes());
        storage.write_all_at(&sector, 0)
    }

    /// Whether the bits are those of a cowfile with this head, as its last server left it.
    pub(crate) fn is_of(&self, head: &Head) -> bool {
        let mark = head.mark.as_ref().map(|mark| mark.id);
        self.valid
            && head.version == VERSION_OPEN
            && (self.blocks, self.doffset) == (head.rdoblocks, head.doffset)
            && mark.is_some_and(|mark| self.marks.contains(&mark))
    }
}

/// Reads the bits, which must be such as the cowfile with this head, `length` bytes long, may have.
///
/// # Errors
/// `Damaged` when they are not.
pub(crate) fn read_bits(storage: &dyn Storage, head: &Head, length: u64) -> Result<Bitmap> {
    let name = storage.name();
    let damaged = |what: String| {
        let message = format!("{what}; remove it to go on with what was flushed to the cowfile");
        Error::new(ErrorKind::Damaged, name, message)
    };
    let bits = Bitmap::load(storage, head.mapsize).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(format!("cut: {error}")),
        _ => Error::io(name, "cannot read the kept file", error),
    })?;
    match bits.last() {
        Some(last) if last >= head.rdoblocks => {
            let blocks = head.rdoblocks;
            Err(damaged(format!("block {last} is set, but the device has {blocks} blocks")))
        }
        Some(last) if length < head.doffset + (last + 1) * MAPUNIT => {
            Err(damaged(format!("block {last} is set, but the cowfile has {length} bytes")))
        }
        _ => Ok(bits),
    }
}

/// Makes a kept file of whatever was in it: nothing counts in it, and every bit is 0.
pub(crate) fn make_anew(storage: &dyn Storage, mapsize: u64) -> io::Result<()> {
    let nothing = KeptHead {
        boot: [0; 16],
        file: (0, 0),
        doffset: 0,
        blocks: 0,
        marks: [[0; 16]; 2],
        valid: false,
    };
    nothing.write(storage)?;
    let end = storage.len()?.max(HEAD_BYTES + mapsize);
    match storage.punch_hole(HEAD_BYTES, end - HEAD_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => write_zeros(storage, end)?,
        other => other?,
    }
    // As long as all of the bits: a shorter one was cut.
    storage.write_all_at(&[0], end - 1)
}

fn write_zeros(storage: &dyn Storage, end: u64) -> io::Result<()> {
    let zeros = [0; 4096];
    let mut at = HEAD_BYTES;
    while let Some(data) = storage.next_data(at)?.filter(|data| *data < end) {
        let n = (end - data).min(zeros.len() as u64);
        storage.write_all_at(&zeros[..n as usize], data)?;
        at = data + n;
    }
    Ok(())
}

fn field<const N: usize>(bytes: &[u8; FIELDS], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("every field lies within the head")
}
