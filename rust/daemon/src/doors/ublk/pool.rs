//! The threads that handle requests. There are as many as requests are under way, so none waits
//! for another: neither for a read of a medium that is out, nor for one of a slow network.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};

use cowcloop_server::guard;
use parking_lot::Mutex;

/// Threads that are there from the start, whose memory is there as well.
const READY: usize = 4;

/// A request, by its queue and its number there.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub queue: u16,
    pub tag: u16,
}

/// Handles requests with a buffer of the thread's own.
pub trait Work: Send + Sync + 'static {
    /// Bytes of a thread's buffer.
    fn buffer(&self) -> usize;
    /// Handles a request and answers it.
    fn handle(&self, job: Job, buffer: &mut [u8]);
    /// Answers a request whose handling has failed in an unforeseen way.
    fn fail(&self, job: Job);
}

/// The threads.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    work: Box<dyn Work>,
    /// The most threads.
    most: usize,
    /// Never held while a request is handled.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// The one that was busy last is woken first: its buffer is in the processor's cache.
    idle: Vec<Thread>,
    threads: Vec<JoinHandle<()>>,
    ended: bool,
}

impl Pool {
    /// Starts the first threads.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(work: Box<dyn Work>, most: usize) -> std::io::Result<Pool> {
        // What grows while requests are handled would need memory, perhaps of a system that waits
        // for just these requests.
        let state = State {
            jobs: VecDeque::with_capacity(most),
            idle: Vec::with_capacity(most),
            threads: Vec::with_capacity(most),
            ended: false,
        };
        let pool = Pool { shared: Arc::new(Shared { work, most, state: Mutex::new(state) }) };
        for _ in 0..READY.min(most) {
            let thread = pool.shared.spawn()?;
            pool.shared.state.lock().threads.push(thread);
        }
        Ok(pool)
    }

    /// Has a request handled.
    pub fn handle(&self, job: Job) {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(job);
        if let Some(thread) = state.idle.pop() {
            drop(state);
            thread.unpark();
        } else if state.threads.len() < self.shared.most {
            // Without another thread, one of those that there are takes it later.
            if let Ok(thread) = self.shared.spawn() {
                state.threads.push(thread);
            }
        }
    }

    /// Ends the threads, once all requests are answered.
    pub fn end(&self) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.ended = true;
            state.idle.drain(..).for_each(|thread| thread.unpark());
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            // A thread does not panic: see `guard`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn spawn(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let shared = self.clone();
        thread::Builder::new().name("request".into()).spawn(move || shared.run())
    }

    fn run(&self) {
        let mut buffer = vec![0; self.work.buffer()];
        // Zeros that nothing was written to may have no memory of their own.
        buffer.iter_mut().step_by(4096).for_each(|byte| *std::hint::black_box(byte) = 1);
        while let Some(job) = self.next() {
            if guard(|| self.work.handle(job, &mut buffer)).is_none() {
                self.work.fail(job);
            }
        }
    }

    /// Waits for a request; `None`: there will be no more.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            let me = thread::current();
            state.idle.push(me.clone());
            drop(state);
            thread::park();
            state = self.state.lock();
            // It may have woken by itself.
            state.idle.retain(|idle| idle.id() != me.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{channel, Receiver, Sender};

    /// Each request waits until it is let go.
    struct Held {
        go: Mutex<Vec<Option<Receiver<()>>>>,
        done: Sender<u16>,
    }

    impl Work for Held {
        fn buffer(&self) -> usize {
            1
        }

        fn handle(&self, job: Job, _buffer: &mut [u8]) {
            let go = self.go.lock()[usize::from(job.tag)].take().unwrap();
            go.recv().unwrap();
            self.done.send(job.tag).unwrap();
        }

        fn fail(&self, _job: Job) {}
    }

    #[test]
    fn a_request_that_waits_holds_up_no_other() {
        let (lets, goes): (Vec<_>, Vec<_>) = (0..10).map(|_| channel()).unzip();
        let (done, finished) = channel();
        let go = Mutex::new(goes.into_iter().map(Some).collect());
        let pool = Pool::start(Box::new(Held { go, done }), 10).unwrap();
        for tag in 0..10 {
            pool.handle(Job { queue: 0, tag });
        }
        // The last one comes first although all others wait.
        for tag in (0..10).rev() {
            lets[usize::from(tag)].send(()).unwrap();
            assert_eq!(finished.recv(), Ok(tag));
        }
        pool.end();
    }
}
