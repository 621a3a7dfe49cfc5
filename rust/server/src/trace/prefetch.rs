//! The thread that makes ready for clients what a trace says, in its order, and then, if that is
//! wanted, all the rest of the image.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cowcloop_engine::device::Device;
use cowcloop_engine::format::trace::{Blocks, Header, TraceReader};
use cowcloop_engine::image::Image;
use cowcloop_engine::storage::{as_background, Storage};
use cowcloop_remote::RemoteOptions;
use parking_lot::Mutex;

use super::ahead::{Ahead, Part};
use super::place::{unreadable, Place};
use super::readers::Readers;
use super::Prefetch;
use crate::events::Events;
use crate::guard::guard;
use crate::options::ServerOptions;

/// Bytes of a part of an image that has no blocks of its own, or is made ready as a whole.
const PIECE: u64 = 256 << 10;

/// After so many bytes the cache is asked whether it still has what came before them.
const CHECKED: u64 = 40 << 20;

/// The pause before what could not be had is tried again.
const PAUSE: Duration = Duration::from_secs(60);

/// What to make ready, and how.
#[derive(Debug, Clone)]
struct Plan {
    trace: Option<Place>,
    all: bool,
    /// Bytes a second, at most.
    rate: Option<u64>,
    remote: RemoteOptions,
}

impl Plan {
    /// `None`: there is nothing to do.
    fn of(options: &ServerOptions) -> Option<Plan> {
        let all = options.trace.prefetch == Prefetch::All;
        let trace =
            (options.trace.prefetch != Prefetch::None).then(|| Place::of(options)).flatten();
        let plan = Plan { trace, all, rate: options.trace.rate, remote: options.remote.clone() };
        (plan.trace.is_some() || plan.all).then_some(plan)
    }
}

/// How the thread is ended.
#[derive(Debug, Default)]
struct End {
    wanted: AtomicBool,
    /// The trace that is read, which may be far away.
    trace: Mutex<Option<Arc<dyn Storage>>>,
}

/// The thread.
pub(crate) struct Prefetching {
    end: Arc<End>,
    thread: JoinHandle<()>,
}

impl Prefetching {
    /// Starts it, if there is anything to do; must not be called before the server has forked.
    /// It gives way to `readers`.
    pub(crate) fn start(
        options: &ServerOptions,
        device: Arc<Device>,
        readers: Arc<Readers>,
        events: Arc<dyn Events>,
    ) -> io::Result<Option<Prefetching>> {
        let Some(plan) = Plan::of(options) else { return Ok(None) };
        let end = Arc::new(End::default());
        let watch = end.clone();
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(move || {
            guard(|| {
                readers.watch(true);
                follow(&plan, &device, &readers, &watch, &*events);
                readers.watch(false);
            });
        })?;
        Ok(Some(Prefetching { end, thread }))
    }

    /// Has the thread end after what it is at; what it waits for of a trace fails.
    pub(crate) fn end(&self) {
        self.end.wanted.store(true, Ordering::Relaxed);
        if let Some(trace) = &*self.end.trace.lock() {
            trace.give_up();
        }
    }

    /// Waits until the thread has ended.
    pub(crate) fn join(self) {
        let _ = self.thread.join();
    }
}

fn follow(plan: &Plan, device: &Device, readers: &Readers, end: &End, events: &dyn Events) {
    let Some(bytes) = device.bytes() else { return };
    let mut ahead = Ahead::new(device, &**bytes, readers, &end.wanted, plan.rate);
    if let Some(place) = &plan.trace {
        let replayed = find(place, &plan.remote, events).and_then(|trace| match trace {
            Some(trace) => replay(place, &trace, device, &mut ahead, end, events),
            None => Ok(()),
        });
        if let Err(problem) = replayed {
            events.warning(&format!("{}: {problem}", place.shown()));
        }
    }
    if plan.all {
        if let Err(problem) = fill(&**bytes, &mut ahead) {
            events.warning(&format!("{}: {problem}", bytes.name()));
        }
    }
}

