//! One stream under way: its position, and the careful way through it, a symbol at a time,
//! with every bound checked. The hot loops do the rest.

use crate::arch::Arch;
use crate::checksum::Adler;
use crate::header;
use crate::tables::{Symbol, Tables};
use crate::{Container, Error};

/// The part of the stream to which the next bits belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The container's header.
    Start,
    /// A block's header.
    Header,
    /// Symbols.
    Symbols,
    /// So many stored bytes.
    Stored(usize),
    /// The container's trailer.
    Trailer,
    /// Nothing: the stream has ended.
    End,
}

/// The position in a stream. All positions are relative, so buffers may move between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) container: Container,
    pub(crate) place: Place,
    /// Bits consumed.
    pub(crate) bit: usize,
    /// Bytes written.
    pub(crate) out: usize,
    /// The bit at which the header of the current block begins: the block's tables are made
    /// from it.
    pub(crate) header: usize,
    /// Whether the current block is the last one.
    pub(crate) last: bool,
    pub(crate) adler: Adler,
}

impl Position {
    pub(crate) fn start(container: Container) -> Self {
        Position {
            container,
            place: Place::Start,
            bit: 0,
            out: 0,
            header: 0,
            last: false,
            adler: Adler::new(),
        }
    }
}

/// A stream and its output.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    pub(crate) input: &'a [u8],
    pub(crate) output: &'a mut [u8],
    pub(crate) at: Position,
    /// Decoding may pause once so many bytes are there; beyond the output's end, it may
    /// not.
    pub(crate) stop: usize,
    /// Bytes that are right: more than `at.out` where the output ends within a match.
    pub(crate) filled: usize,
}

/// Bits of the input from a position on; at least 57, zeros beyond the end.
#[inline(always)]
pub(crate) fn peek(input: &[u8], bit: usize) -> u64 {
    let at = bit >> 3;
    let bytes = match input.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => *bytes,
        None => {
            let rest = input.get(at..).unwrap_or_default();
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            bytes
        }
    };
    u64::from_le_bytes(bytes) >> (bit & 7)
}

impl<'a> Lane<'a> {
    pub(crate) fn new(at: Position, input: &'a [u8], output: &'a mut [u8], stop: usize) -> Self {
        Lane { input, filled: at.out, output, at, stop }
    }

