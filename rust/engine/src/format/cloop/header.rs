//! The first (or, in a footer image, last) 136 bytes: the kind of image, its block size and
//! its number of blocks.
//!
//! Source: the cloop kernel driver and `create_compressed_fs`, and FreeBSD's `mkuzip` and
//! GEOM uzip. All integers are big-endian.

use std::fmt;

use crate::codec::Codec;
use crate::storage::Storage;
use crate::{Error, ErrorKind, Result};

/// Bytes of a header: a preamble of 128, block size and number of blocks.
pub(crate) const HEADER_BYTES: u64 = 136;

/// The largest block that is read, in bytes.
pub(crate) const MAX_BLOCK_SIZE: u32 = 64 << 20;

pub(super) const BLOCK_SIZE_AT: usize = 128;
pub(super) const NUM_BLOCKS_AT: usize = 132;
const SIGNATURE_AT: usize = 0x0b;

/// Which of the family an image is, by the four bytes at 0x0b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `V2.0`: cloop, and what `mkuzip` writes with zlib.
    V2,
    /// `V4.0`: cloop with a codec for each block.
    V4,
    /// `v3.0`: uzip, zlib, de-duplicated.
    ZlibShared,
    /// `L3.0`: uzip, LZMA.
    Lzma,
    /// `l3.0`: uzip, LZMA, de-duplicated.
    LzmaShared,
    /// `Z4.0`: uzip, zstd.
    Zstd,
    /// `z4.0`: uzip, zstd, de-duplicated.
    ZstdShared,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::V2,
        Kind::V4,
        Kind::ZlibShared,
        Kind::Lzma,
        Kind::LzmaShared,
        Kind::Zstd,
        Kind::ZstdShared,
    ];

    /// The signature that an image of this kind begins with.
    pub fn version(self) -> &'static str {
        match self {
            Kind::V2 => "V2.0",
            Kind::V4 => "V4.0",
            Kind::ZlibShared => "v3.0",
            Kind::Lzma => "L3.0",
            Kind::LzmaShared => "l3.0",
            Kind::Zstd => "Z4.0",
            Kind::ZstdShared => "z4.0",
        }
    }

    /// Whether blocks may share their bytes with earlier ones.
    pub(crate) fn shares_blocks(self) -> bool {
        matches!(self, Kind::ZlibShared | Kind::LzmaShared | Kind::ZstdShared)
    }

    /// The codec of every block; `None`: each index entry names its own.
    pub fn codec(self) -> Option<Codec> {
        match self {
            Kind::V2 | Kind::ZlibShared => Some(Codec::Zlib),
            Kind::Lzma | Kind::LzmaShared => Some(Codec::Lzma),
            Kind::Zstd | Kind::ZstdShared => Some(Codec::Zstd),
            Kind::V4 => None,
        }
    }

    /// Whether the last block may decode to fewer bytes, with zeros for the rest, as
    /// `mkuzip` writes it. (`mkuzip` may have written a `V2.0` file.)
    pub(crate) fn last_may_be_short(self) -> bool {
        self != Kind::V4
    }
}

/// The place of header and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Header, index, blocks.
    Header,
    /// Blocks, index, header.
    Footer,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Header => "header",
            Layout::Footer => "footer",
        })
    }
}

/// A checked header: the index that it announces fits in the file.
#[derive(Debug, Clone)]
pub struct Header {
    /// Which of the family it is, by its signature.
    pub kind: Kind,
    /// Where it was found.
    pub layout: Layout,
    /// Bytes of a block, decoded.
    pub block_size: u32,
    /// Number of blocks.
    pub num_blocks: u32,
    /// Bytes of the file.
    pub file_size: u64,
    /// The header as it stands in the file.
    pub(crate) bytes: [u8; HEADER_BYTES as usize],
}

impl Header {
    /// Looks for a header at both ends; `None`: this is no cloop image.
    ///
    /// # Errors
    /// `Unsupported` for a version that is not read, `Format` for a file that
    /// is cut short or has a field that cannot be; `Io`.
    pub fn find(storage: &dyn Storage) -> Result<Option<Header>> {
        let unreadable = |error| Error::io(storage.name(), "cannot read", error);
        let file_size = storage.len().map_err(unreadable)?;
        let mut bytes = [0; HEADER_BYTES as usize];
        let length = storage.read_at(&mut bytes, 0).map_err(unreadable)?;
        if let Some(signature) = signature(&bytes[..length]) {
            let kind = recognise(storage.name(), signature)?;
            if length < bytes.len() {
                let message = format!(
                    "a cloop image ({}) cut short: its header takes {HEADER_BYTES} bytes and the \
                     file has {length}",
                    kind.version()
                );
                return Err(Error::new(ErrorKind::Format, storage.name(), message));
            }
            return Self::parse(storage.name(), kind, Layout::Header, file_size, bytes).map(Some);
        }
        if length == bytes.len() {
            if let Some(header) = Self::bare(Layout::Header, file_size, bytes) {
                return Ok(Some(header));
            }
        }
        // A footer, and room for one index entry before it.
        let Some(at) = file_size.checked_sub(HEADER_BYTES).filter(|at| *at >= 8) else {
            return Ok(None);
        };
        storage.read_exact_at(&mut bytes, at).map_err(unreadable)?;
        match signature(&bytes).and_then(known) {
            Some(kind @ (Kind::V2 | Kind::V4)) => {
                Self::parse(storage.name(), kind, Layout::Footer, file_size, bytes).map(Some)
            }
            _ => Ok(Self::bare(Layout::Footer, file_size, bytes)),
        }
    }

