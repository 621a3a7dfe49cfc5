//! A simulated disk: what programs see at once, what a power cut leaves, and
//! every state in between that the hardware may choose.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use cowcloop_engine::storage::Storage;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

type Sector = Arc<[u8; SECTOR as usize]>;

/// The content of a file, by sector; sectors that are not there are holes.
#[derive(Debug, Clone, Default)]
pub struct Image {
    sectors: BTreeMap<u64, Sector>,
    len: u64,
}

impl Image {
    fn sector(&self, number: u64) -> Option<&Sector> {
        self.sectors.get(&number)
    }

    /// Whether the two read the same from byte `offset` on.
    pub fn same_from(&self, other: &Image, offset: u64) -> bool {
        let after = |image: &Image| {
            let sectors = image.sectors.range(offset / SECTOR..);
            let data = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
            data.map(|(n, s)| (*n, s.clone())).collect::<Vec<_>>()
        };
        self.len == other.len && after(self) == after(other)
    }

    fn put(&mut self, number: u64, sector: Option<Sector>) {
        match sector {
            Some(sector) => self.sectors.insert(number, sector),
            None => self.sectors.remove(&number),
        };
    }
}

/// Something that happened to a disk, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// Sectors got new content (`None`: punched), and the file this length.
    Change { sectors: Vec<(u64, Option<Sector>)>, len: u64 },
    /// Everything before is durable.
    Sync,
    /// A step of the caller's: see [`SimDisk::note`].
    Note(usize),
}

/// Which call is to fail, counted from 0, and how.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub call: u64,
    pub kind: io::ErrorKind,
}

#[derive(Debug, Default)]
struct State {
    live: Image,
    start: Image,
    events: Vec<Event>,
    calls: u64,
    fault: Option<Fault>,
    /// Faults wait: the test itself is looking.
    inspected: bool,
}

/// A disk that remembers everything that happened to it.
#[derive(Debug, Default)]
pub struct SimDisk {
    state: Mutex<State>,
}

impl SimDisk {
    /// A disk whose durable content is `image`.
    pub fn new(image: Image) -> SimDisk {
        let state = State { start: image.clone(), live: image, ..State::default() };
        SimDisk { state: Mutex::new(state) }
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
        self.state.lock().unwrap().inspected = true;
        let found = look();
        self.state.lock().unwrap().inspected = false;
        found
    }

    /// Writes a note between the events.
    pub fn note(&self, note: usize) {
        self.state.lock().unwrap().events.push(Event::Note(note));
    }

    /// What was durable at the beginning, and all that happened since.
    pub fn history(&self) -> (Image, Vec<Event>) {
        let state = self.state.lock().unwrap();
        (state.start.clone(), state.events.clone())
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

    fn change(&mut self, sectors: Vec<(u64, Option<Sector>)>, len: u64) {
        for (number, sector) in &sectors {
            self.live.put(*number, sector.clone());
        }
        self.live.len = len;
        self.events.push(Event::Change { sectors, len });
    }

    fn write(&mut self, buf: &[u8], offset: u64) {
        let end = offset + buf.len() as u64;
        let mut sectors = Vec::new();
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = number * SECTOR;
            let (from, to) = (offset.max(start), end.min(start + SECTOR));
            let mut sector = self.live.sector(number).map_or([0; SECTOR as usize], |s| **s);
            sector[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&buf[(from - offset) as usize..(to - offset) as usize]);
            sectors.push((number, Some(Arc::new(sector))));
        }
        let len = self.live.len.max(end);
        self.change(sectors, len);
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
            match state.live.sector(at / SECTOR) {
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
            // A short write: the first half is there, the rest is not.
            state.write(&buf[..buf.len() / 2], offset);
            return Err(error);
        }
        state.write(buf, offset);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        assert!((offset | length).is_multiple_of(SECTOR), "blocks are whole sectors");
        let mut state = self.state.lock().unwrap();
        state.call()?;
        let range = offset / SECTOR..(offset + length) / SECTOR;
        let sectors: Vec<_> = state.live.sectors.range(range).map(|(n, _)| (*n, None)).collect();
        let len = state.live.len;
        state.change(sectors, len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        std::thread::yield_now();
        let mut state = self.state.lock().unwrap();
        state.call()?;
        state.events.push(Event::Sync);
        drop(state);
        // What happens between a sync and its caller's next step matters most.
        (0..4).for_each(|_| std::thread::yield_now());
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

/// The durable content after a prefix of the events, and what may or may not
/// have reached the disk beyond it.
#[derive(Debug, Clone)]
pub struct Pending {
    durable: Image,
    /// By sector: every content that it had since the last sync.
    sectors: BTreeMap<u64, Vec<Option<Sector>>>,
    lens: Vec<u64>,
}

impl Pending {
    /// Nothing but `image`.
    pub fn new(image: Image) -> Pending {
        Pending { durable: image, sectors: BTreeMap::new(), lens: Vec::new() }
    }

    /// Takes one more event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Change { sectors, len } => {
                for (number, sector) in sectors {
                    self.sectors.entry(*number).or_default().push(sector.clone());
                }
                if self.lens.last().unwrap_or(&self.durable.len) != len {
                    self.lens.push(*len);
                }
            }
            Event::Sync => {
                let newest = |choices: &Vec<_>| choices.len();
                let all: Vec<usize> = self.sectors.values().map(newest).collect();
                self.durable = self.cut(&all, self.lens.len());
                self.sectors.clear();
                self.lens.clear();
            }
            Event::Note(_) => {}
        }
    }

    /// How many contents each unsynced sector may have, and how many lengths the file.
    pub fn choices(&self) -> (Vec<usize>, usize) {
        (self.sectors.values().map(|c| c.len() + 1).collect(), self.lens.len() + 1)
    }

    /// What a power cut leaves that takes choice `picks[i]` of the i-th unsynced
    /// sector (0: what was durable) and choice `len` of the file's length.
    pub fn cut(&self, picks: &[usize], len: usize) -> Image {
        let mut image = self.durable.clone();
        for ((number, contents), pick) in self.sectors.iter().zip(picks) {
            if *pick > 0 {
                image.put(*number, contents[pick - 1].clone());
            }
        }
        if len > 0 {
            image.len = self.lens[len - 1];
        }
        // A sector beyond the length did not make it, whatever the disk says.
        let end = image.len.div_ceil(SECTOR);
        image.sectors.split_off(&end);
        image
    }
}
