//! Raw LZO1X streams.
//!
//! The format as the Linux kernel describes it (Documentation/staging/lzo.rst):
//! instructions that copy bytes from the input (literals) or from the output
//! (matches), where the last match also says how many literals, 0 to 3, follow it.

use super::{DecodeError, Encode, EncodeError};

/// A literal run of four or more came last, so that the meaning of a short
/// instruction changes.
const AFTER_LONG_LITERALS: usize = 4;

pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    let mut from = Input { bytes: input, at: 0 };
    let mut to = Output { bytes: output, length: 0 };
    // Literals that came last: 0 to 3, or four and more.
    let mut state = 0;
    if let Some(first @ 18..) = input.first().copied() {
        from.at = 1;
        let count = usize::from(first) - 17;
        to.literals(&mut from, count)?;
        state = count.min(AFTER_LONG_LITERALS);
    }
    loop {
        let code = usize::from(from.byte()?);
        let (distance, length, next) = match code {
            0..=15 if state == 0 => {
                let count = 3 + if code == 0 { 15 + from.long_length()? } else { code };
                to.literals(&mut from, count)?;
                state = AFTER_LONG_LITERALS;
                continue;
            }
            0..=15 => {
                let high = usize::from(from.byte()?);
                let distance = (high << 2) + (code >> 2) + 1;
                match state {
                    AFTER_LONG_LITERALS => (distance + 2048, 3, code & 3),
                    _ => (distance, 2, code & 3),
                }
            }
            16..=31 => {
                let length = 2 + if code & 7 == 0 { 7 + from.long_length()? } else { code & 7 };
                let word = from.word()?;
                let distance = 16384 + ((code & 8) << 11) + (word >> 2);
                if distance == 16384 {
                    return Ok(to.length);
                }
                (distance, length, word & 3)
            }
            32..=63 => {
                let length = 2 + if code & 31 == 0 { 31 + from.long_length()? } else { code & 31 };
                let word = from.word()?;
                ((word >> 2) + 1, length, word & 3)
            }
            _ => {
                let high = usize::from(from.byte()?);
                let length =
                    if code >= 128 { 5 + ((code >> 5) & 3) } else { 3 + ((code >> 5) & 1) };
                ((high << 3) + ((code >> 2) & 7) + 1, length, code & 3)
            }
        };
        to.copy(distance, length)?;
        to.literals(&mut from, next)?;
        state = next;
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or_else(DecodeError::truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// 16 bits, little-endian.
    fn word(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// The rest of a length that did not fit its instruction: 255 for each zero
    /// byte, and the byte after them.
    fn long_length(&mut self) -> Result<usize, DecodeError> {
        let mut length = 0;
        // Longer than any block, and far from where a sum could overflow.
        while length < 1 << 30 {
            match self.byte()? {
                0 => length += 255,
                last => return Ok(length + usize::from(last)),
            }
        }
        Err(DecodeError::new("lzo: a length beyond any bound"))
    }
}

struct Output<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl Output<'_> {
    fn end(&self, count: usize) -> Result<usize, DecodeError> {
        match self.length + count {
            end if end <= self.bytes.len() => Ok(end),
            _ => Err(DecodeError::too_long(self.bytes.len())),
        }
    }

    fn literals(&mut self, from: &mut Input<'_>, count: usize) -> Result<(), DecodeError> {
        let end = self.end(count)?;
        let source = from.bytes.get(from.at..from.at + count).ok_or_else(DecodeError::truncated)?;
        self.bytes[self.length..end].copy_from_slice(source);
        from.at += count;
        self.length = end;
        Ok(())
    }

    fn copy(&mut self, distance: usize, count: usize) -> Result<(), DecodeError> {
        let end = self.end(count)?;
        let start = self
            .length
            .checked_sub(distance)
            .ok_or_else(|| DecodeError::new("lzo: a match reaches back before the block"))?;
        // A match may overlap its own output: what is there doubles with each step.
        while self.length < end {
            let step = (self.length - start).min(end - self.length);
            self.bytes.copy_within(start..start + step, self.length);
            self.length += step;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Encoder(Box<lzokay_native::Dict>);

impl Encode for Encoder {
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> Result<usize, EncodeError> {
        let result =
            lzokay_native::compress_with_dict(block, &mut self.0).map_err(EncodeError::new)?;
        output[..result.len()].copy_from_slice(&result);
        Ok(result.len())
    }
}
