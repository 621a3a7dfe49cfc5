//! A life of devices on one machine, cut short at every moment.

use std::sync::Arc;

use cowcloop_engine::cowfile::head::{Head, HEAD_BYTES};
use cowcloop_engine::cowfile::{read_head, Access};
use cowcloop_engine::overlay::Overlay;
use cowcloop_engine::storage::{FileStorage, Storage};
use cowcloop_engine::{ErrorKind, Layer, Result};

use crate::disk::{Fault, SimDisk};
use crate::medium::{Event, Files, Image};
use crate::model::Model;
use crate::numbers::Numbers;
use crate::world::{
    base, block_of_page, create, leave_unclean, new_cowfile, place, used_cowfile, watched, Form,
    DEVICE, PAGES, WINDOW, WINDOWS,
};

/// Times that an opening may be refused: for an error of a write-back, and for a call that fails.
const REFUSALS: usize = 4;

/// What is still done with a device that could not be closed.
const AFTER_A_FAILED_CLOSE: [Op; 3] = [
    Op::Write { at: 700, length: 3000, seed: 9 },
    Op::Flush,
    Op::Write { at: WINDOW + 5000, length: 2048, seed: 10 },
];

/// What the user of a device does, and what happens to it.
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
    /// A block for each page of the bitmap.
    Scatter {
        seed: u8,
    },
    Flush,
    /// A clean close, and opened again.
    Reopen,
    /// The server is killed, and another one goes on.
    Kill,
    /// Closed, and gone on with read-only; then opened again.
    ReadOnly,
    Snapshot,
    /// The system fails to write some of what waits; nobody is told before the next sync.
    WriteBackFails,
    /// The system forgets some of what it has in memory.
    Pressure,
    /// A power cut; whatever the disk holds then is opened again.
    Crash {
        pick: u64,
    },
}

/// What the cowfiles lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    Base,
    /// A base that is smaller than the device.
    ShortBase,
    /// Another cowfile.
    Closed(u8),
    /// One that a killed server left.
    Unclean(u8),
}

/// A whole test case.
#[derive(Debug, Clone)]
pub struct Case {
    pub ops: Vec<Op>,
    pub form: Form,
    pub below: Below,
    /// Cowfiles on one base, each written to by itself.
    pub sessions: usize,
    pub quota: Option<u64>,
    /// The head and bitmap stay in the system's cache whatever it is told.
    pub pinned: bool,
    /// Which call on the first cowfile fails, on each machine.
    pub fault: Option<(u64, std::io::ErrorKind)>,
    pub seed: u64,
    /// States of the disk that are tried at one moment, unless there are fewer.
    pub samples: usize,
}

impl Case {
    pub fn new(ops: &[Op], seed: u64, samples: usize) -> Case {
        Case {
            ops: ops.to_vec(),
            form: Form::NEW,
            below: Below::Base,
            sessions: 1,
            quota: None,
            pinned: false,
            fault: None,
            seed,
            samples,
        }
    }

    fn stacked(&self) -> bool {
        matches!(self.below, Below::Closed(_) | Below::Unclean(_))
    }
}

/// Puts something between the code under test and the simulated disk.
pub type Wrap = fn(Arc<SimDisk>) -> Arc<dyn Storage>;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// Power cuts.
    pub cuts: u64,
    /// The most calls on the first cowfile on one machine.
    pub calls: u64,
}

type Outcome<T = ()> = std::result::Result<T, String>;

/// Runs a case and cuts the power at every moment of it.
///
/// Returns how much was tried, or how the promise was broken.
pub fn run(case: &Case, wrap: Wrap) -> Outcome<Tried> {
    let base = base(case.below == Below::ShortBase);
    let mut images = Vec::new();
    if let Below::Closed(form) | Below::Unclean(form) = case.below {
        images.push(used_cowfile(Form::number(u64::from(form)), &base));
    }
    images.resize(images.len() + case.sessions, Image::default());
    let wide = case.ops.iter().any(|op| matches!(op, Op::Scatter { .. }));
    let mut life = Life {
        case,
        wrap,
        base,
        watched: watched(wide),
        numbers: Numbers(case.seed),
        starts: images.clone(),
        images,
        tried: Tried::default(),
    };
    let mut ops = &case.ops[..];
    let mut first = true;
    loop {
        let end = ops.iter().position(|op| matches!(op, Op::Crash { .. }));
        let (now, next) = ops.split_at(end.unwrap_or(ops.len()));
        life.machine(now, next.first(), first)?;
        first = false;
        match next.split_first() {
            Some((_, rest)) => ops = rest,
            None => return Ok(life.tried),
        }
    }
}

