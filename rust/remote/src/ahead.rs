//! Readers that go on where they were: what to ask for ahead of them.

use std::ops::Range;

use parking_lot::Mutex;

/// Readers that are followed at a time.
const STREAMS: usize = 16;
/// How far a reader may jump and still go on, in bytes: several threads read for one reader.
const SLACK: u64 = 256 << 10;
/// Steps until a reader is believed to go on.
const STEPS: u32 = 2;
/// What is asked for then, in bytes; four times as much with each further step.
const FIRST: u64 = 128 << 10;

/// The readers of an image.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Vec<Stream>>);

#[derive(Debug)]
struct Stream {
    /// Where it goes on.
    next: u64,
    /// Up to where was asked for.
    ahead: u64,
    steps: u32,
}

impl Streams {
    /// Notes a read of a range; what to ask for ahead of its reader, at most `window` bytes from
    /// where that stands.
    pub fn step(&self, range: Range<u64>, window: u64) -> Option<Range<u64>> {
        let mut streams = self.0.lock();
        let goes_on = |stream: &Stream| range.start.abs_diff(stream.next) <= SLACK;
        let Some(found) = streams.iter().position(goes_on) else {
            streams.truncate(STREAMS - 1);
            streams.insert(0, Stream { next: range.end, ahead: 0, steps: 0 });
            return None;
        };
        streams[..=found].rotate_right(1);
        let stream = &mut streams[0];
        if range.end > stream.next {
            stream.next = range.end;
            stream.steps = stream.steps.saturating_add(1);
        }
        if stream.steps < STEPS {
            return None;
        }
        let window = window.min(FIRST << (2 * (stream.steps - STEPS).min(8)));
        let (from, to) = (stream.ahead.max(stream.next), stream.next + window);
        // Not for every few bytes.
        if to < from + window / 4 {
            return None;
        }
        stream.ahead = to;
        Some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;

    #[test]
    fn a_reader_that_goes_on_is_preceded() {
        let streams = Streams::default();
        let mut asked = 0;
        for step in 0..100 {
            let at = step * 128 * K;
            if let Some(range) = streams.step(at..at + 128 * K, 4096 * K) {
                assert!(step >= 2 && range.start >= asked && range.end > range.start);
                assert!(range.end <= at + 128 * K + 4096 * K);
                asked = range.end;
            }
        }
        assert!(asked > 99 * 128 * K + 3072 * K);
    }

    #[test]
    fn one_that_never_ends_is_preceded_all_the_time() {
        let streams = Streams::default();
        let stream = Stream { next: 0, ahead: 0, steps: u32::MAX };
        streams.0.lock().push(stream);
        assert_eq!(streams.step(0..128 * K, 4096 * K), Some(128 * K..4224 * K));
    }

    #[test]
    fn one_that_jumps_is_not() {
        let streams = Streams::default();
        for step in 0..1000_u64 {
            let at = step * 7919 % 1000 * 4096 * K;
            assert_eq!(streams.step(at..at + 4 * K, 4096 * K), None);
        }
        // Nor one that stays.
        for _ in 0..10 {
            assert_eq!(streams.step(5 << 40..(5 << 40) + 4 * K, 4096 * K), None);
        }
    }
}
