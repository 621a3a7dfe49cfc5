//! Ends of waiting that a user asks for: Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a thread that waits looks.
pub(crate) const TICK: Duration = Duration::from_millis(100);

static RAISED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this process for a server, as long as this lives.
#[derive(Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Ends the waits from now on.
    pub fn raise() -> Interrupt {
        RAISED.store(true, Ordering::Release);
        Interrupt(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        RAISED.store(false, Ordering::Release);
    }
}

pub(crate) fn raised() -> bool {
    RAISED.load(Ordering::Acquire)
}
