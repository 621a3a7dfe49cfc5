//! What stays in the cache, and how much.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const ITEM: u64 = 1000;

#[derive(Debug)]
struct Item(u64);

impl Weigh for Item {
    fn weight(&self) -> u64 {
        self.0
    }
}

fn load(cache: &BlockCache<Item>, block: u64, admission: Admission) -> Loaded<Item> {
    cache.load(block, || Ok::<_, ()>((Item(ITEM), admission))).unwrap()
}

#[test]
fn what_is_wanted_once_pushes_out_nothing_that_is_kept() {
    let cache = BlockCache::new(256 * ITEM, ITEM);
    for block in 0..50 {
        load(&cache, block, Admission::Kept);
    }
    for block in 1000..5000 {
        assert!(matches!(load(&cache, block, Admission::Once), Loaded::Made(_)));
        assert!(cache.bytes() <= cache.limit());
    }
    assert!((0..50).all(|block| cache.peek(block).is_some()));
    let passed = (1000..5000).filter(|&block| cache.peek(block).is_some()).count();
    assert!((1..=256 / NEW_PART as usize).contains(&passed), "{passed}");
}

#[test]
fn what_is_wanted_again_stays() {
    let cache = BlockCache::new(256 * ITEM, ITEM);
    load(&cache, 7, Admission::Once);
    let found = cache.peek(7).unwrap();
    cache.touch(7, &found);
    (1000..2000).for_each(|block| drop(load(&cache, block, Admission::Once)));
    assert!(Arc::ptr_eq(&found, &cache.peek(7).unwrap()));
    cache.remove(7, &found);
    assert!(cache.peek(7).is_none());
}

#[test]
fn the_smallest_cache_holds_the_heaviest_item_in_either_place() {
    for capacity in [2 * ITEM, 3 * ITEM, 20 * ITEM, 33 * ITEM, 1000 * ITEM] {
        let cache = BlockCache::new(capacity, ITEM);
        // Each shard's part is rounded up by less than a byte.
        let limit = capacity + cache.kept.num_shards() as u64;
        assert!(cache.limit() <= limit, "{capacity}");
        load(&cache, 1, Admission::Once);
        load(&cache, 2, Admission::Kept);
        assert!(cache.peek(1).is_some() && cache.peek(2).is_some(), "{capacity}");
        (10..2000).for_each(|block| drop(load(&cache, block, Admission::Kept)));
        (10..2000).for_each(|block| drop(load(&cache, block + 5000, Admission::Once)));
        assert!(cache.bytes() <= limit, "{capacity}");
    }
}

/// Four threads over a cache of a few items: each item is the block that it was
/// made for, one is made at a time, and the budget holds.
#[test]
fn many_threads_over_a_small_cache() {
    struct Block(u64);
    impl Weigh for Block {
        fn weight(&self) -> u64 {
            ITEM
        }
    }
    for capacity in [2 * ITEM, 5 * ITEM, 40 * ITEM] {
        let cache = BlockCache::new(capacity, ITEM);
        let making = [const { AtomicU64::new(0) }; 8];
        let work = |mut seed: u64| {
            for _ in 0..20_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (block, what) = ((seed >> 33) % 8, (seed >> 40) % 16);
                let place = if what % 2 == 0 { Admission::Once } else { Admission::Kept };
                let made = cache.load(block, || {
                    let others = making[block as usize].fetch_add(1, Ordering::SeqCst);
                    std::hint::spin_loop();
                    making[block as usize].fetch_sub(1, Ordering::SeqCst);
                    assert_eq!(others, 0, "two make one block");
                    if what == 3 {
                        Err(())
                    } else {
                        Ok((Block(block), place))
                    }
                });
                let Ok(Loaded::Found(item) | Loaded::Made(item)) = made else { continue };
                assert_eq!(item.0, block);
                match what {
                    4..8 => cache.touch(block, &item),
                    8 => cache.remove(block, &item),
                    _ => {}
                }
                assert!(cache.peek(block).is_none_or(|item| item.0 == block));
                assert!(cache.bytes() <= cache.limit());
            }
        };
        std::thread::scope(|scope| {
            for seed in 1..5 {
                let work = &work;
                scope.spawn(move || work(seed));
            }
        });
    }
}