    /// A header without a script: the kernel driver checks the four bytes only. A disk may
    /// have them there by chance, so all fields must be right, too.
    fn bare(layout: Layout, file_size: u64, bytes: [u8; HEADER_BYTES as usize]) -> Option<Header> {
        let kind = known(&bytes[SIGNATURE_AT..SIGNATURE_AT + 4])?;
        let sound = Self::parse("", kind, layout, file_size, bytes).ok()?;
        (matches!(kind, Kind::V2 | Kind::V4) && sound.num_blocks > 0).then_some(sound)
    }

    fn parse(
        name: &str,
        kind: Kind,
        layout: Layout,
        file_size: u64,
        bytes: [u8; HEADER_BYTES as usize],
    ) -> Result<Header> {
        let field = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let bad = |message: String| Err(Error::new(ErrorKind::Format, name, message));
        let block_size = field(BLOCK_SIZE_AT);
        let num_blocks = field(NUM_BLOCKS_AT);
        if block_size == 0 {
            return bad("block_size is 0".into());
        }
        if block_size % 512 != 0 {
            return bad(format!("block_size {block_size} is not a multiple of 512"));
        }
        if block_size > MAX_BLOCK_SIZE {
            return bad(format!(
                "block_size {block_size} is larger than the {MAX_BLOCK_SIZE} that are read"
            ));
        }
        let header = Header { kind, layout, block_size, num_blocks, file_size, bytes };
        let room = file_size - HEADER_BYTES;
        if header.index_bytes() > room {
            return bad(format!(
                "num_blocks {num_blocks} asks for an index of {} bytes and the file has room for \
                 {room}: it is damaged or cut short",
                header.index_bytes()
            ));
        }
        Ok(header)
    }

    /// Whether FreeBSD's programs made it: seen by its version or, in a `V2.0` image, by
    /// the script of `mkuzip`, which loads the kernel's `geom_uzip`.
    pub(crate) fn is_uzip(&self) -> bool {
        match self.kind {
            Kind::V2 => self.bytes[..BLOCK_SIZE_AT].windows(4).any(|bytes| bytes == b"uzip"),
            Kind::V4 => false,
            _ => true,
        }
    }

    /// Bytes of the index: an entry per block, and one for the end.
    pub fn index_bytes(&self) -> u64 {
        8 * (u64::from(self.num_blocks) + 1)
    }

    /// Where the index begins in the file.
    pub(crate) fn index_offset(&self) -> u64 {
        match self.layout {
            Layout::Header => HEADER_BYTES,
            Layout::Footer => self.file_size - HEADER_BYTES - self.index_bytes(),
        }
    }

    /// Where in the file compressed blocks may lie.
    pub(crate) fn data_range(&self) -> std::ops::Range<u64> {
        match self.layout {
            Layout::Header => HEADER_BYTES + self.index_bytes()..self.file_size,
            Layout::Footer => 0..self.index_offset(),
        }
    }

    /// Bytes of the device.
    pub fn size(&self) -> u64 {
        u64::from(self.block_size) * u64::from(self.num_blocks)
    }
}

/// The four bytes at 0x0b of something that looks like one of the family.
fn signature(bytes: &[u8]) -> Option<&[u8]> {
    let found = bytes.get(SIGNATURE_AT..SIGNATURE_AT + 4)?;
    let [letter, major, dot, minor] = found else { return None };
    let fits = bytes.starts_with(b"#!")
        && letter.is_ascii_alphabetic()
        && major.is_ascii_digit()
        && *dot == b'.'
        && minor.is_ascii_digit();
    fits.then_some(found)
}

fn known(signature: &[u8]) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.version().as_bytes() == signature)
}

fn recognise(name: &str, signature: &[u8]) -> Result<Kind> {
    known(signature).ok_or_else(|| {
        let version = match signature {
            b"V0.6" => "V0.68".into(),
            other => String::from_utf8_lossy(other),
        };
        let known = Kind::ALL.map(Kind::version).join(", ");
        let message = format!(
            "cloop version {version} is not supported (known: {known}); recreate the image from \
             its source"
        );
        Error::new(ErrorKind::Unsupported, name, message)
    })
}
