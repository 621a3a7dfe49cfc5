//! Has parts of an image made ready for clients, in order: what is far away is fetched, and
//! blocks are inflated.
//!
//! Clients come first. Nothing is waited for in a way that puts it before what a reader waits
//! for; so much is on its way at a time that the line is in use, half of it while a client waits;
//! and each block waits a moment while clients are served.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cowcloop_engine::device::Device;
use cowcloop_engine::storage::{as_background, FetchPace, Storage};

use super::readers::Readers;

/// How often to look whether something has come, or clients are served.
const LOOK: Duration = Duration::from_millis(1);

/// How long a block waits for the reads of clients at most: these may wait for the network.
const YIELD: Duration = Duration::from_millis(5);
const YIELD_FAR: Duration = Duration::from_millis(1);

/// The first pause before something is asked for again, which doubles, and how often it is.
const AGAIN: Duration = Duration::from_secs(1);
const TIMES: u32 = 7;

/// Parts that have been asked for and wait for their turn.
const MOST_WAITING: usize = 1024;

/// A part of an image's file, and the block on the device that is to be inflated from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) length: u64,
    pub(super) block: Option<u64>,
}

/// Bytes that were asked for and have not come.
struct Flying {
    range: Range<u64>,
    asked: Instant,
    times: u32,
}

/// The work, and how far it is.
pub(super) struct Ahead<'a> {
    device: &'a Device,
    bytes: &'a dyn Storage,
    readers: &'a Readers,
    stop: &'a AtomicBool,
    rate: Rate,
    flying: VecDeque<Flying>,
    /// Parts in their order.
    waiting: VecDeque<Part>,
    /// Bytes that were asked for so far.
    asked: u64,
    /// Ranges that could not be had.
    missed: u64,
    scratch: Vec<u8>,
}

