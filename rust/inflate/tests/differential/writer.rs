//! Streams that no encoder writes: any code that the format allows, by hand or at random.

use cowcloop_inflate::Container;

use super::oracle::Random;

/// A stream that is written bit by bit.
#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
    /// Bits of the last byte that are used, 0 for all.
    used: u32,
    /// The bytes that the symbols so far stand for.
    pub written: usize,
    /// Symbols of a random block at most.
    pub longest: usize,
}

/// The lengths of the codes of a block.
pub struct Codes {
    pub literals: Vec<u8>,
    pub distances: Vec<u8>,
}

impl Codes {
    pub fn fixed() -> Self {
        let mut literals = vec![8; 288];
        literals[144..256].fill(9);
        literals[256..280].fill(7);
        Codes { literals, distances: vec![5; 32] }
    }

    /// Complete codes with so many symbols; the end of a block is one of them.
    pub fn random(random: &mut Random) -> Self {
        let count = 2 + random.below(284);
        let mut literals = vec![0; 286];
        for length in complete(random, count) {
            let free = |at: &usize| literals[*at] == 0;
            let at = if literals[256] == 0 {
                256
            } else {
                // Both ends of the alphabet have their turn.
                let from = [0, 257, random.below(286)][random.below(3)];
                (from..286).find(free).or_else(|| (0..286).find(free)).expect("one is free")
            };
            literals[at] = length;
        }
        let mut distances = vec![0; 30];
        match random.below(8) {
            // No code, or one of one bit: incomplete, as zlib accepts it.
            0 => {}
            1 => distances[random.below(30)] = 1,
            _ => {
                let count = 2 + random.below(29);
                let from = random.below(31 - count);
                distances[from..from + count].copy_from_slice(&complete(random, count));
            }
        }
        Codes { literals, distances }
    }
}

/// Lengths of a complete code, of up to 15 bits, for so many symbols.
pub fn complete(random: &mut Random, symbols: usize) -> Vec<u8> {
    let mut lengths = vec![1, 1];
    let steep = random.below(2) == 0;
    while lengths.len() < symbols {
        // The deepest code that can be split, or any.
        let mut at = random.below(lengths.len());
        if steep && lengths[lengths.len() - 1] < 15 {
            at = lengths.len() - 1;
        }
        if lengths[at] < 15 {
            lengths[at] += 1;
            lengths.push(lengths[at]);
        }
    }
    lengths
}

/// The codes of all symbols, the first bit lowest, each with its length.
fn codes(lengths: &[u8]) -> Vec<(u32, u32)> {
    let mut next = [0u32; 17];
    for &length in lengths.iter().filter(|&&length| length != 0) {
        (usize::from(length) + 1..17)
            .for_each(|longer| next[longer] += 1 << (longer - usize::from(length)));
    }
    let code = |&length: &u8| {
        let code = next[usize::from(length)];
        next[usize::from(length)] += 1;
        let length = u32::from(length);
        (code.reverse_bits().checked_shr(32 - length).unwrap_or(0), length)
    };
    lengths.iter().map(code).collect()
}

impl Writer {
    /// A stream with its header.
    pub fn new(container: Container) -> Self {
        // Miri takes its time.
        let longest = if cfg!(miri) { 300 } else { 3000 };
        let mut writer = Writer { longest, ..Writer::default() };
        if container == Container::Zlib {
            writer.bytes.extend([0x78, 0xda]);
        }
        writer
    }

