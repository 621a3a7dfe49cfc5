//! An image far away, as the engine reads it.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cowcloop_engine::storage::{in_background, FetchCounters, FetchPace, Storage};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::ahead::Streams;
use crate::cache::{chunks, Cache, CHUNK};
use crate::failure::{Failure, Kind};
use crate::flight::Flight;
use crate::link::Link;
use crate::options::RemoteOptions;
use crate::pace::{self, Pace};
use crate::recent::Recent;
use crate::version::Version;

/// Requests that readers wait for, at a time, and others besides.
const WANTED_AT_ONCE: usize = 16;
const AHEAD_AT_ONCE: usize = 24;
/// Chunks on their way, or waiting for their turn, from which on none is asked for that no reader
/// waits for yet: 32 MiB.
const MOST_AHEAD: usize = 2048;
/// How long an end waits until what has come is in the cache.
const LANDING: Duration = Duration::from_secs(5);

/// An image far away. What is read of it is fetched, and kept.
#[derive(Debug)]
pub struct RemoteImage(Arc<Remote>);

/// What requests on their way share with the image.
#[derive(Debug)]
pub(crate) struct Remote {
    pub name: String,
    pub version: Version,
    pub link: Link,
    pub options: RemoteOptions,
    pub cache: Option<Cache>,
    pub recent: Mutex<Recent>,
    /// By chunk.
    pub flights: Mutex<HashMap<u64, Arc<Flight>>>,
    pub pace: Pace,
    pub wanted: Semaphore,
    pub ahead: Semaphore,
    streams: Streams,
    /// Nothing is fetched any more.
    pub closed: AtomicBool,
    /// The server has another image now.
    pub changed: AtomicBool,
    /// The server asked to be left alone until then.
    pub pause: Mutex<Option<Instant>>,
}

impl Remote {
    pub fn new(
        name: String,
        version: Version,
        link: Link,
        options: RemoteOptions,
        cache: Option<Cache>,
    ) -> Remote {
        Remote {
            name,
            version,
            link,
            options,
            cache,
            recent: Mutex::default(),
            flights: Mutex::default(),
            pace: Pace::default(),
            wanted: Semaphore::new(WANTED_AT_ONCE),
            ahead: Semaphore::new(AHEAD_AT_ONCE),
            streams: Streams::default(),
            closed: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            pause: Mutex::default(),
        }
    }

    fn size(&self) -> u64 {
        self.version.size
    }

