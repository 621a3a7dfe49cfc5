//! What clients' requests took, counted by each thread in a part of its own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    Zero,
    Extents,
    Cache,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Kind; 7] =
        [Kind::Read, Kind::Write, Kind::Flush, Kind::Trim, Kind::Zero, Kind::Extents, Kind::Cache];

    /// The word for users.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Flush => "flush",
            Kind::Trim => "trim",
            Kind::Zero => "zero",
            Kind::Extents => "extents",
            Kind::Cache => "cache",
        }
    }
}

const KINDS: usize = Kind::ALL.len();

/// The upper bounds of the classes of latency, in microseconds; the last class has none.
const BOUNDS: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 10_000_000,
];
const CLASSES: usize = BOUNDS.len() + 1;

/// Parts, between which threads are spread.
const PARTS: usize = 16;

/// The requests of a server since its start.
#[derive(Debug)]
pub(crate) struct Requests(Box<[Part; PARTS]>);

/// On cache lines of its own, so that threads of different parts do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part([Counts; KINDS]);

#[derive(Debug, Default)]
struct Counts {
    classes: [AtomicU64; CLASSES],
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

/// The sum over all threads, for one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// Requests by class of latency.
    pub(super) classes: [u64; CLASSES],
    pub(super) nanoseconds: u64,
    pub(super) bytes: u64,
    pub(super) failed: u64,
}

impl Sum {
    /// How many requests there were.
    pub(super) fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// The classes with their upper bounds in seconds.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.classes).collect()
    }
}

thread_local! {
    static MINE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PARTS
    };
}

impl Requests {
    pub(crate) fn new() -> Requests {
        Requests(Box::default())
    }

    /// Counts a request of so many bytes that was answered.
    pub(crate) fn note(&self, kind: Kind, bytes: u64, took: Duration, good: bool) {
        let counts = &self.0[MINE.with(|mine| *mine)].0[kind as usize];
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|bound| bound * 1000 < nanoseconds);
        counts.classes[class].fetch_add(1, Ordering::Relaxed);
        counts.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if good {
            counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What all threads have counted for a kind.
    pub(super) fn sum(&self, kind: Kind) -> Sum {
        let mut sum = Sum::default();
        for Part(kinds) in &*self.0 {
            let counts = &kinds[kind as usize];
            for (total, class) in sum.classes.iter_mut().zip(&counts.classes) {
                *total += class.load(Ordering::Relaxed);
            }
            sum.nanoseconds += counts.nanoseconds.load(Ordering::Relaxed);
            sum.bytes += counts.bytes.load(Ordering::Relaxed);
            sum.failed += counts.failed.load(Ordering::Relaxed);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_counts_and_nothing_is_lost() {
        let requests = Requests::new();
        std::thread::scope(|scope| {
            for thread in 0..40 {
                let requests = &requests;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        requests.note(Kind::Read, 512, Duration::from_micros(10), thread != 7);
                    }
                });
            }
        });
        let sum = requests.sum(Kind::Read);
        assert_eq!((sum.count(), sum.failed, sum.bytes), (40_000, 1000, 39_000 * 512));
        assert_eq!((sum.classes[0], sum.nanoseconds), (40_000, 400_000_000));
        assert_eq!(requests.sum(Kind::Write), Sum::default());
    }

    #[test]
    fn a_latency_is_in_the_first_class_that_holds_it() {
        let requests = Requests::new();
        for nanoseconds in [0, 10_000, 10_001, 24_999, 10_000_000_000, u64::MAX / 4] {
            requests.note(Kind::Flush, 0, Duration::from_nanos(nanoseconds), true);
        }
        let buckets = requests.sum(Kind::Flush).buckets();
        assert_eq!(buckets[..2], [(1e-5, 2), (2.5e-5, 2)]);
        assert_eq!(buckets[CLASSES - 2..], [(10.0, 1), (f64::INFINITY, 1)]);
        assert!(Kind::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at));
    }
}