struct Life<'a> {
    case: &'a Case,
    wrap: Wrap,
    base: Arc<dyn Layer>,
    watched: Vec<u64>,
    numbers: Numbers,
    /// What is durable when the machine starts: the lower cowfile first, if there is one.
    images: Vec<Image>,
    /// The same, with the cowfiles that were made on the first machine.
    starts: Vec<Image>,
    tried: Tried,
}

/// A cowfile that is served.
struct Session {
    disk: Arc<SimDisk>,
    overlay: Overlay,
    model: Arc<Model>,
    poisoned: bool,
    /// Something was given up since it was opened: what it shows may go back.
    lossy: bool,
}

impl Session {
    fn read(&self, at: u64, buf: &mut [u8]) {
        self.disk.inspect(|| self.overlay.read_at(buf, at)).expect("reads go on");
    }
}

/// The models of all sessions, by note.
struct Notes(Vec<Vec<Arc<Model>>>);

impl Notes {
    fn take(&mut self, sessions: &[Session]) {
        self.0.push(sessions.iter().map(|session| session.model.clone()).collect());
        sessions[0].disk.note(self.0.len() - 1);
    }

    /// What only the disk knows, from some moment of a change that failed half-way on.
    fn amend(&mut self, which: usize, model: &Arc<Model>) {
        self.0.last_mut().expect("there is one")[which] = model.clone();
    }
}

