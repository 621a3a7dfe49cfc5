//! What stays in the cache, and how much.

use super::*;

const ITEM: u64 = 1000;

#[derive(Debug)]
struct Item(u64);

impl Weigh for Item {
    fn weight(&self) -> u64 {
        self.0
    }
}

fn load(cache: &BlockCache<Item>, block: u64, place: Place) -> Loaded<Item> {
    cache.load(block, || Ok::<_, ()>((Item(ITEM), place))).unwrap()
}

#[test]
fn what_is_wanted_once_pushes_out_nothing_that_is_kept() {
    let cache = BlockCache::new(256 * ITEM, ITEM);
    for block in 0..50 {
        load(&cache, block, Place::Kept);
    }
    for block in 1000..5000 {
        assert!(matches!(load(&cache, block, Place::New), Loaded::Made(_)));
        assert!(cache.bytes() <= cache.limit());
    }
    assert!((0..50).all(|block| cache.peek(block).is_some()));
    let passed = (1000..5000).filter(|&block| cache.peek(block).is_some()).count();
    assert!((1..=256 / NEW_PART as usize).contains(&passed), "{passed}");
}

#[test]
fn what_is_wanted_again_stays() {
    let cache = BlockCache::new(256 * ITEM, ITEM);
    load(&cache, 7, Place::New);
    let found = cache.peek(7).unwrap();
    cache.touch(7, &found);
    (1000..2000).for_each(|block| drop(load(&cache, block, Place::New)));
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
        load(&cache, 1, Place::New);
        load(&cache, 2, Place::Kept);
        assert!(cache.peek(1).is_some() && cache.peek(2).is_some(), "{capacity}");
        (10..2000).for_each(|block| drop(load(&cache, block, Place::Kept)));
        (10..2000).for_each(|block| drop(load(&cache, block + 5000, Place::New)));
        assert!(cache.bytes() <= limit, "{capacity}");
    }
}
