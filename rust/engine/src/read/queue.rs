//! Work for a few threads, which sleep while there is none.
//!
//! rayon's threads look for more work some thirty times before they sleep, and give up their
//! turn each time. Reading ahead of a reader of small files puts a thread to sleep thousands of
//! times a second: looking for more work then took a third of a server's processor time.

use std::collections::VecDeque;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

type Work = Box<dyn FnOnce() + Send>;

/// Does work, the oldest first. What is left when this is dropped is not done.
#[derive(Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        let (work, threads) = (state.work.len(), state.threads);
        f.debug_struct("Shared").field("work", &work).field("threads", &threads).finish()
    }
}

impl Queue {
    /// Without a thread.
    pub(super) fn new() -> Self {
        Queue(Arc::default())
    }

    /// Has work done by one of at most `threads` threads.
    ///
    /// # Errors
    /// No thread can be started, and there is none: the work is dropped.
    pub(super) fn push(
        &self,
        threads: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.work.push_back(Box::new(work));
        if state.idle >= state.work.len() {
            self.0.wake.notify_one();
            return Ok(());
        }
        if state.threads >= threads {
            return Ok(());
        }
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("cowcloop-ahead".into());
        match thread.spawn(move || shared.run()) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                state.work.clear();
                return Err(error);
            }
            // The others do it.
            Err(_) => {}
        }
        Ok(())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.work.clear();
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(work) = self.next() {
            // The panic was told of when it happened; the thread is there for others, too.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(work) = state.work.pop_front() {
                return Some(work);
            }
            state.idle += 1;
            self.wake.wait(&mut state);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, RecvError};
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn one_thread_does_the_oldest_first_and_outlives_a_panic() {
        let queue = Queue::new();
        let (done, all) = channel();
        for number in 0..50 {
            let done = done.clone();
            let work = move || {
                done.send(number).unwrap();
                assert!(number % 2 == 0, "expected by the test");
            };
            queue.push(1, work).unwrap();
        }
        assert!(all.iter().take(50).eq(0..50));
    }

    #[test]
    fn work_is_done_by_all_threads_at_a_time() {
        let queue = Queue::new();
        let together = Arc::new(Barrier::new(4));
        let (done, all) = channel();
        for _ in 0..4 {
            let (together, done) = (together.clone(), done.clone());
            let work = move || done.send(together.wait().is_leader()).unwrap();
            queue.push(4, work).unwrap();
        }
        assert_eq!(all.iter().take(4).filter(|leader| *leader).count(), 1);
        assert_eq!(queue.0.state.lock().threads, 4);
    }

    #[test]
    fn what_is_left_is_not_done_and_the_thread_ends() {
        let queue = Queue::new();
        let (go, wait) = channel::<()>();
        let (begun, begins) = channel();
        let (done, all) = channel::<()>();
        let first = move || {
            begun.send(()).unwrap();
            let _ = wait.recv();
        };
        queue.push(1, first).unwrap();
        queue.push(1, move || done.send(()).unwrap()).unwrap();
        begins.recv().unwrap();
        let shared = Arc::downgrade(&queue.0);
        drop(queue);
        // Dropped with the queue, undone.
        assert_eq!(all.recv(), Err(RecvError));
        drop(go);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