impl Life<'_> {
    fn open(&self, disk: Arc<SimDisk>, lower: &Arc<dyn Layer>) -> Result<Overlay> {
        let overlay = Overlay::open((self.wrap)(disk), lower.clone(), Access::Writable)?;
        if let Some(quota) = self.case.quota {
            overlay.cowfile().limit_space(quota);
        }
        Ok(overlay)
    }

    /// Opens the cowfiles, does `ops`, ends as `end` says, and tries a power cut at every
    /// moment of it.
    fn machine(&mut self, ops: &[Op], end: Option<&Op>, first: bool) -> Outcome {
        let disks = SimDisk::machine(self.images.clone(), self.case.seed);
        let below = usize::from(self.case.stacked());
        let lower = self.open_lower(&disks[..below], first)?;
        self.starts = self.images.clone();
        let mut sessions = Vec::new();
        for (number, disk) in disks.iter().enumerate().skip(below) {
            if first {
                create(disk, self.case.form, &*lower);
                self.starts[number] = new_cowfile(self.case.form, &*lower);
            }
            if self.case.pinned {
                let (head, _) = read_head(&**disk).map_err(|e| e.to_string())?;
                disk.pin(head.doffset);
            }
            let overlay = self.open(disk.clone(), &lower).map_err(|e| e.to_string())?;
            let read = |at, buf: &mut [u8]| overlay.read_at(buf, at).expect("it can be read");
            let model = Arc::new(Model::new(self.watched.iter().copied(), read));
            let disk = disk.clone();
            sessions.push(Session { disk, overlay, model, poisoned: false, lossy: false });
        }
        let mut notes = Notes(Vec::new());
        notes.take(&sessions);
        let fault = self.case.fault.map(|(call, kind)| Fault { call, kind });
        sessions[0].disk.inject(fault);
        for op in ops {
            let which = self.numbers.below(sessions.len());
            self.step(op, which, &mut sessions, &mut notes, &lower)?;
        }
        self.tried.calls = self.tried.calls.max(sessions[0].disk.calls());
        let (_, events) = sessions[0].disk.history();
        drop(sessions);
        self.cut_everywhere(&events, &notes, end)
    }

    /// The layer that the cowfiles lie on; a killed server has left it on the first machine.
    fn open_lower(&mut self, disks: &[Arc<SimDisk>], first: bool) -> Outcome<Arc<dyn Layer>> {
        let Some(disk) = disks.first() else { return Ok(self.base.clone()) };
        if first && matches!(self.case.below, Below::Unclean(_)) {
            leave_unclean(disk.clone(), &self.base);
            if self.numbers.below(2) == 0 {
                disk.fail_write_back();
            }
        }
        let open = || {
            let storage = (self.wrap)(disk.clone());
            Overlay::open(storage, self.base.clone(), Access::ReadOnly)
        };
        // The first one may be told of the write-back that failed.
        let opened = open().or_else(|_| open()).map_err(|error| error.to_string())?;
        Ok(Arc::new(opened))
    }

    fn step(
        &mut self,
        op: &Op,
        which: usize,
        sessions: &mut [Session],
        notes: &mut Notes,
        lower: &Arc<dyn Layer>,
    ) -> Outcome {
        let session = &mut sessions[which];
        match *op {
            Op::Write { at, length, seed } => {
                let at = place(at).min(DEVICE - length);
                let byte = move |i: u64| seed.wrapping_add((i * 31) as u8);
                change(sessions, which, notes, (at, length), byte, false)?;
            }
            Op::Zero { at, length } => {
                let at = place(at).min(DEVICE - length);
                change(sessions, which, notes, (at, length), |_| 0, true)?;
            }
            Op::Scatter { seed } => {
                for page in 0..PAGES {
                    let byte = move |i: u64| seed.wrapping_add((i + page) as u8);
                    change(sessions, which, notes, (block_of_page(page), 1024), byte, false)?;
                }
            }
            Op::Flush => {
                let outcome = session.overlay.flush();
                check_refused(&mut session.poisoned, &outcome)?;
                if outcome.is_ok() {
                    Arc::make_mut(&mut session.model).flush();
                    notes.take(sessions);
                }
            }
            Op::Snapshot => self.snapshot(which, sessions, notes, lower)?,
            Op::Reopen | Op::ReadOnly => {
                let outcome = match op {
                    Op::Reopen => session.overlay.close(),
                    _ => session.overlay.cowfile().make_read_only(),
                };
                check_refused(&mut session.poisoned, &outcome)?;
                if outcome.is_ok() {
                    Arc::make_mut(&mut session.model).flush();
                    notes.take(sessions);
                    let refused = sessions[which].overlay.write_at(&[1], 0).map_err(|e| e.kind());
                    if refused != Err(ErrorKind::ReadOnly) {
                        return Err("a change was accepted after a close".into());
                    }
                } else {
                    for op in &AFTER_A_FAILED_CLOSE {
                        self.step(op, which, sessions, notes, lower)?;
                    }
                }
                self.reopen(which, sessions, notes, lower)?;
            }
            Op::Kill => self.reopen(which, sessions, notes, lower)?,
            Op::WriteBackFails => session.disk.fail_write_back(),
            Op::Pressure => session.disk.press(),
            Op::Crash { .. } => unreachable!("it ends the machine"),
        }
        let session = &mut sessions[which];
        session.lossy |= session.disk.gave_up();
        let mut model = session.model.clone();
        let read = |at, buf: &mut [u8]| session.read(at, buf);
        let wrong = match session.lossy {
            // Nobody was told yet, or all is refused: a block that was new may show anything.
            true => Arc::make_mut(&mut model).adopt(read).and(None),
            false => model.difference(read),
        };
        session.model = model;
        match wrong {
            Some(sector) => Err(format!("sector {sector} reads wrong in a live device")),
            None => Ok(()),
        }
    }

    /// The process is gone, and another one opens the cowfile.
    fn reopen(
        &mut self,
        which: usize,
        sessions: &mut [Session],
        notes: &mut Notes,
        lower: &Arc<dyn Layer>,
    ) -> Outcome {
        let disk = sessions[which].disk.clone();
        match self.numbers.below(3) {
            0 => disk.forget(),
            1 => disk.press(),
            _ => {}
        }
        let mut refusals = 0;
        let overlay = loop {
            match self.open(disk.clone(), lower) {
                Ok(overlay) => break overlay,
                Err(error)
                    if error.kind() != ErrorKind::Io && error.kind() != ErrorKind::NoSpace =>
                {
                    return Err(format!("cannot be opened by another server: {error}"));
                }
                Err(error) if refusals == REFUSALS => return Err(error.to_string()),
                Err(_) => refusals += 1,
            }
        };
        let session = &mut sessions[which];
        session.overlay = overlay;
        session.poisoned = false;
        session.lossy = false;
        disk.gave_up();
        // Bits that were not flushed went with the process, and what was given up with them.
        let mut model = session.model.clone();
        let wrong = Arc::make_mut(&mut model).adopt(|at, buf| session.read(at, buf));
        session.model = model;
        notes.take(sessions);
        match wrong {
            Some(sector) => Err(format!("sector {sector} reads wrong with another server")),
            None => Ok(()),
        }
    }

    fn snapshot(
        &mut self,
        which: usize,
        sessions: &mut [Session],
        notes: &mut Notes,
        lower: &Arc<dyn Layer>,
    ) -> Outcome {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(folder).map_err(|e| e.to_string())?;
        let path = folder.path().join("snapshot.cow");
        let session = &mut sessions[which];
        let outcome = session.overlay.cowfile().snapshot(&path).map(|_| ());
        check_refused(&mut session.poisoned, &outcome)?;
        if outcome.is_err() {
            return Ok(());
        }
        Arc::make_mut(&mut session.model).flush();
        notes.take(sessions);
        let file = Arc::new(FileStorage::open(&path).map_err(|e| e.to_string())?);
        let copy =
            Overlay::open(file, lower.clone(), Access::ReadOnly).map_err(|e| e.to_string())?;
        let read = |at, buf: &mut [u8]| copy.read_at(buf, at).expect("it can be read");
        match sessions[which].model.difference(read) {
            Some(sector) => Err(format!("sector {sector} reads wrong in a snapshot")),
            None => Ok(()),
        }
    }

    fn cut_everywhere(&mut self, events: &[Event], notes: &Notes, end: Option<&Op>) -> Outcome {
        let mut files = Files::new(self.images.clone());
        let mut models = None;
        let mut moments = Vec::new();
        for event in events {
            if let Event::Note(note) = event {
                models = Some(&notes.0[*note]);
            }
            files.apply(event);
            // Before the first note another server wrote to the lower cowfile.
            let Some(models) = models else { continue };
            for picks in states_of(&mut self.numbers, &files, self.case.samples) {
                self.check(files.cut(&picks), models)?;
                self.tried.cuts += 1;
            }
            if matches!(end, Some(Op::Crash { .. })) {
                moments.push(files.clone());
            }
        }
        if let Some(Op::Crash { pick }) = end {
            let moment = &moments[*pick as usize % moments.len()];
            let picks: Vec<_> = moment.choices().iter().map(|n| self.numbers.below(*n)).collect();
            self.images = moment.cut(&picks);
        }
        Ok(())
    }

    /// Opens what a power cut left and holds it against the promise.
    fn check(&mut self, images: Vec<Image>, models: &[Arc<Model>]) -> Outcome {
        let mut lower = self.base.clone();
        let below = usize::from(self.case.stacked());
        for (number, image) in images.into_iter().enumerate() {
            let disk = Arc::new(SimDisk::new(image.clone()));
            let failed = |error| format!("cannot be opened again: {error}");
            if number < below {
                lower = Arc::new(Overlay::open(disk, lower, Access::ReadOnly).map_err(failed)?);
                continue;
            }
            if changed_before_its_head(&self.starts[number], &image)? {
                return Err("the file was changed before its head said so".into());
            }
            let overlay = Overlay::open(disk.clone(), lower.clone(), Access::Writable);
            let overlay = overlay.map_err(failed)?;
            let read = |at, buf: &mut [u8]| overlay.read_at(buf, at).expect("it can be read");
            if let Some(sector) = models[number - below].violation(read) {
                return Err(format!(
                    "sector {sector} holds what it never held since the last flush"
                ));
            }
            // Now and then: closed cleanly, it is what the original driver accepts.
            if self.numbers.below(16) == 0 {
                check_closed(&disk, &overlay, &lower)?;
            }
        }
        Ok(())
    }
}

