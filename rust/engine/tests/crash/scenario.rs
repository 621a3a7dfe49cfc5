//! A life of a device, cut short at every moment.

use std::ops::ControlFlow;
use std::sync::Arc;

use cowcloop_engine::cowfile::head::{ByteOrder, Head, Layout, WordSize, HEAD_BYTES, HEAD_SECTOR};
use cowcloop_engine::cowfile::{read_head, Access, Cowfile};
use cowcloop_engine::layer::ExtentSink;
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::storage::{MemoryStorage, Storage};
use cowcloop_engine::{ErrorKind, Extent, ExtentKind, Layer, Result};

use crate::disk::{Event, Fault, Image, Pending, SimDisk, SECTOR};
use crate::model::Model;

/// Size of the device: its bitmap has three pages.
pub const DEVICE: u64 = 64 << 20;

/// Where the test looks: both ends, and where the pages of the bitmap meet.
const WINDOWS: [u64; 4] = [0, (24 << 20) - WINDOW / 2, (56 << 20) - WINDOW / 2, DEVICE - WINDOW];

/// Bytes of a window.
pub const WINDOW: u64 = 12 << 10;

/// What is still done with a device that could not be closed.
const AFTER_A_FAILED_CLOSE: [Op; 3] = [
    Op::Write { at: 700, length: 3000, seed: 9 },
    Op::Flush,
    Op::Write { at: WINDOW + 5000, length: 2048, seed: 10 },
];

/// What the user of the device does.
#[derive(Debug, Clone)]
pub enum Op {
    Write {
        at: u64,
        length: u64,
        seed: u8,
    },
    Zero {
        at: u64,
        length: u64,
    },
    Flush,
    /// A clean close, and opened again.
    Reopen,
    /// A power cut; whatever the disk holds then is opened again.
    Crash {
        pick: u64,
    },
}

/// A whole test case.
#[derive(Debug, Clone)]
pub struct Case {
    pub ops: Vec<Op>,
    /// The head's layout; a foreign one has no mark of ours either.
    pub layout: Option<(bool, bool)>,
    /// Over another cowfile, not over the base.
    pub stacked: bool,
    /// Which call on the storage fails, in each stretch between openings.
    pub fault: Option<(u64, std::io::ErrorKind)>,
    pub seed: u64,
    /// States of the disk that are tried at one moment, unless there are fewer.
    pub samples: usize,
}

/// Where in the device a position of the test's own 48 KiB lies.
pub fn place(at: u64) -> u64 {
    WINDOWS[(at / WINDOW) as usize % WINDOWS.len()] + at % WINDOW
}

/// A base of 64 MiB: every third 4 KiB are zeros, and known to be.
struct Base;

impl Base {
    fn byte(at: u64) -> u8 {
        match at / 4096 % 3 {
            1 => 0,
            _ => (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1,
        }
    }
}

impl Layer for Base {
    fn size(&self) -> u64 {
        DEVICE
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        buf.iter_mut().enumerate().for_each(|(i, byte)| *byte = Base::byte(offset + i as u64));
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64, sink: ExtentSink<'_>) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let stop = ((at / 4096 + 1) * 4096).min(end);
            let kind = if at / 4096 % 3 == 1 { ExtentKind::Zero } else { ExtentKind::Data };
            if sink(Extent { offset: at, length: stop - at, kind }) == ControlFlow::Break(()) {
                break;
            }
            at = stop;
        }
        Ok(())
    }

    fn identity(&self) -> Result<[u8; 32]> {
        Ok([7; 32])
    }
}

