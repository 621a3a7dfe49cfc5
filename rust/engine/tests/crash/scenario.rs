//! A life of devices on one machine, cut short at every moment.

use std::sync::Arc;

use cowcloop_engine::format::cowfile::{read_head, Access};
use cowcloop_engine::overlay::{Keeping, Overlay};
use cowcloop_engine::storage::{FileStorage, Storage};
use cowcloop_engine::{ErrorKind, Layer, Result};

use crate::cases::{Below, Case, Op};
use crate::disk::{Fault, SimDisk};
use crate::medium::{Event, Files, Image};
use crate::model::Model;
use crate::mortal::{Mortal, Process};
use crate::numbers::Numbers;
use crate::promise::{changed_before_its_head, check_closed, check_refused, states_of, Outcome};
use crate::session::{change, Notes, Session};
use crate::world::{
    base, block_of_page, create, leave_unclean, new_cowfile, place, used_cowfile, watched, Form,
    DEVICE, PAGES, WINDOW,
};

/// Times that an opening may be refused: for an error of a write-back, and for a call that fails.
const REFUSALS: usize = 4;

/// What is still done with a device that could not be closed.
const AFTER_A_FAILED_CLOSE: [Op; 4] = [
    Op::Write { at: 700, length: 3000, seed: 9 },
    // New blocks, as far as may be: the head that was to say how many there are is wrong then.
    Op::Write { at: WINDOW + 9000, length: 2048, seed: 11 },
    Op::Flush,
    Op::Write { at: WINDOW + 5000, length: 2048, seed: 10 },
];

/// Puts something between the code under test and the simulated disk.
pub type Wrap = fn(Arc<SimDisk>) -> Arc<dyn Storage>;

/// Given the cowfile and the kept file: what is opened as the cowfile.
pub type Before = fn(&Arc<SimDisk>, &SimDisk) -> Arc<dyn Storage>;

/// What lies between the code under test and its files, and what the test does to them.
#[derive(Clone, Copy)]
pub struct Rules {
    pub cow: Wrap,
    pub kept: Wrap,
    /// Before each opening with a kept file.
    pub before: Option<Before>,
    /// After a power cut the machine says that it is still the same boot.
    pub one_boot: bool,
}

impl Rules {
    /// All rules are kept.
    pub const PLAIN: Rules =
        Rules { cow: |disk| disk, kept: |disk| disk, before: None, one_boot: false };
}

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// Power cuts.
    pub cuts: u64,
    /// The most calls on the first cowfile on one machine.
    pub calls: u64,
}

