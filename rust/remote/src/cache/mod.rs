//! What is kept of one image: a sparse file with its bytes where they belong, and a state file
//! with a bit for each chunk.
//!
//! A bit is written only after the bytes that it vouches for have been synced, so after any
//! crash a bit means bytes that are right. `docs/crash-safety.md` has the argument.

pub(crate) mod apart;
mod bits;
pub(crate) mod place;
mod room;
mod state;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use cowcloop_engine::storage::Storage;
use parking_lot::Mutex;

use bits::Bits;
use room::Room;
use state::HEAD;
pub(crate) use state::{chunks, Head};

/// Bytes of a chunk: what a bit stands for. Compressed blocks lie anywhere, so larger ones have
/// more fetched that is not wanted.
pub const CHUNK: u64 = 16 << 10;

/// Whether chunks were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// They were not.
    Not,
    /// They were, and none waited to be vouched for before: [`Cache::settle`] has to follow.
    First,
    /// They were, beside others.
    More,
}

/// Other processes that change bits at the same time.
pub(crate) trait Neighbours: Send + Sync + std::fmt::Debug {
    /// Runs `change` while no other process changes a bit.
    fn alone(&self, change: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}

/// The chunks of one image that are there.
#[derive(Debug)]
pub struct Cache {
    data: Arc<dyn Storage>,
    /// The file with the bytes is as long at least.
    reach: AtomicU64,
    state: Arc<dyn Storage>,
    /// Of the image, in bytes.
    size: u64,
    /// Chunks that can be read: those with a bit in the file, and those that were written
    /// since by this process.
    present: Bits,
    pending: Mutex<Pending>,
    /// Counts the beginnings and the ends of forgetting: odd while it is under way. In between, a
    /// chunk that is there is not written again by this process.
    forgotten: AtomicU64,
    /// The file may have bits that were forgotten, and could not be cleared there.
    unmended: AtomicBool,
    /// Held while chunks change between pending and vouched for.
    turn: Mutex<()>,
    neighbours: Option<Box<dyn Neighbours>>,
    room: Option<Room>,
    /// Nothing more is written.
    closed: AtomicBool,
    path: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Chunks that were written and are not synced yet.
    written: Vec<u64>,
    /// Chunks that are being written.
    landing: BTreeSet<u64>,
}

impl Cache {
    /// What lies in two open files of an image of `size` bytes.
    pub fn on(data: Arc<dyn Storage>, state: Arc<dyn Storage>, size: u64) -> io::Result<Cache> {
        let present = Bits::new(chunks(size));
        let mut bytes = vec![0; Bits::bytes(chunks(size)) as usize];
        state.read_exact_at(&mut bytes, HEAD)?;
        present.add(0, &bytes);
        Ok(Cache {
            reach: AtomicU64::new(data.len()?),
            data,
            state,
            size,
            present,
            pending: Mutex::default(),
            forgotten: AtomicU64::new(0),
            unmended: AtomicBool::new(false),
            turn: Mutex::default(),
            neighbours: None,
            room: None,
            closed: AtomicBool::new(false),
            path: None,
        })
    }

    /// The file with the image's bytes.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// Whether a chunk is there.
    pub fn has(&self, chunk: u64) -> bool {
        self.present.has(chunk)
    }

    /// Whether all of the chunks `[from, to)` are there.
    pub fn has_all(&self, from: u64, to: u64) -> bool {
        self.present.has_all(from, to)
    }

    /// Whether the whole image is there.
    pub fn is_complete(&self) -> bool {
        self.present.set_bits() == self.present.count()
    }

    /// Bytes of the image that are there.
    pub fn bytes(&self) -> u64 {
        let whole = self.size / CHUNK;
        let rest = if self.has(whole) { self.size % CHUNK } else { 0 };
        self.present.set_bits().saturating_sub(u64::from(rest > 0)) * CHUNK + rest
    }

    /// Looks whether another process has fetched any of the chunks `[from, to)` meanwhile.
    pub fn look_again(&self, from: u64, to: u64) {
        let (first, last) = (from / 8, to.div_ceil(8));
        let mut bytes = vec![0; (last - first) as usize];
        let before = self.forgotten.load(Ordering::Acquire);
        // What is being forgotten may still have its bit.
        if before % 2 == 1 || self.unmended.load(Ordering::Acquire) {
            return;
        }
        if let Ok(n) = self.state.read_at(&mut bytes, HEAD + first) {
            let pending = self.pending.lock();
            if before == self.forgotten.load(Ordering::Acquire) {
                // These are overwritten.
                for chunk in pending.landing.range(first * 8..last * 8) {
                    bytes[(chunk / 8 - first) as usize] &= !(1 << (chunk % 8));
                }
                self.present.add(first, &bytes[..n]);
            }
        }
    }

