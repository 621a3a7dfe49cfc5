//! A small generator of numbers.

/// The same numbers for the same seed.
#[derive(Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// Nothing, all, or anything between, as often.
    pub fn pick(&mut self, choices: usize) -> usize {
        match self.below(3) {
            0 => 0,
            1 => choices - 1,
            _ => self.below(choices),
        }
    }
}