/// Runs a case and cuts the power at every moment of it.
///
/// Returns how much was tried, or how the promise was broken.
pub fn run(case: &Case, rules: Rules) -> Outcome<Tried> {
    let base = base(case.below == Below::ShortBase);
    let mut images = Vec::new();
    if let Below::Closed(form) | Below::Unclean(form) = case.below {
        images.push(used_cowfile(Form::number(u64::from(form)), &base));
    }
    images.resize(images.len() + case.sessions, Image::default());
    let wide = case.ops.iter().any(|op| matches!(op, Op::Scatter { .. }));
    let mut life = Life {
        case,
        rules,
        boot: 0,
        kept: (0..case.sessions).map(|_| Arc::default()).collect(),
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
    rules: Rules,
    /// Counts the machine's boots.
    boot: u8,
    /// The kept file of each session: it lies on a disk, and outlives the machine.
    kept: Vec<Arc<SimDisk>>,
    base: Arc<dyn Layer>,
    watched: Vec<u64>,
    numbers: Numbers,
    /// What is durable when the machine starts: the lower cowfile first, if there is one.
    images: Vec<Image>,
    /// The same, with the cowfiles that were made on the first machine.
    starts: Vec<Image>,
    tried: Tried,
}

impl Life<'_> {
    /// Opens a cowfile in a process; with a kept file, its bits are kept there.
    fn open(
        &self,
        disk: &Arc<SimDisk>,
        kept: Option<&Arc<SimDisk>>,
        process: &Arc<Process>,
        lower: &Arc<dyn Layer>,
    ) -> Result<Overlay> {
        let inner = match (self.rules.before, kept) {
            (Some(before), Some(kept)) => before(disk, kept),
            _ => (self.rules.cow)(disk.clone()),
        };
        let mortal = |inner, kept| Arc::new(Mortal { process: process.clone(), inner, kept });
        let keeping = kept.map(|kept| Keeping {
            storage: mortal((self.rules.kept)(kept.clone()), true),
            boot: [self.boot; 16],
        });
        let cow = mortal(inner, false);
        let overlay = Overlay::open_kept(cow, lower.clone(), Access::Writable, keeping)?;
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
            let process = Process::new();
            let kept = self.case.kept.then(|| &self.kept[number - below]);
            let overlay = self.open(disk, kept, &process, &lower).map_err(|e| e.to_string())?;
            let read = |at, buf: &mut [u8]| overlay.read_at(buf, at).expect("it can be read");
            let model = Arc::new(Model::new(self.watched.iter().copied(), read));
            sessions.push(Session {
                disk: disk.clone(),
                overlay,
                model,
                poisoned: false,
                lossy: false,
                process,
                kept: self.case.kept,
                in_flight: None,
            });
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
            let storage = (self.rules.cow)(disk.clone());
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
                } else if !session.process.is_dead() {
                    for op in &AFTER_A_FAILED_CLOSE {
                        self.step(op, which, sessions, notes, lower)?;
                    }
                }
                self.reopen(which, self.case.kept, sessions, notes, lower)?;
            }
            Op::Kill => self.reopen(which, self.case.kept, sessions, notes, lower)?,
            Op::KillUnkept => self.reopen(which, false, sessions, notes, lower)?,
            Op::Die { calls } => session.process.kill_after(calls),
            Op::KeptFull(full) => session.process.fill(full),
            Op::WriteBackFails => session.disk.fail_write_back(),
            Op::Pressure => session.disk.press(),
            Op::Crash { .. } => unreachable!("it ends the machine"),
        }
        if sessions[which].process.is_dead() {
            self.reopen(which, self.case.kept, sessions, notes, lower)?;
        }
        let session = &mut sessions[which];
        session.lossy |= session.disk.gave_up();
        let mut model = session.model.clone();
        let read = |at, buf: &mut [u8]| session.read(at, buf);
        let wrong = if session.lossy {
            Arc::make_mut(&mut model).adopt(read).and(None)
        } else {
            model.difference(read)
        };
        session.model = model;
        match wrong {
            Some(sector) => Err(format!("sector {sector} reads wrong in a live device")),
            None => Ok(()),
        }
    }

    /// The process is gone, and another one opens the cowfile; `keep`: with what was kept.
    fn reopen(
        &mut self,
        which: usize,
        keep: bool,
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
        let process = Process::new();
        let mut refusals = 0;
        let overlay = loop {
            let kept = keep.then(|| &self.kept[which]);
            match self.open(&disk, kept, &process, lower) {
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
        let lossy = session.lossy || disk.gave_up();
        let taken_over = keep && session.kept && !lossy;
        let in_flight = session.in_flight.take();
        *session = Session {
            disk,
            overlay,
            model: session.model.clone(),
            poisoned: false,
            lossy: false,
            process,
            kept: keep,
            in_flight: None,
        };
        let mut model = session.model.clone();
        let read = |at, buf: &mut [u8]| session.read(at, buf);
        if let Some((at, length)) = in_flight {
            // It was not acknowledged: each byte is as before or as written.
            Arc::make_mut(&mut model).settle(at, length, !taken_over, read);
        }
        let wrong = if taken_over {
            model.difference(read)
        } else {
            // Bits that were not flushed went with the process, and what was given up with them.
            Arc::make_mut(&mut model).adopt(read)
        };
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
        // In memory where that can be had: a simulation makes very many of them.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.map_err(|e| e.to_string())?;
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
            self.boot += u8::from(!self.rules.one_boot);
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
            // What was kept is there, in the state of a later moment or of this one.
            let keeping = self.case.kept.then(|| Keeping {
                storage: Arc::new(SimDisk::new(self.kept[number - below].live())),
                boot: [self.boot + u8::from(!self.rules.one_boot); 16],
            });
            let overlay =
                Overlay::open_kept(disk.clone(), lower.clone(), Access::Writable, keeping);
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
