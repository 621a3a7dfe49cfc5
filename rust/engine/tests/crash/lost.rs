//! Broken rules of what is kept for a server that takes over.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cowcloop_engine::format::cowfile::head::{mapsize, HEAD_BYTES, HEAD_SECTOR, MAPUNIT};
use cowcloop_engine::format::cowfile::read_head;
use cowcloop_engine::storage::Storage;

use crate::cases::Kind;
use crate::disk::SimDisk;
use crate::passed_on::reads_pass;
use crate::scenario::Rules;
use crate::world::DEVICE;

/// Where the fields of a kept file's head lie.
const SUM_AT: usize = 12;
const MARKS_AT: usize = 64;
const VALID_AT: usize = 96;
const FIELDS: usize = 128;

/// Each rule in words, the cases that tell, and how it is broken.
pub const RULES: [(&str, Kind, Rules); 6] = [
    (
        "a bit is kept before its write is acknowledged",
        Kind::TakeOver,
        Rules { kept: |disk| Arc::new(Late::new(disk, Rule::Acknowledged)), ..Rules::PLAIN },
    ),
    (
        "bits go along with the cowfile's next head",
        Kind::TakeOver,
        Rules { kept: |disk| Arc::new(Late::new(disk, Rule::NextHead)), ..Rules::PLAIN },
    ),
    (
        "bits count for nothing once a sync has failed",
        Kind::TakeOverFails,
        Rules { kept: |disk| Arc::new(Late::new(disk, Rule::GivenUp)), ..Rules::PLAIN },
    ),
    (
        "bits of another boot count for nothing",
        Kind::TakeOver,
        Rules { one_boot: true, ..Rules::PLAIN },
    ),
    (
        "nor do those of a state that was left behind",
        Kind::TakeOver,
        Rules { before: Some(of_any_state), ..Rules::PLAIN },
    ),
    (
        "bits that were taken over are still to be written",
        Kind::TakeOver,
        Rules { before: Some(joined_as_durable), ..Rules::PLAIN },
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Acknowledged,
    NextHead,
    GivenUp,
}

/// A kept file that is written too late, or not at all.
#[derive(Debug)]
struct Late {
    disk: Arc<SimDisk>,
    rule: Rule,
    /// Bits that wait for the next ones.
    waiting: Mutex<Option<(Vec<u8>, u64)>>,
    /// The first head of this process was written.
    bound: AtomicBool,
}

impl Late {
    fn new(disk: Arc<SimDisk>, rule: Rule) -> Late {
        Late { disk, rule, waiting: Mutex::default(), bound: AtomicBool::new(false) }
    }
}

impl Storage for Late {
    reads_pass!();

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if offset >= HEAD_BYTES && self.rule == Rule::Acknowledged {
            let before = self.waiting.lock().unwrap().replace((buf.to_vec(), offset));
            return match before {
                Some((buf, offset)) => self.disk.write_all_at(&buf, offset),
                None => Ok(()),
            };
        }
        if offset == 0 {
            let valid = buf[VALID_AT] == 1;
            let binds = valid && buf[MARKS_AT..MARKS_AT + 16] != buf[MARKS_AT + 16..][..16];
            let swallowed = match self.rule {
                Rule::NextHead => binds && !self.bound.swap(true, Ordering::Relaxed),
                Rule::GivenUp => !valid && buf[MARKS_AT..][..32] != [0; 32],
                Rule::Acknowledged => false,
            };
            if swallowed {
                return Ok(());
            }
        }
        self.disk.write_all_at(buf, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.punch_hole(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

/// Has the kept file say that it belongs to the cowfile as it is.
fn of_any_state(cow: &Arc<SimDisk>, kept: &SimDisk) -> Arc<dyn Storage> {
    let mut fields = [0; FIELDS];
    let n = kept.inspect(|| kept.read_at(&mut fields, 0)).unwrap();
    let mark = cow.inspect(|| read_head(&**cow)).ok().and_then(|(head, _)| head.mark);
    if let (FIELDS, Some(mark)) = (n, mark) {
        fields[MARKS_AT..][..16].copy_from_slice(&mark.id);
        fields[SUM_AT..SUM_AT + 4].fill(0);
        let sum = crc32(&fields);
        fields[SUM_AT..SUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        kept.inspect(|| kept.write_all_at(&fields, 0)).unwrap();
    }
    cow.clone()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

/// Has the cowfile's bitmap never get the bits that come from the kept file.
fn joined_as_durable(cow: &Arc<SimDisk>, kept: &SimDisk) -> Arc<dyn Storage> {
    let bits = |disk: &SimDisk| {
        let mut bytes = vec![0; mapsize(DEVICE / MAPUNIT) as usize];
        disk.inspect(|| disk.read_at(&mut bytes, HEAD_BYTES)).unwrap();
        bytes
    };
    let mut head = [0; HEAD_SECTOR];
    kept.inspect(|| kept.read_at(&mut head, 0)).unwrap();
    let mut hidden = bits(kept);
    let valid = u8::from(head[VALID_AT] == 1) * 0xff;
    hidden.iter_mut().zip(bits(cow)).for_each(|(kept, own)| *kept &= !own & valid);
    Arc::new(Hiding { disk: cow.clone(), hidden })
}

#[derive(Debug)]
struct Hiding {
    disk: Arc<SimDisk>,
    /// Bits that no write of the bitmap has.
    hidden: Vec<u8>,
}

impl Storage for Hiding {
    reads_pass!();

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if !(HEAD_BYTES..HEAD_BYTES + self.hidden.len() as u64).contains(&offset) {
            return self.disk.write_all_at(buf, offset);
        }
        let hidden = &self.hidden[(offset - HEAD_BYTES) as usize..];
        let shown: Vec<u8> = buf.iter().zip(hidden).map(|(byte, hidden)| byte & !hidden).collect();
        self.disk.write_all_at(&shown, offset)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.punch_hole(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.drop_cache()
    }
}
