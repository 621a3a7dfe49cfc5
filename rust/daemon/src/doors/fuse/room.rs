//! Where a thread puts the data of its answers.

use std::cell::RefCell;

/// Bytes of a page, as most kernels have them.
const PAGE: usize = 4096;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` room for `size` bytes, which hold what the thread put there before. It begins
/// with a page: the kernel copies page by page, each in two parts where ours begin elsewhere.
pub fn with_room<T>(size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    ROOM.with_borrow_mut(|room| {
        if room.len() < size + PAGE {
            room.resize(size + PAGE, 0);
        }
        let start = room.as_ptr().align_offset(PAGE).min(PAGE);
        work(&mut room[start..start + size])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_begins_with_a_page_and_is_used_again() {
        let mut first = None;
        for size in [1 << 20, 0, 1, 4095, 4097, 1 << 20] {
            let place = with_room(size, |room| {
                assert_eq!(room.len(), size);
                room.fill(7);
                room.as_ptr() as usize
            });
            assert_eq!(place % PAGE, 0);
            assert_eq!(*first.get_or_insert(place), place);
        }
        with_room(2 << 20, |room| assert_eq!(room.as_ptr() as usize % PAGE, 0));
    }
}
