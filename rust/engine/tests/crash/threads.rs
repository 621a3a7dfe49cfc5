//! The promise with several users at once: threads write, zero and flush, and
//! afterwards the power is cut at every moment of what they did together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cowcloop_engine::format::cowfile::Access;
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::{ErrorKind, Layer};

use crate::disk::SimDisk;
use crate::medium::{Event, Files, SECTOR};
use crate::numbers::Numbers;
use crate::promise::{changed_before_its_head, states_of};
use crate::scenario::Wrap;
use crate::world::{base, new_cowfile, place, Form, WINDOW};

type Sector = [u8; SECTOR as usize];

const WRITERS: usize = 3;

/// States of the disk that are tried at one moment.
const SAMPLES: usize = 6;

/// Requests of one writer.
const REQUESTS: usize = 24;

/// What a thread says before and after each request, in one order for all.
enum Step {
    /// From now on the sectors may hold this; it is the writer's request of this number.
    Begin {
        number: u64,
        sectors: Vec<u64>,
        content: Box<Sector>,
    },
    Acknowledged {
        writer: usize,
        number: u64,
    },
    FlushBegins {
        thread: usize,
    },
    FlushAcknowledged {
        thread: usize,
    },
    /// All that was acknowledged by now is durable, and nothing more will be accepted.
    Closed,
}

/// The only writer of a sector: owners change with each sector in one half of the
/// windows, so that they share blocks, and with each block in the other.
fn owner(position: u64) -> usize {
    let unit = if (position / WINDOW).is_multiple_of(2) { SECTOR } else { 2 * SECTOR };
    (position / unit) as usize % WRITERS
}

