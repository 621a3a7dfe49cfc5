//! Our own mark in the head, in a part that the original driver leaves alone
//! (it rewrites what it found there): little-endian whatever the head's order.
//!
//! | at | size | what |
//! |---|---|---|
//! | 128 | 8 | `cowcloop` |
//! | 136 | 4 | version of the mark, 1 |
//! | 140 | 4 | CRC-32 of bytes 128-255, this field taken as zero |
//! | 144 | 16 | random identity of the cowfile's content: another one with each generation |
//! | 160 | 8 | generation: counts the times that the file went from clean to in use or was repaired |
//! | 168 | 8 | size of the base in bytes |
//! | 176 | 32 | strong identity of the base |
//! | 208 | 1 | 1: being merged into its base |
//! | 209 | 46 | while it is: what the base is known by, see [`Merging`] |
//! | 255 | 1 | zero |

use super::HEAD_SECTOR;
use crate::{Error, Result};

/// Our own fields in the head, beside the original driver's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Random identity of the content, so that copies that diverge are told apart.
    pub id: [u8; 16],
    /// How often the file went from clean to in use, or was repaired.
    pub generation: u64,
    /// Size of the base in bytes; smaller than the device when that was enlarged.
    pub base_size: u64,
    /// The base's [`Layer::identity`](crate::Layer::identity).
    pub base_identity: [u8; 32],
    /// A merge into the base has begun, and not ended: the base holds some of
    /// the blocks already, and has another identity and fingerprint.
    pub merging: Option<Merging>,
}

/// Where the mark lies in the head.
pub(crate) const MARK_AT: usize = 128;
/// The byte after its last.
pub(crate) const MARK_END: usize = 256;

/// How the base of a merge under way is recognized. The head's free room gives the sizes of
/// these fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merging {
    /// Hash of samples of the blocks that the merge leaves alone.
    pub untouched: [u8; 14],
    /// Checksums of some of the sectors that it replaces, as they were before.
    pub before: [u16; WITNESSES],
}

/// Sectors that a merge replaces and whose checksums are kept.
pub const WITNESSES: usize = 16;

const MAGIC: &[u8; 8] = b"cowcloop";
const VERSION: u32 = 1;

impl Mark {
    /// The mark of a cowfile that begins its life on this base, of `base_size` bytes.
    pub fn new(base_size: u64, base_identity: [u8; 32]) -> Result<Mark> {
        Ok(Mark { id: random()?, generation: 0, base_size, base_identity, merging: None })
    }

    /// The mark of the same cowfile with other content.
    pub(crate) fn changed(self) -> Result<Mark> {
        Ok(Mark { id: random()?, generation: self.generation.wrapping_add(1), ..self })
    }

    /// The mark in a head's sector, when a whole one of a known version is there.
    pub fn parse(sector: &[u8; HEAD_SECTOR]) -> Option<Mark> {
        let mut bytes: [u8; MARK_END - MARK_AT] = field(sector, MARK_AT);
        let sum = u32::from_le_bytes(field(&bytes, 12));
        bytes[12..16].fill(0);
        let known = &bytes[..8] == MAGIC && u32::from_le_bytes(field(&bytes, 8)) == VERSION;
        (known && sum == libdeflater::crc32(&bytes)).then(|| Mark {
            id: field(&bytes, 16),
            generation: u64::from_le_bytes(field(&bytes, 32)),
            base_size: u64::from_le_bytes(field(&bytes, 40)),
            base_identity: field(&bytes, 48),
            merging: (bytes[80] == 1).then(|| Merging::parse(field(&bytes, 81))),
        })
    }

    /// Writes the mark to its place in a head's sector.
    pub fn encode_into(&self, sector: &mut [u8; HEAD_SECTOR]) {
        let bytes = &mut sector[MARK_AT..MARK_END];
        bytes.fill(0);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id);
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base_size.to_le_bytes());
        bytes[48..80].copy_from_slice(&self.base_identity);
        if let Some(merging) = &self.merging {
            bytes[80] = 1;
            bytes[81..127].copy_from_slice(&merging.encode());
        }
        let sum = libdeflater::crc32(bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    }
}

impl Merging {
    fn parse(bytes: [u8; 46]) -> Merging {
        let before = std::array::from_fn(|i| u16::from_le_bytes(field(&bytes, 14 + 2 * i)));
        Merging { untouched: field(&bytes, 0), before }
    }

    fn encode(&self) -> [u8; 46] {
        let mut bytes = [0; 46];
        bytes[..14].copy_from_slice(&self.untouched);
        for (place, sum) in bytes[14..].chunks_mut(2).zip(self.before) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }
}

pub(crate) fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::io("cowfile", "no random bytes to be had", error.into()))?;
    Ok(bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("every field lies within the sector")
}
