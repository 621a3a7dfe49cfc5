//! The hot loop of one or two streams, a step at a time, without branches that depend on what the
//! data is.
//!
//! A step is two literals, or one, or none, and then any symbol. What they are is told by the
//! entries of the tables as numbers (bits to consume, bytes to go on), not by branches, because
//! a branch that tells a literal from a match is mispredicted as often as not. One stream is then
//! as slow as the chain of its lookups, four loads each behind the other; a second stream's chain
//! fits beside it.

#![allow(unsafe_code)]

use std::hint::select_unpredictable as select;
use std::marker::PhantomData;

use crate::arch::Arch;
use crate::bounds::{invariant, Bounds};
use crate::copy::copy;
use crate::lane::Lane;
use crate::tables::{Tables, DISTANCE_BITS, LITERALS, LITERAL_BITS, NEUTRAL};
use crate::window::{load, Cursor, Long, Seldom, Window, PAD};

/// Byte i is i: where a literal is copied from, as if it were a match. A copy reads 32 bytes.
#[repr(align(64))]
struct Bytes([u8; 256 + 32]);

static BYTES: Bytes = {
    let mut bytes = [0; 256 + 32];
    let mut i = 0;
    while i < 256 {
        bytes[i] = i as u8;
        i += 1;
    }
    Bytes(bytes)
};

/// Masks for the offset of an entry, in bytes, where the bits begin at bit [`PAD`].
const LITERAL_MASK: u64 = ((1 << LITERAL_BITS) - 1) << PAD;
const DISTANCE_MASK: u64 = ((1 << DISTANCE_BITS) - 1) << PAD;

/// A byte of an entry.
///
/// Volatile, so that it is a load of its own, of which there is room for more, and not a shift of
/// another load's result, of which there is not.
///
/// # Safety
/// The entry is one of the table's.
#[inline(always)]
unsafe fn byte(table: *const u8, entry: usize, at: usize) -> u8 {
    // SAFETY: the caller's.
    unsafe { table.add(entry + at).read_volatile() }
}

/// The block once for each stream, with a constant index.
macro_rules! each {
    ($i:ident $block:block) => {
        { const $i: usize = 0; if $i < K $block }
        { const $i: usize = 1; if $i < K $block }
    };
}

