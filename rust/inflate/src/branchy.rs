//! The hot loop for blocks that are nearly all literals: there the branch that tells a
//! literal from a match is predicted well, and each literal is finished at once.

#![allow(unsafe_code)]

use crate::arch::Arch;
use crate::bounds::{invariant, Bounds};
use crate::copy::copy_match;
use crate::hot::each;
use crate::tables::{Tables, DISTANCE_BITS, EXCEPTIONAL, LITERAL};
use crate::window::{load, Cursor, Rare, Window, DISTANCE_MASK, LITERAL_MASK, PAD};

/// Bits that a distance takes together with its extra bits, for a code that needs no link.
const DISTANCE: u8 = DISTANCE_BITS as u8 + 13;

/// Inflates until one of the streams needs the careful way, and returns which. The streams
/// take turns of up to three literals, or two and a match.
#[inline(always)]
pub(crate) fn visits<A: Arch, B: Bounds, const K: usize>(
    arch: A,
    tables: &[Tables; K],
    w: &[Window<'_, B>; K],
    cursors: &mut [Cursor; K],
) -> usize {
    let mut bits = cursors.map(|cursor| cursor.bits);
    let mut count = cursors.map(|cursor| cursor.count);
    let mut next = cursors.map(|cursor| cursor.next);
    let mut out = cursors.map(|cursor| cursor.out);
    // The next symbol's entry, looked up while other work is done.
    let mut entry = [0u32; K];
    macro_rules! look_up {
        ($i:ident) => {
            // SAFETY: a masked offset is within the table.
            unsafe {
                let entry = (bits[$i] & LITERAL_MASK) as usize;
                tables[$i].literals.as_ptr().byte_add(entry).read()
            }
        };
    }
    macro_rules! refill {
        ($i:ident) => {
            invariant!(B, "a refill loads within the input", w[$i].can_load(next[$i]));
            // SAFETY: a turn begins with LOAD bytes to spare, and refills twice at most.
            unsafe {
                bits[$i] |= load(next[$i]) << (count[$i] & 63);
                next[$i] = next[$i].add(7 - (count[$i] >> 3 & 7) as usize);
            }
            count[$i] |= 56;
        };
    }
    macro_rules! literal {
        ($i:ident, $entry:ident) => {
            bits[$i] >>= $entry & 63;
            count[$i] = count[$i].wrapping_sub($entry);
            invariant!(B, "a literal is written within the output", w[$i].room(out[$i]) > 0);
            // SAFETY: a turn begins at `out_limit` at most, and OUT_SLACK is more than three.
            unsafe {
                out[$i].write(($entry >> 16) as u8);
                out[$i] = out[$i].add(1);
            }
        };
    }
    each!(I {
        entry[I] = look_up!(I);
    });
    let stuck = 'turns: loop {
        each!(I {
            if next[I].wrapping_add(B::LOAD) > w[I].last_load || out[I] > w[I].out_limit {
                break 'turns I;
            }
            'turn: {
                let mut symbol = entry[I];
                if symbol & LITERAL != 0 {
                    literal!(I, symbol);
                    symbol = look_up!(I);
                    if symbol & LITERAL != 0 {
                        literal!(I, symbol);
                        symbol = look_up!(I);
                        if symbol & LITERAL != 0 {
                            literal!(I, symbol);
                            refill!(I);
                            entry[I] = look_up!(I);
                            break 'turn;
                        }
                    }
                }
                // A match; its length and its distance take 36 bits, and at least 32 are
                // left.
                let before = (next[I], count[I], out[I]);
                let total = symbol >> 8 & 63;
                let more = arch.low(bits[I] >> PAD, total) >> (symbol >> 24 & 63);
                let length = (symbol >> 16 & 255) as usize + 3 + more as usize;
                bits[I] >>= total;
                count[I] = count[I].wrapping_sub(total);
                if (count[I] as u8) < DISTANCE + PAD as u8 {
                    refill!(I);
                }
                // SAFETY: a masked offset is within the table.
                let far = unsafe {
                    let entry = (bits[I] & DISTANCE_MASK) as usize;
                    tables[I].distances.as_ptr().byte_add(entry).read()
                };
                let more = arch.low(bits[I] >> PAD, far & 63) >> (far >> 8 & 63);
                let distance = (far >> 16) as usize + more as usize;
                let room = w[I].end as usize - out[I] as usize;
                if symbol & EXCEPTIONAL != 0
                    || far & 63 == 0
                    || distance > out[I] as usize - w[I].start as usize
                    || length + B::COPY_SLACK > room
                {
                    let after = Cursor { bits: 0, count: 0, next: next[I], out: out[I] };
                    let is_match = false;
                    let window = &w[I];
                    let rare = Rare { window, before, is_match, after, distance, length };
                    // SAFETY: the turn began within the limits, and has written two bytes
                    // at most since.
                    let moved = unsafe { rare.call(arch) };
                    (bits[I], count[I]) = (moved.bits, moved.count);
                    (next[I], out[I]) = (moved.next, moved.out);
                    if moved.out == before.2 {
                        break 'turns I;
                    }
                    entry[I] = look_up!(I);
                    break 'turn;
                }
                bits[I] >>= far & 63;
                count[I] = count[I].wrapping_sub(far & 63);
                refill!(I);
                entry[I] = look_up!(I);
                // SAFETY: distance and room were just compared.
                unsafe {
                    copy_match(arch, out[I], distance, length);
                    out[I] = out[I].add(length);
                }
            }
        });
    };
    each!(I {
        cursors[I] = Cursor { bits: 0, count: count[I], next: next[I], out: out[I] };
    });
    stuck
}
