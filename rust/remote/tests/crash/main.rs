//! The promise of the cache, held against simulated power cuts: after any crash, a bit means
//! bytes that are right.
//!
//! Random lives of a cache run through the real code on the disk that the cowfile's promise is
//! tested on; after every event the power is cut, and what is left is opened again.
//! `docs/crash-safety.md` has the argument. `COWCLOOP_CRASH_SEED` and `COWCLOOP_CRASH_CUTS` are
//! those of the engine's test.

#[path = "../../../engine/tests/crash/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "../../../engine/tests/crash/medium.rs"]
#[allow(dead_code)]
mod medium;
#[path = "../../../engine/tests/crash/numbers.rs"]
mod numbers;

use std::io::{self, ErrorKind};
use std::sync::Arc;

use cowcloop_engine::storage::Storage;
use cowcloop_remote::cache::{Cache, Kept, CHUNK};
use disk::{Fault, SimDisk};
use medium::{Event, Files, Image};
use numbers::Numbers;

/// An image of three chunks and a bit.
const SIZE: u64 = 3 * CHUNK + 1000;
const CHUNKS: u64 = 4;
/// Cuts after each event.
const CUTS: usize = 6;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The bytes of a chunk, as the server has them: no sector of them is zeros, or another's.
fn right(chunk: u64) -> Vec<u8> {
    let length = (SIZE - chunk * CHUNK).min(CHUNK);
    (0..length).map(|at| ((chunk * 37 + at / 512 * 11 + at % 7) % 251 + 1) as u8).collect()
}

/// How the cache is given its disk: as it is, or with a rule broken.
type Wrap = fn(Arc<SimDisk>) -> Arc<dyn Storage>;

fn plain(disk: Arc<SimDisk>) -> Arc<dyn Storage> {
    disk
}

/// Files of a machine: the image's bytes, and the state.
fn fresh() -> Vec<Image> {
    let data = SimDisk::default();
    data.write_all_at(&[0], SIZE - 1).unwrap();
    let state = SimDisk::default();
    state.write_all_at(&[0; 4097], 0).unwrap();
    let durable = |disk: SimDisk| {
        disk.sync().unwrap();
        let (start, events) = disk.history();
        let mut files = Files::new(vec![start]);
        events.iter().for_each(|event| files.apply(event));
        let newest: Vec<usize> = files.choices().iter().map(|choices| choices - 1).collect();
        files.cut(&newest).remove(0)
    };
    vec![durable(data), durable(state)]
}

/// The chunks that are there, and whether each is right. `spoilt`: chunks that may be wrong.
fn check(images: Vec<Image>, spoilt: &[bool]) -> Result<(), String> {
    let mut files = images.into_iter().map(|image| Arc::new(SimDisk::new(image)));
    let (data, state) = (files.next().unwrap(), files.next().unwrap());
    let cache = Cache::on(data, state, SIZE).map_err(|error| format!("not opened: {error}"))?;
    for chunk in (0..CHUNKS).filter(|chunk| cache.has(*chunk) && !spoilt[*chunk as usize]) {
        let mut found = vec![0; right(chunk).len()];
        cache.read(&mut found, chunk * CHUNK).map_err(|error| format!("{chunk}: {error}"))?;
        if found != right(chunk) {
            return Err(format!("chunk {chunk} has its bit, and is wrong"));
        }
    }
    Ok(())
}

/// A life of a cache: what happens in it follows from `numbers`.
struct Life {
    data: Arc<SimDisk>,
    state: Arc<SimDisk>,
    wrap: Wrap,
    cache: Option<Cache>,
    /// Chunks that rotted on the medium, and were not fetched anew and settled since.
    rotten: [bool; CHUNKS as usize],
    renewed: [bool; CHUNKS as usize],
    /// What may be wrong at each note in the history.
    notes: Vec<[bool; CHUNKS as usize]>,
}

impl Life {
    fn note(&mut self) {
        self.data.note(self.notes.len());
        self.notes.push(self.rotten);
    }

    fn cache(&mut self) -> io::Result<&Cache> {
        let made = match self.cache.take() {
            Some(cache) => cache,
            None => {
                Cache::on((self.wrap)(self.data.clone()), (self.wrap)(self.state.clone()), SIZE)?
            }
        };
        Ok(self.cache.insert(made))
    }

