//! Memory, in a process that the kernel needs in order to get memory back.
//!
//! When memory is short the kernel writes dirty pages to their devices, one of which may be ours.
//! A request of such a write must not wait for memory that only this write would set free.

use rustix::mm::{mlockall, MlockAllFlags};
use rustix::process::configure_io_flusher_behavior;
use rustix::thread::{capabilities, CapabilitySet};

/// Before any thread is started, which then does the same: what this process allocates waits for
/// no write-back, its own writes are throttled by the disk that they go to and not by what waits
/// for our device, and its memory stays where it is. All of that takes a privilege; without it a
/// device works as long as memory is not that short.
pub fn stay_clear_of_our_own_device() {
    let _ = configure_io_flusher_behavior(true);
    let may_lock = |sets: CapabilitySet| sets.contains(CapabilitySet::IPC_LOCK);
    // Under a limit, what is allocated later would be refused.
    if capabilities(None).is_ok_and(|sets| may_lock(sets.effective)) {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        let _ = mlockall(flags);
    }
}