    /// Whether there is nothing more to do: the stream has ended, or enough bytes are
    /// written.
    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        self.at.place == Place::End || self.at.out.max(self.filled) >= self.stop
    }

    /// Consumes bits.
    #[inline(always)]
    pub(crate) fn take(&mut self, bits: u32) -> Result<(), Error> {
        self.at.bit += bits as usize;
        if self.at.bit > self.input.len() * 8 {
            Err(Error::Truncated)
        } else {
            Ok(())
        }
    }

    /// One symbol, or one part between blocks. After an error the lane stands before it.
    #[inline(always)]
    pub(crate) fn step<A: Arch>(&mut self, arch: A, tables: &mut Tables) -> Result<(), Error> {
        let bit = self.at.bit;
        let result = self.part(arch, tables);
        if result.is_err() {
            self.at.bit = bit;
        }
        result
    }

    #[inline(always)]
    fn part<A: Arch>(&mut self, arch: A, tables: &mut Tables) -> Result<(), Error> {
        match self.at.place {
            Place::Symbols => self.symbol(tables),
            Place::Start => self.start(),
            Place::Header => {
                // While the output is still in the cache.
                self.at.adler.add_much(self.at.container, &self.output[..self.at.out]);
                header::read(arch, self, tables)
            }
            Place::Stored(left) => self.stored(left),
            Place::Trailer => self.trailer(),
            Place::End => Ok(()),
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        if self.at.container == Container::Zlib {
            let header = peek(self.input, 0) as u32;
            self.take(16)?;
            let (method, flags) = (header & 255, header >> 8 & 255);
            // Checked in zlib's order.
            match () {
                () if (method << 8 | flags) % 31 != 0 => return Err(Error::HeaderCheck),
                () if method & 15 != 8 => return Err(Error::Method),
                () if method >> 4 > 7 => return Err(Error::Window),
                () if flags & 32 != 0 => return Err(Error::Dictionary),
                () => {}
            }
        }
        self.at.place = Place::Header;
        Ok(())
    }

    /// The block ends here.
    fn end_block(&mut self) {
        self.at.place = if self.at.last { Place::Trailer } else { Place::Header };
    }

    fn trailer(&mut self) -> Result<(), Error> {
        self.at.bit = self.at.bit.next_multiple_of(8);
        if self.at.container == Container::Zlib {
            let stored = (peek(self.input, self.at.bit) as u32).swap_bytes();
            self.take(32)?;
            self.at.adler.add(&self.output[..self.at.out]);
            if self.at.adler.sum() != stored {
                return Err(Error::Checksum);
            }
        }
        self.at.place = Place::End;
        Ok(())
    }

    /// The room for `length` bytes; less only if the caller asked for no more.
    fn room(&self, length: usize) -> Result<usize, Error> {
        let room = self.output.len() - self.at.out;
        if length <= room || self.stop <= self.output.len() {
            Ok(room.min(length))
        } else {
            Err(Error::TooLong)
        }
    }

    fn stored(&mut self, left: usize) -> Result<(), Error> {
        let from = self.at.bit / 8;
        let rest = self.input.get(from..).unwrap_or_default();
        let (count, out) = (self.room(left)?, self.at.out);
        // The bytes that fit are written, as zlib does, though the rest is cut off.
        let count = count.min(rest.len());
        if count == 0 && left > 0 {
            return Err(Error::Truncated);
        }
        self.output[out..out + count].copy_from_slice(&rest[..count]);
        self.at.bit += count * 8;
        self.at.out += count;
        match left - count {
            0 => self.end_block(),
            left => self.at.place = Place::Stored(left),
        }
        Ok(())
    }

    #[inline(never)]
    fn symbol(&mut self, tables: &Tables) -> Result<(), Error> {
        let at = self.at;
        let bits = peek(self.input, at.bit);
        let (base, total, code) = match tables.literal(bits) {
            Symbol::Literal(byte, bits) => {
                self.take(bits)?;
                *self.output.get_mut(at.out).ok_or(Error::TooLong)? = byte;
                self.at.out += 1;
                return Ok(());
            }
            Symbol::End(bits) => {
                self.take(bits)?;
                self.end_block();
                return Ok(());
            }
            Symbol::None => return Err(self.or_truncated(Error::Symbol)),
            Symbol::Value(base, total, code) => (base, total, code),
        };
        let low = |bits: u64, count: u32| bits & ((1 << count) - 1);
        let length = base + (low(bits, total) >> code) as usize;
        let bits = bits >> total;
        let Symbol::Value(base, more, code) = tables.distance(bits) else {
            return Err(self.or_truncated(Error::Distance));
        };
        let distance = base + (low(bits, more) >> code) as usize;
        self.take(total + more)?;
        if distance > at.out {
            return Err(Error::TooFarBack);
        }
        let count = self.room(length)?;
        self.repeat(distance, count);
        if count == length {
            self.at.out += length;
        } else {
            // The output ends within the match: when the output goes on, the match is
            // copied again.
            self.filled = at.out + count;
            self.at.bit = at.bit;
        }
        Ok(())
    }

    /// Copies a match: as much as there is of its period, and then twice as much each time.
    fn repeat(&mut self, distance: usize, count: usize) {
        let from = self.at.out - distance;
        let end = self.at.out + count;
        let mut out = self.at.out;
        while out < end {
            let count = (out - from).min(end - out);
            self.output.copy_within(from..from + count, out);
            out += count;
        }
    }

    /// Bits without a meaning are an error only if there are bits.
    fn or_truncated(&self, error: Error) -> Error {
        if self.at.bit >= self.input.len() * 8 {
            Error::Truncated
        } else {
            error
        }
    }
}
