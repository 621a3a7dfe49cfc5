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
/// The same while nothing has come that should have, or nothing is on its way.
const LOOK_LATE: Duration = Duration::from_millis(20);
const LOOK_IDLE: Duration = Duration::from_millis(50);

/// How long a block waits for the reads of clients at most: these may wait for the network.
const YIELD: Duration = Duration::from_millis(5);
const YIELD_FAR: Duration = Duration::from_millis(1);

/// The first pause before something is asked for again, which doubles, and how often it is.
const AGAIN: Duration = Duration::from_secs(1);
const TIMES: u32 = 7;

/// Parts that have been asked for and wait for their turn.
const MOST_WAITING: usize = 1 << 14;

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
    /// The first pause before something is asked for again.
    again: Duration,
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
        Ahead {
            device,
            bytes,
            readers,
            stop,
            rate,
            again: AGAIN,
            flying,
            waiting,
            asked: 0,
            missed: 0,
            scratch,
        }
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
            std::thread::sleep(self.rest());
        }
        self.missed
    }

    /// How long to rest when there was nothing to do: no longer than until there may be.
    fn rest(&self) -> Duration {
        if self.flying.is_empty() {
            self.rate.wait().clamp(LOOK, LOOK_IDLE)
        } else if self.flying.iter().all(|flying| flying.times > 0) {
            LOOK_LATE
        } else {
            LOOK
        }
    }

    /// Takes note of what has come, and asks again for what should have; whether there was any.
    fn land(&mut self) -> bool {
        let before = self.flying.len();
        let now = Instant::now();
        let Ahead { bytes, missed, again, .. } = self;
        self.flying.retain_mut(|flying| {
            let length = flying.range.end - flying.range.start;
            if bytes.is_near(flying.range.start, length) {
                return false;
            }
            if now < flying.asked + *again * 2_u32.pow(flying.times) {
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
        self.wait().is_zero()
    }

    /// How long until more may be asked for.
    fn wait(&self) -> Duration {
        self.free.saturating_duration_since(Instant::now())
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
mod tests;