    /// Whether a chunk can be read without the network.
    fn is_here(&self, chunk: u64) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.has(chunk)) || self.recent.lock().has(chunk)
    }

    /// Why nothing can be fetched.
    fn refusal(&self) -> Option<Failure> {
        if self.closed.load(Ordering::Acquire) {
            Some(Failure::closing())
        } else if self.options.offline {
            let reason = "this part of the image is not in the cache, and --offline asks no server";
            Some(Failure::new(Kind::Ours, reason))
        } else if self.changed.load(Ordering::Acquire) {
            Some(Failure::changed())
        } else {
            None
        }
    }

    /// Has the chunks of a range fetched that are neither here nor on their way, neighbours
    /// together. `wanted`: a reader waits for them.
    pub fn fetch(self: &Arc<Self>, range: Range<u64>, wanted: bool) -> Result<(), Failure> {
        let range = range.start..range.end.min(chunks(self.size()));
        if range.clone().all(|chunk| self.is_here(chunk)) {
            return Ok(());
        }
        if let Some(cache) = &self.cache {
            cache.look_again(range.start, range.end);
        }
        let mut begun = Vec::new();
        {
            let mut flights = self.flights.lock();
            let mut at = range.start;
            while at < range.end {
                let missing = |chunk: u64| !self.is_here(chunk) && !flights.contains_key(&chunk);
                let most = range.end.min(at + pace::MOST / CHUNK);
                let end = (at..most).find(|chunk| !missing(*chunk)).unwrap_or(most);
                if end == at {
                    at += 1;
                    continue;
                }
                if !wanted && flights.len() >= MOST_AHEAD {
                    break;
                }
                let flight = Arc::new(Flight::new(at, end, wanted));
                flights.extend((at..end).map(|chunk| (chunk, flight.clone())));
                begun.push(flight);
                at = end;
            }
        }
        let handle = self.link.get().map(|(handle, _)| handle);
        for flight in begun {
            match &handle {
                Ok(handle) => drop(handle.spawn(self.clone().fly(flight))),
                Err(failure) => {
                    self.gone(&flight);
                    flight.land(|| Err(failure.clone()));
                }
            }
        }
        handle.map(drop)
    }

    /// Reads what one source has of `buf` from `offset` on; how much that is.
    fn piece(self: &Arc<Self>, buf: &mut [u8], offset: u64, begun: Instant) -> io::Result<usize> {
        let until = begun + self.options.timeout;
        loop {
            if let Some(n) = self.kept(buf, offset) {
                return Ok(n);
            }
            let n = self.recent.lock().copy(buf, offset);
            if n > 0 {
                return Ok(n);
            }
            if let Some(failure) = self.refusal() {
                return Err((&failure).into());
            }
            let chunk = offset / CHUNK;
            let Some(flight) = self.flights.lock().get(&chunk).cloned() else {
                let last = (offset + buf.len() as u64).div_ceil(CHUNK);
                let unit = self.pace.unit() / CHUNK;
                if let Err(failure) = self.fetch(chunk..last.max(chunk + unit), true) {
                    return Err((&failure).into());
                }
                continue;
            };
            flight.want();
            match flight.wait(until) {
                Some(Ok(bytes)) => return Ok(flight.copy(&bytes, buf, offset)),
                None => {
                    return Err((&Failure::new(Kind::Away, "the server does not answer")).into())
                }
                // One that was begun for another reader may have been tried for a moment only.
                Some(Err(failure)) => {
                    let tried = failure.kind != Kind::Dropped && flight.begun >= begun;
                    if failure.is_final() || tried || Instant::now() >= until {
                        return Err((&failure).into());
                    }
                    self.gone(&flight);
                }
            }
        }
    }

    /// Reads from the cache as far as its chunks go; `None`: the first one is not there.
    fn kept(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        let cache = self.cache.as_ref()?;
        let (first, last) = (offset / CHUNK, (offset + buf.len() as u64).div_ceil(CHUNK));
        let end = (first..last).find(|chunk| !cache.has(*chunk)).unwrap_or(last);
        if end == first {
            return None;
        }
        let n = buf.len().min((end * CHUNK - offset) as usize);
        if let Err(error) = cache.read(&mut buf[..n], offset) {
            // Cut short, or on a disk that fails: the server still has it.
            log::debug!("{}: the cache cannot be read: {error}", self.name);
            cache.forget(first, end);
            return None;
        }
        Some(n)
    }

    /// Asks for what the reader of a range will want next.
    fn precede(self: &Arc<Self>, range: Range<u64>) {
        if in_background() || self.refusal().is_some() {
            return;
        }
        if let Some(next) = self.streams.step(range, self.pace.ahead()) {
            // Whole requests, so that neighbours are not asked for one by one.
            let to = next.end.div_ceil(CHUNK);
            let _ = self.fetch(next.start / CHUNK..to, false);
        }
    }

    /// A range is not on its way any more.
    pub fn gone(&self, flight: &Arc<Flight>) {
        let mut flights = self.flights.lock();
        for chunk in flight.first..flight.end {
            if flights.get(&chunk).is_some_and(|found| Arc::ptr_eq(found, flight)) {
                flights.remove(&chunk);
            }
        }
    }

    /// Waits until what has come is kept; what has not is let go.
    fn land(&self) {
        let until = Instant::now() + LANDING;
        let landed = |flight: &Arc<Flight>| flight.has_bytes();
        while self.flights.lock().values().any(landed) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the threads; the next read makes others.
    fn rest(&self) {
        self.land();
        self.link.rest();
        self.settle();
    }

    /// Makes what was written to the cache durable.
    pub fn settle(&self) {
        if let Some(cache) = &self.cache {
            // A failure was told, and costs speed.
            let _ = cache.settle();
        }
    }
}

