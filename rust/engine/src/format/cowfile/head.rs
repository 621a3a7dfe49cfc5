//! The head of a cowfile: the original driver's fields, in the byte order and
//! word size of the machine that made the file, and our own mark behind them.
//!
//! The fields are those of AT Computing's cowloop driver, version 1: `int magic;
//! short version, flags; long mapunit, mapsize, doffset, rdoblocks,
//! rdofingerprint, cowused`, naturally aligned. All of it, the mark included,
//! lies in the first 512-byte sector, so a head is written whole or not at all.

use std::io;

pub use super::encoding::{ByteOrder, FieldEncoding, WordSize};
use super::mark::Mark;
use super::GZIP_MAGIC;
pub use super::HEAD_SECTOR;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Remedy, Result};

/// Bytes before the bitmap: one mapunit.
pub const HEAD_BYTES: u64 = 1024;

/// Bytes of a block, the unit of the bitmap.
pub const MAPUNIT: u64 = 1024;

pub(crate) const MAGIC: u32 = 0x574f_437f;
/// The largest device, in blocks: 256 TiB. No image is larger, and a head that
/// claims more would only cost memory.
const MAX_BLOCKS: u64 = 1 << 38;

/// The widest gap between bitmap and data, in bytes. The original driver rounds up to 4096;
/// some room is left for other programs.
const MAX_GAP: u64 = 1 << 20;

const FLAG_DIRTY: u16 = 0x01;
const FLAG_PACKED: u16 = 0x02;

/// The version of a file that any driver may open.
pub const VERSION_CLOSED: u16 = 1;
/// The version of a file while we have it open, and after our crash: the
/// original driver and its tools refuse it, so they cannot "repair" it.
pub(crate) const VERSION_OPEN: u16 = 2;

/// The head's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How the fields are stored.
    pub encoding: FieldEncoding,
    /// 1, or 2 while we have the file open.
    pub version: u16,
    /// Not closed properly.
    pub dirty: bool,
    /// The data blocks lie one after the other, without gaps.
    pub packed: bool,
    /// Bytes of bitmap, a multiple of 1024.
    pub mapsize: u64,
    /// Where block 0 is stored, in bytes from the start of the file.
    pub doffset: u64,
    /// Blocks of the device, 1024 bytes each.
    pub rdoblocks: u64,
    /// The reference's fingerprint of the base; its low 32 bits count.
    pub fingerprint: u32,
    /// Bits set in the bitmap; up to date only in a clean file.
    pub cowused: u64,
    /// Our own mark, when the file has one.
    pub mark: Option<Mark>,
}

impl Head {
    /// The head of a new, clean and empty cowfile for a device of `rdoblocks` blocks.
    pub fn new(rdoblocks: u64, fingerprint: u32, mark: Mark) -> Head {
        let mapsize = mapsize(rdoblocks);
        Head {
            encoding: FieldEncoding::NEW,
            version: VERSION_CLOSED,
            dirty: false,
            packed: false,
            mapsize,
            doffset: (HEAD_BYTES + mapsize).next_multiple_of(4096),
            rdoblocks,
            fingerprint,
            cowused: 0,
            mark: Some(mark),
        }
    }

    /// Reads a head and checks every field that is used in a computation.
    ///
    /// # Errors
    /// `Format` when this is no cowfile or a field makes no sense; `Unsupported` for an
    /// unknown version.
    pub fn parse(name: &str, sector: &[u8; HEAD_SECTOR]) -> Result<Head> {
        // The mapunit is always 1024: where a 64-bit machine has its zero upper
        // half, a 32-bit one has the mapsize, which is never 0.
        let order = byte_order(name, &sector[..4])?;
        let wide = FieldEncoding { order, word: WordSize::Bits64 };
        let word = match wide.longs(sector)[0] {
            MAPUNIT => WordSize::Bits64,
            _ => WordSize::Bits32,
        };
        let encoding = FieldEncoding { order, word };
        let [mapunit, mapsize, doffset, rdoblocks, fingerprint, cowused] = encoding.longs(sector);
        let flags = encoding.get(&sector[6..8]) as u16;
        let head = Head {
            encoding,
            version: encoding.get(&sector[4..6]) as u16,
            dirty: flags & FLAG_DIRTY != 0,
            packed: flags & FLAG_PACKED != 0,
            mapsize,
            doffset,
            rdoblocks,
            fingerprint: fingerprint as u32,
            cowused,
            mark: Mark::parse(sector),
        };
        head.check(name, mapunit)?;
        Ok(head)
    }

