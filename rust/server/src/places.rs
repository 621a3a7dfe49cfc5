//! The number of clients that fit: each costs descriptors, and the process has a limited
//! number.
//!
//! A client that does not fit is told so at once. A server without descriptors would fail
//! the first write of a session that it has let in, and leave new clients waiting.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use crate::events::Events;

/// Kept for everything else: control clients, cowfiles in the making, connections that come
/// and go.
const RESERVE: usize = 96;
/// Cowfiles that are made or opened at a time.
const MAKERS: usize = 8;

/// The descriptors that clients may have. Until they have been counted there is no limit.
pub struct Places {
    /// The most descriptors that the process may have open.
    limit: AtomicU64,
    room: AtomicUsize,
    taken: AtomicUsize,
    /// The lack of room was reported, and room has not been back for long.
    told: AtomicBool,
    turn: AtomicUsize,
    makers: [Mutex<()>; MAKERS],
    events: Arc<dyn Events>,
}

impl Places {
    pub(crate) fn new(events: Arc<dyn Events>) -> Places {
        Places {
            limit: AtomicU64::new(u64::MAX),
            room: AtomicUsize::new(usize::MAX),
            taken: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            makers: Default::default(),
            events,
        }
    }

    /// Raises the limit of open files as far as the system allows.
    pub(crate) fn raise_limit() {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current != maximum {
            // If that fails, fewer clients fit.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        }
    }

    /// Counts the open descriptors before the first client comes: the rest is for clients.
    pub(crate) fn count(&self) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = fs::read_dir("/proc/self/fd").map_or(RESERVE, Iterator::count);
        self.set(limit, open);
    }

    fn set(&self, limit: u64, open: usize) {
        let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open);
        self.limit.store(limit, Ordering::Release);
        self.room.store(left - RESERVE.min(left / 2), Ordering::Release);
    }

    /// Takes so many descriptors, at most `over` beyond the room.
    pub fn take(self: &Arc<Self>, cost: usize, over: usize) -> Option<Place> {
        let room = self.room.load(Ordering::Acquire);
        let most = room.saturating_add(over);
        let fits = |taken: usize| taken.checked_add(cost).filter(|taken| *taken <= most);
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Place { places: self.clone(), cost, beyond: before + cost > room })
    }

    /// The message to a client that does not fit.
    pub fn refusal(&self) -> String {
        format!(
            "no room for another client: this process may have {} files open; raise the limit \
             (ulimit -n)",
            self.limit.load(Ordering::Acquire)
        )
    }

    /// Reports once that there is no room.
    pub fn tell_full(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.events.error(&self.refusal());
        }
    }

    /// Held while a cowfile is made or opened, which takes some descriptors for a moment.
    pub(crate) fn making(&self) -> MutexGuard<'_, ()> {
        self.makers[self.turn.fetch_add(1, Ordering::Relaxed) % MAKERS].lock()
    }
}

/// Some of the descriptors, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    cost: usize,
    beyond: bool,
}

impl Place {
    /// Whether it is beyond the room.
    pub fn is_beyond(&self) -> bool {
        self.beyond
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.places.taken.fetch_sub(self.cost, Ordering::AcqRel);
        if before - self.cost < self.places.room.load(Ordering::Acquire) / 4 * 3 {
            self.places.told.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::Kept;

    #[test]
    fn places_run_out_and_come_back() {
        let kept = Arc::new(Kept::default());
        let places = Arc::new(Places::new(kept.clone()));
        let early = places.take(3, 0).unwrap();
        assert!(!early.is_beyond());
        places.set(200, 10);
        // 190 are left, 96 of which are kept: of the other 94, 3 are taken.
        let taken: Vec<_> = std::iter::from_fn(|| places.take(3, 0)).collect();
        assert_eq!(taken.len(), 30);
        assert!(places.take(3, 3).unwrap().is_beyond());
        places.tell_full();
        places.tell_full();
        let told = kept.take();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("may have 200 files open"), "{told:?}");
        drop(taken);
        assert!(!places.take(3, 0).unwrap().is_beyond());
        places.tell_full();
        assert_eq!(kept.take().len(), 1);
    }

    #[test]
    fn few_descriptors_are_shared_with_the_reserve() {
        let places = Arc::new(Places::new(Arc::new(Kept::default())));
        places.set(50, 10);
        assert_eq!(places.room.load(Ordering::Relaxed), 20);
    }
}