    /// Reads bytes of chunks that are there.
    ///
    /// # Errors
    /// Those of the disk. From a file that another program has cut short nothing is read any more.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.data.read_exact_at(buf, offset);
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            self.lose();
        }
        read
    }

    /// Reads bytes of chunks all of which are there; the edition that they are from: within one,
    /// this process does not change what is there. `None`: they are not, or are changing.
    pub fn read_edition(&self, buf: &mut [u8], offset: u64) -> Option<u64> {
        let edition = self.forgotten.load(Ordering::Acquire);
        let end = (offset + buf.len() as u64).div_ceil(CHUNK);
        let there = edition & 1 == 0 && self.has_all(offset / CHUNK, end);
        let read = there && self.read(buf, offset).is_ok();
        (read && self.forgotten.load(Ordering::Acquire) == edition).then_some(edition)
    }

    /// Keeps whole chunks from `first` on (the image's last one may be short), except for those
    /// that are there.
    pub fn keep(&self, first: u64, bytes: &[u8]) -> Kept {
        if self.closed.load(Ordering::Acquire) {
            return Kept::Not;
        }
        let absent = self.land(first, first + (bytes.len() as u64).div_ceil(CHUNK));
        if absent.is_empty() {
            return Kept::More;
        }
        let written = self.write(&absent, first, bytes);
        let mut pending = self.pending.lock();
        for chunk in &absent {
            pending.landing.remove(chunk);
        }
        if !written {
            return Kept::Not;
        }
        let kept = if pending.written.is_empty() { Kept::First } else { Kept::More };
        absent.iter().for_each(|chunk| self.present.set(*chunk));
        pending.written.extend(absent);
        kept
    }

    /// The chunks of `[first, last)` that are not there, and that nothing else writes either; they
    /// are being written from now on.
    fn land(&self, first: u64, last: u64) -> Vec<u64> {
        let mut pending = self.pending.lock();
        let absent: Vec<u64> = (first..last)
            .filter(|chunk| !self.present.has(*chunk) && !pending.landing.contains(chunk))
            .collect();
        pending.landing.extend(&absent);
        absent
    }

    /// Writes some of the chunks that begin with `first`; whether there was room.
    fn write(&self, chunks: &[u64], first: u64, bytes: &[u8]) -> bool {
        for run in chunks.chunk_by(|chunk, next| chunk + 1 == *next) {
            // A write beyond its end would make zeros of what was cut off.
            if self.data.len().is_ok_and(|length| length < self.reach.load(Ordering::Acquire)) {
                self.lose();
                return false;
            }
            let from = ((run[0] - first) * CHUNK) as usize;
            let piece = &bytes[from..bytes.len().min(from + run.len() * CHUNK as usize)];
            if self.room.as_ref().is_some_and(|room| !room.take(piece.len() as u64)) {
                return false;
            }
            if let Err(error) = self.data.write_all_at(piece, run[0] * CHUNK) {
                self.stop("is not written to any more", &error);
                return false;
            }
            let end = run[0] * CHUNK + piece.len() as u64;
            self.reach.fetch_max(end, Ordering::AcqRel);
        }
        true
    }

    /// Another program has cut the file with the bytes short: none of it is believed. Whoever
    /// opens it next sees its length, and begins anew.
    fn lose(&self) {
        self.stop("is cut short", &io::Error::other("another program has changed it"));
        let _turn = self.turn.lock();
        let mut pending = self.pending.lock();
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        pending.written.clear();
        self.present.clear_all();
        self.unmended.store(true, Ordering::Release);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes what was written durable, and then the bits that vouch for it.
    pub fn settle(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        // Taken before the sync, which so covers all of them.
        let taken = std::mem::take(&mut self.pending.lock().written);
        if taken.is_empty() {
            return Ok(());
        }
        let settled = self.data.sync().and_then(|()| self.change_bits(&taken, true));
        if let Err(error) = &settled {
            // Nobody knows what of it is on the medium.
            taken.iter().for_each(|chunk| self.present.clear(*chunk));
            self.stop("is not written to any more", error);
        }
        settled
    }

    /// Makes the bits durable as well.
    pub fn sync(&self) -> io::Result<()> {
        self.settle()?;
        self.state.sync()
    }

    /// Forgets the chunks `[from, to)`, which were found to be wrong; whether any was there.
    pub fn forget(&self, from: u64, to: u64) -> bool {
        let _turn = self.turn.lock();
        let found: Vec<u64> = (from..to).filter(|chunk| self.present.has(*chunk)).collect();
        {
            let mut pending = self.pending.lock();
            self.forgotten.fetch_add(1, Ordering::AcqRel);
            pending.written.retain(|chunk| !(from..to).contains(chunk));
            found.iter().for_each(|chunk| self.present.clear(*chunk));
        }
        if let Err(error) = self.change_bits(&found, false) {
            self.unmended.store(true, Ordering::Release);
            self.stop("cannot be mended", &error);
        }
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        !found.is_empty()
    }

    fn change_bits(&self, chunks: &[u64], set: bool) -> io::Result<()> {
        let (Some(least), Some(most)) = (chunks.iter().min(), chunks.iter().max()) else {
            return Ok(());
        };
        let (first, last) = (least / 8, most / 8 + 1);
        let mut change = || {
            let mut bytes = vec![0; (last - first) as usize];
            self.state.read_exact_at(&mut bytes, HEAD + first)?;
            for chunk in chunks {
                let byte = &mut bytes[(chunk / 8 - first) as usize];
                let mask = 1 << (chunk % 8);
                *byte = if set { *byte | mask } else { *byte & !mask };
            }
            self.state.write_all_at(&bytes, HEAD + first)
        };
        match &self.neighbours {
            Some(neighbours) => neighbours.alone(&mut change),
            None => change(),
        }
    }

    /// Writes no more: the cache costs speed then, and nothing else.
    fn stop(&self, what: &str, error: &io::Error) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let text = error.to_string();
            let reason = text.split(" (os error").next().unwrap_or(&text);
            let name = self.data.name();
            log::warn!("{name}: {what}: {reason}; what is fetched from now on is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use cowcloop_engine::storage::MemoryStorage;

    use super::*;

    /// A state file at whose next change another reader looks again.
    #[derive(Debug)]
    struct Watched {
        state: MemoryStorage,
        cache: OnceLock<Arc<Cache>>,
        fails: bool,
    }

    impl Storage for Watched {
        fn name(&self) -> &str {
            self.state.name()
        }
        fn len(&self) -> io::Result<u64> {
            self.state.len()
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.state.read_at(buf, offset)
        }
        fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            if let Some(cache) = self.cache.get() {
                cache.look_again(0, 8);
                assert!(!cache.has(1), "what is being forgotten has come back");
            }
            if self.fails {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            self.state.write_all_at(buf, offset)
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
            self.state.next_data(offset)
        }
        fn next_hole(&self, offset: u64) -> io::Result<u64> {
            self.state.next_hole(offset)
        }
        fn allocated(&self) -> io::Result<u64> {
            self.state.allocated()
        }
    }

    #[test]
    fn what_is_there_stays_as_it_is_within_an_edition() {
        let memory = |name| Arc::new(MemoryStorage::new(name, u64::MAX));
        let (data, state) = (memory("data"), memory("state"));
        state.write_all_at(&[0], HEAD).unwrap();
        let cache = Cache::on(data, state, 5 * CHUNK).unwrap();
        let (good, bad) = (vec![1; CHUNK as usize], vec![2; 3 * CHUNK as usize]);
        let mut buf = vec![0; CHUNK as usize];
        assert_eq!(cache.read_edition(&mut buf, CHUNK), None);
        assert_eq!(cache.keep(1, &good), Kept::First);
        let edition = cache.read_edition(&mut buf, CHUNK);
        assert!(edition.is_some() && buf == good);
        // What another reader has fetched at the same time.
        assert_eq!(cache.keep(0, &bad), Kept::More);
        assert_eq!(cache.read_edition(&mut buf, CHUNK), edition);
        assert_eq!(buf, good);
        assert_eq!(cache.read_edition(&mut buf, 2 * CHUNK), edition);
        assert_eq!(buf, bad[..CHUNK as usize]);
        cache.forget(1, 2);
        assert_eq!(cache.read_edition(&mut buf, CHUNK), None);
        assert_eq!(cache.keep(1, &good), Kept::More);
        let later = cache.read_edition(&mut buf, CHUNK);
        assert!(later > edition);
    }

    #[test]
    fn what_was_forgotten_does_not_come_back_from_the_file() {
        for fails in [false, true] {
            let state = MemoryStorage::new("state", u64::MAX);
            state.write_all_at(&[0b11], HEAD).unwrap();
            let data = Arc::new(MemoryStorage::new("data", u64::MAX));
            let watched = Arc::new(Watched { state, cache: OnceLock::new(), fails });
            let cache = Arc::new(Cache::on(data, watched.clone(), 5 * CHUNK).unwrap());
            watched.cache.set(cache.clone()).unwrap();
            assert!(cache.has(0) && cache.has(1));
            assert!(cache.forget(1, 2));
            cache.look_again(0, 8);
            assert!(cache.has(0) && !cache.has(1));
            // What another process has fetched is found, where bits can be believed.
            watched.state.write_all_at(&[0b101], HEAD).unwrap();
            cache.look_again(0, 8);
            assert_eq!(cache.has(2), !fails);
        }
    }
}
