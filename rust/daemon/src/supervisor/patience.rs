//! How many servers may fail in a row, and the pause before the next one.

use std::time::Duration;

use rustix::process::Signal;

use super::watch::Ended;

/// A server that has answered requests for so long is no failure when it ends.
pub const STEADY: Duration = Duration::from_secs(10);
/// Servers that may fail in a row.
pub const FAILURES: u32 = 8;
/// The pause after the first failure; each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// The servers that have ended too soon since the last one that did not.
#[derive(Debug, Default)]
pub struct Patience {
    /// Those that have failed by themselves, in a row.
    failures: u32,
    /// Those that others have killed, as far as they make the pause longer.
    kills: u32,
}

impl Patience {
    /// The pause before the server that follows this one; `None`: there should be no other.
    ///
    /// A request that ends its server is sent again to the next one, and would end them all.
    pub fn after(&mut self, ended: &Ended) -> Option<Duration> {
        if ended.replaced || ended.steady {
            *self = Patience::default();
            return Some(Duration::ZERO);
        }
        // A program does not send itself this signal: the next server may fare better. But where
        // memory is short, the kernel may send it to each.
        if ended.was_ready && ended.killed_by(Signal::KILL) {
            self.failures = 0;
            self.kills = (self.kills + 1).min(FAILURES);
            return Some(pause(self.kills));
        }
        self.failures += 1;
        (self.failures <= FAILURES).then(|| pause(self.failures))
    }
}

/// The pause after so many servers.
fn pause(servers: u32) -> Duration {
    PAUSE * 2u32.pow(servers - 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(signal: Signal) -> Ended {
        let status = ExitStatus::from_raw(signal.as_raw());
        Ended { status, was_ready: true, steady: false, wanted: false, replaced: false }
    }

    #[test]
    fn servers_that_fail_as_soon_as_they_are_ready_come_to_an_end() {
        let mut patience = Patience::default();
        let pauses: Vec<_> =
            std::iter::from_fn(|| patience.after(&ended(Signal::ABORT))).take(100).collect();
        assert_eq!(pauses.len(), 8);
        assert!(pauses.iter().all(|pause| !pause.is_zero()) && pauses.is_sorted());
    }

    #[test]
    fn a_steady_server_begins_a_new_row() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            for _ in 0..7 {
                assert!(patience.after(&ended(Signal::SEGV)).is_some());
            }
            let steady = Ended { steady: true, ..ended(Signal::SEGV) };
            assert_eq!(patience.after(&steady), Some(Duration::ZERO));
        }
    }

    #[test]
    fn a_server_that_others_kill_is_always_followed_by_another() {
        let mut patience = Patience::default();
        let killed = || ended(Signal::KILL);
        let pauses: Vec<_> = std::iter::from_fn(|| patience.after(&killed())).take(100).collect();
        assert_eq!((pauses.len(), pauses[0]), (100, PAUSE));
        assert!(pauses.is_sorted() && pauses[99] > 100 * PAUSE, "{pauses:?}");
        // One that fails by itself then is the first of a row.
        assert_eq!(patience.after(&ended(Signal::SEGV)), Some(PAUSE));
        let replaced = Ended { replaced: true, ..ended(Signal::KILL) };
        assert_eq!(patience.after(&replaced), Some(Duration::ZERO));
        let never_ready = || Ended { was_ready: false, ..ended(Signal::KILL) };
        let pauses = std::iter::from_fn(|| patience.after(&never_ready()));
        assert_eq!(pauses.take(100).count(), 8);
    }
}
