//! Decoded blocks, kept within a budget of bytes.
//!
//! There are two queues (2Q). A block that is wanted for the first time comes to a small
//! queue, where it soon makes room for the next one; when it is wanted again it moves to
//! the large queue. So a block that is read once takes the place, and the memory, of
//! another block that was read once, and pushes out none that readers come back to.
//!
//! Both queues are sharded (quick_cache). Of several readers that miss one block, one
//! decodes it and the others wait for it. No lock of the cache is held while a block is
//! decoded or copied out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{
    Cache, DefaultLifecycle, EntryAction, EntryResult, GuardResult, PlaceholderGuard,
};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// One part in so many of the budget is for new items, ...
const NEW_PART: u64 = 8;
/// ... but at least room for so many of them, unless that is more than half.
const LEAST_NEW: u64 = 8;

/// The part of the large queue for items that were used there; in the rest, items wait for
/// a use. Nothing heavier than that part is let in.
const HOT: f64 = 0.8;

/// Items for which the cache has its tables ready at the start.
const MOST_PREPARED: u64 = 1 << 14;

/// Something to keep.
pub(crate) trait Weigh {
    /// The bytes that it takes; must not change while it is in a cache.
    fn weight(&self) -> u64;
}

#[derive(Debug, Clone)]
struct ByWeight;

impl<T: Weigh> Weighter<u64, Arc<T>> for ByWeight {
    fn weight(&self, _block: &u64, value: &Arc<T>) -> u64 {
        value.weight()
    }
}

type Queue<T> = Cache<u64, Arc<T>, ByWeight>;
type Guard<'a, T> =
    PlaceholderGuard<'a, u64, Arc<T>, ByWeight, DefaultHashBuilder, DefaultLifecycle<u64, Arc<T>>>;

/// The right to make an item; one caller has it. Others that want the item wait for its end, so
/// a caller that has a turn waits for no other.
pub(crate) struct Turn<'a, T: Weigh> {
    block: u64,
    guard: Guard<'a, T>,
    cache: &'a BlockCache<T>,
}

impl<T: Weigh> Turn<'_, T> {
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// Gives the cache the item.
    pub(crate) fn fill(self, made: T, admission: Admission) -> Arc<T> {
        let made = Arc::new(made);
        self.cache.admitted.fetch_add(1, Ordering::Relaxed);
        match admission {
            // Not admitted if it was removed meanwhile: then it serves once.
            Admission::Once => drop(self.guard.insert(Arc::clone(&made))),
            Admission::Kept => self.cache.kept.insert(self.block, Arc::clone(&made)),
        }
        made
    }
}

/// The queue to which a new item is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The queue of items that were wanted once.
    Once,
    /// The queue of items that are worth keeping.
    Kept,
}

/// The outcome of [`BlockCache::load`].
pub(crate) enum Loaded<T> {
    /// It was there, or another reader brought it.
    Found(Arc<T>),
    /// It was made now.
    Made(Arc<T>),
}

/// A cache of the blocks of one image.
#[derive(Debug)]
pub(crate) struct BlockCache<T: Weigh> {
    /// First in, first out. Every item that is being made has its place here.
    new: Queue<T>,
    kept: Queue<T>,
    /// Items that came in, less those that were taken out.
    admitted: AtomicU64,
}

fn queue<T: Weigh>(capacity: u64, item: u64, options: &mut OptionsBuilder) -> Queue<T> {
    let options = options
        .weight_capacity(capacity)
        .estimated_items_capacity((capacity / item).min(MOST_PREPARED) as usize)
        .build()
        .expect("all options that have no default are given");
    let hasher = DefaultHashBuilder::default();
    Cache::with_options(options, ByWeight, hasher, DefaultLifecycle::default())
}

impl<T: Weigh> BlockCache<T> {
    /// A cache of `capacity` bytes, at least two items, which take `item` bytes at most.
    pub(crate) fn new(capacity: u64, item: u64) -> Self {
        let new = (capacity / NEW_PART).max(LEAST_NEW * item).min(capacity / 2);
        let kept = capacity - new;
        // Room for one item, whatever the rounding.
        let one = |capacity: u64| (1.5 * item as f64 / capacity as f64).min(1.0);
        BlockCache {
            new: queue(
                new,
                item,
                // Nothing is ever used there.
                OptionsBuilder::new().shards(1).hot_allocation(one(new)).ghost_allocation(0.0),
            ),
            kept: queue(kept, item, OptionsBuilder::new().hot_allocation(HOT.max(one(kept)))),
            admitted: AtomicU64::new(0),
        }
    }