/// Writes to a session, or zeros it, and notes what it may show from now on.
fn change(
    sessions: &mut [Session],
    which: usize,
    notes: &mut Notes,
    (at, length): (u64, u64),
    byte: impl Fn(u64) -> u8 + Copy,
    zero: bool,
) -> Outcome {
    Arc::make_mut(&mut sessions[which].model).write(at, length, byte);
    notes.take(sessions);
    let session = &mut sessions[which];
    let outcome = match zero {
        true => session.overlay.write_zeroes(at, length, false),
        false => session.overlay.write_at(&(0..length).map(byte).collect::<Vec<u8>>(), at),
    };
    check_refused(&mut session.poisoned, &outcome)?;
    if outcome.is_err() {
        let mut model = session.model.clone();
        let read = |at, buf: &mut [u8]| session.read(at, buf);
        let lossy = session.lossy || session.disk.gave_up();
        Arc::make_mut(&mut model).settle(at, length, lossy, read);
        session.lossy = lossy;
        notes.amend(which, &model);
        session.model = model;
    }
    Ok(())
}

fn check_closed(disk: &Arc<SimDisk>, overlay: &Overlay, lower: &Arc<dyn Layer>) -> Outcome {
    overlay.write_at(&[1; 700], WINDOWS[1]).map_err(|e| e.to_string())?;
    overlay.close().map_err(|e| e.to_string())?;
    let (head, _) = read_head(&**disk).map_err(|e| e.to_string())?;
    let bits = overlay.cowfile().bitmap().count();
    if (head.version, head.dirty, head.cowused) != (1, false, bits) {
        return Err(format!("a closed cowfile has the head {head:?}"));
    }
    match Overlay::open(disk.clone(), lower.clone(), Access::Writable) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("a closed cowfile cannot be opened: {error}")),
    }
}

