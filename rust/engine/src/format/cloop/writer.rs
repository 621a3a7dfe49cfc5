//! The bytes of our own images, from first to last, but for the blocks.

use super::header::{Kind, BLOCK_SIZE_AT, HEADER_BYTES, NUM_BLOCKS_AT};
use super::index::OFFSET_BITS;
use crate::codec::Codec;

/// qemu recognizes a V2.0 image by these bytes, to the last; `create_compressed_fs` writes
/// them too.
const V2_SCRIPT: &str = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 \
                         /dev/cloop $1\n";

/// Bytes before the first block of a footer image: the kernel driver 5.3
/// cannot read block 0 at offset 0.
pub(crate) const FOOTER_PADDING: usize = 512;

/// What a footer image shows in an editor or a pager.
const FOOTER_TEXT: &[u8] = b"A cloop disk image whose index and header are at its end.\n";

/// An image with its header first ends on such a boundary: FreeBSD's md(4) and Linux's loop
/// device leave out a last part of fewer bytes.
const SECTOR: u64 = 512;

/// Which version of the format is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// V2.0: zlib; every program that knows cloop reads it.
    #[default]
    V2,
    /// V4.0: any codec; read by cloop drivers 4 and 5, and by this program.
    V4,
}

impl Format {
    /// The format of an image that is made anew from one of `kind`.
    pub(crate) fn of_kind(kind: Kind) -> Format {
        match kind {
            Kind::V4 => Format::V4,
            Kind::V2
            | Kind::ZlibShared
            | Kind::Lzma
            | Kind::LzmaShared
            | Kind::Zstd
            | Kind::ZstdShared => Format::V2,
        }
    }

    /// The bits that name a codec in an index entry; `None`: an image cannot have it.
    pub(crate) fn flags(self, codec: Codec) -> Option<u64> {
        match self {
            Format::V2 => (codec == Codec::Zlib).then_some(0),
            Format::V4 => codec.v4_flag().map(|flag| flag << OFFSET_BITS),
        }
    }

    /// Where the data must end, in bytes of the file.
    pub(crate) fn data_limit(self) -> u64 {
        match self {
            Format::V2 => u64::MAX,
            Format::V4 => 1 << OFFSET_BITS,
        }
    }

    /// Preamble, block size and number of blocks.
    ///
    /// The preamble has the CRC-32 of all compressed blocks. So two images differ in their
    /// headers even if all their blocks have the same lengths, and a cowfile of one is not
    /// taken for a cowfile of the other.
    pub(crate) fn header(
        self,
        block_size: u32,
        blocks: u32,
        sum: u32,
    ) -> [u8; HEADER_BYTES as usize] {
        let script = match self {
            Format::V2 => format!("{V2_SCRIPT}exit $?\n# CRC-32 {sum:08x}\n"),
            // If the image is run as a program, it says what it is.
            Format::V4 => format!(
                "#!/bin/sh\n#V4.0 Format\n# CRC-32 {sum:08x}\necho \"$0: a cloop disk image, for \
                 cowcloop or cloop\" >&2\nexit 1\n"
            ),
        };
        let mut header = [0; HEADER_BYTES as usize];
        header[..script.len()].copy_from_slice(script.as_bytes());
        header[BLOCK_SIZE_AT..NUM_BLOCKS_AT].copy_from_slice(&block_size.to_be_bytes());
        header[NUM_BLOCKS_AT..].copy_from_slice(&blocks.to_be_bytes());
        header
    }
}

/// Where the first block of a header-first image lies.
pub(crate) fn data_start(blocks: u64) -> u64 {
    HEADER_BYTES + 8 * (blocks + 1)
}

/// The beginning of a footer image.
pub(crate) fn footer_padding() -> [u8; FOOTER_PADDING] {
    let mut padding = [0; FOOTER_PADDING];
    padding[..FOOTER_TEXT.len()].copy_from_slice(FOOTER_TEXT);
    padding
}

/// Zeros that fill up a header-first image that ends at `end`.
pub(crate) fn end_padding(end: u64) -> Vec<u8> {
    vec![0; (end.next_multiple_of(SECTOR) - end) as usize]
}

#[cfg(test)]
mod tests {
    use super::super::header::{Header, Layout};
    use super::*;
    use crate::storage::{MemoryStorage, Storage};

    #[test]
    fn a_header_that_is_written_is_found_again() {
        for (format, kind) in [(Format::V2, Kind::V2), (Format::V4, Kind::V4)] {
            let storage = MemoryStorage::new("x", u64::MAX);
            storage.write_all_at(&format.header(65536, 3, 7), 0).unwrap();
            storage.write_all_at(&[0; 32], HEADER_BYTES).unwrap();
            let header = Header::find(&storage).unwrap().unwrap();
            assert_eq!((header.kind, header.layout), (kind, Layout::Header));
            assert_eq!((header.block_size, header.num_blocks), (65536, 3));
            assert_eq!(Format::of_kind(kind), format);
        }
    }
}
