//! A block device of the kernel's, made and served here.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use cowcloop_server::{guard, reason, Connection, Event, Events};

use crate::report::TOLD;

use super::abi::{attributes, flags, Info, Parameters, SECTOR};
use super::control::Control;
use super::data::{Buffers, Data};
use super::handler::Handler;
use super::left_behind;
use super::node;
use super::pool::Pool;
use super::queue::{Course, Queue};
use super::End;

/// The most queues: more of them share no less.
const MAX_QUEUES: usize = 4;
/// Requests of a queue that are under way.
const DEPTH: u16 = 64;
/// The most bytes of a request. Half a megabyte is what the kernel merges for other disks.
const MAX_BYTES: u32 = 512 << 10;
/// The same for a device whose buffers are kept all the time.
const KEPT_DEPTH: u16 = 32;
const KEPT_MAX_BYTES: u32 = 256 << 10;

/// What programs shall write in at least, so that no block of 1 KiB is written in part.
const PHYSICAL_BLOCK: u32 = 4096;
/// Bytes of a discard: a large one holds its range for as long as it takes.
const MAX_DISCARD: u64 = 1 << 30;
/// The kernel reads 128 KiB ahead unless told otherwise: too little to keep a pool busy.
const READ_AHEAD_KIB: u32 = 1024;

/// Which device it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One with the next free number.
    New,
    /// One that a server has left behind.
    LeftBehind(u32),
}

/// A block device that is there.
pub struct Device {
    control: Control,
    info: Info,
    threads: Option<Threads>,
    course: Arc<Course>,
    taken_over: bool,
    folder: OwnedFd,
}

/// The threads of a device.
struct Threads {
    pool: Arc<Pool>,
    queues: Vec<JoinHandle<()>>,
}

/// The most requests that may be under way, on this machine.
pub fn most_requests() -> usize {
    queues() * usize::from(DEPTH)
}

fn queues() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_QUEUES)
}

impl Device {
    /// Makes the device, or takes it over. It can be used when this returns. The error is a line
    /// for the user.
    pub fn open(
        connection: Connection,
        wanted: Wanted,
        ended: &Sender<End>,
    ) -> Result<Device, String> {
        let mut control = Control::open()?;
        let folder = node::folder().map_err(|error| format!("/dev: {}", reason(&error)))?;
        let mark = left_behind::mark(&connection)?;
        let info = match wanted {
            Wanted::New => add(&mut control, mark)?,
            Wanted::LeftBehind(id) => left_behind::take(&mut control, id, mark)?,
        };
        let taken_over = wanted != Wanted::New;
        let (threads, course) = (None, Arc::default());
        let mut device = Device { control, info, threads, course, taken_over, folder };
        let started = device.start(connection, wanted, ended);
        if started.is_err() && wanted == Wanted::New {
            // What has failed first is what the user is told.
            let _ = device.remove();
        }
        started.map(|()| device)
    }

    fn start(
        &mut self,
        connection: Connection,
        wanted: Wanted,
        ended: &Sender<End>,
    ) -> Result<(), String> {
        let Device { control, info, course, .. } = self;
        let path = node::block_device(info.id);
        let failed = |what: &str, error: io::Error| {
            format!("{}: {what}: {}", path.display(), reason(&error))
        };
        // Whose device it is, is seen by who may open this file: first of all.
        let file = node::open(&node::control_file(info.id), true)
            .map_err(|error| failed("cannot be served", error))?;
        if matches!(wanted, Wanted::LeftBehind(_)) {
            let size = connection.size() / SECTOR;
            if node::sectors(info.id).is_some_and(|sectors| sectors != size) {
                let path = path.display();
                return Err(format!("{path}: is a device of another size than the image's"));
            }
        } else {
            control
                .set_parameters(info, &parameters(&connection, info))
                .map_err(|error| failed("this kernel refuses its parameters", error))?;
        }
        let (threads, begun) = Threads::start(connection, file, info, course, ended)
            .map_err(|error| failed("cannot be served", error))?;
        self.threads = Some(threads);
        for queue in begun {
            queue.map_err(|error| failed("cannot be served", error))?;
        }
        let shown = match wanted {
            Wanted::New => control.start(info),
            Wanted::LeftBehind(_) => control.end_recovery(info),
        };
        let shown = shown.and_then(|()| node::open(&path, false).map(drop));
        shown.map_err(|error| failed("cannot be started", error))?;
        // It works without, where there is no sysfs.
        let place = format!("/sys/block/ublkb{}/queue/read_ahead_kb", info.id);
        let _ = std::fs::write(place, READ_AHEAD_KIB.to_string());
        Ok(())
    }

    /// The block device's path.
    pub fn path(&self) -> PathBuf {
        node::block_device(self.info.id)
    }

    /// Whether another server could go on with it.
    pub fn outlives_its_server(&self) -> bool {
        self.info.flags & flags::USER_RECOVERY != 0
    }

    /// Removes the device, before anything was written to it, unless it was another server's.
    pub fn give_up(mut self) {
        if !self.taken_over {
            // What has failed before is what the user is told.
            let _ = self.remove();
        }
    }

