//! Copies within the output.

#![allow(unsafe_code)]

use crate::arch::Arch;

/// For a distance below 16: byte i of the pattern is byte `i % distance` of the source.
static PATTERN: [[u8; 16]; 16] = {
    let mut table = [[0; 16]; 16];
    let mut distance = 1;
    while distance < 16 {
        let mut i = 0;
        while i < 16 {
            table[distance][i] = (i % distance) as u8;
            i += 1;
        }
        distance += 1;
    }
    table
};

/// For a distance below 16: the largest multiple of it that is at most 16.
static PERIOD: [u8; 16] = [0, 16, 16, 15, 16, 15, 12, 14, 16, 9, 10, 11, 12, 13, 14, 15];

/// Copies `N` bytes, which may overlap: all are read before any is written.
///
/// # Safety
/// `N` bytes can be read at `from` and written at `to`.
#[inline(always)]
pub(crate) unsafe fn copy<const N: usize>(to: *mut u8, from: *const u8) {
    // SAFETY: the caller guarantees it.
    unsafe { std::ptr::copy(from, to, N) }
}

/// Copies a match, and up to 31 bytes that lie behind it.
///
/// # Safety
/// `distance` bytes before `to` and `length + 31` bytes from `to` on lie in one writable
/// buffer, and neither `distance` nor `length` is 0.
#[inline(always)]
pub(crate) unsafe fn copy_match<A: Arch>(arch: A, to: *mut u8, distance: usize, length: usize) {
    // SAFETY: the bytes read begin `distance` before `to`, and the bytes written at `to`.
    // Where 32 are copied at a time, `done < length`, so the last copy begins at most
    // `length - 1` behind `to`; as `done` is a multiple of 32, it ends at most 31 behind
    // the match. Where 16 are copied, the last copy ends at most 15 behind the match; the
    // first 16 bytes read end before `to + 16`.
    unsafe {
        let from = to.sub(distance).cast_const();
        let mut done = 0;
        if distance >= 16 {
            while done < length {
                // The second half may read what the first has just written.
                copy::<16>(to.add(done), from.add(done));
                copy::<16>(to.add(done + 16), from.add(done + 16));
                done += 32;
            }
        } else {
            let period = from.cast::<[u8; 16]>().read_unaligned();
            let pattern = arch.shuffle(period, PATTERN[distance]);
            while done < length {
                to.add(done).cast::<[u8; 16]>().write_unaligned(pattern);
                done += usize::from(PERIOD[distance]);
            }
        }
    }
}