    /// The block, when it is there. This does not count as a use.
    pub(crate) fn peek(&self, block: u64) -> Option<Arc<T>> {
        self.kept.peek(&block).or_else(|| self.new.peek(&block))
    }

    /// Counts one more use of a block that was found: it stays longer.
    pub(crate) fn touch(&self, block: u64, value: &Arc<T>) {
        if self.kept.get(&block).is_none() {
            self.kept.insert(block, Arc::clone(value));
            self.new.remove_if(&block, |held| Arc::ptr_eq(held, value));
        }
    }

    /// The block, made by `make` when it is not there. Of the callers that come at the same
    /// time, one makes it and the others wait.
    pub(crate) fn load<E>(
        &self,
        block: u64,
        make: impl FnOnce() -> Result<(T, Admission), E>,
    ) -> Result<Loaded<T>, E> {
        match self.new.get_value_or_guard(&block, None) {
            GuardResult::Value(found) => Ok(Loaded::Found(found)),
            GuardResult::Guard(guard) => self.fill(block, guard, make),
            GuardResult::Timeout => unreachable!("there is no limit to the wait"),
        }
    }

    /// As [`load`](Self::load), in place of a value that holds too little.
    pub(crate) fn load_instead<E>(
        &self,
        block: u64,
        old: &Arc<T>,
        make: impl FnOnce() -> Result<(T, Admission), E>,
    ) -> Result<Loaded<T>, E> {
        let was_kept = self.kept.remove_if(&block, |held| Arc::ptr_eq(held, old)).is_some();
        self.taken_out(was_kept);
        // Callers that waited for `old` have it before it is in its place, from
        // where it could be removed: here that is waited for, too.
        let entry = self.new.entry(&block, None, |_, held| {
            if Arc::ptr_eq(held, old) {
                EntryAction::ReplaceWithGuard
            } else {
                EntryAction::Retain(Arc::clone(held))
            }
        });
        match entry {
            EntryResult::Retained(found) => Ok(Loaded::Found(found)),
            EntryResult::Replaced(guard, _) => {
                self.taken_out(true);
                self.fill(block, guard, make)
            }
            EntryResult::Vacant(guard) => self.fill(block, guard, make),
            EntryResult::Removed(..) => unreachable!("that was not asked for"),
            EntryResult::Timeout => unreachable!("there is no limit to the wait"),
        }
    }

    /// The right to make a block; `None` when it is there, or another caller makes it.
    pub(crate) fn try_turn(&self, block: u64) -> Option<Turn<'_, T>> {
        let found = self.new.get_value_or_guard(&block, Some(Duration::ZERO));
        let GuardResult::Guard(guard) = found else { return None };
        let turn = Turn { block, guard, cache: self };
        // The caller that had the turn before may have put it there.
        self.kept.peek(&block).is_none().then_some(turn)
    }

    fn fill<E>(
        &self,
        block: u64,
        guard: Guard<'_, T>,
        make: impl FnOnce() -> Result<(T, Admission), E>,
    ) -> Result<Loaded<T>, E> {
        let turn = Turn { block, guard, cache: self };
        if let Some(found) = self.kept.peek(&block) {
            return Ok(Loaded::Found(found));
        }
        let (made, admission) = make()?;
        Ok(Loaded::Made(turn.fill(made, admission)))
    }

    /// Whether a caller is making the block now.
    pub(crate) fn in_flight(&self, block: u64) -> bool {
        let found = self.new.get_value_or_guard(&block, Some(Duration::ZERO));
        matches!(found, GuardResult::Timeout)
    }

    /// Takes out a value, unless another has taken its place.
    pub(crate) fn remove(&self, block: u64, value: &Arc<T>) {
        for queue in [&self.new, &self.kept] {
            let held = queue.remove_if(&block, |held| Arc::ptr_eq(held, value));
            self.taken_out(held.is_some());
        }
    }

    fn taken_out(&self, was_there: bool) {
        self.admitted.fetch_sub(u64::from(was_there), Ordering::Relaxed);
    }

    /// Items that it holds.
    pub(crate) fn blocks(&self) -> u64 {
        (self.new.len() + self.kept.len()) as u64
    }

    /// Items that have made room for others.
    pub(crate) fn evictions(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed).saturating_sub(self.blocks())
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.new.weight() + self.kept.weight()
    }

    /// Bytes that it may hold.
    pub(crate) fn limit(&self) -> u64 {
        self.new.capacity() + self.kept.capacity()
    }
}

#[cfg(test)]
mod tests;