    fn check(&self, name: &str, mapunit: u64) -> Result<()> {
        let &Head { version, mapsize, doffset, rdoblocks, .. } = self;
        let bad = |message: String| Err(Error::new(ErrorKind::Format, name, message));
        if version != VERSION_CLOSED && !(version == VERSION_OPEN && self.mark.is_some()) {
            let message = format!(
                "cowfile version {version} is not known; open it with the program that made it"
            );
            return Err(Error::new(ErrorKind::Unsupported, name, message));
        }
        if mapunit != MAPUNIT {
            return bad(format!("cowfile head: mapunit is {mapunit}, not {MAPUNIT}"));
        }
        if rdoblocks == 0 || rdoblocks > MAX_BLOCKS.min(self.encoding.max_long()) {
            return bad(format!("cowfile head: rdoblocks {rdoblocks} is out of range"));
        }
        let needed = self::mapsize(rdoblocks);
        if mapsize != needed {
            return bad(format!(
                "cowfile head: mapsize is {mapsize}, but {rdoblocks} blocks need {needed}"
            ));
        }
        let bitmap_end = HEAD_BYTES + mapsize;
        if doffset < bitmap_end || doffset > bitmap_end + MAX_GAP {
            return bad(format!("cowfile head: doffset {doffset} is out of range"));
        }
        // A sector of the device must be one of the medium, which is written whole or not at all.
        if !doffset.is_multiple_of(HEAD_SECTOR as u64) {
            return bad(format!(
                "cowfile head: doffset {doffset} is not a multiple of {HEAD_SECTOR}, and the \
                 original driver writes multiples of 4096; take an undamaged copy of the file"
            ));
        }
        Ok(())
    }

    /// Writes the fields over `sector`; bytes outside of the fields keep their value.
    pub fn encode_into(&self, sector: &mut [u8; HEAD_SECTOR]) {
        let encoding = self.encoding;
        encoding.put(&mut sector[..4], u64::from(MAGIC));
        encoding.put(&mut sector[4..6], u64::from(self.version));
        let dirty = if self.dirty { FLAG_DIRTY } else { 0 };
        let packed = if self.packed { FLAG_PACKED } else { 0 };
        encoding.put(&mut sector[6..8], u64::from(dirty | packed));
        // The reference computes the fingerprint as a signed 32-bit int and widens it.
        let fingerprint = i64::from(self.fingerprint as i32) as u64;
        let longs =
            [MAPUNIT, self.mapsize, self.doffset, self.rdoblocks, fingerprint, self.cowused];
        encoding.put_longs(sector, longs);
        if let Some(mark) = &self.mark {
            mark.encode_into(sector);
        }
    }

    /// The same head for a file that is closed cleanly, with so many blocks in it.
    pub(crate) fn closed(&self, cowused: u64) -> Head {
        Head { version: VERSION_CLOSED, dirty: false, cowused, ..self.clone() }
    }

    /// The same head for a file that is in use, and is whatever `mark` says.
    pub(crate) fn in_use(&self, mark: Mark) -> Head {
        Head { version: VERSION_OPEN, dirty: true, mark: Some(mark), ..self.clone() }
    }

    /// Writes the head over the one that `sector` was read from; a sync makes it durable.
    pub(crate) fn write(
        &self,
        storage: &dyn Storage,
        sector: &mut [u8; HEAD_SECTOR],
    ) -> io::Result<()> {
        self.encode_into(sector);
        storage.write_all_at(sector, 0)
    }

    /// Size of the device in bytes.
    pub fn device_size(&self) -> u64 {
        self.rdoblocks * MAPUNIT
    }
}

/// The byte order of a head that begins with `magic`; an error says what begins so instead.
fn byte_order(name: &str, magic: &[u8]) -> Result<ByteOrder> {
    let error = |message| Error::new(ErrorKind::Format, name, message);
    if magic == MAGIC.to_le_bytes() {
        Ok(ByteOrder::Little)
    } else if magic == MAGIC.to_be_bytes() {
        Ok(ByteOrder::Big)
    } else if magic.starts_with(b"#!") {
        Err(error(
            "not a cowfile: it begins as a compressed image does; an image is named first, and \
             cowfiles behind it",
        ))
    } else if magic.starts_with(&GZIP_MAGIC) {
        Err(error("not a cowfile, but a gzip stream: a packed cowfile?")
            .with_remedy(Remedy::Unpack))
    } else {
        Err(error("not a cowfile: it does not begin with cowloop's magic number"))
    }
}

