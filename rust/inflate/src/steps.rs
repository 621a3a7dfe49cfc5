//! The hot loop of one or two streams, a step at a time, without branches that depend on
//! the data.
//!
//! A step is two literals, or one, or none, and then any symbol. The entries of the tables
//! tell these cases apart by numbers (bits to consume, bytes to move on), not by branches,
//! because a branch that tells a literal from a match is mispredicted as often as not. One
//! stream is then as slow as the chain of its lookups, four loads one after the other; a
//! second stream's chain fits beside it.

#![allow(unsafe_code)]

use std::hint::select_unpredictable as select;

use crate::arch::Arch;
use crate::bounds::{invariant, Bounds};
use crate::copy::copy;
use crate::hot::each;
use crate::tables::{self, Tables, LITERALS, NEUTRAL};
use crate::window::{load, Cursor, Rare, Window, DISTANCE_MASK, LITERAL_MASK, PAD};

/// Bytes that a step copies, even if the match is shorter. Longer matches are rare.
const SHORT: usize = 64;

/// Byte i is i: a literal is copied from here, as if it were a match.
#[repr(align(64))]
struct Bytes([u8; 256 + SHORT]);

static BYTES: Bytes = {
    let mut bytes = [0; 256 + SHORT];
    let mut i = 0;
    while i < 256 {
        bytes[i] = i as u8;
        i += 1;
    }
    Bytes(bytes)
};

/// The flags in an entry's last byte.
const LITERAL: u8 = (tables::LITERAL >> 24) as u8;
const EXCEPTIONAL: u8 = (tables::EXCEPTIONAL >> 24) as u8;

/// A byte of an entry.
///
/// It is volatile, so that it becomes a load of its own, for which the processor has room,
/// and not a shift of another load's result, for which it has not.
///
/// # Safety
/// The entry is in the table.
#[inline(always)]
unsafe fn byte(table: *const u8, entry: usize, at: usize) -> u8 {
    // SAFETY: the caller guarantees it.
    unsafe { table.add(entry + at).read_volatile() }
}