    /// Bits, the lowest first.
    pub fn put(&mut self, bits: u32, count: u32) {
        let (mut bits, mut count) = (bits & ((1 << count) - 1), count);
        while count > 0 {
            if self.used == 0 {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().expect("a byte") |= (bits << self.used) as u8;
            let taken = count.min(8 - self.used);
            self.used = (self.used + taken) % 8;
            (bits, count) = (bits >> taken, count - taken);
        }
    }

    /// The rest of a byte.
    pub fn align(&mut self) {
        self.used = 0;
    }

    /// A symbol's code; nothing if it has none.
    pub fn symbol(&mut self, lengths: &[u8], symbol: usize) -> bool {
        let (code, length) = codes(lengths)[symbol];
        self.put(code, length);
        length != 0
    }

    pub fn stored(&mut self, last: bool, bytes: &[u8]) {
        self.put(last.into(), 3);
        self.align();
        let length = bytes.len() as u16;
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend((!length).to_le_bytes());
        self.bytes.extend(bytes);
        self.written += bytes.len();
    }

    /// A dynamic block's header.
    pub fn dynamic(&mut self, last: bool, block: &Codes) {
        self.put(u32::from(last) | 2 << 1, 3);
        self.put(block.literals.len() as u32 - 257, 5);
        self.put(block.distances.len() as u32 - 1, 5);
        self.put(15, 4);
        // Codes of five bits for lengths (0 and 18 share the last of the four-bit ones).
        let mut lengths = [4; 19];
        lengths[16] = 0;
        lengths[17] = 0;
        lengths[18] = 5;
        lengths[0] = 5;
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] {
            self.put(lengths[symbol].into(), 3);
        }
        let codes = codes(&lengths);
        let all: Vec<u8> = block.literals.iter().chain(&block.distances).copied().collect();
        let mut rest = &all[..];
        while let Some(&length) = rest.first() {
            let zeros = rest.iter().take(138).take_while(|&&length| length == 0).count();
            let taken = if zeros >= 11 {
                self.put(codes[18].0, codes[18].1);
                self.put(zeros as u32 - 11, 7);
                zeros
            } else {
                let (code, bits) = codes[usize::from(length)];
                self.put(code, bits);
                1
            };
            rest = &rest[taken..];
        }
    }

    /// Random symbols. With a chance of one in `wild`, a distance reaches too far.
    pub fn symbols(&mut self, random: &mut Random, codes: &Codes, count: usize, wild: usize) {
        let (literals, distances) = (self::codes(&codes.literals), self::codes(&codes.distances));
        let coded: Vec<_> = (0..286).filter(|&at| at != 256 && codes.literals[at] != 0).collect();
        let near: Vec<_> =
            (0..30.min(codes.distances.len())).filter(|&at| codes.distances[at] != 0).collect();
        for _ in 0..count {
            let Some(&symbol) = coded.get(random.below(coded.len())) else { return };
            if symbol < 256 {
                self.put(literals[symbol].0, literals[symbol].1);
                self.written += 1;
                continue;
            }
            let wild = wild != 0 && random.below(wild) == 0;
            let reach =
                |at: usize| if at < 2 { at + 1 } else { 1 + ((2 + at % 2) << (at / 2 - 1)) };
            let usable = near.iter().filter(|&&at| wild || reach(at) <= self.written).count();
            let Some(&distance) = near[..usable].get(random.below(usable)) else { continue };
            self.put(literals[symbol].0, literals[symbol].1);
            let extra = if (265..285).contains(&symbol) { (symbol - 261) / 4 } else { 0 };
            let more = random.below(1 << extra);
            self.put(more as u32, extra as u32);
            let length = match symbol {
                285 => 258,
                257..265 => symbol - 254,
                _ => 3 + ((4 + (symbol - 265) % 4) << extra) + more,
            };
            self.put(distances[distance].0, distances[distance].1);
            let extra = if distance < 2 { 0 } else { distance / 2 - 1 };
            let mut more = random.below(1 << extra);
            if !wild {
                more = more.min(self.written - reach(distance));
            }
            self.put(more as u32, extra as u32);
            self.written += length;
        }
    }

    /// A block of a random kind.
    pub fn block(&mut self, random: &mut Random, last: bool, wild: usize) {
        let count = [0, 1, 5, random.below(60), random.below(self.longest)][random.below(5)];
        let codes = match random.below(8) {
            0 => {
                let bytes: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
                return self.stored(last, &bytes);
            }
            1 => {
                self.put(u32::from(last) | 1 << 1, 3);
                Codes::fixed()
            }
            _ => {
                let codes = Codes::random(random);
                self.dynamic(last, &codes);
                codes
            }
        };
        self.symbols(random, &codes, count, wild);
        self.symbol(&codes.literals, 256);
    }

    /// The stream, with the trailer that zlib-ng expects.
    pub fn finish(mut self, container: Container) -> Vec<u8> {
        if container == Container::Zlib {
            self.align();
            let mut inflater = flate2::Decompress::new(false);
            let mut output = vec![0; self.written + 300];
            let finish = flate2::FlushDecompress::Finish;
            // The sum of a bad stream does not matter.
            let _ = inflater.decompress(&self.bytes[2..], &mut output, finish);
            let mut adler = simd_adler32::Adler32::new();
            adler.write(&output[..inflater.total_out() as usize]);
            self.bytes.extend(adler.finish().to_be_bytes());
        }
        self.bytes
    }
}
