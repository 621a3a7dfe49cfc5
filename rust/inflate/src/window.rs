//! A stream as the hot loops see it: its buffers as addresses, with the limits up to which
//! a step needs no checks; and the bit buffer.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::arch::{Arch, Work};
use crate::bounds::{invariant, Bounds};
use crate::copy::copy_match;
use crate::lane::{Lane, Place};
use crate::tables::{Symbol, Tables, DISTANCE_BITS, LITERAL_BITS};

/// Bits below the bit buffer that are already consumed. With two of them, masked bits are
/// the offset of a four-byte entry, without scaling.
pub(crate) const PAD: usize = 2;

/// Masks for the offset of an entry, in bytes, where the bits begin at bit [`PAD`].
pub(crate) const LITERAL_MASK: u64 = ((1 << LITERAL_BITS) - 1) << PAD;
pub(crate) const DISTANCE_MASK: u64 = ((1 << DISTANCE_BITS) - 1) << PAD;

/// One stream's buffers.
///
/// Invariants, from [`Window::new`] on, while the lane is borrowed:
/// - `input..=last_load + LOAD` is the input, `start..end` the output;
/// - `out_limit + OUT_SLACK <= end`.
#[derive(Clone, Copy)]
pub(crate) struct Window<'t, B> {
    tables: &'t Tables,
    input: *const u8,
    /// The last address from which a refill may load.
    pub(crate) last_load: *const u8,
    /// For the invariants only.
    input_end: *const u8,
    pub(crate) start: *mut u8,
    /// The last address at which a step may begin.
    pub(crate) out_limit: *mut u8,
    pub(crate) end: *mut u8,
    bounds: PhantomData<B>,
}

/// The position of a hot loop in a stream.
///
/// Invariant: the next bit to consume is bit `8 * next - count` of the memory (only
/// `count`'s lowest byte counts) plus [`PAD`]; the buffer has it at bit `PAD`.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) bits: u64,
    /// Bits in the buffer, with the padding. Only the lowest byte has a meaning.
    pub(crate) count: u32,
    /// The next address to load from.
    pub(crate) next: *const u8,
    pub(crate) out: *mut u8,
}

/// Loads eight bytes.
///
/// # Safety
/// They can be read.
#[inline(always)]
pub(crate) unsafe fn load(from: *const u8) -> u64 {
    // SAFETY: the caller guarantees it.
    u64::from_le(unsafe { from.cast::<u64>().read_unaligned() })
}

/// Whether a hot loop can be entered.
#[inline(always)]
pub(crate) fn is_ready<B: Bounds>(lane: &Lane<'_>) -> bool {
    let at = &lane.at;
    at.place == Place::Symbols
        && at.bit >= PAD
        && at.bit / 8 + 8 + B::LOAD <= lane.input.len()
        && at.out + B::OUT_SLACK <= lane.output.len()
        && !lane.is_done()
}

impl<'t, B: Bounds> Window<'t, B> {
    /// The window of a lane, and the cursor; `None` if the lane is not ready.
    #[inline(always)]
    pub(crate) fn new(lane: &mut Lane<'_>, tables: &'t Tables) -> Option<(Self, Cursor)> {
        if !is_ready::<B>(lane) {
            return None;
        }
        let (input, start) = (lane.input.as_ptr(), lane.output.as_mut_ptr());
        let limit = (lane.output.len() - B::OUT_SLACK).min(lane.stop - 1);
        // SAFETY: the lane is ready: there are LOAD bytes of input, OUT_SLACK of output, and
        // `at.out` is within the output.
        let window = unsafe {
            Window {
                tables,
                input,
                last_load: input.add(lane.input.len() - B::LOAD),
                input_end: input.add(lane.input.len()),
                start,
                out_limit: start.add(limit),
                end: start.add(lane.output.len()),
                bounds: PhantomData,
            }
        };
        // SAFETY: the lane is ready: PAD bits are consumed, and the two loads that follow are
        // within the input.
        let cursor = unsafe { window.cursor(lane.at.bit, start.add(lane.at.out)) };
        Some((window, cursor))
    }

    /// The cursor at a bit of the input.
    ///
    /// # Safety
    /// `bit >= PAD`, and eight bytes can be read at `bit / 8`.
    #[inline(always)]
    unsafe fn cursor(&self, bit: usize, out: *mut u8) -> Cursor {
        let (at, shift) = ((bit - PAD) / 8, (bit - PAD) % 8);
        // SAFETY: the caller guarantees it.
        unsafe {
            let from = self.input.add(at);
            invariant!(B, "a refill loads within the input", self.can_load(from));
            let bits = load(from) >> shift;
            // The state after a refill: at least 56 bits, at most 63.
            let whole = if shift == 0 { 7 } else { 8 };
            Cursor { bits, count: (whole * 8 - shift) as u32, next: from.add(whole), out }
        }
    }

    /// A cursor of which only the position counts: it is behind `last_load`, so no round
    /// begins.
    #[inline(always)]
    fn parked(&self, bit: usize, out: *mut u8) -> Cursor {
        let next = (bit - PAD).div_ceil(8);
        let count = (next * 8 - (bit - PAD)) as u32;
        Cursor { bits: 0, count, next: self.input.wrapping_add(next), out }
    }

