//! Decode tables, made from code lengths.
//!
//! A code of up to [`LITERAL_BITS`] or [`DISTANCE_BITS`] bits is looked up at once; a longer one by
//! a link to a second table behind the first. The bytes of an entry, from the lowest:
//!
//! | | literals and lengths | distances |
//! |---|---|---|
//! | 0 | bits to consume, of a literal; else 0 | bits to consume; 0 if there is no such distance |
//! | 1 | bits to consume; of a link its number | bits of the code alone; of a link its number |
//! | 2 | the literal; or the least length, less 3 | the least distance, |
//! | 3 | bits of the code alone, and the flags | in two bytes |
//!
//! So a step without branches reads an entry's bytes as they are. What is exceptional says so by
//! numbers: a length of 258 or more, which is looked at more closely, and a distance of 65,535 or
//! more, which is out of range.

use crate::arch::Arch;

/// Bits that the first lookup of a literal or length takes.
pub(crate) const LITERAL_BITS: u32 = 11;
/// Bits that the first lookup of a distance takes.
pub(crate) const DISTANCE_BITS: u32 = 8;
/// Entries of a table of literals and lengths: with 288 symbols and codes of up to 15 bits it
/// takes 2,342 at most (zlib's `enough 288 11 15`).
pub(crate) const LITERALS: usize = (1 << LITERAL_BITS) + 512;
/// Entries of a table of distances: with 32 symbols it takes 402 at most (`enough 32 8 15`).
const DISTANCES: usize = (1 << DISTANCE_BITS) + 256;
/// The distance that goes with a literal: its entry consumes nothing.
pub(crate) const NEUTRAL: usize = DISTANCES - 1;

/// Flags of an entry for literals and lengths.
pub(crate) const LITERAL: u32 = 1 << 31;
pub(crate) const EXCEPTIONAL: u32 = 1 << 30;
const LINK: u32 = 1 << 29;

/// No such code; or, with the bits of its code in bytes 1 and 3, the end of a block.
const NO_LITERAL: u32 = EXCEPTIONAL | 0xff << 16;
const NO_DISTANCE: u32 = 0xffff_ff00;
const DISTANCE_LINK: u32 = 0xffff_0000;

/// The loop with branches wins where literals have this many of 65,536 parts of the code
/// space.
const HEAVY: u32 = 60_000;

/// The meaning of a code.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Symbol {
    /// A byte, and its bits.
    Literal(u8, u32),
    /// The least length or distance; its bits with the extra bits; the bits of the code.
    Value(usize, u32, u32),
    /// The end of a block, and its bits.
    End(u32),
    /// No such code.
    None,
}

/// The tables of a block.
#[repr(C, align(64))]
pub(crate) struct Tables {
    /// Literals and lengths. The distances lie behind them, so one register leads to both.
    pub(crate) literals: [u32; LITERALS],
    pub(crate) distances: [u32; DISTANCES],
    /// The place to which a link leads, and its number of further bits.
    literal_links: [(u16, u16); 144],
    distance_links: [(u16, u16); 16],
    /// Whether these are the fixed codes.
    fixed: bool,
    /// Whether nearly all codes are literals.
    pub(crate) heavy: bool,
}

static LITERAL_BASES: [u32; 288] = {
    let base = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
        131, 163, 195, 227, 258,
    ];
    let mut table = [NO_LITERAL; 288];
    let mut i = 0;
    while i < 256 {
        table[i] = LITERAL | (i as u32) << 16;
        i += 1;
    }
    i = 0;
    while i < 29 {
        let extra = if i < 8 || i == 28 { 0 } else { (i as u32 >> 2) - 1 };
        table[257 + i] = (base[i] - 3) << 16 | extra << 8;
        i += 1;
    }
    table
};

static DISTANCE_BASES: [u32; 32] = {
    let mut table = [NO_DISTANCE; 32];
    let mut i = 0;
    while i < 30 {
        let extra = if i < 2 { 0 } else { (i >> 1) - 1 };
        let base = if i < 2 { 1 + i } else { 1 + ((2 + (i & 1)) << extra) };
        table[i as usize] = base << 16 | extra;
        i += 1;
    }
    table
};

impl Tables {
    pub(crate) fn new() -> Self {
        let mut tables = Tables {
            literals: [NO_LITERAL; LITERALS],
            distances: [NO_DISTANCE; DISTANCES],
            literal_links: [(0, 0); 144],
            distance_links: [(0, 0); 16],
            fixed: false,
            heavy: false,
        };
        tables.distances[NEUTRAL] = 1 << 16;
        tables
    }

