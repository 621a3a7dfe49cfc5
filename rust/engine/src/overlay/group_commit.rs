//! Group commit: flushes that are requested at the same time share one round.

use parking_lot::{Condvar, Mutex};

use crate::{Error, Result};

/// Rounds of flushing, one at a time.
#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Rounds that have begun; the last of them may be under way.
    begun: u64,
    running: bool,
    /// The newest round that succeeded.
    good: u64,
    /// The newest round that failed, and why.
    bad: Option<(u64, Error)>,
}

impl State {
    /// The outcome for a caller that needs `round` or any later one.
    fn outcome(&self, round: u64) -> Option<Result<()>> {
        if self.good >= round {
            return Some(Ok(()));
        }
        self.bad.as_ref().filter(|(bad, _)| *bad >= round).map(|(_, error)| Err(error.clone()))
    }
}

impl GroupCommit {
    /// Returns the outcome of a round that began after this call did: runs it,
    /// or waits for one that another caller runs.
    pub(crate) fn join(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        // A round under way may have begun before the caller's last change.
        let round = state.begun + 1;
        while state.running {
            self.finished.wait(&mut state);
            if let Some(outcome) = state.outcome(round) {
                return outcome;
            }
        }
        state.running = true;
        state.begun += 1;
        let mut turn = Turn { rounds: self, round: state.begun, outcome: None };
        drop(state);
        let outcome = flush();
        turn.outcome = Some(outcome.clone());
        outcome
    }
}

/// A round under way. It ends even by a panic: the callers that wait for it then run another one.
struct Turn<'a> {
    rounds: &'a GroupCommit,
    round: u64,
    outcome: Option<Result<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.rounds.state.lock();
        state.running = false;
        match self.outcome.take() {
            Some(Ok(())) => state.good = self.round,
            Some(Err(error)) => state.bad = Some((self.round, error)),
            None => {}
        }
        self.rounds.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn a_round_covers_what_came_before_it_and_is_shared() {
        let (rounds, runs) = (GroupCommit::default(), AtomicU64::new(0));
        let (written, durable) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        let round = || {
                            runs.fetch_add(1, Ordering::SeqCst);
                            let seen = written.load(Ordering::SeqCst);
                            std::thread::sleep(Duration::from_micros(200));
                            durable.store(seen, Ordering::SeqCst);
                            Ok(())
                        };
                        rounds.join(round).unwrap();
                        assert!(durable.load(Ordering::SeqCst) >= mine);
                    }
                });
            }
        });
        assert!(runs.load(Ordering::SeqCst) < 400, "no round was shared");
    }

    #[test]
    fn a_failure_reaches_the_callers_that_waited_and_none_later() {
        let rounds = GroupCommit::default();
        let fail = || Err(Error::new(ErrorKind::NoSpace, "x", "full"));
        assert_eq!(rounds.join(fail).unwrap_err().kind(), ErrorKind::NoSpace);
        assert!(rounds.join(|| Ok(())).is_ok());
    }

    #[test]
    fn a_panic_ends_its_round() {
        let rounds = GroupCommit::default();
        let panics = || rounds.join(|| panic!("expected by the test"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(!rounds.state.lock().running, "the next caller would wait for good");
        assert!(rounds.join(|| Ok(())).is_ok());
    }
}