/// All states of the disk that a power cut may leave now, or so many of them.
pub fn states_of(numbers: &mut Numbers, files: &Files, samples: usize) -> Vec<Vec<usize>> {
    let choices = files.choices();
    let all = choices.iter().try_fold(1, |n: usize, c| n.checked_mul(*c));
    if let Some(all) = all.filter(|n| *n <= samples) {
        let state = |mut number: usize| {
            let next = |n: &usize| {
                let pick = number % n;
                number /= n;
                pick
            };
            choices.iter().map(next).collect()
        };
        return (0..all).map(state).collect();
    }
    let newest: Vec<usize> = choices.iter().map(|n| n - 1).collect();
    let mut states = vec![vec![0; choices.len()], newest.clone()];
    while states.len() < samples {
        // Half of them lose one sector only, or keep one only.
        let one = numbers.below(choices.len());
        states.push(match numbers.below(4) {
            0 => {
                let mut picks = newest.clone();
                picks[one] = 0;
                picks
            }
            1 => {
                let mut picks = vec![0; choices.len()];
                picks[one] = choices[one] - 1;
                picks
            }
            _ => choices.iter().map(|n| numbers.below(*n)).collect(),
        });
    }
    states
}

/// Whether a disk that held `start` was changed behind a head that still says otherwise.
pub fn changed_before_its_head(start: &Image, image: &Image) -> Outcome<bool> {
    let generation = |image: &Image| {
        let head: Result<(Head, _)> = read_head(&SimDisk::new(image.clone()));
        head.map(|(head, _)| head.mark.map(|mark| mark.generation)).map_err(|e| e.to_string())
    };
    Ok(generation(start)? == generation(image)? && !start.same_from(image, HEAD_BYTES))
}

/// After a failed sync everything that changes the file must be refused.
fn check_refused(poisoned: &mut bool, outcome: &Result<()>) -> Outcome {
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