/// The file of the trace; `None`: there may be none. The error is the rest of a line for the user.
fn find(
    place: &Place,
    remote: &RemoteOptions,
    events: &dyn Events,
) -> Result<Option<Arc<dyn Storage>>, String> {
    match place.open(remote) {
        Ok(storage) => Ok(Some(storage)),
        Err(problem) if place.may_be_missing() => {
            events.debug(&format!("{}: no trace is replayed: {problem}", place.shown()));
            Ok(None)
        }
        Err(problem) => Err(format!("no trace is replayed: {problem}")),
    }
}

/// Makes ready what a trace says. The error is the rest of a line for the user.
fn replay(
    place: &Place,
    storage: &Arc<dyn Storage>,
    device: &Device,
    ahead: &mut Ahead<'_>,
    end: &End,
    events: &dyn Events,
) -> Result<(), String> {
    *end.trace.lock() = Some(storage.clone());
    if ahead.stopped() {
        return Ok(());
    }
    let trace = match TraceReader::open(&**storage) {
        // It was given up.
        Err(_) if ahead.stopped() => return Ok(()),
        read => read.map_err(|error| unreadable(&error))?,
    };
    let mut trace = trace.ok_or("not replayed: it does not begin as a trace does")?;
    let image = as_background(|| Header::of(&device.status().image, &**device.base()));
    let image = image.map_err(|error| format!("not replayed: {error}"))?;
    if !trace.header().fits(&image) {
        if place.may_be_of_another() {
            events.debug(&format!("{}: not replayed: it is of another image", place.shown()));
            return Ok(());
        }
        return Err(format!("not replayed: it is of another image ({})", trace.header().image));
    }
    let (size, base) = (image.size, device.base());
    let mut seen = Blocks::new(image.blocks());
    let mut failed = None;
    let runs = std::iter::from_fn(|| {
        let next = trace.next_run();
        next.map_err(|error| failed = Some(error)).ok().flatten()
    });
    let blocks = runs.flat_map(|run| run.block..run.block + run.count);
    let fresh = blocks.filter(|block| seen.note(*block));
    let parts = fresh.flat_map(|block| {
        let at = block * image.block_size;
        parts(base, at..size.min(at + image.block_size))
    });
    ahead.run(parts);
    match (failed, trace.damaged()) {
        (Some(_), _) if ahead.stopped() => Ok(()),
        (Some(error), _) => Err(unreadable(&error)),
        (None, 0) => Ok(()),
        (None, 1) => Err("a line is damaged and was left out".into()),
        (None, count) => Err(format!("{count} lines are damaged and were left out")),
    }
}

/// The parts that a range of an image is made ready in: each block that the image itself has in it,
/// or pieces of a size that takes little memory.
fn parts(base: &Image, range: Range<u64>) -> impl Iterator<Item = Part> + '_ {
    let inflated = matches!(base, Image::Cloop(_));
    let unit = if inflated { base.read_unit() } else { PIECE };
    let end = range.end;
    range.step_by(unit as usize).filter_map(move |at| {
        let (from, length) = base.stored(at, unit.min(end - at))?;
        Some(Part { at: from, length, block: inflated.then_some(at) })
    })
}

/// Has all bytes of the image here: what is there already is not asked for. The error is the rest
/// of a line for the user.
fn fill(bytes: &dyn Storage, ahead: &mut Ahead<'_>) -> Result<(), String> {
    let size = bytes.len().map_err(|error| unreadable(&error))?;
    let far = bytes.pace().is_some();
    let mut before: Option<Range<u64>> = None;
    while !ahead.stopped() {
        let mut missed = 0;
        // In steps, to see whether what has come stays.
        let mut at = 0;
        while at < size && !ahead.stopped() {
            let end = size.min(at.saturating_add(CHECKED));
            let piece = |at: u64| Part { at, length: PIECE.min(end - at), block: None };
            let starts = (at..end).step_by(PIECE as usize);
            let asked = ahead.asked();
            missed += ahead.run(starts.map(piece));
            if before.as_ref().is_some_and(|range| !ahead.is_near(range)) && !ahead.stopped() {
                return Err("prefetch ends here: the cache keeps no more of the image".into());
            }
            let range = end.saturating_sub(PIECE)..end;
            if far && ahead.asked() > asked && ahead.is_near(&range) {
                before = Some(range);
            }
            at = end;
        }
        if missed == 0 || bytes.pace().is_none() {
            return Ok(());
        }
        pause(ahead);
    }
    Ok(())
}

