//! A simulated disk under a system like Linux: what programs see at once, what waits to be
//! written, and what becomes of it when writing fails.
//!
//! Pages that could not be written back count as clean: they are still shown, no later sync
//! writes them, and one day the system forgets them and the medium shows through.

use std::io;
use std::sync::{Arc, Mutex};

use cowcloop_engine::storage::Storage;

use crate::medium::{Event, Image, Pending, Sector, SECTOR};
use crate::numbers::Numbers;

/// Sectors of a page of the system's cache.
const PAGE: u64 = 8;

/// Which call is to fail, counted from 0, and how. A sync that fails gives up what waits; with
/// `Interrupted` the process is killed before the call.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub call: u64,
    pub kind: io::ErrorKind,
}

type Log = Arc<Mutex<Vec<Event>>>;

#[derive(Debug)]
struct State {
    live: Image,
    pending: Pending,
    numbers: Numbers,
    calls: u64,
    fault: Option<Fault>,
    /// A write-back failed that no sync has told of yet.
    failed: bool,
    /// Something was given up since this was last asked.
    gave_up: bool,
    /// Faults wait: the test itself is looking.
    inspected: bool,
    /// Bytes at the beginning that stay in the cache although it is to be dropped: another
    /// program has mapped them.
    pinned: u64,
}

/// A file on a disk that remembers everything that happened to it.
#[derive(Debug)]
pub struct SimDisk {
    file: usize,
    log: Log,
    start: Image,
    state: Mutex<State>,
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new(Image::default())
    }
}

impl SimDisk {
    /// A file whose durable content is `image`, alone on its machine.
    pub fn new(image: Image) -> SimDisk {
        SimDisk::on(Log::default(), 0, image, 0)
    }

    /// Files on one machine.
    pub fn machine(images: Vec<Image>, seed: u64) -> Vec<Arc<SimDisk>> {
        let log = Log::default();
        let file = |(file, image)| Arc::new(SimDisk::on(log.clone(), file, image, seed));
        images.into_iter().enumerate().map(file).collect()
    }

    fn on(log: Log, file: usize, image: Image, seed: u64) -> SimDisk {
        let state = State {
            live: image.clone(),
            pending: Pending::new(image.clone()),
            numbers: Numbers(seed ^ file as u64),
            calls: 0,
            fault: None,
            failed: false,
            gave_up: false,
            inspected: false,
            pinned: 0,
        };
        SimDisk { file, log, start: image, state: Mutex::new(state) }
    }

    /// Counts calls from here on, and makes one fail; a write may have got half way by then.
    pub fn inject(&self, fault: Option<Fault>) {
        let mut state = self.state.lock().unwrap();
        state.calls = 0;
        state.fault = fault;
    }

    /// How many calls there were since [`inject`](Self::inject).
    pub fn calls(&self) -> u64 {
        self.state.lock().unwrap().calls
    }

    /// Runs `look`, whose calls neither fail nor count.
    pub fn inspect<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.state.lock().unwrap().inspected, true);
        let found = look();
        self.state.lock().unwrap().inspected = before;
        found
    }

    /// Writes a note between the events.
    pub fn note(&self, note: usize) {
        self.log.lock().unwrap().push(Event::Note(note));
    }

    /// What was durable at the beginning, and all that happened to the machine since.
    pub fn history(&self) -> (Image, Vec<Event>) {
        (self.start.clone(), self.log.lock().unwrap().clone())
    }

    /// Has so many bytes at the beginning stay in the cache.
    pub fn pin(&self, bytes: u64) {
        self.state.lock().unwrap().pinned = bytes;
    }

    /// The system writes back some of what waits, and fails.
    pub fn fail_write_back(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.pending.sectors.is_empty() {
            state.failed = true;
            let event = state.give_up(self.file, false);
            self.log.lock().unwrap().push(event);
        }
    }

    /// The system needs memory, and forgets some pages that count as clean.
    pub fn press(&self) {
        let mut state = self.state.lock().unwrap();
        let lottery = state.numbers.below(usize::MAX) as u64;
        state.forget(|page| Numbers(lottery ^ page).below(2) == 0);
    }

    /// No process has the file open, and the system forgets all of it, if nothing waits.
    pub fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        if state.pending.sectors.is_empty() {
            state.forget(|_| true);
            state.live.len = state.pending.len();
            state.failed = false;
        }
    }

    /// What programs see now.
    pub fn live(&self) -> Image {
        self.state.lock().unwrap().live.clone()
    }

    /// Whether anything was given up since this was last asked.
    pub fn gave_up(&self) -> bool {
        std::mem::take(&mut self.state.lock().unwrap().gave_up)
    }
}

impl State {
    /// Counts a call; the error that it is to fail with.
    fn call(&mut self) -> io::Result<()> {
        if self.inspected {
            return Ok(());
        }
        self.calls += 1;
        match self.fault {
            Some(fault) if fault.call + 1 == self.calls => Err(fault.kind.into()),
            _ => Ok(()),
        }
    }

