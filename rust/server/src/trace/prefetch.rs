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

use super::ahead::{Ahead, Part};
use super::place::{unreadable, Place};
use super::readers::Readers;
use super::Prefetch;
use crate::events::Events;
use crate::guard::guard;
use crate::options::ServerOptions;

/// Bytes of a part where all of an image is made ready.
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

/// The thread.
pub(crate) struct Prefetching {
    stop: Arc<AtomicBool>,
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
        let stop = Arc::new(AtomicBool::new(false));
        let watch = stop.clone();
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(move || {
            guard(|| {
                readers.watch(true);
                follow(&plan, &device, &readers, &watch, &*events);
                readers.watch(false);
            });
        })?;
        Ok(Some(Prefetching { stop, thread }))
    }

    /// Ends the thread after what it is at.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

fn follow(plan: &Plan, device: &Device, readers: &Readers, stop: &AtomicBool, events: &dyn Events) {
    let Some(bytes) = device.bytes() else { return };
    let mut ahead = Ahead::new(device, &**bytes, readers, stop, plan.rate);
    if let Some(place) = &plan.trace {
        if let Err(problem) = replay(place, &plan.remote, device, &mut ahead, events) {
            events.warning(&format!("{}: {problem}", place.shown()));
        }
    }
    if plan.all {
        if let Err(problem) = fill(&**bytes, &mut ahead) {
            events.warning(&format!("{}: {problem}", bytes.name()));
        }
    }
}

/// Makes ready what a trace says. The error is the rest of a line for the user.
fn replay(
    place: &Place,
    remote: &RemoteOptions,
    device: &Device,
    ahead: &mut Ahead<'_>,
    events: &dyn Events,
) -> Result<(), String> {
    let storage = match place.open(remote) {
        Ok(storage) => storage,
        Err(problem) if place.may_be_missing() => {
            events.debug(&format!("{}: no trace is replayed: {problem}", place.shown()));
            return Ok(());
        }
        Err(problem) => return Err(format!("no trace is replayed: {problem}")),
    };
    let trace = TraceReader::open(&*storage).map_err(|error| unreadable(&error))?;
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
    let inflated = matches!(base, Image::Cloop(_));
    let mut seen = Blocks::new(image.blocks());
    let mut failed = None;
    let runs = std::iter::from_fn(|| {
        let next = trace.next_run();
        next.map_err(|error| failed = Some(error)).ok().flatten()
    });
    let blocks = runs.flat_map(|run| run.block..run.block + run.count);
    let fresh = blocks.filter(|block| seen.note(*block));
    let parts = fresh.filter_map(|block| {
        let at = block * image.block_size;
        let length = image.block_size.min(size - at);
        let (from, length) = base.stored(at, length)?;
        Some(Part { at: from, length, block: inflated.then_some(at) })
    });
    ahead.run(parts);
    match (failed, trace.damaged()) {
        (Some(error), _) => Err(unreadable(&error)),
        (None, 0) => Ok(()),
        (None, 1) => Err("a line is damaged and was left out".into()),
        (None, count) => Err(format!("{count} lines are damaged and were left out")),
    }
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