    /// Writes back what the kernel holds for the device, and removes it; when this returns the
    /// connection has been dropped. The error is a line for the user.
    pub fn close(mut self) -> Result<(), String> {
        // Once it is stopped, the kernel throws away what it holds.
        let written = node::write_back(&self.folder, self.info.id);
        let removed = self.remove();
        let path = self.path();
        written.and(removed).map_err(|error| format!("{}: {}", path.display(), reason(&error)))
    }

    fn remove(&mut self) -> io::Result<()> {
        self.course.stopping.store(true, Ordering::SeqCst);
        self.control.stop(&self.info)?;
        if let Some(Threads { pool, queues }) = self.threads.take() {
            for queue in queues {
                // A queue does not panic: see `guard`.
                let _ = queue.join();
            }
            pool.end();
            // With the pool goes the last that has the device's control file open.
        }
        self.control.delete(&self.info)
    }
}

impl Drop for Device {
    /// From now on the server may end, and what it would answer then is no answer.
    fn drop(&mut self) {
        self.course.given_up.store(true, Ordering::SeqCst);
    }
}

/// A new device.
fn add(control: &mut Control, mark: u64) -> Result<Info, String> {
    let needed = flags::USER_COPY | flags::CMD_IOCTL_ENCODE;
    let features = control.features().unwrap_or_default();
    if features & needed != needed {
        return Err("this kernel's ublk is too old: Linux 6.5 or newer has what is needed".into());
    }
    let common = flags::CMD_IOCTL_ENCODE | flags::USER_RECOVERY | flags::USER_RECOVERY_REISSUE;
    let wanted = Info {
        queues: queues() as u16,
        depth: DEPTH,
        max_bytes: MAX_BYTES,
        id: u32::MAX,
        flags: common | flags::USER_COPY,
        mark,
        ..Info::default()
    };
    let added = control.add(&wanted).or_else(|error| {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Err(error);
        }
        control.add(&Info {
            depth: KEPT_DEPTH,
            max_bytes: KEPT_MAX_BYTES,
            flags: common | flags::UNPRIVILEGED_DEV,
            ..wanted
        })
    });
    added.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ublk: this user may not make block devices: be root (sudo)".into()
        }
        _ => format!("ublk: the kernel makes no device: {}", reason(&error)),
    })
}

fn parameters(connection: &Connection, info: &Info) -> Parameters {
    let writable = connection.writable();
    let mut attributes = if writable { attributes::VOLATILE_CACHE | attributes::FUA } else { 0 };
    if !writable {
        attributes |= attributes::READ_ONLY;
    }
    let unit = u32::try_from(connection.read_unit()).unwrap_or(info.max_bytes);
    let best_io = unit.checked_next_power_of_two().unwrap_or(info.max_bytes);
    Parameters {
        attributes,
        logical_block: SECTOR as u32,
        physical_block: PHYSICAL_BLOCK,
        best_io: best_io.clamp(PHYSICAL_BLOCK, info.max_bytes),
        max_bytes: info.max_bytes,
        sectors: connection.size() / SECTOR,
        max_discard: if writable { (MAX_DISCARD / SECTOR) as u32 } else { 0 },
        discard_block: PHYSICAL_BLOCK,
    }
}

impl Threads {
    /// Starts them; the receiver gets a word of each queue that waits for requests.
    fn start(
        connection: Connection,
        file: File,
        info: &Info,
        course: &Arc<Course>,
        ended: &Sender<End>,
    ) -> io::Result<(Threads, Receiver<io::Result<()>>)> {
        let file = Arc::new(file);
        let max_bytes = info.max_bytes as usize;
        let data = Arc::new(if info.flags & flags::USER_COPY != 0 {
            Data::Copied(file.clone())
        } else {
            Data::Kept(Buffers::new(info.queues, info.depth, max_bytes))
        });
        let queues: io::Result<Vec<_>> = (0..info.queues)
            .map(|index| Queue::new(&file, info, index, course).map(Arc::new))
            .collect();
        let queues = queues?;
        let handler = Handler { connection, queues: queues.clone(), data: data.clone(), max_bytes };
        let most = usize::from(info.queues) * usize::from(info.depth);
        let pool = Arc::new(Pool::start(Box::new(handler), most)?);
        let mut threads = Threads { pool, queues: Vec::new() };
        let (ready, begun) = mpsc::channel();
        for queue in queues {
            let (pool, data) = (threads.pool.clone(), data.clone());
            let (ready, ended) = (ready.clone(), ended.clone());
            let run = move || {
                if let Some(Err(error)) = guard(|| queue.run(&pool, &data, ready)) {
                    let text = &format!("a queue of the device: {}", reason(&error));
                    TOLD.tell(Event::Error { text });
                }
                // Fails when the device was given up before it was served.
                let _ = ended.send(End::Stopped);
            };
            threads.queues.push(thread::Builder::new().name("queue".into()).spawn(run)?);
        }
        Ok((threads, begun))
    }
}