    /// Of all that waits, or some of it, the medium has what it has.
    fn give_up(&mut self, file: usize, all: bool) -> Event {
        self.gave_up = true;
        let choices = self.pending.choices();
        let mut picks = Vec::new();
        for (number, choices) in self.pending.sectors.keys().zip(&choices) {
            if all || self.numbers.below(2) == 0 {
                picks.push((*number, self.numbers.pick(*choices)));
            }
        }
        let lens = *choices.last().expect("a file has a length");
        let len = all.then(|| self.numbers.pick(lens));
        self.pending.give_up(&picks, len);
        Event::GivenUp { file, picks, len }
    }

    /// Pages that count as clean show the medium from now on.
    fn forget(&mut self, which: impl Fn(u64) -> bool) {
        let known = self.live.sectors.keys().chain(self.pending.durable.sectors.keys());
        let forgotten = |n: &&u64| {
            let page = **n / PAGE * PAGE;
            which(page) && self.pending.sectors.range(page..page + PAGE).next().is_none()
        };
        let numbers: Vec<u64> = known.filter(forgotten).copied().collect();
        for number in numbers {
            self.live.put(number, self.pending.durable.sectors.get(&number).cloned());
        }
    }

    fn change(&mut self, sectors: Vec<(u64, Option<Sector>)>, end: u64, disk: &SimDisk) {
        for (number, sector) in &sectors {
            self.live.put(*number, sector.clone());
        }
        self.live.len = self.live.len.max(end);
        let len = self.pending.len().max(end);
        self.pending.change(&sectors, len);
        disk.log.lock().unwrap().push(Event::Change { file: disk.file, sectors, len });
    }

    fn write(&mut self, buf: &[u8], offset: u64, disk: &SimDisk) {
        let end = offset + buf.len() as u64;
        let mut sectors = Vec::new();
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = number * SECTOR;
            let (from, to) = (offset.max(start), end.min(start + SECTOR));
            let mut sector = self.live.sectors.get(&number).map_or([0; SECTOR as usize], |s| **s);
            sector[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&buf[(from - offset) as usize..(to - offset) as usize]);
            sectors.push((number, Some(Arc::new(sector))));
        }
        self.change(sectors, end, disk);
    }
}

impl Storage for SimDisk {
    fn name(&self) -> &str {
        "simulated.cow"
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        Ok(state.live.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let end = state.live.len.min(offset + buf.len() as u64);
        let mut at = offset;
        while at < end {
            let start = at - at % SECTOR;
            let n = (start + SECTOR).min(end) - at;
            let piece = &mut buf[(at - offset) as usize..][..n as usize];
            match state.live.sectors.get(&(at / SECTOR)) {
                Some(sector) => {
                    piece.copy_from_slice(&sector[(at - start) as usize..][..n as usize])
                }
                None => piece.fill(0),
            }
            at += n;
        }
        Ok(end.saturating_sub(offset) as usize)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        // Another thread gets a turn before each step.
        std::thread::yield_now();
        let mut state = self.state.lock().unwrap();
        if let Err(error) = state.call() {
            if error.kind() != io::ErrorKind::Interrupted {
                // A short write: the first half is there, the rest is not.
                state.write(&buf[..buf.len() / 2], offset, self);
            }
            return Err(error);
        }
        state.write(buf, offset, self);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        assert!((offset | length).is_multiple_of(SECTOR), "blocks are whole sectors");
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let range = offset / SECTOR..(offset + length) / SECTOR;
        let live = state.live.sectors.range(range.clone());
        let durable = state.pending.durable.sectors.range(range);
        let mut numbers: Vec<u64> = live.chain(durable).map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        numbers.dedup();
        state.change(numbers.into_iter().map(|n| (n, None)).collect(), 0, self);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        std::thread::yield_now();
        let mut state = self.state.lock().unwrap();
        if let Err(error) = state.call() {
            if error.kind() != io::ErrorKind::Interrupted {
                let event = state.give_up(self.file, true);
                self.log.lock().unwrap().push(event);
            }
            return Err(error);
        }
        state.pending.sync();
        self.log.lock().unwrap().push(Event::Sync { file: self.file });
        if std::mem::take(&mut state.failed) {
            return Err(io::Error::other("a page could not be written back"));
        }
        drop(state);
        // What happens between a sync and its caller's next step matters most.
        (0..4).for_each(|_| std::thread::yield_now());
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let pinned = state.pinned / SECTOR;
        state.forget(|page| page >= pinned);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let found = state.live.sectors.range(offset / SECTOR..).next().map(|(n, _)| *n * SECTOR);
        Ok(found.map(|at| at.max(offset)).filter(|at| *at < state.live.len))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let mut number = offset / SECTOR;
        while state.live.sectors.contains_key(&number) {
            number += 1;
        }
        Ok((number * SECTOR).clamp(offset, state.live.len.max(offset)))
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().live.sectors.len() as u64 * SECTOR)
    }
}