    /// The bit of the input at which a cursor stands.
    #[inline(always)]
    pub(crate) fn bit(&self, cursor: &Cursor) -> usize {
        let next = cursor.next as usize - self.input as usize;
        next * 8 - (cursor.count & 255) as usize + PAD
    }

    /// Whether eight bytes lie there, for the invariants.
    pub(crate) fn can_load(&self, from: *const u8) -> bool {
        self.input <= from && from.wrapping_add(8) <= self.input_end
    }

    /// Bytes from there to the output's end, for the invariants.
    pub(crate) fn room(&self, out: *mut u8) -> usize {
        (self.end as usize).checked_sub(out as usize).expect("invariant: out is in the output")
    }

    /// Whether a round of steps can begin.
    #[inline(always)]
    pub(crate) fn is_open(&self, next: *const u8, out: *mut u8) -> bool {
        next <= self.last_load && out <= self.out_limit
    }

    /// Writes the loop's position back to the lane.
    #[inline(always)]
    pub(crate) fn leave(&self, lane: &mut Lane<'_>, cursor: &Cursor) {
        lane.at.bit = self.bit(cursor);
        lane.at.out = cursor.out as usize - self.start as usize;
    }

    /// Up to three literals, or up to two and a match, each looked up with its long code.
    /// `out` stays the same if that cannot be done here either.
    ///
    /// # Safety
    /// The cursor stands at the beginning of a step: `next <= last_load`, `out <=
    /// out_limit`.
    #[inline(always)]
    unsafe fn symbols<A: Arch>(&self, arch: A, cursor: Cursor) -> Cursor {
        let (mut bit, mut out) = (self.bit(&cursor), cursor.out);
        for _ in 0..3 {
            let from = self.input.wrapping_add(bit / 8);
            if from > self.last_load {
                break;
            }
            // SAFETY: eight bytes can be loaded up to `last_load`.
            let bits = unsafe { load(from) } >> (bit % 8);
            match self.tables.literal(bits) {
                Symbol::Literal(byte, count) => {
                    invariant!(B, "a literal is written within the output", out < self.end);
                    // SAFETY: at most three literals, and OUT_SLACK is more.
                    unsafe {
                        out.write(byte);
                        out = out.add(1);
                    }
                    bit += count as usize;
                }
                Symbol::Value(base, total, code) => {
                    let length = base + (arch.low(bits, total) >> code) as usize;
                    let bits = bits >> total;
                    let Symbol::Value(base, more, code) = self.tables.distance(bits) else {
                        break;
                    };
                    let distance = base + (arch.low(bits, more) >> code) as usize;
                    let room = self.end as usize - out as usize;
                    if distance > out as usize - self.start as usize
                        || length + B::COPY_SLACK > room
                    {
                        break;
                    }
                    // SAFETY: both were compared just now.
                    unsafe {
                        copy_match(arch, out, distance, length);
                        out = out.add(length);
                    }
                    bit += (total + more) as usize;
                    break;
                }
                Symbol::End(_) | Symbol::None => break,
            }
        }
        if out == cursor.out {
            return cursor;
        }
        if self.input.wrapping_add((bit - PAD) / 8) <= self.last_load {
            // SAFETY: eight bytes can be loaded up to `last_load`; a header was before the bit.
            unsafe { self.cursor(bit, out) }
        } else {
            self.parked(bit, out)
        }
    }
}

/// The part that a step cannot do: matches that are long or overlap themselves, and
/// everything exceptional.
pub(crate) struct Rare<'w, 't, B> {
    pub(crate) window: &'w Window<'t, B>,
    /// The cursor before the step, but for the bits.
    pub(crate) before: (*const u8, u32, *mut u8),
    /// Whether the step ends with a match.
    pub(crate) is_match: bool,
    /// The cursor behind the step, but before the match.
    pub(crate) after: Cursor,
    pub(crate) distance: usize,
    pub(crate) length: usize,
}

impl<B: Bounds> Rare<'_, '_, B> {
    /// The cursor behind the part that was done: a step; or up to three literals; or up to
    /// two and a match. Its `out` is unchanged if nothing could be done here.
    ///
    /// # Safety
    /// The step began with `next <= last_load` and `out <= out_limit`. If `is_match`,
    /// `distance` does not reach before the output's start.
    #[inline(always)]
    pub(crate) unsafe fn call<A: Arch>(self, arch: A) -> Cursor {
        arch.call(self)
    }
}

impl<B: Bounds> Work for Rare<'_, '_, B> {
    type Output = Cursor;

    #[inline(always)]
    fn work<A: Arch>(self, arch: A) -> Cursor {
        let Rare { window, before, is_match, after, distance, length } = self;
        let room = window.end as usize - after.out as usize;
        if is_match && length + B::COPY_SLACK <= room {
            let copied = length.next_multiple_of(32);
            invariant!(B, "a long copy ends within the output", copied <= room);
            // SAFETY: the caller guarantees the distance; the room was compared just now.
            unsafe {
                copy_match(arch, after.out, distance, length);
                return Cursor { out: after.out.add(length), ..after };
            }
        }
        let (next, count, out) = before;
        let cursor = Cursor { bits: 0, count, next, out };
        // SAFETY: the step began within the limits.
        unsafe { window.symbols(arch, cursor) }
    }
}
