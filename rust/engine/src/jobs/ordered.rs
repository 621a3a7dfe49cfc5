//! Work on many threads whose results are taken in order.
//!
//! `next` hands out jobs one at a time, `work` does them on any thread, and
//! `sink` takes the results in the order of the jobs, on the caller's thread.
//! At most `window` jobs are between `next` and the end of their `sink`.
//!
//! The error that is returned is that of the earliest job that failed, so that
//! it does not depend on the number of threads.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::Result;

/// How long the caller's thread sleeps at most before it asks `check` again.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

struct State<R> {
    /// Results from job number `taken` on, those not yet there as `None`.
    results: VecDeque<Option<Result<R>>>,
    /// Jobs handed out.
    issued: u64,
    /// Jobs whose results went through the sink.
    taken: u64,
    /// No job will follow those that are issued.
    exhausted: bool,
    /// The end, good or bad: threads shall leave.
    stopped: bool,
}

struct Shared<R> {
    state: Mutex<State<R>>,
    /// Signalled when the window has room.
    room: Condvar,
    /// Signalled when the first result is there.
    ready: Condvar,
}

impl<R> Shared<R> {
    fn new(window: usize) -> Self {
        let state = State {
            results: VecDeque::with_capacity(window),
            issued: 0,
            taken: 0,
            exhausted: false,
            stopped: false,
        };
        Shared { state: Mutex::new(state), room: Condvar::new(), ready: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock()
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.room.notify_all();
        self.ready.notify_all();
    }

    /// Waits for room and takes the next number; `None` at the end.
    fn ticket(&self, window: usize) -> Option<u64> {
        let mut state = self.lock();
        while !state.stopped && !state.exhausted && state.issued - state.taken >= window as u64 {
            self.room.wait(&mut state);
        }
        if state.stopped || state.exhausted {
            return None;
        }
        state.issued += 1;
        state.results.push_back(None);
        Some(state.issued - 1)
    }

    /// There was no job for `ticket`, the last one that was taken.
    fn exhaust(&self, ticket: u64) {
        let mut state = self.lock();
        debug_assert_eq!(ticket + 1, state.issued);
        state.issued = ticket;
        state.results.pop_back();
        state.exhausted = true;
        self.room.notify_all();
        self.ready.notify_all();
    }

    fn post(&self, ticket: u64, result: Result<R>) {
        let mut state = self.lock();
        // Results that came before are of no use after a failure.
        state.exhausted |= result.is_err();
        let index = (ticket - state.taken) as usize;
        state.results[index] = Some(result);
        if index == 0 {
            self.ready.notify_all();
        }
    }

    /// Waits for the first result; `None` at the end.
    fn first(&self, check: &dyn Fn() -> Result<()>) -> Result<Option<R>> {
        let mut state = self.lock();
        loop {
            if let Some(first) = state.results.front_mut() {
                if let Some(result) = first.take() {
                    drop(state);
                    check()?;
                    return result.map(Some);
                }
            } else if state.exhausted {
                return Ok(None);
            }
            if state.stopped {
                return Ok(None);
            }
            if self.ready.wait_for(&mut state, CHECK_INTERVAL).timed_out() {
                drop(state);
                check()?;
                state = self.lock();
            }
        }
    }

    /// Passes the results on to `sink` until the end.
    fn drain(
        &self,
        sink: &mut dyn FnMut(R) -> Result<()>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        while let Some(result) = self.first(check)? {
            sink(result)?;
            let mut state = self.lock();
            state.taken += 1;
            state.results.pop_front();
            self.room.notify_all();
        }
        Ok(())
    }
}

/// Stops the other threads when its own panics, so that none waits forever.
struct StopOnPanic<'a, R>(&'a Shared<R>);