/// Inflates until one of the streams needs the careful way, and returns which.
#[inline(always)]
pub(crate) fn steps<A: Arch, B: Bounds, const K: usize>(
    arch: A,
    tables: &[Tables; K],
    w: &[Window<'_, B>; K],
    cursors: &mut [Cursor; K],
) -> usize {
    // One register leads to all tables.
    let base = tables.as_ptr().cast::<u8>();
    let mut bits = cursors.map(|cursor| cursor.bits);
    let mut count = cursors.map(|cursor| cursor.count);
    let mut next = cursors.map(|cursor| cursor.next);
    let mut out = cursors.map(|cursor| cursor.out);
    // The first half of a step leaves its results here for the second half. After that its
    // part of the bit buffer is of no more use.
    let mut third = [0u64; K];
    let mut used = [0u64; K];
    // No distance reaches back beyond this point.
    let mut floor = [0usize; K];

    // The first half of a step: two literals, if they are literals. Otherwise the same
    // entry comes again, because nothing is consumed.
    macro_rules! first_half {
        ($i:literal) => {{
            const I: usize = $i;
            invariant!(B, "two literals are written within the output", w[I].room(out[I]) >= 2);
            // SAFETY: a masked offset is within the table. Two bytes can be written: after
            // a step that began at `out_limit` or before, OUT_SLACK has room for them;
            // after a long copy COPY_SLACK.
            unsafe {
                let table = base.add(I * size_of::<Tables>());
                let entry = (bits[I] & LITERAL_MASK) as usize;
                let one = table.add(entry).cast::<u32>().read();
                out[I].write(byte(table, entry, 2));
                let rest = bits[I] >> (one & 63);
                let entry = (rest & LITERAL_MASK) as usize;
                let two = table.add(entry).cast::<u32>().read();
                out[I].add(1).write(byte(table, entry, 2));
                third[I] = rest >> (two & 63);
                // The topmost bit marks a literal. No lower bit carries into it.
                used[I] = u64::from(one).wrapping_add(u64::from(two));
            }
        }};
    }

    // The streams' halves are interleaved, so that the loads of one wait beside the
    // other's.
    first_half!(0);
    let stuck = 'rounds: loop {
        // The number of steps that are safe in any case.
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
            ($i:literal) => {{
                const I: usize = $i;
                invariant!(B, "a refill loads within the input", w[I].can_load(next[I]));
                invariant!(B, "a step begins within its limit", out[I] <= w[I].out_limit);
                // SAFETY: a masked offset is within the table, and so is NEUTRAL's. The
                // refill: `left` steps of at most STEP_IN bytes end at `last_load`. The
                // copy: `left` steps of STEP_OUT bytes end at `out_limit`, and OUT_SLACK is
                // behind it.
                unsafe {
                    let table = base.add(I * size_of::<Tables>());
                    let entry = (third[I] & LITERAL_MASK) as usize;
                    let total = u32::from(byte(table, entry, 1));
                    let flags = byte(table, entry, 3);
                    let symbol = usize::from(byte(table, entry, 2));
                    let is_literal = flags & LITERAL != 0;
                    let rest = third[I] >> (total & 63);
                    let index = (rest & DISTANCE_MASK) as usize;
                    let index = select(is_literal, NEUTRAL * 4, index);
                    let more = arch.low(third[I] >> PAD, total) >> (flags & 63);
                    let length = (symbol + 3).wrapping_add(more as usize);
                    let length = select(is_literal, 1, length);
                    let literal = BYTES.0.as_ptr().add(symbol);
                    let out2 = out[I].add((used[I] >> 31) as usize);
                    // Topped up here, while the lookup in the table is under way.
                    let remain = count[I].wrapping_sub(used[I] as u32).wrapping_sub(total);
                    let full = rest | load(next[I]) << (remain & 63);
                    let entry = 4 * LITERALS + index;
                    let consumed = u32::from(byte(table, entry, 0));
                    let code = byte(table, entry, 1);
                    let least = table.add(entry + 2).cast::<u16>().read();
                    let more = arch.low(full >> PAD, consumed) >> (code & 63);
                    let distance = usize::from(least).wrapping_add(more as usize);
                    let back = out2.wrapping_sub(distance).cast_const();
                    let from = select(is_literal, literal, back);
                    let short = (remain as u8).wrapping_sub(B::LEAST) > 63 - B::LEAST;
                    let far = (back as usize) < floor[I];
                    let after = Cursor {
                        bits: full >> (consumed & 63),
                        count: (remain | 56).wrapping_sub(consumed),
                        next: next[I].add(7 - (remain >> 3 & 7) as usize),
                        out: out2,
                    };
                    if far || short || length > SHORT || distance < length {
                        let before = (next[I], count[I], out[I]);
                        let is_match = !far && !short && flags & (LITERAL | EXCEPTIONAL) == 0;
                        let window = &w[I];
                        let rare = Rare { window, before, is_match, after, distance, length };
                        let moved = rare.call(arch);
                        if moved.out == out[I] {
                            break 'rounds I;
                        }
                        (bits[I], count[I]) = (moved.bits, moved.count);
                        (next[I], out[I]) = (moved.next, moved.out);
                        left -= B::RARE_STEPS;
                        if next[I] > w[I].last_load {
                            left = 0;
                        }
                    } else {
                        invariant!(B, "a step writes within the output", w[I].room(out2) >= SHORT);
                        let have = remain as u8;
                        invariant!(B, "a step's bits are in the buffer", (10..64).contains(&have));
                        let reach = out2 as usize - floor[I];
                        invariant!(B, "the mark for no distance is out of reach", reach < 65535);
                        copy::<32>(out2, from);
                        copy::<32>(out2.add(32), from.add(32));
                        (bits[I], count[I]) = (after.bits, after.count);
                        (next[I], out[I]) = (after.next, out2.add(length));
                    }
                }
            }};
        }
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
    each!(I {
        cursors[I] = Cursor { bits: 0, count: count[I], next: next[I], out: out[I] };
    });
    stuck
}