    /// The fixed codes (RFC 1951, 3.2.6).
    pub(crate) fn set_fixed<A: Arch>(&mut self, arch: A) {
        if !self.fixed {
            let mut lengths = [8; 288];
            lengths[144..256].fill(9);
            lengths[256..280].fill(7);
            let complete = self.set_literals(arch, &lengths) && self.set_distances(arch, &[5; 32]);
            debug_assert!(complete, "the fixed codes are complete");
            self.fixed = true;
        }
    }

    /// False if zlib refuses such a code.
    #[inline(always)]
    pub(crate) fn set_literals<A: Arch>(&mut self, arch: A, lengths: &[u8]) -> bool {
        self.fixed = false;
        let masks = masks::<A, 5>(arch, lengths);
        let mut mass = 0;
        for (length, masks) in masks.iter().enumerate().skip(1) {
            mass += masks[..4].iter().map(|mask| mask.count_ones()).sum::<u32>() << (16 - length);
        }
        self.heavy = mass > HEAVY;
        let (links, mut number) = (&mut self.literal_links, 0);
        build(
            &masks,
            &mut self.literals,
            LITERAL_BITS,
            NO_LITERAL,
            |symbol, length| {
                let base = LITERAL_BASES[symbol];
                if base == NO_LITERAL && symbol != 256 {
                    return NO_LITERAL;
                }
                let consumed = if base & LITERAL != 0 { length } else { 0 };
                base + (length << 24 | length << 8 | consumed)
            },
            |start, bits| {
                links[number] = (start, bits);
                number += 1;
                NO_LITERAL | LINK | ((number - 1) as u32) << 8
            },
        )
    }

    /// False if zlib refuses such a code.
    #[inline(always)]
    pub(crate) fn set_distances<A: Arch>(&mut self, arch: A, lengths: &[u8]) -> bool {
        self.fixed = false;
        let (links, mut number) = (&mut self.distance_links, 0);
        build(
            &masks::<A, 1>(arch, lengths),
            &mut self.distances[..NEUTRAL],
            DISTANCE_BITS,
            NO_DISTANCE,
            |symbol, length| match DISTANCE_BASES[symbol] {
                NO_DISTANCE => NO_DISTANCE,
                base => base + (length << 8 | length),
            },
            |start, bits| {
                links[number] = (start, bits);
                number += 1;
                DISTANCE_LINK | ((number - 1) as u32) << 8
            },
        )
    }

    /// The literal or length with which `bits` begin.
    #[inline(always)]
    pub(crate) fn literal(&self, bits: u64) -> Symbol {
        let mut entry = self.literals[bits as usize & ((1 << LITERAL_BITS) - 1)];
        if entry & LITERAL == 0 && entry & LINK != 0 {
            entry = self.linked_literal(bits, entry);
        }
        let (total, code) = (entry >> 8 & 63, entry >> 24 & 15);
        if entry & LITERAL != 0 {
            Symbol::Literal((entry >> 16) as u8, total)
        } else if entry & EXCEPTIONAL == 0 {
            Symbol::Value((entry >> 16 & 255) as usize + 3, total, code)
        } else if code != 0 {
            Symbol::End(total)
        } else {
            Symbol::None
        }
    }

    /// The entry to which a link leads.
    #[inline(always)]
    fn linked_literal(&self, bits: u64, link: u32) -> u32 {
        let (start, width) = self.literal_links[(link >> 8 & 255) as usize];
        let at = (bits >> LITERAL_BITS) & ((1 << width) - 1);
        self.literals[usize::from(start) + at as usize]
    }

    /// The distance with which `bits` begin.
    #[inline(always)]
    pub(crate) fn distance(&self, bits: u64) -> Symbol {
        let mut entry = self.distances[bits as usize & ((1 << DISTANCE_BITS) - 1)];
        if entry & 63 == 0 && entry != NO_DISTANCE {
            let (start, width) = self.distance_links[(entry >> 8 & 255) as usize];
            let at = (bits >> DISTANCE_BITS) & ((1 << width) - 1);
            entry = self.distances[usize::from(start) + at as usize];
        }
        match entry {
            NO_DISTANCE => Symbol::None,
            _ => Symbol::Value((entry >> 16) as usize, entry & 63, entry >> 8 & 63),
        }
    }
}