impl RemoteImage {
    pub(crate) fn new(remote: Remote) -> RemoteImage {
        RemoteImage(Arc::new(remote))
    }

    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.0
    }

    /// Ends the threads, which a fork would lose; the next read makes others.
    pub fn rest(&self) {
        self.0.rest();
    }

    /// What no other image at its address has; none where the server does not tell them apart.
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        self.0.version.mark()
    }
}

impl Drop for RemoteImage {
    fn drop(&mut self) {
        self.give_up();
        self.0.rest();
    }
}

impl Storage for RemoteImage {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.size())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = self.0.size().min(offset.saturating_add(buf.len() as u64));
        if offset >= end {
            return Ok(0);
        }
        let length = (end - offset) as usize;
        if self.0.kept(&mut buf[..length], offset) == Some(length) {
            self.0.precede(offset..end);
            return Ok(length);
        }
        let begun = Instant::now();
        if self.0.refusal().is_none() {
            // All at once; what cannot be had is found out piece by piece.
            let unit = self.0.pace.unit() / CHUNK;
            let first = offset / CHUNK;
            let _ = self.0.fetch(first..end.div_ceil(CHUNK).max(first + unit), true);
            self.0.precede(offset..end);
        }
        let mut done = 0;
        while done < length {
            let piece = self.0.piece(&mut buf[done..length], offset + done as u64, begun);
            done += piece.inspect_err(|_| self.0.link.counts().failure())?;
        }
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.0.size()).then_some(offset))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(self.0.size().max(offset))
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.0.size())
    }

    fn expect(&self, offset: u64, length: u64) {
        if length > 0 && self.0.refusal().is_none() {
            let end = self.0.size().min(offset.saturating_add(length)).div_ceil(CHUNK);
            let _ = self.0.fetch(offset / CHUNK..end, false);
        }
    }

    fn is_near(&self, offset: u64, length: u64) -> bool {
        let end = self.0.size().min(offset.saturating_add(length)).div_ceil(CHUNK);
        (offset / CHUNK..end).all(|chunk| self.0.is_here(chunk))
    }

    fn may_rot(&self) -> bool {
        true
    }

    fn read_kept(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<u64>> {
        let end = offset.saturating_add(buf.len() as u64);
        let Some(cache) = self.0.cache.as_ref().filter(|_| end <= self.0.size()) else {
            return Ok(None);
        };
        let edition = cache.read_edition(buf, offset);
        if edition.is_some() {
            self.0.precede(offset..end);
        }
        Ok(edition)
    }

    fn renew(&self, offset: u64, length: u64) -> bool {
        // Where nothing can be fetched, what is there may be of use to another program.
        if self.0.refusal().is_some() {
            return false;
        }
        self.0.link.counts().renewal();
        let (first, end) = (offset / CHUNK, offset.saturating_add(length).div_ceil(CHUNK));
        let kept = self.0.disown(first, end);
        let place = if kept { "where they were kept" } else { "as they came" };
        log::warn!(
            "{}: {length} bytes at {offset} are damaged {place}: they are fetched once more",
            self.0.name
        );
        true
    }

    fn fetched(&self) -> Option<FetchCounters> {
        Some(self.0.link.counts().all(self.0.cache.as_ref().map_or(0, Cache::bytes)))
    }

    fn pace(&self) -> Option<FetchPace> {
        let pace = &self.0.pace;
        let asked = || FetchPace { chunk: CHUNK, request: pace.unit(), window: pace.ahead() };
        self.0.refusal().is_none().then(asked)
    }

    fn give_up(&self) {
        self.0.closed.store(true, Ordering::Release);
        let flights: Vec<_> = self.0.flights.lock().values().cloned().collect();
        for flight in flights {
            flight.land(|| Err(Failure::closing()));
        }
    }
}
