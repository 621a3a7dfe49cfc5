//! Reads that no reader waits for.

use std::cell::Cell;

thread_local! {
    static BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` in the background: what this thread reads meanwhile says nothing about what will
/// be read next.
pub fn as_background<T>(work: impl FnOnce() -> T) -> T {
    struct Restored(bool);
    impl Drop for Restored {
        fn drop(&mut self) {
            BACKGROUND.set(self.0);
        }
    }
    let _restored = Restored(BACKGROUND.replace(true));
    work()
}

/// Whether this thread reads in the background.
pub fn in_background() -> bool {
    BACKGROUND.get()
}
