//! Writing to one file from many threads, one at a time.

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::buffers::Buffer;
use crate::Result;

/// How much may wait to be written, in bytes.
const WAITING: usize = 4 << 20;

/// A kernel lets one thread at a time write to a file, and the others wait for it, keeping
/// their processors busy. Here a thread that comes while another one writes leaves its data
/// to that one and goes on.
pub(super) struct Turns<'a> {
    /// How many pieces may wait.
    limit: usize,
    write: &'a (dyn Fn(&[u8], u64) -> Result<()> + Sync),
    state: Mutex<State>,
    /// Signalled when fewer wait, or no thread writes any more.
    room: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Piece>,
    /// A thread is writing, and will look for waiting pieces before it leaves.
    writing: bool,
}

struct Piece {
    data: Buffer,
    length: usize,
    offset: u64,
}

impl<'a> Turns<'a> {
    /// Data of buffers of `size` bytes goes through `write`, with its offset in bytes.
    pub(super) fn new(size: usize, write: &'a (dyn Fn(&[u8], u64) -> Result<()> + Sync)) -> Self {
        let limit = WAITING / size;
        Turns { limit, write, state: Mutex::default(), room: Condvar::new() }
    }

    /// Writes the first `length` bytes of `data` at `offset`, or has them written by a
    /// thread that is still in this function when this one returns.
    ///
    /// # Errors
    /// That of any piece that this thread wrote.
    pub(super) fn write(&self, data: Buffer, length: usize, offset: u64) -> Result<()> {
        let mut state = self.lock();
        state.waiting.push(Piece { data, length, offset });
        while state.writing {
            if state.waiting.len() <= self.limit {
                return Ok(());
            }
            self.room.wait(&mut state);
        }
        state.writing = true;
        let _guard = LeaveOnPanic(self);
        let mut outcome = Ok(());
        while outcome.is_ok() {
            // The last one is the likeliest to be in a processor's cache still.
            let Some(piece) = state.waiting.pop() else { break };
            drop(state);
            self.room.notify_one();
            outcome = (self.write)(&piece.data[..piece.length], piece.offset);
            drop(piece);
            state = self.lock();
        }
        state.writing = false;
        self.room.notify_all();
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Lets the other threads write when its own panics, so that none waits forever.
struct LeaveOnPanic<'a, 'b>(&'a Turns<'b>);

impl Drop for LeaveOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().writing = false;
            self.0.room.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use std::sync::Arc;

    use super::*;
    use crate::buffers::Buffers;
    use crate::{Error, ErrorKind};

    const PIECES: u64 = 200;

    /// Four threads write the pieces, four bytes each: how many of the calls failed.
    fn write_all(turns: &Turns<'_>, buffers: &Arc<Buffers>) -> usize {
        let failed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let failed = &failed;
                scope.spawn(move || {
                    for piece in (0..PIECES).filter(|piece| piece % 4 == thread) {
                        let mut data = buffers.take();
                        data[..4].copy_from_slice(&(piece as u32).to_le_bytes());
                        let outcome = turns.write(data, 4, piece);
                        failed.fetch_add(usize::from(outcome.is_err()), Ordering::SeqCst);
                    }
                });
            }
        });
        failed.into_inner()
    }

    #[test]
    fn all_is_written_by_one_thread_at_a_time() {
        for size in [4, WAITING / 2, WAITING * 2] {
            let buffers = Buffers::for_job(size);
            let busy = AtomicBool::new(false);
            let seen = Mutex::new(vec![0; PIECES as usize]);
            let write = |data: &[u8], offset: u64| {
                assert!(!busy.swap(true, Ordering::SeqCst), "two at a time");
                std::thread::sleep(Duration::from_micros(20));
                assert_eq!(data, (offset as u32).to_le_bytes());
                seen.lock()[offset as usize] += 1;
                busy.store(false, Ordering::SeqCst);
                Ok(())
            };
            assert_eq!(write_all(&Turns::new(buffers.length(), &write), &buffers), 0);
            assert_eq!(seen.into_inner(), vec![1; PIECES as usize]);
            // One a thread, and those that wait.
            assert!(buffers.waiting() <= 4 + 1 + WAITING / size, "{} of {size}", buffers.waiting());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let buffers = Buffers::for_job(WAITING / 2);
        let write = |_: &[u8], offset| {
            assert_ne!(offset, 77, "wanted");
            Ok(())
        };
        let turns = Turns::new(buffers.length(), &write);
        assert!(catch_unwind(AssertUnwindSafe(|| write_all(&turns, &buffers))).is_err());
    }

    #[test]
    fn a_failure_is_told_once_and_holds_no_thread_up() {
        let buffers = Buffers::for_job(WAITING / 2);
        let write = |_: &[u8], offset| match offset {
            77 => Err(Error::new(ErrorKind::NoSpace, "test", "full")),
            _ => Ok(()),
        };
        assert_eq!(write_all(&Turns::new(buffers.length(), &write), &buffers), 1);
    }
}
