//! The header of a block (RFC 1951, 3.2.3).

use crate::arch::{Arch, Work};
use crate::lane::{peek, Lane, Place};
use crate::tables::Tables;
use crate::Error;

/// The order in which the lengths of the code-length codes come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Reads a header, and makes the tables of the block.
#[inline(always)]
pub(crate) fn read<A: Arch>(
    arch: A,
    lane: &mut Lane<'_>,
    tables: &mut Tables,
) -> Result<(), Error> {
    arch.call(Read { lane, tables })
}

struct Read<'l, 'a, 't> {
    lane: &'l mut Lane<'a>,
    tables: &'t mut Tables,
}

impl Work for Read<'_, '_, '_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn work<A: Arch>(self, arch: A) -> Self::Output {
        let Read { lane, tables } = self;
        let bits = peek(lane.input, lane.at.bit);
        lane.at.header = lane.at.bit;
        lane.take(3)?;
        lane.at.last = bits & 1 != 0;
        match bits >> 1 & 3 {
            0 => {
                lane.at.bit = lane.at.bit.next_multiple_of(8);
                let lengths = peek(lane.input, lane.at.bit);
                lane.take(32)?;
                let length = lengths as u16;
                if length != !(lengths >> 16) as u16 {
                    return Err(Error::StoredLength);
                }
                lane.at.place = Place::Stored(usize::from(length));
                Ok(())
            }
            1 => {
                tables.set_fixed(arch);
                lane.at.place = Place::Symbols;
                Ok(())
            }
            2 => {
                dynamic(arch, lane, tables, bits >> 3)?;
                lane.at.place = Place::Symbols;
                Ok(())
            }
            _ => Err(Error::BlockType),
        }
    }
}

/// The codes of a dynamic block.
#[inline(always)]
fn dynamic<A: Arch>(
    arch: A,
    lane: &mut Lane<'_>,
    tables: &mut Tables,
    bits: u64,
) -> Result<(), Error> {
    lane.take(14)?;
    let literals = (bits & 31) as usize + 257;
    let distances = (bits >> 5 & 31) as usize + 1;
    let codes = (bits >> 10 & 15) as usize + 4;
    if literals > 286 || distances > 30 {
        return Err(Error::TooManyCodes);
    }
    let table = code_lengths(lane, codes)?;
    let total = literals + distances;
    // Each symbol writes 16 lengths, and the last one may claim 138 from there on.
    let mut lengths = [0u8; 320 + 138 + 16];
    let mut have = 0;
    // The length that symbol 16 repeats. There is none at first: 128 is no length.
    let mut previous = 128;
    while have < total {
        // Four symbols of at most 14 bits each, from one load.
        let mut bits = peek(lane.input, lane.at.bit);
        let mut used = 0;
        for _ in 0..4 {
            let entry = table[bits as usize & 127];
            let [consumed, code, times, value] = entry.to_le_bytes();
            let more = arch.low(bits, consumed.into()) >> (code & 63);
            previous = std::hint::select_unpredictable(value == 255, previous, value);
            bits >>= consumed & 63;
            used += u32::from(consumed);
            // More than 16 are zeros, which are there already.
            if let Some(next) = lengths.get_mut(have..have + 16) {
                next.copy_from_slice(&[previous; 16]);
            }
            have += usize::from(times) + more as usize;
            if have >= total {
                break;
            }
        }
        lane.take(used)?;
    }
    // A 128 that was repeated first is still at the start.
    if have > total || lengths[0] == 128 {
        return Err(Error::Repeat);
    }
    if lengths[256] == 0 {
        return Err(Error::NoEndOfBlock);
    }
    if !tables.set_literals(arch, &lengths[..literals]) {
        return Err(Error::LiteralLengths);
    }
    if !tables.set_distances(arch, &lengths[literals..total]) {
        return Err(Error::DistanceLengths);
    }
    Ok(())
}

/// The table of the code for code lengths. The bytes of an entry: bits to consume, bits of
/// the code alone, the least number of repetitions, and the length, where 255 means the
/// previous one.
#[inline(always)]
fn code_lengths(lane: &mut Lane<'_>, codes: usize) -> Result<[u32; 128], Error> {
    let mut lengths = [0u8; 19];
    // Up to 57 bits, three per length; a second load has the eighteenth and the nineteenth.
    let mut bits = peek(lane.input, lane.at.bit);
    for (i, &symbol) in ORDER[..codes].iter().enumerate() {
        if i == 18 {
            bits = peek(lane.input, lane.at.bit + 3 * 18);
        }
        lengths[symbol] = (bits & 7) as u8;
        bits >>= 3;
    }
    lane.take(3 * codes as u32)?;
    let mut count = [0u32; 8];
    for length in lengths {
        count[usize::from(length)] += 1;
    }
    let mut next = [0u32; 8];
    let mut code = 0;
    for length in 1..8 {
        next[length] = code;
        code = (code + count[length]) << 1;
    }
    // Only a complete code: zlib accepts an empty one, and then misses the end of the
    // block.
    if code != 256 {
        return Err(Error::CodeLengths);
    }
    let mut table = [0; 128];
    for (symbol, &length) in lengths.iter().enumerate() {
        if length != 0 {
            let code = &mut next[usize::from(length)];
            let (extra, times, value) = match symbol {
                16 => (2, 3, 255),
                17 => (3, 3, 0),
                18 => (7, 11, 0),
                _ => (0, 1, symbol as u8),
            };
            let entry = u32::from_le_bytes([length + extra, length, times, value]);
            let first = code.reverse_bits() >> (32 - length);
            for at in (first as usize..128).step_by(1 << length) {
                table[at] = entry;
            }
            *code += 1;
        }
    }
    Ok(table)
}