impl<R> Drop for StopOnPanic<'_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// Runs a pipeline: see the module's documentation.
///
/// Each thread has a `scratch` of its own. `check` is asked regularly on the
/// caller's thread, and its error ends the work.
pub(super) fn run<J: Send, R: Send, S>(
    threads: usize,
    window: usize,
    next: impl FnMut() -> Result<Option<J>> + Send,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> Result<R> + Sync,
    mut sink: impl FnMut(R) -> Result<()>,
    check: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let shared = Shared::new(window);
    let next = Mutex::new(next);
    let worker = || {
        let _guard = StopOnPanic(&shared);
        let mut scratch = scratch();
        loop {
            // Held while reading from a pipe: the reads are in order, and the
            // other threads are at work meanwhile.
            let mut source = next.lock();
            let Some(ticket) = shared.ticket(window.max(1)) else { return };
            let job = match source().transpose() {
                // Still under the lock: no thread may take a ticket after this one.
                None => return shared.exhaust(ticket),
                Some(job) => job,
            };
            drop(source);
            let result = job.and_then(|job| work(&mut scratch, job));
            shared.post(ticket, result);
        }
    };
    let any = std::thread::scope(|scope| {
        let start = || std::thread::Builder::new().spawn_scoped(scope, worker).is_ok();
        // As many as the system starts.
        if (0..threads.max(1)).take_while(|_| start()).count() == 0 {
            return Ok(false);
        }
        let _guard = StopOnPanic(&shared);
        let outcome = shared.drain(&mut sink, check);
        shared.stop();
        outcome.map(|()| true)
    })?;
    if any {
        return Ok(());
    }
    // It starts none: the caller does all the work.
    let mut next = next.into_inner();
    let mut scratch = scratch();
    loop {
        check()?;
        let Some(job) = next()? else { return Ok(()) };
        sink(work(&mut scratch, job)?)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    fn fail(job: u64) -> Error {
        Error::new(ErrorKind::Damaged, "test", format!("job {job}"))
    }

    fn numbers(end: u64) -> impl FnMut() -> Result<Option<u64>> {
        let mut jobs = 0..end;
        move || Ok(jobs.next())
    }

    #[test]
    fn results_come_in_order() {
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |_: &mut (), job: u64| {
                if job.is_multiple_of(5) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(job)
            };
            let sink = |job| {
                seen.push(job);
                Ok(())
            };
            run(threads, 4, numbers(200), || (), work, sink, &|| Ok(())).unwrap();
            assert!(seen.iter().copied().eq(0..200));
        }
    }

    #[test]
    fn the_earliest_error_is_told() {
        for _ in 0..50 {
            let work = |_: &mut (), job: u64| {
                if job == 20 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                if job >= 20 {
                    Err(fail(job))
                } else {
                    Ok(job)
                }
            };
            let mut taken = 0;
            let sink = |_| {
                taken += 1;
                Ok(())
            };
            let error = run(4, 8, numbers(100), || (), work, sink, &|| Ok(())).unwrap_err();
            assert_eq!(error.to_string(), "test: job 20");
            assert_eq!(taken, 20);
        }
    }

    #[test]
    fn errors_of_the_other_stages_end_it() {
        let mut jobs = 0..;
        let next = || match jobs.next().unwrap() {
            10 => Err(fail(10)),
            job => Ok(Some(job)),
        };
        let mut taken = 0;
        let count = |_| {
            taken += 1;
            Ok(())
        };
        let error = run(3, 4, next, || (), |_, job: u64| Ok(job), count, &|| Ok(())).unwrap_err();
        assert_eq!((error.to_string().as_str(), taken), ("test: job 10", 10));

        let sink = |job| if job == 7 { Err(fail(job)) } else { Ok(()) };
        let endless = numbers(u64::MAX);
        let error = run(3, 4, endless, || (), |_, job| Ok(job), sink, &|| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "test: job 7");

        let endless = numbers(u64::MAX);
        let check = || Err(fail(0));
        assert!(run(3, 4, endless, || (), |_, job| Ok(job), |_| Ok(()), &check).is_err());
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let flying = AtomicU64::new(0);
        let most = AtomicU64::new(0);
        let mut jobs = 0..100u64;
        let next = || {
            let job = jobs.next();
            if job.is_some() {
                most.fetch_max(flying.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            Ok(job)
        };
        let sink = |_| {
            flying.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(100));
            Ok(())
        };
        run(4, 3, next, || (), |_, job| Ok(job), sink, &|| Ok(())).unwrap();
        assert!((2..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let work = |_: &mut (), job: u64| {
            assert_ne!(job, 5, "wanted");
            Ok(job)
        };
        let caught = std::panic::catch_unwind(|| {
            run(2, 4, numbers(100), || (), work, |_| Ok(()), &|| Ok(()))
        });
        assert!(caught.is_err());
    }
}
