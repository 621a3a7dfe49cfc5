//! Reports of failures that clients cause, limited so that they do not flood the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cowcloop_engine::{Error, ErrorKind};
use parking_lot::Mutex;

use crate::events::{Event, Events};

/// Lines about failed requests that may be written at once.
const BURST: u32 = 20;
/// The time until one more may be written.
const REFILL: Duration = Duration::from_secs(1);

/// Writes the reports.
pub(crate) struct Reports {
    events: Arc<dyn Events>,
    limit: Mutex<Limit>,
}

impl Reports {
    /// With no report yet.
    pub(crate) fn new(events: Arc<dyn Events>) -> Reports {
        Reports { events, limit: Mutex::new(Limit::new()) }
    }

    /// Reports why a client's request failed.
    pub(crate) fn request_failed(&self, error: &Error) {
        let text = &error.to_string();
        if deserves_a_line(error) {
            self.limited(text, |text| self.events.tell(Event::RequestFailed { text }));
        } else {
            self.events.debug(text);
        }
    }

    /// Reports why a client was turned away.
    pub(crate) fn client_refused(&self, text: &str) {
        self.limited(text, |text| self.events.tell(Event::ClientRefused { text }));
    }

    fn limited(&self, text: &str, tell: impl FnOnce(&str)) {
        let allowed = self.limit.lock().take(Instant::now());
        match allowed {
            Some(0) => tell(text),
            Some(held_back) => tell(&format!("{text} ({held_back} errors before it not shown)")),
            None => self.events.debug(text),
        }
    }
}

/// Whether a failed request is reported to the server's owner.
fn deserves_a_line(error: &Error) -> bool {
    // The engine writes a damaged block and a failed sync into the log once,
    // when it finds them; `Unsupported` is the expected answer to a fast zero.
    !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Poisoned | ErrorKind::Unsupported)
}

/// A bucket of permissions to write a line.
struct Limit {
    left: u32,
    held_back: u64,
    since: Option<Instant>,
}

impl Limit {
    const fn new() -> Self {
        Limit { left: BURST, held_back: 0, since: None }
    }

    /// `Some(n)`: write the line; `n` lines were held back since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
        if earned > 0 {
            self.left = u32::try_from(earned).unwrap_or(BURST).saturating_add(self.left).min(BURST);
            self.since = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.held_back))
            }
            None => {
                self.held_back = self.held_back.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::Kept;

    #[test]
    fn a_flood_of_errors_becomes_a_trickle() {
        let mut limit = Limit::new();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(limit.take(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.take(start), None);
        }
        assert_eq!(limit.take(start + REFILL), Some(1000));
        assert_eq!(limit.take(start + REFILL), None);
        let later = start + 1000 * REFILL;
        let burst = (0..100).filter(|_| limit.take(later).is_some()).count();
        assert_eq!(burst, BURST as usize);
    }

    #[test]
    fn a_damaged_block_is_left_to_the_engine_to_tell() {
        let kept = Arc::new(Kept::default());
        let reports = Reports::new(kept.clone());
        reports.request_failed(&Error::new(ErrorKind::Damaged, "a.img", "block 3: bad checksum"));
        reports.request_failed(&Error::new(ErrorKind::NoSpace, "a.cow", "no space left"));
        let wanted = [
            r#"{"event":"debug","text":"a.img: block 3: bad checksum"}"#,
            r#"{"event":"request-failed","text":"a.cow: no space left"}"#,
        ];
        assert_eq!(kept.take(), wanted);
    }

    #[test]
    fn what_was_held_back_is_counted_in_the_next_line() {
        let kept = Arc::new(Kept::default());
        let reports = Reports::new(kept.clone());
        for _ in 0..BURST + 2 {
            reports.client_refused("no");
        }
        reports.limit.lock().since = Instant::now().checked_sub(REFILL);
        reports.client_refused("no");
        let told = kept.take();
        assert_eq!(told.iter().filter(|line| line.contains("client-refused")).count(), 21);
        assert!(told.last().unwrap().contains("no (2 errors before it not shown)"), "{told:?}");
    }
}