    fn step(&mut self, numbers: &mut Numbers) {
        let chunk = numbers.below(CHUNKS as usize) as u64;
        match numbers.below(12) {
            0..=4 => {
                let end = (chunk + 1 + numbers.below(2) as u64).min(CHUNKS);
                let bytes: Vec<u8> = (chunk..end).flat_map(right).collect();
                // What is there is not written again.
                let absent = (chunk..end)
                    .map(|chunk| self.cache().is_ok_and(|cache| !cache.has(chunk)))
                    .collect::<Vec<_>>();
                let kept = self.cache().is_ok_and(|cache| cache.keep(chunk, &bytes) != Kept::Not);
                for (chunk, absent) in (chunk..end).zip(absent) {
                    self.renewed[chunk as usize] |= kept && absent && self.rotten[chunk as usize];
                }
            }
            5..=7 => {
                if self.cache().is_ok_and(|cache| cache.settle().is_ok()) {
                    for chunk in 0..CHUNKS as usize {
                        self.rotten[chunk] &= !self.renewed[chunk];
                    }
                    self.note();
                }
                self.renewed = Default::default();
            }
            8 => {
                let _ = self.cache().map(|cache| cache.forget(chunk, chunk + 1));
                self.renewed[chunk as usize] = false;
            }
            9 => {
                // A kill: the next process knows what is in the files.
                self.cache = None;
                self.renewed = Default::default();
            }
            10 => self.fail(numbers),
            _ => {
                // A flipped bit on the medium. From before it is there.
                self.rotten[chunk as usize] = true;
                self.renewed[chunk as usize] = false;
                self.note();
                let at = chunk * CHUNK + 7;
                self.data.inspect(|| self.data.write_all_at(&[0xff], at)).unwrap();
            }
        }
    }

    /// The disk fails, or the system forgets what it holds.
    fn fail(&mut self, numbers: &mut Numbers) {
        let disk = if numbers.below(2) == 0 { &self.data } else { &self.state };
        let kinds = [ErrorKind::Other, ErrorKind::StorageFull];
        match numbers.below(3) {
            0 => disk.fail_write_back(),
            1 => disk.press(),
            _ => {
                let call = numbers.below(3) as u64;
                disk.inject(Some(Fault { call, kind: kinds[numbers.below(2)] }));
            }
        }
    }
}

/// Leads a life and cuts the power everywhere in it: how often.
fn lead(seed: u64, wrap: Wrap) -> Result<u64, String> {
    let mut numbers = Numbers(seed);
    let images = fresh();
    let disks = SimDisk::machine(images.clone(), seed);
    let mut life = Life {
        data: disks[0].clone(),
        state: disks[1].clone(),
        wrap,
        cache: None,
        rotten: Default::default(),
        renewed: Default::default(),
        notes: Vec::new(),
    };
    for _ in 0..3 + numbers.below(14) {
        life.step(&mut numbers);
    }
    let (_, events) = disks[0].history();
    let mut files = Files::new(images);
    let (mut spoilt, mut cuts) = ([false; CHUNKS as usize], 0);
    for event in &events {
        files.apply(event);
        if let Event::Note(note) = event {
            spoilt = life.notes[*note];
        }
        let choices = files.choices();
        for _ in 0..CUTS {
            let picks: Vec<usize> = choices.iter().map(|choices| numbers.pick(*choices)).collect();
            check(files.cut(&picks), &spoilt).map_err(|broken| format!("seed {seed}: {broken}"))?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

fn explore(wanted: u64, wrap: Wrap) -> Result<u64, String> {
    let first = setting("COWCLOOP_CRASH_SEED", 1) << 32;
    let (mut cuts, mut seed) = (0, first);
    while cuts < wanted {
        cuts += lead(seed, wrap)?;
        seed += 1;
    }
    println!("{cuts} power cuts in {} lives", seed - first);
    Ok(cuts)
}

#[test]
fn a_bit_means_bytes_that_are_right() {
    explore(setting("COWCLOOP_CRASH_CUTS", 100_000), plain).unwrap();
}

/// A disk whose sync is left out.
#[derive(Debug)]
struct Unsynced(Arc<SimDisk>);

impl Storage for Unsynced {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.punch_hole(offset, length)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.0.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.0.next_hole(offset)
    }
    fn allocated(&self) -> io::Result<u64> {
        self.0.allocated()
    }
}

#[test]
fn a_sync_that_is_left_out_is_found() {
    let broken = explore(20_000, |disk| Arc::new(Unsynced(disk))).unwrap_err();
    assert!(broken.contains("has its bit, and is wrong"), "{broken}");
}