/// Whether a file that begins with these bytes claims to be a cowfile.
pub(crate) fn is_cowfile(beginning: &[u8]) -> bool {
    [MAGIC.to_le_bytes(), MAGIC.to_be_bytes()].iter().any(|magic| beginning.starts_with(magic))
}

/// Bytes of bitmap for a device of `rdoblocks` blocks.
pub fn mapsize(rdoblocks: u64) -> u64 {
    rdoblocks.div_ceil(8).next_multiple_of(1024)
}

#[cfg(test)]
mod tests {
    use super::super::mark::Merging;
    use super::*;

    fn mark() -> Mark {
        Mark {
            id: [7; 16],
            generation: 3,
            base_size: 123_456,
            base_identity: [9; 32],
            merging: Some(Merging { untouched: [5; 14], before: [0x1234; 16] }),
        }
    }

    fn new_sector() -> [u8; HEAD_SECTOR] {
        let mut sector = [0; HEAD_SECTOR];
        Head::new(8193, 5, mark()).encode_into(&mut sector);
        sector
    }

    #[test]
    fn every_encoding_comes_back() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            for word in [WordSize::Bits32, WordSize::Bits64] {
                for fingerprint in [0, 1, 0x8000_0001, u32::MAX] {
                    let mut head = Head::new(8200, fingerprint, mark());
                    head.encoding = FieldEncoding { order, word };
                    head.cowused = 77;
                    head.dirty = true;
                    head.version = VERSION_OPEN;
                    let mut sector = [0; HEAD_SECTOR];
                    head.encode_into(&mut sector);
                    assert_eq!(Head::parse("x", &sector).unwrap(), head);
                }
            }
        }
    }

    #[test]
    fn a_64_bit_fingerprint_is_sign_extended_as_the_reference_does() {
        let head = Head::new(100, 0x9000_0000, mark());
        let mut sector = [0; HEAD_SECTOR];
        head.encode_into(&mut sector);
        assert_eq!(sector[40..48], 0xffff_ffff_9000_0000_u64.to_le_bytes());
    }

    #[test]
    fn the_fields_lie_where_the_driver_has_them() {
        let sector = new_sector();
        assert_eq!(sector[..8], [0x7f, 0x43, 0x4f, 0x57, 1, 0, 0, 0]);
        assert_eq!(sector[8..16], 1024_u64.to_le_bytes());
        assert_eq!(sector[16..24], 2048_u64.to_le_bytes());
        assert_eq!(sector[24..32], 4096_u64.to_le_bytes());
        assert_eq!(sector[32..40], 8193_u64.to_le_bytes());
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        let message = |at: usize, bytes: &[u8]| {
            let mut sector = new_sector();
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            Head::parse("x.cow", &sector).unwrap_err().to_string()
        };
        assert!(message(0, b"nope").contains("not a cowfile"));
        assert!(message(4, &[3, 0]).contains("version 3"));
        assert!(message(8, &512_u64.to_le_bytes()).contains("mapunit"));
        assert!(message(16, &1024_u64.to_le_bytes()).contains("mapsize"));
        assert!(message(24, &1024_u64.to_le_bytes()).contains("doffset"));
        assert!(message(24, &u64::MAX.to_le_bytes()).contains("doffset"));
        assert!(message(24, &4100_u64.to_le_bytes()).contains("doffset 4100 is not a multiple"));
        assert!(message(32, &u64::MAX.to_le_bytes()).contains("rdoblocks"));
        assert!(message(32, &0_u64.to_le_bytes()).contains("rdoblocks"));
    }

    #[test]
    fn version_2_without_our_mark_is_unknown() {
        let mut head = Head::new(100, 0, mark());
        head.version = VERSION_OPEN;
        let mut sector = [0; HEAD_SECTOR];
        head.encode_into(&mut sector);
        assert!(Head::parse("x", &sector).is_ok());
        sector[150] ^= 1;
        assert_eq!(Head::parse("x", &sector).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
