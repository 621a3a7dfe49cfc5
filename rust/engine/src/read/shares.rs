//! Shares of the processors, for an image that many readers share.
//!
//! The system divides the processors among threads, so a reader with many requests at once
//! would get as many shares. Here each reader has one: a few requests decode at a time, and the
//! next place goes to the reader that has been without one for longest, whatever the number of
//! its requests. A place is taken when the compressed bytes are there and given back when they
//! are decoded, so nothing is waited for in it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

thread_local! {
    static READER: Cell<u64> = const { Cell::new(0) };
}

/// Does `work` for the reader of this number: all that this thread decodes meanwhile is its
/// own. 0 stands for work that is of no reader in particular.
pub fn as_reader<T>(reader: u64, work: impl FnOnce() -> T) -> T {
    let before = READER.replace(reader);
    let _restored = Restored(before);
    work()
}

/// The number of the reader that this thread works for.
pub fn reader() -> u64 {
    READER.get()
}

struct Restored(u64);

impl Drop for Restored {
    fn drop(&mut self) {
        READER.set(self.0);
    }
}

/// The places for readers of one image.
#[derive(Debug)]
pub(super) struct Shares(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// The readers that wait, the one that is next first, and their requests.
    waiting: VecDeque<(u64, VecDeque<Arc<Waiter>>)>,
}

#[derive(Debug, Default)]
struct Waiter {
    granted: Mutex<bool>,
    changed: Condvar,
}

/// The right to decode, until this is dropped.
pub(super) struct Share<'a>(&'a Shares);

impl Shares {
    /// So many places.
    pub(super) fn new(count: usize) -> Self {
        Shares(Mutex::new(State { free: count.max(1), waiting: VecDeque::new() }))
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> Share<'_> {
        let waiter = {
            let mut state = self.0.lock();
            // Nothing waits while any is free.
            if state.free > 0 {
                state.free -= 1;
                return Share(self);
            }
            let waiter = Arc::new(Waiter::default());
            state.enqueue(reader(), waiter.clone());
            waiter
        };
        let mut granted = waiter.granted.lock();
        while !*granted {
            waiter.changed.wait(&mut granted);
        }
        Share(self)
    }
}

impl State {
    fn enqueue(&mut self, reader: u64, waiter: Arc<Waiter>) {
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == reader) {
            Some((_, requests)) => requests.push_back(waiter),
            None => self.waiting.push_back((reader, VecDeque::from([waiter]))),
        }
    }

    fn next(&mut self) -> Option<Arc<Waiter>> {
        let (reader, mut requests) = self.waiting.pop_front()?;
        let waiter = requests.pop_front();
        if !requests.is_empty() {
            self.waiting.push_back((reader, requests));
        }
        waiter
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self.0 .0.lock();
        match state.next() {
            None => state.free += 1,
            Some(waiter) => {
                drop(state);
                *waiter.granted.lock() = true;
                waiter.changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Shares {
        fn waiting(&self) -> usize {
            self.0.lock().waiting.iter().map(|(_, requests)| requests.len()).sum()
        }
    }

    #[test]
    fn each_reader_has_one_share_whatever_it_asks_for() {
        let shares = Shares::new(1);
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let held = shares.take();
            // A greedy reader comes first, with forty requests; three others with three each.
            let asked = [(1, 40), (2, 3), (3, 3), (4, 3)];
            let mut count = 0;
            for (reader, requests) in asked {
                for _ in 0..requests {
                    let (shares, order) = (&shares, &order);
                    scope.spawn(move || {
                        as_reader(reader, || {
                            let _share = shares.take();
                            order.lock().push(reader);
                        });
                    });
                }
                count += requests;
                while shares.waiting() < count {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        let order = order.into_inner();
        assert_eq!(order[..12], [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(order.len(), 49);
        assert_eq!(shares.0.lock().free, 1);
    }

    #[test]
    fn so_many_at_a_time_and_no_more() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let shares = Shares::new(3);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (shares, now, most) = (&shares, &now, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _share = as_reader(number % 5, || shares.take());
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(shares.waiting(), 0);
        assert_eq!(shares.0.lock().free, 3);
    }

    #[test]
    fn a_thread_works_for_the_reader_that_it_was_told_last() {
        assert_eq!(reader(), 0);
        as_reader(7, || {
            assert_eq!(as_reader(8, reader), 8);
            assert_eq!(reader(), 7);
            assert!(std::panic::catch_unwind(|| as_reader(9, || panic!("wanted"))).is_err());
            assert_eq!(reader(), 7);
        });
        assert_eq!(reader(), 0);
    }
}