/// A life of a new cowfile under several threads, cut short at every moment.
///
/// Returns how many power cuts were tried, or how the promise was broken.
pub fn run(seed: u64, wrap: Wrap) -> Result<u64, String> {
    let lower = base(seed % 2 == 1);
    let start = new_cowfile(Form::number(seed / 2), &*lower);
    let disk = Arc::new(SimDisk::new(start.clone()));
    let open = |storage| {
        Overlay::open(storage, lower.clone(), Access::Writable).map_err(|error| error.to_string())
    };
    let overlay = open(wrap(disk.clone()))?;
    let steps = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (overlay, disk, steps) = (&overlay, &disk, &steps);
            let numbers = Numbers(seed.wrapping_mul(31) + writer as u64);
            let closes = writer == 0 && seed.is_multiple_of(3);
            scope.spawn(move || {
                write(overlay, writer, numbers, closes, |step| tell(disk, steps, step))
            });
        }
    });
    drop(overlay);

    let steps = steps.into_inner().unwrap();
    let (_, events) = disk.history();
    let mut numbers = Numbers(seed);
    let mut files = Files::new(vec![start.clone()]);
    let mut allowed = Allowed::new(&open(Arc::new(SimDisk::new(start.clone())))?);
    let mut cuts = 0;
    for event in &events {
        match event {
            Event::Note(note) => allowed.take(&steps[*note])?,
            _ => files.apply(event),
        }
        for picks in states_of(&mut numbers, &files, SAMPLES) {
            let image = files.cut(&picks).remove(0);
            if changed_before_its_head(&start, &image)? {
                return Err("the file was changed before its head said so".into());
            }
            let overlay = open(Arc::new(SimDisk::new(image)))?;
            allowed.check(&overlay)?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

/// Writes a step down, and when it was among what happened to the disk.
fn tell(disk: &SimDisk, steps: &Mutex<Vec<Step>>, step: Step) {
    let mut steps = steps.lock().unwrap();
    steps.push(step);
    disk.note(steps.len() - 1);
}

/// `closes`: it closes the device half-way, while the others go on until they are refused.
fn write(
    overlay: &Overlay,
    writer: usize,
    mut numbers: Numbers,
    closes: bool,
    tell: impl Fn(Step),
) {
    for number in 1..=REQUESTS as u64 {
        if closes && number > REQUESTS as u64 / 2 {
            overlay.close().expect("nothing fails here");
            tell(Step::Closed);
            return;
        }
        let position = loop {
            let position = numbers.below((4 * WINDOW / SECTOR) as usize) as u64 * SECTOR;
            if owner(position) == writer {
                break position;
            }
        };
        let alone = position % WINDOW + SECTOR < WINDOW && owner(position + SECTOR) == writer;
        let count = if alone { 1 + numbers.below(2) as u64 } else { 1 };
        let zero = numbers.below(4) == 0;
        let mut content = Box::new([0; SECTOR as usize]);
        if !zero {
            content.fill(1 + writer as u8);
            content[..8].copy_from_slice(&number.to_le_bytes());
        }
        let at = place(position);
        let sectors = (at / SECTOR..).take(count as usize).collect();
        tell(Step::Begin { number, sectors, content: content.clone() });
        let outcome = if zero {
            overlay.write_zeroes(at, count * SECTOR, false)
        } else {
            overlay.write_at(&content.repeat(count as usize), at)
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::ReadOnly => return,
            other => other.expect("nothing else fails here"),
        }
        tell(Step::Acknowledged { writer, number });
        // The first writer never flushes: the others' flushes must cover it too.
        if writer > 0 && numbers.below(3) == 0 {
            tell(Step::FlushBegins { thread: writer });
            overlay.flush().expect("nothing fails here");
            tell(Step::FlushAcknowledged { thread: writer });
        }
    }
}

/// What each sector may read as.
struct Allowed {
    /// By sector: its owner, and what it held, oldest first, with the request's number.
    sectors: BTreeMap<u64, (usize, Vec<(u64, Sector)>)>,
    acknowledged: [u64; WRITERS],
    /// By thread: what had been acknowledged when its flush began.
    covered: [[u64; WRITERS]; WRITERS],
    durable: [u64; WRITERS],
    closed: bool,
    /// Requests, by writer and number, that began after a close.
    refused: Vec<(usize, u64)>,
}

impl Allowed {
    fn new(fresh: &Overlay) -> Allowed {
        let load = |position: u64| {
            let mut sector = [0; SECTOR as usize];
            fresh.read_at(&mut sector, place(position)).expect("it can be read");
            (place(position) / SECTOR, (owner(position), vec![(0, sector)]))
        };
        Allowed {
            sectors: (0..4 * WINDOW).step_by(SECTOR as usize).map(load).collect(),
            acknowledged: [0; WRITERS],
            covered: [[0; WRITERS]; WRITERS],
            durable: [0; WRITERS],
            closed: false,
            refused: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Begin { number, sectors, content } => {
                if self.closed {
                    let (owner, _) = self.sectors[&sectors[0]];
                    self.refused.push((owner, *number));
                }
                for sector in sectors {
                    self.sectors.get_mut(sector).unwrap().1.push((*number, **content));
                }
            }
            Step::Acknowledged { writer, number } => {
                if self.refused.contains(&(*writer, *number)) {
                    return Err("a change was accepted after a close".into());
                }
                self.acknowledged[*writer] = *number;
            }
            Step::Closed => {
                self.durable = self.acknowledged;
                self.closed = true;
            }
            Step::FlushBegins { thread } => self.covered[*thread] = self.acknowledged,
            Step::FlushAcknowledged { thread } => {
                let covered = self.covered[*thread];
                for (durable, covered) in self.durable.iter_mut().zip(covered) {
                    *durable = covered.max(*durable);
                }
            }
        }
        Ok(())
    }

    fn check(&self, overlay: &Overlay) -> Result<(), String> {
        let mut found = [0; SECTOR as usize];
        for (sector, (owner, values)) in &self.sectors {
            overlay.read_at(&mut found, sector * SECTOR).map_err(|error| error.to_string())?;
            let flushed = values.iter().rposition(|(number, _)| *number <= self.durable[*owner]);
            let newer = &values[flushed.expect("the base counts as flushed")..];
            if newer.iter().all(|(_, content)| *content != found) {
                return Err(format!(
                    "sector {sector} holds what it never held since the last flush"
                ));
            }
        }
        Ok(())
    }
}
