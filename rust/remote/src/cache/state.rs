//! The state file: which image it is, and a bit for each chunk that is there.
//!
//! | part | bytes |
//! |---|---|
//! | head | 0-4095: one line of JSON, and spaces |
//! | bits | from 4096: chunk *c* is bit `c & 7`, least significant first, of byte `c >> 3` |

use cowcloop_engine::storage::Storage;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::answer::LARGEST;
use crate::version::Version;

use super::bits::Bits;
use super::CHUNK;

/// Bytes of the head.
pub(super) const HEAD: u64 = 4096;

/// The layout that this program writes.
const LAYOUT: u32 = 1;

/// The head of a state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    #[serde(rename = "cowcloop-cache")]
    layout: u32,
    /// The image's address as it may be shown.
    url: String,
    /// Of all of its address; empty in a file of an earlier edition.
    #[serde(default)]
    key: String,
    #[serde(flatten)]
    pub version: Version,
    chunk: u64,
    /// The name of the file with the image's bytes, in the same directory.
    pub data: String,
}

impl Head {
    /// That of an image, whose bytes are in the file `data`.
    pub fn new(address: &Address, version: &Version, data: String) -> Head {
        let (url, key) = (address.shown().to_string(), address.key());
        Head { layout: LAYOUT, url, key, version: version.clone(), chunk: CHUNK, data }
    }

    /// Whether it is of this address, without doubt of this version.
    pub fn is_of(&self, address: &Address, version: &Version) -> bool {
        version.is_certain() && self.key == address.key() && self.version == *version
    }

    /// A whole state file without a chunk.
    pub fn file(&self) -> Option<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self).ok()?;
        if bytes.len() >= HEAD as usize {
            return None;
        }
        bytes.resize(HEAD as usize - 1, b' ');
        bytes.push(b'\n');
        bytes.resize((HEAD + Bits::bytes(chunks(self.version.size))) as usize, 0);
        Some(bytes)
    }

    /// Reads the head of a state file; `None` when it is not one of ours, or is damaged.
    pub fn read(state: &dyn Storage) -> Option<Head> {
        let mut bytes = [0; HEAD as usize];
        state.read_exact_at(&mut bytes, 0).ok()?;
        let head: Head = serde_json::from_slice(&bytes).ok()?;
        let plain = !head.data.is_empty() && !head.data.contains(['/', '\0']);
        if head.version.size > LARGEST {
            return None;
        }
        let length = HEAD + Bits::bytes(chunks(head.version.size));
        let whole = state.len().ok()? == length;
        (head.layout == LAYOUT && head.chunk == CHUNK && plain && whole).then_some(head)
    }
}

/// Chunks of an image of so many bytes.
pub(crate) fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK)
}
