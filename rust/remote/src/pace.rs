//! How quickly a server answers, and what follows from it: how much to ask for at a time, and how
//! far ahead of a reader.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::Answer;

/// The bounds of one request, in bytes.
pub(crate) const LEAST: u64 = 64 << 10;
pub(crate) const MOST: u64 = 1 << 20;
/// The bounds of what is asked for ahead of a reader, in bytes.
const LEAST_AHEAD: u64 = 512 << 10;
pub(crate) const MOST_AHEAD: u64 = 24 << 20;
/// What is asked for ahead, as a multiple of what is on its way at the line's rate: a window that
/// was too small grows, even where an answer takes several times as long to come as to begin.
const AHEAD: f64 = 6.0;
/// How much longer the least latency becomes with each answer that is not as quick: a line may
/// change, and answers wait for others on one that is full.
const FADE: f64 = 1.002;
/// How much of what was measured before an answer counts on.
const MEMORY: f64 = 0.8;
/// The time over which the line's rate is measured.
const SPAN: Duration = Duration::from_millis(250);

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    /// Seconds until an answer begins.
    latency: f64,
    /// The same where nothing else was in its way.
    least_latency: f64,
    /// Bytes a second of one answer, once it has begun.
    flow: f64,
    /// Bytes a second of all answers together.
    rate: f64,
    begun: Option<Instant>,
    bytes: u64,
}

impl Pace {
    /// Takes an answer into account.
    pub fn note(&self, answer: &Answer) {
        self.note_at(answer.bytes.len() as u64, answer.latency, answer.body, Instant::now());
    }

    fn note_at(&self, bytes: u64, latency: Duration, body: Duration, now: Instant) {
        let mut measured = self.0.lock();
        let blend = |old: f64, new: f64| {
            if old == 0.0 {
                new
            } else {
                MEMORY * old + (1.0 - MEMORY) * new
            }
        };
        measured.latency = blend(measured.latency, latency.as_secs_f64());
        let least = measured.least_latency * FADE;
        let shorter = least == 0.0 || latency.as_secs_f64() < least;
        measured.least_latency = if shorter { latency.as_secs_f64() } else { least };
        // A short answer arrives at once, whatever the line.
        if bytes >= LEAST / 2 {
            let flow = bytes as f64 / body.as_secs_f64().max(1e-4);
            measured.flow = blend(measured.flow, flow);
        }
        measured.bytes += bytes;
        let begun = *measured.begun.get_or_insert(now - latency - body);
        let span = now.saturating_duration_since(begun);
        if span >= SPAN {
            // A pause of the readers says nothing about the line.
            let rate = measured.bytes as f64 / span.as_secs_f64();
            measured.rate = if span > 4 * SPAN { measured.rate.max(rate) } else { rate };
            (measured.begun, measured.bytes) = (Some(now), 0);
        } else {
            let so_far = measured.bytes as f64 / SPAN.as_secs_f64();
            measured.rate = measured.rate.max(so_far);
        }
    }

    /// The least that is worth a request, in bytes: what comes in the time that it takes an
    /// answer to begin.
    pub fn unit(&self) -> u64 {
        let measured = self.0.lock();
        // One of many answers at a time has only its share of the line.
        let worth = (measured.latency * measured.flow.max(measured.rate)) as u64;
        let worth = worth.clamp(LEAST, MOST);
        // The power of two below it.
        1 << worth.ilog2()
    }

    /// How far to be ahead of a reader that goes on, in bytes.
    pub fn ahead(&self) -> u64 {
        let measured = self.0.lock();
        let on_its_way = (AHEAD * measured.least_latency * measured.rate) as u64;
        (on_its_way + LEAST_AHEAD).min(MOST_AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit and the window for a line, once it is known.
    fn on(latency: u64, rate: f64) -> (u64, u64) {
        let pace = Pace::default();
        let mut now = Instant::now();
        for _ in 0..40 {
            let bytes = pace.unit();
            let window = pace.ahead().max(bytes);
            let latency = Duration::from_millis(latency);
            let body = Duration::from_secs_f64(bytes as f64 / rate);
            for _ in 0..window.div_ceil(bytes) {
                now += Duration::from_secs_f64(bytes as f64 / rate)
                    .max(latency * bytes as u32 / window as u32);
                pace.note_at(bytes, latency, body, now);
            }
        }
        (pace.unit(), pace.ahead())
    }

    #[test]
    fn what_is_asked_for_fits_the_line() {
        let (unit, ahead) = on(20, 25e6 / 8.0);
        assert_eq!(unit, 64 << 10);
        // A third of a second.
        assert!(ahead <= 1 << 20, "{ahead}");
        for latency in [50, 100] {
            let (unit, ahead) = on(latency, 100e6);
            assert_eq!(unit, 1 << 20);
            assert!(ahead >= 20 << 20, "{ahead}");
        }
        let (unit, _) = on(0, 100e6);
        assert_eq!(unit, 64 << 10);
    }
}