/// Sixteen bits, reversed; the last `length` of them are wanted.
#[inline(always)]
fn reversed(code: u32, length: u32) -> usize {
    static REVERSED: [u8; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = (i as u8).reverse_bits();
            i += 1;
        }
        table
    };
    let [low, high, ..] = code.to_le_bytes().map(|byte| u32::from(REVERSED[usize::from(byte)]));
    ((low << 8 | high) >> (16 - length)) as usize
}

/// Which symbols have codes of each length.
#[inline(always)]
fn masks<A: Arch, const W: usize>(arch: A, lengths: &[u8]) -> [[u64; W]; 16] {
    let mut padded = [[0; 64]; W];
    padded.as_flattened_mut()[..lengths.len()].copy_from_slice(lengths);
    arch.masks(&padded)
}

/// The symbols of one length, in their order.
#[inline(always)]
fn each_symbol<const W: usize>(masks: &[u64; W], mut body: impl FnMut(usize)) {
    for (word, &mask) in masks.iter().enumerate() {
        let mut rest = mask;
        while rest != 0 {
            body(64 * word + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

/// Makes one table. False if the code is over-subscribed, or incomplete in a way that zlib refuses.
#[inline(always)]
fn build<const W: usize>(
    masks: &[[u64; W]; 16],
    table: &mut [u32],
    bits: u32,
    none: u32,
    entry: impl Fn(usize, u32) -> u32,
    mut link: impl FnMut(u16, u16) -> u32,
) -> bool {
    let mut count = [0u32; 16];
    let mut first = [0u32; 16];
    let (mut used, mut code) = (0, 0);
    for length in 1..16 {
        let symbols = masks[length].iter().map(|mask| mask.count_ones()).sum::<u32>();
        count[length] = symbols;
        first[length] = code;
        used += symbols;
        code += symbols;
        // More codes than fit: over-subscribed.
        if code > 1 << length {
            return false;
        }
        code <<= 1;
    }
    if code < 1 << 16 {
        // Incomplete. zlib accepts a code without symbols, and one symbol of one bit.
        let only = match (used, count[1]) {
            (0, _) => none,
            (1, 1) => {
                let word = masks[1].iter().position(|&mask| mask != 0).unwrap_or(0);
                entry(64 * word + masks[1][word].trailing_zeros() as usize, 1)
            }
            _ => return false,
        };
        for pair in table[..1 << bits].chunks_exact_mut(2) {
            pair.copy_from_slice(&[only, none]);
        }
        return true;
    }

    // A table for the shortest codes, doubled for each further bit. A complete code's
    // shortest code is shorter than `bits`; otherwise it would have more symbols than
    // exist.
    let mut length = 1;
    while count[length as usize] == 0 {
        length += 1;
    }
    let mut done = 0;
    loop {
        let mut code = first[length as usize];
        each_symbol(&masks[length as usize], |symbol| {
            table[reversed(code, length)] = entry(symbol, length);
            code += 1;
        });
        done += count[length as usize];
        if length >= bits {
            break;
        }
        let size = 1 << length;
        table.copy_within(..size, size);
        length += 1;
    }
    if done < used {
        build_links(masks, &first, count, table, bits, entry, &mut link);
    }
    true
}

/// The codes that are longer than the table is wide, in tables of their own behind it.
fn build_links<const W: usize>(
    masks: &[[u64; W]; 16],
    first: &[u32; 16],
    mut remaining: [u32; 16],
    table: &mut [u32],
    bits: u32,
    entry: impl Fn(usize, u32) -> u32,
    link: &mut impl FnMut(u16, u16) -> u32,
) {
    let mut end = 1usize << bits;
    let mut prefix = usize::MAX;
    let (mut start, mut width) = (0, 0);
    for length in bits + 1..16 {
        let mut code = first[length as usize];
        each_symbol(&masks[length as usize], |symbol| {
            let reversed = reversed(code, length);
            code += 1;
            if reversed & ((1 << bits) - 1) != prefix {
                prefix = reversed & ((1 << bits) - 1);
                // As wide as the codes with this prefix need it: the lengths never
                // decrease.
                width = length - bits;
                let mut room = 1i64 << width;
                loop {
                    room -= i64::from(remaining[(bits + width) as usize]);
                    if room <= 0 {
                        break;
                    }
                    width += 1;
                    room <<= 1;
                }
                start = end;
                end += 1 << width;
                table[prefix] = link(start as u16, width as u16);
            }
            let entry = entry(symbol, length);
            for at in (reversed >> bits..1 << width).step_by(1 << (length - bits)) {
                table[start + at] = entry;
            }
            remaining[length as usize] -= 1;
        });
    }
}