impl<'a> Ahead<'a> {
    /// Nothing is under way. `rate`: bytes a second at most.
    pub(super) fn new(
        device: &'a Device,
        bytes: &'a dyn Storage,
        readers: &'a Readers,
        stop: &'a AtomicBool,
        rate: Option<u64>,
    ) -> Ahead<'a> {
        let rate = Rate { a_second: rate, free: Instant::now() };
        let (flying, waiting, scratch) = (VecDeque::new(), VecDeque::new(), Vec::new());
        let (asked, missed) = (0, 0);
        Ahead { device, bytes, readers, stop, rate, flying, waiting, asked, missed, scratch }
    }

    /// Bytes that were asked for so far.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether the work is to end.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether all bytes of a range are here.
    pub(super) fn is_near(&self, range: &Range<u64>) -> bool {
        self.bytes.is_near(range.start, range.end - range.start)
    }

    /// Makes the parts ready; returns when all are, or cannot be had, or the work is to end. How
    /// many ranges could not be had.
    pub(super) fn run(&mut self, parts: impl Iterator<Item = Part>) -> u64 {
        let mut parts = parts.fuse().peekable();
        self.missed = 0;
        while !self.stopped() {
            let landed = self.land();
            let asked = self.ask(&mut parts);
            let done = self.finish();
            if landed || asked || done {
                continue;
            }
            if self.waiting.is_empty() && self.flying.is_empty() && parts.peek().is_none() {
                break;
            }
            std::thread::sleep(LOOK);
        }
        self.missed
    }

    /// Takes note of what has come, and asks again for what should have; whether there was any.
    fn land(&mut self) -> bool {
        let before = self.flying.len();
        let now = Instant::now();
        let Ahead { bytes, missed, .. } = self;
        self.flying.retain_mut(|flying| {
            let length = flying.range.end - flying.range.start;
            if bytes.is_near(flying.range.start, length) {
                return false;
            }
            if now < flying.asked + AGAIN * 2_u32.pow(flying.times) {
                return true;
            }
            if flying.times == TIMES {
                *missed += 1;
                return false;
            }
            flying.times += 1;
            flying.asked = now;
            bytes.expect(flying.range.start, length);
            true
        });
        self.flying.len() < before
    }

    /// Asks for the next parts, as many as may be on their way; whether there were any.
    fn ask(&mut self, parts: &mut impl Iterator<Item = Part>) -> bool {
        let Some(pace) = self.bytes.pace() else {
            if !self.waiting.is_empty() || !self.rate.allows() {
                return false;
            }
            let next = parts.next();
            if let Some(part) = next {
                self.count(part.length);
                self.waiting.push_back(part);
            }
            return next.is_some();
        };
        let window = if self.readers.any() { pace.window / 2 } else { pace.window };
        let mut room = window.saturating_sub(self.on_its_way());
        let mut gathered = 0..0;
        let mut any = false;
        // Not for less than what is worth a request.
        if room < pace.request.min(window) {
            return false;
        }
        while room > 0 && self.waiting.len() < MOST_WAITING && self.rate.allows() {
            let Some(part) = parts.next() else { break };
            any = true;
            self.waiting.push_back(part);
            for missing in self.missing(part, &gathered, pace) {
                let length = missing.end - missing.start;
                room = room.saturating_sub(length);
                self.count(length);
                if missing.start == gathered.end
                    && gathered.end - gathered.start + length <= pace.request
                {
                    gathered.end = missing.end;
                } else {
                    self.send(std::mem::replace(&mut gathered, missing));
                }
            }
        }
        self.send(gathered);
        any
    }

    /// The chunks of a part that are neither here nor on their way, nor about to be asked for.
    fn missing(&self, part: Part, gathered: &Range<u64>, pace: FetchPace) -> Vec<Range<u64>> {
        let chunk = pace.chunk.max(1);
        let begins = part.at / chunk..(part.at + part.length).div_ceil(chunk);
        let ranges = begins.map(|number| number * chunk..(number + 1) * chunk);
        let asked = |range: &Range<u64>| {
            let holds = |other: &Range<u64>| other.start <= range.start && range.end <= other.end;
            holds(gathered) || self.flying.iter().any(|flying| holds(&flying.range))
        };
        ranges.filter(|range| !asked(range) && !self.is_near(range)).collect()
    }

    fn send(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.bytes.expect(range.start, range.end - range.start);
            self.flying.push_back(Flying { range, asked: Instant::now(), times: 0 });
        }
    }

    fn count(&mut self, bytes: u64) {
        self.asked += bytes;
        self.rate.spend(bytes);
    }

    fn on_its_way(&self) -> u64 {
        self.flying.iter().map(|flying| flying.range.end - flying.range.start).sum()
    }

    /// Does the rest for the next part, once its bytes are here; whether it was done.
    fn finish(&mut self) -> bool {
        let Some(&part) = self.waiting.front() else { return false };
        let range = part.at..part.at + part.length;
        let far = self.bytes.pace().is_some();
        if !self.is_near(&range) {
            let overlaps =
                |flying: &Flying| flying.range.start < range.end && range.start < flying.range.end;
            if self.flying.iter().any(overlaps) {
                return false;
            }
            // It could not be had, or is gone again: a client that needs it has it fetched.
            self.waiting.pop_front();
            return true;
        }
        self.waiting.pop_front();
        match part.block {
            Some(block) if !self.is_full() => {
                self.give_way(if far { YIELD_FAR } else { YIELD });
                as_background(|| self.device.base().bring_in(block));
            }
            None if !far => {
                self.give_way(YIELD);
                self.scratch.resize(part.length as usize, 0);
                // A client that needs it will be told what is wrong with it.
                let _ = self.bytes.read_at(&mut self.scratch, part.at);
            }
            _ => {}
        }
        true
    }

    /// Whether one more block would push out another.
    fn is_full(&self) -> bool {
        let counters = self.device.base().counters();
        counters.cache_bytes + self.device.base().read_unit() > counters.cache_limit / 8 * 7
    }

    fn give_way(&self, most: Duration) {
        let begin = Instant::now();
        while self.readers.any() && begin.elapsed() < most && !self.stopped() {
            std::thread::sleep(LOOK.min(most));
        }
    }
}

/// Bytes a second, on the average.
struct Rate {
    a_second: Option<u64>,
    /// When more may be asked for.
    free: Instant,
}

impl Rate {
    fn allows(&self) -> bool {
        self.free <= Instant::now()
    }

