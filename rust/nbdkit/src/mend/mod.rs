//! Faults of nbdkit that a plugin cannot mend by its callbacks.

use std::io;

/// Only where the way is known: the tables of 64-bit programs of the GNU C library, and two
/// processors.
macro_rules! where_known {
    ($($item:item)*) => { $(
        #[cfg(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
        $item
    )* };
}

where_known! {
    #[allow(unsafe_code)]
    mod accepting;
    #[allow(unsafe_code)]
    mod imports;
    #[allow(unsafe_code)]
    mod vanished;

    /// Makes nbdkit call the plugin where it would abort, or spin. To be called once, while
    /// there is no other thread.
    pub fn nbdkit() -> io::Result<()> {
        match imports::Program::find() {
            Some(program) => {
                accepting::wait_for_descriptors(&program)?;
                vanished::let_go(program)
            }
            None => Ok(()),
        }
    }

    /// The server ends: nbdkit has to notice.
    pub fn end() {
        accepting::end();
    }
}

/// Leaves nbdkit as it is.
#[cfg(not(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn nbdkit() -> io::Result<()> {
    Ok(())
}

/// Nothing of nbdkit's waits for us.
#[cfg(not(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn end() {}