/// The layer below the cowfile under test.
pub fn lower(stacked: bool) -> Arc<dyn Layer> {
    let base: Arc<dyn Layer> = Arc::new(Base);
    if !stacked {
        return base;
    }
    let storage = Arc::new(MemoryStorage::new("lower.cow", u64::MAX));
    Cowfile::create(&*storage, &*base, DEVICE).unwrap();
    let overlay = Overlay::open(storage.clone(), base.clone(), Access::Writable).unwrap();
    for window in WINDOWS {
        overlay.write_at(&[0x55; 3000], window + 700).unwrap();
        overlay.write_zeroes(window + 8192, 2048, false).unwrap();
    }
    overlay.close().unwrap();
    drop(overlay);
    Arc::new(Overlay::open(storage, base, Access::ReadOnly).unwrap())
}

/// The durable image of a new cowfile.
pub fn new_cowfile(layout: Option<(bool, bool)>, lower: &dyn Layer) -> Image {
    let disk = SimDisk::default();
    Cowfile::create(&disk, lower, DEVICE).unwrap();
    if let Some((big, wide)) = layout {
        let (mut head, _): (Head, _) = read_head(&disk).unwrap();
        head.layout = Layout {
            order: if big { ByteOrder::Big } else { ByteOrder::Little },
            word: if wide { WordSize::Bits64 } else { WordSize::Bits32 },
        };
        head.mark = None;
        let mut sector = [0; HEAD_SECTOR];
        head.encode_into(&mut sector);
        disk.write_all_at(&sector, 0).unwrap();
        disk.sync().unwrap();
    }
    let (start, events) = disk.history();
    let mut pending = Pending::new(start);
    events.iter().for_each(|event| pending.apply(event));
    pending.cut(&[], 0)
}

/// A small generator of numbers, the same for the same seed.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Puts something between the code under test and the simulated disk.
pub type Wrap = fn(Arc<SimDisk>) -> Arc<dyn Storage>;

/// Runs a case and cuts the power at every moment of it.
///
/// Returns how much was tried, or how the promise was broken.
pub fn run(case: &Case, wrap: Wrap) -> std::result::Result<Tried, String> {
    let lower = lower(case.stacked);
    let image = new_cowfile(case.layout, &*lower);
    let (numbers, tried) = (Numbers(case.seed), Tried::default());
    let mut life = Life { lower, wrap, numbers, image, samples: case.samples, tried };
    let mut ops = &case.ops[..];
    loop {
        let end = ops.iter().position(|op| matches!(op, Op::Reopen | Op::Crash { .. }));
        let (now, next) = ops.split_at(end.unwrap_or(ops.len()));
        life.live(now, next.first(), case.fault)?;
        match next.split_first() {
            Some((_, rest)) => ops = rest,
            None => return Ok(life.tried),
        }
    }
}

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// Power cuts.
    pub cuts: u64,
    /// The most calls on the storage in one stretch between openings.
    pub calls: u64,
}

struct Life {
    lower: Arc<dyn Layer>,
    wrap: Wrap,
    numbers: Numbers,
    /// What is durable when the file is opened next.
    image: Image,
    samples: usize,
    tried: Tried,
}

impl Life {
    fn open(&self, storage: Arc<dyn Storage>) -> Result<Overlay> {
        Overlay::open(storage, self.lower.clone(), Access::Writable)
    }