fn pause(ahead: &Ahead<'_>) {
    let until = Instant::now() + PAUSE;
    while !ahead.stopped() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use cowcloop_engine::device::DeviceOptions;
    use parking_lot::Condvar;

    use super::*;
    use crate::events::tests::Kept;

    /// A file of zeros that notes which of its bytes are read.
    #[derive(Debug, Default)]
    struct Noting {
        size: u64,
        read: Mutex<Vec<Range<u64>>>,
        /// Reads wait until it is given up, as those of a file whose server says nothing.
        silent: bool,
        given_up: Mutex<bool>,
        changed: Condvar,
    }

    impl Storage for Noting {
        fn name(&self) -> &str {
            "noting"
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.size)
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let n = buf.len().min((self.size - offset) as usize);
            buf[..n].fill(0);
            self.read.lock().push(offset..offset + n as u64);
            if self.silent {
                self.changed.wait_while(&mut self.given_up.lock(), |given_up| !*given_up);
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(n)
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
            Ok(Some(offset))
        }
        fn next_hole(&self, _offset: u64) -> io::Result<u64> {
            self.len()
        }
        fn allocated(&self) -> io::Result<u64> {
            self.len()
        }
        fn give_up(&self) {
            *self.given_up.lock() = true;
            self.changed.notify_all();
        }
    }

    fn device(size: u64) -> (Arc<Noting>, Device) {
        let bytes = Arc::new(Noting { size, ..Noting::default() });
        let device = Device::open_storage(bytes.clone(), &[], &DeviceOptions::default()).unwrap();
        bytes.read.lock().clear();
        (bytes, device)
    }

    #[test]
    fn all_of_a_local_image_is_read() {
        let size = CHECKED + PIECE + 7;
        let (bytes, device) = device(size);
        let (readers, stop) = (Readers::default(), AtomicBool::new(false));
        fill(&*bytes, &mut Ahead::new(&device, &*bytes, &readers, &stop, None)).unwrap();
        let read = bytes.read.lock();
        let end = read.iter().fold(0, |end, range| if range.start == end { range.end } else { 0 });
        assert_eq!(end, size, "each byte once, in their order");
    }

    #[test]
    fn the_parts_of_a_large_block_are_small() {
        // Blocks of a trace of so large an image have 16 GiB.
        let (_bytes, device) = device(1 << 60);
        let range = (3 << 34)..(4 << 34);
        let mut end = range.start;
        for part in parts(device.base(), range.clone()) {
            assert!(part.at == end && part.length <= PIECE && part.block.is_none());
            end += part.length;
        }
        assert_eq!(end, range.end);
    }
    #[test]
    fn the_end_waits_for_no_silent_server_of_a_trace() {
        let silent = Arc::new(Noting { size: 1, silent: true, ..Noting::default() });
        let trace: Arc<dyn Storage> = silent.clone();
        let (end, told) = (Arc::new(End::default()), Arc::new(Kept::default()));
        let (watch, events, replayed) = (end.clone(), told.clone(), Arc::new(Mutex::new(None)));
        let result = replayed.clone();
        let thread = std::thread::spawn(move || {
            let mut options = ServerOptions::default();
            options.trace.replay = Some("a.trace".into());
            let place = Place::of(&options).unwrap();
            let (bytes, device) = device(1000);
            let readers = Readers::default();
            let mut ahead = Ahead::new(&device, &*bytes, &readers, &watch.wanted, None);
            let replayed = replay(&place, &trace, &device, &mut ahead, &watch, &*events);
            *result.lock() = Some(replayed);
        });
        while silent.read.lock().is_empty() {
            std::thread::yield_now();
        }
        let prefetching = Prefetching { end, thread };
        prefetching.end();
        prefetching.join();
        assert_eq!(*replayed.lock(), Some(Ok(())));
        assert!(told.take().is_empty());
    }
}