    fn spend(&mut self, bytes: u64) {
        if let Some(rate) = self.a_second {
            let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            // What was not used while nothing was to be had does not add up.
            self.free = self.free.max(Instant::now()) + time;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use cowcloop_engine::device::DeviceOptions;
    use parking_lot::Mutex;

    use super::*;

    const CHUNK: u64 = 1000;
    const CHUNKS: u64 = 100;

    /// Storage that is far away: the oldest range that was asked for comes whenever its pace is
    /// asked for.
    #[derive(Debug, Default)]
    struct Far {
        request: u64,
        state: Mutex<State>,
    }

    #[derive(Debug, Default)]
    struct State {
        here: Vec<u64>,
        asked: Vec<Range<u64>>,
        on_its_way: VecDeque<Range<u64>>,
        most_on_its_way: u64,
    }

    impl Storage for Far {
        fn name(&self) -> &str {
            "far"
        }
        fn len(&self) -> io::Result<u64> {
            Ok(CHUNKS * CHUNK)
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let n = buf.len().min((CHUNKS * CHUNK - offset) as usize);
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
        fn expect(&self, offset: u64, length: u64) {
            let mut state = self.state.lock();
            let range = offset / CHUNK..(offset + length) / CHUNK;
            state.asked.push(range.clone());
            state.on_its_way.push_back(range);
            let bytes = state.on_its_way.iter().map(|range| (range.end - range.start) * CHUNK);
            state.most_on_its_way = state.most_on_its_way.max(bytes.sum());
        }
        fn is_near(&self, offset: u64, length: u64) -> bool {
            let state = self.state.lock();
            let mut chunks = offset / CHUNK..(offset + length).div_ceil(CHUNK);
            chunks.all(|chunk| state.here.contains(&chunk))
        }
        fn pace(&self) -> Option<FetchPace> {
            let mut state = self.state.lock();
            if let Some(range) = state.on_its_way.pop_front() {
                state.here.extend(range);
            }
            Some(FetchPace { chunk: CHUNK, request: self.request, window: 8 * CHUNK })
        }
    }

    /// What is asked for to have these chunks ready, and the most bytes on their way.
    fn asked_for(far: Far, chunks: &[u64], readers: &Readers) -> (Vec<Range<u64>>, u64) {
        let far = Arc::new(far);
        let device = Device::open_storage(far.clone(), &[], &DeviceOptions::default()).unwrap();
        let stop = AtomicBool::new(false);
        let mut ahead = Ahead::new(&device, &*far, readers, &stop, None);
        let part = |chunk: &u64| Part { at: chunk * CHUNK, length: CHUNK, block: None };
        assert_eq!(ahead.run(chunks.iter().map(part)), 0);
        let state = far.state.lock();
        assert!(chunks.iter().all(|chunk| state.here.contains(chunk)));
        (state.asked.clone(), state.most_on_its_way)
    }

    #[test]
    fn parts_are_asked_for_in_their_order_and_no_more_than_the_line_takes() {
        let order: Vec<u64> = (0..CHUNKS).map(|number| number * 37 % CHUNKS).collect();
        let wanted: Vec<_> = order.iter().map(|chunk| *chunk..chunk + 1).collect();
        let far = || Far { request: CHUNK, ..Far::default() };
        let readers = Readers::default();
        let (asked, most) = asked_for(far(), &order, &readers);
        assert_eq!((asked, most), (wanted.clone(), 8 * CHUNK));
        // A client waits.
        readers.watch(true);
        let _reading = readers.begin();
        let (asked, most) = asked_for(far(), &order, &readers);
        assert_eq!((asked, most), (wanted, 4 * CHUNK));
    }

    #[test]
    fn neighbours_are_one_request_and_what_is_here_is_none() {
        let far = Far { request: 4 * CHUNK, ..Far::default() };
        far.state.lock().here = vec![5, 6];
        let chunks = [1, 2, 3, 4, 5, 6, 7, 40, 41, 42, 43, 44, 45, 42, 1];
        let (asked, _) = asked_for(far, &chunks, &Readers::default());
        let found: Vec<u64> = asked.iter().flat_map(Clone::clone).collect();
        assert_eq!(found, [1, 2, 3, 4, 7, 40, 41, 42, 43, 44, 45]);
        assert_eq!(asked[..3], [1..5, 7..8, 40..43]);
    }

    #[test]
    fn the_rate_holds_on_the_average() {
        let begin = Instant::now();
        let mut rate = Rate { a_second: Some(1000), free: begin };
        (0..60).for_each(|_| rate.spend(1000));
        let time = rate.free - begin;
        assert!(time >= Duration::from_secs(60) && !rate.allows());
        let mut none = Rate { a_second: None, free: begin };
        none.spend(u64::MAX);
        assert!(none.allows());
    }
}
