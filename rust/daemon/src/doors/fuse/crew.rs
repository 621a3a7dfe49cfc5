//! Who answers a request: the thread that has read it, as long as another one is left to read.
//!
//! A session of fuser's has a fixed number of threads, which read requests from the kernel. A
//! request may take long: its block comes from far away, or the image is suspended. So the last
//! thread that still reads never answers a request itself: it hands it to one of the hands, whose
//! number grows with the need and shrinks afterwards. As long as the kernel asks for little at a
//! time no request changes threads.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use cowcloop_server::guard;
use parking_lot::{Condvar, Mutex};

/// Requests that may wait for a suspended image.
pub const WAITING: usize = 128;
/// Hands at most: some are left when all requests wait that may.
const MOST_HANDS: usize = WAITING + 8;
/// Requests that may wait for a hand, once there are no more hands to be had: each may hold the
/// data of a write, so there is an end to them.
const MOST_LEFT: usize = 16;
/// How long a hand waits for another request before it ends.
const PATIENCE: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() + Send>;

/// The threads that answer requests.
pub struct Crew {
    readers: usize,
    /// Readers that answer a request themselves.
    busy: AtomicUsize,
    hands: Arc<Hands>,
}

impl Crew {
    /// With so many threads that read.
    pub fn new(readers: usize) -> Crew {
        Crew { readers, busy: AtomicUsize::new(0), hands: Arc::default() }
    }

    /// The leave for the reader that asks to answer a request itself. `None`: it is the last
    /// one that reads.
    pub fn leave(&self) -> Option<Leave<'_>> {
        let others_read = |busy: usize| (busy + 1 < self.readers).then_some(busy + 1);
        let left = self.busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, others_read);
        left.ok().map(|_| Leave(&self.busy))
    }

    /// Has a hand do some work; does it itself where no thread can be started for it, or too much
    /// waits for one already: then the kernel keeps what nobody reads.
    pub fn hand_over(&self, work: impl FnOnce() + Send + 'static) {
        self.hands.take(Box::new(work));
    }
}

/// A reader answers a request until this is dropped.
pub struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The hands, and the work that waits for one.
#[derive(Default)]
struct Hands {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    all: usize,
    /// Hands that are at work. The others are about to take what waits.
    busy: usize,
}

impl State {
    /// Work that no hand is about to take.
    fn left(&self) -> usize {
        self.work.len().saturating_sub(self.all - self.busy)
    }

    /// The last work, for the thread that has brought it, where the hands are not up to it.
    fn too_much(&mut self) -> Option<Work> {
        if self.all == 0 || self.left() > MOST_LEFT {
            self.work.pop_back()
        } else {
            None
        }
    }
}

impl Hands {
    fn take(self: &Arc<Self>, work: Work) {
        let mut state = self.state.lock();
        state.work.push_back(work);
        if state.left() == 0 {
            self.wake.notify_one();
            return;
        }
        if state.all < MOST_HANDS {
            state.all += 1;
            drop(state);
            if self.hire().is_ok() {
                return;
            }
            state = self.state.lock();
            state.all -= 1;
        }
        let work = state.too_much();
        drop(state);
        if let Some(work) = work {
            guard(work);
        }
    }

    fn hire(self: &Arc<Self>) -> io::Result<()> {
        let hands = self.clone();
        let thread = std::thread::Builder::new().name("fuse hand".into());
        thread.spawn(move || {
            while let Some(work) = hands.next() {
                guard(work);
                hands.state.lock().busy -= 1;
            }
        })?;
        Ok(())
    }

    /// The next work of a hand. `None`: it is not needed any more.
    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if let Some(work) = state.work.pop_front() {
                state.busy += 1;
                return Some(work);
            }
            let late = self.wake.wait_for(&mut state, PATIENCE).timed_out();
            if late && state.work.is_empty() {
                state.all -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::sync::Barrier;

    #[test]
    fn the_last_reader_is_not_let_go() {
        let crew = Crew::new(3);
        let first = crew.leave().unwrap();
        let second = crew.leave().unwrap();
        assert!(crew.leave().is_none());
        drop(first);
        let third = crew.leave();
        assert!(third.is_some() && crew.leave().is_none());
        drop((second, third));
        assert!(crew.leave().is_some());
    }

    #[test]
    fn work_that_waits_holds_up_no_other() {
        let crew = Crew::new(1);
        let together = Arc::new(Barrier::new(WAITING + 1));
        let (done, all) = channel();
        for number in 0..WAITING {
            let (together, done) = (together.clone(), done.clone());
            crew.hand_over(move || {
                together.wait();
                done.send(number).unwrap();
            });
        }
        let other = done.clone();
        crew.hand_over(move || other.send(usize::MAX).unwrap());
        assert_eq!(all.recv(), Ok(usize::MAX));
        together.wait();
        let mut numbers: Vec<_> = all.iter().take(WAITING).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..WAITING));
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let crew = Crew::new(1);
        let (done, all) = channel();
        let (go, gone) = channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        for _ in 0..MOST_HANDS + MOST_LEFT {
            let (done, gone) = (done.clone(), gone.clone());
            crew.hand_over(move || {
                // An error once there is nothing to wait for.
                let _ = gone.lock().recv();
                done.send(std::thread::current().id()).unwrap();
            });
        }
        let other = done.clone();
        crew.hand_over(move || other.send(std::thread::current().id()).unwrap());
        assert_eq!(all.try_recv(), Ok(std::thread::current().id()));
        drop(go);
        assert_eq!(all.iter().take(MOST_HANDS + MOST_LEFT).count(), MOST_HANDS + MOST_LEFT);
    }

    #[test]
    fn a_panic_ends_neither_a_hand_nor_what_waits_behind() {
        let crew = Crew::new(1);
        let (done, all) = channel();
        for number in 0..50 {
            let done = done.clone();
            crew.hand_over(move || {
                done.send(number).unwrap();
                assert!(number % 2 == 0, "expected by the test");
            });
        }
        let mut numbers: Vec<_> = all.iter().take(50).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..50));
    }
}