    /// Opens the cowfile, does `ops`, ends as `end` says, and tries a power cut
    /// at every moment of it.
    fn live(
        &mut self,
        ops: &[Op],
        end: Option<&Op>,
        fault: Option<(u64, std::io::ErrorKind)>,
    ) -> std::result::Result<(), String> {
        let disk = Arc::new(SimDisk::new(self.image.clone()));
        let overlay = self.open((self.wrap)(disk.clone())).map_err(|e| e.to_string())?;
        let watched = WINDOWS.iter().flat_map(|w| w / SECTOR..(w + WINDOW) / SECTOR);
        let read = |at: u64, buf: &mut [u8]| {
            disk.inspect(|| overlay.read_at(buf, at)).expect("reads go on");
        };
        let mut model = Model::new(watched, read);
        let mut models = vec![model.clone()];
        disk.note(0);
        let note = |models: &mut Vec<Model>, model: &Model| {
            models.push(model.clone());
            disk.note(models.len() - 1);
        };
        // A write that fails half-way leaves what only the disk knows, from some
        // moment during the write on.
        let amend = |models: &mut Vec<Model>, model: &Model| {
            *models.last_mut().expect("there is one") = model.clone();
        };
        disk.inject(fault.map(|(call, kind)| Fault { call, kind }));
        let mut poisoned = false;
        let closing = matches!(end, Some(Op::Reopen)).then_some(&Op::Reopen);
        let after = closing.map_or(&[][..], |_| &AFTER_A_FAILED_CLOSE);
        for op in ops.iter().chain(closing).chain(after) {
            match *op {
                Op::Write { at, length, seed } => {
                    let at = place(at).min(DEVICE - length);
                    let byte = |i: u64| seed.wrapping_add((i * 31) as u8);
                    let bytes: Vec<u8> = (0..length).map(byte).collect();
                    model.write(at, length, byte);
                    note(&mut models, &model);
                    let outcome = overlay.write_at(&bytes, at);
                    check_refused(&mut poisoned, &outcome)?;
                    if outcome.is_err() {
                        model.settle(at, length, read);
                        amend(&mut models, &model);
                    }
                }
                Op::Zero { at, length } => {
                    let at = place(at).min(DEVICE - length);
                    model.write(at, length, |_| 0);
                    note(&mut models, &model);
                    let outcome = overlay.write_zeroes(at, length, false);
                    check_refused(&mut poisoned, &outcome)?;
                    if outcome.is_err() {
                        model.settle(at, length, read);
                        amend(&mut models, &model);
                    }
                }
                Op::Flush => {
                    let outcome = overlay.flush();
                    check_refused(&mut poisoned, &outcome)?;
                    if outcome.is_ok() {
                        model.flush();
                        note(&mut models, &model);
                    }
                }
                Op::Reopen => {
                    let outcome = overlay.close();
                    check_refused(&mut poisoned, &outcome)?;
                    if outcome.is_ok() {
                        model.flush();
                        note(&mut models, &model);
                        break;
                    }
                }
                Op::Crash { .. } => unreachable!("it ends a life"),
            }
            if let Some(sector) = model.difference(read) {
                return Err(format!("sector {sector} reads wrong in a live device"));
            }
        }
        drop(overlay);
        self.tried.calls = self.tried.calls.max(disk.calls());
        let (start, events) = disk.history();
        self.cut_everywhere(start, &events, &models, end)
    }

    fn cut_everywhere(
        &mut self,
        start: Image,
        events: &[Event],
        models: &[Model],
        end: Option<&Op>,
    ) -> std::result::Result<(), String> {
        let mut pending = Pending::new(start.clone());
        let mut model = &models[0];
        let mut moments = Vec::new();
        for event in events {
            if let Event::Note(note) = event {
                model = &models[*note];
            }
            pending.apply(event);
            for (picks, len) in states_of(&mut self.numbers, &pending, self.samples) {
                let image = pending.cut(&picks, len);
                self.check(&start, &image, model)?;
                self.tried.cuts += 1;
            }
            if matches!(end, Some(Op::Crash { .. })) {
                moments.push(pending.clone());
            }
        }
        self.image = match end {
            Some(Op::Crash { pick }) if !moments.is_empty() => {
                let moment = &moments[*pick as usize % moments.len()];
                let (choices, lens) = moment.choices();
                let picks: Vec<_> = choices.iter().map(|n| self.numbers.below(*n)).collect();
                moment.cut(&picks, self.numbers.below(lens))
            }
            // The machine goes on: all of it is there.
            _ => {
                pending.apply(&Event::Sync);
                pending.cut(&[], 0)
            }
        };
        Ok(())
    }