/// Inflates until one of the lanes needs the careful way, and says which. That lane may have been
/// so from the start.
#[inline(always)]
pub(crate) fn run<A: Arch, B: Bounds, const K: usize>(
    arch: A,
    _: B,
    lanes: &mut [&mut Lane<'_>; K],
    tables: [&Tables; K],
) -> usize {
    const { assert!(K <= 2) };
    let mut windows: [Option<(Window<'_>, Cursor)>; K] = [None; K];
    each!(I {
        match Window::new::<B>(lanes[I], tables[I]) {
            Some(open) => windows[I] = Some(open),
            None => return I,
        }
    });
    let Some(open) = all(windows) else { return 0 };
    let w = open.map(|(window, _)| window);
    let (cursors, stuck) = steps::<A, B, K>(arch, &w, open.map(|(_, cursor)| cursor));
    each!(I {
        w[I].leave(lanes[I], &cursors[I]);
    });
    stuck
}

#[inline(always)]
fn all<T: Copy, const K: usize>(options: [Option<T>; K]) -> Option<[T; K]> {
    let first = options[0]?;
    let mut all = [first; K];
    for (to, from) in all.iter_mut().zip(options) {
        *to = from?;
    }
    Some(all)
}

#[inline(always)]
fn steps<A: Arch, B: Bounds, const K: usize>(
    arch: A,
    w: &[Window<'_>; K],
    cursors: [Cursor; K],
) -> ([Cursor; K], usize) {
    let mut bits = cursors.map(|cursor| cursor.bits);
    let mut count = cursors.map(|cursor| cursor.count);
    let mut next = cursors.map(|cursor| cursor.next);
    let mut out = cursors.map(|cursor| cursor.out);
    let table = w.each_ref().map(|w| std::ptr::from_ref(w.tables).cast::<u8>());
    // Where the first half of a step leaves its results to the second.
    let mut third = [0u64; K];
    let mut used = [0u64; K];
    let mut out2 = out;
    // No distance reaches before here.
    let mut floor = [0usize; K];

    // The first half of a step: two literals, if they are any. Else the same entry comes again,
    // because nothing is consumed.
    macro_rules! first_half {
        ($i:expr) => {{
            const I: usize = $i;
            invariant!(B, "two literals fit", w[I].end as usize - out[I] as usize >= 2);
            // SAFETY: a masked offset is an entry's. Two bytes can be written: after a step that
            // began at `out_limit` or before, OUT_SLACK has them; after a long copy COPY_SLACK.
            unsafe {
                let entry = (bits[I] & LITERAL_MASK) as usize;
                let one = table[I].add(entry).cast::<u32>().read();
                out[I].write(byte(table[I], entry, 2));
                let rest = bits[I] >> (one & 63);
                let entry = (rest & LITERAL_MASK) as usize;
                let two = table[I].add(entry).cast::<u32>().read();
                out[I].add(1).write(byte(table[I], entry, 2));
                third[I] = rest >> (two & 63);
                // The topmost bit says that it is a literal. No lower one carries into it.
                used[I] = u64::from(one).wrapping_add(u64::from(two));
                out2[I] = out[I].add((used[I] >> 31) as usize);
            }
        }};
    }

    let stuck = 'rounds: loop {
        // How many steps are safe whatever comes.
        let mut left = B::ROUND;
        each!(I {
            if !w[I].is_open(next[I], out[I]) {
                break 'rounds I;
            }
            let input = w[I].last_load as usize - next[I] as usize;
            let output = w[I].out_limit as usize - out[I] as usize;
            left = left.min(1 + (input / B::STEP_IN) as isize);
            left = left.min(1 + (output / B::STEP_OUT) as isize);
            floor[I] = (w[I].start as usize).max((out[I] as usize).saturating_sub(32768));
        });
        macro_rules! second_half {
            ($i:expr) => {{
                const I: usize = $i;
                invariant!(B, "a refill loads within the input", next[I] <= w[I].last_load);
                invariant!(B, "a step begins within its limit", out[I] <= w[I].out_limit);
                // SAFETY: a masked offset is an entry's, and so is NEUTRAL's. The refill: `left`
                // steps of at most STEP_IN bytes end at `last_load`. The copy: `left` steps of
                // STEP_OUT bytes end at `out_limit`, and OUT_SLACK is behind it.
                unsafe {
                    let entry = (third[I] & LITERAL_MASK) as usize;
                    let total = u32::from(byte(table[I], entry, 1));
                    let code = byte(table[I], entry, 3);
                    let base = usize::from(byte(table[I], entry, 2));
                    let is_literal = code & 0x80 != 0;
                    let rest = third[I] >> (total & 63);
                    let index = select(
                        is_literal,
                        NEUTRAL * 4,
                        (rest & DISTANCE_MASK) as usize,
                    );
                    let more = arch.low(third[I] >> PAD, total) >> (code & 63);
                    let length = select(is_literal, 1, (base + 3).wrapping_add(more as usize));
                    let literal = BYTES.0.as_ptr().add(base);
                    // Topped up here, where it can be done while the table is looked into.
                    let remain = count[I].wrapping_sub(used[I] as u32).wrapping_sub(total);
                    let full = rest | load(next[I]) << (remain & 63);
                    let entry = 4 * LITERALS + index;
                    let dtotal = u32::from(byte(table[I], entry, 0));
                    let dcode = byte(table[I], entry, 1);
                    let base = table[I].add(entry + 2).cast::<u16>().read();
                    let more = arch.low(full >> PAD, dtotal) >> (dcode & 63);
                    let distance = usize::from(base).wrapping_add(more as usize);
                    let after = full >> (dtotal & 63);
                    let back = out2[I].wrapping_sub(distance).cast_const();
                    let from = select(is_literal, literal, back);
                    let short = (remain as u8).wrapping_sub(PAD as u8) > B::BUDGET;
                    'step: {
                        if (back as usize) < floor[I] || short || length > 32 || distance < length {
                            let room = w[I].end as usize - out2[I] as usize;
                            // From 258 on it may be something exceptional.
                            if !is_literal
                                && length < 258
                                && !short
                                && back as usize >= floor[I]
                                && length + B::COPY_SLACK <= room
                            {
                                Long { out: out2[I], distance, length }.call(arch);
                                left -= B::RARE_STEPS;
                            } else {
                                let cursor = Cursor {
                                    bits: bits[I],
                                    count: count[I],
                                    next: next[I],
                                    out: out[I],
                                };
                                let moved =
                                    Seldom { window: &w[I], cursor, bounds: PhantomData::<B> }.call(arch);
                                if moved.out == out[I] {
                                    break 'rounds I;
                                }
                                (bits[I], count[I]) = (moved.bits, moved.count);
                                (next[I], out[I]) = (moved.next, moved.out);
                                left -= B::RARE_STEPS;
                                if next[I] > w[I].last_load {
                                    left = 0;
                                }
                                break 'step;
                            }
                        } else {
                            invariant!(
                                B,
                                "a step writes within the output",
                                w[I].end as usize - out2[I] as usize >= 32
                            );
                            copy::<32>(out2[I], from);
                        }
                        bits[I] = after;
                        next[I] = next[I].add(7 - (remain >> 3 & 7) as usize);
                        count[I] = (remain | 56).wrapping_sub(dtotal);
                        out[I] = out2[I].add(length);
                    }
                }
            }};
        }
        // The streams' halves are mixed, so that one's loads wait beside the other's.
        first_half!(0);
        loop {
            if K == 2 {
                first_half!(1);
            }
            second_half!(0);
            first_half!(0);
            if K == 2 {
                second_half!(1);
            }
            left -= 1;
            if left <= 0 {
                break;
            }
        }
    };
    let mut cursors = cursors;
    each!(I {
        cursors[I] = Cursor { bits: bits[I], count: count[I], next: next[I], out: out[I] };
    });
    (cursors, stuck)
}
