//! Panics stop here, and the engine's messages become events.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::events::{Event, Events};

/// How the names of our crates begin.
const OURS: &str = "cowcloop";

/// Runs some work. A panic ends here: the hook of [`forward`] reports it as an error, and
/// the result is `None`.
pub fn guard<T>(work: impl FnOnce() -> T) -> Option<T> {
    // Each step of the work leaves the state that other threads see whole, so a panic in
    // one harms no other.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Sends the engine's messages, and the text of a panic, as events, for the whole process.
pub fn forward(events: &'static dyn Events) {
    struct Forward(&'static dyn Events);
    impl log::Log for Forward {
        fn enabled(&self, metadata: &log::Metadata) -> bool {
            metadata.level() <= log::Level::Info
        }
        fn log(&self, record: &log::Record) {
            let text = &record.args().to_string();
            // What a library of a door's says is not worded for users.
            let ours = record.target().starts_with(OURS);
            self.0.tell(match record.level() {
                _ if !ours => Event::Debug { text },
                log::Level::Error => Event::Error { text },
                log::Level::Warn => Event::Warning { text },
                _ => Event::Debug { text },
            });
        }
        fn flush(&self) {}
    }
    if log::set_boxed_logger(Box::new(Forward(events))).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let what = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("panic");
        let place = panic.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
        events.error(&format!("internal error: {what}{}", place.unwrap_or_default()));
    }));
}

#[cfg(test)]
mod tests {
    use super::guard;

    #[test]
    fn a_panic_stops_at_the_guard() {
        assert_eq!(guard(|| 7), Some(7));
        assert_eq!(guard(|| -> i32 { panic!("expected by the test") }), None);
    }
}