    /// Opens what a power cut left and holds it against the promise.
    fn check(
        &mut self,
        start: &Image,
        image: &Image,
        model: &Model,
    ) -> std::result::Result<(), String> {
        if changed_before_its_head(start, image)? {
            return Err("the file was changed before its head said so".into());
        }
        let disk = Arc::new(SimDisk::new(image.clone()));
        let overlay =
            self.open(disk.clone()).map_err(|e| format!("cannot be opened again: {e}"))?;
        let read =
            |at: u64, buf: &mut [u8]| overlay.read_at(buf, at).expect("a device can be read");
        if let Some(sector) = model.violation(read) {
            return Err(format!("sector {sector} holds what it never held since the last flush"));
        }
        // Now and then: closed cleanly, it is what the original driver accepts.
        if self.numbers.below(16) == 0 {
            overlay.write_at(&[1; 700], WINDOWS[1]).map_err(|e| e.to_string())?;
            overlay.close().map_err(|e| e.to_string())?;
            let (head, _) = read_head(&*disk).map_err(|e| e.to_string())?;
            let bits = overlay.cowfile().bitmap().count();
            if (head.version, head.dirty, head.cowused) != (1, false, bits) {
                return Err(format!("a closed cowfile has the head {head:?}"));
            }
            self.open(disk).map_err(|e| format!("a closed cowfile cannot be opened: {e}"))?;
        }
        Ok(())
    }
}

/// All states of the disk that a power cut may leave now, or so many of them.
pub fn states_of(
    numbers: &mut Numbers,
    pending: &Pending,
    samples: usize,
) -> Vec<(Vec<usize>, usize)> {
    let (choices, lens) = pending.choices();
    let all = choices.iter().try_fold(lens, |n, c| n.checked_mul(*c));
    if let Some(all) = all.filter(|n| *n <= samples) {
        let state = |mut number: usize| {
            let mut next = |n: usize| {
                let pick = number % n;
                number /= n;
                pick
            };
            let len = next(lens);
            (choices.iter().map(|n| next(*n)).collect(), len)
        };
        return (0..all).map(state).collect();
    }
    let newest = |choices: &[usize]| choices.iter().map(|n| n - 1).collect::<Vec<_>>();
    let mut states = vec![(vec![0; choices.len()], 0), (newest(&choices), lens - 1)];
    while states.len() < samples {
        // Half of them lose one sector only, or keep one only.
        let picks = match numbers.below(4) {
            0 => {
                let mut picks = newest(&choices);
                let lost = numbers.below(picks.len());
                picks[lost] = 0;
                picks
            }
            1 => {
                let mut picks = vec![0; choices.len()];
                let kept = numbers.below(picks.len());
                picks[kept] = choices[kept] - 1;
                picks
            }
            _ => choices.iter().map(|n| numbers.below(*n)).collect(),
        };
        let len = if numbers.below(3) > 0 { lens - 1 } else { numbers.below(lens) };
        states.push((picks, len));
    }
    states
}

/// Whether a disk that held `start` was changed behind a head that still says otherwise.
pub fn changed_before_its_head(start: &Image, image: &Image) -> std::result::Result<bool, String> {
    let generation = |image: &Image| {
        let head: Result<(Head, _)> = read_head(&SimDisk::new(image.clone()));
        head.map(|(head, _)| head.mark.map(|mark| mark.generation)).map_err(|e| e.to_string())
    };
    Ok(generation(start)? == generation(image)? && !start.same_from(image, HEAD_BYTES))
}

/// After a failed sync everything that changes the file must be refused.
fn check_refused(poisoned: &mut bool, outcome: &Result<()>) -> std::result::Result<(), String> {
    match outcome {
        Ok(()) if *poisoned => Err("a change was accepted after a failed sync".into()),
        Err(error) if *poisoned && error.kind() != ErrorKind::Poisoned => {
            Err(format!("refused for another reason than the failed sync: {error}"))
        }
        Err(error) if error.to_string().contains("sync failed") => {
            *poisoned = true;
            Ok(())
        }
        _ => Ok(()),
    }
}
